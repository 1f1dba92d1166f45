"""What a version costs a device that carries none of the slices that it touches, and what the bytes consist of.

    python benchmarks/slices.py [--data DIR] [--slices N] [--edits N]

Every third film of anime-base.ndjson.zst belongs to one of N regions, each a slice of its own, the others to core;
without DIR a catalogue is made up. A device carries core alone and holds its poll on loopback. First so many edits of
one film of core are published, then as many of one film of a region, each as its own version. Counted is what the
device sends and receives from one poll's request to the end of its update.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import trio

from benchmarks.shared.publishes import Record, made_up, real
from benchmarks.update import Measured, measure
from edged.feed.head import decode_head
from edged.feed.patch import encode_patch
from edged.feed.trust import cose
from edged.origin.publisher import Publisher
from edged.progress import Watch, unwatched

GOAL_BYTES = 300
TITLES = 1000  # of the made-up catalogue
PERIOD = 3  # every so many-th film is of a region
RULE = '[slices.region-{0:02}]\nwhere = {{ region = "{0:02}" }}\n'


def regional(records: Iterable[Record], regions: int) -> list[Record]:
    """The same records, every PERIOD-th with a region."""
    found = []
    for number, (collection, key, value) in enumerate(records):
        region = {} if number % PERIOD else {"region": f"{number // PERIOD % regions:02}"}
        found.append((collection, key, {**value, **region}))
    return found


def edits(records: list[Record], count: int) -> Iterator[list[Record]]:
    """So many edits of core, and so many of regions: a date by which a film was checked."""
    for first in (1, 0):
        for number in range(count):
            collection, key, value = records[first + PERIOD * (number * 7 % (len(records) // PERIOD))]
            yield [(collection, key, {**value, "checked": f"2026-11-{1 + number % 30:02}"})]


class NotingPublisher(Publisher):
    """Keeps the head of each version as it was when it went live; heads: of all feeds that are open."""

    heads: ClassVar[list[bytes]] = []

    def keep_up(self, dataset: str, *, watch: Watch = unwatched) -> None:
        self.heads.append((self.public / dataset / "head").read_bytes())
        super().keep_up(dataset, watch=watch)


def parts(before: bytes, data: bytes, version: int) -> dict[str, int]:
    """What the bytes are for that a device is sent of a head: those that differ from the head before."""
    head = decode_head(cose.open_sign1(data, "head")[1])
    new = [item for item in head.slices.values() if item.version == version]
    found = {
        "  its signature": cose.SIGNATURE_BYTES,
        "  the name of its chain": 32,
        "  digests of slices that changed": sum(len(item.digest) for item in new),
        "  hops of slices that changed": sum(len(hop.inline or b"") for item in new for hop in item.hops),
    }
    sent = encode_patch(before, data) or data
    found["  numbers, and where it all belongs"] = len(sent) - sum(found.values())
    return {"answer: what differs of the head": len(sent), **found}


def report(measured: list[Measured], heads: list[bytes], what: str) -> None:
    """heads: those of the versions, after the one before them."""
    whole = [update.bytes_sent + update.bytes_received for update, _ in measured]
    received = [update.bytes_received for update, _ in measured]
    rows = {"request": sum(update.bytes_sent for update, _ in measured), "answer: its HTTP fields": sum(received)}
    for (update, _), (before, data) in zip(measured, itertools.pairwise(heads), strict=True):
        found = parts(before, data, update.version)
        rows["answer: its HTTP fields"] -= found["answer: what differs of the head"]
        for name, size in found.items():
            rows[name] = rows.get(name, 0) + size
    print(f"{what}, {len(measured)} versions, bytes of one")
    for name, sizes in (("in all", whole), ("received", received), ("a whole head", [len(data) for data in heads[1:]])):
        print(f"  {name + ', median':40} {statistics.median(sizes):6,.0f}   ({min(sizes):,} to {max(sizes):,})")
    for name, total in rows.items():
        print(f"  {name + ', mean':40} {total / len(measured):6,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of the .ndjson.zst files; without it data are made up")
    parser.add_argument("--slices", type=int, default=8, help="so many regions (default: 8)")
    parser.add_argument("--edits", type=int, default=20, help="so many of core and so many of regions (default: 20)")
    args = parser.parse_args()
    records = regional((real(args.data) if args.data else made_up(TITLES))[0], args.slices)
    with tempfile.TemporaryDirectory() as folder:
        NotingPublisher.init(Path(folder) / "feed")
        publisher = NotingPublisher.open(Path(folder) / "feed")
        (publisher.path / "catalog.toml").write_text("".join(map(RULE.format, range(args.slices))))
        publisher.publish("catalog", records)
        measured = trio.run(measure, publisher, edits(records, args.edits), Path(folder))
    heads = NotingPublisher.heads
    report(measured[: args.edits], heads[: args.edits + 1], "An edit of core")
    what = f"\nAn edit of what is not carried (goal: received, a median of at most {GOAL_BYTES})"
    report(measured[args.edits :], heads[args.edits :], what)


if __name__ == "__main__":
    main()
