"""Whole heads and bodies of answers, damaged in every way that came to mind: an origin's fault, never the daemon's end.

Fast: some hundreds of answers to the transport, and some dozens to `edged run`. Slow: for EDGED_FUZZ_SECONDS.
"""

from __future__ import annotations

import gzip
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from edged.errors import EdgedError
from edged.feed.blob import BlobRef
from tests.sync.wire import Peer, transport_to
from tests.system.programs import Device, Origin

SECONDS = float(os.environ.get("EDGED_FUZZ_SECONDS", "20"))
SEED = int(os.environ.get("EDGED_FUZZ_SEED", "1"))
REF = BlobRef.of(b"a blob " * 300)

STATUSES = (
    *("200 OK", "204 No Content", "206 Partial Content", "301 Moved", "302 Found", "304 Not Modified", "401 No"),
    *("404 Not Found", "416 Range", "429 Slow", "500 Oops", "503 Busy", "511 Login", "99 X", "1000 X", "abc"),
)
URLS = (
    *("http://[bad/", "http://h:99999/", "http://h:0/", "//h", "/x", "x y", "http://\xff/", "http://a..b/", "ftp://h/"),
    *("http://xn--zzzzzz99999/", "http://[::1%25lo]/", "http://127.0.0.1:1/", "http://" + "a" * 300, "javascript:x"),
    *(
        "http://\xe2\x80\xa4/",
        "http:",
        "http://?",
        "?",
        "#",
        "\\\\h\\x",
        "http://1.2.3/",
        "http://h\x00/",
        "http://[v1.x]/",
    ),
)
VALUES = (
    *(
        "",
        "0",
        "-1",
        "1",
        "5",
        "18446744073709551616",
        "1e9",
        "\xff\xfe",
        "a" * 9000,
        ",",
        "gzip",
        "br, gzip",
        "x" * 70,
    ),
)
NAMES = (
    *("Content-Length", "Transfer-Encoding", "Content-Encoding", "Content-Range", "Location", "ETag", "Edged-Poll"),
    *("Retry-After", "Date", "Content-Type", "Connection", "Age", "X", "", "Set-Cookie", "Keep-Alive", "Upgrade"),
)
MORE: dict[str, tuple[str, ...]] = {
    "Location": URLS,
    "Transfer-Encoding": ("chunked", "Chunked", "gzip, chunked", "identity", "chunked, chunked"),
    "Content-Range": ("bytes 0-9/10", "bytes */10", "bytes 9-0/10", "bytes 0-/", "x", f"bytes {'9' * 30}-1/2"),
    "Retry-After": ("Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 00 Foo 0000 99:99:99 GMT", "\xb2", "-5"),
    "Connection": ("close", "upgrade", "keep-alive"),
}


def hostile_answer(chance: random.Random, good: bytes) -> bytes:
    """One answer. good: a body as it should be, of which something may be left."""
    kind = chance.random()
    if kind < 0.05:
        return chance.randbytes(chance.randrange(400))
    body = chance.choice([good, good[:-1], good + b"x", b"", b"<html>", gzip.compress(good), chance.randbytes(50)])
    lines = [f"HTTP/1.{chance.choice('1110279')} {chance.choice(STATUSES)}"]
    if chance.random() < 0.7:
        lines.append(f"Content-Length: {len(body) + chance.choice([0, 0, 0, 0, 1, -1, 1 << 40])}")
    for _ in range(chance.randrange(4)):
        name = chance.choice(NAMES)
        lines.append(f"{name}: {chance.choice(MORE.get(name, ()) + VALUES)}")
    if chance.random() < 0.3:
        cut = chance.randrange(len(body) + 1)
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:cut], body[cut:]) if part) + b"0\r\n\r\n"
    if chance.random() < 0.15:
        lines = ["HTTP/1.1 100 Continue", "", *lines]
    data = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    for _ in range(chance.choice([0, 0, 0, 1, 3])):
        at = chance.randrange(len(data))
        data = data[:at] + chance.choice([b"", b"\0", b"\r\n", b"\xff", chance.randbytes(2)]) + data[at + 1 :]
    return data


