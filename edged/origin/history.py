"""`origin log`: what each version changed, and which fields of which collections the bytes went to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import merge
from itertools import groupby
from typing import Any, TypeVar

import cbor2

from edged.errors import OriginError
from edged.feed import cbor, zstd
from edged.origin.results import slice_result
from edged.origin.state import HIDDEN, State

Old = tuple[int | None, bytes | None]  # membership, value
Place = tuple[str, str]  # collection, key
T = TypeVar("T", bound=tuple[str, ...])
ABSENT = object()
WEIGHED = zstd.FrameForm(level=3, magicless=True)
WHOLE = "(record)"  # where a record came or went as a whole
KEYS = "(keys)"


@dataclass(slots=True)
class FieldCost:
    """bytes: of the hops of all slices between the versions, apportioned; changes: how often the field changed."""

    collection: str
    field: str
    changes: int = 0
    bytes: float = 0.0


@dataclass(slots=True)
class RecordChange:
    """change: added, changed, or removed, from the first version to the last. fields: top-level names that differ."""

    collection: str
    key: str
    change: str
    fields: list[str] = field(default_factory=list)


def instant(seconds: int) -> str:
    """RFC 3339, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def versions(state: State) -> list[dict[str, Any]]:
    """The versions that are remembered, oldest first, as the contract has them."""
    return [
        {
            "version": row.version,
            "time": instant(row.time),
            "kind": row.kind,
            "message": row.message,
            "added": row.added,
            "changed": row.changed,
            "removed": row.removed,
            "collections": row.counts,
            "slices": {name: slice_entry(state, name, row.version) for name in row.declared},
        }
        for row in state.version_rows()
        if row.version <= state.live
    ]


def slice_entry(state: State, name: str, version: int) -> dict[str, Any]:
    item = slice_result(state, name, version)
    hop_bytes = 0 if item.version != version else item.hop_bytes  # a slice that did not change needs no hop
    return {
        "version": item.version,
        "records": item.records,
        "hop_bytes": hop_bytes,
        "snapshot_bytes": item.snapshot_bytes,
        "snapshot_version": item.snapshot_version,
    }


def check_span(state: State, low: int, high: int) -> None:
    """Raises OriginError unless both versions are remembered, in order."""
    known = [row.version for row in state.version_rows() if row.version <= state.live]
    oldest = max(known[0], int(state.meta("journal_from") or 1)) if known else 0
    if not known or not oldest <= low < high <= state.live:
        raise OriginError(
            f"compare versions {low} and {high} of dataset {state.dataset}: versions {oldest} to {state.live} are "
            "remembered; name an earlier and a later one of them"
        )


def changes(state: State, low: int, high: int) -> Iterator[RecordChange]:
    """What visibly differs between two versions, in order."""
    before, after = contents(state, low), contents(state, high)
    for place in sorted(before):
        found = change_of(place, before[place], after[place] if place in after else held(state, place))
        if found is not None:
            yield found


def change_of(place: Place, before: Old, after: Old) -> RecordChange | None:
    """None where nothing visibly differs."""
    old, new = visible(before), visible(after)
    if old is None:
        return None if new is None else RecordChange(*place, "added")
    if new is None:
        return RecordChange(*place, "removed")
    if old == new:
        return None
    return RecordChange(*place, "changed", [name for name, _, _ in differing_fields(old, new)])


def changed_places(state: State, low: int, high: int, after: Place) -> Iterator[Place]:
    """Collection and key of what versions above `low`, up to `high`, have touched, in order, from behind `after` on: by
    a look into each version's journal, whose rows lie in that order, so that the first ones come at once."""
    query = (
        "SELECT collection, key FROM journal WHERE version = ? AND (collection, key) > (?, ?) ORDER BY collection, key"
    )
    yield from merged(state.rows(query, (version, *after)) for version in journalled(state, low, high))


def keys_at(state: State, collection: str, version: int, after: str) -> Iterator[str]:
    """Keys behind `after` of records that are there now or have been touched since `version`, in order."""
    now = state.rows("SELECT key FROM records WHERE collection = ? AND key > ? ORDER BY key", (collection, after))
    query = "SELECT key FROM journal WHERE version = ? AND collection = ? AND key > ? ORDER BY key"
    later = journalled(state, version, state.newest())
    for (key,) in merged([now, *(state.rows(query, (number, collection, after)) for number in later)]):
        yield key


