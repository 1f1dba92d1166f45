"""Windows: from when until when each record of a collection is there for apps, and at which seconds one comes or goes.

A window holds its begin and not its end, both in seconds since 1970. Of a pack they are columns of its index; of the
fresh packs they are held in memory. Specification: docs/replica.md.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from heapq import merge
from typing import Any, NamedTuple

import cbor2

from edged.feed.fieldpath import ABSENT, reach
from edged.feed.schema import Schema
from edged.replica.indexes.terms import NEVER, time_of
from edged.replica.packs.pack import Pack

UNENDING = (1 << 32) - 1  # NEVER in a column of 32 bits
WIDE = "q"


class Window(NamedTuple):
    begin: int
    end: int

    def holds(self, time: int) -> bool:
        return self.begin <= time < self.end


ALWAYS, AT_NO_TIME = Window(-NEVER, NEVER), Window(NEVER, -NEVER)


def window_of(record: Any, paths: Sequence[str]) -> Window:
    """Without one of its sides a window is open there. What is there and is no time closes it: rights are not guessed.

    Of a list the first item counts.
    """
    times = []
    for path, missing in zip(paths, ALWAYS, strict=True):
        value = next(reach(record, path), None)
        while isinstance(value, list):
            value = value[0] if value else None
        if value is None or value is ABSENT:
            times.append(missing)
        elif (time := time_of(value)) is not None:
            times.append(time)
        else:
            return AT_NO_TIME
    return Window(*times) if times[0] < times[1] else AT_NO_TIME


def windows_as_columns(windows: Sequence[Window]) -> tuple[int, list[array[int]]]:
    """(base, [begins, ends, starts, stops]) of the windows of a pack's entries; see WindowColumn."""
    begins = [window.begin for window in windows if -NEVER < window.begin < NEVER]
    stops = [window.end for window in windows if -NEVER < window.end < NEVER]
    base = min((*begins, *stops), default=0) - 1  # 0 is left for what has always begun
    wide = max((*begins, *stops), default=0) - base >= UNENDING
    form, most = (WIDE, NEVER) if wide else ("I", UNENDING)

    def column(times: Iterator[int]) -> array[int]:
        return array(form, [0 if time == -NEVER else most if time == NEVER else time - base for time in times])

    place = "H" if len(windows) <= 1 << 16 else "I"
    starts = sorted((window.begin, number) for number, window in enumerate(windows) if window.begin > -NEVER)
    ends = sorted((window.end, number) for number, window in enumerate(windows) if -NEVER < window.end < NEVER)
    orders = [array(place, [number for _, number in order]) for order in (starts, ends)]
    return base, [column(w.begin for w in windows), column(w.end for w in windows), *orders]


class WindowColumn:
    """The windows of a pack's entries from place `low` on. begins, ends: less `base`; 0: it has always begun; the most
    that a number can be: it never ends, or never begins. starts: the entries that have not always begun, by their
    begins; stops: those that end, by their ends.
    """

    def __init__(self, low: int, base: int, columns: Sequence[Sequence[int]]) -> None:
        self.low, self.base = low, base
        self.begins, self.ends, self.starts, self.stops = columns
        wide = isinstance(self.begins, memoryview) and self.begins.format == WIDE
        self.most = NEVER if wide else UNENDING

    def relative(self, time: int) -> int:
        return max(0, min(time - self.base, self.most - 1))

    def window(self, place: int) -> Window:
        begin, end = self.begins[place - self.low], self.ends[place - self.low]
        return Window(
            -NEVER if not begin else NEVER if begin == self.most else begin + self.base,
            -NEVER if not end else NEVER if end == self.most else end + self.base,
        )

    def shown_at(self, time: int) -> bytearray:
        """A byte for each entry: 1 where its window holds `time`."""
        shown = bytearray(b"\x01") * len(self.begins)
        at = self.relative(time)
        for number in self.starts[bisect_right(self.starts, at, key=self.begins.__getitem__) :]:
            shown[number] = 0
        for number in self.stops[: bisect_right(self.stops, at, key=self.ends.__getitem__)]:
            shown[number] = 0
        return shown

    def moved(self, shown: bytearray, before: int, time: int) -> bytearray:
        """`shown_at(time)`, made of that of `before` by what comes and goes between."""
        at, found = self.relative(time), bytearray(shown)
        for order, times in ((self.starts, self.begins), (self.stops, self.ends)):
            low, high = sorted((before, time))
            first = bisect_right(order, self.relative(low), key=times.__getitem__)
            for number in order[first : bisect_right(order, self.relative(high), key=times.__getitem__)]:
                found[number] = self.begins[number] <= at < self.ends[number]
        return found

    def boundaries(self, after: int) -> Iterator[tuple[int, int]]:
        """(time, place) of each begin and end later than `after`, in order."""
        return merge(self.side(self.starts, self.begins, after), self.side(self.stops, self.ends, after))

    def side(self, order: Sequence[int], times: Sequence[int], after: int) -> Iterator[tuple[int, int]]:
        for at in range(bisect_right(order, self.relative(after), key=times.__getitem__), len(order)):
            if times[order[at]] == self.most:
                return
            yield times[order[at]] + self.base, order[at] + self.low


class FreshBoundary(NamedTuple):
    """A second at which an entry of a fresh pack comes or goes."""

    time: int
    key: str
    pack: Pack
    place: int


class FreshWindows:
    """The windows of the fresh packs' entries by (pack, place), but for those that are always open. Thread-safe.

    It only grows while hops arrive, and is shared by the versions meanwhile.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.lock = threading.Lock()
        self.packs: list[Pack] = []
        self.known: set[int] = set()  # id() of `packs`
        self.windows: dict[tuple[Pack, int], Window] = {}
        self.boundaries: dict[str, list[FreshBoundary]] = {}  # by collection, by time; replaced, never changed

    def take(self, packs: Sequence[Pack]) -> None:
        """Take in those of `packs` that are new. Raises DamageError."""
        if all(id(pack) in self.known for pack in packs):
            return
        with self.lock:
            for pack in packs:
                if id(pack) not in self.known:
                    self.take_pack(pack)
                    self.packs.append(pack)
                    self.known.add(id(pack))

    def take_pack(self, pack: Pack) -> None:
        for collection in pack.meta.spans:
            rules = self.schema.collections.get(collection)
            if rules is None or not rules.valid:
                continue
            span, found = pack.span(collection), list(self.boundaries.get(collection, ()))
            for key, place in pack.walk(span.low, span.high):
                value = pack.value(place)
                window = ALWAYS if value is None else window_of(cbor2.loads(value), rules.valid)
                if window != ALWAYS:
                    self.windows[pack, place] = window
                    times = [time for time in window if -NEVER < time < NEVER]
                    found += [FreshBoundary(time, key.decode(), pack, place) for time in times]
            self.boundaries[collection] = sorted(found, key=lambda one: (one.time, one.key))
