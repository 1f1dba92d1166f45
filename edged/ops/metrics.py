"""Counters, gauges and histograms in the Prometheus text format 0.0.4.

Our own eighty lines, because prometheus_client adds 14 MB to a process that is to be small.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

Labels = tuple[tuple[str, str], ...]
LATENCY_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)


class Family(ABC):
    """One metric with its help text and type; a sample for each set of labels."""

    def __init__(self, name: str, help_text: str, kind: str) -> None:
        self.name, self.help_text, self.kind = name, help_text, kind

    @abstractmethod
    def samples(self) -> Iterable[tuple[str, Labels, float]]:
        """(sample name, labels, value) of each."""

    def render(self) -> str:
        lines = [f"# HELP {self.name} {self.help_text}", f"# TYPE {self.name} {self.kind}"]
        lines += [f"{name}{render_labels(labels)} {render_number(value)}" for name, labels, value in self.samples()]
        return "\n".join(lines) + "\n"


class Counter(Family):
    """Only grows."""

    def __init__(self, name: str, help_text: str) -> None:
        super().__init__(name, help_text, "counter")
        self.values: dict[Labels, float] = {}

    def add(self, amount: float = 1, **labels: str) -> None:
        key = tuple(labels.items())
        self.values[key] = self.values.get(key, 0) + amount

    def samples(self) -> Iterable[tuple[str, Labels, float]]:
        return [(self.name, labels, value) for labels, value in self.values.items()]


class Gauge(Family):
    """Read when asked: `read` returns (labels, value) pairs. kind: "gauge", or "counter" for a total kept elsewhere."""

    def __init__(
        self, name: str, help_text: str, read: Callable[[], Iterable[tuple[Labels, float]]], kind: str = "gauge"
    ) -> None:
        super().__init__(name, help_text, kind)
        self.read = read

    def samples(self) -> Iterable[tuple[str, Labels, float]]:
        return [(self.name, labels, value) for labels, value in self.read()]


class Histogram(Family):
    """Cumulative buckets, their sum and count. buckets: upper bounds in the metric's unit, ascending."""

    def __init__(self, name: str, help_text: str, buckets: Sequence[float] = LATENCY_S) -> None:
        super().__init__(name, help_text, "histogram")
        self.buckets = tuple(buckets)
        self.counts: dict[Labels, list[int]] = {}
        self.sums: dict[Labels, float] = {}

    def observe(self, value: float, **labels: str) -> None:
        key = tuple(labels.items())
        counts = self.counts.setdefault(key, [0] * (len(self.buckets) + 1))
        counts[bisect_left(self.buckets, value)] += 1
        self.sums[key] = self.sums.get(key, 0.0) + value

    def samples(self) -> Iterable[tuple[str, Labels, float]]:
        for labels, counts in self.counts.items():
            total = 0
            for bound, count in zip((*map(str, self.buckets), "+Inf"), counts, strict=True):
                total += count
                yield f"{self.name}_bucket", (*labels, ("le", bound)), total
            yield f"{self.name}_sum", labels, self.sums[labels]
            yield f"{self.name}_count", labels, total


class Registry:
    """The families of one process."""

    def __init__(self) -> None:
        self.families: list[Family] = []

    def register(self, *families: Family) -> None:
        self.families += families

    def render(self) -> bytes:
        return "".join(family.render() for family in self.families).encode()


def render_labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels) + "}"


def escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render_number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
