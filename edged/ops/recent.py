"""What was lately: how long answers took, minute by minute, and what the log was told above `info`. In memory alone."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import trio

from edged.http.meter import MAKING_S, Meter

EVERY_S = 60.0
MINUTES = 240
LINES = 60
LINE_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Minute:
    """time: of its end, seconds since 1970; requests: in it; p50_s, p99_s: of making those that were not remembered,
    None where there was none."""

    time: int
    requests: int
    p50_s: float | None
    p99_s: float | None


@dataclass(slots=True)
class ToldLine:
    """time, first: when it came last and first, seconds since 1970; count: how often."""

    text: str
    level: str
    time: float
    first: float
    count: int = 1


class LogKeeper(logging.Handler):
    """Keeps the last lines of warnings and errors, each text once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: deque[ToldLine] = deque(maxlen=LINES)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()[:LINE_CHARACTERS]
        found = next((line for line in self.lines if line.text == text), None)
        if found is None:
            self.lines.append(ToldLine(text, record.levelname.lower(), record.created, record.created))
            return
        self.lines.remove(found)
        found.time, found.count = record.created, found.count + 1
        self.lines.append(found)

    def document(self) -> list[dict[str, Any]]:
        """The newest first."""
        self.acquire()
        try:
            return [asdict(line) for line in reversed(self.lines)]
        finally:
            self.release()


class RecentTimes:
    """counted: what all serving processes have counted; clock: seconds since 1970."""

    def __init__(self, counted: Callable[[], Meter], clock: Callable[[], float]) -> None:
        self.counted, self.clock = counted, clock
        self.log = LogKeeper()
        self.minutes: deque[Minute] = deque(maxlen=MINUTES)
        self.requests, self.making = 0, Counter[int]()

    def __enter__(self) -> None:
        """Listen to the log."""
        logging.getLogger("edged").addHandler(self.log)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("edged").removeHandler(self.log)

    async def run(self) -> None:
        """Look once a minute, for ever."""
        while True:
            await trio.sleep(EVERY_S)
            self.look()

    def look(self) -> None:
        meter = self.counted()
        self.minutes.append(self.minute(meter))
        self.requests, self.making = meter.requests, Counter(meter.making)

    def minute(self, meter: Meter) -> Minute:
        """What was counted since the last look."""
        made = meter.making - self.making  # without what is not positive: a process that ended may take counts along
        requests = max(0, meter.requests - self.requests)
        return Minute(int(self.clock()), requests, quantile(made, 0.5), quantile(made, 0.99))

    def document(self) -> dict[str, Any]:
        """The document of /recent: minutes, the oldest first, the last of them under way; lines, the newest first."""
        minutes = [asdict(minute) for minute in (*self.minutes, self.minute(self.counted()))]
        return {"every_s": EVERY_S, "minutes": minutes, "lines": self.log.document()}


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """Seconds within which such a share was made, by a straight line within a class (as Prometheus' histogram_quantile
    has it); counts: by the number of the bound in MAKING_S."""
    total, seen = sum(counts.values()), 0
    if not total:
        return None
    for number, bound in enumerate(MAKING_S):
        count = counts.get(number, 0)
        if count and seen + count >= share * total:
            low = MAKING_S[number - 1] if number else 0.0
            return round(low + (bound - low) * (share * total - seen) / count, 7)
        seen += count
    return MAKING_S[-1]
