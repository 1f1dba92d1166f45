"""The time, on a box whose clock may say 1970.

Time is the greatest of the build time of this release, the last signed time seen, and the clock. Freshness and the
judging of signed times depend on it. Records that come and go by time do so by trusted time, which besides never goes
back: a clock that is set back must not show again what has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

BUILD_TIME_S = 1_790_000_000  # 2026-09-21, seconds since 1970 UTC; raised with each release
AHEAD_S = 2 * 86_400  # the newest signature is renewed each day


def freshness(age_s: float, fresh_s: float, expires_s: float) -> Literal["fresh", "stale", "expired"]:
    """What data is, `age_s` seconds after its head was signed, by the spans that the head names."""
    return "fresh" if age_s <= fresh_s else "stale" if age_s <= expires_s else "expired"


class Clock:
    """Seconds since 1970 UTC. `seen(t)` tells it of a signed time. source: the system's clock, or a test's."""

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self.source = source
        self.floor_s = float(BUILD_TIME_S)
        self.used_s = 0.0

    def __call__(self) -> float:
        return max(self.floor_s, self.source())

    def trusted(self) -> float:
        """The time by which records come and go: never earlier than it has been."""
        self.used_s = max(self.used_s, self.floor_s, self.source())
        return self.used_s

    def was_at(self, used_s: float) -> None:
        """Trusted time was this far before the process began."""
        self.used_s = max(self.used_s, used_s)

    def is_set(self) -> bool:
        """Whether the system's clock can be right at all; if not, nothing can be said to lie in the future."""
        return self.source() >= BUILD_TIME_S

    def dated(self) -> float | None:
        """What the system's clock says, None as long as that cannot be right."""
        return self.source() if self.is_set() else None

    def seen(self, signed_at_s: float) -> None:
        self.floor_s = max(self.floor_s, signed_at_s)

    def heard(self, signed_at_s: float) -> bool:
        """The origin has told of what was signed at this time. If the clock agrees with it, and trusted time is days
        ahead of both, the clock was wrong once: it is set right, as otherwise all that ever ends would be gone for
        good. Returns whether it was.
        """
        self.seen(signed_at_s)
        now = self.source()
        wrong = abs(now - signed_at_s) <= AHEAD_S and self.used_s > max(now, signed_at_s) + AHEAD_S
        if wrong:
            self.used_s = 0.0
        return wrong
