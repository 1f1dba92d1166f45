"""The recipes of docs/pipelines.md against the real servers, killed in the middle: nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import pwd
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edged.origin.publisher import Publisher
from tests.origin.devices import Device

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
DEADLINE_S = 60.0
BINARIES = max(
    Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"), key=lambda path: int(path.parent.name)
)
WAL2JSON = BINARIES.parent / "lib" / "wal2json.so"


def blocks(heading: str, language: str) -> list[str]:
    """The code blocks of a section of the page."""
    text = (ROOT / "docs" / "pipelines.md").read_text()
    section = re.split(r"^## ", text.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that a server of another user can reach, with a feed in it and the page's examples."""
    with tempfile.TemporaryDirectory(prefix="edged-pipes-") as name:
        home = Path(name)
        home.chmod(0o755)
        (home / "docs").symlink_to(ROOT / "docs")
        Publisher.init(home / "feed")
        yield home


class Recipe:
    """Commands of the page, run where a person would."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        path = f"{Path(sys.executable).parent}:{BINARIES}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment}

    def run(self, text: str) -> None:
        subprocess.run(self.words(text), cwd=self.home, env=self.environment, check=True, timeout=DEADLINE_S)

    @staticmethod
    def words(text: str) -> list[str]:
        return ["bash", "-euo", "pipefail", "-c", text]

    @contextmanager
    def running(self, text: str) -> Iterator[subprocess.Popen[bytes]]:
        """A pipeline, until all of it is killed."""
        child = subprocess.Popen(self.words(text), cwd=self.home, env=self.environment, start_new_session=True)
        try:
            yield child
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def content(self) -> dict[str, Any]:
        if not (self.home / "feed" / "public" / "catalog" / "head").exists():
            return {}
        device = Device(self.home / "feed", "catalog")
        device.sync()
        return {key: device.value("titles", key) for key in sorted(device.keys())}

    def come_to(self, expected: dict[str, Any]) -> None:
        """Wait until the feed holds that."""
        until = time.monotonic() + DEADLINE_S
        while (found := self.content()) != expected:
            assert time.monotonic() < until, f"expected {expected}, got {found}"
            time.sleep(0.1)


def as_user(name: str) -> dict[str, Any]:
    """How a process is started as that user, where this one may choose."""
    if os.geteuid():
        return {}
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


@contextmanager
def server(words: list[str], home: Path, user: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the foreground, as `user` where this process may choose."""
    more = as_user(user)
    with (home / "log").open("ab") as log:
        child = subprocess.Popen(words, cwd=home, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **more)
        try:
            yield child
        finally:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def until_ready(words: list[str]) -> None:
    until = time.monotonic() + DEADLINE_S
    while subprocess.run(words, capture_output=True, check=False).returncode:
        assert time.monotonic() < until, words
        time.sleep(0.1)


def own_directory(home: Path, user: str) -> Path:
    found = home / "server"
    found.mkdir()
    if os.geteuid() == 0:
        shutil.chown(found, user)
    return found


