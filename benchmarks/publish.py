"""What publishing takes: time, peak memory and bytes of `edged origin publish`, each run in a process of its own.

    python benchmarks/publish.py [--data DIR] [--records N]

DIR holds movies.ndjson.zst and movies-next.ndjson.zst; without it a catalogue is made up. The peer is what one would
do without edged: the whole state once more through `zstd --patch-from` (level 19, long window), in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from edged.demo.catalogue import catalogue
from edged.origin.input.lines import read_lines

EDITS = 90


@dataclass(frozen=True, slots=True)
class Run:
    """One command: seconds of wall time, seconds of processor time, peak resident bytes, and what it printed."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    output: str


def run(*words: str) -> Run:
    """Run one Python command to its end. Exits where it fails."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, *words],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), 1)],
        )
        _, status, used = os.wait4(child, 0)
        wall = time.perf_counter() - began
        output.seek(0)
        text = output.read().decode()
    if status:
        sys.exit(f"{' '.join(words)}: failed\n{text}")
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, text)


def publish(feed: Path, *words: str) -> Run:
    return run("-m", "edged", "origin", "publish", str(feed), "--dataset", "catalog", "--json", *words)


def made_up_states(folder: Path) -> tuple[Path, Path]:
    """Two whole states of about 36,000 records that differ in EDITS of them."""
    first, second = folder / "state.ndjson", folder / "next.ndjson"
    with first.open("w") as one, second.open("w") as other:
        for number, (collection, key, value) in enumerate(catalogue(30_000)):
            one.write(line(collection, key, value))
            if number % 400 == 0 and number < 400 * EDITS and isinstance(value, dict):
                value = value | {"edited": True}
            other.write(line(collection, key, value))
    return first, second


def line(collection: str, key: str, value: object) -> str:
    return json.dumps({"collection": collection, "key": key, "value": value}) + "\n"


def made_up_mass(count: int) -> Iterator[str]:
    """`count` small records, some 150 bytes each, as many catalogues of channels, rights and offers have them."""
    for number in range(count):
        value = {
            "title": f"Title {number * 7919 % count}",
            "year": 1950 + number % 75,
            "genres": [f"genre {number % 17}", f"genre {number % 5}"],
            "rating": number % 100 / 10,
            "offer": f"{number * 2_654_435_761 % (1 << 32):08x}",
        }
        yield line("titles", f"title/{number:07d}", value)


def patch_from(first: Path, second: Path) -> None:
    """The peer, run in its own process: both states whole in memory, the second as a patch of the first."""
    old, new = (b"\n".join(read_lines(str(path))) for path in (first, second))
    parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=27, enable_ldm=True)
    reference = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    print(len(zstandard.ZstdCompressor(compression_params=parameters, dict_data=reference).compress(new)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="directory of movies.ndjson.zst and movies-next.ndjson.zst")
    parser.add_argument("--records", type=int, default=1_000_000, help="of the made-up mass (default 1,000,000)")
    parser.add_argument("--patch-from", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.patch_from:
        patch_from(*args.patch_from)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = whole_states(folder, args.data) + mass(folder, args.records)
    print(f"{'what':58} {'wall s':>7} {'cpu s':>7} {'peak MB':>8} {'bytes':>10}")
    for what, taken, size in rows:
        print(f"{what:58} {taken.wall_s:7.2f} {taken.cpu_s:7.2f} {taken.peak_bytes / 1e6:8.0f} {size:>10}")


def whole_states(folder: Path, data: Path | None) -> list[tuple[str, Run, int]]:
    if data is not None:
        first, second = data / "movies.ndjson.zst", data / "movies-next.ndjson.zst"
    else:
        first, second = made_up_states(folder)
    feed = folder / "feed"
    run("-m", "edged", "origin", "init", str(feed))
    initial = publish(feed, str(first))
    update = publish(feed, str(second))
    again = publish(feed, str(second))
    peer = run(__file__, "--patch-from", str(first), str(second))
    done = json.loads(update.output)
    print(
        f"edited records: {done['added'] + done['changed'] + done['removed']}; edged against zstd --patch-from: "
        f"{update.wall_s / peer.wall_s:.2f} of the time, {update.peak_bytes / peer.peak_bytes:.2f} of the memory, "
        f"{done['hop_bytes'] / int(peer.output):.2f} of the bytes\n"
    )
    return [
        ("first publish, snapshot included", initial, json.loads(initial.output)["snapshot_bytes"]),
        ("whole new state, few records changed", update, done["hop_bytes"]),
        ("the same state again", again, 0),
        ("peer: zstd --patch-from over the whole state", peer, int(peer.output)),
    ]


def mass(folder: Path, count: int) -> list[tuple[str, Run, int]]:
    feed, state, edits = folder / "mass", folder / "mass.ndjson", folder / "edits.ndjson"
    with state.open("w") as file:
        file.writelines(made_up_mass(count))
    run("-m", "edged", "origin", "init", str(feed))
    initial = publish(feed, str(state))
    rows = [(f"first publish of {count:,} records", initial, json.loads(initial.output)["snapshot_bytes"])]
    for number in range(3):
        with edits.open("w") as file:
            for edit in range(EDITS):
                place = (edit * 10_007 + number) % count
                file.write(line("titles", f"title/{place:07d}", {"title": f"Edited {number}", "year": 2000 + number}))
        taken = publish(feed, str(edits), "--changes")
        rows.append((f"--changes, {EDITS} edits of {count:,} records", taken, json.loads(taken.output)["hop_bytes"]))
    return rows


if __name__ == "__main__":
    main()
