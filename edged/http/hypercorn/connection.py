"""Hypercorn's connection on trio with its known faults mended (docs/design.md), and nothing of any application.

Mended: an exception of one connection ended the server; a client that stopped reading could not be got rid of; an
application that answered without reading the body hung its connection; protocol switches that nothing here speaks and
request smugglers like (h2c); h11's lenience about lines, in heads, chunks and trailers. HTTP/2 is the lane's alone.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from time import monotonic, time
from typing import Any, cast

import h11
import trio
from h11._readers import ChunkedReader
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, LifespanState

from edged.access.identity import Peer
from edged.errors import ConfigError
from edged.http.fields import write_date
from edged.http.framing import CLOSE, ChunkedBody
from edged.http.head import HeadError, empty_lines_end, head_end, read_head
from edged.http.limits import PARKED_S, Limits
from edged.http.problem import make_problem
from edged.http.tls.stream import TlsStream

logger = logging.getLogger("edged.http")

RECEIVE_BYTES = 64 << 10
SEND_BYTES = 64 << 10
FAULT_LENGTH = 300
METHOD, TARGET, BODY = "method", "target", "body"
ENDED = "edged.ended"  # a message of our own: the client will send no more


def checked_config(**settings: Any) -> Config:
    """Hypercorn's Config with `settings`. It takes any name silently, so ConfigError is raised for one it has not."""
    config = Config()
    for name, value in settings.items():
        if not hasattr(Config, name) and name not in Config.__annotations__:
            raise ConfigError(f"configure hypercorn: it has no setting {name!r}; look for the spelling in its Config")
        setattr(config, name, value)
    return config


class Inbox:
    """The messages of one request for who answers it: bounded, never blocking once it was answered."""

    def __init__(self, limit: int, body_s: float) -> None:
        self.sender, self.receiver = trio.open_memory_channel[Any](limit)
        self.body_s = body_s
        self.complete = False
        self.ended = False  # the client will send no more, and may still read
        self.gone = False
        self.act: Callable[[], None] | None = None
        self.act_at_end = False

    def when_gone(self, act: Callable[[], None] | None, *, or_ended: bool = False) -> None:
        """What to do when the client has gone, or will send no more; at once if so. None: nothing any more."""
        self.act, self.act_at_end = act, or_ended
        if act is not None and (self.gone or (or_ended and self.ended)):
            act()

    async def put(self, message: Any) -> None:
        if message["type"] == ENDED:
            self.ended = True
            if self.act is not None and self.act_at_end:
                self.act()
            return
        if message["type"] == "http.disconnect":
            self.sender.close()
            self.ended = self.gone = True
            if self.act is not None:
                self.act()
            return
        try:
            await self.sender.send(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the application has answered; nobody wants the rest of the body

    async def receive(self) -> Any:
        """The next message; a body that stays away for body_s counts as a disconnect."""
        limit = trio.CancelScope() if self.complete else trio.move_on_after(self.body_s)
        with limit:
            try:
                message = await self.receiver.receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                return {"type": "http.disconnect"}
            self.complete = not message.get("more_body", False)
            return message
        return {"type": "http.disconnect"}


# Answers one request or WebSocket: its scope, its messages, and where the answer's messages go, in the words of ASGI 3.
Answerer = Callable[[Any, Inbox, Callable[[Any], Awaitable[None]]], Awaitable[None]]


class Tasks(TaskGroup):
    """Hypercorn's task group with an Inbox for each request."""

    def __init__(self, body_s: float) -> None:
        super().__init__()
        self.body_s = body_s

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Any) -> Callable[[Any], Awaitable[None]]:
        inbox = Inbox(config.max_app_queue_size, self.body_s)
        self.spawn(run_app, app, scope, inbox, send)
        return inbox.put


async def run_app(answer: Answerer, scope: Any, inbox: Inbox, send: Callable[[Any], Any]) -> None:
    """Have one request answered; a fault is logged and, where no answer began, becomes a 500."""
    if scope["type"] == "http":
        scope["method"] = scope["state"].pop(METHOD)
    try:
        await answer(scope, inbox, send)
    except Exception:
        logger.exception("answer %s %s: the application failed", scope.get("method"), scope.get("path"))
    finally:
        inbox.when_gone(None)
        inbox.receiver.close()
    await send(None)


class StrictChunks:
    """h11's reader of chunked bodies, by `ChunkedBody`."""

    def __init__(self, most_bytes: int) -> None:
        self.body = ChunkedBody(most_bytes)

    def __call__(self, received: Any) -> h11.Data | h11.EndOfMessage | None:
        """received: h11's buffer, of which the bytes behind the body are left."""
        if received and not self.body.ended:
            try:
                data, rest = self.body.feed(bytes(received.maybe_extract_at_most(len(received))))
            except HeadError as fault:
                raise refusal(fault) from fault
            received += rest
            if data:
                return h11.Data(data=data)
        return h11.EndOfMessage() if self.body.ended else None


