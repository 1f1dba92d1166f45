"""Answers to questions over the layers of a slice, by their indexes: in the order of keys or in a declared one.

Each pack and the fresh packs together are a source, which numbers its records. A condition has a run of numbers: the
shortest run is gone through, and narrowed down by the other conditions.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

from edged.feed.schema import Schema
from edged.replica.indexes import terms
from edged.replica.indexes.freshindex import FreshIndex
from edged.replica.indexes.index import ALL, RANKED, Index, holds
from edged.replica.layers import search
from edged.replica.layers.layers import BASE_RANK, Found, Layers, Place
from edged.replica.layers.lookup import Hides
from edged.replica.layers.question import (
    EQUAL,
    HIGHEST,
    LOWEST,
    Cursor,
    Question,
    Span,
    groups_of,
    order_group,
    spans_of,
)
from edged.replica.packs.pack import Pack

FIRST = itemgetter(0)
FEW = 4096  # records that are sorted rather than found by walking through a whole order
MANY = 2048  # numbers from which sets are quicker than bisecting


Run = tuple[bytes, tuple["Records", Sequence[int]]]  # a term, and the records of a source that are ordered by it


class Condition(NamedTuple):
    """size: of the run, or about that; narrow: leaves those of some numbers that meet it; field: of a range."""

    size: int
    run: Callable[[], Sequence[int]]
    narrow: Callable[[Sequence[int]], list[int]]
    field: str = ""


class Records(Protocol):
    """Records with rising numbers. line: equal for sources of which one begins where another ends, None for others."""

    @property
    def line(self) -> int | None: ...
    def all(self) -> Sequence[int]: ...
    def equal(self, group: str, wanted: Sequence[bytes]) -> Condition: ...
    def within(self, group: str, wanted: Sequence[bytes], /) -> Sequence[bytes]: ...
    def between(self, field: str, span: Span) -> Condition: ...
    def during(self, begin: int, end: int) -> Condition: ...
    @property
    def words(self) -> tuple[search.Words, str]: ...
    def holding(self, asked: search.Wording, /) -> Condition: ...
    def kinds(self, field: str, /) -> Collection[bytes]: ...
    def walk(self, field: str, span: Span, falling: bool, /) -> Iterator[tuple[bytes, Sequence[int]]]: ...
    def ranked(
        self, field: str, numbers: Sequence[int], span: Span, falling: bool, /
    ) -> Iterator[tuple[bytes, Sequence[int]]]: ...
    def lacking(self, field: str, numbers: Iterable[int], /) -> list[int]: ...
    def values(self, group: str) -> Iterator[tuple[bytes, Sequence[int]]]: ...
    def entry(self, number: int) -> Found | None: ...
    def in_key_order(self, numbers: Sequence[int], begin: str, /) -> Iterator[Found]: ...


class PackRecords:
    """A base or middle pack; numbers are places. rank: of its layer, as newer ones replace its entries."""

    def __init__(self, layers: Layers, collection: str, pack: Pack, rank: int, index: Index) -> None:
        self.layers, self.collection, self.pack, self.rank, self.index = layers, collection, pack, rank, index
        self.span = pack.span(collection)
        self.spans: dict[tuple[str, Span], tuple[int, int, int]] = {}
        self.line = id(layers) if rank == BASE_RANK else None

    def all(self) -> Sequence[int]:
        return range(self.span.low, self.span.high)

    def equal(self, group: str, wanted: Sequence[bytes]) -> Condition:
        runs = [run for run in (self.index.places(self.collection, group, item) for item in wanted) if len(run)]
        run = runs[0] if len(runs) == 1 else sorted(set().union(*runs))
        return Condition(len(run), lambda: run, lambda places: common(places, run))

    def within(self, group: str, wanted: Sequence[bytes], /) -> Sequence[bytes]:
        return self.index.within(self.collection, group, wanted)

    def between(self, field: str, span: Span) -> Condition:
        first, low, high = self.terms(field, span)
        runs, postings = self.index.runs, self.index.postings
        column = self.index.orders[self.collection, field]
        least, most = low - first + 1, high - first
        return Condition(
            runs[high] - runs[low],
            lambda: sorted(postings[runs[low] : runs[high]]),
            lambda places: column.narrow(places, least, most),
            field,
        )

    def terms(self, field: str, span: Span) -> tuple[int, int, int]:
        """Numbers of terms: the first of the field's group, and those from and before which the span holds them."""
        found = self.spans.get((field, span))
        if found is None:  # the same for each value that is asked for by itself
            first, end = self.index.groups.get((self.collection, order_group(field)), (0, 0))
            low = self.index.bisect(first, end, span.low)
            found = self.spans[field, span] = first, low, self.index.bisect(low, end, span.high)
        return found

    def during(self, begin: int, end: int) -> Condition:
        column = self.index.intervals[self.collection]
        return Condition(
            1 + len(column.order) // 8,  # about what going over its blocks costs
            lambda: column.overlapping(begin, end),
            lambda places: column.narrow(places, begin, end),
        )

    @property
    def words(self) -> tuple[search.Words, str]:
        return self.index, self.collection

    def holding(self, asked: search.Wording, /) -> Condition:
        ranks = set().union(*search.tiers_of(self.index, self.collection, asked))
        places = self.index.places(self.collection, RANKED, ALL)
        held = sorted(map(places.__getitem__, ranks))
        return Condition(len(held), lambda: held, lambda some: common(some, held))

    def kinds(self, field: str, /) -> Collection[bytes]:
        return self.index.kinds(self.collection, order_group(field))

    def walk(self, field: str, span: Span, falling: bool, /) -> Iterator[tuple[bytes, Sequence[int]]]:
        _, low, high = self.terms(field, span)
        index = self.index
        for number in range(high - 1, low - 1, -1) if falling else range(low, high):
            yield index.term(number), index.postings[index.runs[number] : index.runs[number + 1]]

    def ranked(
        self, field: str, numbers: Sequence[int], span: Span, falling: bool, /
    ) -> Iterator[tuple[bytes, Sequence[int]]]:
        first, low, high = self.terms(field, span)
        least, most = low - first + 1, high - first
        ranks = self.index.orders[self.collection, field].of(numbers)
        if sorted(ranks) == ranks:  # as of a channel's programmes, whose keys lie in the order of their begins
            for rank, low, high in runs_of(ranks, least, most, falling=falling):
                yield self.index.term(first + rank - 1), numbers[low:high]
            return
        sign = -1 if falling else 1
        pairs = [(sign * rank, place) for rank, place in zip(ranks, numbers, strict=True) if least <= rank <= most]
        pairs.sort()
        for rank, same in groupby(pairs, key=FIRST):
            yield self.index.term(first + abs(rank) - 1), [place for _, place in same]

    def lacking(self, field: str, numbers: Iterable[int], /) -> list[int]:
        return self.index.orders[self.collection, field].narrow(numbers, 0, 0)

    def values(self, group: str) -> Iterator[tuple[bytes, Sequence[int]]]:
        index = self.index
        for number in range(*index.groups.get((self.collection, group), (0, 0))):
            yield index.term(number), index.postings[index.runs[number] : index.runs[number + 1]]

    def entry(self, number: int) -> Found | None:
        name, middle, end = self.pack.entry(number)
        if middle == end:  # a tombstone
            return None
        key = name.decode()
        if self.layers.is_replaced(self.collection, key, self.rank):
            return None
        return key, self.rank, self.pack, number

    def in_key_order(self, numbers: Sequence[int], begin: str, /) -> Iterator[Found]:
        low = self.pack.bisect(self.collection, begin.encode()) if begin else 0
        for at in range(bisect_left(numbers, low), len(numbers)):
            found = self.entry(numbers[at])
            if found is not None:
                yield found


