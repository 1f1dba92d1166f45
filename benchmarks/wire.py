"""Bytes that travel: hops and snapshots beside what one would use without edged, in one run.

    python benchmarks/wire.py [--data DIR] [--edits N]

DIR holds anime-base.ndjson.zst, anime-edits.ndjson.zst and movies.ndjson.zst; without it a catalogue and edits to it
are made up. Every edit is published as its own version: a hop of edged, which is decoded and compared, and a patch of
each peer from the whole state before to the whole state after. The state is the records in key order, each as
deterministic CBOR [collection, key, value]. Peers are the system's zstd, xdelta3 and bsdiff; one that is not installed
is named as missing. Two peers run at a time.
"""

from __future__ import annotations

import argparse
import gzip
import io
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from edged.demo.catalogue import catalogue, edits
from edged.feed import cbor, limits
from edged.feed.coding.changes import Change, sort_key
from edged.feed.coding.hop import pack_hop, unpack_hop
from edged.feed.coding.snapshot import decode_part, encode_snapshot, pack_dictionary, train_dictionary

Record = tuple[str, str, bytes]
DECODES = 3  # of each hop; the fastest counts, which the machine's other work disturbs least
SECONDS_MOST = 120  # one run of a peer


@dataclass(slots=True)
class Edit:
    """One publish: its changes, and the bytes of the JSON lines that say the same."""

    changes: list[Change]
    lines: bytes


class State:
    """A slice's records in memory. Satisfies edged.feed.coding.changes.Lookup."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.values = {(collection, key.encode()): value for collection, key, value in records}
        self.order = sorted(self.values)

    def get(self, collection: str, key: str) -> bytes | None:
        return self.values.get((collection, key.encode()))

    def keys(self, collection: str) -> Iterator[str]:
        return (key.decode() for name, key in self.order if name == collection)

    def before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        place = bisect_left(self.order, (collection, key.encode())) - 1
        if place < 0 or self.order[place][0] != collection:
            return None
        return self.order[place][1].decode(), self.values[self.order[place]]

    def apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            name = (change.collection, change.key.encode())
            if change.value is None:
                del self.values[name]
                del self.order[bisect_left(self.order, name)]
            else:
                if name not in self.values:
                    insort(self.order, name)
                self.values[name] = change.value

    def records(self) -> Iterator[Record]:
        for collection, key in self.order:
            yield collection, key.decode(), self.values[collection, key]

    def canonical(self) -> bytes:
        head = b"\x83"  # an array of three
        return b"".join(head + cbor.encode(c) + cbor.encode(k.decode()) + self.values[c, k] for c, k in self.order)


def read(path: Path) -> Iterator[tuple[bytes, Any]]:
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        for line in io.BufferedReader(stream):
            yield line, json.loads(line)


def read_records(path: Path) -> list[Record]:
    return [(row["collection"], row["key"], cbor.encode_record(row["value"], row["key"])) for _, row in read(path)]


def read_edits(path: Path) -> Iterator[Edit]:
    edit: Edit | None = None
    for line, row in read(path):
        if "commit" in row:
            if edit:
                yield edit
            edit = Edit([], b"")
        elif edit:
            value = None if row.get("deleted") else cbor.encode_record(row["value"], row["key"])
            edit.changes.append(Change(row["collection"], row["key"], value))
            edit.lines += line
    if edit:
        yield edit


def made_up() -> tuple[list[Record], Iterator[Edit]]:
    def encoded(value: Any) -> bytes | None:
        return None if value is None else cbor.encode_record(value, "made-up record")

    def publishes() -> Iterator[Edit]:
        for batch in edits():
            rows = [{"collection": edit.collection, "key": edit.key, "value": edit.value} for edit in batch]
            lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
            yield Edit([Change(edit.collection, edit.key, encoded(edit.value)) for edit in batch], lines.encode())

    return [(collection, key, encoded(value) or b"") for collection, key, value in catalogue()], publishes()


@dataclass(frozen=True, slots=True)
class Peer:
    """A program that makes a patch: command(old, new, patch)."""

    name: str
    command: Callable[[str, str, str], list[str]]


PEERS = [
    Peer(
        "zstd -19 --long=27 --patch-from",
        lambda a, b, out: ["zstd", "-q", "-f", "-19", "--long=27", f"--patch-from={a}", b, "-o", out],
    ),
    Peer("xdelta3 -9", lambda a, b, out: ["xdelta3", "-9", "-f", "-e", "-s", a, b, out]),
    Peer("bsdiff", lambda a, b, out: ["bsdiff", a, b, out]),
]


def patch_bytes(peer: Peer, old: Path, new: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "patch"
        command = peer.command(str(old), str(new), str(out))
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS_MOST)
        return out.stat().st_size


def frame_bytes(content: bytes) -> int:
    """One zstd frame at level 19 with long-distance matching over a window that takes all of it."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19, source_size=len(content), window_log=27, enable_ldm=True, write_checksum=False
    )
    return len(zstandard.ZstdCompressor(compression_params=parameters).compress(content))


@dataclass(slots=True)
class Totals:
    """Bytes by means, one number an edit, and the times of edged."""

    sizes: dict[str, list[int]] = field(default_factory=dict)
    encode_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)

    def add(self, name: str, size: int) -> None:
        self.sizes.setdefault(name, []).append(size)


