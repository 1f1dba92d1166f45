"""The lane: plain HTTP/1.1 GET and HEAD answered by one trio task on an epoll set of its own.

A request whose very bytes were seen before, from the same identity, at this generation, is answered with the bytes of
the answer; any other is parsed and answered by the application as everywhere. What is none of these (a body, Expect,
another method, HTTP/2, a WebSocket) goes to Hypercorn with the bytes read so far, before anything is answered.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic

import trio

from edged.access.identity import Peer
from edged.http.application import Application, contained, discard
from edged.http.framing import LAST_CHUNK, chunk
from edged.http.lane.answers import LaneAnswers
from edged.http.lane.client import LaneClient
from edged.http.lane.connection import (
    Event,
    HeldRequest,
    LaneConnection,
    LaneState,
    StreamUnderWay,
    ThreadWork,
)
from edged.http.lane.sockets import INBOX_BYTES, READ, WRITE, Server, Sockets
from edged.http.limits import PARKED_S, Limits
from edged.http.meter import Meter

logger = logging.getLogger("edged.http")

OUT_BYTES = 256 << 10  # of pipelined answers, before they are sent
TURN_BYTES = 1 << 20  # of one answer, before the others get their turn
BATCH = 64
SLICE_S = 0.004  # how long the lane keeps the thread, while requests come, before other tasks get their turn
BLOCK_S = 0.001  # how long it waits for the next request within that
SHARED_SLICE_S = 0.0005  # instead of SLICE_S while other tasks are answering requests
PARKED_SLICE_S = 0.001  # and while those that do have waited for their upstreams for PARKED_S
SWEEP_S = 1.0
CLOCK_S = 0.02  # how late Age and Date may be
LINGER_S = 2.0


class Lane:
    """clock: seconds since 1970."""

    def __init__(self, application: Application, clock: Callable[[], float], meter: Meter, limits: Limits) -> None:
        self.application = application
        self.answers = LaneAnswers(application, clock, meter, limits)
        self.recall = self.answers.recall
        self.meter = meter
        self.limits = limits
        self.generation = -1
        self.sockets = Sockets(meter)
        self.clock_at = 0.0  # when to look at it again
        self.woken: deque[LaneConnection] = deque()
        self.awake = trio.Event()
        self.tasks = 0  # of applications, under way
        self.progress_s = 0.0  # when one of them last began or got on
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
        connections = self.sockets.connections
        while events:
            self.tick()
            for fd, mask in events:
                connection = connections.get(fd)
                if connection is not None:
                    self.handle(connection, Event.WRITABLE if mask & WRITE else Event.READABLE)
            if self.sockets.now >= until:
                break
            events = self.sockets.epoll.poll(0 if self.is_shared() else BLOCK_S, BATCH)

    def handle(self, connection: LaneConnection, event: Event) -> None:
        """What TRANSITIONS says; a fault of ours costs the connection."""
        try:
            HANDLERS[connection.state][event](self, connection)
        except Exception:  # a stream that fails half-way must not end the others
            logger.exception("connection from %s: contained", connection.peer.address)
            self.sockets.close(connection)

    def is_shared(self) -> bool:
        """Whether other tasks need the thread to answer requests: not those that have long waited for an upstream."""
        return (self.tasks > 0 and monotonic() - self.progress_s < PARKED_S) or self.sockets.server.is_busy()

    def slice_s(self) -> float:
        if self.is_shared():
            return SHARED_SLICE_S
        return PARKED_SLICE_S if self.tasks else SLICE_S

    def tick(self) -> None:
        """Look whether anything has moved, and now and then at the clock: nothing remembered outlives what it is of."""
        self.sockets.now = monotonic()
        generation = self.application.generation()
        if self.sockets.now >= self.clock_at or generation != self.generation:
            self.clock_at = self.sockets.now + CLOCK_S
            self.generation = generation
            self.answers.renew(generation)

    # --- reading ----------------------------------------------------------------------------------------------------

    def adopt(self, sock: socket.socket, peer: Peer) -> None:
        """Take over an accepted, non-blocking socket. Raises OSError where it cannot be watched."""
        who = self.application.identify(peer)
        partition = self.answers.memory.partition_of(who, peer.unix)
        connection = LaneConnection(sock, peer, who, partition, monotonic())
        connection.on_woken = self.wake
        self.sockets.add(connection)

    def read(self, connection: LaneConnection) -> None:
        """Between requests: what was answered before is answered at once."""
        data = self.sockets.receive(connection)
        if data is None:
            return
        known = None if connection.inbox else self.recall(connection, data)
        if known is not None:
            self.sockets.write(connection, known)
            if connection.closing or self.draining:
                self.go_on(connection)
        elif not data:
            self.sockets.close(connection)
        else:
            connection.inbox += data
            self.go_on(connection)

    def read_ahead(self, connection: LaneConnection) -> None:
        """While one request is being answered: the next ones wait. A peer that ends still gets what it has asked;
        what follows without end, ends.
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
                connection.doing.leave()
            self.go_on(connection)

    def read_to_the_end(self, connection: LaneConnection) -> None:
        if self.sockets.receive(connection) == b"":
            self.sockets.close(connection)

    # --- writing ----------------------------------------------------------------------------------------------------

    def go_on(self, connection: LaneConnection) -> None:
        """Go on with what the connection is in the middle of, until it has to wait for its peer, for something to
        move or for whoever answers. After TURN_BYTES the others get their turn.
        """
        turn = TURN_BYTES
        while connection.outbox is None:
            data = STEPS[connection.state](self, connection)
            if data is None:
                return
            if data:
                self.sockets.write(connection, data)
            turn -= len(data)
            if turn < 0 and connection.outbox is None and connection.state is LaneState.STREAMING:
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
            under_way.pieces = follow()
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
            if connection.ended:
                client.leave()
            self.nursery.start_soon(self.run_task, connection, client)
        return None

    def step_handing_over(self, connection: LaneConnection) -> bytes | None:
        self.sockets.forget(connection)
        self.sockets.server.hand_over(connection.sock, connection.peer, connection.inbox)
        return None

    def wait(self, connection: LaneConnection) -> bytes | None:
        return None

    # --- answers of threads and tasks ------------------------------------------------------------------------------

    async def run_work(self, connection: LaneConnection, work: ThreadWork) -> None:
        """Answer one slow request in a thread, so that the others go on."""
        make = partial(contained, work.work.work, work.request)
        work.answer = await trio.to_thread.run_sync(make, limiter=work.work.limiter)
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

    # --- waiting for something to move ------------------------------------------------------------------------------

    def wake(self, connection: LaneConnection) -> None:
        """A signal has moved: its followers get their turns, but not all at once."""
        self.woken.append(connection)
        self.awake.set()

    async def follow_signals(self) -> None:
        """Answer held requests and go on with streams when what they wait for has moved."""
        while True:
            await self.awake.wait()
            self.tick()
            until = self.sockets.now + SLICE_S
            while self.woken and monotonic() < until:
                connection = self.woken.popleft()
                if connection.woken:
                    connection.woken = False
                    self.handle(connection, Event.WOKEN)
            if not self.woken:
                self.awake = trio.Event()

    # --- deadlines, and the end --------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Look at the deadlines, coarsely."""
        while True:
            await trio.sleep(SWEEP_S)
            if self.sockets.connections:
                self.tick()
                for connection in list(self.sockets.connections.values()):
                    self.handle(connection, Event.SWEPT)

    def drain(self) -> None:
        """Answer what has come, end streams and held requests, close what is idle."""
        self.work()
        self.draining = True
        self.tick()
        for connection in list(self.sockets.connections.values()):
            self.handle(connection, Event.DRAINED)

    def is_stalled(self, connection: LaneConnection) -> bool:
        """Whether its peer does not read what was answered; it is closed then."""
        blocked = connection.outbox is not None or connection.state is LaneState.SENDING_FILE
        if blocked and self.sockets.now - connection.progress_at > self.limits.write_s:
            self.sockets.close(connection)
            return True
        return blocked

    def sweep_reading(self, connection: LaneConnection) -> None:
        """A head that does not get whole, or no request for long."""
        if self.is_stalled(connection):
            return
        now = self.sockets.now
        since, most_s = connection.progress_at, self.limits.idle_s
        if connection.head_since:
            since, most_s = connection.head_since, self.limits.head_s
        if now - since > most_s:
            self.sockets.close(connection)

    def sweep_writing(self, connection: LaneConnection) -> None:
        self.is_stalled(connection)

    def sweep_held(self, connection: LaneConnection) -> None:
        held = connection.doing
        assert isinstance(held, HeldRequest)
        if not self.is_stalled(connection) and self.sockets.now >= held.until:
            self.go_on(connection)

    def sweep_stream(self, connection: LaneConnection) -> None:
        """A stream that has nothing to say keeps its connection alive."""
        under_way = connection.doing
        assert isinstance(under_way, StreamUnderWay)
        stream = under_way.stream
        if self.is_stalled(connection) or stream.follow is None:
            return
        if self.sockets.now - connection.progress_at >= stream.keep_alive_s:
            connection.progress_at = self.sockets.now
            self.sockets.write(connection, chunk(stream.keep_alive) if under_way.chunked else stream.keep_alive)

    def sweep_lingering(self, connection: LaneConnection) -> None:
        if self.sockets.now - connection.progress_at > LINGER_S:
            self.sockets.close(connection)

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
    (LaneState.BY_TASK, Event.SWEPT): Lane.sweep_writing,
    (LaneState.BY_TASK, Event.DRAINED): Lane.nothing,
    (LaneState.HANDING_OVER, Event.READABLE): Lane.read_ahead,
    (LaneState.HANDING_OVER, Event.WRITABLE): Lane.flush,
    (LaneState.HANDING_OVER, Event.SWEPT): Lane.sweep_writing,
    (LaneState.HANDING_OVER, Event.DRAINED): Lane.nothing,
    (LaneState.LINGERING, Event.READABLE): Lane.read_to_the_end,
    (LaneState.LINGERING, Event.SWEPT): Lane.sweep_lingering,
    (LaneState.LINGERING, Event.DRAINED): Lane.nothing,
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
}
