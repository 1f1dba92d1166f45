"""Snapshots: a slice's whole content in parts.

Parts keep their borders from one snapshot to the next, so that a part in which nothing changed is the same blob again
and costs neither coding nor fetching.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from edged.errors import EdgedError, OriginError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.feed.chain import SnapshotRef
from edged.feed.coding.snapshot import (
    PART_CONTENT_BYTES,
    decode_part,
    encode_snapshot,
    pack_dictionary,
    train_dictionary,
)
from edged.feed.digest import EMPTY_DIGEST
from edged.origin.blobs.hops import StoreBlob
from edged.origin.state import SliceState, State

HOP_SHARE = 0.25  # a new snapshot once the hops since the last one weigh this share of it
GROWTH = 4  # the dictionary is trained anew once the slice has grown by this factor
SCAN_SHARE = 0.2  # a slice of more than this share of the largest one is read by going through all records

Record = tuple[str, str, bytes]
Border = tuple[str, str]  # the first record of a part


@dataclass(frozen=True, slots=True)
class Part:
    first: Border
    content_bytes: int
    blob: BlobRef


def border_key(border: Border) -> tuple[bytes, bytes]:
    return border[0].encode(), border[1].encode()


def slice_records(state: State, name: str, low: Border | None = None, high: Border | None = None) -> Iterator[Record]:
    """The records of a slice in order, from `low` on and before `high`."""
    memberships = state.memberships_with(name)
    marks = ",".join("?" * len(memberships))
    bounds, values = "", list[object](memberships)
    if low is not None:
        bounds += " AND (collection, key) >= (?, ?)"
        values += low
    if high is not None:
        bounds += " AND (collection, key) < (?, ?)"
        values += high
    how = "NOT INDEXED"
    if state.indexed():
        largest = next(state.rows("SELECT ifnull(max(records), 0) FROM slices"))[0]
        if state.slice_state(name).records < largest * SCAN_SHARE:
            how = "INDEXED BY records_by_membership"
    query = f"SELECT collection, key, value FROM records {how} WHERE membership IN ({marks}){bounds}"  # noqa: S608
    return state.rows(f"{query} ORDER BY collection, key", values)


class SnapshotMaker:
    """Makes snapshots of slices at their newest version."""

    def __init__(self, state: State, store: StoreBlob, now: int, advance: Callable[[int], None]) -> None:
        self.state, self.store, self.now, self.advance = state, store, now, advance

    def make(self, name: str) -> None:
        """Write the parts and record the snapshot. Raises OriginError if a part does not decode to its records."""
        item = self.state.slice_state(name)
        last = newest_snapshot(self.state, name)
        blob_name, dictionary = self.dictionary(name, item)
        kept: list[Part] = []
        if last is not None and last[1] == blob_name and last[0] >= (self.state.meta("journal_from") or 1):
            kept = parts_of(self.state, name, last[0])
        parts = list(self.parts(name, kept, self.changed_since(name, last[0] if kept and last else 0), dictionary))
        self.state.run("INSERT INTO snapshots VALUES(?,?,?,?)", (name, item.version, self.now, blob_name))
        self.state.run_many(
            "INSERT INTO parts VALUES(?,?,?,?,?,?,?,?)",
            [
                (name, item.version, place, *part.first, part.blob.size, part.blob.sha256, part.content_bytes)
                for place, part in enumerate(parts)
            ],
        )

    def dictionary(self, name: str, item: SliceState) -> tuple[bytes | None, bytes]:
        """The blob's name and the content of the dictionary to use: the last one, unless the slice outgrew it."""
        held = dictionary_of(self.state, name)
        if held[0] is not None:
            trained = next(self.state.rows("SELECT trained_bytes FROM dictionaries WHERE sha256 = ?", (held[0],)))[0]
            if item.content_bytes < GROWTH * trained:
                return held
        content = train_dictionary(slice_records(self.state, name))
        if not content:
            return None, b""
        ref = self.store("dictionary", pack_dictionary(content))
        self.state.run(
            "INSERT OR IGNORE INTO dictionaries VALUES(?,?,?,?)", (ref.sha256, ref.size, content, item.content_bytes)
        )
        return ref.sha256, content

    def changed_since(self, name: str, version: int) -> list[tuple[bytes, bytes]]:
        """Where the slice may have changed after `version`, in order."""
        rows = self.state.rows(
            "SELECT DISTINCT collection, key FROM journal WHERE version IN"
            " (SELECT version FROM slices WHERE slice = ? AND version > ?)",
            (name, version),
        )
        return sorted(border_key(row) for row in rows)

    def parts(
        self, name: str, kept: list[Part], changed: list[tuple[bytes, bytes]], dictionary: bytes
    ) -> Iterator[Part]:
        if not kept:
            yield from self.code(slice_records(self.state, name), dictionary)
            return
        starts = [border_key(part.first) for part in kept]
        touched = {max(bisect_right(starts, place) - 1, 0) for place in changed}
        for number, part in enumerate(kept):
            if number not in touched:
                yield part
                continue
            low = None if number == 0 else part.first
            high = None if number + 1 == len(kept) else kept[number + 1].first
            yield from self.code(slice_records(self.state, name, low, high), dictionary)

    def code(self, records: Iterable[Record], dictionary: bytes) -> Iterator[Part]:
        """Parts as large as they may be, a part in memory at a time."""
        batch: list[Record] = []
        size = 0
        for record in records:
            weight = len(record[1]) + len(record[2])
            if size + weight > PART_CONTENT_BYTES:
                yield from self.code_batch(batch, dictionary)
                batch, size = [], 0
            batch.append(record)
            size += weight
        yield from self.code_batch(batch, dictionary)

    def code_batch(self, batch: list[Record], dictionary: bytes) -> Iterator[Part]:
        if not batch:
            return
        at = 0
        for data in encode_snapshot(batch, dictionary):
            try:
                decoded = list(decode_part(data, dictionary, max_bytes=limits.PART_BYTES))
            except EdgedError as fault:
                raise OriginError(f"prove snapshot part: {fault}; nothing was published; report this fault") from fault
            mine = batch[at : at + len(decoded)]
            if decoded != mine or not mine:
                raise OriginError(
                    "prove snapshot part: it holds other records; nothing was published; report this fault"
                )
            at += len(mine)
            content = sum(len(key) + len(value) for _, key, value in mine)
            yield Part(mine[0][:2], content, self.store("part", data))
            self.advance(len(mine))
        if at != len(batch):
            raise OriginError("prove snapshot parts: records are missing; nothing was published; report this fault")


