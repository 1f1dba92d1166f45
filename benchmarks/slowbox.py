"""What a slow box takes: the daemon on a share of one core, from its first boot to an edit of 200 records.

    python benchmarks/slowbox.py [--data DIR] [--shares 10 25 100] [--period-ms 10]

The daemon runs in a control group that gives it so many percent of one core (needs root and the cpu controller, of
either version of control groups); the origin and whoever asks run outside of it. DIR holds movies.ndjson.zst; without
it a catalogue of 5,000 titles is made up. Each share has one line: seconds from the first start until something and
until everything is served, seconds of a restart, seconds until a hop of 200 edits is seen, and how long the slowest
GET took meanwhile.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from benchmarks.peers import Children, end, free_port, lines
from benchmarks.shared.publishes import Record, made_up, read

EDITS = 200
ASK_S, DEADLINE_S = 0.005, 600.0
# A process that joins the group named first and then becomes what follows.
JOIN = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])"
GROUPS = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup"))  # version 1, version 2


def find_parent() -> Path | None:
    """Where control groups can be made; None where they cannot."""
    return next((path for path in GROUPS if path.is_dir() and os.access(path, os.W_OK)), None)


@contextmanager
def control_group(parent: Path, share: int, period_us: int) -> Iterator[Path]:
    """A control group of `share` percent of one core."""
    group = parent / f"edged-slowbox-{os.getpid()}-{share}"
    group.mkdir()
    try:
        quota = period_us * share // 100
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{quota} {period_us}")
        elif (group / "cpu.cfs_quota_us").exists():
            (group / "cpu.cfs_period_us").write_text(str(period_us))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            sys.exit(f"slowbox: {group} has no cpu controller")
        yield group
    finally:
        with suppress(OSError):
            group.rmdir()


@dataclass(slots=True)
class Box:
    """One device in its control group. apps, admin: ports."""

    group: Path
    config: Path
    apps: int
    admin: int
    child: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start the daemon; returns when, by time.monotonic()."""
        began = time.monotonic()
        command = [sys.executable, "-S", "-c", JOIN, self.group / "cgroup.procs"]
        command += [sys.executable, "-m", "edged", "run", "--config", self.config]
        self.child = subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL)
        return began

    def stop(self) -> None:
        if self.child is not None:
            end(self.child)
            self.child = None

    def ask(self, port: int, path: str) -> tuple[int, bytes]:
        """Status and body; 0 where nobody answers."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""

    def until(self, port: int, path: str) -> float:
        """When a path first answers 200, by time.monotonic()."""
        deadline = time.monotonic() + DEADLINE_S
        while self.ask(port, path)[0] != 200:
            if time.monotonic() > deadline:
                sys.exit(f"slowbox: {path} did not answer within {DEADLINE_S:.0f} s")
            time.sleep(ASK_S)
        return time.monotonic()


def until_changed(box: Box, record: Record) -> tuple[float, float]:
    """Ask for one record until it is as given. Returns when, by time.time(), and the longest that a GET took."""
    path = f"/v1/catalog/{record[0]}/{quote(record[1], safe='')}"
    connection = http.client.HTTPConnection("127.0.0.1", box.apps, timeout=60)
    longest = 0.0
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        began = time.monotonic()
        connection.request("GET", path)
        body = connection.getresponse().read()
        longest = max(longest, time.monotonic() - began)
        if json.loads(body) == record[2]:
            return time.time(), longest
        time.sleep(ASK_S)
    sys.exit(f"slowbox: the edit was not seen within {DEADLINE_S:.0f} s")


def measure(parent: Path, share: int, period_us: int, records: list[Record]) -> tuple[float, ...]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        feed, apps, admin, port = folder / "feed", free_port(), free_port(), free_port()
        edged("origin", "init", feed)
        edged("origin", "publish", feed, "--dataset", "catalog", "-", data=lines(records))
        bind = f"127.0.0.1:{port}"
        Children(stack, folder).start(sys.executable, "-m", "edged", "origin", "serve", feed, "--bind", bind, port=port)
        config = folder / "edged.toml"
        config.write_text(
            f'[daemon]\ndata_dir = "{folder / "data"}"\n[[datasets]]\nname = "catalog"\n'
            f'origin = ["http://{bind}/catalog"]\ntrust = "{feed / "root.trust"}"\n'
            f'[serve]\nbind = ["127.0.0.1:{apps}"]\n[admin]\nbind = ["127.0.0.1:{admin}"]\n'
        )
        box = Box(stack.enter_context(control_group(parent, share, period_us)), config, apps, admin)
        stack.callback(box.stop)
        began = box.start()
        something = box.until(apps, "/v1/catalog") - began
        ready = box.until(admin, "/readyz") - began
        box.stop()
        began = box.start()
        again = box.until(admin, "/readyz") - began
        edits = [
            (collection, key, {**value, "edited": number})
            for number, (collection, key, value) in enumerate(records[:: max(1, len(records) // EDITS)][:EDITS])
        ]
        time.sleep(1)
        edged("origin", "publish", feed, "--dataset", "catalog", "--changes", "-", data=lines(edits))
        published = (feed / "public" / "catalog" / "head").stat().st_mtime
        seen, longest = until_changed(box, edits[-1])
        return something, ready, again, seen - published, longest


def edged(*words: str | Path, data: str | None = None) -> None:
    command = [sys.executable, "-m", "edged", *map(str, words)]
    done = subprocess.run(command, input=data, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"edged {words}: {done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of the films; without it a catalogue is made up")
    parser.add_argument("--shares", type=int, nargs="+", default=[10, 25, 100], help="percent of one core")
    parser.add_argument("--period-ms", type=int, default=10)
    args = parser.parse_args()
    parent = find_parent()
    if parent is None:
        print("slowbox: no control group can be made here; run it as root where /sys/fs/cgroup is writable")
        return
    if args.data:
        films = read(args.data / "movies.ndjson.zst")
        records: list[Record] = [(row["collection"], row["key"], row["value"]) for row in films]
    else:
        records = list(made_up(5000)[0])
    print(f"{len(records):,} records; periods of {args.period_ms} ms")
    titles = ("first served, s", "first ready, s", "restart, s", "200 edits seen, s", "slowest GET, ms")
    print(f"{'of a core':>10}" + "".join(f"{title:>20}" for title in titles), flush=True)
    for share in args.shares:
        *seconds, longest = measure(parent, share, 1000 * args.period_ms, records)
        print(f"{share:>8} %" + "".join(f"{value:20.1f}" for value in seconds) + f"{1000 * longest:20.0f}", flush=True)


if __name__ == "__main__":
    main()
