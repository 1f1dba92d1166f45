"""The lane's sockets: one epoll set, what is read from each connection, what is written to it, and how it ends."""

from __future__ import annotations

import logging
import os
import select
import socket
from time import monotonic
from typing import Protocol

from edged.access.identity import Peer
from edged.http.lane.client import LaneClient
from edged.http.lane.connection import (
    FileUnderWay,
    HeldRequest,
    LaneConnection,
    LaneState,
    StreamUnderWay,
    ThreadWork,
)
from edged.http.limits import Limits
from edged.http.meter import Meter

logger = logging.getLogger("edged.http")

RECEIVE_BYTES = 64 << 10
INBOX_BYTES = 2 * RECEIVE_BYTES  # of requests that wait while one is being answered
READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class Server(Protocol):
    """What the lane asks of the server whose connections it answers."""

    def hand_over(self, connection: LaneConnection) -> None:
        """Give a connection to Hypercorn with the bytes read from it so far (`inbox`)."""

    def release(self, peer: Peer) -> None:
        """A connection of the lane is closed."""

    def is_busy(self) -> bool:
        """Whether Hypercorn has a request under way that gets on, so that the lane must not block the thread."""


class Sockets:
    """now: the lane's clock (time.monotonic), as of the batch of events that is being handled; unread_bytes: of answers
    that are held because their clients have not read them, at most limits.unread_bytes.
    """

    def __init__(self, meter: Meter, limits: Limits) -> None:
        self.meter = meter
        self.limits = limits
        self.unread_bytes = 0
        self.server: Server
        self.now = monotonic()
        self.connections: dict[int, LaneConnection] = {}
        self.epoll = select.epoll()
        self.unread: dict[LaneConnection, None] = {}  # with `more`, in the order of their turns

    def watch_listener(self, sock: socket.socket) -> None:
        """Have a new connection end the wait for what is open, once (EPOLLET): another task accepts it."""
        self.epoll.register(sock.fileno(), READ | select.EPOLLET)

    def add(self, connection: LaneConnection) -> None:
        """Raises OSError where the kernel has no room to watch it."""
        self.epoll.register(connection.fd, READ)
        self.connections[connection.fd] = connection
        self.meter.fast_connections = len(self.connections)

    def watch(self, connection: LaneConnection, events: int) -> None:
        """Which events are wanted; none of a peer that has ended can be read."""
        self.epoll.modify(connection.fd, 0 if events == READ and connection.ended else events)

    def receive(self, connection: LaneConnection) -> bytes | None:
        """What the peer has sent; empty at its end; None where there is nothing, or the connection is closed now."""
        try:
            data = connection.receive(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            self.close(connection)
            return None
        connection.progress_at = self.now
        if connection.more:
            self.unread[connection] = None
        return data

    def write(self, connection: LaneConnection, data: bytes) -> None:
        """Send what the kernel takes; keep the rest, and read no more before it is gone."""
        try:
            sent = connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close(connection)
            return
        self.meter.sent_bytes += sent
        if sent != len(data) or connection.records is not None:
            self.hold(connection, data, sent)

    def hold(self, connection: LaneConnection, data: bytes, sent: int) -> None:
        """Keep what the kernel has not taken; where that is too much of all connections together, whoever reads slowest
        is cut off.
        """
        connection.outbox = memoryview(data)[sent:]
        connection.outbox_bytes = len(data)  # of which the view keeps every one
        connection.blocked_at, connection.blocked_read = self.now, 0
        self.unread_bytes += len(data)
        self.epoll.modify(connection.fd, WRITE)
        self.bound_unread()

    def note_queue(self, connection: LaneConnection, queued_bytes: int) -> None:
        """What of answers waits in a connection's streams for windows that its peer has not opened."""
        if queued_bytes and not connection.queued_bytes and not connection.outbox_bytes:
            connection.blocked_at = self.now
        self.unread_bytes += queued_bytes - connection.queued_bytes
        connection.queued_bytes = queued_bytes
        self.bound_unread()

    def bound_unread(self) -> None:
        while self.unread_bytes > self.limits.unread_bytes:
            blocked = [other for other in self.connections.values() if other.outbox_bytes or other.queued_bytes]
            slowest = min(blocked, key=lambda other: other.blocked_at)
            logger.warning("connection from %s: closed, it does not read its answer", slowest.peer.address)
            self.close(slowest)

    def release_outbox(self, connection: LaneConnection) -> None:
        """Nothing of it is held any more."""
        connection.outbox = None
        self.unread_bytes -= connection.outbox_bytes
        connection.outbox_bytes = 0

    def keep_records(self, connection: LaneConnection) -> None:
        """Where a TLS session had more to say than the kernel takes, that goes out first."""
        if connection.records is not None and connection.outbox is None and connection.state is not LaneState.CLOSED:
            connection.outbox = memoryview(b"")
            self.epoll.modify(connection.fd, WRITE)

    def write_rest(self, connection: LaneConnection) -> bool:
        """The kernel takes more. Returns whether everything is gone."""
        outbox = connection.outbox
        connection.progress_at = self.now
        if outbox is not None:
            try:
                sent = connection.send(outbox)
            except BlockingIOError:
                return False
            except OSError:
                self.close(connection)
                return False
            self.meter.sent_bytes += sent
            connection.blocked_read += sent
            if sent < len(outbox) or connection.records is not None:
                connection.outbox = outbox[sent:]
                return False
            self.release_outbox(connection)
        if connection.more:
            self.unread[connection] = None
        self.watch(connection, READ)
        return True

    def write_file(self, connection: LaneConnection, turn: int) -> bool:
        """Send what the kernel takes of a file, at most `turn` bytes. Returns whether all of it is gone."""
        under_way = connection.doing
        assert isinstance(under_way, FileUnderWay)
        while under_way.left and turn > 0:
            try:
                sent = connection.send_file(under_way.response.handle, under_way.offset, min(under_way.left, turn))
            except BlockingIOError:
                break
            except OSError as fault:
                logger.debug("send a file to %s: %s", connection.peer.address, fault)
                self.close(connection)
                return False
            if not sent:
                logger.error("send a file to %s: it became shorter while it was sent", connection.peer.address)
                self.close(connection)
                return False
            self.meter.sent_bytes += sent
            under_way.offset += sent
            under_way.left -= sent
            turn -= sent
        if under_way.left:
            self.epoll.modify(connection.fd, WRITE)
            return False
        return True

    # --- the end of connections -------------------------------------------------------------------------------------

    def linger(self, connection: LaneConnection) -> None:
        """Close for writing and read to the end, so that the peer gets the answer and no reset (RFC 9112 9.6)."""
        if connection.ended:
            self.close(connection)
            return
        connection.become(LaneState.LINGERING)
        connection.progress_at = self.now
        try:
            connection.shut()
        except OSError:
            self.close(connection)

    def hold_off(self, connection: LaneConnection) -> None:
        """Close a flooder for writing and read no more of it: it waits until the lane lets go of the connection, and
        cannot come back at once.
        """
        self.linger(connection)
        if connection.state is LaneState.LINGERING:
            self.epoll.modify(connection.fd, 0)

    def forget(self, connection: LaneConnection) -> None:
        """The lane has no more to do with this socket."""
        connection.become(LaneState.CLOSED)
        self.release_outbox(connection)
        self.note_queue(connection, 0)
        connection.woken = False
        del self.connections[connection.fd]
        self.meter.fast_connections = len(self.connections)
        self.epoll.unregister(connection.fd)

    def close(self, connection: LaneConnection) -> None:
        """Whatever it is in the middle of."""
        doing = connection.doing
        if connection.state is LaneState.CLOSED:
            return
        self.forget(connection)
        if isinstance(doing, StreamUnderWay):
            self.end_stream(connection, doing)
        elif isinstance(doing, HeldRequest):
            doing.held.signal.leave(connection)
        elif isinstance(doing, FileUnderWay):
            os.close(doing.response.handle)
        elif isinstance(doing, LaneClient):
            doing.leave()
            doing.scope.cancel()
            doing.room.unpark_all()
        elif doing is not None and not isinstance(doing, ThreadWork):
            doing.abandon()
        connection.sock.close()
        self.server.release(connection.peer)

    def end_stream(self, connection: LaneConnection, under_way: StreamUnderWay) -> None:
        """It waits for nothing any more."""
        self.meter.streams -= 1
        if under_way.stream.signal is not None:
            under_way.stream.signal.leave(connection)
        connection.woken = False
