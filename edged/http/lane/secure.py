"""A connection of the lane over TLS, and handshakes in turns: none of them may hold up those who are through theirs."""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Protocol

from edged.access.identity import Identity, Peer
from edged.http.lane.connection import Event, LaneConnection, LaneState
from edged.http.lane.multiplexed import Multiplexed, MultiplexingLane
from edged.http.lane.sockets import READ
from edged.http.tls.session import TlsFault, TlsSession

logger = logging.getLogger("edged.http")

PIECE_BYTES = 64 << 10  # encrypted at once, so that little waits for a kernel that takes no more
HANDSHAKE_BYTES = 128 << 10
TURN_S = 0.001  # of handshakes, before the others get their turn: one at least
SHARE = 3.0  # seconds that are others' for each of handshakes, while others are asking
ASKING_S = 0.05  # since when somebody has asked last


class SecureConnection(LaneConnection):
    """records: encrypted bytes that the kernel has not taken yet."""

    __slots__ = ("failure", "fed_bytes", "queued", "session")

    def __init__(self, sock: socket.socket, peer: Peer, who: Identity, partition: bytes, session: TlsSession) -> None:
        super().__init__(sock, peer, who, partition, monotonic())
        self.state = LaneState.HANDSHAKE
        self.session = session
        self.queued = False  # for a turn of its handshake
        self.fed_bytes = 0  # for it
        self.failure = ""

    def feed(self) -> bool:
        """Take what the peer has sent for its handshake; whether there was something. Raises OSError."""
        try:
            data = self.sock.recv(PIECE_BYTES)
        except BlockingIOError:
            return False
        self.fed_bytes += len(data)
        if not data or self.fed_bytes > HANDSHAKE_BYTES:
            raise ConnectionError("TLS: the peer has gone, or sends more than a handshake takes")
        self.session.feed(data)
        return True

    def shake_hands(self) -> None:
        """One step of the handshake, with what is to be said of it; `failure` is why it has failed."""
        try:
            self.session.handshake()
        except TlsFault as fault:
            self.failure = str(fault)
        try:
            self.send_records()
        except OSError as fault:
            self.failure = self.failure or str(fault)

    def receive(self, size: int) -> bytes:
        """Raises BlockingIOError where there is nothing yet, OSError where the session or the socket has broken."""
        session = self.session
        try:
            if session.more or session.incoming.pending:
                data = session.read()
            else:
                data = session.decrypt(self.sock.recv(size))
            if session.outgoing.pending:
                self.send_records()  # alerts, new keys
        except TlsFault as fault:
            with suppress(OSError):
                self.send_records()
            raise ConnectionError(f"TLS: {fault}") from fault
        self.more = session.more
        if data or session.ended:
            return data
        raise BlockingIOError

    def send(self, data: bytes | memoryview) -> int:
        """How much of it was encrypted; `records` is what of that the kernel has not taken."""
        if self.records is not None and not self.send_records():
            raise BlockingIOError
        if len(data) <= PIECE_BYTES:
            self.encrypt(data)
            return len(data)
        done = 0
        while done < len(data) and self.records is None:
            piece = memoryview(data)[done : done + PIECE_BYTES]
            self.encrypt(piece)
            done += len(piece)
        return done

    def encrypt(self, data: bytes | memoryview) -> None:
        try:
            self.put_records(self.session.write(data))
        except TlsFault as fault:
            raise ConnectionError(f"TLS: {fault}") from fault

    def put_records(self, records: bytes) -> None:
        try:
            sent = self.sock.send(records)
        except BlockingIOError:
            sent = 0
        if sent != len(records):
            self.records = memoryview(records)[sent:]

    def send_records(self) -> bool:
        """What is left over, and what the session says of itself; whether all of it is gone. Raises OSError."""
        records = b"".join((self.records or b"", self.session.take()))
        self.records = None
        if records:
            self.put_records(records)
        return self.records is None

    def shut(self) -> None:
        self.send_records()
        if self.records is None:
            self.put_records(self.session.close())
        self.sock.shutdown(socket.SHUT_WR)

    def send_file(self, handle: int, offset: int, count: int) -> int:
        """No way from kernel to kernel here: a piece at a time is read and encrypted."""
        if self.records is not None and not self.send_records():
            raise BlockingIOError
        return self.send(os.pread(handle, min(count, PIECE_BYTES), offset))


class HandshakingLane(MultiplexingLane, Protocol):
    """What handshakes ask of their lane."""

    handshakes: Handshakes

    def handle(self, connection: LaneConnection, event: Event) -> None:
        """Do what the lane's table says."""


class Handshakes:
    """Those that have something to do. One costs as much as ten to fifty answers, so that they take a quarter of the
    time at most while others are asking.
    """

    def __init__(self) -> None:
        self.waiting: deque[SecureConnection] = deque()
        self.not_before = 0.0

    def put(self, connection: SecureConnection) -> None:
        if not connection.queued:
            connection.queued = True
            self.waiting.append(connection)

    def take_turn(self, asked_at: float) -> list[SecureConnection]:
        """A step of some of them, which may have ended in success (`established`) or as a `failure`. asked_at: when
        somebody has asked last whose handshake is over.
        """
        begun = now = monotonic()
        if now < self.not_before and now - asked_at < ASKING_S:
            return []
        done: list[SecureConnection] = []
        while self.waiting and now - begun < TURN_S:
            connection = self.waiting.popleft()
            connection.queued = False
            if connection.state is LaneState.HANDSHAKE:
                connection.shake_hands()
                done.append(connection)
            now = monotonic()
        self.not_before = now + SHARE * (now - begun)
        return done


def read_handshake(lane: HandshakingLane, connection: LaneConnection) -> None:
    """What a peer says before its handshake is over waits for its turn."""
    assert isinstance(connection, SecureConnection)
    try:
        if connection.feed():
            lane.handshakes.put(connection)
            # Nothing more until then: what a client sends behind its last words (RFC 8446 section 2) is no handshake.
            lane.sockets.watch(connection, 0)
    except OSError:
        lane.sockets.close(connection)


def shake_hands(lane: HandshakingLane) -> None:
    """Steps of handshakes, as far as their turn goes; whoever is through may have asked already."""
    for connection in lane.handshakes.take_turn(lane.asked_at):
        if connection.failure:
            logger.debug("connection from %s: TLS: %s", connection.peer.address, connection.failure)
            lane.sockets.close(connection)
            continue
        lane.sockets.watch(connection, READ)
        if connection.session.established:
            connection.progress_at = lane.sockets.now
            if connection.session.protocol() == "h2":
                connection.become(LaneState.MULTIPLEXED, Multiplexed(lane, connection))
            else:
                connection.become(LaneState.READING)
            lane.handle(connection, Event.READABLE)
        lane.sockets.keep_records(connection)


def flush_handshake(lane: HandshakingLane, connection: LaneConnection) -> None:
    lane.sockets.write_rest(connection)


def end_handshake(lane: HandshakingLane, connection: LaneConnection) -> None:
    """The server stops."""
    lane.sockets.close(connection)
