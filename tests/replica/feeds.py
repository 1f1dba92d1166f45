"""A publisher in memory: keeps the content of a slice and makes its snapshot parts and hops."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edged.feed import cbor
from edged.feed.blob import BlobRef
from edged.feed.coding.changes import Change
from edged.feed.coding.hop import pack_hop
from edged.feed.coding.snapshot import encode_snapshot, train_dictionary
from edged.feed.digest import SetHash
from edged.feed.schema import CollectionSchema, Schema
from edged.replica.writer import Writer

Records = dict[tuple[str, str], bytes]

GENRES = ["Drama", "Comedy", "Noir", "Western", "Horror", "Romance", "Musical"]
FIRST = ["Amélie", "Björn", "Chloë", "Dürer", "Émile", "Frank", "Grete", "Håkon", "Ingrid", "Łukasz"]
NOUNS = ["Pulp", "Fiction", "River", "Garden", "Señor", "Night", "Stranger", "Café", "Ocean", "Winter", "Letter"]
SCHEMA = Schema({"titles": CollectionSchema(("year", "genres"), ("title", "cast"))})


def made_up(count: int, seed: int = 1, mark: str = "") -> Records:
    """`count` films and a tenth as many people. mark: in the keys, for slices that share no record."""
    chance = random.Random(seed)
    records: Records = {}
    for number in range(count):
        records["titles", f"{1950 + number % 70}/{mark}{number:06d}"] = cbor.encode(film(number, chance))
    for number in range(count // 10):
        records["people", f"p{mark}{number:05d}"] = cbor.encode({"name": chance.choice(FIRST), "number": number})
    return records


def film(number: int, chance: random.Random) -> dict[str, Any]:
    return {
        "title": " ".join(chance.choices(NOUNS, k=chance.randint(1, 3))) + f" {number}",
        "year": 1950 + number % 70,
        "genres": chance.sample(GENRES, 2),
        "cast": [f"{chance.choice(FIRST)} {chance.choice(NOUNS)}" for _ in range(3)],
        "extract": " ".join(chance.choices(NOUNS + GENRES + FIRST, k=25)),
    }


@dataclass
class Content:
    """The records of a slice. Satisfies feed.coding.changes.Lookup."""

    records: Records

    def get(self, collection: str, key: str) -> bytes | None:
        return self.records.get((collection, key))

    def keys(self, collection: str) -> Iterator[str]:
        return iter(sorted((name[1] for name in self.records if name[0] == collection), key=str.encode))

    def before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        below = max((name[1] for name in self.records if name[0] == collection and name[1] < key), default=None)
        return None if below is None else (below, self.records[collection, below])


@dataclass
class Publisher:
    """Slices of one dataset by name, at `version`."""

    slices: dict[str, Records]
    version: int = 1
    dictionaries: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, records in self.slices.items():
            self.dictionaries[name] = train_dictionary([(*key, value) for key, value in sorted(records.items())])

    def digest(self, name: str) -> tuple[bytes, int]:
        total = SetHash()
        for (collection, key), value in self.slices[name].items():
            total.add(collection, key, value)
        return total.digest(), len(self.slices[name])

    def parts(self, name: str) -> list[bytes]:
        records = ((*key, value) for key, value in sorted(self.slices[name].items()))
        return list(encode_snapshot(records, self.dictionaries[name], level=3))

    def hop(self, name: str, changes: Mapping[tuple[str, str], bytes | None]) -> bytes:
        """Change the slice and return the hop; the version is the caller's to raise."""
        old = Content(dict(self.slices[name]))
        return pack_hop(self.apply(name, changes), old, self.dictionaries[name])

    def edit(self, name: str, count: int, chance: random.Random) -> dict[tuple[str, str], bytes | None]:
        """`count` lifelike changes: most alter a field, some add, some delete."""
        known = sorted(self.slices[name])
        changes: dict[tuple[str, str], bytes | None] = {}
        for _ in range(count):
            collection, key = chance.choice(known)
            kind = chance.random()
            if kind < 0.1:
                changes[collection, key] = None
            elif kind < 0.25:
                changes["titles", f"{chance.randint(1950, 2019)}/new{chance.randint(0, 999999)}"] = cbor.encode(
                    film(chance.randint(0, 999999), chance)
                )
            else:
                record = cbor.decode(self.slices[name][collection, key], "test")
                record["note"] = chance.randint(0, 1 << 40)
                changes[collection, key] = cbor.encode(record)
        return changes

    def snapshot_into(self, writer: Writer, *, schema: Schema = SCHEMA) -> None:
        """Sync everything as a fresh device would."""
        with writer.stage() as staging:
            for name in self.slices:
                staging.begin_snapshot(name, self.version, self.dictionaries[name])
                for part in self.parts(name):
                    staging.add_part(name, BlobRef.of(part), part)
                assert staging.digest(name) == self.digest(name)
            staging.set_schema(schema, self.version)
            staging.commit(self.version, b"head %d" % self.version, as_of=self.version, fresh_s=60, expires_s=600)

    def apply(self, name: str, changes: Mapping[tuple[str, str], bytes | None]) -> list[Change]:
        """Change the slice; the changes as a hop decodes to."""
        records = self.slices[name]
        for key, value in changes.items():
            if value is None:
                records.pop(key, None)
            else:
                records[key] = value
        return [Change(*key, value) for key, value in changes.items()]

    def hop_into(self, writer: Writer, count: int, chance: random.Random, *, coded: bool = False) -> None:
        """Publish one more version and apply it; `coded` goes by the feed's coding, which takes longer."""
        self.version += 1
        with writer.stage() as staging:
            for name in self.slices:
                changes = self.edit(name, count, chance)
                if coded:
                    staging.apply_hop(name, self.version, self.hop(name, changes))
                else:
                    staging.apply_changes(name, self.version, self.apply(name, changes))
            staging.commit(self.version, b"head %d" % self.version, as_of=self.version, fresh_s=60, expires_s=600)


def filled(data_dir: Path, count: int = 500, hops: int = 0, seed: int = 1) -> Publisher:
    """A replica `catalog` with one slice of made-up records, and its publisher."""
    publisher = Publisher({"core": made_up(count, seed)})
    chance = random.Random(seed)
    with Writer.open(data_dir, "catalog") as writer:
        publisher.snapshot_into(writer)
        for _ in range(hops):
            publisher.hop_into(writer, 10, chance)
    return publisher
