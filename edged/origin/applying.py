"""Applies changes to the state: records, journal and, for every slice that they touch, its digest and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from edged.feed.digest import SetHash
from edged.origin.state import HIDDEN, SliceVersion, State

BATCH = 512
Row = tuple[str, str, int | None, bytes | None]  # collection, key, membership (None: no such record), value


@dataclass(slots=True)
class SliceTally:
    """A slice while changes are applied to it."""

    hash: SetHash
    counter: int
    records: int
    content_bytes: int
    touched: bool = False


@dataclass(slots=True)
class Applied:
    """What was done. counts: visible records by collection after it; before: the same before it."""

    counts: dict[str, int]
    before: dict[str, int]
    added: int = 0
    changed: int = 0
    removed: int = 0
    by_collection: dict[str, int] = field(default_factory=dict)
    removed_by: dict[str, int] = field(default_factory=dict)  # collection to records removed
    touched: dict[str, SliceVersion] = field(default_factory=dict)  # slice to its state before
    rows: int = 0


class Applier:
    """Applies the changes of one version. `watch` sees every visible change: (collection, key, old, new value)."""

    def __init__(
        self,
        state: State,
        version: int,
        counts: dict[str, int],
        watch: Callable[[str, str, bytes | None, bytes | None], None],
    ) -> None:
        self.state, self.version, self.watch = state, version, watch
        self.first = state.live == 0  # there is nothing before the first version that could be gone back to
        self.done = Applied(dict(counts), dict(counts))
        self.tallies: dict[str, SliceTally] = {}

    def apply(self, rows: Iterable[Row], advance: Callable[[int], None]) -> None:
        """Bring each row's record into that state. Rows that change nothing are passed over."""
        iterator: Iterator[Row] = iter(rows)
        while batch := list(islice(iterator, BATCH)):
            journal, puts, deletes = [], [], []
            for collection, key, membership, value in batch:
                found = None if self.first else self.state.record(collection, key)
                old_membership, old_value = found or (None, None)
                if (old_membership, old_value) == (membership, value):
                    continue
                journal.append((self.version, collection, key, old_membership, old_value))
                if membership is None:
                    deletes.append((collection, key))
                else:
                    puts.append((collection, key, membership, value))
                self.move(collection, key, old_membership, old_value, membership, value)
            if not self.first:
                self.state.run_many("INSERT INTO journal VALUES(?,?,?,?,?)", journal)
            self.state.run_many("DELETE FROM records WHERE collection = ? AND key = ?", deletes)
            self.state.run_many("INSERT OR REPLACE INTO records VALUES(?,?,?,?)", puts)
            self.done.rows += len(journal)
            advance(len(batch))

    def move(
        self,
        collection: str,
        key: str,
        old_membership: int | None,
        old_value: bytes | None,
        membership: int | None,
        value: bytes | None,
    ) -> None:
        """Count one change and carry it into the digests of the slices that it leaves and enters."""
        old_slices, new_slices = self.state.slices_in(old_membership), self.state.slices_in(membership)
        before = old_value if old_membership not in (None, HIDDEN) else None
        after = value if membership not in (None, HIDDEN) else None
        if before != after:
            self.count(collection, before, after)
            self.watch(collection, key, before, after)
        size = len(collection.encode()) + len(key.encode())
        for name in old_slices:
            if before is not None and (before != after or name not in new_slices):
                item = self.slice(name)
                item.hash.remove(collection, key, before)
                item.records -= 1
                item.content_bytes -= size + len(before)
        for name in new_slices:
            if after is not None and (before != after or name not in old_slices):
                item = self.slice(name)
                item.hash.add(collection, key, after)
                item.records += 1
                item.content_bytes += size + len(after)

    def count(self, collection: str, before: bytes | None, after: bytes | None) -> None:
        done = self.done
        done.added += before is None
        done.removed += after is None
        done.changed += before is not None and after is not None
        if after is None:
            done.removed_by[collection] = done.removed_by.get(collection, 0) + 1
        done.by_collection[collection] = done.by_collection.get(collection, 0) + 1
        total = done.counts.get(collection, 0) + (before is None) - (after is None)
        if total:
            done.counts[collection] = total
        else:
            done.counts.pop(collection, None)

    def slice(self, name: str) -> SliceTally:
        found = self.tallies.get(name)
        if found is None:
            old = self.state.slice_at(name)
            found = SliceTally(SetHash(old.state), old.counter, old.records, old.content_bytes)
            self.tallies[name] = found
            self.done.touched[name] = old
        return found

    def finish(self) -> Applied:
        """Record the new state of every slice whose content changed."""
        for name, item in self.tallies.items():
            state = SliceVersion(
                self.version, item.counter + 1, item.records, item.content_bytes, item.hash.digest(), item.hash.state()
            )
            self.state.add_slice_version(name, state)
        return self.done
