"""The daemon's metrics: read from what the stations count anyway, when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from edged.access.usagefile import UsageKeeper
from edged.clock import Clock
from edged.http.meter import MAKING_S, Meter
from edged.http.tls.certificates import Certificates
from edged.ops import process
from edged.ops.metrics import Histogram, Labels, Metric, Registry
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
    (
        "last_success",
        "edged_sync_last_success_timestamp_seconds",
        "gauge",
        "When an origin last answered and nothing was wrong, since 1970; 0: not since the start.",
    ),
)


PER_METER = (
    ("remembered", "edged_answers_remembered_total", "counter", "Fast answers from memory."),
    ("sent_bytes", "edged_answers_sent_bytes_total", "counter", "Bytes sent by the fast lane."),
    ("streams", "edged_change_streams", "gauge", "Open change streams."),
    ("fast_connections", "edged_fast_connections", "gauge", "Connections in the fast lane."),
    ("memo_bytes", "edged_answer_memory_bytes", "gauge", "Bytes that remembered answers take."),
)
# What became of a proxied request, each counted once.
PROXY_OUTCOMES = ("hits", "stale", "offline_answers", "misses", "collapsed", "passed", "failed")
PER_PROXY = (
    ("fetched_bytes", "edged_proxy_fetched_bytes_total", "counter", "Bytes of bodies from upstreams."),
    ("served_bytes", "edged_proxy_served_bytes_total", "counter", "Bytes of bodies to apps."),
    ("evictions", "edged_proxy_evictions_total", "counter", "Stored answers that made room for others."),
    ("store_failures", "edged_proxy_store_failures_total", "counter", "Steps of the store's I/O that failed."),
    ("disk_bytes", "edged_proxy_store_bytes", "gauge", "Bytes that the store takes on disk."),
    ("quota_bytes", "edged_proxy_quota_bytes", "gauge", "Bytes that it may take."),
    ("memory_bytes", "edged_proxy_memory_bytes", "gauge", "Bytes of answers in memory."),
)
PER_UPSTREAM = (
    ("upstreams", "edged_proxy_upstream_reachable", "gauge", "1 where the upstream took a connection when last tried."),
    ("upstream_answers", "edged_proxy_upstream_answers_total", "counter", "Answers of the upstream."),
    ("upstream_wait_s", "edged_proxy_upstream_wait_seconds_total", "counter", "Waiting for heads of its answers."),
)
PER_RELAY = (
    ("waiting", "edged_relay_waiting", "gauge", "Held polls of other edgeds."),
    ("requests", "edged_relay_requests_total", "counter", "Answers to other edgeds."),
    ("hits", "edged_relay_blob_hits_total", "counter", "Blobs answered from the disk."),
    ("fetches", "edged_relay_blob_fetches_total", "counter", "Blobs asked for above."),
    ("joined", "edged_relay_blob_joined_total", "counter", "Requests that waited for a fetch under way."),
    ("fetched_bytes", "edged_relay_fetched_bytes_total", "counter", "Bytes of blobs from above."),
    ("failures", "edged_relay_fetch_failures_total", "counter", "Fetches that brought nothing."),
    ("damaged", "edged_relay_damaged_total", "counter", "Blobs whose file had changed; they are fetched again."),
    ("store_failures", "edged_relay_store_failures_total", "counter", "Blobs that could not be written."),
    ("evictions", "edged_relay_evictions_total", "counter", "Blobs that made room for others."),
    ("disk_bytes", "edged_relay_store_bytes", "gauge", "Bytes that the blobs take on disk."),
    ("quota_bytes", "edged_relay_quota_bytes", "gauge", "Bytes that they may take."),
)
PER_RELAYED = (
    ("version", "edged_relay_dataset_version", "gauge", "Version of the head that is handed on."),
    ("signed_at", "edged_relay_dataset_signed_timestamp_seconds", "gauge", "When that head was signed."),
    ("connected", "edged_relay_connected", "gauge", "Whether the origin answered when last asked."),
    ("complete", "edged_relay_complete", "gauge", "Whether all that is fetched ahead is here."),
)
PER_APP = (
    ("answers", "edged_app_requests_total", "counter", "Answers, by app and audience."),
    ("remembered", "edged_app_remembered_total", "counter", "Of them, those from memory."),
    ("refused", "edged_app_refused_total", "counter", "Of them, 401, 403 and 429."),
    ("sent_bytes", "edged_app_sent_bytes_total", "counter", "Bytes of answers, heads and bodies."),
)
STATES = ("empty", "fresh", "stale", "expired")


class Counted(Protocol):
    """What the metrics are read from: the daemon."""

    clock: Clock
    certificates: list[Certificates]
    use: UsageKeeper

    def counted(self) -> Meter:
        """What all serving processes have counted."""
        ...

    def memory_bytes(self) -> int:
        """Resident, of all its processes."""
        ...

    def status(self) -> dict[str, Any]: ...


def daemon_registry(daemon: Counted) -> Registry:
    registry = Registry()
    registry.register(
        Metric("edged_build_info", "The release that runs.", lambda: [((("version", VERSION),), 1)]),
        *(dataset_gauge(daemon, *row) for row in PER_DATASET),
        Metric("edged_dataset_state", "1 for the state that the dataset is in.", lambda: states(daemon)),
        Metric(
            "edged_dataset_failing",
            "1 where something is wrong now; /status says what.",
            lambda: [(labels, float(item["last_error"] is not None)) for labels, item in datasets(daemon)],
        ),
        Metric("edged_requests_total", "Answers to apps, by lane and status.", lambda: answers(daemon), "counter"),
        *(meter_gauge(daemon, *row) for row in PER_METER),
        *(app_gauge(daemon, *row) for row in PER_APP),
        Histogram(
            "edged_answer_making_seconds",
            "How long it took to make answers that were not remembered.",
            MAKING_S,
            lambda: [making_of(daemon.counted())],
        ),
        Metric(
            "edged_tls_certificate_expiry_timestamp_seconds",
            "When a certificate runs out, since 1970.",
            lambda: [((("cert", path),), at) for path, at in expiries(daemon).items()],
        ),
        Metric(
            "edged_tls_certificates_expiring",
            "Certificates that run out within 14 days, or have.",
            lambda: [((), float(len(expiring(daemon))))] if daemon.certificates else [],
        ),
        Metric(
            "edged_proxy_requests_total",
            "Proxied requests, by what became of them.",
            lambda: [
                ((("outcome", name),), float(found[name])) for found in proxies(daemon) for name in PROXY_OUTCOMES
            ],
            "counter",
        ),
        *(proxy_gauge(daemon, *row) for row in PER_PROXY),
        *(upstream_gauge(daemon, *row) for row in PER_UPSTREAM),
        *(relay_gauge(daemon, *row) for row in PER_RELAY),
        *(relayed_gauge(daemon, *row) for row in PER_RELAYED),
        one("edged_memory_bytes", "Resident memory of all processes of the daemon.", daemon.memory_bytes),
        *process_gauges(),
    )
    return registry


def making_of(meter: Meter) -> tuple[Labels, list[int], float]:
    return (), [meter.making[number] for number in range(len(MAKING_S) + 1)], meter.making_us / 1e6


def expiries(daemon: Counted) -> dict[str, float]:
    """By file: listeners may share one."""
    return {one.files.cert: one.expires_at for certificates in daemon.certificates for one in certificates.all}


def expiring(daemon: Counted) -> set[str]:
    now = daemon.clock()
    return {path for certificates in daemon.certificates for path, _ in certificates.expiring(now)}


def process_gauges() -> list[Metric]:
    """Of the process that answers."""
    return [
        one("process_resident_memory_bytes", "Resident memory.", process.resident_bytes),
        one("process_cpu_seconds_total", "User and system time.", process.cpu_seconds, "counter"),
        one("process_open_fds", "Open descriptors.", process.open_descriptors),
        one("process_max_fds", "Most descriptors.", process.most_descriptors),
        one("process_start_time_seconds", "When it began, since 1970.", process.start_time_s),
    ]


def one(name: str, help_text: str, read: Callable[[], float], kind: str = "gauge") -> Metric:
    """A metric without labels."""
    return Metric(name, help_text, lambda: [((), float(read()))], kind)


def dataset_gauge(daemon: Counted, field: str, name: str, kind: str, help_text: str) -> Metric:
    return Metric(name, help_text, lambda: [(labels, float(item[field])) for labels, item in datasets(daemon)], kind)


def meter_gauge(daemon: Counted, field: str, name: str, kind: str, help_text: str) -> Metric:
    return one(name, help_text, lambda: float(getattr(daemon.counted(), field)), kind)


def app_gauge(daemon: Counted, field: str, name: str, kind: str, help_text: str) -> Metric:
    """One sample for each app that has asked."""

    def read() -> list[tuple[Labels, float]]:
        return [
            ((("app", app), ("audience", audience)), float(getattr(count, field)))
            for (app, audience), count in sorted(daemon.use.by_app().items())
        ]

    return Metric(name, help_text, read, kind)


def proxies(daemon: Counted) -> list[Mapping[str, Any]]:
    """The proxy's numbers; none where there is no proxy."""
    found = daemon.status().get("proxy")
    return [] if found is None else [found]


