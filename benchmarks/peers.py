"""The same first sync and the same edits by edged, a Redis replica and a NATS JetStream leaf mirror, side by side.

    python benchmarks/peers.py [--data DIR] [--records N] [--edits N]

Each peer has a centre and a device on this machine; between them stands a proxy that counts the bytes, both ways. First
the whole catalogue goes to the device, then single edits, one after the other. Counted for an edit is all that crosses
from before it until half a second after the device shows it, so that acknowledgements are in. A peer that is not
installed (redis-server, nats-server) is named and left out. DIR holds movies.ndjson.zst and movies-next.ndjson.zst.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from benchmarks.shared.publishes import Record, end_publish, made_up, publish_until_placed, read
from benchmarks.shared.wire import CountingProxy

SETTLE_S, QUIET_S, DEADLINE_S = 0.5, 2.0, 300.0


@dataclass(slots=True)
class Figures:
    """What one peer took. edit_bytes: of each edit, both ways; visible_ms: from the centre's acknowledgement (for
    edged: the moment its head is in place) until the device shows it.
    """

    first_bytes: int = 0
    first_s: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    edit_bytes: list[int] = field(default_factory=list)
    visible_ms: list[float] = field(default_factory=list)


class Peer(Protocol):
    """A centre and a device."""

    name: str

    def start_centre(self, records: list[Record]) -> int:
        """Start it with the whole catalogue in it. Returns its port for devices."""

    def start_device(self, port: int) -> None:
        """Start an empty device whose centre answers at `port`."""

    def has(self, record: Record) -> bool:
        """Whether the device shows this very record."""

    def edit(self, record: Record) -> float:
        """Change one record at the centre. Returns when that was done, by time.time()."""

    def device_pid(self) -> int: ...

    def device_disk(self) -> Path: ...


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


class Children:
    """Programs that end with the block."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder

    def start(self, *words: str | Path, port: int = 0) -> subprocess.Popen[bytes]:
        """Start one; with `port`, return when it answers there."""
        log = self.stack.enter_context((self.folder / f"{Path(words[0]).name}-{time.monotonic_ns()}.log").open("wb"))
        child = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log)
        self.stack.callback(end, child)
        deadline = time.monotonic() + 30
        while port:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if child.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{words[0]} did not come up: {Path(log.name).read_text()[-800:]}")
            time.sleep(0.02)
        return child


def end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


class Edged:
    name = "edged"

    def __init__(self, children: Children) -> None:
        self.children, self.folder = children, children.folder / "edged"
        self.folder.mkdir()
        self.feed = self.folder / "feed"
        self.apps = free_port()
        self.device: subprocess.Popen[bytes]
        self.connection: http.client.HTTPConnection
        self.publishing: subprocess.Popen[str] | None = None

    def command(self, *words: str | Path, data: str | None = None) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "edged", *map(str, words)], input=data, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"edged {words}: {done.stderr}")

    def start_centre(self, records: list[Record]) -> int:
        self.command("origin", "init", self.feed)
        self.command("origin", "publish", self.feed, "--dataset", "catalog", "-", data=lines(records))
        port = free_port()
        bind = f"127.0.0.1:{port}"
        self.children.start(sys.executable, "-m", "edged", "origin", "serve", self.feed, "--bind", bind, port=port)
        return port

    def start_device(self, port: int) -> None:
        config = self.folder / "edged.toml"
        config.write_text(
            f'[daemon]\ndata_dir = "{self.folder / "data"}"\n[[datasets]]\nname = "catalog"\n'
            f'origin = ["http://127.0.0.1:{port}/catalog"]\ntrust = "{self.feed / "root.trust"}"\n'
            f'[serve]\nbind = ["127.0.0.1:{self.apps}"]\n[admin]\nbind = ["127.0.0.1:{free_port()}"]\n'
        )
        self.device = self.children.start(sys.executable, "-m", "edged", "run", "--config", config, port=self.apps)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.apps)

    def has(self, record: Record) -> bool:
        collection, key, value = record
        self.connection.request("GET", f"/v1/catalog/{collection}/{quote(key, safe='')}")
        answer = self.connection.getresponse()
        body = answer.read()
        return answer.status == 200 and json.loads(body) == value

    def edit(self, record: Record) -> float:
        if self.publishing is not None:
            end_publish(self.publishing)
        placed, self.publishing = publish_until_placed(self.feed, lines([record]))
        return placed

    def device_pid(self) -> int:
        return self.device.pid

    def device_disk(self) -> Path:
        return self.folder / "data"


