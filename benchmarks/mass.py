"""Edits of many records at once, pattern by pattern, beside plain zstd.

Each pattern is applied to 100, to 1,000 and to all records of a table, and published as one hop. "zstd" is
`zstd -19` over the keys and new values of the changed records, with their old ones as dictionary. For random values the
bytes are also set beside their entropy, to which comes what it takes to say which records they are.

    python benchmarks/mass.py [--data DIR] [--records N] [--pattern NAME]...

Without --data the made-up table alone is measured. Everything follows from the seed.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import zstandard

from benchmarks.wire import State, read_records
from edged.feed import cbor
from edged.feed.coding.changes import Change, sort_key
from edged.feed.coding.hop import pack_hop, unpack_hop
from edged.feed.coding.snapshot import train_dictionary

SEED = 2026
COUNTS = (100, 1000, 0)  # 0: all

Fields = dict[str, Any]
Edit = Callable[[Fields, str, random.Random], None]


@dataclass(frozen=True, slots=True)
class Pattern:
    """edit changes a record's fields in place; entropy_bits: of each record's new value, 0 where it is not random."""

    name: str
    edit: Edit
    entropy_bits: float = 0.0


@dataclass(slots=True)
class Outcome:
    """Bytes by means and seconds of edged, summed over the edits of one pattern."""

    edged: int = 0
    zstd: int = 0
    encode_s: float = 0.0
    decode_s: float = 0.0
    entropy: float = 0.0
    worst: float = 0.0
    forms: set[int] = field(default_factory=set)


# --- the made-up table: programmes of channels, with rights ---------------------------------------------------------

WORDS = [
    "amber",
    "river",
    "night",
    "harbour",
    "glass",
    "winter",
    "signal",
    "garden",
    "stone",
    "echo",
    "paper",
    "island",
    "crown",
    "silver",
    "road",
]
TIERS = ("svod", "tvod", "avod", "est", "free", "linear", "pvod", "trial")


def programme(number: int) -> tuple[str, Fields]:
    chance = random.Random(f"{SEED}/{number}")
    title = " ".join(chance.choice(WORDS).capitalize() for _ in range(chance.randint(1, 4)))
    start = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=15 * chance.randrange(2800))
    token = f"{chance.getrandbits(64):016x}"
    return f"ch{number % 60:02}/{number // 60:05}", {
        "title": title,
        "year": chance.randint(1950, 2026),
        "start": int(start.timestamp()),
        "until": (start + timedelta(days=chance.randint(1, 90))).isoformat().replace("+00:00", "Z"),
        "tier": chance.choice(TIERS),
        "price": chance.choice((99, 199, 299, 399, 499, 999)),
        "score": round(chance.gauss(6.5, 1.2), 1),
        "hd": chance.random() < 0.7,
        "image": f"https://img.example.net/w342/{token}.jpg?v=12",
        "langs": chance.sample(["pt", "en", "es", "fr", "de", "it"], chance.randint(2, 5)),
        "synopsis": " ".join(chance.choice(WORDS) for _ in range(chance.randint(5, 40))) + ".",
    }


def slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "-".join(plain.lower().split())


def added(fields: Fields, key: str, chance: random.Random) -> None:
    fields["rank"] = min(99, int(chance.expovariate(0.08)))
    fields["source"] = "feed-b" if chance.random() < 0.98 else "manual"


def dropped(fields: Fields, key: str, chance: random.Random) -> None:
    fields.pop("synopsis", fields.pop("extract", fields.pop("name", None)))


def renamed(fields: Fields, key: str, chance: random.Random) -> None:
    name = "title" if "title" in fields else "tvdbid"
    fields["name_" + name] = fields.pop(name, None)


def rescaled(fields: Fields, key: str, chance: random.Random) -> None:
    fields["score"] = round(fields["score"] * 10)
    fields["price"] = fields["price"] / 100


def shifted(fields: Fields, key: str, chance: random.Random) -> None:
    fields["start"] += 3600
    then = datetime.fromisoformat(fields["until"]) + timedelta(hours=1)
    fields["until"] = then.isoformat().replace("+00:00", "Z")


def host(name: str, old: str, new: str) -> Edit:
    def edit(fields: Fields, key: str, chance: random.Random) -> None:
        if name in fields:
            fields[name] = fields[name].replace(old, new, 1)

    return edit


def flagged(fields: Fields, key: str, chance: random.Random) -> None:
    fields["hd"] = not fields.get("hd", False)


def derived(fields: Fields, key: str, chance: random.Random) -> None:
    fields["path"] = f"/watch/{slug(fields['title'])}"
    fields["decade"] = fields["year"] // 10 * 10
    fields["ref"] = f"urn:x:{key}"


def small_set(fields: Fields, key: str, chance: random.Random) -> None:
    fields["tier"] = chance.choice(TIERS)


def random_number(fields: Fields, key: str, chance: random.Random) -> None:
    fields["seed"] = chance.getrandbits(32)


def random_small(fields: Fields, key: str, chance: random.Random) -> None:
    fields["bucket"] = chance.randrange(1000)


def random_text(fields: Fields, key: str, chance: random.Random) -> None:
    fields["token"] = f"{chance.getrandbits(64):016x}"


def signed(fields: Fields, key: str, chance: random.Random) -> None:
    base = fields["image"].partition("?")[0]
    fields["image"] = f"{base}?e=1767225600&s={chance.getrandbits(64):016x}"


def reordered(name: str) -> Edit:
    def edit(fields: Fields, key: str, chance: random.Random) -> None:
        items = fields.get(name, [])
        if len(items) > 1:
            items.insert(0, items.pop())

    return edit


def shuffled(name: str) -> Edit:
    def edit(fields: Fields, key: str, chance: random.Random) -> None:
        chance.shuffle(fields.get(name, []))

    return edit


def two_places(name: str, *pairs: tuple[str, str]) -> Edit:
    def edit(fields: Fields, key: str, chance: random.Random) -> None:
        for old, new in pairs:
            if name in fields:
                fields[name] = fields[name].replace(old, new, 1)

    return edit


def two_texts(name: str) -> Edit:
    """Two words of a text replaced, each record's own."""

    def edit(fields: Fields, key: str, chance: random.Random) -> None:
        words = str(fields.get(name, "")).split(" ")
        if len(words) > 4:
            words[1], words[-2] = chance.choice(WORDS), chance.choice(WORDS)
            fields[name] = " ".join(words)

    return edit


