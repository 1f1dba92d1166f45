"""Which records of a collection are there for apps at a time: those not taken down, and within their window.

Every read of a view goes by `Hiding`. It looks at the entry that was found, so that thousands of records that end at
one second cost next to nothing then: of each pack a byte an entry says what is shown, and only those are turned that
come or go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from heapq import merge
from typing import NamedTuple

from edged.feed.schema import Schema
from edged.replica.indexes.windows import ALWAYS, Window, WindowColumn
from edged.replica.layers.layers import BASE_RANK, UNKNOWN, Layers, Shown
from edged.replica.packs.pack import Pack

NOT_LOOKED_FOR = -1


class Boundary(NamedTuple):
    """A second at which a record comes or goes."""

    time: int
    key: str
    window: Window


class SliceWindows:
    """The windows of a collection in one version of a slice, at any time. Raises DamageError."""

    def __init__(self, layers: Layers, schema: Schema, collection: str) -> None:
        self.layers, self.collection = layers, collection
        self.fresh = layers.fresh_windows(schema)
        self.columns: list[tuple[int, Pack, WindowColumn]] = []
        for rank, pack in (*enumerate(layers.middle, 1), *((BASE_RANK, pack) for pack in layers.base)):
            if collection in pack.meta.spans and (index := layers.index(pack, schema)) is not None:
                self.columns.append((rank, pack, index.windows[collection]))
        self.by_pack = {pack: column for _, pack, column in self.columns}

    def window(self, pack: Pack, place: int) -> Window:
        column = self.by_pack.get(pack)
        return self.fresh.windows.get((pack, place), ALWAYS) if column is None else column.window(place)

    def boundaries(self, after: int) -> Iterator[Boundary]:
        """Each second later than `after` at which a record comes or goes, in order of time."""
        streams = [self.of_pack(rank, pack, column, after) for rank, pack, column in self.columns]
        return merge(self.of_fresh(after), *streams, key=lambda boundary: boundary.time)

    def of_fresh(self, after: int) -> Iterator[Boundary]:
        newest = self.layers.overlay.get(self.collection, {})
        for time, key, pack, place in self.fresh.boundaries.get(self.collection, ()):
            if time > after and newest.get(key) == (pack, place):
                yield Boundary(time, key, self.fresh.windows[pack, place])

    def of_pack(self, rank: int, pack: Pack, column: WindowColumn, after: int) -> Iterator[Boundary]:
        for time, place in column.boundaries(after):
            key = pack.key(place).decode()
            if not self.layers.is_replaced(self.collection, key, rank):
                yield Boundary(time, key, column.window(place))

    def replaced(self) -> dict[Pack, set[int]]:
        """The places of packs whose entries count no more, as a newer layer has one for the key."""
        found: dict[Pack, set[int]] = {pack: set() for _, pack, _ in self.columns}
        above = [key.encode() for key in self.layers.overlay.get(self.collection, ())]
        for rank, pack, _ in self.columns:
            if rank == BASE_RANK:
                break
            self.note_replaced(above, rank, found)
            span = pack.span(self.collection)
            above = [key for key, _ in pack.walk(span.low, span.high)]
        self.note_replaced(above, BASE_RANK, found)
        return found

    def note_replaced(self, keys: Sequence[bytes], rank: int, found: dict[Pack, set[int]]) -> None:
        """Note what `keys` replace in the layers from `rank` on."""
        lower = [pack for at, pack, _ in self.columns if rank <= at < BASE_RANK]
        chain = self.layers.chains.get(self.collection)
        for key in keys:
            holder = chain.holder(key.decode()) if chain is not None else None
            for pack in lower if holder is None else (*lower, holder):
                place = pack.find(self.collection, key)
                if place >= 0:
                    found[pack].add(place)

    def was_shown(self, key: str, version: int, time: int) -> bool:
        """Whether a record may have been there at a version gone by and a time."""
        place = self.layers.locate_at(self.collection, key, version)
        if place is None or place == UNKNOWN:
            return place is not None
        pack, at = place
        return bool(pack.frame(at)) and self.window(pack, at).holds(time)


class Former(NamedTuple):
    """What a Hiding leaves to one at another time or version."""

    time: int
    columns: Mapping[Pack, WindowColumn]
    shown: Shown

    def of(self, packs: Collection[Pack]) -> Former:
        """The same of these packs alone."""
        columns = {pack: column for pack, column in self.columns.items() if pack in packs}
        return Former(self.time, columns, {pack: self.shown[pack] for pack in columns})


class Hiding:
    """What of a collection is not shown. keys: of what is taken down; slices: the windows in each slice, if there are
    any; shown: of each pack a byte an entry, and its first place.
    """

    def __init__(
        self, keys: Collection[str], slices: Sequence[SliceWindows], time: int, former: Former | None = None
    ) -> None:
        """former: of which is taken over what does not change between the two times."""
        self.keys, self.slices, self.time = keys, slices, time
        self.columns = {pack: column for one in slices for _, pack, column in one.columns}
        self.shown: dict[Pack, tuple[bytearray, int]] = {}
        for pack, column in self.columns.items():
            if former is not None and former.columns.get(pack) is column:
                shown = column.moved(former.shown[pack][0], former.time, time)
            else:
                shown = column.shown_at(time)
            self.shown[pack] = shown, column.low
        self.fresh = [one.fresh.windows for one in slices]

    def __call__(self, key: str, pack: Pack, place: int) -> bool:
        """Whether a record is not there, its entry being at a place of a pack."""
        if key in self.keys:
            return True
        known = self.shown.get(pack)
        if known is not None:
            return not known[0][place - known[1]]
        for windows in self.fresh:
            window = windows.get((pack, place))
            if window is not None:
                return not window.begin <= self.time < window.end
        return False

    def outside(self, one: SliceWindows) -> Iterator[str]:
        """The keys of a slice's records that are outside of their window."""
        for key, (pack, place) in one.layers.overlay.get(one.collection, {}).items():
            if not one.window(pack, place).holds(self.time):
                yield key
        for rank, pack, column in one.columns:
            shown, number = self.shown[pack][0], -1
            while (number := shown.find(0, number + 1)) >= 0:
                key = pack.key(number + column.low).decode()
                if not one.layers.is_replaced(one.collection, key, rank):
                    yield key

    def count_outside(self, one: SliceWindows) -> int:
        """How many `outside` gives, without looking at each."""
        overlay = one.layers.overlay.get(one.collection, {})
        found = sum(1 for pack, place in overlay.values() if not one.window(pack, place).holds(self.time))
        replaced = one.replaced()
        for _, pack, column in one.columns:
            shown = self.shown[pack][0]
            found += shown.count(0) - sum(1 for place in replaced[pack] if not shown[place - column.low])
        return found

    def count(self) -> int:
        """How many records are outside of their window that are not taken down, each counted once."""
        if not self.slices:
            return 0
        largest, *others = sorted(self.slices, key=lambda one: one.layers.state.records, reverse=True)
        found = self.count_outside(largest)
        for number, one in enumerate(others):
            before = [largest, *others[:number]]
            found += sum(1 for key in self.outside(one) if not any(holds(other, key) for other in before))
        return found - sum(1 for key in self.keys if any(self.is_outside(one, key) for one in self.slices))

    def is_outside(self, one: SliceWindows, key: str) -> bool:
        place = one.layers.locate(one.collection, key)
        return place is not None and not one.window(*place).holds(self.time)

    def may_have_shown(self, key: str, version: int, time: int) -> bool:
        """Whether a record may have been there at a version gone by and a time."""
        return any(one.was_shown(key, version, time) for one in self.slices)

    def passed(self, collection: str, since: int) -> Iterator[tuple[int, str, str]]:
        """(time, collection, key) of the records that have come or gone by time alone since a time, in order of time.

        Where the clock was set right again since, those that are as they were before.
        """
        first, last = sorted((since, self.time))
        told: set[str] = set()
        for found in merge(*(one.boundaries(first) for one in self.slices), key=lambda boundary: boundary.time):
            if found.time > last:
                return
            if found.window.holds(since) == found.window.holds(self.time) or found.key in self.keys:
                continue
            if len(self.slices) > 1:  # which may share a record
                if found.key in told:
                    continue
                told.add(found.key)
            yield found.time, collection, found.key