async def test_whatever_comes_is_an_answer_or_an_error_of_ours(autojump_clock: trio.testing.MockClock) -> None:
    chance = random.Random(SEED)
    for number in range(400):
        answer = hostile_answer(chance, b"a blob " * 300)

        async def script(peer: Peer, head: bytes, answer: bytes = answer, number: int = number) -> None:
            await peer.send(answer)
            if number % 2:
                await peer.hang_up()

        async with trio.open_nursery() as nursery:
            transport, _, _ = transport_to(script, nursery)
            calls: list[Callable[[], object]] = [
                lambda transport=transport: transport.head(None, 0, None),  # type: ignore[misc]
                lambda transport=transport: transport.head(3, 60, '"x"'),  # type: ignore[misc]
                lambda transport=transport: transport.trust(2),  # type: ignore[misc]
                lambda transport=transport: transport.blob(REF, "fuzz"),  # type: ignore[misc]
            ]
            for call in calls:
                with suppress(EdgedError):
                    await call()  # type: ignore[misc]
            await transport.aclose()
            nursery.cancel_scope.cancel()


class HostileOrigin:
    """Answers whatever it is asked with damaged answers, on a port that the kernel picks."""

    def __init__(self, seed: int) -> None:
        self.chance, self.answers = random.Random(seed), 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/catalog"
        self.closing = False
        self.thread = threading.Thread(target=self.serve)

    def serve(self) -> None:
        while not self.closing:
            with suppress(OSError):
                connection, _ = self.listener.accept()
                with connection:
                    connection.settimeout(0.5)
                    while connection.recv(65_536):
                        connection.sendall(hostile_answer(self.chance, b"a head"))
                        self.answers += 1
                        if self.chance.random() < 0.5:
                            break


@contextmanager
def hostile_origin(seed: int) -> Iterator[HostileOrigin]:
    origin = HostileOrigin(seed)
    origin.thread.start()
    try:
        yield origin
    finally:
        origin.closing = True
        with suppress(OSError), socket.create_connection(origin.listener.getsockname(), timeout=5):
            pass
        origin.thread.join()
        origin.listener.close()


def run_beside_hostile_origins(place: Path, seed: int, answers: int) -> None:
    """`edged run` whose other origins are hostile: it gets the version from the good one, and lives."""
    place.mkdir()
    origin = Origin.make(place)
    origin.publish([{"collection": "titles", "key": "a", "value": {"n": 1}}])
    device = Device(place, origin)
    with hostile_origin(seed) as hostile:
        urls = [f"{hostile.url}/{number}" for number in range(15)]
        void = f'[[datasets]]\nname = "void"\norigin = {urls}\ntrust = "{origin.feed}/root.trust"\n'.replace("'", '"')
        config = device.configure(*urls, origin.public.as_uri(), more=void)
        with device.running(config) as daemon:
            daemon.wait_version(1)
            deadline = time.monotonic() + 60
            while hostile.answers < answers:
                assert daemon.program.process.poll() is None, f"seed {seed}: ended: {daemon.program.lines}"
                assert time.monotonic() < deadline, f"seed {seed}: {hostile.answers} answers"
                time.sleep(0.02)
            assert daemon.record("a").json == {"n": 1}
        said = "\n".join(daemon.program.lines)
        assert "Traceback" not in said, f"seed {seed}: {said}"


def test_the_daemon_lives_beside_origins_that_answer_anything(tmp_path: Path) -> None:
    run_beside_hostile_origins(tmp_path / "run", SEED, 25)


@pytest.mark.slow
def test_the_daemon_lives_beside_origins_that_answer_anything_for_long(tmp_path: Path) -> None:
    ends, seed = time.monotonic() + SECONDS, SEED
    while time.monotonic() < ends:
        seed += 1
        run_beside_hostile_origins(tmp_path / str(seed), seed, 120)
