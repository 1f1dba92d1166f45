"""Indexes of one pack: for each term of a declared field the places of the entries that hold it, in rising order.

Terms are kept in groups: `=FIELD` for a declared field, `<FIELD` for one with a declared order, `@FIELD` for one that
holds keys of other records, and for text `^` (the first word of the title, which is the first text field), `0` (all its
words) and `1` (those of the others). The terms of a group are sorted and their postings lie one after the other, so
that all words with one beginning are one run.
Postings of words do not name places but ranks, the records being ranked by title: so the first of many are found
without looking at the records. The group `#` has the place of each rank. Specification: docs/replica.md.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import cbor2

from edged.errors import DamageError, WireError
from edged.feed import cbor
from edged.feed.schema import CollectionSchema, Schema, collection_from_cbor, collection_to_cbor
from edged.replica.indexes import terms
from edged.replica.indexes.columns import ORDER, ColumnWriter, read_columns
from edged.replica.indexes.spelling import Branch, NearRun, first_letters, near
from edged.replica.indexes.windows import ALWAYS, window_of
from edged.replica.packs.pack import Buffer, Pack

MAGIC = b"\x89EDGIX\r\n"
FORMAT = 8
# magic, format, bytes a posting, bytes of: meta, terms, positions, postings, columns; CRC-32 of all that follows
HEADER = struct.Struct("<8sHHIIIIII")
CRC = struct.Struct("<I")
REFERENCE = "@"
FIRST_WORD, TITLE, OTHERS, RANKED = "^", "0", "1", "#"
ALL = b""  # the one term of the group `#`
HIGHEST = "\U0010ffff".encode()
Groups = dict[tuple[str, str], dict[bytes, "array[int]"]]  # by collection and group: the postings of each term
NO_RUN: Sequence[int] = ()
NUMBERS = range(1 << 32)


Standing = tuple[float, str]  # by which equally good finds of a search are put in order


def standing_of(record: Any, rules: CollectionSchema) -> Standing:
    """The declared rank, the greatest first, then the folded words of the first text field but for an article."""
    found = [word for text in terms.record_texts(record, rules.text[0]) for word in terms.words(text, spelt_out=True)]
    return terms.standing(record, rules.rank), " ".join(terms.without_article(found))


def terms_of(record: Any, rules: CollectionSchema) -> Iterator[tuple[str, bytes]]:
    """(group, term) of everything that the indexes hold of a record."""
    for name in rules.index:
        for item in terms.record_terms(record, name):
            yield "=" + name, item
    for name in rules.order:
        placed = terms.order_term_of(record, name, times=name in rules.times)
        if placed is not None:
            yield ORDER + name, placed
    for name in rules.refs:
        for item in terms.record_terms(record, name):
            if item[:1] == b"s":
                yield REFERENCE + name, item
    for number, name in enumerate(rules.text):
        for text in terms.record_texts(record, name):
            if not number:
                for word in terms.first_words(text):
                    yield FIRST_WORD, word.encode("utf-8", "surrogatepass")
            for word in (*terms.words(text), *terms.other_forms(text)):
                yield OTHERS if number else TITLE, word.encode("utf-8", "surrogatepass")


def rules_of(schema: Schema, names: Iterable[str]) -> dict[str, CollectionSchema]:
    """The rules of those of the collections that have any."""
    known = {name: schema.collections.get(name, CollectionSchema()) for name in names}
    return {
        name: rules._replace(min_count=0, refs=dict.fromkeys(rules.refs, ""))  # without what says nothing of indexes
        for name, rules in known.items()
        if rules.index or rules.text or rules.order or rules.interval or rules.refs or rules.valid
    }


def build_index(pack: Pack, schema: Schema) -> bytes | None:
    """The index file of a pack, None where the schema declares nothing for it. Raises DamageError."""
    groups: Groups = {}
    columns = ColumnWriter()
    rules = rules_of(schema, pack.meta.spans)
    for collection, rule in rules.items():
        span = pack.span(collection)
        titles: list[tuple[Standing, int]] = []
        spans: list[tuple[int, int] | None] = [None] * (span.high - span.low)
        windows = [ALWAYS] * (span.high - span.low)
        for place in range(span.low, span.high):
            value = pack.value(place)
            if value is None:
                continue
            record = cbor2.loads(value)
            if rule.interval:
                spans[place - span.low] = terms.span_of(record, rule.interval)
            if rule.valid:
                windows[place - span.low] = window_of(record, rule.valid)
            for group, item in set(terms_of(record, rule)):
                groups.setdefault((collection, group), {}).setdefault(item, array("I")).append(place)
            if rule.text:
                titles.append((standing_of(record, rule), place))
        if titles:
            rank_by_title(groups, collection, [place for _, place in sorted(titles)])
        for name in rule.order:
            ranks = [0] * (span.high - span.low)
            for number, (_, places) in enumerate(sorted(groups.get((collection, ORDER + name), {}).items()), 1):
                for place in places:
                    ranks[place - span.low] = number
            columns.add_order(collection, name, span.low, ranks)
        if rule.interval:
            columns.add_interval(collection, span.low, spans)
        if rule.valid:
            columns.add_windows(collection, span.low, windows)
    return encode_index(groups, len(pack), rules, columns) if rules else None


def rank_by_title(groups: Groups, collection: str, ordered: list[int]) -> None:
    """Turn the places in the postings of words into ranks. ordered: the place of each rank."""
    ranks = {place: rank for rank, place in enumerate(ordered)}
    for group in (FIRST_WORD, TITLE, OTHERS):
        held = groups.get((collection, group), {})
        for item, places in held.items():
            held[item] = array("I", sorted(map(ranks.__getitem__, places)))
    groups[collection, RANKED] = {ALL: array("I", ordered)}


def encode_index(
    groups: Mapping[tuple[str, str], Mapping[bytes, array[int]]],
    count: int,
    rules: Mapping[str, CollectionSchema],
    columns: ColumnWriter,
) -> bytes:
    """The file. count: of the pack's entries; rules: those it was built by."""
    width = 2 if count <= 1 << 16 else 4
    words, starts, runs = bytearray(), array("I"), array("I")
    postings = array("H" if width == 2 else "I")
    table: list[list[Any]] = []
    for (collection, group), held in sorted(groups.items()):
        first = len(starts)
        for item, places in sorted(held.items()):
            starts.append(len(words))
            runs.append(len(postings))
            words += item
            postings.fromlist(places.tolist())
        table.append([collection, group, first, len(starts)])
    starts.append(len(words))
    runs.append(len(postings))
    declared = {name: collection_to_cbor(rule) for name, rule in rules.items()}
    meta = padded([table, declared, columns.table])
    words += bytes(-len(words) % 4)
    body = b"".join((meta, words, starts.tobytes(), runs.tobytes(), postings.tobytes(), columns.data))
    sizes = (len(meta), len(words), 4 * len(starts), width * len(postings), len(columns.data))
    head = HEADER.pack(MAGIC, FORMAT, width, *sizes, zlib.crc32(body))
    return head + CRC.pack(zlib.crc32(head)) + body


