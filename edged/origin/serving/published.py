"""What a publisher knows of its versions, for whoever counts the fleet."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edged.origin.fleet import FleetReport, PublishedVersion
from edged.origin.publisher import Publisher
from edged.origin.state import State
from edged.polls import DIGEST_BYTES


def known_of(feed: Path | None, dataset: str) -> dict[int, PublishedVersion]:
    """What the publisher remembers of its versions. Raises EdgedError where there is no such feed."""
    if feed is None:
        return {}
    publisher = Publisher.open(feed)
    if dataset not in publisher.datasets():
        return {}
    with publisher.reading(dataset) as state:
        return {row.version: PublishedVersion(row.time, digest_of(state, row.version)) for row in state.version_rows()}


def digest_of(state: State, version: int) -> str:
    return state.slice_at("core", at=version).digest[:DIGEST_BYTES].hex()


def document(report: FleetReport) -> dict[str, Any]:
    found = asdict(report)
    del found["dataset"]
    found["strange"] = [
        {"version": version, "digest": digest, "clients": count} for version, digest, count in report.strange
    ]
    return found
