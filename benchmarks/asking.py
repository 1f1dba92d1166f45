"""Questions over HTTP's handlers: a made-up guide of 300 channels and 14 days, films, and the rows of a home page.

    python -m benchmarks.asking [--programmes N] [--keep DIR]

Prints the median of each question, unseen (each asks what was not asked before, and nothing of its records is
remembered) and of its processor time, before and after many small hops; and what the indexes cost on disk and in
flash an edit. 200,000 programmes take some minutes and 200 MB.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import edged
from edged.feed import cbor
from edged.feed.blob import BlobRef
from edged.feed.coding.changes import Change
from edged.feed.coding.snapshot import encode_snapshot, train_dictionary
from edged.feed.schema import CollectionSchema, Schema, ViewRule
from edged.http.application import Response
from edged.http.cors import CorsRule
from edged.http.hosts import HostRule
from edged.http.request import Request
from edged.replica.indexes.terms import order_term
from edged.replica.layers.question import Cursor, Question, write_cursor
from edged.replica.reader import Dataset
from edged.replica.writer import Writer
from edged.serve.answers.render import Renderer
from edged.serve.answers.respond import ACCEPTED, EXPOSED, Service
from edged.serve.answers.routes import answer
from edged.serve.news import News

CHANNELS, DAY_S, DAYS, BEGIN = 300, 86_400, 14, 1_764_000_000
FILMS, ROWS = 36_000, 500
HOPS, EDITS = 200, 20
WORDS = ["river", "night", "garden", "winter", "letter", "stranger", "café", "señor", "ocean", "island", "house"]
GENRES = ("drama", "crime", "news", "sport", "children", "film")
TV = {
    "guide": ViewRule(("title", "channel", "start", "end", "genre")),
    "films": ViewRule(("title", "year", "poster")),
    "rows": ViewRule(("name", "items"), expand=("items",), limit={"items": 20}),
}
PLAIN = CollectionSchema(("channel", "genre", "series"), ("title",))
ORDERED = PLAIN._replace(order=("start",), interval=("start", "end"))
FILM = CollectionSchema(("genre",), ("title",))
RULES = {
    "plain": {"guide": PLAIN, "films": FILM},
    "ordered": {
        "guide": ORDERED,
        "films": FILM._replace(order=("year",)),
        "rows": CollectionSchema(refs={"items": "films"}),
    },
}

Ask = Callable[[random.Random], str]
Record = tuple[str, str, bytes]  # collection, key, value


def records(programmes: int) -> Iterator[Record]:
    """In record order."""
    chance = random.Random(1)

    def text(count: int) -> str:
        return " ".join(chance.choices(WORDS, k=count))

    for number in range(FILMS):
        film = {
            "title": f"{text(2)} {number}",
            "year": chance.randint(1950, 2026),
            "genre": chance.choice(GENRES),
            "poster": f"/posters/{number}.jpg",
            "synopsis": text(40),
        }
        yield "films", f"f{number:06}", cbor.encode(film)
    each = programmes // CHANNELS
    for channel in range(CHANNELS):
        start = BEGIN
        for _ in range(each):
            length = DAYS * DAY_S // each // 300 * 300 + chance.choice((-300, 0, 0, 300))
            series = chance.randrange(4000)
            record = {
                "channel": f"ch{channel:03}",
                "title": f"{text(3)} {series}",
                "series": f"s{series:04}",
                "genre": chance.choice(GENRES),
                "start": start,
                "end": start + length,
                "synopsis": text(28),
                "rating": chance.choice(("U", "12", "16")),
            }
            yield "guide", f"ch{channel:03}/{start}", cbor.encode(record)
            start += length
    for number in range(ROWS):
        items = [f"f{one:06}" for one in chance.sample(range(FILMS), 30)]
        yield "rows", f"r{number:03}", cbor.encode({"name": text(2), "items": items})


def fill(data_dir: Path, made: list[Record], dictionary: bytes, rules: dict[str, CollectionSchema]) -> int:
    """A replica with these rules. Returns its bytes on disk."""
    with Writer.open(data_dir, "tv") as writer, writer.stage() as staging:
        staging.begin_snapshot("core", 1, dictionary)
        for part in encode_snapshot(made, dictionary, level=1):
            staging.add_part("core", BlobRef.of(part), part)
        staging.set_schema(Schema(rules, {"tv": TV}), 1)
        staging.commit(1, b"head", as_of=1, fresh_s=1, expires_s=1)
    return sum(path.stat().st_size for path in (data_dir / "tv/packs").iterdir())


def edit(data_dir: Path, made: list[Record], first: int, hops: int) -> float:
    """Flash bytes an edit of EDITS programmes, merging included. first: the version of the first."""
    chance = random.Random(first)
    known = [(key, value) for name, key, value in made if name == "guide"]
    with Writer.open(data_dir, "tv") as writer:
        before = writer.flash_bytes_written
        for version in range(first, first + hops):
            changes = []
            for key, value in chance.sample(known, EDITS):
                record = cbor.decode(value, "guide")
                changed = record | {"title": f"{record['title']} {version}", "end": record["end"] + 60}
                changes.append(Change("guide", key, cbor.encode(changed)))
            with writer.stage() as staging:
                staging.apply_changes("core", version, changes)
                staging.commit(version, b"head", as_of=version, fresh_s=1, expires_s=1)
            writer.compact(1 << 30)
        return (writer.flash_bytes_written - before) / hops


def moment(chance: random.Random) -> int:
    return BEGIN + chance.randrange(DAYS * DAY_S - DAY_S)


def channels(chance: random.Random, number: int) -> str:
    return "&".join(f"where.channel=ch{one:03}" for one in chance.sample(range(CHANNELS), number))


def evening(chance: random.Random) -> str:
    at = moment(chance)
    return f"guide?{channels(chance, 1)}&from={at}&to={at + 4 * 3600}&order=start&view=tv"


def next_five(chance: random.Random) -> str:
    at = moment(chance)
    return f"guide?{channels(chance, 20)}&where.start.gte={at}&order=start&group=channel&limit=5&view=tv"


def once(chance: random.Random) -> str:
    at = moment(chance)
    return f"guide?where.genre=film&from={at}&to={at + DAY_S}&distinct=series&view=tv"


def found_once(chance: random.Random) -> str:
    words = f"{quote(chance.choice(WORDS))}+{chance.choice(WORDS[:5])[:3]}+{chance.randrange(4000)}"
    return f"guide?q={words}&distinct=series&limit=20&view=tv"


def since(chance: random.Random) -> str:
    return f"films?where.year.gte={chance.randint(2000, 2021)}&order=-year&after={cursor(chance)}&view=tv"


def cursor(chance: random.Random) -> str:
    """Somewhere among the newest, as a page begins there that was not asked for before."""
    place = Cursor(order_term(chance.randint(2022, 2026)), f"f{chance.randrange(FILMS):06}")
    return quote(write_cursor(place, Question(order="-year")))


def screen(chance: random.Random) -> str:
    return "rows?keys=" + ",".join(f"r{one:03}" for one in chance.sample(range(ROWS), 10)) + "&view=tv"


QUESTIONS: dict[str, Ask] = {
    "what is on now, 300 answers, with the view's fields (6)": lambda chance: (
        f"guide?at={moment(chance)}&limit=300&view=tv"
    ),
    "one channel's evening (1)": evening,
    "the next five of 20 channels (3)": next_five,
    "films since a year, newest first, page of 50 (1)": since,
    "10 rows of 20 films, expanded (8)": screen,
    "films of a day, each series once, 50": once,
    "a search, each series once, 20": found_once,
    "what is on now, counted by genre": lambda chance: f"guide?at={moment(chance)}&limit=1&count=1&facets=genre",
}


def ask_all(dataset: Dataset) -> None:
    catalog = {"tv": dataset}
    hosts = HostRule.of(("localhost",))
    for name, ask in QUESTIONS.items():
        chance, bodies = random.Random(3), 0
        taken: list[float] = []
        worked: list[float] = []
        for number in range(61):
            service = Service(
                catalog, News(catalog), time.time, Renderer(32 << 20), hosts, CorsRule.of((), EXPOSED, ACCEPTED)
            )
            request = Request("GET", f"/v1/tv/{ask(chance)}".encode(), ((b"host", b"localhost"),))
            began, before = time.perf_counter(), time.thread_time()
            found = answer(service, request, BEGIN, in_thread=True)
            took, work = time.perf_counter() - began, time.thread_time() - before
            assert isinstance(found, Response), found
            assert found.status == 200, found.body
            bodies += len(found.body)
            if number:
                taken.append(took)
                worked.append(work)
            else:
                first = took
        half, work = 1e3 * statistics.median(taken), 1e3 * statistics.median(worked)
        print(
            f"  {name}: p50 {half:.2f} ms, of the processor {work:.2f}, first {first * 1e3:.1f}, {bodies // 61} bytes",
            flush=True,
        )


def main(programmes: int, place: Path) -> None:
    sizes, flash = {}, {}
    print(f"{programmes} programmes: made and written twice, asked, and edited", flush=True)
    made = list(records(programmes))
    dictionary = train_dictionary(made)
    for name, rules in RULES.items():
        sizes[name] = fill(place / name, made, dictionary, rules)
        print(f"{name}: {sizes[name] / 1e6:.1f} MB", flush=True)
    with edged.open(place / "ordered") as replica:
        ask_all(replica["tv"])
    for name in RULES:
        flash[name] = edit(place / name, made, 2, HOPS)
        print(f"{name}: {flash[name] / 1e3:.1f} kB of flash an edit", flush=True)
    disk, wear = sizes["ordered"] / sizes["plain"], flash["ordered"] / flash["plain"]
    print(f"disk: {disk:.3f} (at most 1.15), flash: {wear:.3f} (at most 1.25)")
    with edged.open(place / "ordered") as replica:
        state = replica["tv"].view().layers[0].state
        print(f"after {HOPS} edits of {EDITS} ({len(state.middle)} middle and {len(state.fresh)} fresh packs):")
        ask_all(replica["tv"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programmes", type=int, default=200_000)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="put the replica there, and leave it there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        main(options.programmes, options.keep or Path(made))
