"""The daemon's metrics: read from what the stations count anyway, when somebody asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from edged.ops.metrics import Gauge, Labels, Registry
from edged.version import VERSION

PER_DATASET = (
    ("version", "edged_dataset_version", "gauge", "Version that is served."),
    ("as_of", "edged_dataset_signed_timestamp_seconds", "gauge", "When the head in force was signed."),
    ("bytes_received", "edged_sync_received_bytes_total", "counter", "Bytes received from origins."),
    ("bytes_sent", "edged_sync_sent_bytes_total", "counter", "Bytes sent to origins."),
    ("snapshots_applied", "edged_sync_snapshots_applied_total", "counter", "Snapshots applied."),
    ("hops_applied", "edged_sync_hops_applied_total", "counter", "Hops applied."),
    ("repairs", "edged_sync_repairs_total", "counter", "Slices fetched again, indexes and manifests made anew."),
    (
        "flash_bytes_written",
        "edged_replica_flash_written_bytes_total",
        "counter",
        "Bytes written to the replica's disk.",
    ),
    ("connected", "edged_sync_connected", "gauge", "Whether the origin answered when last asked."),
)


class Counted(Protocol):
    """What the metrics are read from: the daemon."""

    @property
    def meter(self) -> Any: ...

    def status(self) -> dict[str, Any]: ...


def daemon_registry(daemon: Counted) -> Registry:
    registry = Registry()
    registry.register(
        Gauge("edged_build_info", "The release that runs.", lambda: [((("version", VERSION),), 1)]),
        *(dataset_gauge(daemon, *row) for row in PER_DATASET),
        Gauge("edged_dataset_state", "1 for the state that the dataset is in.", lambda: states(daemon)),
        Gauge("edged_requests_total", "Answers to apps, by lane and status.", lambda: answers(daemon), "counter"),
        Gauge(
            "edged_served_total", "Answers to apps by all serving processes.", lambda: [((), served(daemon))], "counter"
        ),
        meter_gauge(daemon, "remembered", "edged_answers_remembered_total", "Fast answers from memory.", "counter"),
        meter_gauge(daemon, "streams", "edged_change_streams", "Open change streams.", "gauge"),
        meter_gauge(daemon, "memo_bytes", "edged_answer_memory_bytes", "Bytes that remembered answers take.", "gauge"),
        Gauge("process_resident_memory_bytes", "Resident memory.", resident_bytes),
    )
    return registry


def dataset_gauge(daemon: Counted, field: str, name: str, kind: str, help_text: str) -> Gauge:
    def read() -> Iterable[tuple[Labels, float]]:
        return [((("dataset", dataset),), float(item[field])) for dataset, item in datasets(daemon).items()]

    return Gauge(name, help_text, read, kind)


def meter_gauge(daemon: Counted, field: str, name: str, help_text: str, kind: str) -> Gauge:
    read: Callable[[], Iterable[tuple[Labels, float]]] = lambda: [((), float(getattr(daemon.meter, field)))]  # noqa: E731
    return Gauge(name, help_text, read, kind)


def datasets(daemon: Counted) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = daemon.status()["datasets"]
    return found


def states(daemon: Counted) -> Iterable[tuple[Labels, float]]:
    return [((("dataset", name), ("state", item["state"])), 1) for name, item in datasets(daemon).items()]


def answers(daemon: Counted) -> Iterable[tuple[Labels, float]]:
    return [
        ((("lane", lane), ("status", str(status))), count) for (lane, status), count in daemon.meter.by_status().items()
    ]


def served(daemon: Counted) -> float:
    count: float = daemon.status()["requests_served"]
    return count


def resident_bytes() -> Iterable[tuple[Labels, float]]:
    with open("/proc/self/statm", "rb") as file:
        return [((), int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))]
