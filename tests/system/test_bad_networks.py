"""Bad networks: the newest version arrives, apps are served throughout, nothing ends, and what is wrong is said."""

from __future__ import annotations

import http.client
import json
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.system.link import HERE, HERE6, Link, linked, may_make_links
from tests.system.programs import Origin, Program, started, titles

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not may_make_links(), reason="needs root, ip, and /dev/net/tun"),
]
WAIT_S = 120.0  # an origin that hangs costs a root's and a head's half minute
PYTHON = (sys.executable, "-u")


class Unix(http.client.HTTPConnection):
    """To a Unix socket, which no namespace of networks is in the way of."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self.path))


def ask(path: Path, target: str) -> tuple[int, bytes]:
    with closing(Unix(path)) as connection:
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.read()


def program(
    link: Link, end: int, *words: str, environment: dict[str, str] | None = None
) -> AbstractContextManager[Program]:
    return started(link.command(end, *words), environment)


@contextmanager
def script(link: Link, text: str, *words: str) -> Iterator[Program]:
    """A small server at the origins' end, which prints a line once it listens."""
    with program(link, 0, *PYTHON, "-c", text, *words) as found:
        found.wait_for("listens")
        yield found


@dataclass
class Box:
    """A device at the end of a line. missed: what apps were not answered once there was something."""

    program: Program
    apps: Path
    admin: Path
    missed: list[object] = field(default_factory=list)
    asked: int = 0

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ask(self.admin, "/status")[1])["datasets"]["catalog"]
        return found

    def wait(self, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        until = time.monotonic() + WAIT_S
        while not good(status := self.status()):
            assert time.monotonic() < until, (status, self.program.lines[-20:])
            assert self.program.process.poll() is None, self.program.lines
            if status["version"]:
                self.asked += 1
                code, _ = ask(self.apps, "/v1/catalog/titles?limit=1")
                if code != 200:
                    self.missed.append(code)
            time.sleep(0.05)
        return status

    def reaches(self, version: int) -> dict[str, Any]:
        return self.wait(lambda status: status["version"] == version)

    def ends_well(self) -> None:
        assert self.program.process.poll() is None, self.program.lines
        assert self.missed == []
        assert self.program.stop() == 0


@contextmanager
def box(
    link: Link, place: Path, feed: Path, *origins: str, more: str = "", environment: dict[str, str] | None = None
) -> Iterator[Box]:
    config = place / "edged.toml"
    config.write_text(
        f'[daemon]\ndata_dir = "{place}/device"\n'
        f'[[datasets]]\nname = "catalog"\norigin = {json.dumps(origins)}\npoll_s = 1\n'
        f'trust = "{feed}/root.trust"\n{more}\n'
        f'[serve]\nbind = ["unix:{place}/apps.sock"]\n[admin]\nbind = ["unix:{place}/admin.sock"]\n'
    )
    words = (*PYTHON, "-m", "edged", "run", "--config", str(config))
    with program(link, 1, *words, environment=environment) as found:
        found.wait_for("serving operators")
        yield Box(found, place / "apps.sock", place / "admin.sock")


@contextmanager
def origin(link: Link, feed: Path, address: str = HERE, port: int = 0) -> Iterator[str]:
    host = f"[{address}]" if ":" in address else address
    words = ("-m", "edged", "origin", "serve", str(feed), "--bind", f"{host}:{port}")
    with program(link, 0, *PYTHON, *words) as found:
        url = found.wait_for(r"(https?://\S+:\d+)")[1]
        yield f"{url}/catalog"


def edit(made: Origin, number: int) -> None:
    made.publish(titles(edited=number))


# --- lines ------------------------------------------------------------------------------------------------------------


def slow(link: Link) -> None:
    link.rate = 8000  # 64 kbit/s


def far(link: Link) -> None:
    link.delay_s = 0.3


def lossy(link: Link) -> None:
    link.loss = 0.05


def all_of_it(link: Link) -> None:
    link.rate, link.delay_s, link.loss = 16_000, 0.2, 0.02


@pytest.mark.parametrize("spoil", [lossy, far, slow, all_of_it])
def test_new_versions_come_over_a_bad_line(tmp_path: Path, spoil: Callable[[Link], None]) -> None:
    made = Origin.make(tmp_path)
    edit(made, 0)
    with linked() as link, origin(link, made.feed) as url:
        spoil(link)
        with box(link, tmp_path, made.feed, url) as device:
            device.reaches(1)
            for version in (2, 3, 4):
                edit(made, version)
                status = device.reaches(version)
            assert status["state"] == "fresh"
            device.ends_well()


def test_a_line_that_comes_and_goes(tmp_path: Path) -> None:
    made = Origin.make(tmp_path)
    edit(made, 0)
    with linked() as link, origin(link, made.feed) as url:
        stop = threading.Event()

        def flap() -> None:
            chance = random.Random(1)
            while not stop.wait(chance.uniform(0.3, 1.5)):
                link.up = not link.up
            link.up = True

        with box(link, tmp_path, made.feed, url) as device:
            device.reaches(1)
            flapping = threading.Thread(target=flap)
            flapping.start()
            try:
                for version in range(2, 7):
                    edit(made, version)
                    time.sleep(1)
            finally:
                time.sleep(3)
                stop.set()
                flapping.join()
            device.reaches(6)
            device.ends_well()


def test_a_transfer_that_breaks_goes_on_where_it_broke(tmp_path: Path) -> None:
    """One large snapshot over a slow line, whose origin starts again in the midst of it."""
    chance = random.Random(2)
    records = titles(300)
    for record in records:
        record["value"]["noise"] = chance.randbytes(600).hex()
    made = Origin.make(tmp_path)
    made.publish(records)
    size = sum(path.stat().st_size for path in (made.public / "blobs").rglob("*") if path.is_file())
    assert size > 150_000
    with linked() as link:
        link.rate = 40_000
        with ExitStack() as stack:
            url = stack.enter_context(origin(link, made.feed))
            port = int(url.split(":")[2].partition("/")[0])
            with box(link, tmp_path, made.feed, url) as device:
                until = time.monotonic() + WAIT_S
                while link.passed[1] < size * 2 // 3:
                    assert time.monotonic() < until
                    time.sleep(0.02)
                stack.close()
                with origin(link, made.feed, HERE, port):
                    device.reaches(1)
                    assert link.passed[1] < 1.4 * size, (link.passed, size)
                    device.ends_well()


# --- names ------------------------------------------------------------------------------------------------------------

DNS = """
import socket, sys, time
mode, right = sys.argv[1], socket.inet_aton(sys.argv[2])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[2], 53))
print("listens", flush=True)
began = time.monotonic()
while True:
    query, peer = sock.recvfrom(4096)
    end = query.index(b"\\0", 12) + 5
    question, is_a = query[12:end], query[end - 4:end - 2] == b"\\0\\x01"
    if time.monotonic() - began > 6 and mode != "right":
        mode = "right"
    if mode == "silent":
        continue
    if mode == "failing":
        sock.sendto(query[:2] + b"\\x81\\x82" + b"\\0\\x01\\0\\0\\0\\0\\0\\0" + question, peer)
        continue
    address = right if mode == "right" else socket.inet_aton("10.83.0.77")
    count = b"\\0\\x01" if is_a else b"\\0\\0"
    answer = b"\\xc0\\x0c\\0\\x01\\0\\x01\\0\\0\\0\\x01\\0\\x04" + address if is_a else b""
    sock.sendto(query[:2] + b"\\x81\\x80" + b"\\0\\x01" + count + b"\\0\\0\\0\\0" + question + answer, peer)
"""


@pytest.mark.parametrize("mode", ["failing", "silent", "lying"])
def test_names_that_do_not_resolve_or_lead_astray(tmp_path: Path, mode: str) -> None:
    made = Origin.make(tmp_path)
    edit(made, 0)
    with linked() as link, origin(link, made.feed) as url:
        settings = Path("/etc/netns") / link.spaces[1]
        settings.mkdir(parents=True)
        try:
            (settings / "resolv.conf").write_text(f"nameserver {HERE}\noptions timeout:1 attempts:1\n")
            with script(link, DNS, mode, HERE):
                named = url.replace(HERE, "origin.test")
                with box(link, tmp_path, made.feed, named) as device:
                    told = device.wait(lambda status: bool(status["last_error"] or status["version"]))
                    assert told["version"] or "origin.test" in told["last_error"], told
                    device.reaches(1)
                    device.ends_well()
        finally:
            (settings / "resolv.conf").unlink()
            settings.rmdir()


# --- hosts ------------------------------------------------------------------------------------------------------------

HANGING = """
import socket, sys
sock = socket.create_server((sys.argv[1], 0))
print("listens", sock.getsockname()[1], flush=True)
held = []
while True:
    one = sock.accept()[0]
    one.recv(65536)
    one.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/cose\\r\\nContent-Length: 300\\r\\n\\r\\n\\xd2")
    held.append(one)
"""


def test_an_origin_that_hangs_after_its_head_hides_no_other(tmp_path: Path) -> None:
    made = Origin.make(tmp_path)
    edit(made, 0)
    with linked() as link, origin(link, made.feed) as url, script(link, HANGING, HERE) as hanging:
        port = hanging.wait_for(r"listens (\d+)")[1]
        with box(link, tmp_path, made.feed, f"http://{HERE}:{port}/catalog", url) as device:
            device.reaches(1)
            edit(made, 1)
            device.reaches(2)
            device.ends_well()


def test_where_there_is_ipv6_alone(tmp_path: Path) -> None:
    made = Origin.make(tmp_path)
    edit(made, 0)
    with linked(v4=False) as link, origin(link, made.feed, HERE6) as url:
        assert "[" in url
        with box(link, tmp_path, made.feed, url) as device:
            device.reaches(1)
            edit(made, 1)
            device.reaches(2)
            device.ends_well()


PROXY = """
import socket, sys, threading
from urllib.parse import urlsplit
sock = socket.create_server((sys.argv[1], 0))
print("listens", sock.getsockname()[1], flush=True)
def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    for one in (a, b):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
def serve(client):
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += client.recv(65536)
    method, target, _ = head.split(b"\\r\\n")[0].decode().split(" ")
    print("asked", method, target, flush=True)
    place = target if method == "CONNECT" else urlsplit(target).netloc
    host, _, port = place.rpartition(":")
    upstream = socket.create_connection((host.strip("[]"), int(port)))
    if method == "CONNECT":
        client.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
    else:
        path = target.removeprefix("http://" + place)
        upstream.sendall(head.replace(target.encode(), path.encode(), 1))
    threading.Thread(target=pump, args=(upstream, client), daemon=True).start()
    pump(client, upstream)
while True:
    threading.Thread(target=serve, args=(sock.accept()[0],), daemon=True).start()
"""


@pytest.mark.parametrize("told_by", ["configuration", "environment"])
def test_by_way_of_an_http_proxy(tmp_path: Path, told_by: str) -> None:
    """The origin is on the proxy's own loopback: there is no other way."""
    made = Origin.make(tmp_path)
    edit(made, 0)
    with linked() as link, origin(link, made.feed, "127.0.0.1") as url, script(link, PROXY, HERE) as proxy:
        port = proxy.wait_for(r"listens (\d+)")[1]
        way = f"http://{HERE}:{port}"
        more = f'proxy = "{way}"' if told_by == "configuration" else ""
        environment = {"http_proxy": way, "no_proxy": "nowhere.test"} if told_by == "environment" else {}
        with box(link, tmp_path, made.feed, url, more=more, environment=environment) as device:
            device.reaches(1)
            proxy.wait_for("asked")
            edit(made, 1)
            device.reaches(2)
            device.ends_well()