def padded(items: list[Any]) -> bytes:
    """A CBOR array of a multiple of four bytes, zeros being appended to its items."""
    data = cbor.encode(items)
    return data if not len(data) % 4 else cbor.encode([*items, *([0] * (-len(data) % 4))])


class Index:
    """An index file, its checksum checked when it is opened. Raises DamageError."""

    def __init__(self, buffer: Buffer, file: str) -> None:
        head = buffer[: HEADER.size + CRC.size]
        if len(head) < HEADER.size + CRC.size or zlib.crc32(head[: HEADER.size]) != CRC.unpack(head[HEADER.size :])[0]:
            raise DamageError(f"read {file}: the index's header is damaged; it is made anew")
        magic, form, width, meta_bytes, words_bytes, positions, postings, columns, crc = HEADER.unpack(
            head[: HEADER.size]
        )
        whole = memoryview(cast(bytes, buffer))[len(head) :]
        if magic != MAGIC or form != FORMAT or width not in (2, 4):
            raise DamageError(f"read {file}: not an index of format {FORMAT}; it is made anew")
        if len(whole) != meta_bytes + words_bytes + 2 * positions + postings + columns or zlib.crc32(whole) != crc:
            raise DamageError(f"read {file}: the index's checksum does not hold; it is made anew")
        ends = [meta_bytes, meta_bytes + words_bytes]
        ends += [ends[-1] + positions, ends[-1] + 2 * positions, ends[-1] + 2 * positions + postings]
        self.last_near: tuple[tuple[str, str, str], list[NearRun]] = ("", "", ""), []
        self.starts: Sequence[int] = whole[ends[1] : ends[2]].cast("I")
        self.term = reader_of(buffer, len(head) + meta_bytes, self.starts)
        self.runs: Sequence[int] = whole[ends[2] : ends[3]].cast("I")
        self.postings: memoryview[int] = whole[ends[3] : ends[4]].cast("H" if width == 2 else "I")
        self.groups: dict[tuple[str, str], tuple[int, int]] = {}
        self.known_kinds: dict[tuple[str, str], frozenset[bytes]] = {}
        self.known_letters: dict[tuple[str, str], list[Branch]] = {}
        self.rules: dict[str, CollectionSchema] = {}
        self.read_meta(bytes(whole[:meta_bytes]), whole[ends[4] :], file)

    def read_meta(self, data: bytes, columns: memoryview[int], file: str) -> None:
        try:
            table, rules, described, *_ = cbor.decode(data, f"index {file}", depth=6)
            self.orders, self.intervals, self.windows = read_columns(described, columns)
            self.rules = {name: collection_from_cbor(rule) for name, rule in rules.items()}
        except (WireError, ValueError, TypeError) as fault:
            raise DamageError(f"read {file}: the index's description cannot be decoded; it is made anew") from fault
        self.groups = {(collection, group): (first, end) for collection, group, first, end in table}

    def bisect(self, first: int, end: int, wanted: bytes) -> int:
        """The first term of a group that is at least `wanted`."""
        return bisect_left(NUMBERS, wanted, first, end, key=self.term)

    def within(self, collection: str, group: str, wanted: Sequence[bytes]) -> Sequence[bytes]:
        """Those of some rising terms that lie between the first and the last of a group."""
        first, end = self.groups.get((collection, group), (0, 0))
        if first == end:
            return ()
        low = bisect_left(wanted, self.term(first))
        return wanted[low : bisect_right(wanted, self.term(end - 1), low)]

    def kinds(self, collection: str, group: str) -> frozenset[bytes]:
        """The first bytes of the terms of a group, which say of which type values are."""
        found = self.known_kinds.get((collection, group))
        if found is None:
            first, end = self.groups.get((collection, group), (0, 0))
            kinds = set()
            while first < end:
                kind = self.term(first)[:1]
                kinds.add(kind)
                first = self.bisect(first, end, bytes([kind[0] + 1]))
            found = self.known_kinds[collection, group] = frozenset(kinds)
        return found

    def places(self, collection: str, group: str, wanted: bytes) -> Sequence[int]:
        """Places of the entries that hold a term, rising; of a word their ranks."""
        first, end = self.groups.get((collection, group), (0, 0))
        number = self.bisect(first, end, wanted)
        if number == end or self.term(number) != wanted:
            return NO_RUN
        return self.postings[self.runs[number] : self.runs[number + 1]]

    def near(self, collection: str, group: str, typed: str) -> list[NearRun]:
        """See spelling.near. Remembered is what was asked for last, which comes in several tiers."""
        if self.last_near[0] != (collection, group, typed):
            found = near(GroupTerms(self, (collection, group)), typed)
            self.last_near = (collection, group, typed), found
        return self.last_near[1]

    def near_words(self, collection: str, group: str, typed: str) -> list[str]:
        """The words one typing error away."""
        return [self.term(run.low).decode() for run in self.near(collection, group, typed) if run.whole]

    def places_among(self, collection: str, group: str, low: int, high: int) -> Sequence[int]:
        """Ranks of the entries that hold terms `low` to before `high`, some of them more than once."""
        return self.postings[self.runs[low] : self.runs[high]]

    def places_from(self, collection: str, group: str, beginning: bytes) -> Sequence[int]:
        """Ranks of the entries that hold a word with that beginning, in no order, some of them more than once."""
        first, end = self.groups.get((collection, group), (0, 0))
        low = self.bisect(first, end, beginning)
        high = self.bisect(low, end, beginning + HIGHEST)
        return self.postings[self.runs[low] : self.runs[high]]


def reader_of(buffer: Buffer, base: int, starts: Sequence[int]) -> Callable[[int], bytes]:
    """What gives a term by its number, which a search does some thousand times."""

    def term(number: int) -> bytes:
        return buffer[base + starts[number] : base + starts[number + 1]]

    return term


class GroupTerms:
    """The terms of one group, by collection and name. Satisfies spelling.Lexicon."""

    def __init__(self, index: Index, name: tuple[str, str]) -> None:
        self.index, self.name = index, name
        self.first, self.end = index.groups.get(name, (0, 0))
        self.word = index.term

    def lower(self, wanted: bytes, low: int, high: int, /) -> int:
        return self.index.bisect(low, high, wanted)

    def first_letters(self) -> Sequence[Branch]:
        known = self.index.known_letters
        if self.name not in known:
            known[self.name] = first_letters(self)
        return known[self.name]


def holds(run: Sequence[int], place: int) -> bool:
    """Whether a rising run holds a place."""
    at = bisect_left(run, place)
    return at < len(run) and run[at] == place
