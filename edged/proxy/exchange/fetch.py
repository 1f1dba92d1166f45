"""Going upstream for a GET or HEAD, as the owner of a flight or alone: what comes is judged, stored and sent on."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import partial

import trio

from edged.errors import TransportError
from edged.http.fields import DIGITS, Fields, value_of
from edged.http.validators import CONDITIONS
from edged.proxy.exchange.context import Context
from edged.proxy.exchange.counters import Counters
from edged.proxy.exchange.flight import Body, BodyReader, Flight
from edged.proxy.rules.decisions import (
    FAILING_STATUSES,
    Ask,
    CacheEntry,
    Receipt,
    Windows,
    freshen,
    is_shareable,
    is_worth_keeping,
    make_entry,
    may_reuse,
    may_serve_failing,
    receive,
    still_stored,
    storing_scope,
)
from edged.proxy.rules.digest import DigestCheck
from edged.proxy.rules.forward import answer_fields, upstream_fields
from edged.proxy.rules.status import CacheStatus, Forward
from edged.proxy.rules.validation import same_length, same_representation
from edged.proxy.store.cache import Cache
from edged.proxy.store.memory import StoredResponse
from edged.proxy.upstream.guarded import Tell
from edged.proxy.upstream.upstream import AnswerError, UpstreamAnswer

UNSHARED_S = 10.0  # how long requests for what was not shared do not wait for one another
MAX_UNSHARED = 4096


@dataclass(slots=True)
class Fetch:
    """One way upstream: for which request, with what in hand, in which flight, and when it began.

    interim: told of each 1xx.
    whole: the request's own range and conditions do not count: the response is wanted as it is stored.
    """

    context: Context
    held: StoredResponse | None
    ask: Ask
    flight: Flight | None = None
    interim: Tell | None = None
    whole: bool = False
    order: int = 0
    sent_s: float = 0.0


@dataclass(slots=True)
class Landed:
    """What became of going upstream: a held response (304 or an error covered), a body under way, or a raw answer."""

    status: CacheStatus
    held: StoredResponse | None = None
    entry: CacheEntry | None = None
    reader: BodyReader | None = None
    answer: UpstreamAnswer | None = None
    fields: Fields = ()


class Fetcher:
    """The flights under way, and what they need. via: how this cache names itself to upstreams; timing: whether answers
    say how long upstreams took."""

    def __init__(self, cache: Cache, nursery: trio.Nursery, via: bytes, counters: Counters) -> None:
        self.cache, self.nursery, self.via, self.counters = cache, nursery, via, counters
        self.timing = False
        self.flights: dict[bytes, Flight] = {}
        self.refreshing: set[bytes] = set()
        self.unshared: OrderedDict[bytes, float] = OrderedDict()

    def now_s(self) -> float:
        return self.cache.timeline.now_s()

    def told_s(self, answer: UpstreamAnswer) -> float | None:
        """How long the upstream took, where that is said."""
        return answer.waited_s if self.timing else None

    # --- flights -----------------------------------------------------------------------------------------------------

    def waits_for_none(self, primary: bytes) -> bool:
        """Whether what was asked for here last was not for all."""
        until_s = self.unshared.get(primary)
        return until_s is not None and until_s >= self.now_s()

    def end_flight(self, context: Context, flight: Flight | None) -> None:
        """Nobody new joins; everyone who waits goes on."""
        if flight is None:
            return
        if self.flights.get(context.shared) is flight:
            del self.flights[context.shared]
        flight.head.set()

    def set_alone(self, context: Context, flight: Flight | None) -> None:
        """What came is for its owner alone: let those who wait go, and the next ones not wait at all."""
        if flight is None:
            return
        self.unshared.pop(context.shared, None)
        self.unshared[context.shared] = self.now_s() + UNSHARED_S
        while len(self.unshared) > MAX_UNSHARED:
            self.unshared.popitem(last=False)
        self.end_flight(context, flight)

    # --- asking ------------------------------------------------------------------------------------------------------

    async def land(self, fetch: Fetch) -> Landed:
        """Ask upstream and judge what comes. Raises TransportError where nothing does."""
        held, context = fetch.held, fetch.context
        fetch.order, fetch.sent_s = self.cache.next_order(), self.now_s()
        answer = await self.ask(fetch)
        if answer.status == 304 and fetch.ask.conditions:
            assert held is not None
            if same_representation(held.entry.fields, answer.fields):
                return await self.land_unchanged(fetch, held, answer)
            # It speaks of another response than the one stored: ask for that one whole (RFC 9111 section 4.3.4).
            await answer.aclose()
            fetch.ask, fetch.whole = replace(fetch.ask, conditions=()), True
            answer = await self.ask(fetch)
        failing = answer.status in FAILING_STATUSES
        if held is not None and failing and covers(context, held, self.now_s(), unreachable=False):
            await answer.aclose()
            raise AnswerError(f"ask {context.upstream.route.upstream}: it answers {answer.status}")
        if context.is_head:
            await self.update_by_head(fetch, answer)
        return self.land_whole(fetch, answer)

    async def ask(self, fetch: Fetch) -> UpstreamAnswer:
        """Send the request upstream. Our own conditions ask about the whole response that is held: they take the place
        of the client's and of its range. Without any the client's go up as they came, all or none of them: a range
        without its If-Range would join two versions."""
        context, conditions = fetch.context, fetch.ask.conditions
        fields = upstream_fields(
            context.request.fields, method=context.request.method, host=context.host, via=self.via, body=False
        )
        if conditions or fetch.whole:
            dropped = CONDITIONS | {b"range"}
            fields = (*(pair for pair in fields if pair[0] not in dropped), *conditions)
        tell = None if fetch.interim is None else partial(pass_interim, fetch.interim)
        answer = await context.upstream.send(context.request.method, context.target, fields, tell=tell)
        if answer.status < 200:
            await answer.aclose()
            raise AnswerError(f"ask {context.upstream.route.upstream}: it switches protocols although nobody asked")
        return answer

    def receipt(self, fetch: Fetch) -> Receipt:
        now_s = self.now_s()
        return Receipt(now_s, self.cache.timeline.wall_s(), now_s - fetch.sent_s)

    # --- judging -----------------------------------------------------------------------------------------------------

    async def land_unchanged(self, fetch: Fetch, held: StoredResponse, answer: UpstreamAnswer) -> Landed:
        """A 304 to our own condition: the held response is fresh again."""
        await answer.aclose()
        entry = replace(freshen(held.entry, answer.fields, self.receipt(fetch)), order=fetch.order)
        if still_stored(fetch.context.request, entry):
            fresh = await self.cache.freshen(held, entry)
        else:  # it holds for who asks, and may be kept no longer
            await self.cache.drop(held)
            fresh = held.renewed(entry)
        self.end_flight(fetch.context, fetch.flight)
        forward: Forward = "stale" if fetch.ask.why == "stale" else "request"
        ttl_s = entry.whole_ttl_s(self.now_s())
        status = CacheStatus(forward=forward, status=304, ttl_s=ttl_s, upstream_s=self.told_s(answer))
        cookies = tuple(pair for pair in answer.fields if pair[0] == b"set-cookie" and pair not in entry.fields)
        if cookies:  # they are for who asked now, and are not kept
            fresh = fresh.renewed(replace(entry, fields=entry.fields + cookies))
        return Landed(status, held=fresh)

    async def update_by_head(self, fetch: Fetch, answer: UpstreamAnswer) -> None:
        """A HEAD freshens the stored GET that it speaks of, ends one that it contradicts (RFC 9111 section 4.3.5)."""
        held, request = fetch.held, fetch.context.request
        if held is None or answer.status != 200 or not may_reuse(request, held.entry):
            return
        if same_representation(held.entry.fields, answer.fields) and same_length(held.entry.fields, answer.fields):
            entry = freshen(held.entry, answer.fields, self.receipt(fetch))
            if still_stored(request, entry):
                await self.cache.freshen(held, replace(entry, order=fetch.order))
                return
        await self.cache.drop(held)

    def land_whole(self, fetch: Fetch, answer: UpstreamAnswer) -> Landed:
        """Any other answer: stored while it is sent on where that is allowed, else only sent on."""
        context, flight = fetch.context, fetch.flight
        fields = context.upstream.map_back(answer_fields(answer.status, answer.fields), context.host)
        received = receive(answer.status, fields, self.receipt(fetch))
        scope = storing_scope(context.request, received, private_allowed=context.private_allowed)
        forward: Forward = fetch.ask.why
        if forward == "uri-miss" and context.shared in self.cache.memory.indexes:
            forward = "vary-miss"
        expected = length_of(received.fields)
        if is_endless(received.fields):
            scope = "no"
        body = Body(self.cache, expected)
        if scope == "no" or not body.storable:
            self.set_alone(context, flight)
            status = CacheStatus(forward=forward, status=answer.status, upstream_s=self.told_s(answer))
            return Landed(status, answer=answer, fields=received.fields)
        entry = make_entry(context.request, received, size=expected or 0, order=fetch.order, private=scope == "private")
        body.worth = is_worth_keeping(entry)
        if flight is not None and scope == "shared" and is_shareable(entry):
            flight.entry, flight.body = entry, body
            flight.head.set()
        else:
            self.set_alone(context, flight)
            flight = None
        reader = body.open_reader()
        storing = Storing(entry, context.storing_key(scope), flight)
        self.nursery.start_soon(self.pump, context, answer, body, storing)
        ttl_s = entry.whole_ttl_s(self.now_s())
        status = CacheStatus(forward=forward, status=answer.status, ttl_s=ttl_s, stored=True)
        status = replace(status, upstream_s=self.told_s(answer))
        return Landed(status, entry=entry, reader=reader, fields=received.fields)

    async def pump(self, context: Context, answer: UpstreamAnswer, body: Body, storing: Storing) -> None:
        """Read an answer to its end, whoever still waits for it, and store it."""
        digests = DigestCheck(answer.fields)
        try:
            try:
                await body.pump(answer, digests)
            finally:
                await answer.aclose()
            self.counters.fetched_bytes += body.end
            if body.done and body.storable and digests.holds():
                spool, body.spool = body.spool, None
                whole, entry = body.whole(), replace(storing.entry, size=body.end)
                await self.cache.keep(storing.primary, entry, whole, spool, body.wait_for_readers)
        finally:
            self.end_flight(context, storing.flight)
            if body.spool is not None:
                spool, body.spool = body.spool, None
                with trio.CancelScope(shield=True):
                    await self.cache.discard(spool)
            body.finish()

    def abandon(self, landed: Landed) -> None:
        """Nobody takes what has landed; what is worth it is stored all the same."""
        if landed.reader is not None:
            landed.reader.body.head_sent.set()
            landed.reader.close()
        if landed.answer is not None:
            self.nursery.start_soon(landed.answer.aclose)

    # --- in the background -------------------------------------------------------------------------------------------

    def refresh(self, context: Context, held: StoredResponse) -> None:
        """Ask anew for a response that has just been served stale, once at a time (RFC 5861 section 3)."""
        if held.key not in self.refreshing and not context.upstream.circuit.is_open:
            self.refreshing.add(held.key)
            self.nursery.start_soon(self.refresh_now, context, held)

    async def refresh_now(self, context: Context, held: StoredResponse) -> None:
        try:
            ask = Ask("stale", held.entry.validators())
            self.abandon(await self.land(Fetch(context, held, ask, whole=True)))
        except TransportError:
            return  # it stays stale; the next request within its window asks again
        finally:
            self.refreshing.discard(held.key)


@dataclass(frozen=True, slots=True)
class Storing:
    """A body that is stored as it comes: as which entry, under which primary key, and for which flight."""

    entry: CacheEntry
    primary: bytes
    flight: Flight | None = None


async def pass_interim(interim: Tell, status: int, fields: Fields) -> None:
    """A 1xx goes on to whoever asked (RFC 9110 section 15.2), but for 100: nobody waits to send a body."""
    if status != 100:
        await interim(status, answer_fields(status, fields))


def is_endless(fields: Fields) -> bool:
    """Whether an answer is a stream of events, which each client gets for itself."""
    kind = (value_of(fields, b"content-type") or b"").lower()
    return kind.startswith((b"text/event-stream", b"multipart/x-mixed-replace"))


def covers(context: Context, held: StoredResponse, now_s: float, *, unreachable: bool) -> bool:
    """Whether what is held may answer while upstream does not."""
    route = context.upstream.route
    windows = Windows(offline_s=route.offline_s, if_error_s=route.stale_if_error_s)
    return may_serve_failing(context.request, held.entry, now_s, windows, unreachable=unreachable)


def length_of(fields: Fields) -> int | None:
    length = value_of(fields, b"content-length")
    return int(length) if length is not None and DIGITS.fullmatch(length) else None
