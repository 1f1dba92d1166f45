"""The cache's decisions (RFC 9111), without I/O: times come in as arguments.

Times are seconds on one line that only grows while the machine is up, whatever the clock does; a response received
before that line can be read back to has no time of receipt (None): it is not fresh, but it may serve while upstream
cannot be reached.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from edged.http.fields import Fields, date_of, value_of, write_date
from edged.http.validators import precondition_failed
from edged.proxy.rules.directives import FOREVER_S, Directives, directives_of
from edged.proxy.rules.freshness import HEURISTIC_STATUSES, CachePolicy, initial_age_s, lifetime_s, read_policy
from edged.proxy.rules.invalidation import read_groups
from edged.proxy.rules.keys import has_cookie, has_credentials
from edged.proxy.rules.validation import freshened, validators, without_hop_by_hop
from edged.proxy.rules.vary import Selecting, select, vary_names

FAILING_STATUSES = frozenset((500, 502, 503, 504))  # RFC 5861 section 4
# Answers to one request or connection and not about a resource; kept, they would refuse everyone.
OF_ONE_REQUEST = frozenset((206, 304, 407, 408, 411, 412, 413, 415, 416, 417, 421, 425, 426, 428, 429, 431, 511))
Scope = Literal["no", "shared", "private"]


@dataclass(frozen=True, slots=True)
class CacheRequest:
    """A request as the rules see it: as it goes upstream, without the fields of its connection. Names in lower case."""

    method: bytes
    url: bytes  # of the upstream, absolute
    fields: Fields
    directives: Directives

    @property
    def has_credentials(self) -> bool:
        return has_credentials(self.fields)

    @property
    def pins_version(self) -> bool:
        """Whether it is meant for one version alone (If-Match, If-Unmodified-Since): the upstream is to judge that."""
        return any(name in (b"if-match", b"if-unmodified-since") for name, _ in self.fields)


def read_request(method: bytes, url: bytes, fields: Fields) -> CacheRequest:
    return CacheRequest(method, url, fields, directives_of(fields))


@dataclass(frozen=True, slots=True)
class Windows:
    """How long past freshness a response may still serve, seconds: while upstream cannot be reached, and while it
    answers with an error. A response's own stale-if-error counts where it is longer."""

    offline_s: int
    if_error_s: int


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A stored response: what it was, and what follows from it. size: bytes of the body. order: its storing number.
    private: kept for one app, or one set of credentials, alone."""

    url: bytes
    status: int
    fields: Fields
    size: int
    received_s: float | None
    initial_age_s: float
    lifetime_s: int
    explicit: bool
    selecting: Selecting
    groups: tuple[str, ...]
    order: int
    private: bool
    policy: CachePolicy

    def age_s(self, now_s: float) -> float:
        """current_age (RFC 9111 section 4.2.3); without a time of receipt older than everything."""
        if self.received_s is None:
            return float(FOREVER_S)
        return self.initial_age_s + max(0.0, now_s - self.received_s)

    def ttl_s(self, now_s: float) -> float:
        """Freshness left; negative once stale."""
        return self.lifetime_s - self.age_s(now_s)

    def whole_ttl_s(self, now_s: float) -> int:
        """Freshness left in whole seconds; with the whole Age it adds up to the lifetime at any moment."""
        return self.lifetime_s - int(self.age_s(now_s))

    def validators(self) -> Fields:
        return validators(self.fields)


@dataclass(frozen=True, slots=True)
class Serve:
    """Answer from the store. stale: past its freshness; refresh: and fetch it anew in the background (RFC 5861)."""

    stale: bool = False
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Go upstream. conditions: fields that ask whether the stored response still holds; why: Cache-Status fwd."""

    why: Literal["uri-miss", "stale", "request"]
    conditions: Fields = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """only-if-cached, and nothing stored may answer: 504."""


Decision = Serve | Ask | Refuse


