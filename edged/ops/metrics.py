"""Metrics in the Prometheus text format 0.0.4, read when somebody asks.

Our own fifty lines, because prometheus_client adds 14 MB to a process that is to be small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

Labels = tuple[tuple[str, str], ...]
Read = Callable[[], Iterable[tuple[Labels, float]]]


class Metric:
    """One metric; `read` gives its value for each set of labels. kind: gauge, or counter for what only grows."""

    def __init__(self, name: str, help_text: str, read: Read, kind: str = "gauge") -> None:
        self.name, self.help_text, self.read, self.kind = name, help_text, read, kind

    def render(self) -> str:
        lines = [f"# HELP {self.name} {self.help_text}", f"# TYPE {self.name} {self.kind}"]
        lines += [f"{self.name}{render_labels(labels)} {render_number(value)}" for labels, value in self.read()]
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
