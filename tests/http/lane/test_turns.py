"""Whose turn it is: nobody waits for those who are idle."""

from __future__ import annotations

import select
import socket
import time
from typing import Any, cast

from edged.http.application import Application
from edged.http.lane.lane import Lane
from edged.http.limits import Limits
from edged.http.meter import Meter


class Polled:
    """An epoll set that notes for how long it was asked to wait."""

    def __init__(self, epoll: select.epoll) -> None:
        self.epoll = epoll
        self.waits: list[float] = []

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        self.waits.append(timeout)
        return self.epoll.poll(timeout, most)

    def register(self, handle: int, events: int) -> None:
        self.epoll.register(handle, events)


class Server:
    """Another task has nothing to do."""

    def is_busy(self) -> bool:
        return False


def test_a_new_connection_does_not_wait_for_what_is_open() -> None:
    lane = Lane(Application(), time.time, Meter(), Limits())
    lane.sockets.server = cast(Any, Server())
    polled = Polled(lane.sockets.epoll)
    lane.sockets.epoll = cast(Any, polled)
    with socket.create_server(("127.0.0.1", 0)) as listener, polled.epoll:
        lane.sockets.watch_listener(listener)
        with socket.create_connection(listener.getsockname()):
            select.select([polled.epoll], [], [], 10)
            lane.work()
            assert polled.waits == [0]  # it does not stay to wait for the next request
            lane.work()
            assert polled.waits == [0, 0]  # and is told once
            listener.accept()[0].close()
