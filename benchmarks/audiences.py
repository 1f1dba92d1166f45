"""The internal app beside a public one that asks far more than it may: its p99 against what it is alone, ratios first.

    python -m benchmarks.audiences [--data DIR] [--seconds 4] [--rounds 5] [--rate 200]

The server runs on one core, the internal client on another; whoever presses shares that one, with the least priority.
The public app may ask --rate times a second. It asks ten times that; as fast as it is answered, on 16 connections, one
by one, in pipelines or over HTTP/2; or opens connections until it gets no more. All rows are measured in turns, and the
medians of the rounds given.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serve import CLIENT_CORE, SERVER_CORE, prepare
from benchmarks.shared.server import TOKENS
from benchmarks.shared.stores import films
from edged.http.h2.fieldblocks import encode_fields
from edged.http.h2.frames import HEADER, PREFACE, FrameType, settings_frame

CONNECTIONS = 16
PIPELINE = 50
RECORDS = 5000
KINDS = ("ten times its rate", "as fast as answered", "in pipelines", "over HTTP/2", "connections without end")


def request(path: str, audience: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKENS[audience]}\r\n\r\n".encode()


def press_by_requests(kind: str, port: int, paths: list[str], rate: int) -> None:
    """CONNECTIONS of them, each with a request (or a pipeline) under way whenever its time has come."""
    selector, chance = selectors.DefaultSelector(), random.Random(3)
    each_s = CONNECTIONS / (10 * rate) if kind == "ten times its rate" else 0.0
    at_once = PIPELINE if kind == "in pipelines" else 1
    due: dict[socket.socket, float] = {}
    idle: list[socket.socket] = []

    def open_one() -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ)
        due[sock] = time.perf_counter() + chance.random() * each_s
        idle.append(sock)

    for _ in range(CONNECTIONS):
        open_one()
    while True:
        now = time.perf_counter()
        for sock in [sock for sock in idle if due[sock] <= now]:
            idle.remove(sock)
            due[sock] = max(due[sock] + each_s, now - 1)
            with suppress(OSError):  # it was closed, which the next read tells
                sock.sendall(b"".join(request(chance.choice(paths), "public") for _ in range(at_once)))
        wait_s = max(0.0, min((due[sock] for sock in idle), default=now + 0.01) - now)
        for key, _ in selector.select(wait_s):
            asked = key.fileobj
            assert isinstance(asked, socket.socket)
            data = b""
            with suppress(OSError):
                data = asked.recv(1 << 20)
            if data:
                if asked not in idle:
                    idle.append(asked)
                continue
            selector.unregister(asked)
            asked.close()
            del due[asked]
            if asked in idle:
                idle.remove(asked)
            open_one()


def press_by_streams(port: int, paths: list[str]) -> None:
    """CONNECTIONS of HTTP/2, each with 50 requests in a write as soon as something was answered."""
    chance, selector = random.Random(4), selectors.DefaultSelector()
    numbers: dict[socket.socket, int] = {}

    def ask(sock: socket.socket) -> None:
        out = []
        for _ in range(PIPELINE):
            fields = encode_fields(
                (
                    (b":method", b"GET"),
                    (b":scheme", b"http"),
                    (b":path", chance.choice(paths).encode()),
                    (b":authority", b"localhost"),
                    (b"authorization", b"Bearer " + TOKENS["public"].encode()),
                )
            )
            head = HEADER.pack(len(fields) >> 8, len(fields) & 255, FrameType.HEADERS, 5, numbers[sock])
            out.append(head + fields)
            numbers[sock] += 2
        out.append(HEADER.pack(0, 4, FrameType.WINDOW_UPDATE, 0, 0) + (1 << 20).to_bytes(4, "big"))
        sock.sendall(b"".join(out))

    def open_one() -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(PREFACE + settings_frame(()))
        numbers[sock] = 1
        selector.register(sock, selectors.EVENT_READ)
        ask(sock)

    for _ in range(CONNECTIONS):
        open_one()
    while True:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            try:
                data = sock.recv(1 << 20)
                if data and numbers[sock] < 1 << 24:
                    ask(sock)
                    continue
            except OSError as fault:
                if fault.errno not in (errno.EPIPE, errno.ECONNRESET):
                    raise
            selector.unregister(sock)
            sock.close()
            open_one()


def press_by_connections(port: int, path: str) -> None:
    """Open ones that have asked once, as many as the server lets be, and others in place of those that it closes."""
    held: list[socket.socket] = []
    while True:
        sock = socket.socket()
        sock.settimeout(1)
        try:
            sock.connect(("127.0.0.1", port))
            sock.sendall(request(path, "public"))
            sock.recv(65536)
            held.append(sock)
        except OSError:
            sock.close()
            time.sleep(0.01)
        if len(held) > 8000:
            held.pop(0).close()


@contextmanager
def pressing(kind: str, port: int, paths: Path, rate: int) -> Iterator[None]:
    command = ["taskset", "-c", CLIENT_CORE, sys.executable, "-m", "benchmarks.audiences"]
    running = subprocess.Popen([*command, "--press", kind, "--port", str(port), "--paths", paths, "--rate", str(rate)])
    try:
        time.sleep(1)
        yield
        if running.poll() is not None:
            raise SystemExit(f"who presses {kind} has ended")
    finally:
        running.kill()
        running.wait()


@dataclass
class Row:
    """What one share of the internal client's answers took at most in each round, in microseconds: without pressure,
    and right afterwards with it.
    """

    quiet: list[float] = field(default_factory=list)
    pressed: list[float] = field(default_factory=list)

    def ratio(self) -> float:
        return statistics.median(one / other for one, other in zip(self.pressed, self.quiet, strict=True))


def ask(port: int, paths: list[str], seconds: float) -> list[float]:
    """An answer after the other on one connection, as a launcher asks; a new connection where that one is ended."""
    chance, took = random.Random(2), []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while time.perf_counter() < until:
                data = request(chance.choice(paths), "internal")
                began = time.perf_counter()
                sock.sendall(data)
                got = sock.recv(1 << 18)
                took.append(time.perf_counter() - began)
                if not got.startswith(b"HTTP/1.1 200"):
                    raise SystemExit(f"the internal client was answered {got[:200]!r}")
                time.sleep(0.0005)
    return took


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[int(len(times) * share)] * 1e6


@contextmanager
def server(data_dir: Path, rate: int) -> Iterator[int]:
    command = ["taskset", "-c", SERVER_CORE, sys.executable, "-m", "benchmarks.shared.server", str(data_dir), "--apps"]
    with subprocess.Popen([*command, str(rate)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().decode().strip().rpartition(":")[2])
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of movies.ndjson.zst; without it the records are made up")
    parser.add_argument("--seconds", type=float, default=4, help="of each run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=200, help="that the public app may ask a second")
    parser.add_argument("--quick", action="store_true", help="one round of a second, to see that it works")
    parser.add_argument("--only", nargs="*", help="these kinds of pressure")
    parser.add_argument("--press", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--paths", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.press:
        os.nice(19)
        paths = options.paths.read_text().split()
        if options.press == "over HTTP/2":
            press_by_streams(options.port, paths)
        elif options.press == "connections without end":
            press_by_connections(options.port, paths[0])
        press_by_requests(options.press, options.port, paths, options.rate)
    if options.quick:
        options.seconds, options.rounds = 1, 1
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        scratch = Path(place)
        prepared = prepare(films(options.data, RECORDS), scratch)
        paths = prepared["all"].read_text().split()
        port = stack.enter_context(server(scratch / "data", options.rate))
        os.sched_setaffinity(0, {int(CLIENT_CORE)})
        ask(port, paths, 1)
        rows = {kind: (Row(), Row()) for kind in options.only or KINDS}  # p99, p50
        for _ in range(options.rounds):
            for kind, (high, middle) in rows.items():
                quiet = ask(port, paths, options.seconds)
                with pressing(kind, port, prepared["all"], options.rate):
                    pressed = ask(port, paths, options.seconds)
                for row, share in ((high, 0.99), (middle, 0.5)):
                    row.quiet.append(percentile(quiet, share))
                    row.pressed.append(percentile(pressed, share))
                time.sleep(0.5)
    print(f"{'the public app asks':24}  p99 x alone  p50 x alone   p99 alone, pressed    p50 alone, pressed (µs)")
    for kind, (high, middle) in rows.items():
        print(f"{kind:24}  {high.ratio():11.2f}  {middle.ratio():11.2f}", end="")
        for row in (high, middle):
            print(f"   {statistics.median(row.quiet):9.0f} {statistics.median(row.pressed):9.0f}", end="")
        print()


if __name__ == "__main__":
    main()
