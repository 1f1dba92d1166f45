"""What serving counts, for /metrics and /status. Plain numbers: the fast lane adds to them once a batch."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

MAKING_S = (0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(slots=True)
class Meter:
    """fast_answers, slow_answers: by status, in the fast lane and in Hypercorn; remembered: of the fast lane's answers,
    those from its memory; streams: open event streams; sent_bytes: by the fast lane; making: by the number of the
    bound in MAKING_S, how long it took to make answers that were not remembered; making_us: all of that together.
    """

    fast_answers: Counter[int] = field(default_factory=Counter)
    slow_answers: Counter[int] = field(default_factory=Counter)
    remembered: int = 0
    streams: int = 0
    sent_bytes: int = 0
    fast_connections: int = 0
    memo_bytes: int = 0
    making: Counter[int] = field(default_factory=Counter)
    making_us: int = 0

    def note_making(self, seconds: float) -> None:
        self.making[bisect_left(MAKING_S, seconds)] += 1
        self.making_us += int(seconds * 1e6)

    def making_s(self, share: float) -> float:
        """The bound under which such a share of answers was made; 0 where none was, the last where it took longer."""
        total, seen = self.making.total(), 0
        for number, bound in enumerate(MAKING_S):
            seen += self.making[number]
            if total and seen >= share * total:
                return bound
        return MAKING_S[-1] if total else 0.0

    @property
    def requests(self) -> int:
        """Answers so far, in both lanes."""
        return self.fast_answers.total() + self.slow_answers.total()

    def by_status(self) -> dict[tuple[str, int], int]:
        """(lane, status) to answers."""
        fast = {("fast", status): count for status, count in self.fast_answers.items()}
        return fast | {("hypercorn", status): count for status, count in self.slow_answers.items()}

    def document(self) -> dict[str, Any]:
        """As JSON can carry it from one process to another: statuses are texts."""
        found: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in found.items()}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Meter:
        """Raises ValueError, TypeError or KeyError for what no `document` gives."""
        made = cls()
        for item in fields(cls):
            value = document[item.name]
            if isinstance(getattr(made, item.name), Counter):
                setattr(made, item.name, Counter({int(status): int(count) for status, count in value.items()}))
            else:
                setattr(made, item.name, int(value))
        return made

    @classmethod
    def sum(cls, meters: Iterable[Meter]) -> Meter:
        """Of several processes."""
        total = cls()
        for meter in meters:
            for item in fields(cls):
                setattr(total, item.name, getattr(total, item.name) + getattr(meter, item.name))
        return total

    def ended(self) -> Meter:
        """What is left to count of a process that has ended: what it has answered, nothing that it held."""
        return Meter(
            self.fast_answers,
            self.slow_answers,
            self.remembered,
            sent_bytes=self.sent_bytes,
            making=self.making,
            making_us=self.making_us,
        )
