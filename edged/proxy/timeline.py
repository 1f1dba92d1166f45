"""One line of time that the clock cannot bend.

Ages are counted on the machine's uptime, which includes sleep and knows no steps. A response stored in an earlier
boot is placed on this boot's line by the offset between uptime and clock that was noted then; where the clock of
either boot was not set, its place is unknown until it is.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edged.clock import Clock

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MAX_BOOTS = 64
STEP_S = 2.0  # a smaller change of the offset is not worth a write


def read_boot_id() -> bytes:
    """What names this boot of the machine; a random one where the system has none, so that nothing is mistaken."""
    try:
        return bytes.fromhex(BOOT_ID.read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return secrets.token_bytes(16)


uptime_s = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds since boot, sleep included. Asked at each hit: no function of ours lies between."""


class Timeline:
    """now_s: on the line. wall_s: since 1970, None while the clock is not set."""

    def __init__(
        self, clock: Clock | None = None, up: Callable[[], float] = uptime_s, boot: bytes | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.now_s = up
        self.boot = read_boot_id() if boot is None else boot
        self.offsets: dict[bytes, float] = {}

    def wall_s(self) -> float | None:
        return self.clock() if self.clock.is_set() else None

    def note(self) -> bool:
        """Note this boot's offset between uptime and clock. Returns whether it is worth keeping."""
        wall_s = self.wall_s()
        if wall_s is None:
            return False
        offset = wall_s - self.now_s()
        if abs(self.offsets.get(self.boot, float("inf")) - offset) < STEP_S:
            return False
        self.offsets.pop(self.boot, None)
        self.offsets[self.boot] = offset
        while len(self.offsets) > MAX_BOOTS:
            del self.offsets[next(iter(self.offsets))]
        return True

    def place(self, boot: bytes, up_s: float) -> float | None:
        """A moment of a boot on this boot's line; None where it cannot be known, or would lie in the future."""
        if boot == self.boot:
            return up_s if up_s <= self.now_s() else None
        offset, wall_s = self.offsets.get(boot), self.wall_s()
        if offset is None or wall_s is None:
            return None
        elapsed = wall_s - (offset + up_s)
        return self.now_s() - elapsed if elapsed >= 0 else None

    def dump(self) -> list[object]:
        return [[boot, offset] for boot, offset in self.offsets.items()]

    def load(self, data: list[object]) -> None:
        """Take what `dump` gave. Raises ValueError or TypeError for anything else."""
        offsets: dict[bytes, float] = {}
        for row in data:
            if not isinstance(row, list) or len(row) != 2:
                raise ValueError("not a list of boots")
            boot, offset = row
            if not isinstance(boot, bytes) or not isinstance(offset, float):
                raise ValueError("not a list of boots")
            offsets[boot] = offset
        self.offsets = dict(list(offsets.items())[-MAX_BOOTS:])
