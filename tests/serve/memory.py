"""A catalog in memory, of the same interface as the replica's reader, that publishes on demand."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import islice
from typing import Any

import cbor2

from edged.errors import ChainError
from edged.feed.cbor import encode, encode_record
from edged.feed.schema import CollectionSchema, Schema, ViewRule
from edged.replica.finds import Group, Match
from edged.replica.indexes import terms
from edged.replica.layers.fieldpaths import paths_in
from edged.replica.layers.query import Tally, values_in
from edged.replica.layers.question import (
    Cursor,
    Declared,
    Question,
    check,
    from_group,
    groups_of,
    is_past,
    read_cursor,
    settled,
    spans_of,
)

NOW = 1_800_000_000.0

SCHEMA = Schema(
    {"titles": CollectionSchema(("year", "genres"), ("title",))},
    {
        "stb-basic": {
            "titles": ViewRule(
                fields=("title", "year", "poster"),
                truncate={"title": 5},
                choose={"poster": ("w342", "w185")},
                rename={"year": "released"},
            )
        }
    },
)


@dataclass(frozen=True)
class MemorySlice:
    version: int
    records: int


@dataclass(frozen=True)
class MemoryChange:
    collection: str
    key: str
    value: bytes | None
    version: int


@dataclass(frozen=True)
class MemoryView:
    dataset: str
    version: int
    records: Mapping[str, Mapping[str, bytes]]
    journal: tuple[MemoryChange, ...]
    taken_down: frozenset[tuple[str, str]]
    as_of: int = int(NOW) - 10
    fresh_s: int = 3600
    expires_s: int = 86400
    schema: Schema = SCHEMA
    changes_from: int = 0
    trained: bytes = b""
    time: int = 0
    next_change: int | None = None
    part: frozenset[str] = frozenset()

    def of_slices(self, names: frozenset[str]) -> MemoryView:
        """A record is in the slices that its field `slices` names, else in core."""

        def has(value: bytes | None) -> bool:
            return value is not None and bool(names & set(cbor2.loads(value).get("slices", ["core"])))

        records = {name: {key: raw for key, raw in held.items() if has(raw)} for name, held in self.records.items()}
        journal = tuple(change for change in self.journal if has(change.value))
        return replace(self, records=records, journal=journal, taken_down=frozenset(), part=names)

    def dictionary(self, collection: str) -> tuple[bytes, bytes]:
        return (sha256(self.trained).digest(), self.trained) if self.trained else (b"", b"")

    @property
    def slices(self) -> Mapping[str, MemorySlice]:
        return {"core": MemorySlice(self.version, sum(self.collections.values()))}

    @property
    def collections(self) -> Mapping[str, int]:
        return {name: len(records) for name, records in self.records.items()}

    def get_raw(self, collection: str, key: str) -> bytes | None:
        return None if (collection, key) in self.taken_down else self.records.get(collection, {}).get(key)

    def is_taken_down(self, collection: str, key: str) -> bool:
        return (collection, key) in self.taken_down

    def get_many_raw(self, collection: str, keys: Sequence[str]) -> list[bytes | None]:
        return [self.get_raw(collection, key) for key in keys]

    def scan(
        self, collection: str, *, after: str | None = None, prefix: str = "", limit: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        keys = sorted(self.records[collection], key=str.encode)
        begin = 0 if after is None else bisect_right([key.encode() for key in keys], after.encode())
        found = [key for key in keys[begin:] if key.startswith(prefix)]
        return iter([(key, self.records[collection][key]) for key in found[:limit]])

    def fits(self, collection: str, question: Question) -> list[Match]:
        """By a look at every record."""
        question = check(question, self.declared(collection))
        rules = self.schema.collections.get(collection, CollectionSchema())

        def holds(value: Any) -> bool:
            span = terms.span_of(value, rules.interval) if question.during else None
            words = {word for name in rules.text for word in terms.record_words(value, name)}
            placed = {name: terms.order_term_of(value, name, times=name in rules.times) for name in question.ranges}
            return (
                all(terms.record_terms(value, name) & set(wanted) for name, wanted in by_field(question))
                and all((placed[name] or b"") >= low for name, (low, _) in spans_of(question))
                and all((placed[name] or b"\xff") < high for name, (_, high) in spans_of(question))
                and (
                    not question.during
                    or (span is not None and span[0] < question.during[1] and span[1] > question.during[0])
                )
                and (not question.text or bool(terms.words(question.text)))
                and all(any(held.startswith(word) for held in words) for word in terms.words(question.text))
            )

        def kinds(field: str) -> set[bytes]:
            every = (cbor2.loads(raw) for _, raw in self.scan(collection))
            return {(terms.order_term_of(value, field, times=field in rules.times) or b"")[:1] for value in every}

        question = settled(question, kinds)
        found = [Match(key, raw) for key, raw in self.scan(collection) if holds(cbor2.loads(raw))]
        if question.is_ranked:
            found.sort(key=lambda match: len(match.value))
            return [match._replace(position=number) for number, match in enumerate(found)]
        if question.order:
            found = [
                match._replace(term=terms.order_term_of(cbor2.loads(match.value), question.order_field))
                for match in found
            ]
            placed = [match for match in found if match.term is not None]
            placed.sort(key=lambda match: match.term or b"", reverse=question.falling)
            return placed + [match for match in found if match.term is None]
        return found

    def declared(self, collection: str) -> Declared:
        return Declared(self.schema.collections.get(collection, CollectionSchema()), collection, self.dataset)

    def ask(self, collection: str, question: Question, *, limit: int | None = None) -> Iterator[Match]:
        cursor, found, seen = read_cursor(question), self.fits(collection, question), set[bytes]()
        if question.distinct:
            every, found = found, []
            for match in every:
                held = terms.record_terms(cbor2.loads(match.value), question.distinct)
                if not held or not held <= seen:
                    found.append(match)
                seen |= held
        if cursor is not None and question.is_ranked:
            found = [match for match in found if match.position > cursor.position]
        elif cursor is not None:
            found = [match for match in found if is_past(Cursor(match.term, match.key), cursor, question)]
        return iter(found[:limit])

    def ask_by_group(self, collection: str, question: Question, field: str, *, limit: int) -> Iterator[Group]:
        self.declared(collection).require(f"group={field}", field, "index")
        after, question = question.after, question._replace(after=None)
        wanted = question.where.get(field)
        held = {term for _, raw in self.scan(collection) for term in terms.record_terms(cbor2.loads(raw), field)}
        every = sorted(map(terms.value_of, held), key=lambda value: terms.order_term(value) or b"")
        for value, cursor in from_group(every if wanted is None else values_in(wanted), after):
            found = list(self.ask(collection, question._replace(where={**question.where, field: value}), limit=limit))
            if found:
                yield Group(value, found, cursor)

    def tally(self, collection: str, question: Question, facets: Sequence[str] = ()) -> Tally:
        for name in facets:
            self.declared(collection).require(f"facets={name}", name, "index")
        found = self.fits(collection, question)
        counts: dict[str, dict[bytes, int]] = {name: {} for name in facets}
        for name in facets:
            for match in found:
                for term in terms.record_terms(cbor2.loads(match.value), name):
                    counts[name][term] = counts[name].get(term, 0) + 1
        return Tally(len(found), counts)

    def lacking(self, collection: str, paths: Sequence[str], *, look: bool) -> list[str] | None:
        there = {path for _, raw in self.scan(collection) for path in paths_in(cbor2.loads(raw), "")}
        return [path for path in paths if path not in there]

    def referring(self, collection: str, path: str, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
        wanted = set(keys)
        for key, raw in self.scan(collection):
            for held in terms.field_values(cbor2.loads(raw), path):
                if isinstance(held, str) and held in wanted:
                    yield held, key

    def tells(self, since: int, at: int | None = None) -> bool:
        return self.changes_from <= since <= self.version

    def changes(self, since: int, at: int | None = None) -> Iterator[MemoryChange]:
        if since < self.changes_from:
            raise ChainError(f"changes since {since}: kept from {self.changes_from} on")
        newest = {(c.collection, c.key): c for c in self.journal if c.version > since}
        return iter(sorted(newest.values(), key=lambda c: (c.version, c.collection, c.key.encode())))


def by_field(question: Question) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    return ((group.removeprefix("="), wanted) for group, wanted in groups_of(question))


@dataclass
class MemoryDataset:
    fault = None
    name: str
    version: int = 0
    records: dict[str, dict[str, bytes]] = field(default_factory=dict)
    journal: list[MemoryChange] = field(default_factory=list)
    taken_down: set[tuple[str, str]] = field(default_factory=set)
    changes_from: int = 0
    as_of: int = int(NOW) - 10
    trained: bytes = b""
    schema: Schema = SCHEMA
    made: MemoryView | None = None
    relaxed: int = 0

    def relax(self) -> None:
        self.relaxed += 1

    def publish(self, collection: str, edits: Mapping[str, Any]) -> int:
        """Set (or, with None, remove) records as one new version."""
        self.version += 1
        records = self.records.setdefault(collection, {})
        for key, value in edits.items():
            raw = None if value is None else encode_record(value, key)
            self.journal.append(MemoryChange(collection, key, raw, self.version))
            if raw is None:
                records.pop(key, None)
            else:
                records[key] = raw
        self.made = None
        return self.version

    def take_down(self, collection: str, key: str) -> None:
        self.version += 1
        self.taken_down.add((collection, key))
        self.made = None

    def view(self) -> MemoryView:
        if self.made is None:
            self.made = MemoryView(
                self.name,
                self.version,
                {name: dict(records) for name, records in self.records.items()},
                tuple(self.journal),
                frozenset(self.taken_down),
                as_of=self.as_of,
                changes_from=self.changes_from,
                trained=self.trained,
                schema=self.schema,
            )
        return self.made


def film(number: int) -> dict[str, Any]:
    return {
        "title": f"Film número {number}",
        "year": 1990 + number % 10,
        "genres": ["Drama", "Noir"] if number % 2 else ["Comedy"],
        "rating": number / 8,
        "poster": {"w185": f"/p/185/{number}.jpg", "w342": f"/p/342/{number}.jpg"},
        "extract": "A long text. " * 40,
    }


def make_dataset(count: int = 120) -> MemoryDataset:
    dataset = MemoryDataset("catalog")
    dataset.publish("titles", {f"{1990 + n % 10}/Film_{n:04}": film(n) for n in range(count)})
    dataset.publish("people", {"a b&c,d": {"name": "Ann"}, "ü/1%": {"name": "Ü"}})
    # As a slice's dictionary is: before the samples of each collection its name.
    for name, count in (("people", 2), ("titles", 30)):
        dataset.trained += b"".join([encode(name), *islice(dataset.records[name].values(), count)])
    return dataset