def refusal(fault: HeadError) -> h11.RemoteProtocolError:
    return h11.RemoteProtocolError(str(fault), error_status_hint=fault.status)


class StrictConnection(h11.Connection):
    """h11 behind `head_end`, `read_head` and `ChunkedBody`: both lanes agree on where a request ends because the same
    judges say it.

    fault: what is wrong with what the peer has sent. gone: whether the peer is; what it sent ahead is not asked then.
    """

    fault = ""
    gone = False

    def next_event(self) -> Any:
        if self.gone:
            return h11.NEED_DATA
        try:
            return self.judged_event()
        except h11.RemoteProtocolError as fault:
            self.fault = str(fault)[:FAULT_LENGTH]
            raise

    def judged_event(self) -> Any:
        if self.their_state is h11.IDLE and self.our_state is h11.IDLE:
            self._receive_buffer.maybe_extract_at_most(empty_lines_end(self.trailing_data[0]))
            buffer = self.trailing_data[0]
            if buffer == b"\r":
                return h11.NEED_DATA
            if buffer:
                try:
                    end = head_end(buffer, self._max_incomplete_event_size)
                    if end >= 0:
                        read_head(buffer[:end])
                except HeadError as fault:
                    raise refusal(fault) from fault
        if self.their_state is h11.MUST_CLOSE:
            return h11.NEED_DATA  # bytes behind a last request are no reason to refuse that request
        return super().next_event()

    def _get_io_object(self, role: Any, event: Any, io_dict: Any) -> Any:
        """h11 chooses its reader here, and has no other place where its own can be left out."""
        found = super()._get_io_object(role, event, io_dict)
        return StrictChunks(self._max_incomplete_event_size) if isinstance(found, ChunkedReader) else found