class Postgres:
    def __init__(self, home: Path) -> None:
        self.home = own_directory(home, "postgres")
        self.recipe = Recipe(home, PGHOST=str(self.home), PGUSER="edged", PGDATABASE="postgres")
        subprocess.run(
            [BINARIES / "initdb", "--pgdata=data", "--auth=trust", "--username=edged", "--no-sync"],
            cwd=self.home, check=True, stdout=subprocess.DEVNULL,
            **as_user("postgres"),
        )  # fmt: skip

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        options = ["-c", "listen_addresses=", "-k", str(self.home), "-c", "fsync=off"]
        (setting,) = blocks("PostgreSQL", "ini")
        options += ["-c", re.sub(r"\s", "", setting)]
        with server([str(BINARIES / "postgres"), "-D", "data", *options], self.home, "postgres") as child:
            until_ready([str(BINARIES / "pg_isready"), "--host", str(self.home)])
            yield child

    def sql(self, text: str) -> str:
        words = ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", text]
        done = subprocess.run(words, env=self.recipe.environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def table(self) -> dict[str, Any]:
        rows = self.sql("SELECT json_object_agg(id, to_json(titles)) FROM titles")
        found: dict[str, Any] = json.loads(rows)
        return found

    def slot(self) -> int:
        return int(self.sql("SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = 'edged'"))


def change(database: Postgres, chance: random.Random, number: int) -> None:
    """A transaction that leaves every row with the same number, and something that comes and goes."""
    come = f"INSERT INTO titles(id, n) VALUES('x{number % 7}', {number}) ON CONFLICT(id) DO NOTHING;"
    go = f"DELETE FROM titles WHERE id = 'x{chance.randrange(7)}';"
    move = "UPDATE titles SET id = id || 'm' WHERE id = 'x3';"
    some = chance.choice([come, go, move, "INSERT INTO elsewhere VALUES(1);"])
    database.sql(f"BEGIN; UPDATE titles SET n = {number} WHERE id = 'a'; {some} UPDATE titles SET n = {number}; COMMIT")


@pytest.mark.skipif(not WAL2JSON.exists(), reason="needs PostgreSQL with wal2json")
def test_postgresql_killed_in_the_middle_loses_no_transaction(home: Path) -> None:
    database, chance = Postgres(home), random.Random(14)
    recipe, file = database.recipe, home / "titles.progress"
    whole, pipeline = blocks("PostgreSQL", "sh")
    with database.running():
        database.sql("CREATE TABLE elsewhere(n int); CREATE TABLE titles(id text PRIMARY KEY, n int, t text, j jsonb)")
        long = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 400) AS i)"  # too long to stand in a row
        database.sql(
            f"INSERT INTO titles VALUES('a', 0, {long}, '[1, {{\"b\": 2.5}}]'), ('b', 0, 'It''s \"b\"\n', null)"
        )
        for block in blocks("PostgreSQL", "sql"):
            for statement in block.strip().split(";\n"):
                database.sql(statement)
        recipe.run(whole)
        assert recipe.content() == database.table()
        number = 0
        for _ in range(4):
            with recipe.running(pipeline):
                for _ in range(chance.randrange(4, 12)):
                    number += 1
                    change(database, chance, number)
                    time.sleep(chance.uniform(0, 0.4))
                seen = {row["n"] for row in recipe.content().values()}
            assert len({row["n"] for row in recipe.content().values()}) == 1, "a transaction is in one version"
            if file.exists():  # a slow machine may have published nothing so far
                said = json.loads(file.read_bytes())
                assert said["counted"] or database.slot() <= said["position"]
            assert seen <= set(range(number + 1))
    with database.running(), recipe.running(pipeline):  # as after a restart of the server
        number += 1
        change(database, chance, number)
        recipe.come_to(database.table())
        before = database.slot()
        until = time.monotonic() + DEADLINE_S
        while database.slot() <= before:  # the server is told
            assert time.monotonic() < until
            time.sleep(0.3)
            change(database, chance, number := number + 1)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")
def test_a_redis_stream_killed_in_the_middle_loses_no_edit(home: Path) -> None:
    base, chance = own_directory(home, "nobody"), random.Random(14)
    socket = base / "redis.sock"
    example, pipeline = blocks("Redis streams", "sh")
    recipe, file = Recipe(home), home / "edits.progress"
    pipeline = pipeline.replace("edits.progress |", f"edits.progress -- -s {socket} |", 1)
    example = example.replace("redis-cli", f"redis-cli -s {socket}")
    ask = ["redis-cli", "-s", str(socket)]
    expected: dict[str, Any] = {"a": {"title": "Alien", "views": 1}}
    words = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "777", "--save", ""]
    with server([*words, "--appendonly", "yes"], base, "nobody"):
        until_ready([*ask, "PING"])
        recipe.run(example)
        for _ in range(4):
            with recipe.running(restarted(pipeline)):
                for _ in range(chance.randrange(10, 40)):
                    key, number = chance.choice("abcd"), chance.randrange(1000)
                    edit = json.dumps({"collection": "titles", "key": key, "value": {"views": number}})
                    subprocess.run([*ask, "XADD", "edits", "*", "edit", edit], check=True, stdout=subprocess.DEVNULL)
                    expected[key] = {"views": number}
                    time.sleep(chance.uniform(0, 0.08))
        with recipe.running(restarted(pipeline)):
            recipe.come_to(expected)
            length = int(subprocess.check_output([*ask, "XLEN", "edits"]))
            until = time.monotonic() + DEADLINE_S
            while length > 1:  # the last that is published stays
                assert time.monotonic() < until
                time.sleep(0.5)
                length = int(subprocess.check_output([*ask, "XLEN", "edits"]))
        assert json.loads(file.read_bytes())["counted"] is False


def restarted(pipeline: str) -> str:
    """What a unit with Restart=always does."""
    return f"while :; do {pipeline.strip()} || true; sleep 0.2; done"


def test_a_file_that_grows_is_gone_on_with(home: Path) -> None:
    recipe, chance = Recipe(home), random.Random(14)
    (pipeline,) = blocks("A file that grows", "sh")
    expected: dict[str, Any] = {}
    (home / "edits.ndjson").touch()
    for turn in range(4):
        with recipe.running(pipeline), (home / "edits.ndjson").open("a") as file:
            for _ in range(chance.randrange(10, 40)):
                key, number = chance.choice("abcd"), chance.randrange(1000)
                file.write(json.dumps({"collection": "titles", "key": key, "value": {"n": number}}) + "\n")
                file.flush()
                expected[key] = {"n": number}
                time.sleep(chance.uniform(0, 0.08))
            if turn == 3:
                recipe.come_to(expected)
