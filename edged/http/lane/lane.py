"""The lane: plain HTTP/1.1 GET and HEAD answered by one trio task on an epoll set of its own.

A request whose very bytes were seen before, from the same identity, at this generation, is answered with the bytes of
the answer; any other is parsed and answered by the application as everywhere. What is none of these (a body, Expect,
another method, HTTP/2, a WebSocket) goes to Hypercorn with the bytes read so far, before anything is answered.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Any

import trio

from edged.access.identity import Peer
from edged.http.application import Application, StreamOver, discard, run_in_thread
from edged.http.framing import LAST_CHUNK, chunk
from edged.http.h2.fieldblocks import BlockDecoder
from edged.http.h2.remembered import RememberedFrames
from edged.http.head import MAX_FIELDS
from edged.http.lane.answers import LaneAnswers
from edged.http.lane.client import LaneClient
from edged.http.lane.connection import Event, HeldRequest, LaneConnection, LaneState, StreamUnderWay, ThreadWork
from edged.http.lane.multiplexed import (
    drain_streams,
    flush_streams,
    read_streams,
    step_multiplexed,
    wake_streams,
)
from edged.http.lane.precedence import Precedence
from edged.http.lane.secure import (
    Handshakes,
    SecureConnection,
    end_handshake,
    flush_handshake,
    read_handshake,
    shake_hands,
)
from edged.http.lane.sockets import INBOX_BYTES, READ, RECEIVE_BYTES, WRITE, Server, Sockets
from edged.http.lane.turns import Turns
from edged.http.limits import Limits
from edged.http.meter import Meter
from edged.http.tls.certificates import Certificates
from edged.http.tls.session import TlsSession

logger = logging.getLogger("edged.http")

OUT_BYTES = 256 << 10  # of pipelined answers, before they are sent
TURN_BYTES = 1 << 20  # of one answer, before the others get their turn
BATCH = 64
BLOCK_S = 0.001  # how long it waits for the next request within that
BLOCKS_SHIFT = 4  # a sixteenth as much memory is for field blocks of HTTP/2
CLOCK_S = 0.02  # how late Age and Date may be
READABLE, WRITABLE = int(Event.READABLE), int(Event.WRITABLE)


class Lane(Turns):
    """clock: seconds since 1970. certificates: of a listener that speaks TLS."""

    def __init__(
        self,
        application: Application,
        clock: Callable[[], float],
        meter: Meter,
        limits: Limits,
        certificates: Certificates | None = None,
    ) -> None:
        super().__init__()
        self.application = application
        self.precedence = Precedence()
        self.answers = LaneAnswers(application, clock, meter, limits, self.precedence)
        self.recall = self.answers.memory.recall
        self.frames = RememberedFrames(self.answers.memory.answers)
        self.decoder = BlockDecoder(limits.memory_bytes >> BLOCKS_SHIFT, limits.head_bytes, MAX_FIELDS)
        self.certificates = certificates
        self.handshakes = Handshakes()
        self.asked_at = 0.0  # when somebody has asked last whose handshake is over
        self.told_at = 0.0  # when the log was told last of a peer that breaks rules
        self.look = application.generation
        self.meter = meter
        self.limits = limits
        self.generation = -1
        self.sockets = Sockets(meter, limits)
        self.clock_at = 0.0  # when to look at it again
        self.draining = False
        self.nursery: trio.Nursery

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def run(self, server: Server, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled; on the way out close every connection that is left."""
        self.sockets.server = server
        try:
            async with trio.open_nursery() as self.nursery:
                self.nursery.start_soon(self.sweep)
                self.nursery.start_soon(self.follow_signals)
                task_status.started()
                while True:
                    if self.sockets.unread or self.handshakes.waiting:
                        await trio.lowlevel.checkpoint()
                    else:
                        await trio.lowlevel.wait_readable(self.sockets.epoll)
                    self.work()
        finally:
            for connection in list(self.sockets.connections.values()):
                self.sockets.close(connection)
            self.sockets.epoll.close()

    def work(self) -> None:
        """Answer what is there. While requests keep coming and no other task answers any the thread is kept for
        SLICE_S, blocked in our own epoll: going round trio's loop costs more than a whole request.
        """
        events = self.sockets.epoll.poll(0, BATCH)
        until = monotonic() + self.slice_s()
        connections, unread, waiting = self.sockets.connections, self.sockets.unread, self.handshakes.waiting
        while events or unread or waiting:
            self.tick()
            if self.precedence.some_wait:
                events = self.precedence.take(events, connections, self.sockets.now)
            for fd, mask in events:
                connection = connections.get(fd)
                if connection is None:
                    until = 0.0  # somebody is to be accepted, which is another task's
                    continue
                try:  # as `handle` does, which would cost each request one more call
                    HANDLERS[connection.state][WRITABLE if mask & WRITE else READABLE](self, connection)
                except Exception:
                    self.contain(connection)
            if unread:
                self.read_on()
            if waiting:
                shake_hands(self)
            if self.sockets.now >= until:
                break
            events = self.sockets.epoll.poll(0 if unread or self.is_shared() else BLOCK_S, BATCH)
        if self.frames.has_hits:
            self.count_hits()
        if self.answers.memory.has_hits:
            self.answers.memory.count()

    def handle(self, connection: LaneConnection, event: Event) -> None:
        """What TRANSITIONS says; a fault of ours costs the connection."""
        try:
            HANDLERS[connection.state][event](self, connection)
        except Exception:
            self.contain(connection)

    def contain(self, connection: LaneConnection) -> None:
        """A stream that fails half-way must not end the others."""
        logger.exception("connection from %s: contained", connection.peer.address)
        self.sockets.close(connection)

    def tick(self) -> None:
        """Look whether anything has moved, and now and then at the clock: nothing remembered outlives what it is of."""
        self.sockets.now = monotonic()
        generation = self.look()
        if self.sockets.now >= self.clock_at or generation != self.generation:
            self.clock_at = self.sockets.now + CLOCK_S
            self.generation = generation
            self.answers.renew(generation)
            self.frames.renew(generation, self.answers.memory.now)

    def count_hits(self) -> None:
        for status, count in self.frames.take_counts().items():
            self.meter.fast_answers[status] += count
            self.meter.remembered += count

    # --- reading ----------------------------------------------------------------------------------------------------

    def adopt(self, sock: socket.socket, peer: Peer) -> None:
        """Take over an accepted, non-blocking socket. Raises OSError where it cannot be watched."""
        who = self.application.identify(peer)
        partition = self.answers.memory.partition_of(who, peer.unix)
        if self.certificates is None or peer.unix:
            connection = LaneConnection(sock, peer, who, partition, monotonic())
        else:
            connection = SecureConnection(sock, peer, who, partition, TlsSession(self.certificates.context))
        connection.on_woken = self.wake
        connection.judged = not self.application.judges
        self.precedence.some_wait |= connection.waits
        self.sockets.add(connection)
        self.occupied.set()

    def read(self, connection: LaneConnection) -> None:
        """Between requests: what was answered before is answered at once."""
        sockets = self.sockets
        try:  # as `Sockets.receive` and `write` do, which would cost each request two more calls
            data = connection.receive(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            sockets.close(connection)
            return
        connection.progress_at = self.asked_at = sockets.now
        if connection.more:
            sockets.unread[connection] = None
        known = None if connection.inbox else self.recall(connection, data)
        if known is not None:
            sockets.write(connection, known)
            if connection.closing or self.draining:
                self.go_on(connection)
        elif not data:
            self.sockets.close(connection)
        else:
            connection.inbox += data
            self.go_on(connection)

    def read_ahead(self, connection: LaneConnection) -> None:
        """While one request is being answered: the next ones wait. A peer that ends (RFC 9112 section 9.6) still gets
        what it has asked; only what would follow something for ever, ends. Nobody is told that it has gone before its
        connection breaks: a client that has closed both ways cannot be told from one that still reads.
        """
        data = self.sockets.receive(connection)
        if data:
            connection.inbox += data
            if len(connection.inbox) > INBOX_BYTES:
                self.sockets.close(connection)  # sends requests without end while one is being answered
        elif data is not None:
            if connection.ended:
                self.sockets.close(connection)
                return
            connection.ended = True
            self.sockets.watch(connection, READ)
            if isinstance(connection.doing, LaneClient):
                connection.doing.end_input()
            self.go_on(connection)

    def start(self, run: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        """A task of its own, ended with the lane."""
        self.nursery.start_soon(run, *arguments)

    def read_to_the_end(self, connection: LaneConnection) -> None:
        if self.sockets.receive(connection) == b"":
            self.sockets.close(connection)

    # --- writing ----------------------------------------------------------------------------------------------------

    def go_on(self, connection: LaneConnection) -> None:
        """Go on with what the connection is in the middle of, until it has to wait for its peer, for something to
        move or for whoever answers. After TURN_BYTES the others get their turn, after one answer where they come first.
        """
        turn = TURN_BYTES
        while connection.outbox is None:
            data = STEPS[connection.state](self, connection)
            if data is None:
                return
            if data:
                self.sockets.write(connection, data)
            turn -= len(data)
            long = turn < 0 and connection.state is LaneState.STREAMING
            if (long or (data and self.precedence.leaves_rest(connection))) and connection.outbox is None:
                self.sockets.watch(connection, WRITE)
                return

    def flush(self, connection: LaneConnection) -> None:
        """The kernel takes more."""
        if self.sockets.write_rest(connection):
            self.go_on(connection)

    # --- a step of each state: the bytes that go out next, None where it has to wait ------------------------------

    def step_reading(self, connection: LaneConnection) -> bytes | None:
        if connection.closing:
            self.sockets.linger(connection)
            return None
        out: list[bytes] = []
        size = 0
        while (
            connection.inbox and connection.state is LaneState.READING and not connection.closing and size < OUT_BYTES
        ):
            data = self.answers.next_answer(connection, self.sockets.now)
            if data is None:
                break
            out.append(data)
            size += len(data)
            if self.precedence.leaves_rest(connection):
                break
        if out:
            return b"".join(out)
        if connection.state is LaneState.READING and (connection.ended or self.draining):
            connection.closing = True
            return b""
        return None if connection.state is LaneState.READING else b""

    def step_held(self, connection: LaneConnection) -> bytes | None:
        held = connection.doing
        assert isinstance(held, HeldRequest)
        signal = held.held.signal
        last = self.draining or connection.ended or self.sockets.now >= held.until
        if not last and signal.follow(connection, held.held.generation):
            return None
        signal.leave(connection)
        connection.woken = False
        connection.progress_at = self.sockets.now
        return self.answers.resume(connection, held, self.sockets.now, last=last) or b""

    def step_streaming(self, connection: LaneConnection) -> bytes | None:
        """The stream's next bytes. One that is not chunked ends without a last chunk."""
        under_way = connection.doing
        assert isinstance(under_way, StreamUnderWay)
        signal, follow = under_way.stream.signal, under_way.stream.follow
        while True:
            for piece in under_way.pieces:
                if piece:
                    return chunk(piece) if under_way.chunked else piece
            if signal is None or follow is None or connection.ended or self.draining:
                break
            if signal.follow(connection, under_way.generation):
                return None
            under_way.generation = signal.generation
            try:
                under_way.pieces = follow()
            except StreamOver:
                break
        self.sockets.end_stream(connection, under_way)
        connection.closing = under_way.close
        connection.become(LaneState.READING)
        return LAST_CHUNK if under_way.chunked else b""

    def step_file(self, connection: LaneConnection) -> bytes | None:
        """Bytes of the file go from the kernel to the kernel."""
        if not self.sockets.write_file(connection, TURN_BYTES):
            return None
        connection.end_file()
        return b""

    def step_in_thread(self, connection: LaneConnection) -> bytes | None:
        work = connection.doing
        assert isinstance(work, ThreadWork)
        if not work.started:
            work.started = True
            self.nursery.start_soon(self.run_work, connection, work)
        return None

    def step_by_task(self, connection: LaneConnection) -> bytes | None:
        """Begin with a task, or tell the one under way that there is room again."""
        client = connection.doing
        assert isinstance(client, LaneClient)
        if client.started:
            client.room.unpark_all()
        else:
            client.started = True
            self.tasks += 1
            self.progress_s = monotonic()
            self.nursery.start_soon(self.run_task, connection, client)
        return None

    def step_handing_over(self, connection: LaneConnection) -> bytes | None:
        self.sockets.forget(connection)
        self.sockets.server.hand_over(connection)
        return None

    def wait(self, connection: LaneConnection) -> bytes | None:
        return None

    # --- answers of threads and tasks ------------------------------------------------------------------------------

    async def run_work(self, connection: LaneConnection, work: ThreadWork) -> None:
        """Answer one slow request in a thread, so that the others go on."""
        work.answer = await run_in_thread(work.work, work.request)
        if connection.state is LaneState.CLOSED:
            discard(work.answer)
            return
        self.tick()
        self.handle(connection, Event.ANSWERED)

    def take_answer(self, connection: LaneConnection) -> None:
        """The thread is through."""
        work = connection.doing
        assert isinstance(work, ThreadWork)
        connection.progress_at = self.sockets.now
        data = self.answers.end_work(connection, work, self.sockets.now)
        if data is not None:
            self.sockets.write(connection, data)
        self.go_on(connection)

    async def run_task(self, connection: LaneConnection, client: LaneClient) -> None:
        """Have an application answer one request."""
        try:
            await client.run(partial(self.write_all, connection, client))
        except Exception:
            logger.exception("answer %s: the application failed", connection.peer.address)
        finally:
            self.tasks -= 1
        if connection.state is not LaneState.CLOSED:
            self.tick()
            self.handle(connection, Event.ANSWERED)

    def end_task(self, connection: LaneConnection) -> None:
        """The task is through. An answer that it has not ended is cut off with the connection."""
        client = connection.doing
        assert isinstance(client, LaneClient)
        connection.progress_at = self.sockets.now
        connection.become(LaneState.READING)
        if client.complete:
            connection.closing = client.close
        elif client.status:
            self.sockets.close(connection)
            return
        else:
            self.sockets.write(connection, self.answers.give_up(connection, 500, "nothing answered"))
        self.go_on(connection)

    async def write_all(self, connection: LaneConnection, client: LaneClient, data: bytes) -> None:
        """Return when the kernel has taken everything; cancelled where the connection is closed before."""
        connection.progress_at = self.sockets.now
        self.progress_s = monotonic()
        self.sockets.write(connection, data)
        while connection.outbox is not None:
            await client.room.park()
        if connection.state is LaneState.CLOSED:
            await trio.lowlevel.checkpoint()

    # --- deadlines, and the end --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Answer what has come, end streams and held requests, close what is idle."""
        self.work()
        self.draining = True
        self.tick()
        for connection in list(self.sockets.connections.values()):
            self.handle(connection, Event.DRAINED)

    def nothing(self, connection: LaneConnection) -> None:
        """It goes on as it was."""

    def impossible(self, connection: LaneConnection) -> None:
        raise AssertionError(f"lane: an event that {connection.state.name} does not know")


# What each event does in each state; what is absent cannot happen. docs/serving.md draws it, and a test compares.
TRANSITIONS: dict[tuple[LaneState, Event], Callable[[Lane, LaneConnection], None]] = {
    (LaneState.READING, Event.READABLE): Lane.read,
    (LaneState.READING, Event.WRITABLE): Lane.flush,
    (LaneState.READING, Event.SWEPT): Lane.sweep_reading,
    (LaneState.READING, Event.DRAINED): Lane.go_on,
    (LaneState.IN_THREAD, Event.READABLE): Lane.read_ahead,
    (LaneState.IN_THREAD, Event.WRITABLE): Lane.flush,
    (LaneState.IN_THREAD, Event.ANSWERED): Lane.take_answer,
    (LaneState.IN_THREAD, Event.SWEPT): Lane.sweep_writing,
    (LaneState.IN_THREAD, Event.DRAINED): Lane.nothing,
    (LaneState.HELD, Event.READABLE): Lane.read_ahead,
    (LaneState.HELD, Event.WRITABLE): Lane.flush,
    (LaneState.HELD, Event.WOKEN): Lane.go_on,
    (LaneState.HELD, Event.SWEPT): Lane.sweep_held,
    (LaneState.HELD, Event.DRAINED): Lane.go_on,
    (LaneState.STREAMING, Event.READABLE): Lane.read_ahead,
    (LaneState.STREAMING, Event.WRITABLE): Lane.flush,
    (LaneState.STREAMING, Event.WOKEN): Lane.go_on,
    (LaneState.STREAMING, Event.SWEPT): Lane.sweep_stream,
    (LaneState.STREAMING, Event.DRAINED): Lane.go_on,
    (LaneState.SENDING_FILE, Event.READABLE): Lane.read_ahead,
    (LaneState.SENDING_FILE, Event.WRITABLE): Lane.flush,
    (LaneState.SENDING_FILE, Event.SWEPT): Lane.sweep_writing,
    (LaneState.SENDING_FILE, Event.DRAINED): Lane.nothing,
    (LaneState.BY_TASK, Event.READABLE): Lane.read_ahead,
    (LaneState.BY_TASK, Event.WRITABLE): Lane.flush,
    (LaneState.BY_TASK, Event.ANSWERED): Lane.end_task,
    (LaneState.BY_TASK, Event.SWEPT): Lane.sweep_task,
    (LaneState.BY_TASK, Event.DRAINED): Lane.nothing,
    (LaneState.HANDING_OVER, Event.READABLE): Lane.read_ahead,
    (LaneState.HANDING_OVER, Event.WRITABLE): Lane.flush,
    (LaneState.HANDING_OVER, Event.SWEPT): Lane.sweep_writing,
    (LaneState.HANDING_OVER, Event.DRAINED): Lane.nothing,
    (LaneState.LINGERING, Event.READABLE): Lane.read_to_the_end,
    (LaneState.LINGERING, Event.SWEPT): Lane.sweep_lingering,
    (LaneState.LINGERING, Event.DRAINED): Lane.nothing,
    (LaneState.HANDSHAKE, Event.READABLE): read_handshake,
    (LaneState.HANDSHAKE, Event.WRITABLE): flush_handshake,
    (LaneState.HANDSHAKE, Event.SWEPT): Lane.sweep_handshake,
    (LaneState.HANDSHAKE, Event.DRAINED): end_handshake,
    (LaneState.MULTIPLEXED, Event.READABLE): read_streams,
    (LaneState.MULTIPLEXED, Event.WRITABLE): flush_streams,
    (LaneState.MULTIPLEXED, Event.WOKEN): wake_streams,
    (LaneState.MULTIPLEXED, Event.SWEPT): Lane.sweep_multiplexed,
    (LaneState.MULTIPLEXED, Event.DRAINED): drain_streams,
}
HANDLERS = [[TRANSITIONS.get((state, event), Lane.impossible) for event in Event] for state in LaneState]

# What a connection does next in each state, once the kernel has taken what was written.
STEPS: dict[LaneState, Callable[[Lane, LaneConnection], bytes | None]] = {
    LaneState.READING: Lane.step_reading,
    LaneState.IN_THREAD: Lane.step_in_thread,
    LaneState.HELD: Lane.step_held,
    LaneState.STREAMING: Lane.step_streaming,
    LaneState.SENDING_FILE: Lane.step_file,
    LaneState.BY_TASK: Lane.step_by_task,
    LaneState.HANDING_OVER: Lane.step_handing_over,
    LaneState.LINGERING: Lane.wait,
    LaneState.CLOSED: Lane.wait,
    LaneState.MULTIPLEXED: step_multiplexed,
}
