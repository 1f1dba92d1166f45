"""A live pipeline for as long as wanted: edits without end into `edged origin publish --follow --progress`.

    python benchmarks/pipeline.py [--records N] [--rate N] [--every SECONDS] [--seconds S] [--python PATH]

Records have a text, a few names and numbers; an edit moves one or two numbers of a record (views, a price), any record
alike. Printed are what was asked and what came of it: edits and versions a second, the publisher's share of one core
(all of its work: reading, coding, proving, signing, skip hops), its resident memory at the start, in the middle and at
the end, and how long after it was written an edit is in the head. --python: an interpreter, of whose edged the coding
may be compiled (packaging/compiling.py).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edged.demo.catalogue import catalogue
from edged.origin.publisher import Publisher

TICK_S = 0.02  # so often edits are written
LOOK_S = 0.002  # so often it is looked whether FILE says more
ENDING_S = 60.0
ASKED_SHARE = 0.25


@dataclass(slots=True)
class Watched:
    """written: (end in the input, when) of every piece; seen: latencies in seconds of each; resident: in bytes."""

    written: list[tuple[int, float]] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)
    versions: int = 0
    resident: list[int] = field(default_factory=list)
    ended: bool = False


def records(count: int) -> list[dict[str, Any]]:
    """Titles as a streaming service has them, with numbers that move all the time."""
    found = []
    for number, (collection, key, value) in enumerate(row for row in catalogue(count) if row[0] == "titles"):
        if number == count:
            break
        found.append({"collection": collection, "key": key, "value": value | {"views": number * 7919, "price": 499}})
    return found


def moved(known: list[dict[str, Any]], chance: random.Random) -> Iterator[bytes]:
    """Edits without end."""
    while True:
        record = chance.choice(known)
        value = record["value"]
        value["views"] += chance.randrange(1, 2000)
        if not chance.randrange(10):
            value["price"] = 99 + 100 * chance.randrange(12)
        yield json.dumps(record).encode() + b"\n"


def cpu_s(process: int) -> float:
    """Of a process and of its children that have ended."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def watch(feed: Path, watched: Watched) -> None:
    """Note when each piece of the input has come to be in the live head."""
    head, file = feed / "public" / "catalog" / "head", feed / "progress.json"
    version, at = 0, 0
    while not watched.ended:
        time.sleep(LOOK_S)
        if not file.exists():
            continue
        said = json.loads(file.read_bytes())
        if said["version"] == version:
            continue
        version, placed = said["version"], head.stat().st_mtime
        watched.versions += 1
        while at < len(watched.written) and watched.written[at][0] <= said["position"]:
            watched.seen.append(placed - watched.written[at][1])
            at += 1


def run(feed: Path, args: argparse.Namespace) -> None:
    known = records(args.records)
    Publisher.init(feed).publish("catalog", ((row["collection"], row["key"], row["value"]) for row in known))
    words = [args.python, "-m", "edged", "origin", "publish", str(feed), "--dataset", "catalog", "--follow", "--json"]
    words += ["--every", str(args.every), "--progress", str(feed / "progress.json")]
    watched, edits = Watched(), moved(known, random.Random(14))
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    looking = threading.Thread(target=watch, args=(feed, watched))
    looking.start()
    try:
        figures = feed_it(child, edits, watched, args)
    finally:
        assert child.stdin is not None
        child.stdin.close()
        try:
            code = child.wait(ENDING_S)
        finally:
            child.kill()
            time.sleep(10 * LOOK_S)
            watched.ended = True
            looking.join()
    if code:
        sys.exit(f"the publisher ended with exit code {code}")
    show(figures, watched, args)


def feed_it(
    child: subprocess.Popen[bytes], edits: Iterator[bytes], watched: Watched, args: argparse.Namespace
) -> dict[str, float]:
    """Write edits at the rate that was asked. What the time after a warming up took."""
    assert child.stdin is not None
    began, count, size = time.monotonic(), 0, 0
    warm_s = min(10.0, args.seconds / 4)
    spent = since = versions = 0.0
    until, counted = began + warm_s + args.seconds, 0
    while (now := time.monotonic()) < until:
        due = int((now - began) * args.rate) - count
        lines = [next(edits) for _ in range(due)]
        child.stdin.write(b"".join(lines))
        child.stdin.flush()
        count, size = count + due, size + sum(map(len, lines))
        watched.written.append((size, time.time()))
        if not since and now > began + warm_s:
            since, spent, versions, counted = now, cpu_s(child.pid), watched.versions, count
            watched.seen.clear()
        if since and now > since + len(watched.resident) * args.seconds / 10:
            watched.resident.append(resident_bytes(child.pid))
        time.sleep(TICK_S)
    watched.resident.append(resident_bytes(child.pid))
    took = time.monotonic() - since
    return {
        "edits": (count - counted) / took,
        "versions": (watched.versions - versions) / took,
        "share": (cpu_s(child.pid) - spent) / took,
    }


def show(figures: dict[str, float], watched: Watched, args: argparse.Namespace) -> None:
    latencies, resident = sorted(watched.seen), [size / 1e6 for size in watched.resident]
    print(f"{'what':34} {'asked':>8} {'measured':>9}")
    print(f"{'edits a second':34} {args.rate:8.0f} {figures['edits']:9.0f}")
    print(f"{'versions a second':34} {1 / args.every:8.1f} {figures['versions']:9.1f}")
    print(f"{'share of one core':34} {ASKED_SHARE:8.0%} {figures['share']:9.0%}")
    for name, size in (("start", resident[0]), ("middle", resident[len(resident) // 2]), ("end", resident[-1])):
        print(f"{f'resident at the {name}, MB':34} {'flat':>8} {size:9.1f}")
    print(f"{'written to head, median ms':34} {'':8} {1000 * statistics.median(latencies):9.0f}")
    print(f"{'written to head, 99 of 100, ms':34} {'':8} {1000 * latencies[len(latencies) * 99 // 100]:9.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=36_000)
    parser.add_argument("--rate", type=float, default=1000.0, help="edits a second (default 1000)")
    parser.add_argument("--every", type=float, default=0.2, help="seconds between versions (default 0.2)")
    parser.add_argument("--seconds", type=float, default=60.0, help="measured, after a warming up (default 60)")
    parser.add_argument("--python", default=sys.executable)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edged-pipeline-") as name:
        run(Path(name) / "feed", args)


if __name__ == "__main__":
    main()