def runs_of(ranks: Sequence[int], least: int, most: int, *, falling: bool) -> Iterator[tuple[int, int, int]]:
    """(rank, where it begins, where it ends) in rising `ranks`, of those from `least` to `most`: found as they are
    wanted, for a page takes few of them."""
    low, high = bisect_left(ranks, least), bisect_right(ranks, most)
    while low < high:
        rank = ranks[high - 1] if falling else ranks[low]
        begin = bisect_left(ranks, rank, low, high) if falling else low
        end = high if falling else bisect_right(ranks, rank, low, high)
        yield rank, begin, end
        low, high = (low, begin) if falling else (end, high)


class FreshRecords:
    """The fresh packs; numbers are those of their index's entries, of which the newest of each key count."""

    def __init__(self, index: FreshIndex, collection: str, newest: dict[str, Place]) -> None:
        self.index, self.collection, self.newest = index, collection, newest
        self.line = None

    def all(self) -> Sequence[int]:
        return range(len(self.index.entries))

    def equal(self, group: str, wanted: Sequence[bytes]) -> Condition:
        return self.condition(number for item in wanted for number in self.index.places(self.collection, group, item))

    def condition(self, numbers: Iterable[int]) -> Condition:
        held = set(numbers)
        return Condition(len(held), lambda: sorted(held), lambda some: [number for number in some if number in held])

    def within(self, group: str, wanted: Sequence[bytes], /) -> Sequence[bytes]:
        held = self.index.numbers.get((self.collection, group), {})
        return [term for term in wanted if term in held]

    def placed(self, field: str) -> dict[int, bytes]:
        """By which entries are ordered, by their numbers."""
        return self.index.placed.get((self.collection, order_group(field)), {})

    def between(self, field: str, span: Span) -> Condition:
        low, high = span
        placed = self.placed(field)
        return Condition(
            len(placed),
            lambda: sorted([number for number, term in list(placed.items()) if low <= term < high]),
            lambda some: [number for number in some if (term := placed.get(number)) is not None and low <= term < high],
            field,
        )

    def during(self, begin: int, end: int) -> Condition:
        spans = self.index.spans
        return Condition(
            len(spans),
            lambda: sorted([number for number, (first, last) in list(spans.items()) if first < end and last > begin]),
            lambda some: [n for n in some if (held := spans.get(n)) is not None and held[0] < end and held[1] > begin],
        )

    @property
    def words(self) -> tuple[search.Words, str]:
        return self.index, self.collection

    def holding(self, asked: search.Wording, /) -> Condition:
        return self.condition(set().union(*search.tiers_of(self.index, self.collection, asked)))

    def kinds(self, field: str, /) -> Collection[bytes]:
        return {term[:1] for term in list(self.placed(field).values())}

    def walk(self, field: str, span: Span, falling: bool, /) -> Iterator[tuple[bytes, Sequence[int]]]:
        return self.ranked(field, list(self.placed(field)), span, falling)

    def ranked(
        self, field: str, numbers: Sequence[int], span: Span, falling: bool, /
    ) -> Iterator[tuple[bytes, Sequence[int]]]:
        placed, (low, high) = self.placed(field), span
        pairs = [(term, n) for n in numbers if (term := placed.get(n)) is not None and low <= term < high]
        pairs.sort(key=FIRST, reverse=falling)
        for term, same in groupby(pairs, key=FIRST):
            yield term, [number for _, number in same]

    def lacking(self, field: str, numbers: Iterable[int], /) -> list[int]:
        placed = self.placed(field)
        return [number for number in numbers if number not in placed]

    def values(self, group: str) -> Iterator[tuple[bytes, Sequence[int]]]:
        return iter(self.index.values(self.collection, group))

    def entry(self, number: int) -> Found | None:
        entry = self.index.entries[number]
        if entry.collection != self.collection or self.newest.get(entry.key) != (entry.pack, entry.place):
            return None
        return entry.key, 0, entry.pack, entry.place

    def in_key_order(self, numbers: Sequence[int], begin: str, /) -> Iterator[Found]:
        found = [item for item in map(self.entry, numbers) if item is not None and item[0] >= begin]
        return iter(sorted(found, key=key_of))


