"""An Application behind Hypercorn: the lane that takes every request of HTTP/1.1, with bodies and WebSockets."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from math import inf
from typing import Any

import trio
from hypercorn.config import Config

from edged.access.identity import Peer
from edged.http.application import (
    Answer,
    Application,
    ByTask,
    Disconnected,
    FileResponse,
    Held,
    InThread,
    Response,
    Signal,
    Stream,
    StreamOver,
    Waiter,
    contained,
    is_endless,
    run_in_thread,
)
from edged.http.fields import Fields
from edged.http.framing import CLOSE, join_fields
from edged.http.hypercorn.connection import (
    BODY,
    TARGET,
    HypercornConnection,
    Inbox,
    SharedByConnections,
    checked_config,
)
from edged.http.limits import Limits
from edged.http.meter import Meter
from edged.http.request import Request
from edged.threads import in_thread

BODY_BYTES = 64 << 10  # of a body that nobody asked for; a longer one ends its connection
PIECE_BYTES = 256 << 10  # of a file

Send = Callable[[Any], Awaitable[None]]


class HypercornLane:
    """The connections that Hypercorn has. clock: seconds since 1970."""

    def __init__(self, application: Application, limits: Limits, clock: Callable[[], float], meter: Meter) -> None:
        self.gateway = HypercornGateway(application, clock, meter)
        self.shared = SharedByConnections(self.gateway, make_config(limits), limits)
        self.open: set[HypercornConnection] = set()

    def is_busy(self) -> bool:
        """Whether a request is under way that gets on."""
        return self.shared.busy.is_getting_on()

    async def converse(self, stream: Any, peer: Peer, initial: bytes) -> None:
        """One connection to its end. initial: what was read from it before."""
        connection = HypercornConnection(self.shared, stream, peer, initial)
        self.open.add(connection)
        try:
            await connection.run()
        finally:
            self.open.discard(connection)

    async def stop(self) -> None:
        """Begin nothing new, and answer what is held."""
        await self.shared.context.terminated.set()
        self.gateway.stopping.move()

    def abort(self) -> None:
        for connection in list(self.open):
            connection.abort()


def make_config(limits: Limits) -> Config:
    return checked_config(
        include_server_header=False,
        include_date_header=False,  # whoever answers says it
        keep_alive_timeout=limits.idle_s,
        keep_alive_max_requests=1 << 62,
        h11_max_incomplete_size=limits.head_bytes,
        graceful_timeout=limits.graceful_s,
        ssl_handshake_timeout=limits.handshake_s,
        accesslog=None,
        errorlog=logging.getLogger("edged.http.hypercorn"),
    )


class HypercornGateway:
    """clock: seconds since 1970. stopping: moves when the server stops."""

    def __init__(self, application: Application, clock: Callable[[], float], meter: Meter) -> None:
        self.application = application
        self.clock = clock
        self.meter = meter
        self.stopping = Signal()

    async def __call__(self, scope: Any, inbox: Inbox, send: Send) -> None:
        """One HTTP request, or one WebSocket; the server runs no lifespan."""
        request = self.read(scope)
        if scope["type"] == "websocket":
            await self.pass_websocket(request, scope, inbox, send)
            return
        answer = contained(partial(self.application.answer, request), request)
        if not isinstance(answer, ByTask):
            await discard_body(inbox)
        if isinstance(answer, Held):
            answer = await self.hold(answer, request, inbox)
        while isinstance(answer, InThread):
            answer = await run_in_thread(answer, request)
            if isinstance(answer, Held):
                answer = await self.hold(answer, request, inbox)
        await self.give(answer, request, inbox, send)

    def read(self, scope: Any) -> Request:
        target: bytes = scope["state"][TARGET]
        fields: Fields = tuple((name.lower(), value) for name, value in scope["headers"])
        peer: Peer = scope["state"]["peer"]
        who = self.application.identify(peer)
        version = "1.0" if scope["http_version"] == "1.0" else "1.1"
        request = Request(scope.get("method", "GET"), target, fields, version, peer, who)
        request.body = bool(scope["state"].get(BODY))
        return request

    async def pass_websocket(self, request: Request, scope: Any, inbox: Inbox, send: Send) -> None:
        if self.application.on_websocket(request) == "open":
            await self.application.websocket(request, inbox.receive, send)
        else:
            await inbox.receive()
            await send({"type": "websocket.close"})

    async def give(self, answer: Answer, request: Request, inbox: Inbox, send: Send) -> None:
        assert not isinstance(answer, Held | InThread)
        if isinstance(answer, ByTask):
            await answer.run(HypercornClient(request, inbox, send, self.meter))
            return
        self.meter.slow_answers[answer.status] += 1
        fields = [*answer.timed.fields(self.clock()), *answer.fields]
        if isinstance(answer, Response) and answer.last and request.version != "2":
            fields += CLOSE
        if isinstance(answer, Response) and answer.shared.tally is not None:
            body_bytes = 0 if request.method == "HEAD" else len(answer.body)
            answer.shared.tally.add(1, len(join_fields(tuple(fields))) + body_bytes, remembered=False)
        await send({"type": "http.response.start", "status": answer.status, "headers": fields})
        if isinstance(answer, FileResponse):
            await send_file(answer, send, head_only=request.method == "HEAD")
        elif request.method == "HEAD":
            await send({"type": "http.response.body", "body": b""})
        elif isinstance(answer, Response):
            await send({"type": "http.response.body", "body": answer.body})
        else:
            await self.pour(answer, inbox, send)

    async def hold(self, held: Held, request: Request, inbox: Inbox) -> Answer:
        """Ask again whenever the signal has moved; for the last time when the time is up, the client is gone or the
        server stops.
        """
        until = trio.current_time() + held.wait_s
        while await self.moved(held.signal, held.generation, inbox, until):
            answer = contained(partial(held.resume, False), request)
            if not isinstance(answer, Held):
                return answer
            held = answer
        return contained(partial(held.resume, True), request)

    async def moved(self, signal: Signal, generation: int, inbox: Inbox, until: float = inf) -> bool:
        """Wait for a signal to move; False where the time is up, the client is gone or the server stops before."""
        waiter = Waiter()
        waits = signal.follow(waiter, generation) and self.stopping.follow(waiter, 0)
        if waits:
            inbox.when_gone(waiter.wake, or_ended=True)
            with trio.move_on_at(until):
                await waiter.event.wait()
            inbox.when_gone(None)
        signal.leave(waiter)
        self.stopping.leave(waiter)
        return signal.generation != generation and not inbox.ended and not self.stopping.generation

    async def pour(self, stream: Stream, inbox: Inbox, send: Send) -> None:
        """All pieces; then, for a stream that follows, those of each move until either side ends."""
        self.meter.streams += 1
        try:
            await send_pieces(stream.pieces, send)
            if stream.signal is not None and stream.follow is not None:
                await self.follow(stream, stream.signal, stream.follow, inbox, send)
        finally:
            self.meter.streams -= 1
        await send({"type": "http.response.body", "body": b""})

    async def follow(self, stream: Stream, signal: Signal, more: Callable[[], Any], inbox: Inbox, send: Send) -> None:
        while not inbox.ended and not self.stopping.generation:
            generation = signal.generation
            try:
                await send_pieces(more(), send)
            except StreamOver:
                return
            until = trio.current_time() + stream.keep_alive_s
            if not await self.moved(signal, generation, inbox, until) and trio.current_time() >= until:
                await send({"type": "http.response.body", "body": stream.keep_alive, "more_body": True})


class HypercornClient:
    """A Client: what an application writes, in the words of ASGI 3."""

    def __init__(self, request: Request, inbox: Inbox, send: Send, meter: Meter) -> None:
        self.request = request
        self.inbox = inbox
        self.send = send
        self.meter = meter
        self.act: Callable[[], None] | None = None
        self.endless = False  # the answer has no end of its own

    async def body(self) -> AsyncGenerator[bytes, None]:
        while True:
            message = await self.inbox.receive()
            if message["type"] != "http.request":
                raise Disconnected
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body", False):
                return

    def when_gone(self, act: Callable[[], None] | None) -> None:
        self.act = act
        self.inbox.when_gone(act, or_ended=self.endless)

    async def interim(self, status: int, fields: Fields) -> None:
        """Hypercorn passes no 1xx on."""

    async def start(self, status: int, fields: Fields) -> None:
        self.meter.slow_answers[status] += 1
        self.endless = is_endless(fields)
        self.when_gone(self.act)
        await self.send({"type": "http.response.start", "status": status, "headers": list(fields)})

    async def write(self, data: bytes) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        await self.send({"type": "http.response.body", "body": data})


async def send_pieces(pieces: Any, send: Send) -> None:
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def send_file(answer: FileResponse, send: Send, *, head_only: bool) -> None:
    """Raises OSError where the file has become shorter: without its end the client knows that it is not whole."""
    offset, left = answer.offset, 0 if head_only else answer.length
    try:
        while left:
            piece = await in_thread(os.pread, answer.handle, min(left, PIECE_BYTES), offset)
            if not piece:
                raise OSError("send a file: it became shorter while it was sent")
            offset, left = offset + len(piece), left - len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        os.close(answer.handle)
    await send({"type": "http.response.body", "body": b""})


async def discard_body(inbox: Inbox) -> None:
    """Take a body that nobody asked for, so that the connection can go on; a large one ends it instead."""
    left = BODY_BYTES
    while left > 0:
        message = await inbox.receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body", False):
            return
