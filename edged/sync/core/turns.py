"""When a device polls: at its own turn, so that those that were answered together do not come back together, and for a
URL that those who come with it ask for as well, so that a cache on the way makes one request of theirs.

After news, or anything else but the end of a poll that was held for all its time, the next poll is held until the
device's turn, one of 48 in 240 s. From then on each is held for all the time, so devices with the same turn keep asking
for the same; before each of these they rest for a part of the step of their own, and so come one after the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

STEP_S = 5  # polls are held for multiples of this, and nobody rests for longer between two of them
LEAST_SHARED_WAIT_S = 60  # polls that are held for less have no turns


def place_of(text: str) -> float:
    """From 0 to 1, evenly, and always the same."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / (1 << 64)


def place_at_turn(device_id: str, version: int) -> float:
    """Where a device's turn is among those that have seen this version as the newest one."""
    return place_of(f"{version} poll {device_id}")


def place_at_start(device_id: str, version: int) -> float:
    """Where a device that holds this version stands among those that are switched on together."""
    return place_of(f"{version} start {device_id}")


class PollTurns:
    """Of one device. device_id: empty where it has none: it is then a fleet of one. Times never run backwards."""

    def __init__(self, device_id: str) -> None:
        self.device_id = device_id
        self.version, self.place = -1, 0.0
        self.in_step = False  # whether the newest answer was the end of a poll that was held for all its time
        self.whole = False  # whether the poll under way ends at the device's turn, and not because something is due
        self.own_part_s = 0.0  # of a step
        self.not_before = 0.0

    def rest_s(self, now: float, due: Iterable[float]) -> float:
        """How long to rest before the next poll: for the own part of the step, or for what is due within a step."""
        return min((at for at in (self.not_before, *due) if now < at < now + STEP_S), default=now) - now

    def ask(self, limit_s: int, version: int, now: float, due: Iterable[float]) -> int:
        """A poll is made: how long it is to be held, `limit_s` at the most, 0 for not at all. version: the newest one
        seen; due: when something is to be done, which ends it sooner."""
        wait_s = self.own_wait_s(limit_s, version)
        left_s = min((at - now for at in due), default=float(wait_s))
        self.whole, self.in_step = wait_s > 0 and left_s >= wait_s, False
        if not wait_s:
            return 0
        return wait_s if self.whole else max(STEP_S, int(left_s) // STEP_S * STEP_S)

    def own_wait_s(self, limit_s: int, version: int) -> int:
        self.own_part_s = 0.0
        if not self.device_id or limit_s < LEAST_SHARED_WAIT_S:
            return limit_s
        if version != self.version:
            self.version, self.place = version, place_at_turn(self.device_id, version)
        steps = limit_s // STEP_S
        turn = int(self.place * steps)
        self.own_part_s = STEP_S * (self.place * steps - turn)
        return STEP_S * (steps if self.in_step else turn + 1)

    def ended(self, now: float) -> None:
        """The poll under way has brought nothing newer."""
        self.in_step = self.whole
        if self.whole:
            self.not_before = now + self.own_part_s
