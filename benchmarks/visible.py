"""From the moment a head is in place until an app sees the edit on the device, and what waiting for it costs.

    python benchmarks/visible.py [--data DIR] [--edits N] [--workers N] [--file]

An origin (`edged origin serve`) and a device (`edged run`) on this machine; an app asks for the edited record all the
time on a connection of its own to each serving process, and the slowest counts. --file: the device reads the feed from
its directory, without an origin. Printed are the median and the 90th percentile, and how often origin and device were
woken in ten idle seconds. DIR holds movies.ndjson.zst; without it a catalogue of 5,000 titles is made up.
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
from pathlib import Path
from urllib.parse import quote

from benchmarks.peers import Children, free_port, lines
from benchmarks.shared.publishes import Record, end_publish, made_up, publish_until_placed, read

IDLE_S, PAUSE_S, DEADLINE_S, ASK_S = 10.0, 0.7, 60.0, 0.001
CONNECTIONS_A_WORKER = 8  # the kernel spreads connections over the serving processes


def edged(*words: str | Path, data: str | None = None) -> None:
    command = [sys.executable, "-m", "edged", *map(str, words)]
    done = subprocess.run(command, input=data, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"edged {words}: {done.stderr}")


def switches(pid: int) -> int:
    """How often the main thread of a process has gone to sleep of itself and was woken again."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    return 0


class Device:
    """The app's side: several connections, so that each serving process answers one."""

    def __init__(self, port: int, count: int) -> None:
        self.connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(count)]

    def until_seen(self, record: Record) -> float:
        """When every connection has seen the record as it is given, by time.time()."""
        path = f"/v1/catalog/{record[0]}/{quote(record[1], safe='')}"
        waiting, deadline = list(self.connections), time.monotonic() + DEADLINE_S
        while waiting:
            connection = waiting[0]
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200 and json.loads(body) == record[2]:
                waiting.pop(0)
            elif time.monotonic() > deadline:
                sys.exit(f"visible: the edit was not seen within {DEADLINE_S:.0f} s")
            else:
                time.sleep(ASK_S)
        return time.time()


def measure(stack: ExitStack, folder: Path, records: list[Record], args: argparse.Namespace) -> None:
    feed, apps, port = folder / "feed", free_port(), free_port()
    edged("origin", "init", feed)
    edged("origin", "publish", feed, "--dataset", "catalog", "-", data=lines(records))
    children = Children(stack, folder)
    origin, bind = f"file://{feed / 'public' / 'catalog'}", f"127.0.0.1:{port}"
    idle: dict[str, int] = {}
    if not args.file:
        origin = f"http://{bind}/catalog"
        server = children.start(sys.executable, "-m", "edged", "origin", "serve", feed, "--bind", bind, port=port)
        idle["origin"] = server.pid
    config = folder / "edged.toml"
    config.write_text(
        f'[daemon]\ndata_dir = "{folder / "data"}"\n[[datasets]]\nname = "catalog"\n'
        f'origin = ["{origin}"]\ntrust = "{feed / "root.trust"}"\n'
        f'[serve]\nbind = ["127.0.0.1:{apps}"]\nworkers = {args.workers}\n[admin]\nbind = ["127.0.0.1:{free_port()}"]\n'
    )
    daemon = children.start(sys.executable, "-m", "edged", "run", "--config", config, port=apps)
    idle["device"] = daemon.pid
    device = Device(apps, 1 if args.workers == 1 else CONNECTIONS_A_WORKER * args.workers)
    device.until_seen(records[-1])
    taken = []
    step = max(1, len(records) // args.edits)
    for number, (collection, key, value) in enumerate(records[::step][: args.edits]):
        edit: Record = (collection, key, {**value, "edited": number})
        time.sleep(PAUSE_S)
        placed, command = publish_until_placed(feed, lines([edit]))
        taken.append(1000 * max(0.0, device.until_seen(edit) - placed))
        end_publish(command)
    tenth = statistics.quantiles(taken, n=10, method="inclusive")[-1]
    print(f"{len(taken)} edits: visible after {statistics.median(taken):.1f} ms, 90 % within {tenth:.1f} ms")
    time.sleep(3)
    before = {name: switches(pid) for name, pid in idle.items()}
    time.sleep(IDLE_S)
    for name, pid in idle.items():
        print(f"{name}: woken {switches(pid) - before[name]} times in {IDLE_S:.0f} idle seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of the films; without it a catalogue is made up")
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1, help="serving processes of the device")
    parser.add_argument("--file", action="store_true", help="the device reads the feed's directory")
    args = parser.parse_args()
    if args.data:
        films = read(args.data / "movies.ndjson.zst")
        records: list[Record] = [(row["collection"], row["key"], row["value"]) for row in films]
    else:
        records = list(made_up(5000)[0])
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        measure(stack, Path(name), records, args)


if __name__ == "__main__":
    main()