def common(numbers: Sequence[int], run: Sequence[int]) -> list[int]:
    """Those of `numbers` that a rising run holds."""
    if len(run) > 8 * len(numbers):  # bisecting is quicker than making a set
        return [number for number in numbers if holds(run, number)]
    held = set(run)
    return [number for number in numbers if number in held]


def key_of(found: Found) -> str:
    return found[0]


def sources_of(layers: Layers, schema: Schema, collection: str) -> list[Records]:
    """Everything in a slice that holds records of a collection for which something is declared."""
    sources: list[Records] = []
    if layers.overlay.get(collection):
        sources.append(FreshRecords(layers.fresh_index(schema), collection, layers.overlay[collection]))
    for rank, pack in (*enumerate(layers.middle, 1), *((BASE_RANK, pack) for pack in layers.base)):
        if collection in pack.meta.spans and (index := layers.index(pack, schema)) is not None:
            sources.append(PackRecords(layers, collection, pack, rank, index))
    return sources


def wording_of(question: Question) -> search.Wording:
    return search.Wording(terms.words(question.text), question.misspelt)


def conditions_of(source: Records, question: Question) -> list[Condition]:
    """Each of the question's conditions in a source, that with the shortest run first."""
    found = []
    for group, wanted in groups_of(question):
        found.append(source.equal(group, wanted))
        if not found[-1].size:  # so that sources which hold none of it cost no more than this
            return found[-1:]
    found += [source.between(field, span) for field, span in spans_of(question)]
    if question.during is not None:
        found.append(source.during(*question.during))
    if question.text:
        found.append(source.holding(wording_of(question)))
    return sorted(found, key=lambda condition: condition.size)


