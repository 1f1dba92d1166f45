"""What a cache that makes one request of all for one URL makes of a fleet's polls, by how long they are held."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edged.feedserving.polls import EPOCH_S, PollNumbers
from edged.sync.core.events import WAIT_S
from edged.sync.core.turns import PollTurns

LATENCY_S, HORIZON_S, BEGIN_S = 0.3, 3600, 10_000  # to and fro at the most; begin: of the clock of numbers
TAG = b'"head"'


class Waiting(Protocol):
    """One device's way to say how long its next poll is to be held, and how long it rests before it."""

    def ask(self, now: float) -> int: ...

    def rest(self, now: float) -> float: ...


@dataclass
class Same:
    """All ask for the same."""

    def ask(self, now: float) -> int:
        return WAIT_S

    def rest(self, now: float) -> float:
        return 0.0


@dataclass
class Drawn:
    """Each draws anew, from half of the time on."""

    chance: random.Random

    def ask(self, now: float) -> int:
        return WAIT_S - int(self.chance.random() * (WAIT_S // 2 + 1))

    def rest(self, now: float) -> float:
        return 0.0


@dataclass
class InTurn:
    """As devices do it (edged/sync/core/turns.py)."""

    turns: PollTurns

    def ask(self, now: float) -> int:
        return self.turns.ask(WAIT_S, 7, now, ())

    def rest(self, now: float) -> float:
        self.turns.ended(now)
        return self.turns.rest_s(now, ())


@dataclass
class CountedNumbers:
    """Numbers that only count, as they did before they went by the clock."""

    number: int = BEGIN_S

    def after(self, asked: int, now: float) -> int:
        self.number = max(self.number, asked + 1)
        return self.number


@dataclass
class ClockNumbers:
    numbers: PollNumbers = field(default_factory=lambda: PollNumbers(EPOCH_S + BEGIN_S))

    def after(self, asked: int, now: float) -> int:
        return self.numbers.after(asked, TAG, EPOCH_S + BEGIN_S + now)


@dataclass(frozen=True, slots=True)
class PollCount:
    """By second: of the devices at the cache, and of the cache at the origin."""

    asked: Counter[int]
    passed: Counter[int]

    @property
    def ratio(self) -> float:
        """Peak of a second against the mean, once all have polled again after the news."""
        seconds = [self.asked[second] for second in range(3, HORIZON_S)]
        return max(seconds) * len(seconds) / sum(seconds)

    @property
    def per_wait(self) -> float:
        """At the origin in WAIT_S."""
        return sum(self.passed.values()) * WAIT_S / HORIZON_S


def behind_cache(fleet: list[Waiting], numbers: CountedNumbers | ClockNumbers) -> PollCount:
    """An hour, after all were answered with news at once."""
    chance, count = random.Random(3), PollCount(Counter(), Counter())
    pending: dict[tuple[int, int], list[int]] = {}
    # When, what: a device that asks with a number, or the end of a poll at the origin (device -1).
    queue = [(chance.random() * LATENCY_S, device, (BEGIN_S, 0)) for device in range(len(fleet))]
    heapq.heapify(queue)
    while queue:
        now, device, url = heapq.heappop(queue)
        if now >= HORIZON_S:
            break
        if device < 0:
            number = numbers.after(url[0], now)
            for one in pending.pop(url):
                answered = now + chance.random() * LATENCY_S
                heapq.heappush(queue, (answered + fleet[one].rest(answered), one, (number, 0)))
            continue
        count.asked[int(now)] += 1
        url = (url[0], fleet[device].ask(now))
        if url not in pending:
            pending[url] = []
            count.passed[int(now)] += 1
            heapq.heappush(queue, (now + url[1], -1, url))
        pending[url].append(device)
    return count


def ways(devices: int) -> dict[str, Callable[[], PollCount]]:
    chance = random.Random(2)

    def in_turn() -> list[Waiting]:
        return [InTurn(PollTurns(f"box-{number}")) for number in range(devices)]

    return {
        "in turn": lambda: behind_cache(in_turn(), ClockNumbers()),
        "each for 120 to 240 s, drawn anew": lambda: behind_cache([Drawn(chance)] * devices, CountedNumbers()),
        "all for 240 s": lambda: behind_cache([Same()] * devices, CountedNumbers()),
        "in turn, numbers that count": lambda: behind_cache(in_turn(), CountedNumbers()),
    }
