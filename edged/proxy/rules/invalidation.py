"""What an answered request makes invalid: its URL, those it names, cache groups (RFC 9111 section 4.4, RFC 9875)."""

from __future__ import annotations

from collections import OrderedDict
from urllib.parse import urljoin, urlsplit

from edged.http.fields import Fields, value_of, values_of
from edged.proxy.rules.structured import Malformed, read_list

SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
MAX_GROUPS = 32  # of one response
GROUP_CHARACTERS = 32  # RFC 9875 section 2: a cache must take at least these
MAX_INVALIDATED = 1024  # groups remembered as invalid


def invalidates(method: bytes, status: int) -> bool:
    """Whether an answer makes what is stored for its URL invalid: unsafe, and no error."""
    return method not in SAFE_METHODS and 200 <= status < 400


def invalid_urls(url: bytes, fields: Fields) -> tuple[bytes, ...]:
    """The URL itself, and those of Location and Content-Location where they are of the same origin."""
    urls = [url]
    for name in (b"location", b"content-location"):
        value = value_of(fields, name)
        if value is None:
            continue
        other = resolve(url, value)
        if other is not None and other not in urls:
            urls.append(other)
    return tuple(urls)


def resolve(base: bytes, reference: bytes) -> bytes | None:
    """A reference resolved against a URL, without its fragment; None if it is of another origin or cannot be read."""
    try:
        joined = urljoin(base.decode("ascii"), reference.decode("ascii"))
        one, other = urlsplit(base.decode("ascii")), urlsplit(joined)
        if (one.scheme, one.hostname, one.port) != (other.scheme, other.hostname, other.port):
            return None
    except (UnicodeDecodeError, ValueError):
        return None
    return joined.partition("#")[0].encode("ascii")


def read_groups(fields: Fields, name: bytes) -> tuple[str, ...]:
    """The strings of Cache-Groups or Cache-Group-Invalidation; none where the field is malformed."""
    lines = values_of(fields, name)
    if not lines:
        return ()
    try:
        items = read_list(b", ".join(lines))
    except Malformed:
        return ()
    texts = [item for item in items if isinstance(item, str) and len(item) <= GROUP_CHARACTERS]
    return tuple(dict.fromkeys(texts))[:MAX_GROUPS]


class GroupLedger:
    """Which groups of which origin are invalid since when, bounded.

    Times are storing numbers (they only grow). A group forgotten for want of room makes everything of any group that
    was stored before it invalid: too much is fetched again, never too little.
    """

    def __init__(self, limit: int = MAX_INVALIDATED) -> None:
        self.limit = limit
        self.since: OrderedDict[tuple[bytes, str], int] = OrderedDict()
        self.floor = 0

    def invalidate(self, origin: bytes, groups: tuple[str, ...], order: int) -> None:
        for group in groups:
            self.since.pop((origin, group), None)
            self.since[origin, group] = order
        while len(self.since) > self.limit:
            _, forgotten = self.since.popitem(last=False)
            self.floor = max(self.floor, forgotten)

    def holds(self, origin: bytes, groups: tuple[str, ...], order: int) -> bool:
        """Whether a response of these groups, stored as number `order`, is still valid."""
        if not groups:
            return True
        return order > self.floor and all(order > self.since.get((origin, group), 0) for group in groups)

    def dump(self) -> list[object]:
        return [self.floor, [[origin, group, order] for (origin, group), order in self.since.items()]]

    def load(self, data: list[object]) -> None:
        """Take what `dump` gave. Raises ValueError, TypeError or KeyError for anything else, and is then unchanged."""
        floor, rows = data
        if not isinstance(floor, int) or not isinstance(rows, list) or len(rows) > self.limit:
            raise ValueError("not a ledger of groups")
        since: OrderedDict[tuple[bytes, str], int] = OrderedDict()
        for origin, group, order in rows:
            if not (isinstance(origin, bytes) and isinstance(group, str) and isinstance(order, int)):
                raise ValueError("not a ledger of groups")
            since[origin, group] = order
        self.floor, self.since = floor, since


def origin_of(url: bytes) -> bytes:
    """scheme://host:port of a URL."""
    scheme, _, rest = url.partition(b"://")
    return scheme + b"://" + rest.partition(b"/")[0]
