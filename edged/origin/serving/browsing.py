"""What the origin's dashboard shows of a feed's history: versions, what differs between two, records of one. Blocks."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import cbor2

from edged.errors import RequestError
from edged.origin import history
from edged.origin.publisher import Publisher
from edged.origin.state import HIDDEN, State

PAGE = 50
VERSIONS = 500  # the newest that are listed
VALUE_CHARACTERS = 20_000
COSTS = 100
SPAN = 200  # versions over which bytes are apportioned to fields: it reads what each of them changed


def log_of(feed: Path, dataset: str) -> dict[str, Any]:
    """The document of `origin log --json`, of the newest versions. Raises EdgedError."""
    with Publisher.open(feed).reading(dataset) as state:
        found = history.versions(state)
    return {"dataset": dataset, "versions": found[-VERSIONS:], "left_out": max(0, len(found) - VERSIONS)}


def diff_of(feed: Path, dataset: str, low: int, high: int, after: int) -> dict[str, Any]:
    """Records that differ, from the one with number `after` on, with their values, and where the next page begins."""
    with Publisher.open(feed).reading(dataset) as state:
        history.check_span(state, low, high)
        found = list(islice(history.changes(state, low, high), after, after + PAGE + 1))
        items = [
            {
                "collection": change.collection,
                "key": change.key,
                "change": change.change,
                "fields": change.fields,
                "before": value_at(state, change.collection, change.key, low),
                "after": value_at(state, change.collection, change.key, high),
            }
            for change in found[:PAGE]
        ]
    return {"items": items, "next": after + PAGE if len(found) > PAGE else None}


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
        following = None
        for key in keys_after(state, collection, after):
            value = value_at(state, collection, key, version)
            if value is None:
                continue
            if len(items) == PAGE:
                following = items[-1]["key"]
                break
            items.append({"key": key, "value": value})
    return {"items": items, "next": following}


def keys_after(state: State, collection: str, after: str) -> Any:
    """Keys of records as they are, and of those that were changed or removed since."""
    rows = state.rows(
        "SELECT key FROM records WHERE collection = ?1 AND key > ?2"
        " UNION SELECT key FROM journal WHERE collection = ?1 AND key > ?2 ORDER BY key",
        (collection, after),
    )
    return (row[0] for row in rows)


def value_at(state: State, collection: str, key: str, version: int) -> str | None:
    """A record's value as JSON, cut where it is long; None where it was not there, and where it is taken down now."""
    now = state.record(collection, key)
    if now is not None and now[0] == HIDDEN:
        return None
    found = history.visible(history.at_version(state, collection, key, version))
    if found is None:
        return None
    text = json.dumps(cbor2.loads(found), ensure_ascii=False, indent=1)
    return text if len(text) <= VALUE_CHARACTERS else text[:VALUE_CHARACTERS] + " …"
