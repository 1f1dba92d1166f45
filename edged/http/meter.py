"""What serving counts, for /metrics and /status. Plain numbers: the fast lane adds to them once a batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Meter:
    """fast_answers, slow_answers: by status, in the fast lane and in Hypercorn; remembered: of the fast lane's answers,
    those from its memory; streams: open event streams and long answers; sent_bytes: by the fast lane.
    """

    fast_answers: Counter[int] = field(default_factory=Counter)
    slow_answers: Counter[int] = field(default_factory=Counter)
    remembered: int = 0
    streams: int = 0
    sent_bytes: int = 0
    fast_connections: int = 0
    memo_bytes: int = 0

    @property
    def requests(self) -> int:
        """Answers so far, in both lanes."""
        return self.fast_answers.total() + self.slow_answers.total()

    def by_status(self) -> dict[tuple[str, int], int]:
        """(lane, status) to answers."""
        fast = {("fast", status): count for status, count in self.fast_answers.items()}
        return fast | {("hypercorn", status): count for status, count in self.slow_answers.items()}
