"""The replica and what stands next to it in benchmarks/replica.py, all used in one way; and the records for them.

Each store has `fill(records, dictionary)`, `apply(changed)`, `getter()` and `close()`. Records are (collection, key,
value) in key order; only the replica uses the dictionary.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cbor2
import diskcache
import lmdb
import zstandard

import edged
from edged.feed.blob import BlobRef
from edged.feed.coding.changes import Change
from edged.feed.coding.snapshot import encode_snapshot
from edged.feed.schema import CollectionSchema, Schema
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy

Record = tuple[str, str, bytes]
INDEXED = Schema({"titles": CollectionSchema(("year", "genres"))})
SEARCHED = Schema({"titles": CollectionSchema(("year", "genres"), ("title", "cast"))})


def films(data: Path | None, count: int = 36_000) -> list[Record]:
    """(collection, key, value) in order, of movies.ndjson.zst in the directory `data`, or made up."""
    if data is None:
        return list(made_up(count))
    with (data / "movies.ndjson.zst").open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
        lines = reader.read().splitlines()
    records = {}
    for line in lines:
        item = json.loads(line)
        records[item["collection"], item["key"]] = cbor2.dumps(item["value"], canonical=True)
    return [(*name, value) for name, value in sorted(records.items())]


def made_up(count: int) -> Iterator[Record]:
    """Records in key order, alike in size to a small film."""
    chance = random.Random(1)
    syllables = [a + b for a in "bcdfglmnprstv" for b in "aeiou"]
    vocabulary = ["".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(8000)]
    names = [word.title() for word in vocabulary[:3000]]
    for number in range(count):
        value = {
            "title": " ".join(chance.choices(vocabulary, k=chance.randint(1, 4))).title(),
            "year": 1950 + number * 70 // count,
            "genres": chance.sample(["Drama", "Comedy", "Noir", "Western", "Horror", "Musical"], 2),
            "cast": [" ".join(chance.choices(names, k=2)) for _ in range(3)],
            "extract": " ".join(chance.choices(vocabulary, k=40)),
        }
        key = f"{1950 + number * 70 // count}/{number:08d}"
        yield "titles", key, cbor2.dumps(value, canonical=True)


def edits_of(records: Sequence[Record], count: int, chance: random.Random, number: int) -> list[tuple[str, bytes]]:
    """`count` records with one field changed."""
    changed = []
    for _, key, value in chance.sample(records, count):
        record = cbor2.loads(value)
        record["popularity"] = number * 1000 + chance.randint(0, 999)
        changed.append((key, cbor2.dumps(record, canonical=True)))
    return changed


class Edged:
    """A replica under measurement."""

    name = "edged"

    def __init__(self, root: Path, schema: Schema = INDEXED, policy: MergePolicy | None = None) -> None:
        self.root = root / "edged"
        self.writer = Writer.open(self.root, "catalog")
        self.schema = schema
        self.policy = policy or MergePolicy()
        self.version = 1

    def fill(self, records: Iterable[Record], dictionary: bytes) -> None:
        with self.writer.stage() as staging:
            staging.begin_snapshot("core", 1, dictionary)
            for part in encode_snapshot(records, dictionary, level=3):
                staging.add_part("core", BlobRef.of(part), part)
            staging.set_schema(self.schema, 1)
            staging.commit(1, b"h" * 600, as_of=1, fresh_s=1, expires_s=1)

    def apply(self, changed: list[tuple[str, bytes]]) -> None:
        self.version += 1
        with self.writer.stage() as staging:
            staging.apply_changes("core", self.version, [Change("titles", *item) for item in changed])
            staging.commit(self.version, b"h" * 600, as_of=self.version, fresh_s=1, expires_s=1)
        self.writer.compact(policy=self.policy)

    def getter(self) -> Callable[[str], bytes | None]:
        return edged.open(self.root)["catalog"]["titles"].get_raw

    def close(self) -> None:
        self.writer.close()


class Lmdb:
    name = "lmdb"

    def __init__(self, root: Path) -> None:
        self.root = root / "lmdb"
        self.env = lmdb.open(str(self.root), map_size=8 << 30)

    def fill(self, records: Iterable[Record], dictionary: bytes) -> None:
        with self.env.begin(write=True) as transaction:
            for _, key, value in records:
                transaction.put(key.encode(), value)

    def apply(self, changed: list[tuple[str, bytes]]) -> None:
        self.fill([("", key, value) for key, value in changed], b"")

    def getter(self) -> Callable[[str], bytes | None]:
        def get(key: str) -> bytes | None:
            with self.env.begin() as transaction:
                found: bytes | None = transaction.get(key.encode())
                return found

        return get

    def close(self) -> None:
        self.env.close()


class Sqlite:
    name = "sqlite"

    def __init__(self, root: Path) -> None:
        self.root = root / "sqlite"
        self.root.mkdir()
        self.connection = sqlite3.connect(self.root / "db", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def fill(self, records: Iterable[Record], dictionary: bytes) -> None:
        self.connection.execute("BEGIN")
        self.connection.executemany("REPLACE INTO records VALUES (?, ?)", ((key, value) for _, key, value in records))
        self.connection.execute("COMMIT")

    def apply(self, changed: list[tuple[str, bytes]]) -> None:
        self.fill([("", key, value) for key, value in changed], b"")

    def getter(self) -> Callable[[str], bytes | None]:
        execute = self.connection.execute

        def get(key: str) -> bytes | None:
            found = execute("SELECT value FROM records WHERE key = ?", (key,)).fetchone()
            return found[0] if found else None

        return get

    def close(self) -> None:
        self.connection.close()


class Diskcache:
    name = "diskcache"

    def __init__(self, root: Path) -> None:
        self.root = root / "diskcache"
        self.cache = diskcache.Cache(str(self.root), size_limit=1 << 40)

    def fill(self, records: Iterable[Record], dictionary: bytes) -> None:
        with self.cache.transact():
            for _, key, value in records:
                self.cache.set(key, value)

    def apply(self, changed: list[tuple[str, bytes]]) -> None:
        self.fill([("", key, value) for key, value in changed], b"")

    def getter(self) -> Callable[[str], bytes | None]:
        get: Callable[[str], bytes | None] = self.cache.get
        return get

    def close(self) -> None:
        self.cache.close()


STORES = (Edged, Lmdb, Sqlite, Diskcache)
