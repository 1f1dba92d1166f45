"""The index of the fresh packs of a slice, kept in memory: they are too small and too short-lived for one on flash.

It only grows while hops arrive, and is shared by the versions meanwhile; so what it finds is a candidate, and the
version that asks looks at the record itself.
"""

from __future__ import annotations

import threading
from bisect import bisect_left

import cbor2

from edged.feed.schema import Schema
from edged.replica.index import HIGHEST, rules_of, terms_of
from edged.replica.pack import Pack


class FreshIndex:
    """Keys by collection, group and term. Thread-safe."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.lock = threading.Lock()
        self.known: set[int] = set()  # id() of the packs taken in, which `packs` keeps alive
        self.packs: list[Pack] = []
        self.keys: dict[tuple[str, str], dict[bytes, set[str]]] = {}
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
                    for group, item in terms_of(cbor2.loads(value), rules):
                        self.keys.setdefault((collection, group), {}).setdefault(item, set()).add(key.decode())

    def places(self, collection: str, group: str, wanted: bytes) -> set[str]:
        """Keys of records that hold or held a term."""
        with self.lock:
            return set(self.keys.get((collection, group), {}).get(wanted, ()))

    def places_from(self, collection: str, group: str, beginning: bytes) -> set[str]:
        """Keys of records that hold or held a term with that beginning."""
        with self.lock:
            held = self.keys.get((collection, group), {})
            ordered = self.sorted.get((collection, group))
            if ordered is None:
                ordered = self.sorted[collection, group] = sorted(held)
            low = bisect_left(ordered, beginning)
            high = bisect_left(ordered, beginning + HIGHEST)
            return set().union(*(held[item] for item in ordered[low:high]))
