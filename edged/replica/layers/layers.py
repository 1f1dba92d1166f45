"""The layers of a slice: fresh packs (one an applied hop) over middle packs over base packs, newest first.

Fresh packs are small, so their keys are held in a dictionary; middle and base packs are probed in place. An entry of
an upper layer shadows those below it, and a tombstone there hides them.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from edged.feed.schema import Schema
from edged.replica.files.manifest import PackRef, SliceState
from edged.replica.layers.pool import Pool
from edged.replica.packs.pack import Pack

if TYPE_CHECKING:
    from edged.replica.indexes.freshindex import FreshIndex
    from edged.replica.indexes.index import Index
    from edged.replica.indexes.windows import FreshWindows

Place = tuple[Pack, int]
Found = tuple[str, int, Pack, int]  # key, rank of the layer (0 is the newest), pack, place
Shown = Mapping[
    Pack, "tuple[bytearray, int]"
]  # of a pack a byte an entry, 0 where none is to be looked at; first place
BASE_RANK = 1 << 20
BELOW_ALL = ""
ABOVE_ALL = "\U0010ffff" * 129  # 516 bytes: longer than any key may be
ALL_SHOWN: Shown = MappingProxyType({})
UNKNOWN: Final = "unknown"  # which entry a key had at a version, since packs of several have been merged


class SortedRun(NamedTuple):
    """The base packs that hold a collection, in key order, and the first key of it in each."""

    firsts: list[str]
    packs: list[Pack]

    def holder(self, key: str) -> Pack | None:
        """The one pack that may have a key."""
        number = bisect_right(self.firsts, key) - 1
        return self.packs[number] if number >= 0 else None


class Gap(NamedTuple):
    """The neighbour below every key above `low` up to `high`: the record with key `low`, None if there is none."""

    collection: str
    low: str
    high: str
    record: tuple[str, bytes] | None


NO_GAP = Gap("", "", "", None)


class Layers:
    """One version of one slice. Satisfies feed.coding.changes.Lookup with `get`, `before` and `keys`."""

    def __init__(self, name: str, state: SliceState, pool: Pool, former: Layers | None = None) -> None:
        """former: the layers of an earlier version, from which unchanged parts are taken over."""
        self.name = name
        self.state = state
        mapped = pool.foresee(state)
        self.base = [pool.pack(ref) for ref in state.base]
        self.middle = [pool.pack(ref) for ref in reversed(state.middle)]
        self.fresh = [pool.pack(ref) for ref in state.fresh]
        same = former is not None and former.state.base == state.base
        self.chains: dict[str, SortedRun] = former.chains if former is not None and same else chains_of(self.base)
        self.overlay = self.build_overlay(former)
        pool.settle(mapped)
        self.ordered: dict[str, list[str]] = {}
        self.gap = NO_GAP
        self.refs: dict[Pack, PackRef] = {pool.pack(ref): ref for ref in (*state.base, *state.middle)}
        self.pool = pool
        grown = former is not None and former.state.fresh == state.fresh[: len(former.state.fresh)]
        self.fresh_indexes: dict[int, FreshIndex] = former.fresh_indexes if former is not None and grown else {}
        self.window_indexes: dict[int, FreshWindows] = former.window_indexes if former is not None and grown else {}
        self.schemas: list[Schema] = former.schemas if former is not None and grown else []

    def index(self, pack: Pack, schema: Schema) -> Index | None:
        """The indexes of a base or middle pack by `schema`, None where that declares nothing for it."""
        from edged.replica.indexes.index import (
            rules_of,  # here, so that gets and lists do not load what only queries need
        )

        rules = rules_of(schema, pack.meta.spans)
        return self.pool.index(pack, self.refs[pack].index, schema, rules) if rules else None

    def fresh_index(self, schema: Schema) -> FreshIndex:
        """The index of the fresh packs by `schema`."""
        from edged.replica.indexes.freshindex import FreshIndex  # as above

        found = self.fresh_indexes.get(id(schema))
        if found is None:
            self.schemas.append(schema)  # keeps the id taken
            found = self.fresh_indexes.setdefault(id(schema), FreshIndex(schema))
        found.take(self.fresh)
        return found

    def fresh_windows(self, schema: Schema) -> FreshWindows:
        """The windows of the fresh packs' entries by `schema`."""
        from edged.replica.indexes.windows import FreshWindows  # as above

        found = self.window_indexes.get(id(schema))
        if found is None:
            self.schemas.append(schema)
            found = self.window_indexes.setdefault(id(schema), FreshWindows(schema))
        found.take(self.fresh)
        return found

    def is_replaced(self, collection: str, key: str, rank: int) -> bool:
        """Whether a layer newer than that of `rank` has an entry for a key."""
        if key in self.overlay.get(collection, ()):
            return True
        name = key.encode()
        return any(pack.find(collection, name) >= 0 for pack in self.middle[: rank - 1])

    def build_overlay(self, former: Layers | None) -> dict[str, dict[str, Place]]:
        """The newest entry of each key of the fresh packs. What those of `former` say is taken over."""
        overlay: dict[str, dict[str, Place]] = {}
        begin = 0
        if former is not None and former.state.fresh == self.state.fresh[: len(former.state.fresh)]:
            overlay, begin = dict(former.overlay), len(former.state.fresh)
        copied: set[str] = set()
        for pack in self.fresh[begin:]:
            pack.check_all()
            for collection, span in pack.meta.spans.items():
                if collection not in copied:  # views of the former version go on using theirs
                    copied.add(collection)
                    overlay[collection] = dict(overlay.get(collection, ()))
                entries = overlay[collection]
                for key, place in pack.walk(span.low, span.high):
                    entries[key.decode()] = pack, place
        return overlay

    def collections(self) -> set[str]:
        """Names of all collections with an entry, tombstones included."""
        names = set(self.overlay)
        for pack in (*self.base, *self.middle):
            names.update(pack.meta.spans)
        return names

    def locate(self, collection: str, key: str) -> Place | None:
        """The newest entry of a key, which may be a tombstone."""
        found = self.overlay.get(collection, {}).get(key)
        return found or self.locate_below(collection, key)

    def locate_below(self, collection: str, key: str) -> Place | None:
        """The newest entry of a key in the packs below the fresh ones."""
        name = key.encode()
        for pack in self.middle:
            place = pack.find(collection, name)
            if place >= 0:
                return pack, place
        chain = self.chains.get(collection)
        holder = chain.holder(key) if chain is not None else None
        if holder is not None:
            place = holder.find(collection, name)
            if place >= 0:
                return holder, place
        return None

    def locate_at(self, collection: str, key: str, version: int) -> Place | Literal["unknown"] | None:
        """The entry that a key had at a version gone by, None where it had none."""
        name = key.encode()
        for pack in reversed(self.fresh):
            if pack.meta.versions[0] <= version and (place := pack.find(collection, name)) >= 0:
                return pack, place
        below = self.locate_below(collection, key)
        return UNKNOWN if below is not None and below[0].version(below[1]) > version else below

    def has_changed(self, collection: str, key: str, since: int) -> bool:
        """Whether the newest entry of a key is of a later version than `since`."""
        found = self.locate(collection, key)
        return found is not None and found[0].version(found[1]) > since

    def get(self, collection: str, key: str) -> bytes | None:
        """The value of a record, None where there is none."""
        found = self.locate(collection, key)
        return None if found is None else found[0].value(found[1])

    def before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        """The record with the greatest key below `key`. Those who ask for many ask in order, often for the same."""
        gap = self.gap
        if gap.collection == collection and gap.low < key <= gap.high:
            return gap.record
        record = self.search_before(collection, key)
        low = "" if record is None else record[0]
        high = key
        if (gap.collection, gap.low) == (collection, low):  # met twice: then it is worth to know how far it reaches
            high = next((found[0] for found in self.scan(collection, key)), ABOVE_ALL)
        self.gap = Gap(collection, low, high, record)
        return record

    def search_before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        while True:
            below = self.entry_before(collection, key)
            if below is None:
                return None
            value = self.get(collection, below)
            if value is not None:
                return below, value
            key = below

    def keys(self, collection: str) -> Iterator[str]:
        """The keys of all records of a collection, in order."""
        above = ((found[0], bool(found[2].frame(found[3]))) for found in self.newest(collection, base=False))
        upper, live = next(above, (ABOVE_ALL, False))
        for key in self.base_keys(collection):
            while upper < key:
                if live:
                    yield upper
                upper, live = next(above, (ABOVE_ALL, False))
            if upper != key:
                yield key
        while upper != ABOVE_ALL:
            if live:
                yield upper
            upper, live = next(above, (ABOVE_ALL, False))

    def base_keys(self, collection: str) -> Iterator[str]:
        """The keys of the records in the base packs, in order, whatever lies above them."""
        for pack in self.chains[collection].packs if collection in self.chains else ():
            span, whole = pack.span(collection), not pack.meta.spans_deleted()
            for key, place in pack.walk(span.low, span.high):
                if whole or pack.frame(place):
                    yield key.decode()

    def entry_before(self, collection: str, key: str) -> str | None:
        """The greatest key below `key` in any layer, tombstones included."""
        name = key.encode()
        found: list[str] = []
        for pack in self.middle:
            place = pack.bisect(collection, name) - 1
            if place >= pack.span(collection).low and collection in pack.meta.spans:
                found.append(pack.key(place).decode())
        chain = self.chains.get(collection)
        if chain is not None:
            number = bisect_left(chain.firsts, key) - 1
            if number >= 0:
                pack = chain.packs[number]
                found.append(pack.key(pack.bisect(collection, name) - 1).decode())
        keys = self.overlay_keys(collection)
        place = bisect_left(keys, key) - 1
        if place >= 0:
            found.append(keys[place])
        return max(found, default=None)

    def overlay_keys(self, collection: str) -> list[str]:
        """The keys of the fresh packs, in order."""
        keys = self.ordered.get(collection)
        if keys is None:
            keys = self.ordered[collection] = sorted(self.overlay.get(collection, ()))
        return keys

    def scan(self, collection: str, begin: str = BELOW_ALL, shown: Shown = ALL_SHOWN) -> Iterator[Found]:
        """The live records from key `begin` on, in key order. shown: what of the base is passed over."""
        last = None
        for found in self.merged(collection, begin, shown=shown):
            if found[0] != last:
                last = found[0]
                if found[2].frame(found[3]):
                    yield found

    def newest(self, collection: str, *, base: bool = True) -> Iterator[Found]:
        """The newest entry of each key, tombstones included; without `base`, of the layers above it alone."""
        last = None
        for found in self.merged(collection, BELOW_ALL, base=base):
            if found[0] != last:
                last = found[0]
                yield found

    def merged(self, collection: str, begin: str, *, base: bool = True, shown: Shown = ALL_SHOWN) -> Iterator[Found]:
        """All entries from key `begin` on, in order of key and then of layer, the newest first."""
        streams: list[Iterator[Found]] = []
        if self.overlay.get(collection):
            streams.append(self.overlay_stream(collection, begin))
        for rank, pack in enumerate(self.middle, 1):
            if collection in pack.meta.spans:
                streams.append(pack_stream(pack, collection, begin, rank))
        if base and collection in self.chains:
            streams.append(chain_stream(self.chains[collection], collection, begin, shown))
        return streams[0] if len(streams) == 1 else heapq.merge(*streams)

    def overlay_stream(self, collection: str, begin: str) -> Iterator[Found]:
        keys, entries = self.overlay_keys(collection), self.overlay[collection]
        for number in range(bisect_left(keys, begin), len(keys)):
            pack, place = entries[keys[number]]
            yield keys[number], 0, pack, place

    def changed_since(self, since: int) -> Iterator[tuple[str, str, int, Pack, int]]:
        """(collection, key, version, pack, place) of entries of later versions than `since`, the newest of each key."""
        for collection, entries in self.overlay.items():
            for key, (pack, place) in entries.items():
                version = pack.version(place)
                if version > since:
                    yield collection, key, version, pack, place
        for pack in (*self.middle, *self.base):
            for place in pack.changed_since(since):
                collection = collection_at(pack, place)
                key = pack.key(place).decode()
                if self.locate(collection, key) == (pack, place):
                    yield collection, key, pack.version(place), pack, place