def journalled(state: State, low: int, high: int) -> list[int]:
    """The versions above `low`, up to `high`."""
    found = state.rows("SELECT version FROM versions WHERE version > ? AND version <= ? ORDER BY version", (low, high))
    return [row[0] for row in found]


def merged(sorted_rows: Iterable[Iterator[T]]) -> Iterator[T]:
    """Each row once, in order; no more of them is read than is asked for."""
    for row, _ in groupby(merge(*sorted_rows)):
        yield row


def held(state: State, place: Place) -> Old:
    return state.record(*place) or (None, None)


def contents(state: State, version: int) -> dict[tuple[str, str], Old]:
    """What the records that changed after `version` were at it."""
    rows = state.rows(
        "SELECT collection, key, membership, value, min(version) FROM journal WHERE version > ?"
        " GROUP BY collection, key",
        (version,),
    )
    return {(row[0], row[1]): (row[2], row[3]) for row in rows}


def visible(item: Old) -> bytes | None:
    return None if item[0] in (None, HIDDEN) else item[1]


def differing_fields(old: bytes, new: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """(name, old coding, new coding) of the top-level fields that differ; one `(record)` where a value is no object."""
    before, after = cbor2.loads(old), cbor2.loads(new)
    if not isinstance(before, dict) or not isinstance(after, dict):
        yield WHOLE, old, new
        return
    for name in sorted({*before, *after}):
        one, other = before.get(name, ABSENT), after.get(name, ABSENT)
        coded = [b"" if item is ABSENT else cbor.encode(item) for item in (one, other)]
        if coded[0] != coded[1]:
            yield name, coded[0], coded[1]


def costs(state: State, low: int, high: int) -> list[FieldCost]:
    """The hop bytes from `low` to `high`, version by version, apportioned to fields; dearest first.

    A field's share of a version's hops is what its new values take compressed against its old ones; the record's key
    counts apart. Versions without a hop (a snapshot was cheaper) count nothing.
    """
    found: dict[tuple[str, str], FieldCost] = {}
    for version in range(low + 1, high + 1):
        weights: dict[tuple[str, str], tuple[int, float]] = {}
        for collection, name, weight in weighed(state, version):
            count, sum_ = weights.get((collection, name), (0, 0.0))
            weights[collection, name] = count + 1, sum_ + weight
        total = sum(sum_ for _, sum_ in weights.values())
        spent = next(
            state.rows(
                "SELECT ifnull(sum(size), 0) FROM hops AS h WHERE to_version = ? AND from_version ="
                " (SELECT max(version) FROM slices WHERE slice = h.slice AND version < h.to_version)",
                (version,),
            )
        )[0]
        for place, (count, sum_) in weights.items():
            entry = found.setdefault(place, FieldCost(*place))
            entry.changes += count
            entry.bytes += spent * sum_ / total if total else 0.0
    return sorted(found.values(), key=lambda entry: (-entry.bytes, entry.collection, entry.field))


def weighed(state: State, version: int) -> Iterator[tuple[str, str, float]]:
    """(collection, field, weight) of every change that `version` made."""
    rows = list(state.rows("SELECT collection, key, membership, value FROM journal WHERE version = ?", (version,)))
    for collection, key, membership, value in rows:
        old = visible((membership, value))
        new = visible(at_version(state, collection, key, version))
        if old == new:
            continue
        yield collection, KEYS, 1.0 + len(key) / 4
        if new is None:
            continue
        if old is None:
            yield collection, WHOLE, float(len(compressed(new, b"")))
            continue
        for name, before, after in differing_fields(old, new):
            yield collection, name, 1.0 + len(compressed(after, before))


def at_version(state: State, collection: str, key: str, version: int) -> Old:
    """A record as `version` left it: by a look into each later version's journal, instead of through all of it."""
    later = next(
        state.rows(
            "SELECT j.membership, j.value FROM versions AS v CROSS JOIN journal AS j"
            " ON j.version = v.version AND j.collection = ? AND j.key = ?"
            " WHERE v.version > ? ORDER BY v.version LIMIT 1",
            (collection, key, version),
        ),
        None,
    )
    return later or held(state, (collection, key))


def compressed(data: bytes, context: bytes) -> bytes:
    if len(data) < 16:
        return data
    dictionary = zstd.prepare(context, raw=True) if context else None
    return zstd.compressor(WEIGHED, dictionary, len(data)).compress(data)[1:]