def numbers_of(source: Records, conditions: Sequence[Condition]) -> Sequence[int]:
    """The records of a source that meet all conditions, rising."""
    if not conditions:
        return source.all()
    run = conditions[0].run()
    for other in conditions[1:]:
        if len(run) > MANY and other.size <= 8 * len(run):
            run = sorted(set(other.run()).intersection(run))
        else:
            run = other.narrow(run)
    return run


def by_key(sources: Sequence[Records], question: Question, begin: str) -> Iterator[Found]:
    """The live records that a slice answers with, from key `begin` on, in the order of keys."""
    return in_key_order([(one, numbers_of(one, conditions_of(one, question))) for one in sources], begin)


def in_key_order(some: Iterable[tuple[Records, Sequence[int]]], begin: str) -> Iterator[Found]:
    """The live ones of some records, from key `begin` on, in the order of keys."""
    streams: list[Iterator[Found]] = []
    lines: dict[int, list[Iterator[Found]]] = {}
    for source, numbers in some:
        if len(numbers):
            stream = source.in_key_order(numbers, begin)
            (streams if source.line is None else lines.setdefault(source.line, [])).append(stream)
    streams += map(chain.from_iterable, lines.values())
    return streams[0] if len(streams) == 1 else heapq.merge(*streams, key=key_of)


def by_order(
    sources: Sequence[Records], question: Question, cursor: Cursor | None
) -> Iterator[tuple[bytes | None, Found]]:
    """(term, record) in the question's order, ties by key, those without the field last; from `cursor` on."""
    field, falling = question.order_field, question.falling
    done = Span(LOWEST, HIGHEST)
    if cursor is not None and cursor.term is not None:
        done = Span(LOWEST, cursor.term + b"\0") if falling else Span(cursor.term, HIGHEST)
    if cursor is None or cursor.term is not None:
        runs = [ordered_runs(source, question, done) for source in sources]
        for term, streams in merged_runs(runs, falling):
            begin = cursor.key if cursor is not None and term == cursor.term else ""
            for one in in_key_order(streams, begin):
                if not begin or one[0] > begin:
                    yield term, one
    begin = cursor.key if cursor is not None and cursor.term is None else ""
    left = []
    for source in sources:
        numbers = source.lacking(field, numbers_of(source, conditions_of(source, question)))
        left.append((source, numbers))
    for one in in_key_order(left, begin):
        if not begin or one[0] > begin:
            yield None, one


def ordered_runs(source: Records, question: Question, within: Span) -> Iterator[Run]:
    """The runs of a source in the question's order, of terms `within`."""
    field, falling = question.order_field, question.falling
    for name, span in spans_of(question):  # a range of the very field is where the order begins and ends
        if name == field:
            within = Span(max(within.low, span.low), min(within.high, span.high))
    if within.low >= within.high:
        return
    others = conditions_of(source, without_range(question, field))
    if others and not others[0].size:
        return
    if others and others[0].size <= FEW:
        runs = source.ranked(field, numbers_of(source, others), within, falling)
        others = []
    else:
        runs = source.walk(field, within, falling)
    for term, numbers in runs:
        for condition in others:
            numbers = condition.narrow(numbers)
        yield term, (source, numbers)


