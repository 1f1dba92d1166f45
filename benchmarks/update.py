"""The bytes of an ordinary update in all: what crosses real sockets for one edit, HTTP included, both ways.

    python benchmarks/update.py [--data DIR] [--edits N]

A feed is served on loopback by what `edged origin serve` runs; a device holds its poll there. Every edit of
anime-edits.ndjson.zst is published as its own version, over anime-base.ndjson.zst; without DIR a catalogue and edits to
it are made up. Counted is what the device sends and receives from one poll's request to the end of its update; of the
head that is what differs from the one before.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import trio

from benchmarks.shared.publishes import Record, made_up, real
from edged.clock import Clock
from edged.origin.publisher import Publisher
from edged.origin.serving.server import serve_feed
from edged.replica.writer import Writer
from edged.sync.replication import Replication
from edged.sync.status import DatasetStatus, LastUpdate
from edged.sync.subscription import Subscription
from edged.sync.task import run

Measured = tuple[LastUpdate, int]
GOAL_BYTES = 500  # of the median
TITLES = 1000  # of the made-up catalogue
MADE_UP_EDITS = 100
LOOK_S = 0.01


async def measure(
    publisher: Publisher, publishes: Iterable[list[Record]], folder: Path
) -> list[tuple[LastUpdate, int]]:
    """Every update with the size of the head that it came by."""
    found: list[tuple[LastUpdate, int]] = []
    status = DatasetStatus("catalog")
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(serve_feed, publisher.path, ["127.0.0.1:0"])
        source = Subscription("catalog", (f"{urls[0].rstrip('/')}/catalog",), str(publisher.trust_path))
        with Writer.open(folder / "data", "catalog") as writer:

            async def follow(*, task_status: trio.TaskStatus[None]) -> None:
                await run(Replication(source, writer, status, Clock()), task_status=task_status)

            async with trio.open_nursery() as device:
                await device.start(follow)
                await until(status, 1)
                for edit in publishes:
                    result = await trio.to_thread.run_sync(publisher.publish_changes, "catalog", edit)
                    if result.unchanged:
                        continue
                    await until(status, result.version)
                    assert status.last_update is not None
                    found.append((status.last_update, (publisher.public / "catalog" / "head").stat().st_size))
                    if sys.stderr.isatty():
                        print(f"\redit {len(found)}", end="", file=sys.stderr, flush=True)
                device.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    return found


async def until(status: DatasetStatus, version: int) -> None:
    with trio.fail_after(120):
        while status.last_update is None or status.last_update.version != version:  # noqa: ASYNC110 - a plain record
            await trio.sleep(LOOK_S)


def report(found: list[Measured]) -> None:
    whole = [update.bytes_received + update.bytes_sent for update, _ in found]
    rows = {
        "in all": whole,
        "sent": [update.bytes_sent for update, _ in found],
        "received": [update.bytes_received for update, _ in found],
        "a whole head with its hop": [head for _, head in found],
    }
    by_hops = sum(set(update.kinds.values()) <= {"hops"} for update, _ in found)
    print(f"{len(found)} updates, {by_hops} of them by hops alone; goal: a median in all under {GOAL_BYTES}")
    print(f"  {'bytes of an update':32} {'median':>8} {'mean':>8} {'p90':>8} {'largest':>8}")
    for name, sizes in rows.items():
        tenth = statistics.quantiles(sizes, n=10, method="inclusive")[-1] if len(sizes) > 1 else sizes[0]
        print(
            f"  {name:32} {statistics.median(sizes):8,.0f} {statistics.mean(sizes):8,.0f} {tenth:8,.0f} {max(sizes):8,}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of the .ndjson.zst files; without it data are made up")
    parser.add_argument("--edits", type=int, default=0, help="the first so many only (default: all; 100 made up)")
    args = parser.parse_args()
    base, publishes = real(args.data) if args.data else made_up(TITLES)
    count = args.edits or (None if args.data else MADE_UP_EDITS)
    with tempfile.TemporaryDirectory() as folder:
        publisher = Publisher.init(Path(folder) / "feed")
        publisher.publish("catalog", base)
        report(trio.run(measure, publisher, itertools.islice(publishes, count), Path(folder)))


if __name__ == "__main__":
    main()
