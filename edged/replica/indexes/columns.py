"""Columns of one pack's index: of each record its rank in a declared order, begin and end of its interval, its window.

Terms and postings tell which records hold a value; columns tell which value a record holds, so that few records are
sorted, and conditions tested, without looking at them. Specification: docs/replica.md.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from edged.replica.indexes.terms import NEVER
from edged.replica.indexes.windows import UNENDING, WIDE, Window, WindowColumn, windows_as_columns

BLOCK = 64  # records of an interval column that share one greatest end
SHORT = "H"  # of ends that are lengths, where all intervals last less than 2^16 seconds
ORDER, INTERVAL, VALID = "<", "~", "!"  # kinds of columns; ORDER is that of the group of terms too


class ColumnWriter:
    """data: the columns one after the other, each at a multiple of 8; table: what they are, for `read_columns`."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.table: list[list[Any]] = []

    def append(self, values: array[int]) -> list[Any]:
        self.data += bytes(-len(self.data) % 8)
        place = [values.typecode, len(self.data), len(values)]
        self.data += values.tobytes()
        return place

    def add_order(self, collection: str, field: str, low: int, ranks: Sequence[int]) -> None:
        """ranks: of each entry from place `low` on the number of its term in the group plus 1, or 0."""
        values = array("H" if max(ranks, default=0) < 1 << 16 else "I", ranks)
        self.table.append([collection, ORDER, field, low, self.append(values)])

    def add_interval(self, collection: str, low: int, spans: Sequence[tuple[int, int] | None]) -> None:
        """spans: of each entry from place `low` on its (begin, end)."""
        held = sorted((span[0], number) for number, span in enumerate(spans) if span is not None)
        base = held[0][0] if held else 0
        known = [span for span in spans if span is not None]
        most = max((end if end != NEVER else begin for begin, end in known), default=base) - base
        wide = most >= UNENDING
        begins, ends = array(WIDE if wide else "I"), array(WIDE if wide else "I")
        unending = NEVER if wide else UNENDING
        for span in spans:
            if span is None:  # holds no time: it begins after all others
                begins.append(unending)
                ends.append(0)
            else:
                begins.append(span[0] - base)
                ends.append(unending if span[1] == NEVER else span[1] - base)
        known_ends = ends
        if all(span is None or 0 <= span[1] - span[0] < 1 << 16 for span in spans):
            ends = array(SHORT, [0 if span is None else span[1] - span[0] for span in spans])
        order = array("H" if len(spans) <= 1 << 16 else "I", [number for _, number in held])
        tops = array(begins.typecode)
        for start in range(0, len(order), BLOCK):
            tops.append(max(known_ends[number] for number in order[start : start + BLOCK]))
        columns = [self.append(column) for column in (begins, ends, order, tops)]
        self.table.append([collection, INTERVAL, "", low, base, columns])

    def add_windows(self, collection: str, low: int, windows: Sequence[Window]) -> None:
        """windows: of each entry from place `low` on."""
        base, columns = windows_as_columns(windows)
        self.table.append([collection, VALID, "", low, base, [self.append(column) for column in columns]])


class OrderColumn:
    """ranks: by place, counted from `low`; 0 where a record lacks the field."""

    def __init__(self, low: int, ranks: Sequence[int]) -> None:
        self.low, self.ranks = low, ranks

    def of(self, places: Sequence[int]) -> Sequence[int]:
        """The rank of each of some rising places."""
        if not places:
            return ()
        ranks, low = self.ranks, self.low
        if places[-1] - places[0] + 1 == len(places):  # as those of a key's beginning often lie
            run = ranks[places[0] - low : places[-1] - low + 1]
            return run.tolist() if isinstance(run, memoryview) else run
        return [ranks[place - low] for place in places]

    def narrow(self, places: Iterable[int], least: int, most: int) -> list[int]:
        """Those of `places` whose rank lies from `least` to `most`."""
        ranks, low = self.ranks, self.low
        return [place for place in places if least <= ranks[place - low] <= most]


class IntervalColumn:
    """Times are seconds since 1970; an interval holds its begin and not its end. short: whether `ends` says how long
    each lasts."""

    def __init__(self, low: int, base: int, columns: Sequence[Sequence[int]]) -> None:
        self.low, self.base = low, base
        self.begins, self.ends, self.order, self.tops = columns
        self.short = isinstance(self.ends, memoryview) and self.ends.format == SHORT
        self.most = (
            UNENDING - 1 if not (isinstance(self.begins, memoryview) and self.begins.format == WIDE) else NEVER - 1
        )

    def relative(self, time: int) -> int:
        return max(-1, min(time - self.base, self.most))

    def narrow(self, places: Iterable[int], begin: int, end: int) -> list[int]:
        """Those of `places` whose interval has a time in common with that from `begin` to before `end`."""
        begins, ends, low = self.begins, self.ends, self.low
        first, last = self.relative(begin), self.relative(end)
        if self.short:
            return [place for place in places if first - ends[at := place - low] < begins[at] < last]
        return [place for place in places if begins[place - low] < last and ends[place - low] > first]

    def overlapping(self, begin: int, end: int) -> list[int]:
        """The places of all records that `narrow` would leave, rising."""
        first, last = self.relative(begin), self.relative(end)
        begins, ends, order, low = self.begins, self.ends, self.order, self.low
        stop = bisect_left(order, last, key=begins.__getitem__)
        found: list[int] = []
        for block, top in enumerate(self.tops[: -(-stop // BLOCK)]):
            if top > first:
                run = order[block * BLOCK : min(stop, (block + 1) * BLOCK)]
                if self.short:
                    found += [number + low for number in run if begins[number] + ends[number] > first]
                else:
                    found += [number + low for number in run if ends[number] > first]
        found.sort()
        return found


class PackColumns(NamedTuple):
    """orders: by collection and field; intervals, windows: by collection."""

    orders: dict[tuple[str, str], OrderColumn]
    intervals: dict[str, IntervalColumn]
    windows: dict[str, WindowColumn]


def read_columns(table: Sequence[Any], data: memoryview[int]) -> PackColumns:
    """The columns that `ColumnWriter.table` describes. Raises ValueError."""

    def column(place: Sequence[Any]) -> memoryview[int]:
        code, start, count = place
        if code not in ("H", "I", WIDE) or start + array(code).itemsize * count > len(data):
            raise ValueError("a column lies outside")
        return data[start : start + array(code).itemsize * count].cast(code)

    found = PackColumns({}, {}, {})
    for collection, kind, field, low, *rest in table:
        if kind == ORDER:
            found.orders[collection, field] = OrderColumn(low, column(rest[0]))
        elif kind == INTERVAL:
            found.intervals[collection] = IntervalColumn(low, rest[0], [column(place) for place in rest[1]])
        else:
            found.windows[collection] = WindowColumn(low, rest[0], [column(place) for place in rest[1]])
    return found
