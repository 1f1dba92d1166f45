"""Writes config/grafana.json: a dashboard of the daemon's metrics, one panel a line of PANELS.

python packaging/grafana.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent.parent / "config/grafana.json"
JOB = 'job=~"$job",instance=~"$instance"'
MAKING = f"sum by (le) (rate(edged_answer_making_seconds_bucket{{{JOB}}}[5m]))"
REMEMBERED = f"sum(rate(edged_answers_remembered_total{{{JOB}}}[5m]))"
ASKED = f"sum(rate(edged_requests_total{{{JOB}}}[5m]))"
# title, unit, queries by legend
PANELS: list[tuple[str, str, dict[str, str]]] = [
    ("Versions served", "none", {"{{dataset}} {{instance}}": f"edged_dataset_version{{{JOB}}}"}),
    ("State", "none", {"{{dataset}} {{state}}": f"sum by (dataset, state) (edged_dataset_state{{{JOB}}})"}),
    (
        "Failing, and origins lost",
        "none",
        {
            "{{dataset}} failing": f"sum by (dataset) (edged_dataset_failing{{{JOB}}})",
            "{{dataset}} not connected": f"count by (dataset) (edged_sync_connected{{{JOB}}} == 0)",
        },
    ),
    (
        "Since the last success",
        "s",
        {
            "{{dataset}} {{instance}}": f"time() - edged_sync_last_success_timestamp_seconds{{{JOB}}} > 0",
        },
    ),
    (
        "Age of what is served",
        "s",
        {
            "{{dataset}} {{instance}}": f"time() - edged_dataset_signed_timestamp_seconds{{{JOB}}}",
        },
    ),
    (
        "Received from origins",
        "Bps",
        {
            "{{dataset}}": f"sum by (dataset) (rate(edged_sync_received_bytes_total{{{JOB}}}[5m]))",
        },
    ),
    ("Requests", "reqps", {"{{status}}": f"sum by (status) (rate(edged_requests_total{{{JOB}}}[5m]))"}),
    (
        "From memory",
        "percentunit",
        {
            "share": f"{REMEMBERED} / {ASKED}",
        },
    ),
    (
        "Making an answer that is not remembered",
        "s",
        {f"{share}": f"histogram_quantile({share}, {MAKING})" for share in (0.5, 0.9, 0.99)},
    ),
    (
        "Requests by app",
        "reqps",
        {
            "{{app}}": f"sum by (app) (rate(edged_app_requests_total{{{JOB}}}[5m]))",
            "{{app}} refused": f"sum by (app) (rate(edged_app_refused_total{{{JOB}}}[5m]))",
        },
    ),
    (
        "Proxied requests",
        "reqps",
        {
            "{{outcome}}": f"sum by (outcome) (rate(edged_proxy_requests_total{{{JOB}}}[5m]))",
        },
    ),
    (
        "Upstreams",
        "s",
        {
            "{{prefix}}": f"rate(edged_proxy_upstream_wait_seconds_total{{{JOB}}}[5m])"
            f" / rate(edged_proxy_upstream_answers_total{{{JOB}}}[5m])",
        },
    ),
    ("Relayed blobs", "Bps", {"from above": f"sum(rate(edged_relay_fetched_bytes_total{{{JOB}}}[5m]))"}),
    ("Polls that wait at relays", "none", {"{{instance}}": f"edged_relay_waiting{{{JOB}}}"}),
    (
        "Written to flash",
        "Bps",
        {
            "{{dataset}} {{instance}}": f"rate(edged_replica_flash_written_bytes_total{{{JOB}}}[1h])",
        },
    ),
    ("Memory", "bytes", {"{{instance}}": f"edged_memory_bytes{{{JOB}}}"}),
]


def variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def panel(number: int, title: str, unit: str, queries: dict[str, str]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": number + 1,
        "title": title,
        "type": "timeseries",
        "datasource": source,
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"datasource": source, "expr": query, "legendFormat": legend, "refId": chr(65 + place)}
            for place, (legend, query) in enumerate(queries.items())
        ],
    }


def dashboard() -> str:
    document = {
        "title": "edged",
        "uid": "edged",
        "schemaVersion": 39,
        "tags": ["edged"],
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "1m",
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus"},
                variable("job", "label_values(edged_build_info, job)"),
                variable("instance", 'label_values(edged_build_info{job=~"$job"}, instance)'),
            ]
        },
        "panels": [panel(number, *row) for number, row in enumerate(PANELS)],
    }
    return json.dumps(document, indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(dashboard())
