"""A Mosquitto of a test, on a port that the kernel has picked; and a broker that sends what a test says."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DEADLINE_S = 20.0
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass(slots=True)
class Mosquitto:
    """Can be killed and started again on the same port; what it retained is lost then."""

    place: Path
    more: str = "allow_anonymous true"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.place.mkdir(exist_ok=True)
        config = self.place / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\n{self.more}\npersistence false\nuser root\n")
        assert MOSQUITTO is not None
        self.process = subprocess.Popen(
            [MOSQUITTO, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "mosquitto does not answer"
                time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextmanager
def mosquitto(place: Path, more: str = "allow_anonymous true") -> Iterator[Mosquitto]:
    broker = Mosquitto(place, more)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


# ---- the wire, by our own reading of MQTT 3.1.1


def packet(kind: int, body: bytes) -> bytes:
    size, length = len(body), bytearray()
    while True:
        size, digit = divmod(size, 128)
        length.append(digit | (128 if size else 0))
        if not size:
            return bytes([kind]) + bytes(length) + body


def text(words: str) -> bytes:
    return len(words).to_bytes(2, "big") + words.encode()


def arrived(sock: socket.socket) -> tuple[int, bytes] | None:
    """The next packet, None where nothing comes before the socket's timeout."""
    try:
        kind = sock.recv(1)
    except TimeoutError:
        return None
    if not kind:
        return None
    size = shift = 0
    while True:
        digit = sock.recv(1)[0]
        size |= (digit & 127) << shift
        shift += 7
        if digit < 128:
            break
    body = b""
    while len(body) < size:
        body += sock.recv(size - len(body))
    return kind[0], body


def client(port: int, name: str) -> socket.socket:
    """A connection to the broker at a port, for one who reads and writes packets."""
    sock = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    sock.sendall(packet(0x10, text("MQTT") + b"\x04\x02\0\x3c" + text(name)))
    assert arrived(sock) == (0x20, b"\0\0")
    return sock


def subscriber(port: int, topic: str, name: str = "subscriber") -> socket.socket:
    sock = client(port, name)
    sock.sendall(packet(0x82, b"\0\1" + text(topic) + b"\1"))
    assert arrived(sock) == (0x90, b"\0\1\1")
    return sock


def message(topic: str, payload: bytes, *, retained: bool = True) -> bytes:
    """A PUBLISH of QoS 0."""
    return packet(0x31 if retained else 0x30, text(topic) + payload)


def payloads(sock: socket.socket, quiet_s: float) -> list[bytes]:
    """The messages that come until none has for so long; each is acknowledged."""
    sock.settimeout(quiet_s)
    found = []
    while (one := arrived(sock)) is not None:
        kind, body = one
        if kind & 0xF0 == 0x30:
            at = 2 + int.from_bytes(body[:2], "big")
            if kind & 6:
                sock.sendall(packet(0x40, body[at : at + 2]))
                at += 2
            found.append(body[at:])
    return found