MADE_UP = (
    Pattern("added", added),
    Pattern("dropped", dropped),
    Pattern("renamed", renamed),
    Pattern("rescaled", rescaled),
    Pattern("shifted times", shifted),
    Pattern("other host", host("image", "img.example.net", "cdn7.example.org")),
    Pattern("flag", flagged),
    Pattern("derived", derived),
    Pattern("small set", small_set),
    Pattern("random number", random_number, 32),
    Pattern("random below 1000", random_small, math.log2(1000)),
    Pattern("random text", random_text, 64),
    Pattern("signed address", signed, 64),
    Pattern("list reordered", reordered("langs")),
    Pattern("list shuffled", shuffled("langs")),
    Pattern("two places", two_places("image", ("img.", "pics."), ("?v=12", "?v=13"))),
    Pattern("two words", two_texts("synopsis")),
)
REAL = (
    Pattern("added", added),
    Pattern("dropped", dropped),
    Pattern("renamed", renamed),
    Pattern("other host", host("thumbnail", "upload.wikimedia.org", "images.example.net")),
    Pattern("flag", flagged),
    Pattern("small set", small_set),
    Pattern("random number", random_number, 32),
    Pattern("random text", random_text, 64),
    Pattern("list reordered", reordered("cast")),
    Pattern("two places", two_places("thumbnail", ("upload.", "up."), ("/320px-", "/640px-"))),
    Pattern("two words", two_texts("extract")),
)


# --- measuring ------------------------------------------------------------------------------------------------------


def zstd_bytes(old: bytes, new: bytes) -> int:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19, source_size=len(new), dict_size=len(old), write_checksum=False
    )
    prior = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return len(zstandard.ZstdCompressor(compression_params=parameters, dict_data=prior).compress(new))