def holds(one: SliceWindows, key: str) -> bool:
    return one.layers.get(one.collection, key) is not None


class Counts(Mapping[str, int]):
    """Records by collection that are there now, counted when asked for. held: whatever the time; limited: collections
    whose records have windows; hidden: how many of one are outside.
    """

    def __init__(self, held: Mapping[str, int], limited: frozenset[str], hidden: Callable[[str], int]) -> None:
        self.held, self.limited, self.hidden = held, limited, hidden
        self.known: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        count = self.held[name]
        if name not in self.limited:
            return count
        if name not in self.known:
            self.known[name] = count - self.hidden(name)
        return self.known[name]

    def __contains__(self, name: object) -> bool:
        return name in self.held

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)


class Validity:
    """What of the collections of a version is there at a time. limited: those whose records have windows."""

    def __init__(
        self,
        layers: Sequence[Layers],
        schema: Schema,
        taken_down: Mapping[str, Collection[str]],
        limited: frozenset[str],
    ) -> None:
        """taken_down: keys by collection."""
        self.layers, self.schema, self.taken_down, self.limited = layers, schema, taken_down, limited
        self.time = 0
        self.windows: dict[str, list[SliceWindows]] = {}
        self.hidings: dict[str, Hiding] = {}
        self.former: Mapping[str, Former] = {}
        self.next_known: int | None = NOT_LOOKED_FOR

    def at(self, time: int, former: Validity | None) -> Validity:
        """The same version at another time. former: what was before, at whatever version."""
        found = copy(self)
        found.time, found.hidings, found.next_known = time, {}, NOT_LOOKED_FOR
        found.former = {} if former is None else former.left_to(self.layers)
        return found

    def left_to(self, layers: Sequence[Layers]) -> dict[str, Former]:
        """What is left to another time or version: of the packs that are there too, as one that is held stays on the
        disk when it is merged away.
        """
        packs = {pack for one in layers for pack in (*one.base, *one.middle)}
        last = {name: Former(one.time, one.columns, one.shown) for name, one in list(self.hidings.items())}
        return {name: one.of(packs) for name, one in {**self.former, **last}.items()}

    def windows_of(self, collection: str) -> list[SliceWindows]:
        """Of each slice."""
        found = self.windows.get(collection)
        if found is None:
            found = [SliceWindows(layers, self.schema, collection) for layers in self.layers]
            self.windows[collection] = found
        return found

    def hiding(self, collection: str) -> Hiding:
        found = self.hidings.get(collection)
        if found is None:
            keys, former = self.taken_down.get(collection, ()), self.former.get(collection)
            found = self.hidings[collection] = Hiding(keys, self.windows_of(collection), self.time, former)
        return found

    def counts(self, held: Mapping[str, int]) -> Counts:
        return Counts(held, self.limited, lambda collection: self.hiding(collection).count())

    @property
    def next_change(self) -> int | None:
        """The second at which the next record comes or goes, None where none will."""
        if self.next_known == NOT_LOOKED_FOR:
            times = [time for collection in self.limited for time in self.next_of(collection)]
            self.next_known = min(times, default=None)
        return self.next_known

    def next_of(self, collection: str) -> Iterator[int]:
        """That of each slice."""
        hidden = self.taken_down.get(collection, ())
        for one in self.windows_of(collection):
            first = next((found.time for found in one.boundaries(self.time) if found.key not in hidden), None)
            if first is not None:
                yield first

    def may_have_shown(self, collection: str, key: str, version: int, time: int) -> bool:
        """Whether a record that is not there may have been at a version and a time: none is told of that was never
        there."""
        return collection not in self.limited or self.hiding(collection).may_have_shown(key, version, time)

    def passed(self, since: int) -> Iterator[tuple[str, str]]:
        """(collection, key) of the records that have come or gone by time alone since a time, in order of time."""
        streams = [self.hiding(collection).passed(collection, since) for collection in sorted(self.limited)]
        return ((collection, key) for _, collection, key in merge(*streams))