def newest_snapshot(state: State, name: str) -> tuple[int, bytes | None] | None:
    """(version, dictionary blob) of the slice's newest snapshot."""
    query = "SELECT version, dictionary FROM snapshots WHERE slice = ? ORDER BY version DESC LIMIT 1"
    return next(state.rows(query, (name,)), None)


def dictionary_of(state: State, name: str) -> tuple[bytes | None, bytes]:
    """The blob's name and the content of the dictionary that the slice's hops are coded with now."""
    last = newest_snapshot(state, name)
    if last is None or last[1] is None:
        return None, b""
    return last[1], next(state.rows("SELECT content FROM dictionaries WHERE sha256 = ?", (last[1],)))[0]


def parts_of(state: State, name: str, version: int) -> list[Part]:
    rows = state.rows(
        "SELECT collection, key, content_bytes, size, sha256 FROM parts WHERE slice = ? AND version = ? ORDER BY place",
        (name, version),
    )
    return [Part((row[0], row[1]), row[2], BlobRef(row[4], row[3])) for row in rows]


def snapshot_bytes(state: State, name: str, version: int) -> int:
    """What a device fetches for it, dictionary included."""
    row = next(
        state.rows(
            "SELECT (SELECT ifnull(sum(size), 0) FROM parts WHERE slice = s.slice AND version = s.version)"
            " + ifnull((SELECT size FROM dictionaries WHERE sha256 = s.dictionary), 0)"
            " FROM snapshots AS s WHERE slice = ? AND version = ?",
            (name, version),
        ),
        (0,),
    )
    return int(row[0])


def snapshot_ref(state: State, name: str, version: int, dictionary: bytes | None) -> SnapshotRef:
    """The snapshot as the chain lists it."""
    item = state.slice_state(name, at=version)
    ref = None
    if dictionary is not None:
        ref = BlobRef(dictionary, next(state.rows("SELECT size FROM dictionaries WHERE sha256 = ?", (dictionary,)))[0])
    parts = tuple(part.blob for part in parts_of(state, name, version))
    return SnapshotRef(version, item.digest if version else EMPTY_DIGEST, item.records, ref, parts)


def is_due(state: State, name: str, versions: int) -> bool:
    """Whether the slice needs a new snapshot: none yet, hops weigh too much, or retention would cut the way to it."""
    item = state.slice_state(name)
    last = newest_snapshot(state, name)
    if last is None:
        return item.version > 0
    if last[0] == item.version:
        return False
    since = state.slice_state(name, at=last[0])
    weight = next(
        state.rows(
            "SELECT ifnull(sum(size), 0), count(*) FROM hops AS h WHERE slice = ? AND to_version > ? AND from_version ="
            " (SELECT max(version) FROM slices WHERE slice = h.slice AND version < h.to_version)",
            (name, last[0]),
        )
    )
    steps = item.counter - since.counter
    if weight[1] < steps:
        return True  # a version in between has no hop, so only a snapshot leads past it
    return bool(weight[0] > HOP_SHARE * snapshot_bytes(state, name, last[0]) or steps * 2 > versions)
