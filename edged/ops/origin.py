"""What operators ask an origin, on an address of its own: health, metrics, the fleet, and the dashboard.

It shows and changes nothing: who publishes uses the commands. Without credentials, as the device's listener is (see
admin.py): the address keeps strangers out, and Host that web pages reach it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import trio

from edged.errors import EdgedError, RequestError
from edged.http.application import DATE, Answer, Application, InThread, Response, Signal, Stream
from edged.http.request import Request, decode, split_target
from edged.ops.admin import EVENT_FIELDS, EVENT_S, HOSTS, JSON, METRICS, TEXT, refusal, respond
from edged.ops.gauges import one, process_gauges
from edged.ops.metrics import Labels, Metric, Registry
from edged.ops.process import resident_bytes
from edged.origin.serving import browsing, exploring
from edged.origin.serving.published import known_of
from edged.origin.serving.server import Observed
from edged.pages.page import page
from edged.version import VERSION

HOME = "origin.html"
ADMIN_CONNECTIONS = 64
AT_ONCE = 2  # answers that read the publisher's state; serving devices goes on beside them
PATHS = "/ /healthz /readyz /metrics /status /fleet /usage /log /diff /costs /records /events /v1 /pages/explorer.html"


class OriginAdmin(Application):
    """clock: seconds since 1970."""

    def __init__(self, feed_dir: Path, observed: Observed, clock: Callable[[], float]) -> None:
        self.feed, self.observed, self.clock = feed_dir, observed, clock
        self.began = time.monotonic()
        self.wanted = trio.Event()
        self.ticked = Signal(self.want)
        self.limiter = trio.CapacityLimiter(AT_ONCE)
        self.registry = registry_of(self)

    def want(self) -> None:
        self.wanted.set()

    async def tick(self) -> None:
        """Have whoever listens to /events told once in EVENT_S, for ever."""
        while True:
            await self.wanted.wait()
            self.wanted = trio.Event()
            await trio.sleep(EVENT_S)
            self.ticked.move()

    def answer(self, request: Request) -> Answer:
        try:
            authority, raw_path, query = split_target(request.target)
            HOSTS.check(request, authority)
            path = decode(raw_path, "path")
            if request.method not in ("GET", "HEAD"):
                raise RequestError(405, f"{path:.200} takes GET", headers=(("Allow", "GET, HEAD"),))
            if path == "/v1" or path.startswith("/v1/"):
                segments = [decode(segment, "path") for segment in raw_path.split(b"/", 4)[2:]]
                asked = read_query(query)
                return InThread(
                    partial(contained, partial(exploring.explored, self.feed, segments, asked)), self.limiter
                )
            found = page(path, HOME, request)
            return self.show(path, query) if found is None else found
        except EdgedError as fault:
            return refusal(fault)

    def show(self, path: str, query: bytes) -> Answer:
        """Raises EdgedError."""
        match path:
            case "/healthz":
                return respond(200, TEXT, b"alive\n")
            case "/readyz":
                ready = bool(self.observed.heads.datasets())
                return respond(200 if ready else 503, TEXT, b"ready\n" if ready else b"nothing is published yet\n")
            case "/metrics":
                return respond(200, METRICS, self.registry.render())
            case "/status":
                return answered(self.status())
            case "/events":
                return Stream(200, EVENT_FIELDS, DATE, self.events(), self.ticked, self.events)
            case "/usage":
                names = self.observed.heads.datasets()
                return answered({"datasets": {name: self.observed.use.document(name) for name in names}})
            case "/fleet" | "/log" | "/diff" | "/costs" | "/records":
                asked = read_query(query)
                return InThread(partial(contained, partial(self.read, path, asked)), self.limiter)
        raise RequestError(404, f"nothing at {path:.200}; here are {PATHS}")

    def read(self, path: str, asked: dict[str, str]) -> dict[str, Any]:
        """In a thread: what the publisher's state says. Raises EdgedError."""
        if path == "/fleet":
            names = [asked["dataset"]] if "dataset" in asked else self.observed.heads.datasets()
            return {"datasets": {name: self.fleet_of(name) for name in names}}
        dataset = text_of(asked, "dataset")
        if path == "/log":
            return browsing.log_of(self.feed, dataset)
        if path == "/records":
            version, collection = number_of(asked, "version"), text_of(asked, "collection")
            return browsing.records_of(self.feed, dataset, version, collection, asked.get("after", ""))
        low, high = number_of(asked, "from"), number_of(asked, "to")
        if path == "/costs":
            return browsing.costs_of(self.feed, dataset, low, high)
        return browsing.diff_of(self.feed, dataset, low, high, asked.get("after", ""))

    def fleet_of(self, dataset: str) -> dict[str, Any]:
        try:
            known = known_of(self.feed, dataset)
        except EdgedError:  # only public files are here: what most devices hold counts as right
            known = {}
        return self.observed.fleet.report(dataset, known)

    def events(self) -> Iterator[bytes]:
        """The document of /status as an event."""
        yield b"data: " + json.dumps(self.status(), ensure_ascii=False).encode() + b"\n\n"

    def status(self) -> dict[str, Any]:
        now, heads, meter = self.clock(), self.observed.heads, self.observed.meter
        return {
            "version": VERSION,
            "time": now,
            "uptime_s": round(time.monotonic() - self.began, 1),
            "requests_served": meter.requests,
            "sent_bytes": meter.sent_bytes,
            "memory_bytes": resident_bytes(),
            "datasets": {name: self.dataset_status(name, now) for name in heads.datasets()},
        }

    def dataset_status(self, name: str, now: float) -> dict[str, Any]:
        heads = self.observed.heads
        found, fleet = heads.current(name), self.observed.fleet.fleets.get(name)
        if found is None:
            return {"version": 0, "last_error": "its head cannot be read; the log says why"}
        head = found.document
        age_s = max(0.0, now - head.signed_at)
        return {
            "version": head.version,
            "signed_at": head.signed_at,
            "age_s": round(age_s, 1),
            "state": "fresh" if age_s <= head.fresh_s else "stale" if age_s <= head.expires_s else "expired",
            "head_bytes": len(found.data),
            "root": head.root,
            "slices": {slice_name: item.records for slice_name, item in head.slices.items()},
            "offered": None if head.offer is None else head.offer.version,
            "permille": None if head.offer is None else head.offer.permille,
            "waiting": len(heads.signals[name].followers) if name in heads.signals else 0,
            "polls": 0 if fleet is None else fleet.polls,
            "last_error": None,
        }


