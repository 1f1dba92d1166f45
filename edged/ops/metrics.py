"""Metrics in the Prometheus text format 0.0.4, read when somebody asks.

Our own fifty lines, because prometheus_client adds 14 MB to a process that is to be small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

Labels = tuple[tuple[str, str], ...]
Read = Callable[[], Iterable[tuple[Labels, float]]]
ReadHistogram = Callable[[], Iterable[tuple[Labels, Sequence[int], float]]]


class Metric:
    """One metric; `read` gives its value for each set of labels. kind: gauge, or counter for what only grows."""

    def __init__(self, name: str, help_text: str, read: Read, kind: str = "gauge") -> None:
        self.name, self.help_text, self.read, self.kind = name, help_text, read, kind

    def render(self) -> str:
        lines = [f"# HELP {self.name} {self.help_text}", f"# TYPE {self.name} {self.kind}"]
        lines += [f"{self.name}{render_labels(labels)} {render_number(value)}" for labels, value in self.read()]
        return "\n".join(lines) + "\n"


class Histogram(Metric):
    """Counts by upper bounds. read: for each set of labels the counts by bound, not summed up, the last of what is over
    all of them, and the sum of all that was measured."""

    def __init__(self, name: str, help_text: str, bounds: Sequence[float], read: ReadHistogram) -> None:
        super().__init__(name, help_text, lambda: (), "histogram")
        self.bounds, self.read_counts = bounds, read

    def render(self) -> str:
        lines = [f"# HELP {self.name} {self.help_text}", f"# TYPE {self.name} histogram"]
        for labels, counts, total in self.read_counts():
            seen = 0
            for bound, count in zip((*self.bounds, math.inf), counts, strict=True):
                seen += count
                within = (*labels, ("le", render_number(bound)))
                lines.append(f"{self.name}_bucket{render_labels(within)} {seen}")
            lines.append(f"{self.name}_sum{render_labels(labels)} {render_number(total)}")
            lines.append(f"{self.name}_count{render_labels(labels)} {seen}")
        return "\n".join(lines) + "\n"


class Registry:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []

    def register(self, *metrics: Metric) -> None:
        self.metrics += metrics

    def render(self) -> bytes:
        return "".join(metric.render() for metric in self.metrics).encode()


def render_labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels) + "}"


def escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render_number(value: float) -> str:
    """As Prometheus reads it: whole numbers whole, and +Inf for what has no bound."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