def lines(records: list[Record]) -> str:
    rows = ({"collection": collection, "key": key, "value": value} for collection, key, value in records)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class RedisClient:
    """As much of RESP as this takes."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.file = self.sock.makefile("rb")

    def send(self, *words: bytes) -> None:
        self.sock.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))

    def answer(self) -> bytes | None:
        line = self.file.readline().rstrip(b"\r\n")
        if line[:1] == b"$":
            size = int(line[1:])
            return None if size < 0 else self.file.read(size + 2)[:-2]
        if line[:1] not in (b"+", b":"):
            raise OSError(f"redis: {line!r}")
        return line[1:]

    def ask(self, *words: bytes) -> bytes | None:
        self.send(*words)
        return self.answer()


class Redis:
    name = "Redis replica"

    def __init__(self, children: Children) -> None:
        self.children, self.folder = children, children.folder / "redis"
        self.folder.mkdir()
        self.device: subprocess.Popen[bytes]

    def server(self, name: str, *more: str) -> tuple[subprocess.Popen[bytes], RedisClient, int]:
        port, folder = free_port(), self.folder / name
        folder.mkdir()
        words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        child = self.children.start(*words, "--repl-diskless-sync-delay", "0", "--appendonly", "yes", *more, port=port)
        return child, RedisClient(port), port

    def start_centre(self, records: list[Record]) -> int:
        _, self.centre, port = self.server("centre")
        for batch in batches(records, 500):
            for collection, key, value in batch:
                self.centre.send(b"SET", f"{collection}/{key}".encode(), encoded(value))
            for _ in batch:
                self.centre.answer()
        return port

    def start_device(self, port: int) -> None:
        self.device, self.reader, _ = self.server("device", "--replicaof", "127.0.0.1", str(port))

    def has(self, record: Record) -> bool:
        collection, key, value = record
        try:
            return self.reader.ask(b"GET", f"{collection}/{key}".encode()) == encoded(value)
        except OSError:  # while it loads
            return False

    def edit(self, record: Record) -> float:
        self.centre.ask(b"SET", f"{record[0]}/{record[1]}".encode(), encoded(record[2]))
        return time.time()

    def device_pid(self) -> int:
        return self.device.pid

    def device_disk(self) -> Path:
        return self.folder / "device"


class NatsClient:
    """As much of the NATS protocol as this takes."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.file = self.sock.makefile("rb")
        self.file.readline()
        self.inbox = b"_INBOX.%d" % port  # of its own: a leaf passes on what somebody at the other end listens to
        self.sock.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB %b 1\r\n' % self.inbox)

    def send(self, subject: bytes, payload: bytes = b"") -> None:
        self.sock.sendall(b"PUB %b %b %d\r\n%b\r\n" % (subject, self.inbox, len(payload), payload))

    def answer(self) -> bytes | None:
        """The next message's body; None for one that says that there is nothing."""
        while line := self.file.readline():
            words = line.split()
            if words[:1] == [b"PING"]:
                self.sock.sendall(b"PONG\r\n")
            elif words[:1] == [b"MSG"]:
                return self.file.read(int(words[-1]) + 2)[:-2]
            elif words[:1] == [b"HMSG"]:
                whole = self.file.read(int(words[-1]) + 2)[:-2]
                head, body = whole[: int(words[-2])], whole[int(words[-2]) :]
                return None if head[9:12] in (b"404", b"503", b"408") else body
            elif words[:1] == [b"-ERR"]:
                raise OSError(f"nats: {line!r}")
        raise OSError("nats: closed")

    def ask(self, subject: bytes, payload: bytes = b"") -> bytes | None:
        self.send(subject, payload)
        return self.answer()


class Nats:
    name = "NATS leaf mirror"

    def __init__(self, children: Children) -> None:
        self.children, self.folder = children, children.folder / "nats"
        self.folder.mkdir()
        self.device: subprocess.Popen[bytes]

    def server(self, name: str, settings: str) -> tuple[subprocess.Popen[bytes], NatsClient]:
        port, config = free_port(), self.folder / f"{name}.conf"
        store = self.folder / name
        config.write_text(
            f'listen: "127.0.0.1:{port}"\nserver_name: {name}\n'
            f'jetstream {{ store_dir: "{store}", domain: {name} }}\n{settings}\n'
        )
        return self.children.start("nats-server", "-c", config, port=port), NatsClient(port)

    def start_centre(self, records: list[Record]) -> int:
        leaves = free_port()
        _, self.centre = self.server("centre", f'leafnodes {{ listen: "127.0.0.1:{leaves}" }}')
        stream = {"name": "KV", "subjects": ["kv.>"], "max_msgs_per_subject": 1, "allow_direct": True}
        created = self.centre.ask(b"$JS.API.STREAM.CREATE.KV", json.dumps({**stream, "storage": "file"}).encode())
        if created is None or b'"error"' in created:
            sys.exit(f"nats: {created!r}")
        for batch in batches(records, 500):
            for record in batch:
                self.centre.send(self.subject(record), encoded(record[2]))
            for _ in batch:
                self.centre.answer()
        return leaves

    def start_device(self, port: int) -> None:
        self.device, self.reader = self.server(
            "leaf", f'leafnodes {{ remotes: [ {{ url: "nats://127.0.0.1:{port}" }} ] }}'
        )
        mirror = {"name": "KV", "external": {"api": "$JS.centre.API"}}
        stream = {"name": "M", "mirror": mirror, "max_msgs_per_subject": 1, "allow_direct": True, "storage": "file"}
        created = None
        deadline = time.monotonic() + 30
        while created is None or b'"error"' in created:
            created = self.reader.ask(b"$JS.API.STREAM.CREATE.M", json.dumps(stream).encode())
            if time.monotonic() > deadline:
                sys.exit(f"nats: {created!r}")
            time.sleep(0.05)

    def has(self, record: Record) -> bool:
        query = json.dumps({"last_by_subj": self.subject(record).decode()}).encode()
        return self.reader.ask(b"$JS.API.DIRECT.GET.M", query) == encoded(record[2])

    def subject(self, record: Record) -> bytes:
        return b"kv." + f"{record[0]}/{record[1]}".encode().hex().encode()

    def edit(self, record: Record) -> float:
        self.centre.ask(self.subject(record), encoded(record[2]))
        return time.time()

    def device_pid(self) -> int:
        return self.device.pid

    def device_disk(self) -> Path:
        return self.folder / "leaf"


