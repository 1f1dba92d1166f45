"""Ten thousand held polls at one origin, or one relay: what they take, and when the last one has the new head.

    python -m benchmarks.polls [--relay] [--polls 10000] [--rounds 3]

The origin runs in a process of its own, as `edged origin serve`, and so does the relay below it, as `edged run`;
everything listens on loopback. Asked: 80 MB resident and 2 s from publishing until the last device has the head. Needs
twice as many descriptors as polls.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edged.origin.publisher import Publisher

TIMEOUT_S = 60.0


def edits(number: int) -> list[str]:
    return [json.dumps({"collection": "titles", "key": "a", "value": {"edit": number}})]


def publish(feed: Path, number: int) -> None:
    """As its own process: what it costs is not the origin's."""
    command = [sys.executable, "-m", "edged", "origin", "publish", str(feed), "--dataset", "catalog", "-"]
    subprocess.run(command, input="\n".join(edits(number)) + "\n", text=True, check=True, stdout=subprocess.DEVNULL)


def resident_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) / 1000


def connect(port: int, count: int) -> list[socket.socket]:
    opened = []
    for number in range(count):
        # several addresses of loopback, for one has 28,000 ports at the most
        sock = socket.create_connection(
            ("127.0.0.1", port), TIMEOUT_S, source_address=(f"127.0.0.{2 + number % 50}", 0)
        )
        sock.setblocking(False)
        opened.append(sock)
    return opened


def ask(sockets: list[socket.socket], version: int, tag: str, number: int) -> None:
    target = f"/catalog/head?after={version}&wait=300&poll={number}"
    request = f"GET {target} HTTP/1.1\r\nHost: feed\r\nIf-None-Match: {tag}\r\n\r\n"
    for sock in sockets:
        sock.send(request.encode())


def answers(sockets: list[socket.socket]) -> tuple[list[float], bytes]:
    """When each answer came (time.time), and one of them."""
    epoll, at, one = select.epoll(), [], b""
    for sock in sockets:
        epoll.register(sock, select.EPOLLIN)
    known, deadline = {sock.fileno(): sock for sock in sockets}, time.time() + TIMEOUT_S
    while known and time.time() < deadline:
        for fd, _ in epoll.poll(1.0):
            one = known.pop(fd).recv(65536)
            at.append(time.time())
            epoll.unregister(fd)
    epoll.close()
    assert not known, f"{len(known)} polls were not answered"
    return at, one


def hold(sockets: list[socket.socket], version: int, answer: bytes) -> None:
    """Ask until all polls are held: a publisher may sign a version's head anew at once, which ends those before it."""
    while True:
        ask(sockets, version, field_of(answer, "etag"), int(field_of(answer, "edged-poll")))
        time.sleep(2)
        epoll = select.epoll()
        for sock in sockets:
            epoll.register(sock, select.EPOLLIN)
        answered = epoll.poll(0, len(sockets))
        epoll.close()
        if not answered:
            return
        _, answer = answers(sockets)


def field_of(answer: bytes, name: str) -> str:
    found = re.search(rf"^{name}: (.*)\r$", answer.decode("latin-1"), re.MULTILINE | re.IGNORECASE)
    assert found is not None, name
    return found[1]


@contextmanager
def running(pattern: str, *words: str) -> Iterator[tuple[int, int]]:
    """A program of edged: its process, and the port that `pattern` finds in what it says."""
    program = subprocess.Popen(
        [sys.executable, "-m", "edged", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert program.stdout is not None
        text = ""
        while (found := re.search(pattern, text)) is None:
            line = program.stdout.readline()
            if not line:
                raise SystemExit(f"edged {' '.join(words)} ended: {text}")
            text += line
        yield program.pid, int(found[1])
    finally:
        program.terminate()
        program.wait(20)


@contextmanager
def station(feed: Path, relay: bool) -> Iterator[tuple[int, int]]:
    """Process and port of the one that devices ask."""
    serve = ("origin", "serve", str(feed), "--bind", "127.0.0.1:0", "--json")
    with running(r":(\d+)\"", *serve) as origin:
        if not relay:
            yield origin
            return
        config = feed.parent / "relay.toml"
        config.write_text(
            f'[daemon]\ndata_dir = "{feed.parent}/relay"\n[serve]\nbind = ["unix:{feed.parent}/apps.sock"]\n'
            f'[relay]\nbind = ["127.0.0.1:0"]\ndatasets = ["*"]\norigin = ["http://127.0.0.1:{origin[1]}"]\n'
            f'trust = "{feed}/root.trust"\n[admin]\nbind = ["127.0.0.1:0"]\n'
        )
        with running(r"other edgeds.*:(\d+)", "run", "--config", str(config)) as below:
            yield below


def measure(feed: Path, options: argparse.Namespace) -> None:
    polls, rounds = options.polls, options.rounds
    with station(feed, options.relay) as (pid, port):
        before_mb = resident_mb(pid)
        sockets = connect(port, polls)
        ask(sockets, 0, '"none"', 0)
        _, answer = answers(sockets)
        took = []
        for number in range(rounds):
            hold(sockets, number + 1, answer)
            held_mb = resident_mb(pid)
            publish(feed, number + 2)
            published = (feed / "public/catalog/head").stat().st_mtime
            at, answer = answers(sockets)
            took.append((max(at) - published, statistics.median(at) - published))
        last_s, half_s = (statistics.median(column) for column in zip(*took, strict=True))
        print(f"{polls:,} held polls: {held_mb:.0f} MB resident ({before_mb:.0f} MB before them), asked 80")
        print(f"from the new head to the last device {last_s:.2f} s, asked 2; to the median one {half_s:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polls", type=int, default=10_000)
    parser.add_argument("--relay", action="store_true", help="ask a relay below the origin")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    options.polls = min(options.polls, (hard - 400) // 2)  # the origin keeps a descriptor for each answer as well
    with tempfile.TemporaryDirectory() as directory:
        feed = Path(directory) / "feed"
        Publisher.init(feed)
        publish(feed, 1)
        measure(feed, options)


if __name__ == "__main__":
    main()
