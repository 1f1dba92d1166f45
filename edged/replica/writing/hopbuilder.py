"""Turns the changes of one hop into packs, and the state of their slice into that after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edged.feed.ahead.laidhop import ADDED, CHANGED, Laid
from edged.feed.coding.changes import Change, sort_key
from edged.feed.digest import SetHash
from edged.replica.files.manifest import SliceState
from edged.replica.layers.layers import Layers
from edged.replica.packs.frames import HOP_LEVEL, MASS_LEVEL, Frames
from edged.replica.packs.packbuilder import PackBuilder

PACK_BYTES = 8 << 20  # about the largest pack that is built
RELAX_RECORDS = 512  # each reads a page or more of a mapped file
CAREFUL_RECORDS = 2048  # hops up to here are compressed at the higher level


class HopBuilder:
    """builders: the packs so far, in key order; touched: the (collection, key) that have come or gone."""

    def __init__(self, slice_name: str, before: SliceState, version: int, sha256: bytes, frames: Frames) -> None:
        """before: the slice's state; version: to which the hop leads; sha256: of the dictionary of `frames`."""
        self.slice_name, self.before, self.version, self.sha256, self.frames = (
            slice_name, before, version, sha256, frames,
        )  # fmt: skip
        self.total = SetHash(before.state)
        self.records = before.records
        self.counts = dict(before.counts)
        self.touched: set[tuple[str, str]] = set()
        self.builders = [PackBuilder(slice_name, sha256)]

    def apply(self, changes: Sequence[Change], old: Layers, relax: Callable[[], None]) -> None:
        """Add all changes, one at most a record. relax: called now and then, to give back memory of mapped files."""
        level = HOP_LEVEL if len(changes) <= CAREFUL_RECORDS else MASS_LEVEL
        for number, change in enumerate(sorted(changes, key=sort_key), 1):
            if not number % RELAX_RECORDS:
                relax()
            self.add(change, old.get(change.collection, change.key), level)

    def add(self, change: Change, old: bytes | None, level: int) -> None:
        if old == change.value:
            return
        name = (change.collection, change.key)
        step = (change.value is not None) - (old is not None)
        if step:
            self.touched.add(name)
        if old is not None:
            self.total.remove(*name, old)
        if change.value is not None:
            self.total.add(*name, change.value)
        self.records += step
        self.counts[change.collection] = self.counts.get(change.collection, 0) + step
        frame = b"" if change.value is None else self.frames.compress(change.value, level)
        self.put(change.collection, change.key, frame)

    def lay(self, laid: Laid, total: SetHash) -> None:
        """Add what a laid hop holds, as it says. total: the slice's sum after it."""
        self.total = total
        for collection, key, frame, kind in laid.changes:
            if kind != CHANGED:
                self.touched.add((collection, key))
                step = 1 if kind == ADDED else -1
                self.records += step
                self.counts[collection] = self.counts.get(collection, 0) + step
            self.put(collection, key, frame)

    def put(self, collection: str, key: str, frame: bytes) -> None:
        if self.builders[-1].size > PACK_BYTES:
            self.builders.append(PackBuilder(self.slice_name, self.sha256))
        self.builders[-1].add(collection, key.encode(), frame, self.version)

    def state(self) -> SliceState:
        """The slice's state after the hop, but for its packs."""
        counts = {name: count for name, count in self.counts.items() if count}
        return self.before._replace(version=self.version, records=self.records, state=self.total.state(), counts=counts)
