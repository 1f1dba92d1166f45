"""How long to wait before trying again: exponential, capped, with full jitter, so that a fleet spreads itself out."""

from __future__ import annotations

from collections.abc import Callable

BASE_S = 1.0
CAP_S = 300.0


class Backoff:
    """chance: a number in [0, 1) at each call; base_s, cap_s: seconds."""

    def __init__(self, chance: Callable[[], float], *, base_s: float = BASE_S, cap_s: float = CAP_S) -> None:
        self.chance, self.base_s, self.cap_s = chance, base_s, cap_s
        self.failures = 0

    def succeed(self) -> None:
        self.failures = 0

    def fail(self, at_least_s: float = 0.0) -> float:
        """Seconds to wait now. at_least_s: what the origin asked for (Retry-After)."""
        ceiling = min(self.cap_s, self.base_s * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return at_least_s + self.chance() * ceiling