def contained(read: Callable[[], Any]) -> Response:
    try:
        return answered(read())
    except EdgedError as fault:
        return refusal(fault)


def answered(document: Any) -> Response:
    return respond(200, JSON, json.dumps(document, ensure_ascii=False).encode())


def read_query(query: bytes) -> dict[str, str]:
    """Raises RequestError 400."""
    try:
        return dict(parse_qsl(query.decode("ascii"), strict_parsing=bool(query), max_num_fields=8, errors="strict"))
    except (ValueError, UnicodeError) as fault:
        raise RequestError(400, f"the query cannot be read: {fault}") from fault


def text_of(asked: dict[str, str], name: str) -> str:
    if not asked.get(name):
        raise RequestError(400, f"{name} is missing")
    return asked[name]


def number_of(asked: dict[str, str], name: str) -> int:
    text = text_of(asked, name)
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise RequestError(400, f"{name}: expected a whole number of at most 18 digits")
    return int(text)


PER_DATASET = (
    ("version", "edged_origin_version", "gauge", "Version that is live."),
    ("signed_at", "edged_origin_head_signed_timestamp_seconds", "gauge", "When the head was signed."),
    ("head_bytes", "edged_origin_head_bytes", "gauge", "Bytes of the head."),
    ("waiting", "edged_origin_polls_waiting", "gauge", "Held polls that wait for news."),
    ("polls", "edged_origin_polls_total", "counter", "Polls that said what their device holds."),
    ("permille", "edged_origin_rollout_permille", "gauge", "Share of the devices that a version is offered to."),
)
STATES = ("fresh", "stale", "expired")


def registry_of(admin: OriginAdmin) -> Registry:
    meter = admin.observed.meter

    def of_datasets(field: str) -> list[tuple[Labels, float]]:
        rows = admin.status()["datasets"].items()
        return [((("dataset", name),), float(item[field])) for name, item in rows if item.get(field) is not None]

    def states() -> list[tuple[Labels, float]]:
        rows = admin.status()["datasets"].items()
        return [
            ((("dataset", name), ("state", state)), float(item.get("state") == state))
            for name, item in rows
            for state in STATES
        ]

    def clients() -> list[tuple[Labels, float]]:
        names = admin.observed.heads.datasets()
        return [((("dataset", name),), float(admin.observed.fleet.clients(name))) for name in names]

    def refusing() -> list[tuple[Labels, float]]:
        return [
            ((("dataset", name), ("reason", reason)), float(count))
            for name in admin.observed.heads.datasets()
            for reason, count in admin.observed.fleet.refusing(name).items()
        ]

    def answers() -> list[tuple[Labels, float]]:
        return [
            ((("lane", lane), ("status", str(status))), float(count))
            for (lane, status), count in sorted(meter.by_status().items())
        ]

    registry = Registry()
    registry.register(
        Metric("edged_build_info", "The release that runs.", lambda: [((("version", VERSION),), 1)]),
        *(Metric(name, text, partial(of_datasets, field), kind) for field, name, kind, text in PER_DATASET),
        Metric("edged_origin_head_state", "1 for the state that the head is in.", states),
        Metric("edged_origin_clients", "Clients that have polled, told apart by address.", clients),
        Metric("edged_origin_refusing_clients", "Clients that say why they stay at a version.", refusing),
        Metric("edged_requests_total", "Answers, by lane and status.", answers, "counter"),
        one("edged_answers_sent_bytes_total", "Bytes sent by the fast lane.", lambda: meter.sent_bytes, "counter"),
        one("edged_fast_connections", "Connections in the fast lane.", lambda: meter.fast_connections),
        one("edged_memory_bytes", "Resident memory.", resident_bytes),
        *process_gauges(),
    )
    return registry
