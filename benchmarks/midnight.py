"""What a midnight costs at which 5,000 of 100,000 windows open or close: the slowest answer while it happens.

    python -m benchmarks.midnight [--records N]

One thread asks as the serving loop does: it looks for something new, then gives a record, a batch, a page, a condition,
a piece of the changes, the next change and the count. Printed are the slowest of each in quiet seconds and at midnight.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from edged.clock import Clock
from edged.feed import cbor
from edged.feed.blob import BlobRef
from edged.feed.coding.snapshot import encode_snapshot, train_dictionary
from edged.feed.schema import CollectionSchema, Schema
from edged.replica.layers.question import Question
from edged.replica.reader import Dataset, Replica
from edged.replica.writer import Writer

MIDNIGHT = 1_800_057_600
SCHEMA = Schema({"titles": CollectionSchema(("genre",), valid=("from", "until"))})
AT_ONCE, DAY_S = 5000, 86_400
QUIET_S, ROUNDS = 30, 20


def records(count: int) -> list[tuple[str, str, bytes]]:
    """Windows of some months around midnight; AT_ONCE of them begin or end then."""
    chance, made = random.Random(1), []
    at_midnight = set(chance.sample(range(count), AT_ONCE))
    for number in range(count):
        begin = MIDNIGHT + chance.randrange(-200 * DAY_S, 20 * DAY_S)
        end = begin + chance.randrange(DAY_S, 300 * DAY_S)
        if number in at_midnight:
            begin, end = (MIDNIGHT, end + 400 * DAY_S) if number % 2 else (min(begin, MIDNIGHT - 1), MIDNIGHT)
        value = {"title": f"Title {number}", "genre": f"g{number % 20}", "from": begin, "until": end}
        made.append(("titles", f"{number:07d}", cbor.encode(value)))
    return made


def answers(dataset: Dataset, chance: random.Random, count: int, since: tuple[int, int]) -> dict[str, float]:
    """Milliseconds of each kind of answer, the look for something new counted with the first."""
    took: dict[str, float] = {}
    began = time.thread_time()

    def note(name: str) -> None:
        nonlocal began
        now = time.thread_time()
        took[name], began = 1000 * (now - began), now

    view = dataset.view()
    view.get_raw("titles", f"{chance.randrange(count):07d}")
    note("a record")
    view.get_many_raw("titles", [f"{chance.randrange(count):07d}" for _ in range(20)])
    note("a batch of 20")
    list(view.scan("titles", after=f"{chance.randrange(count):07d}", limit=50))
    note("a page of 50")
    list(view.ask("titles", Question(where={"genre": f"g{chance.randrange(20)}"}), limit=50))
    note("a condition, 50")
    changes = view.changes(*since)
    for _ in range(100):
        next(changes, None)
    note("100 changes")
    assert view.next_change is not None
    note("the next change")
    assert view.collections["titles"]
    note("the count")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    count = parser.parse_args().records
    made, chance = records(count), random.Random(2)
    now = float(MIDNIGHT - QUIET_S)
    with tempfile.TemporaryDirectory() as place:
        dictionary = train_dictionary(made[:2000])
        with Writer.open(Path(place), "catalog") as writer, writer.stage() as staging:
            staging.begin_snapshot("core", 1, dictionary)
            for part in encode_snapshot(made, dictionary, level=3):
                staging.add_part("core", BlobRef.of(part), part)
            staging.set_schema(SCHEMA, 1)
            staging.commit(1, b"head", as_of=MIDNIGHT - DAY_S, fresh_s=DAY_S, expires_s=DAY_S)
        dataset = Replica(place, Clock(lambda: now))["catalog"]
        slowest: dict[bool, dict[str, float]] = {False: defaultdict(float), True: defaultdict(float)}
        answers(dataset, chance, count, (1, dataset.view().time))  # which maps the indexes
        for second in range(2 * QUIET_S):
            since, now = (1, dataset.view().time), MIDNIGHT - QUIET_S + second
            for _ in range(ROUNDS):
                for name, took in answers(dataset, chance, count, since).items():
                    kind = slowest[int(now) == MIDNIGHT]
                    kind[name] = max(kind[name], took)
        print(f"{count} windows, {AT_ONCE} of them at midnight; the slowest answers, ms of the processor:")
        for name, quiet in slowest[False].items():
            print(f"  {name:16} quiet {quiet:7.2f}   at midnight {slowest[True][name]:7.2f}")


if __name__ == "__main__":
    main()
