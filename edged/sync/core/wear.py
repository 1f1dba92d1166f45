"""How many bytes merging may write now, so that a day's writes stay within a budget. Without I/O or clock."""

from __future__ import annotations

DAY_S = 24 * 3600


class WearBudget:
    """A bucket that fills evenly over the day and holds one day's bytes at most.

    bytes_a_day: 0 for no limit. `now` is any steadily rising clock in seconds.
    """

    def __init__(self, bytes_a_day: int, now: float) -> None:
        self.bytes_a_day = bytes_a_day
        self.left = float(bytes_a_day)
        self.then = now

    def allowed(self, now: float) -> int | None:
        """What `Writer.compact` may write now; None for no limit."""
        if not self.bytes_a_day:
            return None
        self.left = min(self.bytes_a_day, self.left + max(now - self.then, 0) * self.bytes_a_day / DAY_S)
        self.then = now
        return max(int(self.left), 0)

    def spend(self, written: int) -> None:
        """Take off what was written, by merging or by hops; hops may overdraw, and merging then waits."""
        self.left -= written
