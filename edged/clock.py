"""The time, on a box whose clock may say 1970.

Time is the greatest of the build time of this release, the last signed time seen, and the clock. Serving never
depends on it; freshness and the judging of signed times do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

BUILD_TIME_S = 1_790_000_000  # 2026-09-21, seconds since 1970 UTC; raised with each release


def freshness(age_s: float, fresh_s: float, expires_s: float) -> Literal["fresh", "stale", "expired"]:
    """What data is, `age_s` seconds after its head was signed, by the spans that the head names."""
    return "fresh" if age_s <= fresh_s else "stale" if age_s <= expires_s else "expired"


class Clock:
    """Seconds since 1970 UTC. `seen(t)` tells it of a signed time. source: the system's clock, or a test's."""

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self.source = source
        self.floor_s = float(BUILD_TIME_S)

    def __call__(self) -> float:
        return max(self.floor_s, self.source())

    def is_set(self) -> bool:
        """Whether the system's clock can be right at all; if not, nothing can be said to lie in the future."""
        return self.source() >= BUILD_TIME_S

    def seen(self, signed_at_s: float) -> None:
        self.floor_s = max(self.floor_s, signed_at_s)