def collection_at(pack: Pack, place: int) -> str:
    return next(name for name, span in pack.meta.spans.items() if span.low <= place < span.high)


def chains_of(base: list[Pack]) -> dict[str, SortedRun]:
    chains: dict[str, SortedRun] = {}
    for pack in base:
        for collection, span in pack.meta.spans.items():
            chain = chains.setdefault(collection, SortedRun([], []))
            chain.firsts.append(pack.key(span.low).decode())
            chain.packs.append(pack)
    return chains


def pack_stream(pack: Pack, collection: str, begin: str, rank: int) -> Iterator[Found]:
    low = pack.bisect(collection, begin.encode()) if begin else pack.span(collection).low
    for key, place in pack.walk(low, pack.span(collection).high):
        yield key.decode(), rank, pack, place


def chain_stream(chain: SortedRun, collection: str, begin: str, shown: Shown) -> Iterator[Found]:
    number = max(bisect_right(chain.firsts, begin) - 1, 0)
    for pack in chain.packs[number:]:
        known = shown.get(pack)
        if known is None:
            yield from pack_stream(pack, collection, begin, BASE_RANK)
        else:
            yield from shown_stream(pack, collection, begin, *known)
        begin = BELOW_ALL


def shown_stream(pack: Pack, collection: str, begin: str, shown: bytearray, first: int) -> Iterator[Found]:
    """`pack_stream` of a base pack, past runs of entries that are not shown."""
    place = pack.bisect(collection, begin.encode()) if begin else first
    while (number := shown.find(1, place - first)) >= 0:
        end = shown.find(0, number)
        place = first + (len(shown) if end < 0 else end)
        for key, at in pack.walk(first + number, place):
            yield key.decode(), BASE_RANK, pack, at


def pack_names(versions: Mapping[tuple[str, str], int]) -> bytes:
    """Names of records by version, collection and key: whoever reads many changes slowly keeps them for long, and so
    they take some 40 bytes instead of 280. versions: by (collection, key).
    """
    ordered = sorted(versions.items(), key=lambda item: (item[1], item[0]))
    return b"".join([f"{version}\0{collection}\0{key}\0".encode() for (collection, key), version in ordered])


def unpack_names(packed: bytes) -> Iterator[tuple[int, str, str]]:
    """(version, collection, key) of each, in order."""
    at = 0
    while at < len(packed):
        first = packed.index(0, at)
        second = packed.index(0, first + 1)
        end = packed.index(0, second + 1)
        yield int(packed[at:first]), packed[first + 1 : second].decode(), packed[second + 1 : end].decode()
        at = end + 1
