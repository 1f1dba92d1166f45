"""What the origin's dashboard shows of a feed's history: versions, what differs between two, records of one. Blocks."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cbor2

from edged.errors import RequestError
from edged.origin import history
from edged.origin.publisher import Publisher
from edged.origin.state import HIDDEN, State

PAGE = 50
LOOKED_AT = 2000  # records at most for one page
VERSIONS = 500  # the newest that are listed
VALUE_CHARACTERS = 20_000
COSTS = 100
SPAN = 200  # versions over which bytes are apportioned to fields: it reads what each of them changed


def log_of(feed: Path, dataset: str) -> dict[str, Any]:
    """The document of `origin log --json`, of the newest versions. Raises EdgedError."""
    with Publisher.open(feed).reading(dataset) as state:
        found = history.versions(state)
    return {"dataset": dataset, "versions": found[-VERSIONS:], "left_out": max(0, len(found) - VERSIONS)}


def diff_of(feed: Path, dataset: str, low: int, high: int, after: str) -> dict[str, Any]:
    """Records that differ, with their values, from behind `after` on (COLLECTION/KEY, or nothing), and behind which the
    next page begins. A page looks at so many records at most, and may then hold few."""
    collection, _, key = after.partition("/")
    items: list[dict[str, Any]] = []
    last = after
    with Publisher.open(feed).reading(dataset) as state:
        history.check_span(state, low, high)
        for looked, place in enumerate(history.changed_places(state, low, high, (collection, key))):
            if len(items) == PAGE or looked == LOOKED_AT:
                return {"items": items, "next": last}
            last = "/".join(place)
            old, new = (history.at_version(state, *place, version) for version in (low, high))
            change = history.change_of(place, old, new)
            if change is not None:
                values = {"before": shown(state, place, old), "after": shown(state, place, new)}
                items.append(asdict(change) | values)
    return {"items": items, "next": None}


def costs_of(feed: Path, dataset: str, low: int, high: int) -> dict[str, Any]:
    """Bytes of hops by collection and field, the dearest first."""
    with Publisher.open(feed).reading(dataset) as state:
        history.check_span(state, low, high)
        begin = max(low, high - SPAN)
        found = history.costs(state, begin, high)[:COSTS]
    rows = [
        {"collection": cost.collection, "field": cost.field, "changes": cost.changes, "bytes": round(cost.bytes)}
        for cost in found
    ]
    return {"from": begin, "to": high, "costs": rows}


def records_of(feed: Path, dataset: str, version: int, collection: str, after: str) -> dict[str, Any]:
    """A page of a version's records in the order of their keys."""
    with Publisher.open(feed).reading(dataset) as state:
        known = [row.version for row in state.version_rows()]
        oldest = max(known[0], int(state.meta("journal_from") or 1)) if known else 0
        if not known or not oldest <= version <= state.live:
            raise RequestError(404, f"version {version}: versions {oldest} to {state.live} are remembered")
        items: list[dict[str, Any]] = []
        last = after
        for looked, key in enumerate(history.keys_at(state, collection, version, after)):
            if len(items) == PAGE or looked == LOOKED_AT:
                return {"items": items, "next": last}
            last = key
            value = shown(state, (collection, key), history.at_version(state, collection, key, version))
            if value is not None:
                items.append({"key": key, "value": value})
    return {"items": items, "next": None}


def shown(state: State, place: history.Place, item: history.Old) -> str | None:
    """A record's value as JSON, cut where it is long; None where it was not there, and where it is taken down now."""
    now, found = state.record(*place), history.visible(item)
    if found is None or (now is not None and now[0] == HIDDEN):
        return None
    text = json.dumps(cbor2.loads(found), ensure_ascii=False, indent=1)
    return text if len(text) <= VALUE_CHARACTERS else text[:VALUE_CHARACTERS] + " …"
