"""Who comes first: while the internal audience asks, the others get a few turns between its own; and where there is no
room for one more connection, an idle one of theirs makes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import nsmallest
from operator import itemgetter
from typing import Protocol, cast

from edged.http.lane.connection import LaneConnection, LaneState

YIELD_S = 0.5  # after somebody of the first has asked
TURNS = 1  # that others get then, before the first are looked for again
LOOK_S = 0.1  # between two looks for idle connections
AT_A_LOOK = 256  # that are remembered of them


class Multiplexing(Protocol):
    """What a connection of HTTP/2 is doing."""

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""


class Precedence:
    """some_wait: whether there was a connection yet that others come before; yields: whether such connections give way
    now, as one of the first has asked lately.
    """

    def __init__(self) -> None:
        self.some_wait = False
        self.yields = False
        self.first_at = -YIELD_S
        self.turn = 0

    def take(
        self, events: list[tuple[int, int]], connections: dict[int, LaneConnection], now: float
    ) -> list[tuple[int, int]]:
        """Of what is ready, what is looked at now; epoll tells of the rest again. now: the lane's clock."""
        first: list[tuple[int, int]] = []
        others: list[tuple[int, int]] = []
        for event in events:
            connection = connections.get(event[0])
            if connection is None or not connection.judged:  # somebody who may be one of the first
                first.append(event)
            elif connection.waits:
                others.append(event)
            else:
                first.append(event)
                self.first_at = now
        self.yields = now - self.first_at < YIELD_S
        if not self.yields:
            return events
        self.turn += 1  # the kernel tells of those that stay ready in the same order each time
        begin = self.turn % len(others) if others else 0
        return first + (others[begin:] + others[:begin])[:TURNS]

    def note(self, connection: LaneConnection, now: float) -> None:
        """It is known whose a connection is that has asked just now."""
        if not connection.waits:
            self.first_at = now

    def leaves_rest(self, connection: LaneConnection) -> bool:
        """Whether others come before what is left of its inbox."""
        if not (self.yields and connection.waits and connection.inbox):
            return False
        return connection.state is LaneState.READING and not connection.closing


class Spared:
    """Idle connections that can be ended for others: looked for now and then, for there may be thousands."""

    def __init__(self) -> None:
        self.found: deque[tuple[LaneConnection, float]] = deque()
        self.looked_at = -LOOK_S

    def take(self, connections: Iterable[LaneConnection], now: float) -> LaneConnection | None:
        """One that has done nothing for long, of those that others come before and that have nothing under way; None
        where there was none at the last look. now: the lane's clock.
        """
        while True:
            while self.found:
                connection, progress_at = self.found.popleft()
                if connection.progress_at == progress_at and is_idle(connection):
                    return connection
            if now - self.looked_at < LOOK_S:
                return None
            self.looked_at = now
            idle = [(other, other.progress_at) for other in connections if other.waits and is_idle(other)]
            self.found.extend(nsmallest(AT_A_LOOK, idle, key=itemgetter(1)))


def is_idle(connection: LaneConnection) -> bool:
    """Whether its end would break nothing off."""
    if connection.inbox or connection.outbox is not None or connection.queued_bytes or connection.more:
        return False
    if connection.state is LaneState.MULTIPLEXED:
        return not cast("Multiplexing", connection.doing).is_busy
    return connection.state is LaneState.READING
