"""Compaction: keeps the packs of a slice few, writing as little as it can.

Two steps. `merge_upper` turns the fresh packs and the middle pack into one new middle pack; values stay where they
are, and the new pack points to them, unless they lie in small commit files, which would have to be kept for them.
`merge_base` writes everything into base packs when what the upper layers take on disk has reached the size of the
base; a base pack in whose range nothing has changed is kept as it is.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from edged.feed.schema import Schema
from edged.replica.files.disk import pages
from edged.replica.files.manifest import Manifest, PackRef, SliceState, file_name
from edged.replica.layers.pool import Pool
from edged.replica.packs.frames import Frames
from edged.replica.packs.pack import REMOTE_BIT, Pack
from edged.replica.packs.packbuilder import PackBuilder
from edged.replica.writing.live import Live
from edged.replica.writing.newfiles import NewFiles, lacks_indexes

ENTRY_BYTES = 60  # of a pointing entry in a middle pack: key, pointer, offset, hash, version


@dataclass(frozen=True, slots=True)
class MergePolicy:
    """When to merge. fresh_*: more than that many fresh packs or entries go into the middle pack;

    tiny_*: where the fresh packs are small, merge earlier, so that hop, manifest and its references fit in one page;
    base_share: the upper layers' bytes, as a share of the base's, from which the base is written anew; removed_share:
    of its entries, removed by the upper layers, likewise: in a window that rolls nothing grows over them; keep_bytes: a
    file with at least that many is kept for the values in it; pack_bytes: about the size of a base pack;
    least_bytes: upper layers below that never make a base merge due; always_packs: fresh packs from which a merge is
    done whatever the budget says; history: the share of a slice's records whose changes `changes` can still tell.
    """

    fresh_packs: int = 128
    tiny_packs: int = 64
    tiny_bytes: int = 64 << 10
    fresh_entries: int = 32768
    base_share: float = 1.5
    removed_share: float = 0.2
    keep_bytes: int = 32 << 10
    pack_bytes: int = 8 << 20
    least_bytes: int = 256 << 10
    always_packs: int = 1024
    history: float = 0.25


def upper_bytes(state: SliceState, pool: Pool) -> int:
    """What the layers above the base take on disk: their packs and the files that they point into."""
    named = {ref.number: ref.size for ref in (*state.middle, *state.fresh)}
    named.update((number, len(pool.map(file_name(number)))) for number in state.remotes)
    return sum(named.values())


def base_bytes(state: SliceState) -> int:
    return sum(ref.size for ref in state.base)


def removed_share(state: SliceState, pool: Pool) -> float:
    """The tombstones of the upper layers, as a share of the base's entries."""
    held = sum(len(pool.pack(ref)) for ref in state.base)
    removed = sum(pool.pack(ref).meta.spans_deleted() for ref in (*state.middle, *state.fresh))
    return removed / held if held else 0.0


def due(state: SliceState, pool: Pool, policy: MergePolicy) -> tuple[str, int]:
    """("base", "upper" or "", bytes that the step will write, about)."""
    entries = sum(len(pool.pack(ref)) for ref in state.fresh)
    above, below = upper_bytes(state, pool), base_bytes(state)
    if above >= policy.least_bytes and (
        above >= policy.base_share * below or removed_share(state, pool) >= policy.removed_share
    ):
        return "base", above + below
    tiny = len(state.fresh) > policy.tiny_packs and sum(ref.size for ref in state.fresh) < policy.tiny_bytes
    if tiny or len(state.fresh) > policy.fresh_packs or entries > policy.fresh_entries or len(state.middle) > 1:
        held = entries + sum(len(pool.pack(ref)) for ref in state.middle)
        return "upper", held * ENTRY_BYTES + sum(ref.size for ref in state.fresh if ref.size < policy.keep_bytes)
    return "", 0