class StrictH11(H11Protocol):
    """HTTP/1.1 without protocol switches, but to WebSocket where the application passes those through.

    head_since: when the first byte of a head came that is not whole yet.
    """

    head_since = inf

    def __init__(self, limits: Limits, *args: Any) -> None:
        super().__init__(*args)
        self.limits = limits
        self.connection = StrictConnection(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)
        self.answered = trio.Event()

    async def handle(self, event: Event) -> None:
        if isinstance(event, Closed) and isinstance(self.connection, StrictConnection):
            self.connection.gone = True
        await super().handle(event)
        if not isinstance(self.connection, StrictConnection):
            self.head_since = inf  # a WebSocket by now: no heads any more
            return
        partial = self.connection.their_state is h11.IDLE and self.connection.trailing_data[0]
        self.head_since = min(self.head_since, trio.current_time()) if partial else inf

    async def finish(self) -> None:
        """The peer will send no more. A request that came whole gets its answer all the same (RFC 9112 section 9.6);
        what would follow something for ever is told and ends. Nobody waits for longer than ended_s: it may have gone.
        """
        stream = self.stream
        if isinstance(stream, HTTPStream) and self.connection.their_state in (h11.DONE, h11.MUST_CLOSE):
            await stream.app_put(cast(Any, {"type": ENDED}))
            with trio.move_on_after(self.limits.ended_s):
                await self.answered.wait()

    async def _close_stream(self) -> None:
        await super()._close_stream()
        self.answered.set()
        self.answered = trio.Event()

    async def _send_error_response(self, status_code: int) -> None:
        """The same words as the fast lane's for a head that is not acceptable."""
        assert isinstance(self.connection, StrictConnection)
        fields, body = make_problem(status_code, self.connection.fault)
        date = self.config.response_headers("h11") or [(b"Date", write_date(time()))]
        whole = h11.Response(status_code=status_code, headers=[*fields, *CLOSE, *date])
        for event in (whole, h11.Data(data=body), h11.EndOfMessage()):
            await self._send_h11_event(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Hypercorn would switch to HTTP/2 here."""

    async def _create_stream(self, request: h11.Request) -> None:
        framing = [(name.lower(), value) for name, value in request.headers]
        body = any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")) for name, value in framing
        )
        # What Hypercorn does not pass on: the method as it was sent, for methods are case-sensitive (RFC 9110 section
        # 9.1), a "?" that no query follows, and whether a body does.
        passed = {METHOD: request.method.decode("ascii"), TARGET: request.target, BODY: body}
        self.connection_state = ConnectionState({**self.connection_state, **passed})
        wanted = [value.strip().lower() for name, value in request.headers if name == b"upgrade"]
        if self.limits.websockets and wanted == [b"websocket"] and request.method == b"GET":
            await super()._create_stream(request)
            return
        fields = [(name, value) for name, value in request.headers.raw_items() if name.lower() != b"upgrade"]
        plain = h11.Request(
            method=request.method, target=request.target, headers=fields, http_version=request.http_version
        )
        await super()._create_stream(plain)


class Busy:
    """The connections with a request under way. progress_s: when one of them last got on (time.monotonic)."""

    def __init__(self) -> None:
        self.connections: set[HypercornConnection] = set()
        self.progress_s = -inf

    def is_getting_on(self) -> bool:
        """Whether one of them may want the thread at once. An event stream without events does not."""
        return bool(self.connections) and monotonic() - self.progress_s < PARKED_S


@dataclass(frozen=True, slots=True)
class SharedByConnections:
    """What all connections of a server have alike."""

    answer: Answerer
    config: Config
    limits: Limits
    context: WorkerContext = field(default_factory=lambda: WorkerContext(None))
    busy: Busy = field(default_factory=Busy)


class HypercornConnection(TCPServer):
    """One connection. initial: bytes that were read from it before it came here; it is in `busy` during a request."""

    stream: Any  # a SocketStream or a TlsStream over one
    protocol: StrictH11  # type: ignore[assignment]  # Hypercorn has one here that chooses among protocols

    def __init__(
        self,
        shared: SharedByConnections,
        stream: Any,
        peer: Peer,
        initial: bytes,
    ) -> None:
        # Hypercorn hands the application on untouched, to `Tasks.spawn_app`.
        super().__init__(cast(Any, shared.answer), shared.config, shared.context, LifespanState(), stream)
        self.peer = peer
        self.limits = shared.limits
        self.initial = initial
        self.socket = getattr(stream, "transport_stream", stream).socket
        self.busy = shared.busy
        self.ended = False
        self.aborted = trio.Event()

    def abort(self) -> None:
        """Close the socket under whatever waits on it; the tasks of the connection then end by themselves."""
        self.socket.close()
        self.aborted.set()

    async def run(self) -> None:
        try:
            await self.converse()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            logger.debug("connection from %s broke", self.peer.address)
        except* Exception:
            logger.exception("connection from %s: contained", self.peer.address)
        finally:
            self.busy.connections.discard(self)
            self.abort()

    async def converse(self) -> None:
        async with Tasks(self.limits.body_s) as group:
            self._task_group = group
            self.protocol = StrictH11(
                self.limits,
                self.app,
                self.config,
                self.context,
                group,
                ConnectionState({"peer": self.peer}),
                isinstance(self.stream, TlsStream),
                None if self.peer.unix else self.socket.getpeername()[:2],
                None if self.peer.unix else self.socket.getsockname()[:2],
                self.protocol_send,
            )
            await self.idle_task.restart(group, self._idle_timeout)
            if self.initial:
                await self.protocol.handle(RawData(self.initial))
                self.initial = b""
            await self._read_data()
            self.ended = True
            await self.idle_task.stop()
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        self.busy.progress_s = monotonic()
        if isinstance(event, RawData):
            async with self.send_lock:
                sent = await self.send_pieces(event.data)
            if not sent:
                self.abort()
                await self.protocol.handle(Closed())
            return
        if isinstance(event, Updated):
            self.busy.connections.discard(self) if event.idle else self.busy.connections.add(self)
            if self.ended:
                return  # the idle timer would keep a connection that is gone among the open ones
        await super().protocol_send(event)

    async def send_pieces(self, data: bytes) -> bool:
        """Send all; False if the client is gone or made no progress for write_s."""
        for start in range(0, len(data), SEND_BYTES):
            try:
                # shielded, for half a frame would break the connection; the server aborts the socket to end it sooner
                with trio.move_on_after(self.limits.write_s, shield=True) as limit:
                    await self.stream.send_all(data[start : start + SEND_BYTES])
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                return False  # the client is gone, or another task is just ending the connection
            if limit.cancelled_caught:
                return False
        return True

    async def _read_data(self) -> None:
        while True:
            data = await self.receive()
            if not data:
                break
            self.busy.progress_s = monotonic()
            await self.protocol.handle(RawData(data))
        await self.protocol.finish()
        await self.protocol.handle(Closed())

    async def receive(self) -> bytes:
        """What the peer sends next; nothing where it has ended, or where its head is late."""
        data = b""
        with (
            trio.move_on_at(self.protocol.head_since + self.limits.head_s),
            suppress(trio.ClosedResourceError, trio.BrokenResourceError),
        ):
            try:
                data = bytes(await self.stream.receive_some(RECEIVE_BYTES))
            except trio.BusyResourceError:
                await self.aborted.wait()  # the request's task is reading the rest and will end the connection
        return data

    async def _close(self) -> None:
        with trio.move_on_after(1, shield=True):
            try:
                if not isinstance(self.stream, TlsStream):
                    await self.stream.send_eof()
                    await self.linger()
                await self.stream.aclose()
            except (trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError):
                pass  # gone already, or another task is in the middle of ending it
        self.abort()

    async def linger(self) -> None:
        """Read what still comes, so that closing with unread bytes does not reset the answer away (RFC 9112 9.6)."""
        for _ in range(16):
            if not await self.stream.receive_some(RECEIVE_BYTES):
                return
