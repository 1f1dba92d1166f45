"""The document of /status: what a daemon says of itself, to people and programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edged.clock import freshness
from edged.errors import StoreError
from edged.http.meter import Meter
from edged.http.tls.certificates import Certificates
from edged.replica.reader import Dataset
from edged.sync.status import DatasetStatus


def dataset_document(status: DatasetStatus, dataset: Dataset, now_s: float, *, memory: bool) -> dict[str, Any]:
    """What the sync task holds, in what apps are served: the two differ where what is new cannot be read. memory:
    whether all of it lies there, so that nothing is written to flash."""
    held = status.document(now_s) | {"disk_bytes": 0, "memory": memory}
    if memory:
        held |= {"flash_bytes_written": 0, "flash_bytes_since_start": 0}
    try:
        view = dataset.view()
    except StoreError as fault:
        return held | {"last_error": held["last_error"] or str(fault)}
    slices = view.slices
    served = {
        "version": view.version,
        "as_of": view.as_of,
        "state": freshness(now_s - view.as_of, view.fresh_s, view.expires_s) if view.version else "empty",
        "slices": {slice_name: item.version for slice_name, item in slices.items()},
        "disk_bytes": sum(item.disk_bytes for item in slices.values()),
        "held": held["version"],
        "last_error": held["last_error"] or (str(dataset.fault) if dataset.fault is not None else None),
    }
    return held | served


def serving_document(meter: Meter) -> dict[str, Any]:
    """What serving has counted, of all processes."""
    return {
        "remembered": meter.remembered,
        "streams": meter.streams,
        "sent_bytes": meter.sent_bytes,
        "seconds": {"p50": bound_text(meter.making_s(0.5)), "p99": bound_text(meter.making_s(0.99))},
    }


def bound_text(seconds: float) -> str:
    return f"under {seconds * 1000:g} ms" if seconds else "–"


def certificate_documents(listeners: Iterable[Certificates]) -> list[dict[str, Any]]:
    """The certificates of all listeners, each once."""
    found = {one.files.cert: one for certificates in listeners for one in certificates.all}
    return [
        {"file": path, "names": sorted(one.names), "expires_at": int(one.expires_at)}
        for path, one in sorted(found.items())
    ]
