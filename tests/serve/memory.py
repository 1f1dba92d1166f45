"""A catalog in memory, of the same interface as the replica's reader, that publishes on demand."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import Any

import cbor2

from edged.errors import ChainError
from edged.feed.cbor import encode, encode_record
from edged.feed.schema import CollectionSchema, Schema, ViewRule

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

    def dictionary(self, collection: str) -> tuple[bytes, bytes]:
        return (sha256(self.trained).digest(), self.trained) if self.trained else (b"", b"")

    @property
    def slices(self) -> Mapping[str, MemorySlice]:
        return {"core": MemorySlice(self.version, sum(self.collections.values()))}

    @property
    def collections(self) -> Mapping[str, int]:
        return {name: len(records) for name, records in self.records.items()}

    def get_raw(self, collection: str, key: str) -> bytes | None:
        return None if (collection, key) in self.taken_down else self.records[collection].get(key)

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

    def where(
        self, collection: str, conditions: Mapping[str, Any], *, after: str | None = None, limit: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        def fits(raw: bytes) -> bool:
            value = cbor2.loads(raw)
            for name, wanted in conditions.items():
                have = value.get(name)
                items = have if isinstance(have, list) else [have]
                any_of = wanted if isinstance(wanted, tuple) else (wanted,)
                if not any(type(item) is type(one) and item == one for item in items for one in any_of):
                    return False
            return True

        return iter([item for item in self.scan(collection, after=after) if fits(item[1])][:limit])

    def search(self, collection: str, text: str, *, limit: int = 50) -> list[tuple[str, bytes]]:
        found = [(k, raw) for k, raw in self.scan(collection) if text.lower() in cbor2.loads(raw)["title"].lower()]
        return sorted(found, key=lambda item: len(item[1]))[:limit]

    def changes(self, since: int) -> Iterator[MemoryChange]:
        if since < self.changes_from:
            raise ChainError(f"changes since {since}: kept from {self.changes_from} on")
        newest = {(c.collection, c.key): c for c in self.journal if c.version > since}
        return iter(sorted(newest.values(), key=lambda c: (c.version, c.collection, c.key.encode())))


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
    made: MemoryView | None = None

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