def edits_of(records: list[tuple[str, str, bytes]], pattern: Pattern, count: int) -> list[Change]:
    """The changes that a pattern makes to `count` records, to all if 0."""
    chance = random.Random(f"{SEED}/{pattern.name}/{count}")
    chosen = chance.sample(records, min(count, len(records))) if count else records
    changes = []
    for collection, key, data in sorted(chosen, key=lambda record: record[1].encode()):
        value = copy.deepcopy(cbor.decode(data, key))
        pattern.edit(value, key, chance)
        coded = cbor.encode_record(value, key)
        if coded != data:
            changes.append(Change(collection, key, coded))
    return sorted(changes, key=sort_key)


def measure(state: State, dictionary: bytes, changes: list[Change], pattern: Pattern, outcome: Outcome) -> str:
    began = time.perf_counter()
    blob = pack_hop(changes, state, dictionary)
    encoded = time.perf_counter()
    if unpack_hop(blob, state, dictionary) != changes:
        sys.exit(f"{pattern.name}: the hop did not come back as it went in")
    decoded = time.perf_counter()
    old = b"".join(cbor.encode(c.key) + (state.get(c.collection, c.key) or b"") for c in changes)
    plain = zstd_bytes(old, b"".join(cbor.encode(c.key) + (c.value or b"") for c in changes))
    outcome.edged += len(blob)
    outcome.zstd += plain
    outcome.encode_s += encoded - began
    outcome.decode_s += decoded - encoded
    outcome.worst = max(outcome.worst, len(blob) / plain)
    entropy = len(changes) * pattern.entropy_bits / 8
    share = len(changes) / len(state.order)
    chosen = len(state.order) * -sum(p * math.log2(p) for p in (share, 1 - share) if p > 0) / 8
    line = f"{len(changes):7,} {len(blob):9,} {plain:9,} {len(blob) / plain:6.3f}"
    line += f"  {encoded - began:6.2f} s {decoded - encoded:6.2f} s  form {blob[5]}"
    if entropy:
        outcome.entropy = max(outcome.entropy, len(blob) / (entropy + chosen))
        line += f"  {len(blob) / (entropy + chosen):.3f} of the entropy"
    return line


def table(name: str, records: list[tuple[str, str, bytes]], patterns: Iterator[Pattern]) -> list[Outcome]:
    state = State(records)
    dictionary = train_dictionary(state.records())
    ordered = list(state.records())
    print(f"{name}: {len(ordered):,} records")
    print(f"  {'':18} {'changed':>7} {'edged':>9} {'zstd':>9} {'ratio':>6}  {'encode':>8} {'decode':>8}")
    outcomes = []
    for pattern in patterns:
        outcome = Outcome()
        outcomes.append(outcome)
        for count in COUNTS:
            changes = edits_of(ordered, pattern, count)
            print(f"  {pattern.name:18} {measure(state, dictionary, changes, pattern, outcome)}", flush=True)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of the .ndjson.zst files; without it data are made up")
    parser.add_argument("--records", type=int, default=10_000, help="of each table at most (0: all of the real ones)")
    parser.add_argument("--pattern", action="append", default=[], help="these alone")
    args = parser.parse_args()

    def wanted(patterns: tuple[Pattern, ...]) -> Iterator[Pattern]:
        return (pattern for pattern in patterns if not args.pattern or pattern.name in args.pattern)

    made = [("programmes", *programme(number)) for number in range(args.records or 60_000)]
    rows = [(collection, key, cbor.encode_record(value, key)) for collection, key, value in made]
    outcomes = table("made-up programmes", rows, wanted(MADE_UP))
    if args.data:
        for name in ("movies", "anime-base"):
            rows = read_records(args.data / f"{name}.ndjson.zst")
            step = -(-len(rows) // args.records) if args.records else 1
            outcomes += table(name, rows[::step], wanted(REAL))
    edged, plain = sum(one.edged for one in outcomes), sum(one.zstd for one in outcomes)
    print(f"together {edged / plain:.3f} of zstd: {edged:,} bytes against {plain:,}")
    print(f"the worst of all {max(one.worst for one in outcomes):.3f} of zstd")
    print(f"random values at most {max(one.entropy for one in outcomes):.3f} of their entropy")
    encode, decode = (sum(getattr(one, name) for one in outcomes) for name in ("encode_s", "decode_s"))
    print(f"encode {encode:.1f} s, decode {decode:.1f} s")


if __name__ == "__main__":
    main()
