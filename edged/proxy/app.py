"""The proxy as an ASGI application, and the way into the fast lane."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from edged.access.identity import Identity
from edged.clock import Clock
from edged.config import ProxyConfig
from edged.http.problem import make_problem
from edged.proxy.exchange.context import Context, Receive, Scope, Send, make_context, read_scope, who_asks
from edged.proxy.exchange.sending import send_problem
from edged.proxy.gateway import Gateway
from edged.proxy.lane import LaneMemory, ProxyLane
from edged.proxy.rules.forward import Refused
from edged.proxy.rules.status import CacheStatus
from edged.proxy.timeline import Timeline
from edged.proxy.upstream.websocket import bridge, refuse


class ProxyApp:
    """Answers what lies under a route, from the store or from its upstream; 404 for everything else.

    Start `run` before the first request: `await nursery.start(app.run)`. directory: where answers are kept; None: in
    memory alone. who: the identity behind a scope. Raises ConfigError for certificates that cannot be read.
    """

    def __init__(
        self,
        config: ProxyConfig,
        directory: Path | None,
        clock: Clock | None = None,
        *,
        who: Callable[[Scope], Identity] = who_asks,
        timeline: Timeline | None = None,
    ) -> None:
        self.who = who
        self.gateway = Gateway(config, directory, clock, timeline=timeline)
        self.memory = LaneMemory(self.gateway.cache.memory.limit_bytes // 2)
        self.lanes: dict[tuple[Identity, Callable[[bytes], bool]], ProxyLane] = {}

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `Gateway.run`."""
        await self.gateway.run(task_status)

    def status(self) -> dict[str, object]:
        """Numbers for operators."""
        return self.gateway.status()

    def fast_lane(self, who: Identity, accepts_host: Callable[[bytes], bool]) -> ProxyLane:
        """Answers from memory for one identity, by the bytes of a request's head; see `ProxyLane.lookup`."""
        lane = self.lanes.get((who, accepts_host))
        if lane is None:
            lane = self.lanes[who, accepts_host] = ProxyLane(self.gateway, self.memory, who, accepts_host)
        return lane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        socket, incoming = scope["type"] == "websocket", read_scope(scope)
        wall_s, head = self.gateway.timeline.wall_s(), incoming.method == b"HEAD"
        upstream = self.gateway.route(incoming.path)
        try:
            if upstream is None:
                raise Refused(404, "no route takes this path")
            context = make_context(upstream, incoming, self.who(scope), receive, send)
        except Refused as refusal:
            if socket:
                await receive()
                fields, body = make_problem(refusal.status, str(refusal))
                await refuse(scope, send, refusal.status, fields, body)
            else:
                await send_problem(send, refusal.status, str(refusal), CacheStatus(), wall_s=wall_s, head=head)
            return
        if socket:
            exchange = self.gateway.exchange
            await bridge(scope, context, exchange.via if exchange is not None else b"edged")
            return
        if not context.body and scope.get("http_version") == "2" and not await read_ahead(context):
            return
        await self.gateway.give(context)


async def read_ahead(context: Context) -> bool:
    """Find out whether a body follows that nothing has announced, as HTTP/2 allows. Returns False if the client has
    gone."""
    receive, first = context.receive, await context.receive()
    if first["type"] != "http.request":
        return False
    context.body = bool(first.get("body")) or bool(first.get("more_body"))
    waiting = [first]

    async def replay() -> dict[str, Any]:
        return waiting.pop() if waiting else await receive()

    context.receive = replay
    return True


async def answer_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