def decide(request: CacheRequest, entry: CacheEntry | None, now_s: float) -> Decision:
    """What to do with a GET or HEAD (RFC 9111 section 4)."""
    wishes = request.directives
    if entry is None or not may_reuse(request, entry):
        return Refuse() if b"only-if-cached" in wishes else Ask("uri-miss")
    if precondition_failed(request.fields, entry.fields):
        return Refuse() if b"only-if-cached" in wishes else Ask("request")
    if b"no-store" in wishes and b"only-if-cached" not in wishes:
        return Ask("request")
    ttl_s, age_s = entry.ttl_s(now_s), entry.age_s(now_s)
    fresh = ttl_s > 0 and not entry.policy.no_cache
    if fresh and accepts(wishes, entry, age_s, ttl_s):
        return Serve()
    if b"only-if-cached" in wishes:
        return Serve(stale=True) if tolerates(wishes, entry, ttl_s) else Refuse()
    if fresh:
        return Ask("request", conditions_of(request, entry))
    if not entry.policy.no_cache and b"no-cache" not in wishes and b"max-age" not in wishes:
        if tolerates(wishes, entry, ttl_s):
            return Serve(stale=True)
        if not entry.policy.must_revalidate and b"min-fresh" not in wishes and -ttl_s < entry.policy.while_revalidate_s:
            return Serve(stale=True, refresh=True)
    return Ask("stale", conditions_of(request, entry))


def conditions_of(request: CacheRequest, entry: CacheEntry) -> Fields:
    """The fields that ask whether a stored response holds; none where the request has such a condition of its own."""
    return () if request.pins_version else entry.validators()


def may_reuse(request: CacheRequest, entry: CacheEntry) -> bool:
    """A request with credentials is answered from the shared store only with what says that it is for all; one with
    cookies not with what nobody has said how long to keep."""
    if entry.private:
        return True
    if not entry.explicit and not entry.policy.public and has_cookie(request.fields):
        return False
    return not request.has_credentials or entry.policy.shared_with_credentials


def accepts(wishes: Directives, entry: CacheEntry, age_s: float, ttl_s: float) -> bool:
    """Whether a fresh response is fresh enough for a request (section 5.2.1).

    An immutable response is not asked about while fresh, unless no-cache demands it (RFC 8246 section 2).
    """
    if b"no-cache" in wishes:
        return False
    max_age_s, min_fresh_s = wishes.seconds(b"max-age"), wishes.seconds(b"min-fresh")
    if max_age_s is not None and age_s > max_age_s and not entry.policy.immutable:
        return False
    if max_age_s == 0 and not entry.policy.immutable:
        return False
    return min_fresh_s is None or ttl_s >= min_fresh_s


def tolerates(wishes: Directives, entry: CacheEntry, ttl_s: float) -> bool:
    """Whether a request takes a stale response (max-stale), and the response lets it."""
    if b"max-stale" not in wishes or entry.policy.must_revalidate or entry.policy.no_cache:
        return False
    limit_s = wishes.seconds(b"max-stale") if wishes.values[b"max-stale"] is not None else FOREVER_S
    return -ttl_s <= (limit_s or 0)


def may_serve_failing(
    request: CacheRequest, entry: CacheEntry, now_s: float, windows: Windows, *, unreachable: bool
) -> bool:
    """Whether a stored response may answer although upstream cannot be reached, or answers with an error.

    Never against the response's own no-cache or must-revalidate, nor a request's no-cache (RFC 9111 section 4.2.4).
    A time of receipt that is unknown is no reason to leave an app without its data.
    """
    policy, wishes = entry.policy, request.directives
    if precondition_failed(request.fields, entry.fields):
        return False
    if policy.no_cache or policy.must_revalidate or b"no-cache" in wishes or not may_reuse(request, entry):
        return False
    window_s = max(
        windows.offline_s if unreachable else windows.if_error_s,
        policy.if_error_s or 0,
        wishes.seconds(b"stale-if-error") or 0,
    )
    if entry.received_s is None:
        return window_s > 0
    return -entry.ttl_s(now_s) <= window_s


@dataclass(frozen=True, slots=True)
class Receipt:
    """When an answer's head came. now_s: on the line of times; wall_s: since 1970, None while the clock is not set;
    delay_s: since the request was sent."""

    now_s: float
    wall_s: float | None
    delay_s: float


@dataclass(frozen=True, slots=True)
class Received:
    """An upstream's answer, with the fields that may be passed on, and what it says of its keeping."""

    status: int
    fields: Fields
    receipt: Receipt
    policy: CachePolicy


def receive(status: int, fields: Fields, receipt: Receipt) -> Received:
    """An answer that gets a Date where it has none that can be read."""
    dated = received_fields(fields, receipt)
    return Received(status, dated, receipt, read_policy(status, dated))