def batches(records: list[Record], size: int) -> Iterator[list[Record]]:
    for start in range(0, len(records), size):
        yield records[start : start + size]


def until(what: Callable[[], bool], pause_s: float) -> float:
    """Ask until it is so; returns when, by time.time()."""
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        if time.monotonic() > deadline:
            sys.exit("peers: the device does not show what the centre has")
        time.sleep(pause_s)
    return time.time()


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    return 0


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def measure(peer: Peer, records: list[Record], edits: list[Record]) -> Figures:
    figures = Figures()
    proxy = CountingProxy(peer.start_centre(records))
    began = time.time()
    peer.start_device(proxy.port)
    figures.first_s = until(lambda: peer.has(records[0]) and peer.has(records[-1]), 0.02) - began
    time.sleep(QUIET_S)
    figures.first_bytes = proxy.total_bytes
    for edit in edits:
        before = proxy.total_bytes
        done = peer.edit(edit)
        figures.visible_ms.append(1000 * max(0.0, until(lambda edit=edit: peer.has(edit), 0.0005) - done))  # type: ignore[misc]
        time.sleep(SETTLE_S)
        figures.edit_bytes.append(proxy.total_bytes - before)
    figures.memory_bytes, figures.disk_bytes = resident_bytes(peer.device_pid()), disk_bytes(peer.device_disk())
    proxy.close()
    return figures


def load(data: Path | None, count: int, edits: int) -> tuple[list[Record], list[Record]]:
    """The catalogue, and records that differ from what it has, or are not in it."""
    if data is None:
        base, publishes = made_up(count or 5000)
        changed = itertools.islice((change for edit in publishes for change in edit if change[2] is not None), edits)
        records = list(base)
        known = {(collection, key): value for collection, key, value in records}
        return records, [change for change in changed if known.get(change[:2]) not in (None, change[2])]
    rows = [(row["collection"], row["key"], row["value"]) for row in read(data / "movies.ndjson.zst")]
    records = rows[:count] if count else rows
    known = {(collection, key): value for collection, key, value in records}
    later = ((row["collection"], row["key"], row["value"]) for row in read(data / "movies-next.ndjson.zst"))
    return records, list(itertools.islice((row for row in later if known.get(row[:2]) != row[2]), edits))


def report(found: dict[str, Figures], missing: list[str]) -> None:
    first = found["edged"]
    print(
        f"\n{'':20} {'edit, bytes':>12} {'ratio':>6} {'visible, ms':>12} {'p90':>7} {'first sync, s':>14} "
        f"{'bytes':>12} {'ratio':>6} {'memory, MB':>11} {'disk, MB':>9}"
    )
    for name, figures in found.items():
        edit, visible = statistics.median(figures.edit_bytes), figures.visible_ms
        tenth = statistics.quantiles(visible, n=10, method="inclusive")[-1] if len(visible) > 1 else visible[0]
        print(
            f"{name:20} {edit:12,.0f} {statistics.median(first.edit_bytes) / edit:6.2f} "
            f"{statistics.median(visible):12.1f} {tenth:7.1f} {figures.first_s:14.1f} {figures.first_bytes:12,} "
            f"{first.first_bytes / figures.first_bytes:6.2f} {figures.memory_bytes / 1e6:11.1f} "
            f"{figures.disk_bytes / 1e6:9.1f}"
        )
    print("ratio: edged's bytes to this peer's. Medians of the edits.")
    for name in missing:
        print(f"{name}: not installed, left out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of the films; without it a catalogue is made up")
    parser.add_argument("--records", type=int, default=0, help="only so many of them (default: all; 5,000 made up)")
    parser.add_argument("--edits", type=int, default=20)
    args = parser.parse_args()
    records, edits = load(args.data, args.records, args.edits)
    if not edits:
        sys.exit("peers: no record of these has an edit; take more of them")
    print(f"{len(records):,} records, {len(edits)} edits of one record")
    peers: list[tuple[str, Callable[[Children], Peer]]] = [("", Edged), ("redis-server", Redis), ("nats-server", Nats)]
    found: dict[str, Figures] = {}
    missing: list[str] = []
    for program, make in peers:
        if program and shutil.which(program) is None:
            missing.append(program)
            continue
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            peer = make(Children(stack, Path(folder)))
            found[peer.name] = measure(peer, records, edits)
            print(f"{peer.name}: done", file=sys.stderr)
    report(found, missing)


if __name__ == "__main__":
    main()
