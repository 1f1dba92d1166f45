"""When a fleet comes: the requests a second of a million devices, by the decisions of the real machine.

    python benchmarks/fleet.py [--devices N] [--spread SECONDS]

Each device is asked itself: `delay_s` for a publish, `Prefetcher` for a version ahead, `PollTurns` for held polls that
were answered together, `Backoff` for an outage. Networks, caches and the time that a request takes are left out, so
these are the requests as devices decide on them. Printed are the peak of a second against the mean over the time in
which they come, and the same without manners, which is all of them in one second.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from edged.feed.ahead.sealed import Ahead, SealedHop
from edged.feed.blob import BlobRef
from edged.feed.digest import EMPTY_DIGEST
from edged.feed.head import Head, SliceHead
from edged.sync.core.events import WAIT_S, CarriedSlice, HeldState
from edged.sync.core.polling import Backoff
from edged.sync.core.prefetch import Prefetcher, delay_s
from edged.sync.core.turns import PollTurns

SINCE, OUTAGE_S, QUIET_S = 1_790_000_000, 3600.0, 1800
REF = BlobRef(bytes(32), 1_000_000)
HELD = HeldState(1, slices={"core": CarriedSlice(1, EMPTY_DIGEST, 0)}, schema_version=1)


def head(version: int) -> Head:
    slices = {"core": SliceHead(version, EMPTY_DIGEST, 0)}
    return Head("catalog", version, SINCE, 86_400, 2_592_000, 1, 1, REF, slices)


def published(names: Iterable[str], spread_s: int, chance: Callable[[], float]) -> Iterable[float]:
    """When each device fetches a publish of which nothing is inlined."""
    new = replace(head(2), spread=(SINCE, spread_s))
    return (delay_s(new, HELD, name, SINCE) for name in names)


def prefetched(names: Iterable[str], spread_s: int, chance: Callable[[], float]) -> Iterable[float]:
    """When each device fetches what is handed out ahead."""
    new = replace(head(1), ahead=Ahead(2, SINCE, spread_s, {"core": SealedHop(1, REF)}))
    for name in names:
        prefetcher = Prefetcher(name, chance, at_once=False)
        prefetcher.follow(new, HELD, 0.0)
        yield prefetcher.due_at


def polled(names: Iterable[str], spread_s: int, chance: Callable[[], float]) -> Iterable[float]:
    """The polls of half an hour without news, after all were answered at once; from when the first come back."""
    for name in names:
        turns, at = PollTurns(name), 0.0
        while True:
            at += turns.ask(WAIT_S, 1, at, ())
            turns.ended(at)
            at += turns.rest_s(at, ())
            if at >= QUIET_S:
                break
            yield at


def recovered(names: Iterable[str], spread_s: int, chance: Callable[[], float]) -> Iterable[float]:
    """The first request of each device that is answered after an hour without an origin."""
    for _ in names:
        backoff, at = Backoff(chance), 0.0
        while at < OUTAGE_S:
            at += backoff.fail()
        yield at - OUTAGE_S


def show(name: str, times: Iterable[float], worst: float) -> None:
    """One line: how many requests, over how long, the peak, and its ratio to the mean. worst: the ratio without."""
    counts = Counter(int(time) for time in times)
    first, last = min(counts), max(counts)
    total, peak = sum(counts.values()), max(counts.values())
    mean = total / (last - first + 1)
    print(f"{name:28} {peak / mean:9.2f} {worst:8.0f} {total:10} {last - first + 1:6} {peak:8}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1_000_000)
    parser.add_argument("--spread", type=int, default=600)
    args = parser.parse_args()
    chance = random.Random(7).random
    names = [f"device-{number}" for number in range(args.devices)]
    print("what                         peak:mean  without   requests      s     peak")
    show("a publish, spread", published(names, args.spread, chance), args.spread)
    show("a version ahead, prefetched", prefetched(names, args.spread, chance), args.spread)
    show("polls of a quiet half hour", polled(names, args.spread, chance), WAIT_S)
    show("back after an hour's outage", recovered(names, args.spread, chance), 300)


if __name__ == "__main__":
    main()
