"""A flooder beside one normal client: that one's median latency, against what it is without.

    python -m benchmarks.floods [--data DIR] [--seconds 3] [--rounds 3] [--quick]

The server runs on one core, the client and the flooder on another, the flooder with the least priority there; it comes
back at once whenever it is turned away. Needs openssl. Everything listens on loopback.
"""

from __future__ import annotations

import argparse
import itertools
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmarks.secure import make_certificate
from benchmarks.serve import CLIENT_CORE, edged_server, prepare
from benchmarks.shared.stores import films
from edged.http.h2.fieldblocks import encode_fields
from edged.http.h2.frames import HEADER, PREFACE, FrameType, settings_frame

GET = encode_fields(((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/v1"), (b":authority", b"localhost")))
AT_ONCE = 200  # frames in one write


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream_id) + payload


def one(data: bytes) -> Callable[[int], bytes]:
    return lambda _: data


def cancelled(number: int) -> bytes:
    stream_id = 1 + 2 * number
    return frame(FrameType.HEADERS, 5, stream_id, GET) + frame(FrameType.RST_STREAM, 0, stream_id, bytes(4))


FRAMES: dict[str, tuple[bytes, Callable[[int], bytes]]] = {
    "PING": (b"", one(frame(FrameType.PING, 0, 0, bytes(8)))),
    "SETTINGS": (b"", one(frame(FrameType.SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff" * 16))),
    "WINDOW_UPDATE": (b"", one(frame(FrameType.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"))),
    "PRIORITY": (b"", one(frame(FrameType.PRIORITY, 0, 1, bytes(5)))),
    "empty DATA": (frame(FrameType.HEADERS, 4, 1, GET), one(frame(FrameType.DATA, 0, 1))),
    "unknown frames": (b"", one(frame(99, 0, 0))),
    "CONTINUATION": (frame(FrameType.HEADERS, 1, 1, GET), one(frame(FrameType.CONTINUATION, 0, 1))),
    "rapid reset": (b"", cancelled),
}
OVER_TLS = ("whole handshakes", "handshakes left half-way", "records of one byte")


def flood(kind: str, port: int) -> None:
    """Until killed."""
    os.nice(19)
    while True:
        with suppress(OSError, ssl.SSLError), socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.settimeout(5)
            (flood_tls if kind in OVER_TLS else flood_frames)(kind, sock)


def flood_frames(kind: str, sock: socket.socket) -> None:
    begin, make = FRAMES[kind]
    sock.sendall(PREFACE + settings_frame(()) + begin)
    for first in itertools.count(0, AT_ONCE):
        sock.sendall(b"".join(make(number) for number in range(first, first + AT_ONCE)))
        sock.setblocking(False)
        with suppress(BlockingIOError):
            while sock.recv(1 << 16):
                pass
        sock.settimeout(5)


def flood_tls(kind: str, sock: socket.socket) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if kind == "handshakes left half-way":
        outgoing = ssl.MemoryBIO()
        session = context.wrap_bio(ssl.MemoryBIO(), outgoing)
        with suppress(ssl.SSLWantReadError):
            session.do_handshake()
        sock.sendall(outgoing.read())
        sock.recv(1)
        return
    with context.wrap_socket(sock) as secure:
        while kind == "records of one byte":
            secure.sendall(b"G")


@contextmanager
def flooding(kind: str, port: int) -> Iterator[None]:
    command = [
        "taskset",
        "-c",
        CLIENT_CORE,
        sys.executable,
        "-m",
        "benchmarks.floods",
        "--flood",
        kind,
        "--port",
        str(port),
    ]
    running = subprocess.Popen(command)
    try:
        time.sleep(1)
        yield
    finally:
        running.kill()
        running.wait()


def median_us(port: int, seconds: float, context: ssl.SSLContext | None) -> float:
    """Of a client that asks for one record again and again on one connection."""
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    took = []
    with context.wrap_socket(plain) if context else plain as sock:
        until = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < until:
            sock.sendall(b"GET /v1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if not sock.recv(1 << 16):
                raise SystemExit("the normal client was turned away")
            took.append(time.perf_counter() - begin)
    return statistics.median(took) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of movies.ndjson.zst; without it the records are made up")
    parser.add_argument("--seconds", type=float, default=3, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of a second, to see that it works")
    parser.add_argument("--only", nargs="*", help="these kinds of flood")
    parser.add_argument("--flood", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        flood(options.flood, options.port)
    if options.quick:
        options.seconds, options.rounds = 1, 1
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        scratch = Path(directory)
        prepare(films(options.data)[:2000], scratch)
        make_certificate(scratch)
        clear, _ = stack.enter_context(edged_server(scratch / "data"))
        safe, _ = stack.enter_context(edged_server(scratch / "data", "--tls", str(scratch)))
        os.sched_setaffinity(0, {int(CLIENT_CORE)})
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        print(f"{'':28}{'quiet µs':>10}{'beside µs':>11}{'ratio':>8}   (asked: at most 2)")
        for kind in options.only or (*FRAMES, *OVER_TLS):
            port = int((safe if kind in OVER_TLS else clear).rpartition(":")[2])
            with_tls = context if kind in OVER_TLS else None
            quiet, beside = [], []
            for _ in range(options.rounds):
                quiet.append(median_us(port, options.seconds, with_tls))
                with flooding(kind, port):
                    beside.append(median_us(port, options.seconds, with_tls))
            ratio = statistics.median(b / q for b, q in zip(beside, quiet, strict=True))
            print(
                f"{kind:28}{statistics.median(quiet):10,.0f}{statistics.median(beside):11,.0f}{ratio:7.2f}x", flush=True
            )


if __name__ == "__main__":
    main()