def compact(live: Live, budget: int | None, policy: MergePolicy) -> int:
    """Take the steps that are due and that `budget` bytes allow (None: all). Returns the bytes written."""
    start = live.flash_bytes_written
    if live.settings() is None:  # the schema is unknown until the next commit brings it again
        return 0
    for name in sorted(live.manifest.slices):
        if live.damage_of(name) is not None:
            continue
        if name not in live.mended:
            mend(live, name, policy)
        for _ in range(2):  # after the upper layers have become one pack, the base may be due
            state = live.manifest.slices[name]
            step, cost = due(state, live.pool, policy)
            urgent = len(state.fresh) > policy.always_packs
            spent = live.flash_bytes_written - start
            if not step or (budget is not None and pages(cost) > budget - spent and not urgent):
                break
            Merge(live, name, policy).run(step)
            if step == "base":  # as large as all that is held: it is not kept twice for the version before
                live.swap(live.manifest, b"", NewFiles(live, live.pool).commit_file)
    return live.flash_bytes_written - start


def mend(live: Live, name: str, policy: MergePolicy) -> None:
    """Make missing and damaged index files anew, once in a writer's life."""
    merge = Merge(live, name, policy)
    if lacks_indexes(merge.state, merge.pool, merge.schema):
        merge.run("index")
    live.mended.add(name)


