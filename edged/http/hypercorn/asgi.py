"""The API as an ASGI application: the lane that answers everything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from edged.access.identity import Identity, Peer, identify
from edged.http.fields import Fields
from edged.http.meter import Meter
from edged.http.request import Answer, Held, Request, Response, Stream, moving_fields
from edged.http.server import ASGIApp
from edged.serve.answers.respond import Service
from edged.serve.answers.routes import answer_contained, is_own, may_be_slow
from edged.serve.catalog import Clock
from edged.serve.news import News

BODY_BYTES = 64 << 10

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class App:
    """fallback: an ASGI application for paths that are not the API's (proxied services)."""

    def __init__(
        self,
        service: Service,
        clock: Clock,
        news: News,
        *,
        stop: trio.Event,
        meter: Meter,
        who: Callable[[Peer], Identity] = identify,
        fallback: ASGIApp | None = None,
    ) -> None:
        self.service = service
        self.clock = clock
        self.news = news
        self.stop = stop
        self.meter = meter
        self.who = who
        self.fallback = fallback

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """One HTTP request, or one WebSocket of a proxied service; the server runs no lifespan."""
        if scope["type"] == "websocket":
            await self.pass_socket(scope, receive, send)
            return
        path = scope["raw_path"]
        peer: Peer = scope["state"]["peer"]
        request = to_request(scope, peer)
        foreign = path.startswith(b"/") and not is_own(path)
        # With a Host that is not answered nothing is, whoever would: the API's own answer is the 421.
        if foreign and self.fallback is not None and self.service.web.admits(request):
            await self.fallback(scope, receive, send)
            return
        who = self.who(peer)
        await discard_body(receive)
        if may_be_slow(scope["query_string"]):
            ask = partial(answer_contained, request, who, self.service, self.clock())
            found = await trio.to_thread.run_sync(ask, limiter=self.service.slow)
        else:
            found = answer_contained(request, who, self.service, self.clock())
        if isinstance(found, Held):
            await self.hold(found, receive)
            found = answer_contained(request, who, self.service, self.clock(), may_hold=False)
        await self.give(found, request, receive, send)

    async def pass_socket(self, scope: Any, receive: Receive, send: Send) -> None:
        """To the proxied services alone, and not for pages of origins that are not allowed: CORS does not hold here."""
        request = to_request({**scope, "method": "GET"}, scope["state"]["peer"])
        admitted = self.service.web.admits(request) and self.service.web.admits_page(request)
        if self.fallback is not None and admitted and not is_own(scope["raw_path"]):
            await self.fallback(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close"})

    async def give(self, found: Answer, request: Request, receive: Receive, send: Send) -> None:
        assert not isinstance(found, Held)
        self.meter.slow_answers[found.status] += 1
        fields = [*moving_fields(found.timed, self.clock()), *found.fields]
        await send({"type": "http.response.start", "status": found.status, "headers": fields})
        if isinstance(found, Response):
            body = b"" if request.method == "HEAD" else found.body
            await send({"type": "http.response.body", "body": body})
        elif request.method == "HEAD":
            await send({"type": "http.response.body", "body": b""})
        else:
            await self.pour(found, receive, send)

    async def hold(self, held: Held, receive: Receive) -> None:
        """Until the dataset has moved on, the time is up, the client is gone or the server stops."""
        dataset = self.service.catalog[held.dataset]
        with trio.move_on_after(held.wait_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end_with_client, receive, nursery.cancel_scope)
                nursery.start_soon(end_with, self.stop, nursery.cancel_scope)
                while dataset.version == held.version:
                    await self.news.wait(self.news.generation)
                nursery.cancel_scope.cancel()

    async def pour(self, stream: Stream, receive: Receive, send: Send) -> None:
        """All pieces; then, for a stream that follows, those of each new version until either side ends."""
        self.meter.streams += 1
        try:
            await send_pieces(stream.pieces, send)
            if stream.follow is not None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(end_with_client, receive, nursery.cancel_scope)
                    nursery.start_soon(end_with, self.stop, nursery.cancel_scope)
                    await self.follow(stream, stream.follow, send)
        finally:
            self.meter.streams -= 1
        await send({"type": "http.response.body", "body": b""})

    async def follow(self, stream: Stream, more: Callable[[], Any], send: Send) -> None:
        while True:
            generation = self.news.generation
            await send_pieces(more(), send)
            with trio.move_on_after(stream.beat_s) as beat:
                await self.news.wait(generation)
            if beat.cancelled_caught:
                await send({"type": "http.response.body", "body": stream.beat, "more_body": True})


async def send_pieces(pieces: Any, send: Send) -> None:
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def discard_body(receive: Receive) -> None:
    """Take a body that nobody asked for, so that the connection can go on; a large one ends it instead."""
    left = BODY_BYTES
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body", False):
            return


async def end_with_client(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # a body that nobody asked for
    scope.cancel()


async def end_with(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def to_request(scope: Any, peer: Peer) -> Request:
    target: bytes = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    fields: Fields = tuple((name.lower(), value) for name, value in scope["headers"])
    return Request(scope["method"], target, fields, scope["http_version"], peer.unix)
