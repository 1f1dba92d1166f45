"""Questions by ordered and interval indexes, on a made-up guide of 300 channels over 14 days: 200,000 programmes.

Prints the median of each question, unseen, and what the indexes cost on disk and in flash an edit. Run it with
`python -m benchmarks.guide [PROGRAMMES]`; it takes some minutes and 200 MB below the temporary directory.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import edged
from edged.feed import cbor
from edged.feed.blob import BlobRef
from edged.feed.coding.changes import Change
from edged.feed.coding.snapshot import encode_snapshot, train_dictionary
from edged.feed.schema import CollectionSchema, Schema
from edged.replica.layers.question import Question
from edged.replica.view import View
from edged.replica.writer import Writer

CHANNELS, DAY_S, DAYS, BEGIN = 300, 86_400, 14, 1_764_000_000
WORDS = [
    "river",
    "night",
    "garden",
    "winter",
    "letter",
    "stranger",
    "café",
    "señor",
    "ocean",
    "island",
    "house",
    "doctor",
]
BARE = CollectionSchema()
PLAIN = CollectionSchema(("channel", "genre", "series"), ("title",))
ORDERED = CollectionSchema(("channel", "genre", "series"), ("title",), order=("start",), interval=("start", "end"))


def programmes(count: int) -> Iterator[tuple[str, str, bytes]]:
    """In the order of keys: one channel after the other."""
    chance = random.Random(1)
    each = count // CHANNELS
    for channel in range(CHANNELS):
        start = BEGIN
        for _ in range(each):
            length = DAYS * DAY_S // each // 300 * 300 + chance.choice((-300, 0, 0, 300))
            series = chance.randrange(4000)
            record = {
                "channel": f"ch{channel:03d}",
                "title": " ".join(chance.choices(WORDS, k=3)) + f" {series}",
                "series": f"s{series:04d}",
                "genre": chance.choice(("drama", "crime", "news", "sport", "children", "film")),
                "start": start,
                "end": start + length,
                "synopsis": " ".join(chance.choices(WORDS, k=28)),
                "rating": chance.choice(("U", "12", "16")),
            }
            yield "guide", f"ch{channel:03d}/{start}", cbor.encode(record)
            start += length


def fill(data_dir: Path, count: int, rules: CollectionSchema) -> int:
    """A replica of the guide with these rules. Returns its bytes on disk."""
    dictionary = train_dictionary(programmes(count))
    with Writer.open(data_dir, "guide") as writer, writer.stage() as staging:
        staging.begin_snapshot("core", 1, dictionary)
        for part in encode_snapshot(programmes(count), dictionary, level=1):
            staging.add_part("core", BlobRef.of(part), part)
        staging.set_schema(Schema({"guide": rules}), 1)
        staging.commit(1, b"head", as_of=1, fresh_s=1, expires_s=1)
    return sum(path.stat().st_size for path in (data_dir / "guide/packs").iterdir())


def edit(data_dir: Path, count: int, hops: int = 200) -> float:
    """Flash bytes an edit of 20 programmes, merging included."""
    chance = random.Random(2)
    known = [(key, cbor.decode(value, "guide")) for _, key, value in programmes(count)]
    with Writer.open(data_dir, "guide") as writer:
        before = writer.flash_bytes_written
        for version in range(2, 2 + hops):
            changes = []
            for key, record in chance.sample(known, 20):
                changed = record | {"title": f"{record['title']} {version}", "end": record["end"] + 60}
                changes.append(Change("guide", key, cbor.encode(changed)))
            with writer.stage() as staging:
                staging.apply_changes("core", version, changes)
                staging.commit(version, b"head", as_of=version, fresh_s=1, expires_s=1)
            writer.compact(1 << 30)
        return (writer.flash_bytes_written - before) / hops


def questions(view: View, chance: random.Random) -> dict[str, Callable[[], Any]]:
    """Each asks something that was not asked before."""

    def now() -> int:
        return BEGIN + chance.randrange(DAYS * DAY_S - DAY_S)

    def channels(number: int) -> tuple[str, ...]:
        return tuple(f"ch{one:03d}" for one in chance.sample(range(CHANNELS), number))

    def on_now() -> Any:
        at = now()
        return list(view.ask("guide", Question(during=(at, at + 1))))

    def evening() -> Any:
        at = now()
        return list(view.ask("guide", Question({"channel": channels(1)}, during=(at, at + 4 * 3600), order="start")))

    def next_five() -> Any:
        at = now()
        asked = Question({"channel": channels(20)}, during=(at, at + DAY_S), order="start")
        return [one for group in view.ask_by_group("guide", asked, "channel", limit=5) for one in group.matches]

    def since() -> Any:
        return list(view.ask("guide", Question(ranges={"start": {"gte": now()}}, order="-start"), limit=50))

    def once() -> Any:
        at = now()
        return list(
            view.ask("guide", Question({"genre": "film"}, during=(at, at + DAY_S), distinct="series"), limit=50)
        )

    def facets() -> Any:
        at = now()
        return view.tally("guide", Question(during=(at, at + 1)), ("genre",)).total

    return {
        "what is on now, 300 answers (6)": on_now,
        "one channel's evening (1)": evening,
        "the next five of 20 channels (3)": next_five,
        "since a time, newest first, page of 50 (1)": since,
        "films of a day, each series once, 50": once,
        "what is on now, counted by genre": facets,
    }


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        sizes, flash = {}, {}
        for name, rules in (("bare", BARE), ("plain", PLAIN), ("ordered", ORDERED)):
            sizes[name] = fill(Path(place) / name, count, rules)
            print(f"{name}: {sizes[name] / 1e6:.1f} MB", flush=True)
        with edged.open(Path(place) / "ordered") as replica:
            ask_all(replica["guide"].view())
        for name in ("plain", "ordered"):
            flash[name] = edit(Path(place) / name, count)
            print(f"{name}: {flash[name] / 1e3:.1f} kB of flash an edit", flush=True)
        disk, wear = sizes["ordered"] / sizes["plain"], flash["ordered"] / flash["plain"]
        print(f"disk: {disk:.3f} (at most 1.15), flash: {wear:.3f} (at most 1.25)")
        with edged.open(Path(place) / "ordered") as replica:
            print("after the edits:")
            ask_all(replica["guide"].view())


def ask_all(view: View) -> None:
    for name, ask in questions(view, random.Random(3)).items():
        first = time.perf_counter()
        answers = ask()
        first = time.perf_counter() - first
        taken = []
        for _ in range(60):
            began = time.perf_counter()
            ask()
            taken.append(time.perf_counter() - began)
        number = answers if isinstance(answers, int) else len(answers)
        print(f"  {name}: p50 {statistics.median(taken) * 1e3:.2f} ms, first {first * 1e3:.1f} ms, {number} answers")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
