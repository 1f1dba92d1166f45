"""How a GET or HEAD is answered: from the store, with others that want the same, or from upstream.

`retrieve` decides; `fetch` goes upstream as the owner of a flight, or alone. Whoever waits for an owner that has gone
takes its place; whoever waits for what turns out not to be shared goes alone, all of them at once.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import trio

from edged.errors import TransportError
from edged.http.application import Client
from edged.http.fields import Fields, value_of
from edged.http.validators import is_conditional
from edged.proxy.exchange.context import Context
from edged.proxy.exchange.counters import Counters
from edged.proxy.exchange.fetch import Fetch, Fetcher, Landed, covers
from edged.proxy.exchange.flight import BodyReader, Flight
from edged.proxy.exchange.sending import (
    ClientGoneError,
    UnreadableError,
    pass_on,
    send_refusal,
    send_stored,
    watched,
)
from edged.proxy.rules.answer import answer_from, hit_status, with_age
from edged.proxy.rules.decisions import Ask, CacheEntry, Refuse, Serve, decide
from edged.proxy.rules.forward import Refused
from edged.proxy.rules.status import CacheStatus, Forward, with_status
from edged.proxy.rules.vary import matches
from edged.proxy.store.cache import Cache
from edged.proxy.store.memory import StoredResponse
from edged.proxy.upstream.upstream import UnreachableError


class Exchange:
    """Answers for one cache. nursery: for what goes on when its client has gone."""

    def __init__(self, cache: Cache, nursery: trio.Nursery, via: bytes, counters: Counters) -> None:
        self.cache, self.nursery, self.counters = cache, nursery, counters
        self.fetcher = Fetcher(cache, nursery, via, counters)

    @property
    def via(self) -> bytes:
        return self.fetcher.via

    def now_s(self) -> float:
        return self.cache.timeline.now_s()

    async def find(self, context: Context) -> StoredResponse | None:
        """What is stored for a request, the most private first."""
        for scope in context.scopes:
            held = await self.cache.find(context.primary(scope), context.request.fields)
            if held is not None:
                return held
        return None

    # --- deciding ----------------------------------------------------------------------------------------------------

    async def retrieve(self, context: Context, client: Client) -> None:
        """Answer a GET or HEAD without a body."""
        alone = not self.collapsible(context)
        unreadable: set[str] = set()
        while True:
            # Looked up before the disk is: what ends while the disk is read would be in neither.
            flight = None if alone else self.fetcher.flights.get(context.shared)
            held = await self.find(context)
            if held is not None and held.path in unreadable:
                held = None
            decision = decide(context.request, held.entry if held else None, self.now_s())
            if isinstance(decision, Serve):
                assert held is not None
                if not await self.serve(context, client, held, decision):
                    unreadable.add(held.path)
                    continue
                return
            if isinstance(decision, Refuse):
                self.counters.failed += 1
                detail = "nothing stored may answer, and only-if-cached was asked for"
                await self.refuse(client, 504, detail, CacheStatus())
                return
            if context.upstream.circuit.is_open:
                fault = UnreachableError(f"ask {context.upstream.route.upstream}: it could not be reached a moment ago")
                await self.fail(context, client, held, fault)
                return
            if flight is None and not alone:
                flight = self.fetcher.flights.get(context.shared)
            if flight is None or (held is None and is_conditional(context.request.fields)):
                await self.fetch(context, client, held, decision, alone=alone)
                return
            if await self.join(context, client, held, flight):
                return
            alone = not flight.abandoned

    def collapsible(self, context: Context) -> bool:
        """Whether a request may share an answer with others: a whole one, for everyone, that was shared before."""
        request = context.request
        if request.method != b"GET" or request.has_credentials or request.pins_version:
            return False
        if b"no-store" in request.directives or value_of(request.fields, b"range") is not None:
            return False
        return not self.fetcher.waits_for_none(context.shared)

    async def join(self, context: Context, client: Client, held: StoredResponse | None, flight: Flight) -> bool:
        """Wait for a flight and read along. Returns False where this request must look again."""
        flight.waiting += 1
        try:
            await flight.head.wait()
        finally:
            flight.waiting -= 1
            flight.left.unpark_all()
        if flight.failure is not None:
            await self.fail(context, client, held, flight.failure)
            return True
        entry, body = flight.entry, flight.body
        if entry is None or body is None or not body.joinable or not matches(entry.selecting, context.request.fields):
            return False
        if decide(context.request, entry, self.now_s()) != Serve():
            return False
        self.counters.collapsed += 1
        status = CacheStatus(forward="uri-miss", collapsed=True, ttl_s=entry.whole_ttl_s(self.now_s()))
        await self.send_body(client, entry, body.open_reader(), status)
        return True

    async def serve(self, context: Context, client: Client, held: StoredResponse, how: Serve) -> bool:
        """Answer from the store. Returns False where it turned out unreadable before anything was sent."""
        now_s = self.now_s()
        detail = "stale-while-revalidate" if how.refresh else ""
        if how.refresh:
            self.fetcher.refresh(context, held)
        if not await self.send_held(context, client, held, replace(hit_status(held.entry, now_s), detail=detail)):
            return False
        if how.stale:
            self.counters.stale += 1
        else:
            self.counters.hits += 1
        return True

    async def send_held(self, context: Context, client: Client, held: StoredResponse, status: CacheStatus) -> bool:
        """Send what is held. Returns False, with nothing sent, where its body cannot be read now."""
        answer = answer_from(held.entry, context.request, self.now_s(), status)
        try:
            self.counters.served_bytes += await send_stored(client, answer, held, self.cache)
        except UnreadableError:
            return False
        return True

    async def fail(self, context: Context, client: Client, held: StoredResponse | None, fault: TransportError) -> None:
        """Answer although upstream does not: from the store within the window, else with an error."""
        unreachable = isinstance(fault, UnreachableError)
        detail = fault.detail if isinstance(fault, UnreachableError) else "upstream-error"
        if held is not None and covers(context, held, self.now_s(), unreachable=unreachable):
            status = hit_status(held.entry, self.now_s(), detail=detail)
            if await self.send_held(context, client, held, status):
                self.counters.covered += 1
                return
        forward: Forward = "uri-miss" if held is None else "stale"
        self.counters.failed += 1
        await self.refuse(client, fault.http_status, str(fault), CacheStatus(forward=forward, detail=detail))

    async def refuse(self, client: Client, status: int, detail: str, cache_status: CacheStatus) -> None:
        await send_refusal(client, status, detail, cache_status, self.cache.timeline.wall_s())

    # --- going upstream ----------------------------------------------------------------------------------------------

    async def fetch(
        self, context: Context, client: Client, held: StoredResponse | None, ask: Ask, *, alone: bool
    ) -> None:
        """Go upstream for this request, and answer it."""
        self.counters.misses += 1
        fetcher, flight = self.fetcher, None
        if not alone and (held is not None or not is_conditional(context.request.fields)):
            flight = fetcher.flights[context.shared] = Flight()
        fetch = Fetch(context, held, ask, flight, client.interim)
        try:
            landed = await watched(self.nursery, client, flight, lambda: fetcher.land(fetch))
        except TransportError as fault:
            if flight is not None:
                flight.failure = fault
            fetcher.end_flight(context, flight)
            await self.fail(context, client, held, fault)
            return
        except ClientGoneError:
            return
        except Refused:
            fetcher.set_alone(context, flight)
            raise
        finally:
            if flight is not None and not flight.head.is_set():
                flight.abandoned = flight.failure is None
                fetcher.end_flight(context, flight)
        await self.send_landed(context, client, landed)

    # --- sending on --------------------------------------------------------------------------------------------------

    async def send_landed(self, context: Context, client: Client, landed: Landed) -> None:
        if landed.held is not None:
            if not await self.send_held(context, client, landed.held, landed.status):
                # What the 304 spoke of cannot be read, or was replaced meanwhile: ask for all of it.
                await self.fetch(context, client, None, Ask("uri-miss"), alone=True)
        elif landed.entry is not None and landed.reader is not None:
            await self.send_body(client, landed.entry, landed.reader, landed.status, landed.fields)
        elif landed.answer is not None:
            count = await pass_on(self.nursery, client, landed.answer, landed.fields, landed.status)
            self.counters.fetched_bytes += count
            self.counters.served_bytes += count

    async def send_body(
        self, client: Client, entry: CacheEntry, reader: BodyReader, status: CacheStatus, fields: Fields | None = None
    ) -> None:
        """A body under way. Where it breaks off, so does the answer."""
        head = with_age(entry, self.now_s()) if fields is None else fields
        try:
            await client.start(entry.status, with_status(head, status))
            reader.body.head_sent.set()
            async with aclosing(reader.pieces()) as pieces:
                async for piece in pieces:
                    await client.write(piece)
                    self.counters.served_bytes += len(piece)
        except TransportError:
            return
        finally:
            reader.close()
        await client.end()
