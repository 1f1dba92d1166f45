"""What every handler is given (the service, a request, what it is answered from), and how its answer is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

import trio

from edged.errors import DamageError, EdgedError, QueryError, RequestError, StoreError
from edged.http.application import DATE, Answer, Response, Shared, TimedFields
from edged.http.cors import CorsRule
from edged.http.fields import Fields, write_date
from edged.http.hosts import HostRule
from edged.http.problem import make_problem
from edged.http.request import Request
from edged.http.validators import names_tag
from edged.serve.allowed import Scope, scope_of, whole_of
from edged.serve.answers.dictionary import DICTIONARY, Dictionaries, offers_dcz
from edged.serve.answers.negotiate import Format, choose_coding, refuses_identity
from edged.serve.answers.query import record_at
from edged.serve.answers.render import LEAST_CODED_BYTES, Renderer, entity_tag
from edged.serve.catalog import Catalog, Clock, Dataset, View
from edged.serve.damage import DamageReports
from edged.serve.news import News

# A local replica answers in microseconds and may change any second: ask each time, and take 304 for an answer.
CACHE_CONTROL = b"no-cache"
RETRY_S = b"2"
# What pages of other origins may read of an answer, and send (CORS).
EXPOSED = (
    b"ETag, Link, Age, Edged-Version, Edged-State, Edged-Time, Edged-Next-Change, Edged-Total, Edged-Warning, "
    b"Retry-After, Cache-Status"
)
# Cache-Control is what polyfills of EventSource send.
ACCEPTED = b"Accept, Authorization, Cache-Control, If-None-Match, Last-Event-ID"
# The fields of a request that anything here looks at: no other decides an answer.
DECIDING = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"authorization",
        b"available-dictionary",
        b"host",
        b"if-none-match",
        b"last-event-id",
        b"origin",
    }
)

State = Literal["fresh", "stale", "expired"]


@dataclass(frozen=True, slots=True)
class DataAge:
    """When the data of an answer was signed, and for how long it counts as what. Seconds."""

    as_of: int
    fresh_s: int
    expires_s: int

    @classmethod
    def of(cls, view: View) -> DataAge:
        return cls(view.as_of, view.fresh_s, view.expires_s)

    def age_s(self, now: float) -> int:
        return max(0, int(now) - self.as_of)

    def state(self, now: float) -> State:
        age = self.age_s(now)
        return "fresh" if age <= self.fresh_s else "stale" if age <= self.expires_s else "expired"

    def fields(self, now: float) -> Fields:
        """The fields that change while the data does not."""
        state = self.state(now).encode()
        return ((b"Date", write_date(now)), (b"Edged-State", state), (b"Age", b"%d" % self.age_s(now)))


@dataclass(slots=True, eq=False)
class Service:
    """One serving process. slow: how many slow answers are made at once, in threads; damage: where it is told; coding:
    how many answers are being coded piece by piece; vary: the fields that decide every answer; rights: a number that
    moves when what apps may ask for changes, at which nothing remembered is renewed.
    """

    catalog: Catalog
    news: News
    clock: Clock
    renderer: Renderer
    hosts: HostRule
    cors: CorsRule
    slow: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(2))
    damage: DamageReports = field(default_factory=DamageReports)
    dictionaries: Dictionaries = field(default_factory=Dictionaries)
    coding: int = 0
    rights: int = 0
    ages: dict[Scope, tuple[View, DataAge]] = field(default_factory=dict)
    vary: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.vary = b"Accept, Accept-Encoding, Origin" if self.cors.origins else b"Accept, Accept-Encoding"

    def age_of(self, view: View) -> DataAge:
        """The same object for the same view."""
        view = whole_of(view)
        known = self.ages.get(scope_of(view))
        if known is None or known[0] is not view:
            known = self.ages[scope_of(view)] = (view, DataAge.of(view))
        return known[1]


class Since(NamedTuple):
    """What an app has read: a version, and the time of the view where that is known."""

    version: int
    time: int | None = None


@dataclass(slots=True)
class Inquiry:
    """One request of an app, and what it is answered from. now: seconds since 1970; may_hold: False when it was held
    already; in_thread: whether milliseconds may be taken here; dataset, view, collection: None as long as it is not
    known which, or where it is of no single one; generation: of the dataset's signal before its view was taken; since:
    from where a request counts that was held; warning: what of the request is likely to be a slip, "" for nothing.
    """

    service: Service
    request: Request
    now: float
    may_hold: bool = True
    in_thread: bool = False
    dataset: Dataset | None = None
    view: View | None = None
    collection: str | None = None
    generation: int = 0
    since: Since | None = None
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """How long an answer is good for. cache: its Cache-Control; keep: whether it is the same for the whole version;
    extra: fields of its own.
    """

    cache: bytes = CACHE_CONTROL
    keep: bool = True
    extra: Fields = ()


PER_VERSION, PER_MOMENT = Kept(), Kept(keep=False)


def warnings(inquiry: Inquiry) -> Fields:
    """Of an answer to a request that is likely to hold a slip."""
    return ((b"Edged-Warning", inquiry.warning.encode()),) if inquiry.warning else ()


def respond(
    inquiry: Inquiry,
    body: bytes,
    form: Format,
    *,
    links: tuple[bytes, ...] = (),
    kept: Kept = PER_VERSION,
    content: int = 0,
) -> Response:
    """200 with `body` in the coding that the client likes, or 304. content: a hash of the record that `body` is the
    whole value of, so that it can be told whether a later version has it too. Raises RequestError 406, DamageError.
    """
    service, request, view = inquiry.service, inquiry.request, inquiry.view
    accepted = request.get(b"accept-encoding")
    vary, cors = service.vary, service.cors.fields(request)
    trained = None
    timed: TimedFields = DATE
    if view is not None:
        timed = service.age_of(view)
        content = 0 if view.part else content  # the record may be in another slice then
        if inquiry.collection is not None and offers_dcz(accepted) and form is not DICTIONARY:
            trained = service.dictionaries.of(view, inquiry.collection)
            vary += b", Available-Dictionary"
            content = 0  # another version may have another dictionary, or none
    held = trained is not None and request.get(b"available-dictionary") == trained.available
    if trained is not None and not held and trained.link not in links:
        links += (trained.link,)
    coding = "identity" if accepted is None else choose_coding(accepted, held)
    if coding != "identity" and len(body) < LEAST_CODED_BYTES and not refuses_identity(accepted):
        coding = "identity"
    tag = entity_tag(body, form.name, coding, trained)
    own: Fields = ((b"ETag", tag.encode()), *kept.extra, *warnings(inquiry))
    if links:
        own = (*own, (b"Link", b", ".join(links)))
    known = request.values.get(b"if-none-match")
    renewing = service if content else None
    if known is not None and names_tag(known, tag.encode()):
        shared = shared_fields(
            Representation(None, coding, vary, cors, kept.cache), read_from(view), renewing, service.rights
        )
        return Response(304, own, b"", timed, kept.keep, shared, content=content, common=True)
    if coding != "identity":
        body = service.renderer.coded(body, tag, coding, trained)
    own = (*own, (b"Content-Length", b"%d" % len(body)))
    shared = shared_fields(
        Representation(form, coding, vary, cors, kept.cache), read_from(view), renewing, service.rights
    )
    return Response(200, own, body, timed, kept.keep, shared, content=content, common=True)


class Representation(NamedTuple):
    """What answers have alike at any version. form: None of a 304; cors: the fields for an origin; cache: their
    Cache-Control.
    """

    form: Format | None
    coding: str
    vary: bytes
    cors: Fields
    cache: bytes


def contain(inquiry: Inquiry, make: Callable[[Inquiry], Answer]) -> Answer:
    """What `make` gives. Faults of a request are problem details, a broken replica is a 503."""
    try:
        return make(inquiry)
    except RequestError as fault:
        return problem(inquiry, fault)
    except QueryError as fault:
        return problem(inquiry, RequestError(400, str(fault)))
    except StoreError as fault:
        if isinstance(fault, DamageError) and inquiry.dataset is not None:
            inquiry.service.damage.report(inquiry.dataset.name, fault, inquiry.view)
        return problem(inquiry, RequestError(503, str(fault), headers=(("Retry-After", RETRY_S.decode()),)))
    except EdgedError as fault:
        return problem(inquiry, RequestError(500, str(fault)))


def read_from(view: View | None) -> Fields:
    """What an answer says of the view that it was read from."""
    if view is None:
        return ()
    version = (b"Edged-Version", b"%d" % view.version)
    if not view.time:
        return (version,)
    time = (b"Edged-Time", b"%d" % view.time)
    try:
        following = view.next_change
    except DamageError:  # of which every read of the records tells
        following = None
    return (version, time) if following is None else (version, time, (b"Edged-Next-Change", b"%d" % following))


@lru_cache(maxsize=128)
def shared_fields(
    represented: Representation, source: Fields, renewing: Service | None = None, rights: int = 0
) -> Shared:
    """The fields of all answers of a representation, read from a view. renewing: of answers that are one record's;
    rights: of the service as they are now."""
    form, coding, vary, cors, cache = represented
    fields = [(b"Cache-Control", cache), (b"Vary", vary), *cors, *source]
    if form is not None:
        fields += ((b"Content-Type", form.media.encode()), (b"X-Content-Type-Options", b"nosniff"))
        if coding != "identity":
            fields.append((b"Content-Encoding", coding.encode()))
    return Shared.of(tuple(fields), None if renewing is None else RecordRenewal(renewing, represented, rights))


@dataclass(frozen=True, slots=True)
class RecordRenewal:
    """A Renewal of answers that are one record's value: they are the same as long as the record's bytes are, and what
    apps may ask for.
    """

    service: Service
    represented: Representation
    rights: int

    def renew(self, target: bytes, content: int) -> tuple[TimedFields, Shared] | None:
        service = self.service
        if service.rights != self.rights:
            return None
        try:
            found = record_at(service.catalog, target)
            raw = None if found is None else found.view.get_raw(found.collection, found.key)
        except EdgedError:
            return None  # whoever answers the request anew meets it too, and says so
        if found is None or raw is None or hash(raw) != content:
            return None
        return service.age_of(found.view), shared_fields(self.represented, read_from(found.view), service, self.rights)


def problem(inquiry: Inquiry, fault: RequestError) -> Response:
    """RFC 9457. Its entity tag is there for uniformity; conditions apply to successes alone."""
    service, view = inquiry.service, inquiry.view
    standard, body = make_problem(fault.status, str(fault))
    fields: list[tuple[bytes, bytes]] = [
        *standard,
        (b"X-Content-Type-Options", b"nosniff"),
        (b"ETag", entity_tag(body, "problem", "identity").encode()),
        (b"Vary", service.vary),
        *((name.encode(), value.encode()) for name, value in fault.headers),
        *service.cors.fields(inquiry.request),
    ]
    if view is None:
        return Response(fault.status, tuple(fields), body)
    return Response(fault.status, (*fields, *read_from(view)), body, service.age_of(view))
