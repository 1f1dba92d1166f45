"""The Prometheus text format."""

from __future__ import annotations

from edged.ops.metrics import Counter, Gauge, Histogram, Registry


def test_counters_gauges_and_histograms_render_as_prometheus_reads_them() -> None:
    requests = Counter("edged_requests_total", "Requests answered.")
    requests.add(lane="fast")
    requests.add(2, lane="fast")
    version = Gauge("edged_version", "Live version.", lambda: [((("dataset", 'a"b\\c\nd'),), 7)])
    seconds = Histogram("edged_seconds", "Time to answer.", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 5.0):
        seconds.observe(value)
    registry = Registry()
    registry.register(requests, version, seconds)
    assert registry.render().decode().splitlines() == [
        "# HELP edged_requests_total Requests answered.",
        "# TYPE edged_requests_total counter",
        'edged_requests_total{lane="fast"} 3',
        "# HELP edged_version Live version.",
        "# TYPE edged_version gauge",
        'edged_version{dataset="a\\"b\\\\c\\nd"} 7',
        "# HELP edged_seconds Time to answer.",
        "# TYPE edged_seconds histogram",
        'edged_seconds_bucket{le="0.1"} 2',
        'edged_seconds_bucket{le="1.0"} 3',
        'edged_seconds_bucket{le="+Inf"} 4',
        "edged_seconds_sum 5.65",
        "edged_seconds_count 4",
    ]
