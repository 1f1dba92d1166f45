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
from edged.feed.coding.snapshot import PART_CONTENT_BYTES, decode_part, encode_snapshot
from edged.feed.digest import EMPTY_DIGEST
from edged.origin.blobs.dictionaries import (
    Record,
    StoreBlob,
    TrainedDictionary,
    dictionary_in_use,
    dictionary_ref,
    is_outgrown,
    note_training,
    train,
)
from edged.origin.blobs.hops import HopSpan, path_bytes
from edged.origin.state import State

HOP_SHARE = 0.25  # a new snapshot once the hops since the last one weigh this share of it
SCAN_SHARE = 0.2  # a slice of more than this share of the largest one is read by going through all records

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
        if state.slice_at(name).records < largest * SCAN_SHARE:
            how = "INDEXED BY records_by_membership"
    query = f"SELECT collection, key, value FROM records {how} WHERE membership IN ({marks}){bounds}"  # noqa: S608
    return state.rows(f"{query} ORDER BY collection, key", values)


@dataclass(frozen=True, slots=True)
class MadeSnapshot:
    """A slice's snapshot at `version`, whose blobs are written and of which the state does not know yet."""

    name: str
    version: int
    dictionary: TrainedDictionary
    parts: list[Part]

    def note(self, state: State, now: int) -> None:
        """Tell the state of it. now: seconds since 1970."""
        at = (self.name, self.version)
        note_training(state, self.dictionary)
        state.run("DELETE FROM parts WHERE slice = ? AND version = ?", at)
        state.run("INSERT OR REPLACE INTO snapshots VALUES(?,?,?,?)", (*at, now, self.dictionary.sha256))
        state.run_many(
            "INSERT INTO parts VALUES(?,?,?,?,?,?,?,?)",
            [
                (*at, place, *part.first, part.blob.size, part.blob.sha256, part.content_bytes)
                for place, part in enumerate(self.parts)
            ],
        )


class SnapshotMaker:
    """Makes snapshots of slices at their newest version."""

    def __init__(self, state: State, store: StoreBlob, advance: Callable[[int], None]) -> None:
        self.state, self.store, self.advance = state, store, advance

    def make(self, name: str, *, retrain: bool = False, without: frozenset[bytes] = frozenset()) -> MadeSnapshot:
        """Write the parts. retrain: the dictionary in use must not be used any more; without: SHA-256 of parts of the
        last snapshot that cannot be taken over.

        Raises OriginError if a part does not decode to its records.
        """
        item = self.state.slice_at(name)
        last, held = newest_snapshot(self.state, name), dictionary_in_use(self.state, name)
        dictionary = held
        if retrain or is_outgrown(self.state, held, item):
            dictionary = train(item, self.store, lambda: slice_records(self.state, name))
        kept: list[Part] = []
        if last is not None and held.sha256 == dictionary.sha256 and last >= (self.state.meta("journal_from") or 1):
            kept = parts_of(self.state, name, last)
        changed = self.changed_since(name, last if kept and last is not None else 0)
        changed += [border_key(part.first) for part in kept if part.blob.sha256 in without]
        return MadeSnapshot(name, item.version, dictionary, list(self.parts(name, kept, changed, dictionary.content)))

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


def newest_snapshot(state: State, name: str) -> int | None:
    """The version of the slice's newest snapshot."""
    row = next(state.rows("SELECT max(version) FROM snapshots WHERE slice = ?", (name,)))
    return None if row[0] is None else int(row[0])


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
    item = state.slice_at(name, at=version)
    ref = None if dictionary is None else dictionary_ref(state, dictionary)
    parts = tuple(part.blob for part in parts_of(state, name, version))
    return SnapshotRef(version, item.digest if version else EMPTY_DIGEST, item.records, ref, parts)


def is_cut_off(state: State, name: str) -> bool:
    """Whether a new device has no way to the slice's newest version: it cannot be published without a snapshot."""
    item = state.slice_at(name)
    last = newest_snapshot(state, name)
    if last is None or last == item.version:
        return last is None and item.version > 0
    return path_bytes(state, HopSpan(name, state.slice_at(name, at=last), item)) is None


def is_due(state: State, name: str, versions: int) -> bool:
    """Whether the slice needs a new snapshot: none yet, hops weigh too much, or retention would cut the way to it."""
    item = state.slice_at(name)
    last = newest_snapshot(state, name)
    if last is None:
        return item.version > 0
    if last == item.version:
        return False
    since = state.slice_at(name, at=last)
    weight = next(
        state.rows(
            "SELECT ifnull(sum(size), 0) FROM hops AS h WHERE slice = ? AND to_version > ? AND from_version ="
            " (SELECT max(version) FROM slices WHERE slice = h.slice AND version < h.to_version)",
            (name, last),
        )
    )[0]
    if path_bytes(state, HopSpan(name, since, item)) is None:
        return True  # no hops lead on from the last one
    steps = item.counter - since.counter
    size = snapshot_bytes(state, name, last)
    # Of a slice that has shrunk a new snapshot is smaller than the last one, which a new device has to fetch whole.
    shrunk = since.content_bytes and size * item.content_bytes / since.content_bytes
    cheaper = item.content_bytes < since.content_bytes and (1 + HOP_SHARE) * shrunk < size + weight
    return bool(weight > HOP_SHARE * size or cheaper or steps * 2 > versions)
