"""What a response says of its own life: who may keep it, how long it is fresh, how old it came (RFC 9111, 5861)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from edged.http.fields import Fields, date_of, members_of, read_date, values_of
from edged.proxy.rules.directives import FOREVER_S, Directives, directives_of, read_seconds
from edged.proxy.rules.structured import read_targeted

# RFC 9213 section 2.2: ours first, then the one for every intermediary near the client.
TARGETED = (b"edged-cache-control", b"cdn-cache-control")
POLICY_FIELDS = frozenset((*TARGETED, b"cache-control"))
REMEMBERED_BYTES = 512
# RFC 9110 section 15.1: a lifetime may be guessed for these.
HEURISTIC_STATUSES = frozenset((200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501))
# Statuses whose caching rules this cache knows, as must-understand asks (RFC 9111 section 5.2.2.3).
UNDERSTOOD_STATUSES = HEURISTIC_STATUSES | frozenset((302, 303, 307, 400, 403, 500, 502, 503, 504))
HEURISTIC_SHARE = 0.1  # of the time since Last-Modified (RFC 9111 section 4.2.2)
HEURISTIC_MAX_S = 86_400


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """A response's own wishes. Seconds; None: not said. listed: fields not to be kept (no-cache="…", private="…")."""

    no_store: bool
    private: bool
    no_cache: bool
    must_revalidate: bool  # must-revalidate, proxy-revalidate or s-maxage: never stale (section 4.2.4)
    shared_with_credentials: bool  # section 3.5: may answer others although the request had Authorization
    public: bool
    immutable: bool
    max_age_s: int | None
    while_revalidate_s: int
    if_error_s: int | None
    listed: tuple[bytes, ...]
    targeted: bool


def read_policy(status: int, fields: Fields) -> CachePolicy:
    """Read Cache-Control, or the targeted field that takes its place."""
    lines = tuple(pair for pair in fields if pair[0] in POLICY_FIELDS)
    small = sum(len(value) for _, value in lines) <= REMEMBERED_BYTES
    return remembered_policy(status, lines) if small else make_policy(status, lines)


@lru_cache(maxsize=256)  # a service says the same of most of its answers
def remembered_policy(status: int, lines: Fields) -> CachePolicy:
    return make_policy(status, lines)


def make_policy(status: int, fields: Fields) -> CachePolicy:
    found = None
    for name in TARGETED:
        found = found or read_targeted(values_of(fields, name))
    directives = found if found is not None else directives_of(fields)
    understood = b"must-understand" in directives and status in UNDERSTOOD_STATUSES
    unknown = b"must-understand" in directives and status not in UNDERSTOOD_STATUSES
    shared = b"s-maxage" in directives
    return CachePolicy(
        no_store=unknown or (b"no-store" in directives and not understood),
        private=directives.flag(b"private"),
        no_cache=directives.flag(b"no-cache"),
        must_revalidate=shared or b"must-revalidate" in directives or b"proxy-revalidate" in directives,
        shared_with_credentials=shared or b"must-revalidate" in directives or b"public" in directives,
        public=b"public" in directives,
        immutable=b"immutable" in directives,
        max_age_s=explicit_seconds(directives),
        while_revalidate_s=directives.seconds(b"stale-while-revalidate") or 0,
        if_error_s=directives.seconds(b"stale-if-error"),
        listed=tuple(directives.listed(b"no-cache") + directives.listed(b"private")),
        targeted=found is not None,
    )


def explicit_seconds(directives: Directives) -> int | None:
    """s-maxage, else max-age, else None. Expires needs the time of receipt, and is left to `lifetime_s`."""
    for name in (b"s-maxage", b"max-age"):
        seconds = directives.seconds(name)
        if seconds is not None:
            return seconds
    return None


def lifetime_s(status: int, fields: Fields, policy: CachePolicy, received_s: float | None) -> tuple[int, bool]:
    """Seconds of freshness, and whether they were said and not guessed (RFC 9111 section 4.2.1).

    received_s: the time of receipt, seconds since 1970, or None if the clock is not set: then an Expires without Date
    counts as past, since a clock at 1970 would make it last for decades.
    """
    if policy.max_age_s is not None:
        return policy.max_age_s, True
    date = date_of(fields, b"date")
    base = float(date) if date is not None else received_s
    lines = values_of(fields, b"expires")
    if lines and not policy.targeted:
        expires = read_date(lines[0]) if len(lines) == 1 else None
        if expires is None or base is None:
            return 0, True
        return min(max(0, int(expires - base)), FOREVER_S), True
    if status not in HEURISTIC_STATUSES and not policy.public:
        return 0, False
    modified = date_of(fields, b"last-modified")
    if modified is None or base is None or modified > base:
        return 0, False
    return min(int((base - modified) * HEURISTIC_SHARE), HEURISTIC_MAX_S), False


def initial_age_s(fields: Fields, delay_s: float, received_s: float | None) -> float:
    """corrected_initial_age (RFC 9111 section 4.2.3). delay_s: from our request to the response's head.

    An Age that is no number is ignored, the first of several counts (section 5.1). The Date is compared with our
    clock only when that is set.
    """
    members = members_of(fields, b"age")
    age = read_seconds(members[0]) if members else None
    date = date_of(fields, b"date")
    apparent = max(0.0, received_s - date) if received_s is not None and date is not None else 0.0
    return max(apparent, (age or 0) + max(0.0, delay_s))
