"""A version ahead against an ordinary publish of the same changes: what a device fetches once it is live, and how soon
an app sees it.

    python benchmarks/ahead.py [--titles N] [--rounds N]

An origin (`edged origin serve`) and a device (`edged run`) on this machine. Printed are the bytes of the head that
releases, what the device received from the release to the record at the app, the time from the head in place to the
app (the median of the rounds), and the same for an ordinary publish.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import Children, free_port, lines
from benchmarks.shared.publishes import Record, made_up
from benchmarks.visible import Device, edged

DEADLINE_S, LOOK_S, PAUSE_S = 60.0, 0.002, 1.0
COUNTS = (1, 10, 100, 1000)  # records changed


@dataclass
class Bench:
    """A feed, and the ports of its device."""

    folder: Path
    apps: int
    admin: int

    @property
    def feed(self) -> Path:
        return self.folder / "feed"

    @property
    def head(self) -> Path:
        return self.feed / "public" / "catalog" / "head"

    def received(self) -> int:
        """Bytes that the device has received."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        connection.request("GET", "/status")
        return int(json.loads(connection.getresponse().read())["datasets"]["catalog"]["bytes_received"])

    def sealed(self) -> int:
        """Bytes of what the device has fetched ahead."""
        try:
            files = (self.folder / "data" / "catalog" / "ahead").glob("*")
            return sum(path.stat().st_size for path in files if len(path.name) == 64)
        except FileNotFoundError:  # deleted between the two
            return self.sealed()

    def placed_by(self, *words: str | Path) -> float:
        """Run a command that makes a version live. When its head was in place, by time.time()."""
        before = self.head.stat().st_ino
        command = [sys.executable, "-m", "edged", "origin", *map(str, words)]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while (placed := self.head.stat()).st_ino == before:
            if child.poll():
                sys.exit(f"ahead: {words[0]} failed")
            time.sleep(LOOK_S)
        self.child = child
        return placed.st_ctime


@dataclass(frozen=True)
class Outcome:
    """seconds: from the head in place to the app; received: by the device meanwhile; head: its bytes."""

    seconds: float
    received: int
    head: int


def wait_for(bench: Bench, present: bool) -> int:
    deadline = time.monotonic() + DEADLINE_S
    while bool(size := bench.sealed()) != present:
        if time.monotonic() > deadline:
            sys.exit("ahead: the device did not fetch, or did not delete, what it should have")
        time.sleep(LOOK_S)
    return size


def run_one(bench: Bench, device: Device, changed: list[Record], ahead: bool) -> tuple[Outcome, int]:
    """Make `changed` live, ahead or not."""
    path = bench.folder / "edits.ndjson"
    path.write_text(lines(changed))
    sealed = 0
    words: list[str | Path] = ["publish", bench.feed, "--dataset", "catalog", path, "--changes"]
    if ahead:
        edged("origin", "ahead", bench.feed, "--dataset", "catalog", path, "--changes", "--spread", "0")
        sealed = wait_for(bench, present=True)
        words = ["release", bench.feed, "--dataset", "catalog"]
    time.sleep(PAUSE_S)
    before = bench.received()
    placed = bench.placed_by(*words)
    head = bench.head.stat().st_size
    seen = device.until_seen(changed[-1])
    received = bench.received() - before
    bench.child.wait()
    if ahead:
        wait_for(bench, present=False)
    return Outcome(max(0.0, seen - placed), received, head), sealed


def start(bench: Bench, children: Children, port: int) -> None:
    bind = f"127.0.0.1:{port}"
    children.start(sys.executable, "-m", "edged", "origin", "serve", bench.feed, "--bind", bind, port=port)
    config = bench.folder / "edged.toml"
    config.write_text(
        f'[daemon]\ndata_dir = "{bench.folder / "data"}"\n[[datasets]]\nname = "catalog"\n'
        f'origin = ["http://{bind}/catalog"]\ntrust = "{bench.feed / "root.trust"}"\n'
        f'[serve]\nbind = ["127.0.0.1:{bench.apps}"]\n[admin]\nbind = ["127.0.0.1:{bench.admin}"]\n'
    )
    children.start(sys.executable, "-m", "edged", "run", "--config", config, port=bench.apps)


def measure(bench: Bench, device: Device, records: list[Record], rounds: int) -> None:
    titles = [record for record in records if record[0] == "titles"]
    print("changed  sealed      head    received after it     ms to the app, ahead : publish (ratio)")
    edition = 0
    for count in COUNTS:
        found: dict[bool, list[Outcome]] = {True: [], False: []}
        sealed = 0
        for _ in range(rounds):
            for ahead in (True, False):
                edition += 1
                changed: list[Record] = [
                    (name, key, {**value, "note": f"{edition * 7919 + number * 104_729} is new"})
                    for number, (name, key, value) in enumerate(titles[:count])
                ]
                outcome, size = run_one(bench, device, changed, ahead)
                found[ahead].append(outcome)
                sealed = max(sealed, size)
        mine, theirs = (1000 * statistics.median(item.seconds for item in found[ahead]) for ahead in (True, False))
        head, after = max(item.head for item in found[True]), max(item.received for item in found[True])
        ordinary = max(item.received for item in found[False])
        sizes = f"{count:7} {sealed:7} {head:9} {after:9} : {ordinary:7}"
        print(f"{sizes}  {mine:16.1f} : {theirs:6.1f} ({mine / theirs:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    records = list(made_up(args.titles)[0])
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        bench = Bench(Path(name), free_port(), free_port())
        edged("origin", "init", bench.feed)
        edged("origin", "publish", bench.feed, "--dataset", "catalog", "-", data=lines(records))
        children = Children(stack, bench.folder)
        start(bench, children, free_port())
        device = Device(bench.apps, 1)
        device.until_seen(records[-1])
        measure(bench, device, records, args.rounds)


if __name__ == "__main__":
    main()