def received_fields(fields: Fields, receipt: Receipt) -> Fields:
    """Fields with a Date: the time of receipt where the answer has none that can be read (RFC 9110 section 6.6.1)."""
    if date_of(fields, b"date") is not None or receipt.wall_s is None:
        return fields
    return (*(pair for pair in fields if pair[0] != b"date"), (b"date", write_date(receipt.wall_s)))


def storing_scope(request: CacheRequest, received: Received, *, private_allowed: bool) -> Scope:
    """Whether and for whom an answer may be stored (RFC 9111 section 3).

    private_allowed: who asks is one app that is known by name, for which edged is a private cache.
    """
    status, fields, policy = received.status, received.fields, received.policy
    if policy.no_store or b"no-store" in request.directives or vary_names(fields) is None:
        return "no"
    if request.method not in (b"GET", b"POST") or status < 200 or status in OF_ONE_REQUEST:
        return "no"
    explicit = policy.max_age_s is not None or value_of(fields, b"expires") is not None
    if request.method == b"POST" and not (explicit and value_of(fields, b"content-location") is not None):
        return "no"
    if not (explicit or policy.public or policy.private or status in HEURISTIC_STATUSES):
        return "no"
    if not (explicit or policy.public) and value_of(fields, b"set-cookie") is not None:
        return "no"
    one_person = request.has_credentials and not policy.shared_with_credentials
    guessed = not (explicit or policy.public) and has_cookie(request.fields)
    if policy.private or one_person or guessed:
        return "private" if private_allowed else "no"
    return "shared"


def unkept(policy: CachePolicy) -> tuple[bytes, ...]:
    """The names of fields that are not stored: what the response says of them, and cookies, which are for who asked,
    unless it says that all of it is for everyone."""
    return policy.listed if policy.public else (b"set-cookie", *policy.listed)


def make_entry(request: CacheRequest, received: Received, *, size: int, order: int, private: bool) -> CacheEntry:
    """The entry of an answer that may be stored."""
    status, fields, receipt, policy = received.status, received.fields, received.receipt, received.policy
    lifetime, explicit = lifetime_s(status, fields, policy, receipt.wall_s)
    dropped = {b"age", b"cache-status", *unkept(policy)}
    return CacheEntry(
        url=request.url,
        status=status,
        fields=tuple(pair for pair in without_hop_by_hop(fields) if pair[0] not in dropped),
        size=size,
        received_s=receipt.now_s,
        initial_age_s=initial_age_s(fields, receipt.delay_s, receipt.wall_s),
        lifetime_s=lifetime,
        explicit=explicit,
        selecting=select(vary_names(fields) or (), request.fields),
        groups=read_groups(fields, b"cache-groups"),
        order=order,
        private=private,
        policy=policy,
    )


def still_stored(request: CacheRequest, entry: CacheEntry) -> bool:
    """Whether an entry that a 304 or a HEAD has freshened may be kept where it lies: what they say of keeping counts
    as it would with a whole answer."""
    if not entry.private and request.has_credentials and not entry.policy.shared_with_credentials:
        return False
    return not entry.policy.no_store and (entry.private or not entry.policy.private)


def freshen(entry: CacheEntry, fields: Fields, receipt: Receipt) -> CacheEntry:
    """The entry after a 304 (or a HEAD's 200) that speaks of it."""
    updated = freshened(entry.fields, received_fields(fields, receipt))
    policy = read_policy(entry.status, updated)
    lifetime, explicit = lifetime_s(entry.status, updated, policy, receipt.wall_s)
    return replace(
        entry,
        fields=tuple(pair for pair in updated if pair[0] not in (b"cache-status", *unkept(policy))),
        received_s=receipt.now_s,
        initial_age_s=initial_age_s(fields, receipt.delay_s, receipt.wall_s),
        lifetime_s=lifetime,
        explicit=explicit,
        groups=read_groups(updated, b"cache-groups") or entry.groups,
        policy=policy,
    )


def is_worth_keeping(entry: CacheEntry) -> bool:
    """Whether it saves anything later: it is fresh for a while, or can be asked about. Else flash is spared."""
    return entry.lifetime_s > 0 or bool(entry.validators())


def is_shareable(entry: CacheEntry) -> bool:
    """Whether requests that came while it was fetched may have it too (RFC 9111 section 4, collapsed requests)."""
    return not entry.policy.no_cache and entry.lifetime_s > entry.initial_age_s