def without_range(question: Question, field: str) -> Question:
    if field not in question.ranges:
        return question
    return question._replace(ranges={name: bounds for name, bounds in question.ranges.items() if name != field})


def merged_runs(
    runs: Sequence[Iterator[Run]], falling: bool
) -> Iterator[tuple[bytes, list[tuple[Records, Sequence[int]]]]]:
    """One term after the other, with its records in all sources."""
    heads = [(head, run) for run in runs if (head := next(run, None)) is not None]
    while heads:
        term = (max if falling else min)(head[0] for head, _ in heads)
        yield term, [head[1] for head, _ in heads if head[0] == term]
        heads = [
            (following, run)
            for head, run in heads
            if (following := next(run, None) if head[0] == term else head) is not None
        ]


def by_relevance(
    layers: Layers, schema: Schema, collection: str, question: Question, hides: Hides
) -> Iterator[search.Ranked]:
    """The live records that a slice answers with, the best first."""
    asked, others = wording_of(question), question._replace(text="")
    admitted: list[set[int]] | None = None
    if not others.is_plain:
        sources = sources_of(layers, schema, collection)
        admitted = [set(numbers_of(source, conditions_of(source, others))) for source in sources]
    return search.search(layers, schema, collection, asked, hides, admitted)


class Tally(NamedTuple):
    """total: of the records; facets: by field, each value's term with how many of the records hold it."""

    total: int
    facets: dict[str, dict[bytes, int]]

    def plus(self, other: Tally) -> Tally:
        facets = {field: dict(counts) for field, counts in self.facets.items()}
        for field, counts in other.facets.items():
            known = facets.setdefault(field, {})
            for term, count in counts.items():
                known[term] = known.get(term, 0) + count
        return Tally(self.total + other.total, facets)


def tally(
    sources: Sequence[Records], question: Question, fields: Sequence[str], counts: Callable[[Found], bool]
) -> Tally:
    """How many records a slice answers with, and of which values. counts: whether one is to be counted here."""
    result = Tally(0, {field: {} for field in fields})
    for source in sources:
        numbers = numbers_of(source, conditions_of(source, question))
        live = {number for number in numbers if (found := source.entry(number)) is not None and counts(found)}
        facets = {}
        for field in fields:
            held = ((term, len(live.intersection(run))) for term, run in source.values(EQUAL + field))
            facets[field] = {term: count for term, count in held if count}
        result = result.plus(Tally(len(live), facets))
    return result


def kinds_in(sources: Iterable[Records], field: str) -> set[bytes]:
    """The kinds of values that a declared order holds: first bytes of its terms."""
    return set().union(*(source.kinds(field) for source in sources))


def by_value(slices: Sequence[Sequence[Records]], field: str, values: Sequence[Any]) -> list[list[list[Records]]]:
    """For each of some values of an indexed field the sources that may have records with it, by slice."""
    found = [terms.term(value) or b"" for value in values]
    wanted = sorted(set(found))
    held: dict[bytes, list[list[Records]]] = {term: [[] for _ in slices] for term in wanted}
    for number, sources in enumerate(slices):
        for source in sources:
            for term in source.within(EQUAL + field, wanted):
                held[term][number].append(source)
    return [held[term] for term in found]


def values_in(wanted: Any) -> list[Any]:
    """Each value that a condition asks for, once, in its order."""
    return list({terms.term(value): value for value in (wanted if isinstance(wanted, tuple) else (wanted,))}.values())


def all_values(slices: Sequence[Sequence[Records]], field: str) -> list[Any]:
    """Every value of an indexed field, in the order of values."""
    found = {term for sources in slices for source in sources for term, _ in source.values(EQUAL + field)}
    return sorted(map(terms.value_of, found), key=lambda value: terms.order_term(value) or b"")
