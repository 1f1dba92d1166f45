"""The index of the fresh packs of a slice, kept in memory: they are too small and too short-lived for one on flash.

It only grows while hops arrive, and is shared by the versions meanwhile. It knows entries by number; an entry never
changes, so what it says of one holds, and the version that asks takes those that are the newest of their key to it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import NamedTuple

import cbor2

from edged.feed.schema import Schema
from edged.replica.indexes.columns import ORDER
from edged.replica.indexes.index import HIGHEST, Standing, rules_of, standing_of, terms_of
from edged.replica.indexes.spelling import NearRun, WordList, near
from edged.replica.indexes.terms import span_of
from edged.replica.packs.pack import Pack

NO_STANDING: Standing = (0.0, "")


class FreshEntry(NamedTuple):
    """standing: of none where the collection has no text fields."""

    collection: str
    key: str
    pack: Pack
    place: int
    standing: Standing


class FreshIndex:
    """Numbers of `entries` by collection, group and term. Thread-safe."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.lock = threading.Lock()
        self.known: set[int] = set()  # id() of the packs taken in, which `packs` keeps alive
        self.packs: list[Pack] = []
        self.entries: list[FreshEntry] = []
        self.spans: dict[int, tuple[int, int]] = {}
        self.placed: dict[
            tuple[str, str], dict[int, bytes]
        ] = {}  # by collection and group of an order: terms by number
        self.numbers: dict[tuple[str, str], dict[bytes, list[int]]] = {}
        self.sorted: dict[tuple[str, str], list[bytes]] = {}

    def take(self, packs: list[Pack]) -> None:
        """Take in those of `packs` that are new. Raises DamageError."""
        if all(id(pack) in self.known for pack in packs):
            return
        with self.lock:
            for pack in packs:
                if id(pack) not in self.known:
                    self.take_pack(pack)
                    self.packs.append(pack)
                    self.known.add(id(pack))
            self.sorted = {}

    def take_pack(self, pack: Pack) -> None:
        for collection, rules in rules_of(self.schema, pack.meta.spans).items():
            span = pack.span(collection)
            for key, place in pack.walk(span.low, span.high):
                value = pack.value(place)
                if value is not None:
                    record, number = cbor2.loads(value), len(self.entries)
                    standing = standing_of(record, rules) if rules.text else NO_STANDING
                    self.entries.append(FreshEntry(collection, key.decode(), pack, place, standing))
                    if rules.interval and (found := span_of(record, rules.interval)) is not None:
                        self.spans[number] = found
                    for group, item in set(terms_of(record, rules)):
                        if group[:1] == ORDER:
                            self.placed.setdefault((collection, group), {})[number] = item
                            continue
                        self.numbers.setdefault((collection, group), {}).setdefault(item, []).append(number)

    def places(self, collection: str, group: str, wanted: bytes) -> list[int]:
        """Numbers of the entries that hold a term."""
        with self.lock:
            return list(self.numbers.get((collection, group), {}).get(wanted, ()))

    def ordered(self, collection: str, group: str) -> list[bytes]:
        """The terms of a group, sorted. Called with the lock."""
        found = self.sorted.get((collection, group))
        if found is None:
            found = self.sorted[collection, group] = sorted(self.numbers.get((collection, group), {}))
        return found

    def values(self, collection: str, group: str) -> list[tuple[bytes, list[int]]]:
        """Every term of a group with the numbers of its entries, rising."""
        with self.lock:
            return [
                (item, list(numbers)) for item, numbers in sorted(self.numbers.get((collection, group), {}).items())
            ]

    def places_from(self, collection: str, group: str, beginning: bytes) -> list[int]:
        """Numbers of the entries that hold a term with that beginning, some of them more than once."""
        with self.lock:
            held, ordered = self.numbers.get((collection, group), {}), self.ordered(collection, group)
            found = ordered[bisect_left(ordered, beginning) : bisect_left(ordered, beginning + HIGHEST)]
            return [number for item in found for number in held[item]]

    def near(self, collection: str, group: str, typed: str) -> list[NearRun]:
        """See spelling.near."""
        with self.lock:
            return near(WordList(self.ordered(collection, group)), typed)

    def near_words(self, collection: str, group: str, typed: str) -> list[str]:
        """The words one typing error away."""
        with self.lock:
            held = WordList(self.ordered(collection, group))
            return [held.word(run.low).decode() for run in near(held, typed) if run.whole]

    def places_among(self, collection: str, group: str, low: int, high: int) -> list[int]:
        """Numbers of the entries that hold terms `low` to before `high`, some of them more than once."""
        with self.lock:
            held = self.numbers.get((collection, group), {})
            return [number for item in self.ordered(collection, group)[low:high] for number in held[item]]
