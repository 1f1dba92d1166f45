"""What clients do not read is bounded, in all and by a least rate of reading."""

from __future__ import annotations

import socket
from typing import Any, cast

import pytest

from edged.access.identity import LOCAL, Peer
from edged.http.lane.connection import LaneConnection
from edged.http.lane.deadlines import Deadlines
from edged.http.lane.sockets import Sockets
from edged.http.limits import Limits
from edged.http.meter import Meter


class Released:
    """The server, as far as connections that end concern it."""

    def __init__(self) -> None:
        self.count = 0

    def release(self, peer: Peer) -> None:
        self.count += 1


class Watched(Deadlines):
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.sockets = Sockets(Meter(), limits)
        self.server = Released()
        self.sockets.server = cast(Any, self.server)
        self.peers: list[socket.socket] = []

    def connect(self) -> LaneConnection:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.peers.append(theirs)
        connection = LaneConnection(ours, Peer(True, "peer"), LOCAL, b"", self.sockets.now)
        self.sockets.add(connection)
        return connection

    def is_open(self, connection: LaneConnection) -> bool:
        return connection.fd in self.sockets.connections


@pytest.fixture
def watched() -> Any:
    made = Watched(Limits(unread_bytes=300_000, write_s=20, read_bytes_per_s=1000))
    yield made
    for connection in list(made.sockets.connections.values()):
        made.sockets.close(connection)
    for peer in made.peers:
        peer.close()
    made.sockets.epoll.close()
    assert made.sockets.unread_bytes == 0


def test_what_is_held_for_all_is_bounded_and_the_slowest_goes(watched: Watched) -> None:
    first, second, third = (watched.connect() for _ in range(3))
    for connection in (first, second, third):
        watched.sockets.write(connection, bytes(100_000))
        watched.sockets.now += 1
    assert watched.sockets.unread_bytes == 300_000  # exactly at the bound
    assert all(watched.is_open(connection) for connection in (first, second, third))
    fourth = watched.connect()
    watched.sockets.write(fourth, bytes(50_001))
    assert not watched.is_open(first)
    assert all(watched.is_open(connection) for connection in (second, third, fourth))
    assert (watched.sockets.unread_bytes, watched.server.count) == (250_001, 1)


def test_an_answer_that_is_read_is_held_no_more(watched: Watched) -> None:
    connection = watched.connect()
    watched.sockets.write(connection, bytes(200_000))
    got, peer = 0, watched.peers[0]
    while connection.outbox is not None:
        got += len(peer.recv(1 << 16))
        watched.sockets.write_rest(connection)
    assert watched.sockets.unread_bytes == connection.outbox_bytes == 0
    assert got <= 200_000


@pytest.mark.parametrize(("read", "late"), [(20_999, True), (21_000, False)])
def test_a_least_rate_of_reading_is_kept(watched: Watched, read: int, late: bool) -> None:
    connection = watched.connect()
    watched.sockets.write(connection, bytes(200_000))
    watched.sockets.now += 21.0
    connection.progress_at, connection.blocked_read = watched.sockets.now, read
    watched.sweep_writing(connection)
    assert watched.is_open(connection) is not late


@pytest.mark.parametrize(("waited_s", "late"), [(20.0, False), (20.1, True)])
def test_nobody_is_judged_before_the_time_is_up(watched: Watched, waited_s: float, late: bool) -> None:
    connection = watched.connect()
    watched.sockets.write(connection, bytes(200_000))
    watched.sockets.now += waited_s
    connection.progress_at = watched.sockets.now
    watched.sweep_writing(connection)
    assert watched.is_open(connection) is not late
