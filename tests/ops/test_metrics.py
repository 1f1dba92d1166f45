"""The Prometheus text format."""

from __future__ import annotations

import pytest

from edged.ops.metrics import Metric, Registry, render_number


def test_counters_and_gauges_render_as_prometheus_reads_them() -> None:
    requests = Metric("edged_requests_total", "Requests answered.", lambda: [((("lane", "fast"),), 3)], "counter")
    version = Metric("edged_version", "Live version.", lambda: [((("dataset", 'a"b\\c\nd'),), 7)])
    registry = Registry()
    registry.register(requests, version)
    assert registry.render().decode().splitlines() == [
        "# HELP edged_requests_total Requests answered.",
        "# TYPE edged_requests_total counter",
        'edged_requests_total{lane="fast"} 3',
        "# HELP edged_version Live version.",
        "# TYPE edged_version gauge",
        'edged_version{dataset="a\\"b\\\\c\\nd"} 7',
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (1e15, "1000000000000000"), (0.25, "0.25"), (float("inf"), "+Inf")]
)
def test_numbers(value: float, text: str) -> None:
    assert render_number(value) == text
