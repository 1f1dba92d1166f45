"""The real programs as child processes, on ports that the kernel picks, and what tests do with them."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DEADLINE_S = 60.0
RECORDS = 400


def titles(count: int = RECORDS, edited: int = 0) -> list[dict[str, Any]]:
    """Records of one collection; the first `edited` have another rating."""
    return [
        {
            "collection": "titles",
            "key": f"{1980 + number % 40}/Title_{number:05d}",
            "value": {
                "title": f"Title {number}",
                "year": 1980 + number % 40,
                "genres": ["Drama", "Comedy", "Silent"][number % 3 :],
                "rating": 7.5 if number < edited else 5.25,
                "extract": f"The {number}th story of the making of a film about number {number * 7919}. " * 3,
            },
        }
        for number in range(count)
    ]


def write_ndjson(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return path


def edged(*words: object, code: int | None = 0, data: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end. code: the exit code to expect, None for any."""
    done = subprocess.run(
        [sys.executable, "-m", "edged", *map(str, words)],
        input=data,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    if code is not None:
        assert done.returncode == code, f"edged {words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def edged_json(*words: object) -> Any:
    return json.loads(edged(*words, "--json").stdout)


@dataclass(slots=True)
class Program:
    """A running `edged …`; `lines` holds what it has said so far."""

    process: subprocess.Popen[bytes]
    lines: list[str] = field(default_factory=list)
    rest: bytes = b""

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line that matches. Fails when the program ends or DEADLINE_S passes."""
        deadline = time.monotonic() + DEADLINE_S
        seen = 0
        while True:
            for line in self.lines[seen:]:
                if match := re.search(pattern, line):
                    return match
            seen = len(self.lines)
            left = deadline - time.monotonic()
            assert left > 0, f"no line like {pattern!r} in: {self.lines}"
            assert self.read(left), f"ended without a line like {pattern!r}: {self.lines}"

    def read(self, timeout_s: float) -> bool:
        """Take in what has been said; False once the program has closed its output."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        if not ready:
            return True
        data = os.read(self.process.stdout.fileno(), 65536)
        *whole, self.rest = (self.rest + data).split(b"\n")
        self.lines += [line.decode(errors="replace") for line in whole]
        return bool(data)

    def kill(self) -> None:
        """SIGKILL: what a power cut looks like to a process."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


def running(*words: object) -> AbstractContextManager[Program]:
    """`edged …` until the block ends; it is killed if it still runs then."""
    return started([sys.executable, "-m", "edged", *map(str, words)])


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Program]:
    """A program until the block ends. environment: beside what there is."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
    )
    program = Program(process)
    try:
        yield program
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def get(url: str, **headers: str) -> Answer:
    """One GET. Header names with underscores for dashes."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=DEADLINE_S)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", target, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Origin:
    """A feed on disk and, once served, its URL."""

    feed: Path
    dataset: str = "catalog"

    @classmethod
    def make(cls, place: Path) -> Origin:
        feed = place / "feed"
        edged("origin", "init", feed)
        return cls(feed)

    @property
    def public(self) -> Path:
        return self.feed / "public" / self.dataset

    def publish(self, records: list[dict[str, Any]], *more: object) -> Any:
        path = write_ndjson(self.feed.parent / "input.ndjson", records)
        return edged_json("origin", "publish", self.feed, "--dataset", self.dataset, path, *more)

    @contextmanager
    def served(self) -> Iterator[str]:
        """The base URL of the dataset's feed."""
        with running("origin", "serve", self.feed, "--bind", "127.0.0.1:0") as program:
            url = program.wait_for(r"(http://127\.0\.0\.1:\d+)")[1]
            yield f"{url}/{self.dataset}"


@dataclass(frozen=True, slots=True)
class Device:
    """A configuration and a data directory."""

    place: Path
    origin: Origin

    @property
    def data_dir(self) -> Path:
        return self.place / "device"

    def configure(self, *urls: str, slices: tuple[str, ...] = ("core",), more: str = "") -> Path:
        path = self.place / "edged.toml"
        path.write_text(
            f'[daemon]\ndata_dir = "{self.data_dir}"\n'
            f'[[datasets]]\nname = "{self.origin.dataset}"\norigin = {json.dumps(urls)}\npoll_s = 1\n'
            f'trust = "{self.origin.feed}/root.trust"\nslices = {json.dumps(slices)}\n{more}\n'
            '[serve]\nbind = ["127.0.0.1:0"]\n[admin]\nbind = ["127.0.0.1:0"]\n'
        )
        return path

    @contextmanager
    def running(self, config: Path) -> Iterator[Running]:
        with running("run", "--config", config) as program:
            apps = program.wait_for(r"serving apps.*?(http://127\.0\.0\.1:\d+)")[1]
            admin = program.wait_for(r"serving operators.*?(http://127\.0\.0\.1:\d+)")[1]
            yield Running(program, apps, admin, self.origin.dataset)


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that answers."""

    program: Program
    apps: str
    admin: str
    dataset: str

    def status(self) -> dict[str, Any]:
        answer = get(f"{self.admin}/status")
        assert answer.status == 200, (answer, self.program.lines)
        document: dict[str, Any] = answer.json["datasets"][self.dataset]
        return document

    def wait_version(self, version: int) -> dict[str, Any]:
        """The status once the daemon serves `version`."""
        return self.wait_status(lambda status: status["version"] == version)

    def wait_status(self, good: Any) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            status = self.status()
            if good(status):
                return status
            assert time.monotonic() < deadline, f"still {status}; said {self.program.lines}"
            assert self.program.process.poll() is None, f"ended: {self.program.lines}"
            time.sleep(0.02)

    def wait_document(self, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The whole /status once `good` holds for it."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            answer = get(f"{self.admin}/status")
            assert answer.status == 200, (answer, self.program.lines)
            document: dict[str, Any] = answer.json
            if good(document):
                return document
            assert time.monotonic() < deadline, f"still {document}; said {self.program.lines}"
            time.sleep(0.02)

    def record(self, key: str, **headers: str) -> Answer:
        return get(f"{self.apps}/v1/{self.dataset}/titles/{key.replace('/', '%2F')}", **headers)
