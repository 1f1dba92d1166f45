"""Whose turn it is: how long the lane keeps the thread, who was woken, who left something unread, who is late."""

from __future__ import annotations

from collections import deque
from time import monotonic

import trio

from edged.http.lane.connection import Event, LaneConnection, LaneState
from edged.http.lane.deadlines import Deadlines
from edged.http.lane.precedence import TURNS, Precedence, Spared
from edged.http.limits import PARKED_S

SLICE_S = 0.004  # how long the lane keeps the thread, while requests come, before other tasks get their turn
SHARED_SLICE_S = 0.0005  # instead of SLICE_S while other tasks are answering requests
PARKED_SLICE_S = 0.001  # and while those that do have waited for their upstreams for PARKED_S
SWEEP_S = 1.0


class Turns(Deadlines):
    """woken: connections for which something has moved; tasks: of applications, under way; progress_s: when one of
    them last began or got on.
    """

    precedence: Precedence

    def __init__(self) -> None:
        self.woken: deque[LaneConnection] = deque()
        self.awake = trio.Event()
        self.spared = Spared()
        self.occupied = trio.Event()  # set when a connection comes
        self.tasks = 0
        self.progress_s = 0.0

    def handle(self, connection: LaneConnection, event: Event) -> None:
        """Do what the lane's table says."""
        raise NotImplementedError

    def tick(self) -> None:
        """Look at the clock, and whether anything has moved."""
        raise NotImplementedError

    def is_shared(self) -> bool:
        """Whether other tasks need the thread to answer requests: not those that have long waited for an upstream."""
        return (self.tasks > 0 and monotonic() - self.progress_s < PARKED_S) or self.sockets.server.is_busy()

    def slice_s(self) -> float:
        if self.is_shared():
            return SHARED_SLICE_S
        return PARKED_SLICE_S if self.tasks else SLICE_S

    def read_on(self) -> None:
        """What was read from sockets before, and not looked at so that others got their turn."""
        others = TURNS if self.precedence.yields else len(self.sockets.unread)
        for connection in list(self.sockets.unread):
            if connection.waits:
                others -= 1
                if others < 0:
                    continue
            del self.sockets.unread[connection]
            if connection.more and connection.outbox is None and connection.state is not LaneState.CLOSED:
                connection.more = False
                self.handle(connection, Event.READABLE)

    def make_room(self) -> bool:
        """For one more connection, by ending an idle one that others come before."""
        found = self.spared.take(self.sockets.connections.values(), monotonic())
        if found is not None:
            self.sockets.close(found)
        return found is not None

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

    async def sweep(self) -> None:
        """Look at the deadlines, coarsely; while there is no connection there are none, and nobody is woken."""
        while True:
            if not self.sockets.connections:
                self.occupied = trio.Event()
                await self.occupied.wait()
            await trio.sleep(SWEEP_S)
            if self.sockets.connections:
                self.tick()
                for connection in list(self.sockets.connections.values()):
                    self.handle(connection, Event.SWEPT)
