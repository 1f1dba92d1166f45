"""The proxy as an ASGI application: routes, other methods, streams, WebSockets, and the way into the fast lane."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable

import trio

from edged.access.identity import Identity
from edged.clock import Clock
from edged.errors import TransportError
from edged.proxy.exchange.clients import ClientGoneError, pass_on, watched
from edged.proxy.exchange.context import Client, Context, Receive, Scope, Send, read_context, send_problem, who_asks
from edged.proxy.exchange.exchange import Exchange, host_of, length_of
from edged.proxy.exchange.flight import Body
from edged.proxy.lane import FastLane
from edged.proxy.rules.decisions import Receipt, make_entry, received_fields, storing_scope
from edged.proxy.rules.fields import Fields, value_of
from edged.proxy.rules.forward import Refused, answer_fields, under_prefix, upstream_fields
from edged.proxy.rules.freshness import read_policy
from edged.proxy.rules.invalidation import invalid_urls, invalidates, origin_of, read_groups, resolve
from edged.proxy.rules.status import CacheStatus
from edged.proxy.settings import ProxySettings
from edged.proxy.store.cache import PURGE_CHECK_S, Cache
from edged.proxy.timeline import Timeline
from edged.proxy.upstream.upstream import Answer, UnreachableError, Upstream
from edged.proxy.upstream.websocket import bridge


class ProxyApp:
    """Answers what lies under a route, from the store or from its upstream; 404 for everything else.

    Start `run` before the first request: `await nursery.start(app.run)`. who: the identity behind a scope. Raises
    ConfigError for settings that cannot be served, StoreError from `run` where the store's directory cannot be used.
    """

    def __init__(
        self,
        settings: ProxySettings,
        clock: Clock | None = None,
        *,
        who: Callable[[Scope], Identity] = who_asks,
        timeline: Timeline | None = None,
    ) -> None:
        settings.check()
        self.settings, self.who = settings, who
        self.timeline = timeline or Timeline(clock)
        self.cache = Cache(settings, self.timeline)
        self.upstreams = [Upstream(route, settings, self.look) for route in settings.routes]
        self.upstreams.sort(key=lambda upstream: len(upstream.route.prefix.rstrip("/")), reverse=True)
        self.prefixes = [(upstream.route.prefix.encode(), upstream) for upstream in self.upstreams]
        self.lanes: dict[Identity, FastLane] = {}
        self.lane_bytes = 0
        self.exchange: Exchange | None = None
        self.nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the store, the upstreams and what goes on in the background, until cancelled."""
        await self.cache.open()
        try:
            async with trio.open_nursery() as nursery:
                self.nursery = nursery
                # The name tells a request that has come back to this very process.
                self.exchange = Exchange(self.cache, nursery, b"edged-" + secrets.token_hex(4).encode())
                nursery.start_soon(self.tend)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self.nursery = self.exchange = None
            with trio.CancelScope(shield=True):
                for upstream in self.upstreams:
                    await upstream.aclose()
                await self.cache.close()

    async def tend(self) -> None:
        while True:
            await self.cache.tend()
            await trio.sleep(PURGE_CHECK_S)

    def look(self, upstream: Upstream) -> None:
        """An upstream was lost: look for it until it is back."""
        if self.nursery is not None:
            self.nursery.start_soon(upstream.look)

    def route(self, path: bytes) -> Upstream | None:
        """The upstream for a raw path, None where no route takes it."""
        for prefix, upstream in self.prefixes:
            if under_prefix(path, prefix):
                return upstream
        return None

    def fast_lane(self, who: Identity, accepts_host: Callable[[bytes], bool]) -> FastLane:
        """Answers from memory for one identity, by the bytes of a request's head; see `FastLane.lookup`."""
        lane = self.lanes.get(who)
        if lane is None or lane.accepts_host != accepts_host:
            lane = self.lanes[who] = FastLane(self, who, accepts_host)
        return lane

    def take_lane_bytes(self, count: int) -> bool:
        """Count what the fast lanes remember, all together; forget it all where it would be over half of the memory.

        Returns False for a single answer that is too large to be remembered.
        """
        limit = self.settings.memory_bytes // 2
        if count > limit // 4:
            return False
        if self.lane_bytes + count > limit:
            for lane in self.lanes.values():
                lane.heads.clear()
            self.lane_bytes = 0
        self.lane_bytes += count
        return True

    def status(self) -> dict[str, object]:
        """Numbers for operators."""
        exchange, store = self.exchange, self.cache.store
        return {
            "hits": exchange.hits if exchange else 0,
            "misses": exchange.misses if exchange else 0,
            "collapsed": exchange.collapsed if exchange else 0,
            "offline_answers": exchange.covered if exchange else 0,
            "memory_bytes": self.cache.memory.cost_bytes,
            "disk_bytes": store.used_bytes() if store is not None else 0,
            "quota_bytes": self.settings.quota_bytes,
            "store_rebuilds": store.rebuilds if store is not None else 0,
            "store_failures": self.cache.lost,
            "upstreams": {upstream.route.prefix: not upstream.circuit.is_open for upstream in self.upstreams},
        }

    def count_hit(self, *, offline: bool) -> None:
        if self.exchange is not None and offline:
            self.exchange.covered += 1
        elif self.exchange is not None:
            self.exchange.hits += 1

    # --- ASGI --------------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        path = bytes(scope.get("raw_path") or scope["path"].encode())
        upstream = self.route(path)
        if scope["type"] == "websocket":
            await bridge(scope, receive, send, upstream, self.via)
        elif upstream is None:
            await send_problem(send, 404, "no route takes this path", CacheStatus(), head=scope["method"] == "HEAD")
        else:
            await self.answer(scope, receive, send, upstream)

    @property
    def via(self) -> bytes:
        return self.exchange.via if self.exchange is not None else b"edged"

    async def answer(self, scope: Scope, receive: Receive, send: Send, upstream: Upstream) -> None:
        try:
            context = read_context(scope, self.who(scope), upstream, receive, send)
        except Refused as refusal:
            await send_problem(send, refusal.status, str(refusal), CacheStatus(), head=scope["method"] == "HEAD")
            return
        await self.give(context)

    async def give_to(self, context: Context, client: Client) -> None:
        """Answer a request from the fast lane."""
        context.client, context.send = client, client.send
        await self.give(context)

    async def give(self, context: Context) -> None:
        """Answer a request, whichever lane it came by."""
        exchange, request = self.exchange, context.request
        head = request.method == b"HEAD"
        if exchange is None:
            await send_problem(context.send, 503, "the proxy is starting or stopping", CacheStatus(), head=head)
            return
        try:
            if request.method in (b"GET", b"HEAD") and not context.body:
                await exchange.retrieve(context)
            elif request.method in (b"CONNECT", b"TRACE"):
                raise Refused(405, "this method is not forwarded")
            else:
                await self.forward(exchange, context)
        except Refused as refusal:
            await send_problem(context.send, refusal.status, str(refusal), CacheStatus(), head=head)

    async def forward(self, exchange: Exchange, context: Context) -> None:
        """Any other method, or a request with a body: streamed through; what it changes is made invalid first."""
        upstream, request = context.upstream, context.request
        fields = upstream_fields(
            request.fields,
            host=host_of(context),
            via=exchange.via,
            credentials=context.credentials,
            body=context.body,
        )
        begun, sent_s = self.cache.next_order(), self.timeline.now_s()
        status = CacheStatus(forward="method")
        try:
            if upstream.circuit.is_open:
                raise UnreachableError(f"ask {upstream.route.upstream}: it could not be reached a moment ago")
            if context.body:
                answer = await upstream.send(request.method, context.target, fields, read_body(context.receive))
            else:
                answer = await watched(
                    exchange.nursery,
                    context,
                    None,
                    lambda: upstream.send(request.method, context.target, fields),
                )
        except ClientGoneError:
            return
        except TransportError as fault:
            detail = "offline" if isinstance(fault, UnreachableError) else "upstream-error"
            await send_problem(
                context.send, fault.http_status, str(fault), CacheStatus(forward="method", detail=detail)
            )
            return
        receipt = Receipt(self.timeline.now_s(), self.timeline.wall_s(), self.timeline.now_s() - sent_s)
        passed = received_fields(answer_fields(answer.status, answer.fields), receipt)
        if invalidates(request.method, answer.status):
            await self.invalidate(context, passed)
            begun = self.cache.next_order()
        if await self.store_post(exchange, context, answer, passed, receipt, begun):
            return
        await pass_on(
            exchange.nursery, context, answer, passed, CacheStatus(forward=status.forward, status=answer.status)
        )

    async def invalidate(self, context: Context, fields: Fields) -> None:
        url = context.request.url
        await self.cache.invalidate(invalid_urls(url, fields), context.scopes)
        await self.cache.invalidate_groups(origin_of(url), read_groups(fields, b"cache-group-invalidation"))

    async def store_post(
        self, exchange: Exchange, context: Context, answer: Answer, fields: Fields, receipt: Receipt, begun: int
    ) -> bool:
        """A POST's answer that says of itself that it is what a GET would get (RFC 9110 section 9.3.3) is stored."""
        request = context.request
        if request.method != b"POST":
            return False
        place = value_of(fields, b"content-location")
        policy = read_policy(answer.status, fields)
        scope = storing_scope(request, answer.status, fields, policy, private_allowed=context.private_allowed)
        if scope == "no" or answer.status != 200 or place is None or resolve(request.url, place) != request.url:
            return False
        size = length_of(fields)
        body = Body(self.cache, size)
        if not body.storable:
            return False
        entry = make_entry(
            request, answer.status, fields, receipt, size=size or 0, order=begun, private=scope == "private"
        )
        primary = context.primary(context.storing_scope(scope))
        reader = body.open_reader()
        exchange.nursery.start_soon(exchange.pump, context, answer, entry, body, primary, None)
        status = CacheStatus(forward="method", status=answer.status, stored=True)
        await exchange.send_body(context, entry, reader, status, fields)
        return True


async def read_body(receive: Receive) -> AsyncIterator[bytes]:
    """A request's body as it comes. Raises TransportError where the client goes before its end."""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise TransportError("read the request: the client went before its end")
        piece = message.get("body", b"")
        if piece:
            yield piece
        if not message.get("more_body", False):
            return


async def answer_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
