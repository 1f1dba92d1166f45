"""A connection of HTTP/2 in the lane: its requests to the application, their answers to the socket, and its end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from edged.http.application import Application, InThread, contained, problem, run_in_thread
from edged.http.h2.connection import FRAMES_A_TURN, H2Connection, H2Limits
from edged.http.h2.events import (
    BodyEnded,
    BodyReceived,
    ConnectionEnded,
    Drained,
    Event,
    RequestReceived,
    RequestRefused,
    StreamReset,
)
from edged.http.h2.fieldblocks import BlockDecoder
from edged.http.h2.frames import ErrorCode
from edged.http.h2.remembered import RememberedFrames
from edged.http.lane.connection import LaneConnection, LaneState
from edged.http.lane.exchange import H2Exchange
from edged.http.lane.h2client import H2Client
from edged.http.lane.precedence import Precedence
from edged.http.lane.sockets import WRITE, Sockets
from edged.http.limits import Limits
from edged.http.meter import Meter
from edged.http.request import Request

logger = logging.getLogger("edged.http")

TELL_S = 1.0  # between two lines in the log about peers that break rules
TURN_BYTES = 1 << 20  # to one peer, before the others get their turn


@dataclass(slots=True)
class Stall:
    """An answer that waits for its peer: how much of it was sent, and when that was seen, at first and at last."""

    begun_bytes: int
    begun_at: float
    sent_bytes: int
    at: float


class MultiplexingLane(Protocol):
    """What a connection of HTTP/2 asks of its lane."""

    application: Application
    sockets: Sockets
    meter: Meter
    limits: Limits
    decoder: BlockDecoder
    frames: RememberedFrames
    precedence: Precedence
    draining: bool
    tasks: int
    progress_s: float
    asked_at: float
    told_at: float

    def start(self, run: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        """A task of its own, ended with the lane."""

    def tick(self) -> None:
        """Look at the clock, and whether anything has moved."""


class Multiplexed:
    """exchanges: requests under way, by stream; woken: those whose turn it is; stalls: of answers that the peer does
    not take; partial_since: when a frame came that is not whole yet, or 0.
    """

    def __init__(self, lane: MultiplexingLane, connection: LaneConnection) -> None:
        self.lane = lane
        self.connection = connection
        self.sockets = lane.sockets
        self.meter = lane.meter
        self.frames = lane.frames
        limits = H2Limits(lane.limits.streams, lane.limits.head_bytes)
        self.core = H2Connection(lane.decoder, lane.frames, limits, connection.partition, lane.sockets.now)
        self.core.judged = connection.judged
        self.exchanges: dict[int, H2Exchange] = {}
        self.woken: list[H2Exchange] = []
        self.stalls: dict[int, Stall] = {}
        self.partial_since = lane.sockets.now
        self.flooded = False

    @property
    def now(self) -> float:
        return self.sockets.now

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self.core.streams)

    # --- the socket -------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """What has come is answered as far as memory goes, and the rest is asked of the application."""
        if self.core.has_more():
            self.take(b"")
            return
        data = self.sockets.receive(self.connection)
        if data:
            self.take(data)
        elif data is not None:
            self.on_end()

    def take(self, data: bytes) -> None:
        """data: from the peer; nothing: go on with what was left behind."""
        core = self.core
        core.turn = 1 if self.lane.precedence.yields and self.connection.waits else FRAMES_A_TURN
        core.receive(data, self.now)
        if core.events:
            self.settle()
            return
        out = core.take_output()  # the way of nearly all: everything was in memory
        if out:
            self.sockets.write(self.connection, out)
        if core.inbox or core.events or core.flow.waiting or self.lane.draining:
            self.settle()
        else:
            self.partial_since = 0.0

    def settle(self) -> None:
        """Go on until nothing is left but to wait: for the peer, for the kernel, or for whoever answers."""
        core, connection, turn = self.core, self.connection, TURN_BYTES
        while connection.state is LaneState.MULTIPLEXED:
            for event in core.take_events():
                self.on_event(event)
            if connection.outbox is not None:
                self.note_queue()
                return
            if turn < 0:
                self.sockets.watch(connection, WRITE)  # comes back at once, behind the others
                return
            out = core.take_output()
            if out:
                turn -= len(out)
                self.sockets.write(connection, out)
            elif not core.events:
                break
        if connection.state is not LaneState.MULTIPLEXED:
            return
        if core.has_more():
            connection.more = True
            self.sockets.unread[connection] = None
        self.note_queue()
        self.partial_since = (self.partial_since or self.now) if core.is_partial() else 0.0
        if core.is_finished() or (connection.ended and not core.streams):
            self.abandon()
            (self.sockets.hold_off if self.flooded else self.sockets.linger)(connection)

    def note_queue(self) -> None:
        queued_bytes = self.core.flow.queued_bytes
        if queued_bytes != self.connection.queued_bytes and self.connection.state is LaneState.MULTIPLEXED:
            self.sockets.note_queue(self.connection, queued_bytes)

    def on_end(self) -> None:
        """The peer sends no more, and may still read what it has asked."""
        connection = self.connection
        if connection.ended:
            self.sockets.close(connection)
            return
        connection.ended = True
        self.sockets.watch(connection, WRITE if connection.outbox is not None else 0)
        for exchange in list(self.exchanges.values()):
            exchange.leave()
        self.settle()

    def flush(self) -> None:
        """The kernel takes more."""
        if self.sockets.write_rest(self.connection):
            self.settle()

    # --- what the peer does -----------------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self.ask(event)
        elif isinstance(event, RequestRefused):
            self.meter.fast_answers[event.status] += 1
            refused = problem(event.status, event.detail)
            block = self.frames.block_of(refused, None, head_only=False)
            self.core.answer(event.stream_id, block, refused.body)
        elif isinstance(event, ConnectionEnded):
            self.flooded = event.code is ErrorCode.ENHANCE_YOUR_CALM
            self.tell(event)
        else:
            exchange = self.exchanges.get(event.stream_id)
            if exchange is not None:
                self.pass_on(event, exchange)

    def tell(self, event: ConnectionEnded) -> None:
        """A line in the log, but not a flood of lines for a flood of connections."""
        quiet = event.code is ErrorCode.NO_ERROR or self.now - self.lane.told_at < TELL_S
        if not quiet:
            self.lane.told_at = self.now
        level = logging.DEBUG if quiet else logging.INFO
        logger.log(level, "connection from %s ended: %s", self.connection.peer.address, event.detail)

    def pass_on(self, event: BodyReceived | BodyEnded | StreamReset | Drained, exchange: H2Exchange) -> None:
        if isinstance(event, BodyReceived):
            exchange.on_body(event.data)
        elif isinstance(event, BodyEnded):
            exchange.on_body_end()
        elif isinstance(event, StreamReset):
            self.end(exchange)
        else:
            exchange.go_on()

    def ask(self, event: RequestReceived) -> None:
        """One request of the application."""
        head, connection = event.head, self.connection
        fields = tuple(head.fields)
        request = Request(head.method.decode(), head.target, fields, head.version, connection.peer, connection.who)
        request.body = not event.ended
        exchange = H2Exchange(self, event.stream_id, head, request)
        exchange.asked = event.asked
        self.exchanges[event.stream_id] = exchange
        answer = contained(partial(self.lane.application.answer, request), request)
        connection.judge(request)
        self.lane.precedence.note(connection, self.now)
        self.core.judged = True
        exchange.give(answer)

    # --- what exchanges ask for -------------------------------------------------------------------------------------

    def start_work(self, exchange: H2Exchange, work: InThread) -> None:
        self.lane.start(self.run_work, exchange, work)

    def start_task(self, exchange: H2Exchange, client: H2Client) -> None:
        client.flush = self.settle
        self.lane.tasks += 1
        self.lane.progress_s = self.now
        self.lane.start(self.run_task, exchange, client)

    def wake(self, exchange: H2Exchange) -> None:
        self.woken.append(exchange)
        self.connection.wake()

    def end(self, exchange: H2Exchange) -> None:
        if self.exchanges.pop(exchange.stream_id, None) is not None:
            exchange.release()

    def is_last(self) -> bool:
        return self.lane.draining or self.connection.ended

    async def run_work(self, exchange: H2Exchange, work: InThread) -> None:
        answer = await run_in_thread(work, exchange.request)
        self.lane.tick()
        exchange.give(answer)
        self.settle()

    async def run_task(self, exchange: H2Exchange, client: H2Client) -> None:
        failed = False
        try:
            await client.run()
        except Exception:
            failed = True
            logger.exception("answer %s: the application failed", self.connection.peer.address)
        finally:
            self.lane.tasks -= 1
        self.lane.tick()
        exchange.end_client(client, failed=failed)
        self.settle()

    # --- turns, deadlines, the end ----------------------------------------------------------------------------------

    def on_woken(self) -> None:
        woken, self.woken = self.woken, []
        for exchange in woken:
            exchange.go_on()
        self.settle()

    def sweep(self) -> None:
        """Once a second: deadlines of frames, answers, bodies and of the connection."""
        limits, connection, core = self.lane.limits, self.connection, self.core
        if connection.outbox is not None and self.now - connection.progress_at > limits.write_s:
            self.sockets.close(connection)
            return
        for exchange in list(self.exchanges.values()):
            exchange.sweep(limits.body_s)
        self.cut_stalled(limits)
        if self.partial_since and self.now - self.partial_since > limits.head_s:
            core.end(ErrorCode.PROTOCOL_ERROR, f"a frame or a field block that was not whole after {limits.head_s:g} s")
        elif not core.streams and self.now - connection.progress_at > limits.idle_s:
            core.shut_down()
        self.settle()

    def cut_stalled(self, limits: Limits) -> None:
        """A peer that does not open its window, or opens it by a few bytes at a time, would hold its answers for ever:
        what waits is to get on within write_s, and by read_bytes_per_s in all that time.
        """
        before, self.stalls = self.stalls, {}
        for stream_id, stream in list(self.core.flow.waiting.items()):
            stall = before.get(stream_id)
            if stall is None:
                stall = Stall(stream.sent_bytes, self.now, stream.sent_bytes, self.now)
            if stall.sent_bytes != stream.sent_bytes:
                stall.sent_bytes, stall.at = stream.sent_bytes, self.now
            waited_s = self.now - stall.begun_at
            least = waited_s * limits.read_bytes_per_s
            slow = waited_s > limits.write_s and stream.sent_bytes - stall.begun_bytes < least
            if slow or self.now - stall.at > limits.write_s:
                self.core.reset(stream_id, ErrorCode.CANCEL)
                exchange = self.exchanges.get(stream_id)
                if exchange is not None:
                    self.end(exchange)
            else:
                self.stalls[stream_id] = stall

    def drain(self) -> None:
        """The server stops: what waits is answered, and what is under way; nothing new is taken. The farewell comes
        behind what can be answered at once, for there are clients that read nothing behind it.
        """
        for exchange in list(self.exchanges.values()):
            exchange.go_on()
        self.settle()
        self.core.shut_down()
        self.settle()

    def abandon(self) -> None:
        """The connection is closed."""
        for exchange in list(self.exchanges.values()):
            self.end(exchange)


# --- what the lane's table names ------------------------------------------------------------------------------------


def step_multiplexed(lane: MultiplexingLane, connection: LaneConnection) -> bytes | None:
    """The preface has come in clear text (RFC 9113 section 3.3): what was read so far belongs to HTTP/2."""
    streams = Multiplexed(lane, connection)
    connection.doing, data, connection.inbox = streams, connection.inbox, b""
    streams.take(data)
    return None


def streams_of(connection: LaneConnection) -> Multiplexed:
    assert isinstance(connection.doing, Multiplexed)
    return connection.doing


def read_streams(lane: MultiplexingLane, connection: LaneConnection) -> None:
    lane.asked_at = lane.sockets.now
    streams_of(connection).read()


def flush_streams(_lane: MultiplexingLane, connection: LaneConnection) -> None:
    streams_of(connection).flush()


def wake_streams(_lane: MultiplexingLane, connection: LaneConnection) -> None:
    streams_of(connection).on_woken()


def drain_streams(_lane: MultiplexingLane, connection: LaneConnection) -> None:
    streams_of(connection).drain()
