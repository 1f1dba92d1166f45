"""A head through a broker: at the last of thousands of subscribers, and visible to an app on a device.

    python -m benchmarks.push [--subscribers 5000] [--rounds 5] [--edits 20] [--follow] [--mosquitto PATH]

Mosquitto, an origin (`edged origin serve`), and a device (`edged run`) on this machine. The subscribers are this
script's own: MQTT 3.1.1, QoS 1, one socket each. Times are from the head in place, as its file says, which may be 4 ms
too early (the kernel's coarse clock). Beside it the device without a broker, with its held poll. --follow: edits come
from one publisher that goes on (`publish --follow`), instead of a command each. Needs a descriptor for each subscriber.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import Children, end, free_port, lines
from benchmarks.shared.publishes import Record, end_publish, made_up, publish_until_placed
from benchmarks.visible import Device, edged

TOPIC, KEEPALIVE_S, SPARE = "feed/catalog/head", 600, 200
CONNECT, SUBSCRIBE, PUBLISH, PUBACK = 0x10, 0x82, 0x30, 0x40
DEADLINE_S, PAUSE_S, LOOK_S = 60.0, 0.7, 0.001


def packet(first: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([first, len(body)]) + body


def text(words: str) -> bytes:
    return len(words).to_bytes(2, "big") + words.encode()


def next_packet(data: bytes) -> tuple[int, bytes, bytes] | None:
    """The first byte of the packet at the front, its body, and the rest; None while it is not whole."""
    size = shift = 0
    for at, byte in enumerate(data[1:5], 2):
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return None if len(data) < at + size else (data[0], data[at : at + size], data[at + size :])
    return None


class Subscribers:
    """As many clients of one topic, each acknowledging what it is sent."""

    def __init__(self, port: int, count: int) -> None:
        self.epoll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.rest: dict[int, bytes] = {}
        self.subscribed = 0
        self.newest = b""
        self.at: list[float] = []  # when each had the message that is waited for
        for number in range(count):
            address = (f"127.0.0.{2 + number % 50}", 0)  # one has 28,000 ports at the most
            sock = socket.create_connection(("127.0.0.1", port), DEADLINE_S, source_address=address)
            hello = packet(CONNECT, text("MQTT") + b"\x04\x02" + KEEPALIVE_S.to_bytes(2, "big") + text(f"s{number}"))
            sock.sendall(hello + packet(SUBSCRIBE, b"\0\1" + text(TOPIC) + b"\1"))
            sock.setblocking(False)
            self.sockets[sock.fileno()], self.rest[sock.fileno()] = sock, b""
            self.epoll.register(sock, select.EPOLLIN)
        self.until(lambda: self.subscribed == count)
        self.settle()

    def close(self) -> None:
        self.epoll.close()
        for sock in self.sockets.values():
            sock.close()

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not done():
            if time.monotonic() > deadline:
                sys.exit(f"push: {len(self.at)} of {len(self.sockets)} subscribers have the head")
            self.step(1.0)

    def step(self, within_s: float) -> bool:
        events = self.epoll.poll(within_s, 512)
        for handle, _ in events:
            sock = self.sockets[handle]
            found = self.rest[handle] + sock.recv(65536)
            while (whole := next_packet(found)) is not None:
                first, body, found = whole
                self.take(sock, first, body)
            self.rest[handle] = found
        return bool(events)

    def take(self, sock: socket.socket, first: int, body: bytes) -> None:
        if first & 0xF0 == 0x90:
            self.subscribed += 1
        elif first & 0xF0 == PUBLISH:
            size = 2 + int.from_bytes(body[:2], "big")
            self.newest = body[size + 2 :] if first & 6 else body[size:]
            self.at.append(time.time())
            if first & 6:
                sock.send(packet(PUBACK, body[size : size + 2]))

    def settle(self) -> None:
        """Until nothing comes for a while."""
        while self.step(0.5):
            pass
        self.at.clear()

    def times(self) -> list[float]:
        """When each had the next message, by time.time()."""
        self.until(lambda: len(self.at) >= len(self.sockets))
        found = sorted(self.at)
        self.at.clear()
        return found


@dataclass
class Bench:
    """A feed that is announced, and edits to it. program: the `--follow` that goes on, None for a command an edit."""

    folder: Path
    children: Children
    records: list[Record]
    follow: bool
    program: subprocess.Popen[str] | None = None
    number: int = 0
    command: subprocess.Popen[str] | None = None

    @property
    def feed(self) -> Path:
        return self.folder / "feed"

    def begin(self) -> None:
        if self.follow:
            words = ["publish", str(self.feed), "--dataset", "catalog", "--changes", "--follow", "--every", "0.05", "-"]
            self.program = subprocess.Popen(
                [sys.executable, "-m", "edged", "origin", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
            self.edit()  # the first of them has the program start

    def edit(self) -> tuple[float, Record]:
        """Publish one; when its head was in place, and the record."""
        self.number += 1
        name, key, value = self.records[self.number * 37 % len(self.records)]
        record: Record = (name, key, {**value, "edited": self.number})
        if self.program is None:
            placed, self.command = publish_until_placed(self.feed, lines([record]))
            return placed, record
        assert self.program.stdin is not None
        head = self.feed / "public" / "catalog" / "head"
        before = head.stat().st_ino
        self.program.stdin.write(lines([record]))
        self.program.stdin.flush()
        while (placed_file := head.stat()).st_ino == before:
            time.sleep(LOOK_S)
        return placed_file.st_ctime, record

    def edited(self) -> None:
        if self.command is not None:
            end_publish(self.command)
            self.command = None

    def close(self) -> None:
        if self.program is not None:
            assert self.program.stdin is not None
            self.program.stdin.close()
            self.program.wait(60)


@contextlib.contextmanager
def broker(program: str, folder: Path) -> Iterator[int]:
    """The port of a Mosquitto."""
    port, config = free_port(), folder / "mosquitto.conf"
    lines_ = [f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence false", "user root"]
    config.write_text("\n".join([*lines_, "max_connections -1", ""]))
    with ExitStack() as stack:
        Children(stack, folder).start(program, "-c", config, port=port)
        yield port


def crowd(bench: Bench, port: int, count: int, rounds: int) -> None:
    """A head at each of so many subscribers."""
    everybody = Subscribers(port, count)
    last, half, first = [], [], []
    for _ in range(rounds):
        placed, _ = bench.edit()
        times = everybody.times()
        bench.edited()
        everybody.settle()
        last.append(1000 * (times[-1] - placed))
        half.append(1000 * (times[len(times) // 2] - placed))
        first.append(1000 * (times[0] - placed))
    everybody.close()
    for what, found in (("first", first), ("median", half), ("last", last)):
        show(f"at the {what} of {count:,} subscribers", found)


def show(what: str, found: list[float], against: list[float] | None = None) -> None:
    tenth = statistics.quantiles(found, n=10, method="inclusive")[-1]
    median = statistics.median(found)
    ratio = "" if against is None else f"{median / statistics.median(against):8.2f}"
    print(f"{what:44} {median:10.1f} {tenth:10.1f}{ratio}", flush=True)


def visible(bench: Bench, stack: ExitStack, announce: str, edits: int, port: int) -> tuple[list[float], list[float]]:
    """From the head in place: to a subscriber beside the device, and to an app on the device. In milliseconds."""
    apps, place = free_port(), bench.folder / ("pushed" if announce else "polled")
    config = bench.folder / f"{place.name}.toml"
    config.write_text(
        f'[daemon]\ndata_dir = "{place}"\n[[datasets]]\nname = "catalog"\n'
        f'origin = ["http://127.0.0.1:{port}/catalog"]\ntrust = "{bench.feed / "root.trust"}"\n{announce}'
        f'[serve]\nbind = ["127.0.0.1:{apps}"]\n[admin]\nbind = ["127.0.0.1:{free_port()}"]\n'
    )
    children = Children(stack, bench.folder)
    child = children.start(sys.executable, "-m", "edged", "run", "--config", config, port=apps)
    device = Device(apps, 1)
    device.until_seen(bench.edit()[1])
    bench.edited()
    time.sleep(3)  # a poll that was held when the broker came ends within this
    beside = Subscribers(int(announce.split(":")[2].split("/")[0]), 1) if announce else None
    told, seen = [], []
    for _ in range(edits):
        time.sleep(PAUSE_S)
        if beside is not None:
            beside.settle()
        listening = threading.Thread(target=beside.until, args=(lambda: beside.at != [],)) if beside else None
        if listening is not None:
            listening.start()
        placed, record = bench.edit()
        seen.append(1000 * max(0.0, device.until_seen(record) - placed))
        if beside is not None and listening is not None:
            listening.join()
            told.append(1000 * (beside.times()[0] - placed))
        bench.edited()
    if beside is not None:
        beside.close()
    end(child)
    return told, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--follow", action="store_true")
    parser.add_argument("--mosquitto", default=shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin"))
    args = parser.parse_args()
    if args.mosquitto is None:
        sys.exit("push: mosquitto is not installed")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if args.subscribers + SPARE > hard:
        sys.exit(f"push: {args.subscribers} subscribers need {args.subscribers + SPARE} descriptors, allowed: {hard}")
    records = [record for record in made_up(5000)[0] if record[0] == "titles"]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        bench = Bench(folder, Children(stack, folder), records, args.follow)
        edged("origin", "init", bench.feed)
        edged("origin", "publish", bench.feed, "--dataset", "catalog", "-", data=lines(records))
        port = stack.enter_context(broker(args.mosquitto, folder))
        (bench.feed / "feed.toml").write_text(f'[announce]\nmqtt = "mqtt://127.0.0.1:{port}/feed"\n')
        origin, bind = free_port(), "127.0.0.1"
        bench.children.start(
            sys.executable, "-m", "edged", "origin", "serve", bench.feed, "--bind", f"{bind}:{origin}", port=origin
        )
        stack.callback(bench.close)
        bench.begin()
        print(f"{'ms from the head in place':44} {'median':>10} {'90 %':>10} {'ratio':>7}")
        if args.subscribers:
            crowd(bench, port, args.subscribers, args.rounds)
        told, seen = visible(bench, stack, f'announce = "mqtt://127.0.0.1:{port}/feed"\n', args.edits, origin)
        _, polled = visible(bench, stack, "", args.edits, origin)
        show("at one subscriber", told)
        show("at an app, by the broker : by a held poll", seen, polled)
        show("at an app, by a held poll", polled)


if __name__ == "__main__":
    main()
