"""The coding as mypyc compiles it beside the same modules interpreted, in one run.

    python benchmarks/compiled.py [--data DIR] [--rounds N]

Compiles a copy of the sources (a minute; needs a C compiler), then decodes the same hops and snapshot part in both, in
turn, each round in fresh processes. DIR holds anime-base.ndjson.zst, anime-edits.ndjson.zst and movies.ndjson.zst;
without it a catalogue and edits are made up. Where a control group can be made (root), the typical and the largest hop
are decoded on a tenth of one core as well: what a slow box takes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.slowbox import JOIN, control_group, find_parent
from benchmarks.wire import Record, State, made_up, read_edits, read_records
from edged.feed import cbor
from edged.feed.coding.changes import Change
from edged.feed.coding.hop import pack_hop, unpack_hop
from edged.feed.coding.snapshot import decode_part, encode_snapshot, train_dictionary

ROOT = Path(__file__).resolve().parent.parent
SYNOPSES, SYNOPSIS_CHARACTERS, EDITS = 31, 270, 194
PART_BYTES = 32 << 20
Case = dict[str, Any]  # a hop or part and what decoding it asks for, in hexadecimal


class Noted:
    """Version A as a state has it; what a hop asks of it is noted."""

    def __init__(self, state: State, case: Case) -> None:
        self.state, self.case = state, case

    def get(self, collection: str, key: str) -> bytes | None:
        value = self.state.get(collection, key)
        self.case["values"][f"{collection}/{key}"] = None if value is None else value.hex()
        return value

    def before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        near = self.state.before(collection, key)
        self.case["before"][f"{collection}/{key}"] = None if near is None else [near[0], near[1].hex()]
        return near

    def keys(self, collection: str) -> Iterator[str]:
        self.case["keys"][collection] = list(self.state.keys(collection))
        return iter(self.case["keys"][collection])


class Answers:
    """The same by the notes, at the price of a look-up."""

    def __init__(self, case: Case) -> None:
        self.values = {name: None if value is None else bytes.fromhex(value) for name, value in case["values"].items()}
        self.near = {
            name: None if near is None else (near[0], bytes.fromhex(near[1])) for name, near in case["before"].items()
        }
        self.all: dict[str, list[str]] = case["keys"]

    def get(self, collection: str, key: str) -> bytes | None:
        return self.values[f"{collection}/{key}"]

    def before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        return self.near[f"{collection}/{key}"]

    def keys(self, collection: str) -> Iterator[str]:
        return iter(self.all[collection])


def hop_case(changes: list[Change], state: State, dictionary: bytes) -> Case:
    blob = pack_hop(changes, state, dictionary)
    case: Case = {"blob": blob.hex(), "dictionary": dictionary.hex(), "values": {}, "before": {}, "keys": {}}
    unpack_hop(blob, Noted(state, case), dictionary)
    return case


def synopses(records: list[Record], field: str) -> list[Change]:
    """New texts for some records, of sentences that others have."""
    chance = random.Random(31)
    decoded = [(collection, key, cbor.decode(value, key)) for collection, key, value in chance.sample(records, 2000)]
    worded = [(name, key, value) for name, key, value in decoded if value.get(field)]
    sentences = [sentence for _, _, value in worded for sentence in value[field].split(". ")]
    return [
        Change(name, key, cbor.encode({**value, field: ". ".join(chance.sample(sentences, 4))[:SYNOPSIS_CHARACTERS]}))
        for name, key, value in worded[:SYNOPSES]
    ]


def make_cases(data: Path | None) -> dict[str, list[Case]]:
    """The hops to decode by what they stand for, and one part of a snapshot."""
    if data:
        records, publishes = read_records(data / "anime-base.ndjson.zst"), read_edits(data / "anime-edits.ndjson.zst")
    else:
        records, publishes = made_up()
    state, dictionary = State(records), train_dictionary(records)
    hops = []
    for edit in itertools.islice(publishes, EDITS if data else EDITS // 4):
        hops.append(hop_case(edit.changes, state, dictionary))
        state.apply(edit.changes)
    texts, field = records, "synopsis"
    if data:
        texts, field = read_records(data / "movies.ndjson.zst"), "extract"
        dictionary = train_dictionary(texts)
    part = next(encode_snapshot(texts, dictionary, level=3))
    return {
        "hops": hops,
        "synopses": [hop_case(synopses(texts, field), State(texts), dictionary)],
        "part": [{"blob": part.hex(), "dictionary": dictionary.hex()}],
    }


# --- one process: decode all of it, and say what that took ---


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return 0.0


def decode_ms(case: Case, *, hop: bool) -> float:
    """Time of the processor to decode once; the lookups are made beforehand."""
    blob, dictionary = bytes.fromhex(case["blob"]), bytes.fromhex(case["dictionary"])
    answers = Answers(case) if hop else None
    began = time.process_time()
    if answers is not None:
        unpack_hop(blob, answers, dictionary)
    else:
        for _ in decode_part(blob, dictionary, max_bytes=PART_BYTES):
            pass
    return 1000 * (time.process_time() - began)


def child(cases: dict[str, list[Case]], began: float) -> None:
    import edged.feed.coding.textmodel as model

    found: dict[str, Any] = {"compiled": not str(model.__file__).endswith(".py"), "import_ms": 1000 * began}
    for case in (*cases["hops"][:1], *cases["synopses"]):
        unpack_hop(bytes.fromhex(case["blob"]), Answers(case), bytes.fromhex(case["dictionary"]))
    taken = [decode_ms(case, hop=True) for case in cases["hops"]]
    found |= {"typical": statistics.median(taken), "largest": max(taken), "all": sum(taken)}
    found["synopses"] = decode_ms(cases["synopses"][0], hop=True)
    found["part"] = decode_ms(cases["part"][0], hop=False)
    found["memory_mb"] = resident_mb()
    began = time.monotonic()
    found["place"] = taken.index(max(taken))
    decode_ms(cases["hops"][found["place"]], hop=True)
    found["largest_s"] = time.monotonic() - began
    print(json.dumps(found))


def run(tree: Path, cases: Path, group: Path | None = None) -> dict[str, Any]:
    command = [sys.executable, str(tree / "benchmarks/compiled.py"), "--child", str(cases)]
    if group is not None:
        command = [sys.executable, "-S", "-c", JOIN, str(group / "cgroup.procs"), *command]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tree)
    if done.returncode:
        sys.exit(f"compiled: {done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


# --- both, side by side ---


def copies(folder: Path) -> tuple[Path, Path, int]:
    """The sources as they are, the same compiled, and how many bytes a wheel grows by."""
    plain, compiled = folder / "plain", folder / "compiled"
    for tree in (plain, compiled):
        for name in ("edged", "benchmarks"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    made = folder / "made"
    done = subprocess.run(
        [sys.executable, str(ROOT / "packaging/compiling.py"), str(made)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"compiled: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    with zipfile.ZipFile(folder / "made.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(made.rglob("*.so")):
            archive.write(path, path.relative_to(made))
    shutil.copytree(made, compiled, dirs_exist_ok=True)
    return plain, compiled, (folder / "made.zip").stat().st_size


def report(plain: list[dict[str, Any]], compiled: list[dict[str, Any]]) -> None:
    print(f"{'':34} {'interpreted':>12} {'compiled':>10} {'ratio':>7}")
    rows = {
        "typical": "hop, median, ms", "largest": "hop, largest, ms", "all": "all hops, ms",
        "synopses": f"{SYNOPSES} new synopses, ms", "part": "snapshot part of 3 MB, ms",
        "import_ms": "imports, ms", "memory_mb": "resident, MB",
    }  # fmt: skip
    for name, title in rows.items():
        one, other = (min(found[name] for found in results) for results in (plain, compiled))
        print(f"{title:34} {one:12.1f} {other:10.1f} {one / other:7.2f}")


def slow(trees: Iterable[Path], cases: Path) -> None:
    parent = find_parent()
    if parent is None:
        print("no control group can be made here; run it as root where /sys/fs/cgroup is writable")
        return
    with control_group(parent, 10, 10_000) as group:
        one, other = (run(tree, cases, group)["largest_s"] for tree in trees)
    print(f"{'largest hop, a tenth of a core, s':34} {one:12.1f} {other:10.1f} {one / other:7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of the lists; without it a catalogue is made up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(json.loads(args.child.read_text()), time.process_time())
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = folder / "cases.json"
        cases.write_text(json.dumps(make_cases(args.data)))
        plain, compiled, grown = copies(folder)
        rounds = [(run(plain, cases), run(compiled, cases)) for _ in range(args.rounds)]
        if any(one["compiled"] or not other["compiled"] for one, other in rounds):
            sys.exit("compiled: the two copies do not run what they should")
        report([one for one, _ in rounds], [other for _, other in rounds])
        print(f"a compiled wheel is {grown / 1e6:.2f} MB larger")
        every = json.loads(cases.read_text())
        cases.write_text(json.dumps({**every, "hops": [every["hops"][rounds[0][0]["place"]]]}))
        slow((plain, compiled), cases)


if __name__ == "__main__":
    main()
