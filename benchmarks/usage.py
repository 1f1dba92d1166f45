"""What counting use costs a hot request: this tree beside another one, each answering from memory, ratios first.

    python -m benchmarks.usage --beside DIR [--seconds 3] [--rounds 7]

DIR: another checkout, as one from before answers were counted. The servers take turns within each round, on one core,
with wrk on another; the ratio is of the processor time for each request, which other programs disturb least, and the
median of the rounds. Then what a year of use takes: to write (in a thread, every 15 minutes at most), and on flash.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.serve import SERVER_CORE, Load, Running, measure, prepare, wrk
from benchmarks.shared.stores import films
from edged.access.usage import DAY_S, HOUR_S, Count, UsageBook, Used, shown
from edged.access.usagefile import encode_book

RECORDS = 2000
HERE = Path(__file__).parent.parent
DAYS, HOURLY_DAYS, ROWS = 400, 14, 30
NOW_S = 1_800_000_000.0 // DAY_S * DAY_S


@contextmanager
def server_of(tree: Path, data_dir: Path) -> Iterator[Running]:
    command = ["taskset", "-c", SERVER_CORE, sys.executable, "-m", "benchmarks.shared.server", str(data_dir)]
    with subprocess.Popen(command, cwd=tree, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield Running(process.stdout.readline().decode().strip(), process.pid)
        finally:
            process.kill()


def compare(beside: Path, seconds: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        scratch = Path(place)
        paths = prepare(films(None, RECORDS), scratch)
        load = Load("hot records", paths["hot"], 16)
        servers = [stack.enter_context(server_of(tree, scratch / "data")) for tree in (HERE, beside)]
        for server in servers:
            wrk(server.url, load, 2, scratch)
        runs = [[measure(server, load, seconds, scratch) for server in servers] for _ in range(rounds)]
    ratios = [mine.cpu_us / other.cpu_us for mine, other in runs]
    speeds = [mine.per_s / other.per_s for mine, other in runs]
    print(f"processor time of a hot request, counted / beside: {statistics.median(ratios):.3f}", end="")
    print(f" (of {rounds} rounds {min(ratios):.3f} to {max(ratios):.3f})")
    print(f"requests a second, counted / beside: {statistics.median(speeds):.3f}")
    for name, column in (("counted", 0), ("beside", 1)):
        cpu_us = statistics.median(run[column].cpu_us for run in runs)
        per_s = statistics.median(run[column].per_s for run in runs)
        print(f"{name:>8}: {cpu_us:6.2f} µs, {per_s:9,.0f} requests/s")


def year() -> UsageBook:
    """Of eight apps that ask for 30 things."""
    book = UsageBook(DAYS)
    for day in range(DAYS):
        for hour in range(24) if day >= DAYS - HOURLY_DAYS else (0,):
            counted = [
                (Used(f"app-{row % 8}", "partner", f"catalog/c{row}"), Count(row * day, row, 0, row * 9173, row / 7))
                for row in range(ROWS)
            ]
            book.enter(counted, NOW_S + day * DAY_S + hour * HOUR_S)
    return book


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="another checkout; without one only the year is measured")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if options.beside is not None:
        compare(options.beside.resolve(), options.seconds, options.rounds)
    book = year()
    began = time.perf_counter()
    size = len(encode_book(book))
    encoded = time.perf_counter()
    shown(book)
    print(f"{DAYS} days of {ROWS} rows, {HOURLY_DAYS} of them by hour: {size / 1000:.0f} kB on flash,", end=" ")
    print(f"{1000 * (encoded - began):.0f} ms to encode, {1000 * (time.perf_counter() - encoded):.0f} ms to show")


if __name__ == "__main__":
    main()
