"""The replica next to diskcache, SQLite and LMDB: one run, the same data, ratios first.

    python -m benchmarks.replica [--data DIR] [--only growth [--million] [--plot out.png]]

Without --data the records are made up. Gets are over all keys in random order, after a snapshot and 100 hops; flash is
`write_bytes` of /proc/self/io, read after sync, over --hops hops, merging included. `--only growth` measures time and
memory against the number of (made-up) records, and `--plot` draws them: that needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cbor2

import edged
from benchmarks.shared.stores import INDEXED, SEARCHED, STORES, Edged, Record, edits_of, films, made_up
from edged.feed.coding.snapshot import train_dictionary
from edged.feed.schema import Schema

REPEATS = 5


def best_us(action: Callable[[Any], Any], items: Sequence[Any], repeats: int = REPEATS) -> float:
    """Median over `repeats` of the mean microseconds an item."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        for item in items:
            action(item)
        taken.append((time.perf_counter() - start) / len(items) * 1e6)
    return sorted(taken)[len(taken) // 2]


def decoding(get: Callable[[str], bytes | None]) -> Callable[[str], Any]:
    return lambda key: cbor2.loads(get(key) or b"")


def disk_bytes(root: Path) -> int:
    seen: dict[int, int] = {}
    for path in root.rglob("*"):
        if path.is_file():
            seen[path.stat().st_ino] = path.stat().st_size
    return sum(seen.values())


def written_bytes() -> int:
    """What this process has had written, after everything has reached the disk."""
    os.sync()
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes"):
            return int(line.split()[1])
    return 0


def table(title: str, rows: list[list[str]]) -> None:
    print(f"\n{title}")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def gets(records: list[Record], dictionary: bytes, root: Path, hops: int, edits: int) -> None:
    """Random gets after a snapshot and hops, all stores in turn within each repeat's reach."""
    stores: list[Any] = [make(root) for make in STORES]
    for store in stores:
        chance = random.Random(2)
        store.fill(records, dictionary)
        for number in range(hops):
            store.apply(edits_of(records, edits, chance, number))
    keys = [key for _, key, _ in records]
    random.Random(3).shuffle(keys)
    keys = keys[:20_000]
    rounds: dict[str, list[tuple[float, float]]] = {store.name: [] for store in stores}
    for _ in range(REPEATS):
        for store in stores:
            get = store.getter()
            raw = best_us(get, keys, 1)
            decoded = best_us(decoding(get), keys, 1)
            rounds[store.name].append((raw, decoded))
    times = {
        name: [sorted(column)[REPEATS // 2] for column in zip(*taken, strict=True)] for name, taken in rounds.items()
    }
    ours = edged.open(root / "edged")["catalog"]["titles"]
    decoded = best_us(ours.get, keys)
    rows = [["", "get, µs", "edged / it", "get + decode, µs", "edged / it", "disk, MB"]]
    for store in stores:
        raw, both = times[store.name]
        both = decoded if store.name == "edged" else both
        rows.append(
            [store.name, f"{raw:.2f}", f"{times['edged'][0] / raw:.2f}", f"{both:.2f}", f"{decoded / both:.2f}",
             f"{disk_bytes(store.root) / 1e6:.2f}"]
        )  # fmt: skip
        store.close()
    table(f"Random gets over {len(records)} records after a snapshot and {hops} hops of {edits} edits", rows)


def sizes(records: list[Record], dictionary: bytes, root: Path) -> None:
    rows = [["", "disk, MB"]]
    for name, schema in (("no indexes", Schema()), ("where-indexes", INDEXED), ("and text search", SEARCHED)):
        store = Edged(root / name.replace(" ", "-"), schema)
        store.fill(records, dictionary)
        store.close()
        rows.append([name, f"{disk_bytes(store.root) / 1e6:.2f}"])
    rows.append(["values, uncompressed", f"{sum(len(value) for _, _, value in records) / 1e6:.2f}"])
    table("On disk after a snapshot", rows)


def flash(records: list[Record], dictionary: bytes, root: Path, hops: int, edits: int) -> None:
    """Bytes that reach the disk for `hops` hops, merging included."""
    rows = [["", "KB a hop", "edged / it", "of the change"]]
    totals: dict[str, float] = {}
    change = 0
    for make in STORES:
        store: Any = make(root)
        store.fill(records, dictionary)
        chance = random.Random(4)
        batches = [edits_of(records, edits, chance, number) for number in range(hops)]
        change = sum(len(value) + len(key) for batch in batches for key, value in batch)
        before = written_bytes()
        for batch in batches:
            store.apply(batch)
        store.close()
        totals[store.name] = (written_bytes() - before) / hops
    for name, total in totals.items():
        rows.append([name, f"{total / 1e3:.1f}", f"{totals['edged'] / total:.3f}", f"{total / (change / hops):.2f}"])
    table(f"Written to disk, {hops} hops of {edits} edits ({change / hops / 1e3:.1f} kB decompressed each)", rows)


def queries(records: list[Record], dictionary: bytes, root: Path) -> None:
    store = Edged(root, SEARCHED)
    store.fill(records, dictionary)
    chance = random.Random(5)
    for number in range(20):
        store.apply(edits_of(records, 20, chance, number))
    view = edged.open(store.root)["catalog"].view()
    words = [str(cbor2.loads(value)["title"]).split() for _, _, value in chance.sample(records, 400)]
    pairs = [
        f"{item[0][:4]} {item[1][:3]}" for item in words if len(item) > 1 and len(item[0]) > 3 and len(item[1]) > 2
    ]
    years = [cbor2.loads(value)["year"] for _, _, value in chance.sample(records, 200)]
    genres = sorted({genre for _, _, value in records[:2000] for genre in cbor2.loads(value)["genres"]})
    view.search("titles", "warm up")

    def both(year: int) -> dict[str, Any]:
        return {"year": year, "genres": genres[0]}

    rows = [["", "median, ms", "worst, ms"]]
    for name, action, items in (
        ("where year, 50 results", lambda year: list(view.where("titles", {"year": year}, limit=50)), years),
        ("where genre, 50 results", lambda name: list(view.where("titles", {"genres": name}, limit=50)), genres),
        ("where year and genre, 50", lambda year: list(view.where("titles", both(year), limit=50)), years),
        ("search one word, 50", lambda text: view.search("titles", text.split()[0]), pairs),
        ("search two beginnings, 50", lambda text: view.search("titles", text), pairs),
        ("search two letters, 50", lambda text: view.search("titles", f"{text[0]} {text.split()[1][0]}"), pairs),
        ("list 50 from a key", lambda year: list(view.scan("titles", after=f"{year}/M", limit=50)), years),
    ):  # fmt: skip
        taken = sorted(best_us(action, [item], 1) / 1e3 for item in items)
        rows.append([name, f"{taken[len(taken) // 2]:.2f}", f"{taken[-1]:.2f}"])
    store.close()
    table("Queries", rows)


CHILD = """
import sys, time
def anonymous():
    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('RssAnon'))
start = time.perf_counter()
import edged, edged.replica.reader
imported = time.perf_counter() - start
before = anonymous()
start = time.perf_counter()
replica = edged.open(sys.argv[1])
titles = replica['catalog']['titles']
first = next(iter(titles))
titles.get_raw(first)
opened = time.perf_counter() - start
whole = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmRSS'))
count = 0
for key, value in replica['catalog'].view().scan('titles'):
    count += len(value) > 0
for key in [first] * 1000:
    titles.get_raw(key)
print(imported * 1e3, opened * 1e3, (anonymous() - before) / 1e3, count, whole / 1e3)
"""


def read_in_child(root: Path) -> tuple[float, ...]:
    """(ms to import, ms to open and get one, MB of anonymous memory after reading all, records, MB resident)."""
    found = subprocess.run(
        [sys.executable, "-c", CHILD, str(root)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    return tuple(map(float, found.stdout.split()))


def opening(records: list[Record], dictionary: bytes, root: Path) -> None:
    store = Edged(root, INDEXED)
    store.fill(records, dictionary)
    store.close()
    found = sorted(read_in_child(store.root) for _ in range(3))[1]
    names = ["import, ms", "open and first get, ms", "RssAnon after all, MB", "records", "RSS after opening, MB"]
    table("A new process", [names, [f"{value:.1f}" for value in found]])


WATCHER = """
import sys, time, edged
catalog = edged.open(sys.argv[1])["catalog"]
print("ready", flush=True)
seen, last = catalog.version, int(sys.argv[2])
while seen < last:
    version = catalog.view().version
    if version != seen:
        print(version, time.monotonic(), flush=True)
        seen = version
"""


def following(records: list[Record], dictionary: bytes, root: Path) -> None:
    """How long after a commit another process reads the new version."""
    store = Edged(root, INDEXED)
    store.fill(records, dictionary)
    child = subprocess.Popen(
        [sys.executable, "-c", WATCHER, str(store.root), "51"], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert child.stdout is not None
    child.stdout.readline()
    committed: dict[int, float] = {}
    chance = random.Random(7)
    for number in range(50):
        store.apply(edits_of(records, 20, chance, number))
        committed[store.version] = time.monotonic()
        time.sleep(0.02)
    said = [line.split() for line in child.stdout]
    delays = sorted((float(when) - committed[int(version)]) * 1e3 for version, when in said)
    store.close()
    names = ["versions seen", "median, ms", "worst, ms"]
    row = [str(len(delays)), f"{delays[len(delays) // 2]:.2f}", f"{delays[-1]:.2f}"]
    table("A new version in another process, after the commit has returned (below 0: before)", [names, row])


def growth(counts: list[int], plot: str | None, root: Path) -> None:
    """Time and memory against the number of records, every store filled by a process of its own."""
    rows = [["records", "store", "fill, s", "peak, MB", "disk, MB", "get, µs", "open, ms", "RssAnon reading, MB"]]
    series: dict[str, list[tuple[int, list[float]]]] = {}
    for count in counts:
        for name in (store.__name__ for store in STORES):
            place = root / f"{count}-{name}"
            place.mkdir()
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.replica", "--fill", name, str(place), str(count)],
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip  # what it says of a failure is seen
            values = [float(value) for value in done.stdout.split()]
            values += list(read_in_child(place / "edged")[1:3]) if name == "Edged" else []
            series.setdefault(name, []).append((count, values))
            rows.append([str(count), name.lower(), *(f"{value:.1f}" for value in values), *[""] * (6 - len(values))])
            shutil.rmtree(place)
    table("Against the number of records (made up)", rows)
    if plot is not None:
        draw(series, plot)


def fill_one(name: str, place: str, count: int) -> None:
    """For `growth`: fill one store, print seconds, peak MB, disk MB and microseconds a get."""
    make: Any = {store.__name__: store for store in STORES}[name]
    dictionary = train_dictionary(made_up(5000)) if name == "Edged" else b""
    store = make(Path(place))
    start = time.perf_counter()
    store.fill(made_up(count), dictionary)
    taken = time.perf_counter() - start
    status = Path("/proc/self/status").read_text().splitlines()  # getrusage tells the parent's peak if that is more
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e3
    chance = random.Random(6)
    numbers = [chance.randrange(count) for _ in range(5000)]
    keys = [f"{1950 + number * 70 // count}/{number:08d}" for number in numbers]
    print(taken, peak, disk_bytes(store.root) / 1e6, best_us(store.getter(), keys, 3))
    store.close()


def drawing() -> Any:
    """matplotlib, drawing into files; ends the run with a clear line where it is missing."""
    try:
        library = importlib.import_module("matplotlib")  # for this alone, so not a dependency
    except ModuleNotFoundError:
        sys.exit("--plot needs matplotlib: pip install 'edged[bench]', or leave --plot out for the table alone")
    library.use("Agg")
    return importlib.import_module("matplotlib.pyplot")


def draw(series: dict[str, list[tuple[int, list[float]]]], plot: str) -> None:
    pyplot = drawing()
    names = ("fill, s", "peak memory, MB", "disk, MB", "get, µs")
    figure, panels = pyplot.subplots(1, len(names), figsize=(16, 4))
    for column, (panel, name) in enumerate(zip(panels, names, strict=True)):
        for store, points in series.items():
            counts, values = [count for count, _ in points], [found[column] for _, found in points]
            panel.plot(counts, values, "o-", label=store.lower())
        panel.set(xlabel="records", title=name, xscale="log", yscale="log")
        panel.legend()
    figure.tight_layout()
    figure.savefig(plot, dpi=110)


STEPS = {"sizes": sizes, "opening": opening, "queries": queries, "following": following}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, help="directory of movies.ndjson.zst; without it the records are made up")
    parser.add_argument("--only", choices=["gets", "sizes", "flash", "queries", "opening", "following", "growth"])
    parser.add_argument("--hops", type=int, default=1000)
    parser.add_argument("--edits", default="10,200", help="records a hop, for flash")
    parser.add_argument("--get-edits", type=int, default=10, help="records a hop, before the gets")
    parser.add_argument("--tmp", help="where to write; has to be a real disk for flash")
    parser.add_argument("--sizes", default="10000,100000,300000", help="numbers of records for growth, with commas")
    parser.add_argument("--million", action="store_true", help="growth up to 1,000,000 records: takes some 15 minutes")
    parser.add_argument("--plot", help="PNG for growth")
    parser.add_argument("--fill", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        fill_one(options.fill[0], options.fill[1], int(options.fill[2]))
        return
    if options.plot:
        drawing()  # before the minutes that the measuring takes
    with tempfile.TemporaryDirectory(dir=options.tmp) as name:
        root = Path(name)
        if options.only == "growth":
            counts = [int(count) for count in options.sizes.split(",")] + [1_000_000] * options.million
            growth(counts, options.plot, root)
            return
        records = films(options.data)
        dictionary = train_dictionary(records)
        wanted = [options.only] if options.only else ["sizes", "opening", "following", "gets", "queries", "flash"]
        for step in wanted:
            for number, edits in enumerate(map(int, options.edits.split(",")) if step == "flash" else [0]):
                place = root / f"{step}{number}"
                place.mkdir()
                match step:
                    case "gets":
                        gets(records, dictionary, place, 100, options.get_edits)
                    case "flash":
                        flash(records, dictionary, place, options.hops, edits)
                    case _:
                        STEPS[step](records, dictionary, place)
                shutil.rmtree(place)


if __name__ == "__main__":
    main()