def hop_bytes(edit: Edit, state: State, dictionary: bytes, totals: Totals) -> int:
    began = time.perf_counter()
    blob = pack_hop(edit.changes, state, dictionary)
    totals.encode_s.append(time.perf_counter() - began)
    taken = []
    for _ in range(DECODES):
        began = time.perf_counter()
        changes = unpack_hop(blob, state, dictionary)
        taken.append(time.perf_counter() - began)
    totals.decode_s.append(min(taken))
    real = (c for c in edit.changes if state.get(c.collection, c.key) != c.value)
    if changes != sorted(real, key=sort_key):
        sys.exit("a hop did not come back as it went in")
    return len(blob)


def measure_hops(records: list[Record], publishes: Iterable[Edit]) -> tuple[Totals, list[str]]:
    state, totals = State(records), Totals()
    dictionary = train_dictionary(records)
    there = [peer for peer in PEERS if shutil.which(peer.command("", "", "")[0])]
    waiting: list[tuple[str, Future[int]]] = []
    whole = [frame_bytes(state.canonical())]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        folder = Path(name)
        old = folder / "0"
        old.write_bytes(state.canonical())
        for number, edit in enumerate(publishes, 1):
            totals.add("edged", hop_bytes(edit, state, dictionary, totals))
            totals.add("gzip -9 of the JSON edits", len(gzip.compress(edit.lines, 9)))
            totals.add("JSON edits", len(edit.lines))
            state.apply(edit.changes)
            new = folder / str(number)
            new.write_bytes(state.canonical())
            waiting += [(peer.name, pool.submit(patch_bytes, peer, old, new)) for peer in there]
            old = new
            show(f"edit {number}")
        for done, (what, future) in enumerate(waiting, 1):
            totals.add(what, future.result())
            show(f"peers {done} of {len(waiting)}")
    show("")
    whole.append(frame_bytes(state.canonical()))
    for size in itertools.islice(itertools.cycle(whole), len(totals.encode_s)):
        totals.add("full download (zstd -19 frame)", size)
    return totals, [peer.name for peer in PEERS if peer not in there]


def show(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:40}", end="", file=sys.stderr, flush=True)


def print_hops(what: str, totals: Totals, missing: list[str]) -> None:
    print(f"Hops: {len(totals.encode_s)} {what}, each published as its own version")
    base = sum(totals.sizes.get(PEERS[0].name, [0]))
    print(f"  {'':34} {'to --patch-from':>15} {'bytes in all':>13} {'median':>8} {'largest':>9}")
    for name, sizes in sorted(totals.sizes.items(), key=lambda item: sum(item[1])):
        ratio = f"{sum(sizes) / base:.3f}" if base else "-"
        print(f"  {name:34} {ratio:>15} {sum(sizes):13,} {statistics.median(sizes):8.0f} {max(sizes):9,}")
    for name in missing:
        print(f"  {name:34} not installed")
    for name, times in (("encode", totals.encode_s), ("decode", totals.decode_s)):
        print(f"  edged, {name} a hop: median {statistics.median(times) * 1e3:.1f} ms, most {max(times) * 1e3:.1f} ms")


def print_snapshot(name: str, records: list[Record]) -> None:
    ordered = list(State(records).records())
    began = time.perf_counter()
    dictionary = train_dictionary(ordered)
    trained = time.perf_counter()
    parts = list(encode_snapshot(ordered, dictionary))
    encoded = time.perf_counter()
    if [row for part in parts for row in decode_part(part, dictionary, max_bytes=limits.PART_BYTES)] != ordered:
        sys.exit("a snapshot did not come back as it went in")
    decoded = time.perf_counter()
    packed = len(pack_dictionary(dictionary))
    total, frame = packed + sum(map(len, parts)), frame_bytes(State(records).canonical())
    print(f"Snapshot of {name}, {len(ordered):,} records")
    print(f"  {total / frame:.3f} of one zstd -19 --long frame: {total:,} bytes against {frame:,}")
    sizes = f"{min(map(len, parts)):,} to {max(map(len, parts)):,} bytes"
    print(f"  {len(parts)} parts of {sizes}, and a dictionary of {packed:,} ({len(dictionary):,} unpacked)")
    print(
        f"  train {trained - began:.2f} s, encode {encoded - trained:.1f} s, decode {decoded - encoded:.2f} s; "
        f"each record by itself, level 12: {by_record(ordered, dictionary):,} bytes on disk"
    )


def by_record(records: list[Record], dictionary: bytes) -> int:
    """Bytes of all values, each compressed by itself with the dictionary as a replica does."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        12,
        source_size=512,
        dict_size=len(dictionary),
        write_checksum=False,
        write_dict_id=False,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
    )
    engine = zstandard.ZstdCompressor(
        compression_params=parameters, dict_data=zstandard.ZstdCompressionDict(dictionary)
    )
    return sum(len(engine.compress(value)) for _, _, value in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of the .ndjson.zst files; without it data are made up")
    parser.add_argument("--edits", type=int, default=0, help="the first so many edits only (default: all; 100 made up)")
    args = parser.parse_args()
    if args.data:
        records = read_records(args.data / "anime-base.ndjson.zst")
        publishes = read_edits(args.data / "anime-edits.ndjson.zst")
        print_hops("real edits (anime-edits)", *measure_hops(records, itertools.islice(publishes, args.edits or None)))
        print_snapshot("anime-base", records)
        print_snapshot("movies", read_records(args.data / "movies.ndjson.zst"))
    else:
        records, publishes = made_up()
        print_hops("made-up edits", *measure_hops(records, itertools.islice(publishes, args.edits or 100)))
        print_snapshot("a made-up catalogue", records)


if __name__ == "__main__":
    main()