def outcomes(daemon: Counted) -> list[tuple[Labels, float]]:
    return [((("outcome", name),), float(found[name])) for found in proxies(daemon) for name in PROXY_OUTCOMES]


def proxy_gauge(daemon: Counted, field: str, name: str, kind: str, help_text: str) -> Metric:
    return Metric(name, help_text, lambda: [((), float(found[field])) for found in proxies(daemon)], kind)


def upstream_gauge(daemon: Counted, field: str, name: str, kind: str, help_text: str) -> Metric:
    """One sample for each route."""

    def read() -> list[tuple[Labels, float]]:
        return [
            ((("route", prefix),), float(value)) for found in proxies(daemon) for prefix, value in found[field].items()
        ]

    return Metric(name, help_text, read, kind)


def relays(daemon: Counted) -> list[Mapping[str, Any]]:
    """The relay's numbers; none where there is no relay."""
    found = daemon.status().get("relay")
    return [] if found is None else [found]


def relay_gauge(daemon: Counted, field: str, name: str, kind: str, help_text: str) -> Metric:
    return Metric(name, help_text, lambda: [((), float(found[field])) for found in relays(daemon)], kind)


def relayed_gauge(daemon: Counted, field: str, name: str, kind: str, help_text: str) -> Metric:
    """One sample for each dataset that is handed on."""

    def read() -> list[tuple[Labels, float]]:
        return [
            ((("dataset", dataset),), float(item[field]))
            for found in relays(daemon)
            for dataset, item in found["datasets"].items()
        ]

    return Metric(name, help_text, read, kind)


def datasets(daemon: Counted) -> list[tuple[Labels, Mapping[str, Any]]]:
    return [((("dataset", name),), item) for name, item in daemon.status()["datasets"].items()]


def states(daemon: Counted) -> Iterable[tuple[Labels, float]]:
    return [
        ((*labels, ("state", state)), float(item["state"] == state))
        for labels, item in datasets(daemon)
        for state in STATES
    ]


def answers(daemon: Counted) -> Iterable[tuple[Labels, float]]:
    return [
        ((("lane", lane), ("status", str(status))), count)
        for (lane, status), count in daemon.counted().by_status().items()
    ]
