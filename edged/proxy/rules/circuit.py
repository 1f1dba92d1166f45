"""Whether an upstream is worth asking: open after failures in a row, closed again when a look finds it back.

No clock inside: delays are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Circuit:
    """`limit` failures to reach the upstream in a row open it; looks come after first_s, doubling to most_s."""

    limit: int = 2
    first_s: float = 1.0
    most_s: float = 30.0
    failures: int = 0
    is_open: bool = False
    delay_s: float = 0.0
    opened: int = 0  # how often

    def failed(self) -> bool:
        """A request could not reach the upstream. Returns whether that opened the circuit."""
        self.failures += 1
        if self.is_open or self.failures < self.limit:
            return False
        self.is_open = True
        self.opened += 1
        self.delay_s = self.first_s
        return True

    def succeeded(self) -> None:
        """The upstream answered, whatever it said, or a look found it."""
        self.failures = 0
        self.is_open = False

    def missed(self) -> None:
        """A look did not find it."""
        self.delay_s = min(2 * self.delay_s, self.most_s)
