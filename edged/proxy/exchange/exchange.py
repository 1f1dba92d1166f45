"""How a GET or HEAD is answered: from the store, with others that want the same, or from upstream.

`retrieve` decides; `fetch` goes upstream as the owner of a flight, or alone. Whoever waits for an owner that has gone
takes its place; whoever waits for what turns out not to be shared goes alone, all of them at once.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

import trio

from edged.errors import TransportError
from edged.proxy.exchange.clients import ClientGoneError, pass_on, watched
from edged.proxy.exchange.context import (
    Client,
    Context,
    send_head,
    send_last,
    send_piece,
    send_problem,
    send_stored,
)
from edged.proxy.exchange.flight import Body, Flight, Reader
from edged.proxy.rules.answer import answer_from, hit_status, with_age
from edged.proxy.rules.decisions import (
    FAILING_STATUSES,
    Ask,
    Entry,
    Receipt,
    Refuse,
    Serve,
    Windows,
    decide,
    freshen,
    is_shareable,
    is_worth_keeping,
    make_entry,
    may_serve_failing,
    received_fields,
    storing_scope,
)
from edged.proxy.rules.digest import DigestCheck
from edged.proxy.rules.fields import DIGITS, Fields, value_of
from edged.proxy.rules.forward import Refused, answer_fields, upstream_fields
from edged.proxy.rules.freshness import read_policy
from edged.proxy.rules.status import CacheStatus, Forward, with_status
from edged.proxy.rules.validation import CONDITIONS, is_conditional, same_length, same_representation
from edged.proxy.rules.vary import matches
from edged.proxy.store.cache import Cache
from edged.proxy.store.memory import Held
from edged.proxy.upstream.upstream import Answer, AnswerError, UnreachableError

UNSHARED_S = 10.0  # how long requests for what was not shared do not wait for one another
MAX_UNSHARED = 4096


@dataclass(slots=True)
class Landed:
    """What became of going upstream: a held response (304 or an error covered), a body under way, or a raw answer."""

    status: CacheStatus
    held: Held | None = None
    entry: Entry | None = None
    reader: Reader | None = None
    answer: Answer | None = None
    fields: Fields = ()


class Exchange:
    """The flights under way, and what they need. via: how this cache names itself to upstreams."""

    def __init__(self, cache: Cache, nursery: trio.Nursery, via: bytes) -> None:
        self.cache, self.nursery, self.via = cache, nursery, via
        self.flights: dict[bytes, Flight] = {}
        self.refreshing: set[bytes] = set()
        self.unshared: OrderedDict[bytes, float] = OrderedDict()
        self.hits = self.misses = self.collapsed = self.covered = 0

    def now_s(self) -> float:
        return self.cache.timeline.now_s()

    async def find(self, context: Context) -> Held | None:
        """What is stored for a request, the most private first."""
        for scope in context.scopes:
            held = await self.cache.find(context.primary(scope), context.request.fields)
            if held is not None:
                return held
        return None

    # --- deciding ----------------------------------------------------------------------------------------------------

    async def retrieve(self, context: Context) -> None:
        """Answer a GET or HEAD without a body."""
        alone = not self.collapsible(context)
        while True:
            # Looked up before the disk is: what ends while the disk is read would be in neither.
            flight = None if alone else self.flights.get(context.primary(b""))
            held = await self.find(context)
            decision = decide(context.request, held.entry if held else None, self.now_s())
            if isinstance(decision, Serve):
                assert held is not None
                if not await self.serve(context, held, decision):
                    continue  # it was damaged and has been dropped
                return
            if isinstance(decision, Refuse):
                detail = "nothing stored may answer, and only-if-cached was asked for"
                await send_problem(context.send, 504, detail, CacheStatus(), head=self.is_head(context))
                return
            if context.upstream.circuit.is_open:
                fault = UnreachableError(f"ask {context.upstream.route.upstream}: it could not be reached a moment ago")
                await self.fail(context, held, fault)
                return
            if flight is None and not alone:
                flight = self.flights.get(context.primary(b""))
            if flight is None or (held is None and is_conditional(context.request.fields)):
                await self.fetch(context, held, decision, alone=alone)
                return
            if await self.join(context, held, flight):
                return
            alone = not flight.abandoned

    def collapsible(self, context: Context) -> bool:
        """Whether a request may share an answer with others: a whole one, for everyone, that was shared before."""
        request = context.request
        if request.method != b"GET" or request.has_credentials or b"no-store" in request.directives:
            return False
        if value_of(request.fields, b"range") is not None:
            return False
        until_s = self.unshared.get(context.primary(b""))
        return until_s is None or until_s < self.now_s()

    async def join(self, context: Context, held: Held | None, flight: Flight) -> bool:
        """Wait for a flight and read along. Returns False where this request must look again."""
        flight.waiting += 1
        try:
            await flight.head.wait()
        finally:
            flight.waiting -= 1
            flight.left.unpark_all()
        if flight.failure is not None:
            await self.fail(context, held, flight.failure)
            return True
        entry, body = flight.entry, flight.body
        if entry is None or body is None or not body.joinable or not matches(entry.selecting, context.request.fields):
            return False
        if decide(context.request, entry, self.now_s()) != Serve():
            return False
        self.collapsed += 1
        status = CacheStatus(forward="uri-miss", collapsed=True, ttl_s=entry.whole_ttl_s(self.now_s()))
        await self.send_body(context, entry, body.open_reader(), status)
        return True

    async def serve(self, context: Context, held: Held, how: Serve) -> bool:
        """Answer from the store. Returns False where it turned out damaged before anything was sent."""
        now_s = self.now_s()
        detail = "stale-while-revalidate" if how.refresh else ""
        if how.refresh:
            self.refresh(context, held)
        self.hits += 1
        return await self.send_held(context, held, replace(hit_status(held.entry, now_s), detail=detail))

    async def send_held(self, context: Context, held: Held, status: CacheStatus) -> bool:
        answer = answer_from(held.entry, context.request, self.now_s(), status)
        try:
            await send_stored(context.send, answer, held, self.cache)
        except OSError:
            await self.cache.drop(held)  # its file has gone
            return False
        return True

    async def fail(self, context: Context, held: Held | None, fault: TransportError) -> None:
        """Answer although upstream does not: from the store within the window, else with an error."""
        unreachable = isinstance(fault, UnreachableError)
        if held is not None and covers(context, held, self.now_s(), unreachable=unreachable):
            self.covered += 1
            status = hit_status(held.entry, self.now_s(), detail="offline" if unreachable else "upstream-error")
            if await self.send_held(context, held, status):
                return
        forward: Forward = "uri-miss" if held is None else "stale"
        status = CacheStatus(forward=forward, detail="offline" if unreachable else "upstream-error")
        await send_problem(context.send, fault.http_status, str(fault), status, head=self.is_head(context))

    def is_head(self, context: Context) -> bool:
        return context.request.method == b"HEAD"

    # --- going upstream ----------------------------------------------------------------------------------------------

    async def fetch(self, context: Context, held: Held | None, ask: Ask, *, alone: bool) -> None:
        """Go upstream for this request, and answer it."""
        self.misses += 1
        flight = None
        if not alone and (held is not None or not is_conditional(context.request.fields)):
            flight = self.flights[context.primary(b"")] = Flight()
        try:
            landed = await watched(self.nursery, context, flight, lambda: self.land(context, held, ask, flight))
        except TransportError as fault:
            if flight is not None:
                flight.failure = fault
            await self.settle(context, flight)
            await self.fail(context, held, fault)
            return
        except ClientGoneError:
            return
        except Refused:
            if flight is not None:
                await self.set_alone(context, flight)
            raise
        finally:
            if flight is not None and not flight.head.is_set():
                flight.abandoned = flight.failure is None
                self.end_flight(context, flight)
        await self.send_landed(context, landed)

    async def settle(self, context: Context, flight: Flight | None) -> None:
        if flight is not None:
            self.end_flight(context, flight)

    def end_flight(self, context: Context, flight: Flight) -> None:
        """Nobody new joins; everyone who waits goes on."""
        primary = context.primary(b"")
        if self.flights.get(primary) is flight:
            del self.flights[primary]
        flight.head.set()

    async def land(self, context: Context, held: Held | None, ask: Ask, flight: Flight | None) -> Landed:
        """Ask upstream and judge what comes. Raises TransportError where nothing does."""
        begun, sent_s = self.cache.next_order(), self.now_s()
        conditions = ask.conditions
        answer = await self.ask(context, held, conditions)
        if answer.status == 304 and conditions:
            assert held is not None
            if same_representation(held.entry.fields, answer.fields):
                return await self.land_unchanged(context, held, answer, ask, begun, sent_s, flight)
            # It speaks of another response than the one stored: ask for that one whole (RFC 9111 section 4.3.4).
            await answer.aclose()
            answer = await self.ask(context, held, ())
        failing = answer.status in FAILING_STATUSES
        if held is not None and failing and covers(context, held, self.now_s(), unreachable=False):
            await answer.aclose()
            raise AnswerError(f"ask {context.upstream.route.upstream}: it answers {answer.status}")
        if self.is_head(context):
            await self.update_by_head(held, answer, begun, sent_s)
        return await self.land_whole(context, held, answer, ask, begun, sent_s, flight)

    async def ask(self, context: Context, held: Held | None, conditions: Fields) -> Answer:
        """Send the request upstream, with our conditions in the place of the client's where we hold a response."""
        fields = upstream_fields(
            context.request.fields,
            host=host_of(context),
            via=self.via,
            credentials=context.credentials,
            body=False,
        )
        if held is not None:
            dropped = CONDITIONS | ({b"range"} if conditions else frozenset())
            fields = (*(pair for pair in fields if pair[0] not in dropped), *conditions)
        tell = None if context.client is None else partial(pass_interim, context.client)
        answer = await context.upstream.send(context.request.method, context.target, fields, tell=tell)
        if answer.status < 200:
            await answer.aclose()
            raise AnswerError(f"ask {context.upstream.route.upstream}: it switches protocols although nobody asked")
        return answer

    def receipt(self, sent_s: float) -> Receipt:
        now_s = self.now_s()
        return Receipt(now_s, self.cache.timeline.wall_s(), now_s - sent_s)

    async def land_unchanged(
        self,
        context: Context,
        held: Held,
        answer: Answer,
        ask: Ask,
        begun: int,
        sent_s: float,
        flight: Flight | None,
    ) -> Landed:
        """A 304 to our own condition: the held response is fresh again."""
        await answer.aclose()
        entry = replace(freshen(held.entry, answer.fields, self.receipt(sent_s)), order=begun)
        fresh = await self.cache.freshen(held, entry)
        await self.settle(context, flight)
        forward: Forward = "stale" if ask.why == "stale" else "request"
        status = CacheStatus(forward=forward, status=304, ttl_s=entry.whole_ttl_s(self.now_s()))
        return Landed(status, held=fresh)

    async def update_by_head(self, held: Held | None, answer: Answer, begun: int, sent_s: float) -> None:
        """A HEAD freshens the stored GET that it speaks of, ends one that it contradicts (RFC 9111 section 4.3.5)."""
        if held is None or answer.status != 200:
            return
        if same_representation(held.entry.fields, answer.fields) and same_length(held.entry.fields, answer.fields):
            entry = freshen(held.entry, answer.fields, self.receipt(sent_s))
            await self.cache.freshen(held, replace(entry, order=begun))
        else:
            await self.cache.drop(held)

    async def land_whole(
        self,
        context: Context,
        held: Held | None,
        answer: Answer,
        ask: Ask,
        begun: int,
        sent_s: float,
        flight: Flight | None,
    ) -> Landed:
        """Any other answer: stored while it is sent on where that is allowed, else only sent on."""
        request, receipt = context.request, self.receipt(sent_s)
        fields = received_fields(answer_fields(answer.status, answer.fields), receipt)
        policy = read_policy(answer.status, fields)
        scope = storing_scope(request, answer.status, fields, policy, private_allowed=context.private_allowed)
        forward: Forward = ask.why
        if forward == "uri-miss" and context.primary(b"") in self.cache.memory.indexes:
            forward = "vary-miss"
        expected = length_of(fields)
        if is_endless(fields):
            scope = "no"
        body = Body(self.cache, expected)
        if scope == "no" or not body.storable:
            await self.set_alone(context, flight)
            return Landed(CacheStatus(forward=forward, status=answer.status), answer=answer, fields=fields)
        entry = make_entry(
            request,
            answer.status,
            fields,
            receipt,
            size=expected or 0,
            order=begun,
            private=scope == "private",
            policy=policy,
        )
        body.worth = is_worth_keeping(entry)
        reader = body.open_reader()
        if flight is not None and scope == "shared" and is_shareable(entry):
            flight.entry, flight.body = entry, body
            flight.head.set()
        else:
            await self.set_alone(context, flight)
            flight = None
        primary = context.primary(context.storing_scope(scope))
        self.nursery.start_soon(self.pump, context, answer, entry, body, primary, flight)
        ttl_s = entry.whole_ttl_s(self.now_s())
        status = CacheStatus(forward=forward, status=answer.status, ttl_s=ttl_s, stored=True)
        return Landed(status, entry=entry, reader=reader, fields=fields)

    def abandon(self, landed: Landed) -> None:
        """Nobody takes what has landed; what is worth it is stored all the same."""
        if landed.reader is not None:
            landed.reader.body.head_sent.set()
            landed.reader.close()
        if landed.answer is not None:
            self.nursery.start_soon(landed.answer.aclose)

    async def set_alone(self, context: Context, flight: Flight | None) -> None:
        """What came is for its owner alone: let those who wait go, and the next ones not wait at all."""
        if flight is None:
            return
        primary = context.primary(b"")
        self.unshared.pop(primary, None)
        self.unshared[primary] = self.now_s() + UNSHARED_S
        while len(self.unshared) > MAX_UNSHARED:
            self.unshared.popitem(last=False)
        self.end_flight(context, flight)

    async def pump(
        self, context: Context, answer: Answer, entry: Entry, body: Body, primary: bytes, flight: Flight | None
    ) -> None:
        """Read an answer to its end, whoever still waits for it, and store it."""
        digests = DigestCheck(answer.fields)
        try:
            try:
                await body.pump(answer, digests)
            finally:
                await answer.aclose()
            if body.done and body.storable and digests.holds():
                spool, body.spool = body.spool, None
                whole = body.whole()
                await self.cache.keep(primary, replace(entry, size=body.end), whole, spool, body.wait_for_readers)
        finally:
            if flight is not None:
                self.end_flight(context, flight)
            if body.spool is not None:
                spool, body.spool = body.spool, None
                with trio.CancelScope(shield=True):
                    await self.cache.discard(spool)
            body.finish()

    def refresh(self, context: Context, held: Held) -> None:
        """Ask anew for a response that has just been served stale, once at a time (RFC 5861 section 3)."""
        if held.key not in self.refreshing and not context.upstream.circuit.is_open:
            self.refreshing.add(held.key)
            self.nursery.start_soon(self.refresh_now, context, held)

    async def refresh_now(self, context: Context, held: Held) -> None:
        try:
            self.abandon(await self.land(context, held, Ask("stale", held.entry.validators()), None))
        except TransportError:
            return  # it stays stale; the next request within its window asks again
        finally:
            self.refreshing.discard(held.key)

    # --- sending on --------------------------------------------------------------------------------------------------

    async def send_landed(self, context: Context, landed: Landed) -> None:
        if landed.held is not None:
            await self.send_held(context, landed.held, landed.status)
        elif landed.entry is not None and landed.reader is not None:
            await self.send_body(context, landed.entry, landed.reader, landed.status, landed.fields)
        elif landed.answer is not None:
            await pass_on(self.nursery, context, landed.answer, landed.fields, landed.status)

    async def send_body(
        self, context: Context, entry: Entry, reader: Reader, status: CacheStatus, fields: Fields | None = None
    ) -> None:
        """A body under way. Where it breaks off, so does the answer."""
        head = with_age(entry, self.now_s()) if fields is None else fields
        try:
            await send_head(context.send, entry.status, with_status(head, status))
            reader.body.head_sent.set()
            async with aclosing(reader.pieces()) as pieces:
                async for piece in pieces:
                    await send_piece(context.send, piece)
        except TransportError:
            return
        finally:
            reader.close()
        await send_last(context.send)


async def pass_interim(client: Client, status: int, fields: Fields) -> None:
    """A 1xx goes on to whoever asked (RFC 9110 section 15.2), but for 100: nobody waits to send a body."""
    if status != 100:
        await client.send_interim(status, answer_fields(status, fields))


def is_endless(fields: Fields) -> bool:
    """Whether an answer is a stream of events, which each client gets for itself."""
    kind = (value_of(fields, b"content-type") or b"").lower()
    return kind.startswith((b"text/event-stream", b"multipart/x-mixed-replace"))


def host_of(context: Context) -> bytes:
    if context.upstream.route.keep_host:
        return value_of(context.request.fields, b"host") or context.upstream.host
    return context.upstream.host


def covers(context: Context, held: Held, now_s: float, *, unreachable: bool) -> bool:
    """Whether what is held may answer while upstream does not."""
    route = context.upstream.route
    windows = Windows(offline_s=route.offline_s, if_error_s=route.stale_if_error_s)
    return may_serve_failing(context.request, held.entry, now_s, windows, unreachable=unreachable)


def length_of(fields: Fields) -> int | None:
    length = value_of(fields, b"content-length")
    return int(length) if length is not None and DIGITS.fullmatch(length) else None
