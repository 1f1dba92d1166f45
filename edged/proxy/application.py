"""The proxy as an Application: what memory has is answered at once, everything else by a task."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from edged.http.application import UNTIMED, Answer, Application, ByTask, OnWebSocket, Response
from edged.http.request import Request
from edged.proxy.exchange.context import Context, make_context
from edged.proxy.exchange.counters import Counters
from edged.proxy.exchange.fetch import covers
from edged.proxy.exchange.sending import make_refusal
from edged.proxy.exchange.websocket import bridge, refuse
from edged.proxy.gateway import Gateway
from edged.proxy.rules.answer import StoredAnswer, answer_from, hit_status
from edged.proxy.rules.circuit import Circuit
from edged.proxy.rules.decisions import Ask, Serve, decide
from edged.proxy.rules.forward import Refused
from edged.proxy.rules.status import CacheStatus
from edged.proxy.store.memory import StoredResponse


class ProxyApplication(Application):
    """Answers what lies under a route, from the store or from its upstream; 404 for everything else.

    Start `run` before the first request: `await nursery.start(proxy.run)`.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `Gateway.run`."""
        await self.gateway.run(task_status)

    def status(self) -> dict[str, object]:
        """Numbers for operators."""
        return self.gateway.status()

    def prefix_of(self, path: bytes) -> str | None:
        """The prefix of the route that takes a path, None where none does."""
        upstream = self.gateway.route(path)
        return None if upstream is None else upstream.route.prefix

    def answer(self, request: Request) -> Answer:
        try:
            context = self.read(request)
        except Refused as refusal:
            self.gateway.counters.failed += 1
            fields, body = make_refusal(refusal.status, str(refusal), CacheStatus(), self.gateway.timeline.wall_s())
            return Response(refusal.status, fields, body, UNTIMED)
        if context.is_retrieval:
            found = self.from_memory(context)
            if found is not None:
                return found
        return ByTask(partial(self.gateway.give, context))

    def read(self, request: Request) -> Context:
        """Raises Refused for a request that goes nowhere."""
        upstream = self.gateway.route(request.target.partition(b"?")[0])
        if upstream is None:
            raise Refused(404, "no route takes this path")
        return make_context(upstream, request)

    # --- from memory -------------------------------------------------------------------------------------------------

    def from_memory(self, context: Context) -> Response | None:
        """The answer that memory has; None where the disk or the upstream has to be asked."""
        held = self.peek(context)
        if held is None or held.body is None or held.entry.received_s is None:
            return None
        entry, request, now_s = held.entry, context.request, self.gateway.timeline.now_s()
        decision = decide(request, entry, now_s)
        offline = isinstance(decision, Ask) and context.upstream.circuit.is_open
        if decision != Serve() and not (offline and covers(context, held, now_s, unreachable=True)):
            return None
        answer = answer_from(entry, request, now_s, hit_status(entry, now_s, detail="offline" if offline else ""))
        age_s = entry.age_s(now_s)
        until_s = now_s + math.floor(age_s) + 1 - age_s  # Age and ttl change; freshness ends at such a moment too
        circuit = context.upstream.circuit if offline else None
        body = cut(answer, held.body)
        lease = HitLease(self.gateway.counters, self.gateway.timeline.now_s, until_s, held, circuit, len(body))
        lease.count()
        return Response(answer.status, answer.fields, body, UNTIMED, keep=True, lease=lease)

    def peek(self, context: Context) -> StoredResponse | None:
        """What memory has for a request, where nothing more private may lie on the disk."""
        cache = self.gateway.cache
        for scope in context.scopes:
            held = cache.peek(context.primary(scope), context.request.fields)
            if held is not None or (scope != context.scopes[-1] and cache.store is not None):
                return held
        return None

    # --- WebSockets --------------------------------------------------------------------------------------------------

    def on_websocket(self, request: Request) -> OnWebSocket:
        return "open"

    async def websocket(
        self, request: Request, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        try:
            context = self.read(request)
        except Refused as refusal:
            await receive()
            fields, body = make_refusal(refusal.status, str(refusal), CacheStatus(), self.gateway.timeline.wall_s())
            await refuse(send, refusal.status, fields, body)
            return
        exchange = self.gateway.exchange
        await bridge(context, receive, send, exchange.via if exchange is not None else b"edged")


@dataclass(frozen=True, slots=True)
class HitLease:
    """For as long as not a byte of an answer from memory changes: until `until_s`, while the stored response is what it
    was, and where it was given for want of the upstream, while that cannot be reached. Counts each answer given.
    """

    counters: Counters
    now_s: Callable[[], float]
    until_s: float
    held: StoredResponse
    circuit: Circuit | None
    body_bytes: int

    def holds(self) -> bool:
        if not self.held.alive or self.now_s() >= self.until_s:
            return False
        counters = self.counters  # counted in place: this runs for every hit
        if self.circuit is None:
            counters.hits += 1
        elif self.circuit.is_open:
            counters.covered += 1
        else:
            return False
        counters.served_bytes += self.body_bytes
        return True

    def count(self) -> None:
        if self.circuit is not None:
            self.counters.covered += 1
        else:
            self.counters.hits += 1
        self.counters.served_bytes += self.body_bytes


def cut(answer: StoredAnswer, body: bytes) -> bytes:
    """The bytes of a stored body that an answer sends."""
    if answer.span is None:
        return b""
    return body if answer.span.size == len(body) else body[answer.span.first : answer.span.last + 1]
