"""The fast lane: plain HTTP/1.1 GET and HEAD answered by one trio task on an epoll set of its own.

A request whose very bytes were seen before, from the same identity, at this version, is answered with the bytes of
the answer; any other is parsed and answered by the same handlers as everywhere. What is proxied and not in memory is
answered by a task of its own. What is none of these (a body, Expect, another method, HTTP/2, a WebSocket) goes to
Hypercorn with the bytes read so far, before anything is answered.
"""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Callable
from functools import partial
from time import monotonic

import trio

from edged.access.identity import Identity, Peer, identify
from edged.http.framing import LAST_CHUNK, chunk
from edged.http.head import HeadError
from edged.http.hypercorn.connection import PARKED_S
from edged.http.lane.answers import LaneAnswers
from edged.http.lane.call import Call
from edged.http.lane.connection import Flow, Job, LaneConnection, Lanes
from edged.http.limits import Limits
from edged.http.meter import Meter
from edged.http.server import Host
from edged.serve.answers.routes import answer_contained
from edged.serve.news import News

logger = logging.getLogger("edged.serve")

RECEIVE_BYTES = 64 << 10
OUT_BYTES = 256 << 10  # of pipelined answers, before they are sent
BATCH = 64
SLICE_S = 0.004  # how long the lane keeps the thread, while requests come, before other tasks get their turn
BLOCK_S = 0.001  # how long it waits for the next request within that
SHARED_SLICE_S = 0.0005  # instead of SLICE_S while other tasks are answering requests
PARKED_SLICE_S = 0.001  # and while those that do have waited for their upstreams for PARKED_S
SWEEP_S = 1.0
CLOCK_S = 0.02  # how late Age and Date may be
LINGER_S = 2.0
READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class FastLane:
    """A Front over LaneAnswers."""

    def __init__(
        self,
        answers: LaneAnswers,
        news: News,
        meter: Meter,
        limits: Limits,
        who: Callable[[Peer], Identity] = identify,
        proxied: Lanes | None = None,
    ) -> None:
        self.answers = answers
        self.proxied = proxied
        self.news = news
        self.meter = meter
        self.limits = limits
        self.who = who
        self.recall = answers.recall
        self.generation = news.generation
        self.now = monotonic()
        self.clock_at = 0.0  # when to look at it again
        self.connections: dict[int, LaneConnection] = {}
        self.followers: set[LaneConnection] = set()  # streams and held requests that wait for a new version
        self.followed = trio.Event()
        self.calls = 0  # under way
        self.stirred_s = 0.0  # when one of them last began or got on
        self.draining = False
        self.host: Host
        self.nursery: trio.Nursery
        self.epoll = select.epoll()

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.host = host
        try:
            async with trio.open_nursery() as self.nursery:
                self.nursery.start_soon(self.sweep)
                self.nursery.start_soon(self.follow_news)
                task_status.started()
                while True:
                    await trio.lowlevel.wait_readable(self.epoll)
                    self.work()
        finally:
            for connection in list(self.connections.values()):
                self.close(connection)
            self.epoll.close()

    def work(self) -> None:
        """Answer what is there. While requests keep coming and no other task answers any the thread is kept for
        SLICE_S, blocked in our own epoll: going round trio's loop costs more than a whole request.
        """
        events = self.epoll.poll(0, BATCH)
        until = monotonic() + self.slice_s()
        connections = self.connections
        while events:
            self.tick()
            for fd, mask in events:
                connection = connections.get(fd)
                if connection is None:
                    continue
                try:
                    if mask & WRITE:
                        self.on_writable(connection)
                    else:
                        self.on_readable(connection)
                except Exception:  # a stream that fails half-way must not end the others
                    logger.exception("connection from %s: contained", connection.peer.address)
                    self.close(connection)
            if self.now >= until:
                break
            events = self.epoll.poll(0 if self.is_shared() else BLOCK_S, BATCH)

    def is_shared(self) -> bool:
        """Whether other tasks need the thread to answer requests: not those that have long waited for an upstream."""
        return (self.calls > 0 and monotonic() - self.stirred_s < PARKED_S) or self.host.is_busy()

    def slice_s(self) -> float:
        if self.is_shared():
            return SHARED_SLICE_S
        return PARKED_SLICE_S if self.calls else SLICE_S

    def tick(self) -> None:
        """Look at the versions, and now and then at the clock: nothing remembered outlives what it is of."""
        self.now = monotonic()
        if self.news.look() or self.now >= self.clock_at or self.generation != self.news.generation:
            self.clock_at = self.now + CLOCK_S
            self.generation = self.news.generation
            self.answers.renew(self.generation)

    # --- reading ----------------------------------------------------------------------------------------------------

    def adopt(self, sock: socket.socket, peer: Peer) -> None:
        who = self.who(peer)
        connection = LaneConnection(sock, peer, who, self.answers.mark_of(who, peer.unix), monotonic())
        if self.proxied is not None:
            connection.proxied = self.proxied(who, accepts_any if peer.unix else self.answers.accepts_host)
        self.connections[connection.fd] = connection
        self.meter.fast_connections = len(self.connections)
        self.epoll.register(connection.fd, READ)

    def on_readable(self, connection: LaneConnection) -> None:
        try:
            data = connection.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close(connection)
            return
        connection.touched = self.now
        known = None if connection.inbox or connection.is_waiting() else self.recall(connection, data)
        if known is not None:
            self.write(connection, known)
            if connection.closing or self.draining:
                self.proceed(connection)
        elif not data:
            self.on_end(connection)
        elif self.proxied is not None and (answer := self.proxied_answer(connection, data)) is not None:
            self.meter.remembered += 1
            self.write(connection, answer)
            if self.draining:
                self.proceed(connection)
        elif not connection.lingering:
            connection.inbox += data
            if len(connection.inbox) > 2 * RECEIVE_BYTES:
                self.close(connection)  # sends requests without end while one is being answered
            elif not connection.is_waiting():
                self.proceed(connection)

    def proxied_answer(self, connection: LaneConnection, data: bytes) -> bytes | None:
        """What the proxy remembers for exactly these bytes, where nothing comes before them."""
        if connection.proxied is None or connection.inbox or connection.is_waiting():
            return None
        return connection.proxied.remembered(data)

    def on_end(self, connection: LaneConnection) -> None:
        """The peer will send no more. What it has asked gets its answer; what follows without end, ends."""
        if connection.ended or connection.lingering or not connection.is_waiting():
            self.close(connection)
            return
        connection.ended = True
        self.epoll.modify(connection.fd, 0)
        if connection.call is not None:
            connection.call.leave()
        self.proceed(connection)

    # --- writing ----------------------------------------------------------------------------------------------------

    def proceed(self, connection: LaneConnection) -> None:
        """Go on with what the connection is in the middle of, until it has to wait for its peer or for news."""
        while connection.alive and connection.outbox is None:
            if connection.flow is None and connection.closing:
                self.linger(connection)
                return
            data = self.next_output(connection)
            if data is not None:
                self.write(connection, data)
            elif connection.handing:
                self.forget(connection)
                self.host.hand_over(connection.sock, connection.peer, connection.inbox)
            elif connection.job is not None:
                if not connection.job.started:
                    self.nursery.start_soon(self.run_job, connection, connection.job)
                    connection.job.started = True
                return
            elif connection.call is not None:
                self.go_on(connection, connection.call)
                return
            elif connection.is_waiting():
                self.followers.add(connection)
                self.followed.set()
                return
            elif not connection.closing and not connection.ended and not self.draining:
                return
            else:
                connection.closing = True

    def next_output(self, connection: LaneConnection) -> bytes | None:
        """What is to be sent next; None if nothing is before something else happens."""
        if connection.flow is not None:
            return self.next_piece(connection, connection.flow)
        wait = connection.wait
        over = self.draining or connection.ended
        if wait is not None and (over or self.now >= wait.until or self.answers.has_moved(wait)):
            connection.touched = self.now
            return self.answers.end_wait(connection, wait, self.now)
        out: list[bytes] = []
        size = 0
        while connection.inbox and not connection.closing and not connection.is_waiting() and size < OUT_BYTES:
            data = self.answers.next_answer(connection, self.now)
            if data is None:
                break
            out.append(data)
            size += len(data)
        return b"".join(out) if out else None

    def next_piece(self, connection: LaneConnection, flow: Flow) -> bytes | None:
        """The stream's next bytes; None where it waits for news, or has ended without a last chunk."""
        follow = flow.stream.follow
        while True:
            for piece in flow.pieces:
                if piece:
                    return chunk(piece) if flow.chunked else piece
            if follow is None or connection.ended or self.draining:
                break
            if flow.generation == self.generation:
                return None
            flow.generation = self.generation
            flow.pieces = follow()
        connection.flow = None
        connection.closing = flow.close
        self.meter.streams -= 1
        return LAST_CHUNK if flow.chunked else None

    def write(self, connection: LaneConnection, data: bytes) -> None:
        """Send what the kernel takes; keep the rest, and read no more before it is gone."""
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close(connection)
            return
        self.meter.sent_bytes += sent
        if sent != len(data):
            connection.outbox = memoryview(data)[sent:]
            self.epoll.modify(connection.fd, WRITE)

    def on_writable(self, connection: LaneConnection) -> None:
        outbox = connection.outbox
        if outbox is not None:
            connection.outbox = None
            connection.touched = self.now
            self.epoll.modify(connection.fd, 0 if connection.ended else READ)
            try:
                sent = connection.sock.send(outbox)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close(connection)
                return
            self.meter.sent_bytes += sent
            if sent < len(outbox):
                connection.outbox = outbox[sent:]
                self.epoll.modify(connection.fd, WRITE)
                return
        self.proceed(connection)

    async def run_job(self, connection: LaneConnection, job: Job) -> None:
        """Answer one slow request in a thread, so that the others go on."""
        answers = self.answers
        ask = partial(answer_contained, job.request, connection.who, answers.service, answers.clock())
        found = await trio.to_thread.run_sync(ask, limiter=answers.service.slow)
        if connection.alive:
            data = answers.end_job(connection, job, found, self.now)
            connection.touched = self.now
            if data is not None:
                self.write(connection, data)
            self.proceed(connection)

    # --- what an application answers --------------------------------------------------------------------------------

    def go_on(self, connection: LaneConnection, call: Call) -> None:
        """Begin with a call, or tell the one under way that there is room again."""
        if call.started:
            call.room.unpark_all()
        else:
            call.started = True
            self.calls += 1
            self.stirred_s = monotonic()
            self.nursery.start_soon(self.run_call, connection, call)

    async def run_call(self, connection: LaneConnection, call: Call) -> None:
        """Have an application answer one request. An answer that it does not end is cut off with the connection."""
        try:
            await call.run(partial(self.write_all, connection, call))
        except Exception:
            logger.exception("answer %s: the application failed", connection.peer.address)
        finally:
            self.calls -= 1
        if not connection.alive:
            return
        connection.call = None
        connection.touched = self.now
        if call.complete:
            connection.closing = call.close
        elif call.begun:
            self.close(connection)
            return
        else:
            self.write(connection, self.answers.refuse(connection, HeadError(500, "nothing answered")))
        self.proceed(connection)

    async def write_all(self, connection: LaneConnection, call: Call, data: bytes) -> None:
        """Return when the kernel has taken everything; cancelled where the connection is closed before."""
        connection.touched = self.now
        self.stirred_s = monotonic()
        self.write(connection, data)
        while connection.outbox is not None:
            await call.room.park()
        if not connection.alive:
            await trio.lowlevel.checkpoint()

    # --- waiting for news -------------------------------------------------------------------------------------------

    async def follow_news(self) -> None:
        """Answer held requests and go on with streams at each new version."""
        while True:
            await self.followed.wait()
            while self.followers:
                await self.news.wait(self.generation)
                self.tick()
                for connection in list(self.followers):
                    self.follow(connection)
            self.followed = trio.Event()

    def follow(self, connection: LaneConnection) -> None:
        """There is news, perhaps for this follower; or its time is up, or the server stops."""
        self.followers.discard(connection)
        self.proceed(connection)

    # --- the end of connections -------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Deadlines, coarsely."""
        while True:
            await trio.sleep(SWEEP_S)
            if self.connections:
                self.tick()
                for connection in list(self.connections.values()):
                    self.check(connection)

    def check(self, connection: LaneConnection) -> None:
        """Close what is late; keep streams and held requests awake."""
        silent_s = self.now - connection.touched
        limits = self.limits
        if connection.outbox is not None:
            late = silent_s > limits.write_s
        elif connection.lingering:
            late = silent_s > LINGER_S
        elif connection.wait is not None:
            late = False
            if self.now >= connection.wait.until:
                self.follow(connection)
        elif connection.flow is not None:
            late = False
            stream = connection.flow.stream
            if stream.follow is not None and silent_s >= stream.beat_s:
                connection.touched = self.now
                self.write(connection, chunk(stream.beat) if connection.flow.chunked else stream.beat)
        elif connection.job is not None or connection.call is not None:
            late = False
        elif connection.head_since:
            late = self.now - connection.head_since > limits.head_s
        else:
            late = silent_s > limits.idle_s
        if late:
            self.close(connection)

    def drain(self) -> None:
        """Answer what has come, end streams and held requests, close what is idle."""
        self.work()
        self.draining = True
        self.tick()
        for connection in list(self.connections.values()):
            if connection in self.followers:
                self.follow(connection)
            elif connection.outbox is None and not connection.lingering:
                self.proceed(connection)

    def linger(self, connection: LaneConnection) -> None:
        """Close for writing and read to the end, so that the peer gets the answer and no reset (RFC 9112 9.6)."""
        if connection.ended:
            self.close(connection)
            return
        connection.lingering = True
        connection.touched = self.now
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close(connection)

    def forget(self, connection: LaneConnection) -> None:
        """The lane has no more to do with this socket."""
        connection.alive = False
        del self.connections[connection.fd]
        self.followers.discard(connection)
        self.meter.fast_connections = len(self.connections)
        self.epoll.unregister(connection.fd)

    def close(self, connection: LaneConnection) -> None:
        if connection.alive:
            if connection.flow is not None:
                self.meter.streams -= 1
            if connection.call is not None:
                connection.call.scope.cancel()
            self.forget(connection)
            connection.sock.close()
            self.host.release(connection.peer)


def accepts_any(host: bytes) -> bool:
    """On a Unix socket: no name leads a browser there."""
    return True