class Merge:
    """One step for one slice: new packs, and a manifest of the same version that names them."""

    def __init__(self, live: Live, name: str, policy: MergePolicy) -> None:
        self.live = live
        self.name = name
        self.policy = policy
        self.manifest: Manifest = live.manifest
        self.state = self.manifest.slices[name]
        self.layers = live.layers(name)
        self.dictionary = self.state.dictionaries[-1] if self.state.dictionaries else b""
        self.dictionaries = self.state.dictionaries
        self.frames: Frames = live.pool.frames_of(self.dictionary)
        self.refs: list[PackRef] = []
        self.pool = live.pool
        self.files = NewFiles(live, self.pool)
        settings = live.settings()
        self.schema = settings.schema if settings is not None else Schema()

    def use_dictionaries(self, kept: tuple[bytes, ...], newest: bytes) -> None:
        """Have `merge_base` keep only these of the slice's dictionaries, and a new one unless it is empty."""
        if newest:
            sha256 = hashlib.sha256(newest).digest()
            self.files.write_dictionary(sha256, newest)
            kept = (*kept, sha256)
        self.dictionary = kept[-1] if kept else b""
        self.frames = self.pool.frames_of(self.dictionary)
        self.dictionaries = kept

    def run(self, step: str) -> None:
        """Raises StoreError (a full disk, say) or DamageError; the live version is then as it was."""
        try:
            state = {"base": self.merge_base, "upper": self.merge_upper, "index": self.as_it_is}[step]()
            state = self.files.with_indexes(state, self.schema)
            slices = {**self.manifest.slices, self.name: state}
            manifest = self.manifest._replace(slices=slices, next_file=self.files.next_number)
            self.live.swap(manifest, b"", self.files.commit_file, self.files.names)
        except BaseException:
            self.files.take_back()
            self.pool.keep(self.live.manifest)  # the numbers of the files just removed will be used again
            raise

    def collections(self) -> list[str]:
        return sorted(self.layers.collections())

    def write(self, builder: PackBuilder, *, upper: bool = False) -> None:
        self.refs.append(self.files.write_pack(builder.finish(upper=upper)))
        self.pool.relax()

    def as_it_is(self) -> SliceState:
        return self.state

    def merge_upper(self) -> SliceState:
        """Fresh and middle packs into one middle pack that points to the values."""
        builder = PackBuilder(self.name, self.dictionary)
        for collection in self.collections():
            for key, _, pack, place in self.layers.newest(collection, base=False):
                self.carry(builder, collection, key.encode(), pack, place)
        self.write(builder, upper=True)
        remotes = tuple(sorted({number for number, _ in builder.remotes}))
        return self.state._replace(middle=tuple(self.refs), fresh=(), remotes=remotes)

    def carry(self, builder: PackBuilder, collection: str, key: bytes, pack: Pack, place: int) -> None:
        """Take an entry over, as a pointer where its value lies in a file worth keeping."""
        frame, version = pack.frame(place), pack.version(place)
        if frame and frame[0] & REMOTE_BIT:
            number, dictionary, start, end = pack.pointer(frame)
            builder.add_remote(collection, key, (number, start, end), dictionary, version)
        elif frame and pack.size >= self.policy.keep_bytes:
            _, start, end = pack.entry(place)
            builder.add_remote(collection, key, (pack.number, start, end), pack.meta.dictionary, version)
        else:
            builder.add(collection, key, self.own_frame(pack, frame), version)

    def own_frame(self, pack: Pack, frame: bytes) -> bytes:
        """The frame, compressed anew if it was made with another dictionary."""
        if not frame or pack.meta.dictionary == self.dictionary:
            return frame
        return self.frames.compress(pack.decode(frame))

    def merge_base(self) -> SliceState:
        """Everything into base packs."""
        floor = self.new_floor()
        keep = self.untouched()
        builder = PackBuilder(self.name, self.dictionary)
        for collection in self.collections():
            for key, _, pack, place in self.layers.newest(collection):
                if pack.number in keep and not pack.at:
                    if len(builder):
                        self.write(builder)
                        builder = PackBuilder(self.name, self.dictionary)
                    if keep[pack.number] not in self.refs:
                        self.refs.append(keep[pack.number])
                    continue
                frame, version = pack.frame(place), pack.version(place)
                if not frame and version <= floor:
                    continue
                if frame and frame[0] & REMOTE_BIT:
                    frame = self.fetch(pack, frame)
                else:
                    frame = self.own_frame(pack, frame)
                builder.add(collection, key.encode(), frame, version)
                if builder.size > self.policy.pack_bytes:
                    self.write(builder)
                    builder = PackBuilder(self.name, self.dictionary)
        if len(builder):
            self.write(builder)
        return self.state._replace(
            dictionaries=self.dictionaries, base=tuple(self.refs), middle=(), fresh=(), remotes=(), floor=floor
        )

    def fetch(self, pack: Pack, frame: bytes) -> bytes:
        """The frame that a pointing entry stands for."""
        _, dictionary, _, _ = pack.pointer(frame)
        if dictionary == self.dictionary:
            buffer, frames, start, end = pack.resolve(frame)
            frames.decompress(buffer[start:end])  # a damaged value must not be copied
            return buffer[start:end]
        return self.frames.compress(pack.decode(frame))

    def untouched(self) -> dict[int, PackRef]:
        """Base packs of one collection in whose range of keys no upper entry lies, by file number."""
        found: dict[int, PackRef] = {}
        for ref, pack in zip(self.state.base, self.layers.base, strict=True):
            if len(pack.meta.spans) == 1 and pack.meta.dictionary == self.dictionary and few_deleted(pack):
                name = next(iter(pack.meta.spans))
                low, high = pack.key(0).decode(), pack.key(len(pack) - 1).decode()
                upper = next(iter(self.layers.merged(name, low, base=False)), None)
                if upper is None or upper[0] > high:
                    found[ref.number] = ref
        return found

    def new_floor(self) -> int:
        """The version from which on `changes` is to be answered: history enough, but not for ever."""
        most = max(1024, int(self.state.records * self.policy.history))
        newest = heapq.nlargest(most + 1, self.versions())
        return max(self.state.floor, newest[-1]) if len(newest) > most else self.state.floor

    def versions(self) -> Iterator[int]:
        for _, _, version, _, _ in self.layers.changed_since(self.state.floor):
            yield version


def few_deleted(pack: Pack) -> bool:
    """Whether the tombstones in a pack are not worth writing it anew."""
    return 8 * pack.meta.spans_deleted() <= len(pack)
