"""Several processes and threads on one replica: readers follow without a lock, and nothing is taken from under them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import edged
from edged.replica.files.manifest import file_name
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from tests.replica.feeds import Publisher, filled, made_up

EAGER = MergePolicy(fresh_packs=2, least_bytes=1, base_share=0.5, keep_bytes=1)

FOLLOWER = """
import sys, time, edged
with edged.open(sys.argv[1]) as replica:
    catalog = replica["catalog"]
    titles = catalog["titles"]
    last = int(sys.argv[2])
    print("ready", flush=True)
    while catalog.version < last:
        view = catalog.view()
        # Each version writes its number into every one of these records: any mixture would show.
        found = {titles_value[-1] for titles_value in view.get_many_raw("titles", ["a", "b", "c", "d"])}
        listed = {value[-1] for _, value in view.scan("titles")}
        assert found == listed == {view.version}, (found, listed, view.version)
        seen = catalog.version
        if titles.get_raw("a")[-1] != seen:
            assert catalog.version > seen
    print(time.monotonic(), flush=True)
"""


def value(version: int) -> bytes:
    return b"\x18" + bytes([version])  # a CBOR number, small enough for a byte


def publish(writer: Writer, publisher: Publisher, version: int) -> None:
    with writer.stage() as staging:
        changes = publisher.apply("core", {("titles", key): value(version) for key in "abcd"})
        staging.apply_changes("core", version, changes)
        staging.commit(version, b"head", as_of=version, fresh_s=1, expires_s=1)


def test_readers_in_other_processes_see_whole_versions_soon(tmp_path: Path) -> None:
    first, last = 24, 120
    publisher = Publisher({"core": {("titles", key): value(first) for key in "abcd"}}, version=first)
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        children = [
            subprocess.Popen(
                [sys.executable, "-c", FOLLOWER, str(tmp_path), str(last)], stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for version in range(first + 1, last + 1):
            publish(writer, publisher, version)
            writer.compact(policy=EAGER)
        committed = time.monotonic()
        for child in children:
            said, _ = child.communicate(timeout=30)
            assert child.returncode == 0
            assert float(said) - committed < 1  # 10 ms on a machine that is not busy; benchmarks/replica.py measures it


def test_a_view_outlives_the_files_it_reads(tmp_path: Path) -> None:
    publisher = filled(tmp_path, 300)
    chance = random.Random(1)
    old = dict(publisher.slices["core"])
    with edged.open(tmp_path) as replica, Writer.open(tmp_path, "catalog") as writer:
        view = replica["catalog"].view()
        files = {file_name(ref.number) for ref in writer.live.manifest.slices["core"].base}
        for _ in range(4):
            publisher.hop_into(writer, 30, chance)
            writer.compact(policy=MergePolicy(fresh_packs=0, least_bytes=1, base_share=0))
            assert replica["catalog"].version == publisher.version
        assert files
        assert not files & {path.name for path in (tmp_path / "catalog/packs").glob("*.pack")}
        assert {(name, key): data for name in view.collections for key, data in view.scan(name)} == old
        assert len(view.search("titles", "pulp", limit=999)) > 0


def test_threads_share_one_collection(tmp_path: Path) -> None:
    publisher = filled(tmp_path, 300)
    keys = sorted(key for name, key in publisher.slices["core"] if name == "titles")
    expected = {key: publisher.slices["core"]["titles", key] for key in keys}
    faults: list[str] = []
    done = threading.Event()
    with edged.open(tmp_path) as replica, Writer.open(tmp_path, "catalog") as writer:
        titles = replica["catalog"]["titles"]

        def read(seed: int) -> None:
            chance = random.Random(seed)
            while not done.is_set():
                key = chance.choice(keys)
                if titles.get_raw(key) != expected[key]:
                    faults.append(key)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for number in range(40):
            publisher.version += 1
            with writer.stage() as staging:
                staging.apply_changes(
                    "core", publisher.version, publisher.apply("core", {("people", f"n{number}"): b"\x01"})
                )
                staging.commit(publisher.version, b"h", as_of=1, fresh_s=1, expires_s=1)
            writer.compact(policy=EAGER)
        done.set()
        for thread in threads:
            thread.join()
        assert faults == []
        assert replica["catalog"].version == publisher.version


def test_reading_writes_nothing(tmp_path: Path) -> None:
    publisher = filled(tmp_path, 100, hops=5)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}
    with edged.open(tmp_path) as replica:
        assert len(dict(replica["catalog"]["titles"])) == replica["catalog"].view().collections["titles"]
        assert replica["catalog"]["titles"].search("pulp")
        assert list(replica["catalog"].changes(1))
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}
    assert publisher.version == 6


def test_opened_before_the_first_version_it_follows(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(50)})
    (tmp_path / "catalog").mkdir()
    with edged.open(tmp_path) as replica:
        catalog = replica.follow("catalog")
        assert catalog.version == 0
        with Writer.open(tmp_path, "catalog") as writer:
            publisher.snapshot_into(writer)
            assert catalog.version == 1
            publisher.hop_into(writer, 5, random.Random(1))
            assert catalog.version == 2
        assert len(catalog["titles"]) == catalog.view().collections["titles"]


LIGHT = """
import sys
import edged
with edged.open(sys.argv[1]) as replica:
    titles = replica["catalog"]["titles"]
    assert titles[next(iter(titles))]
print(*sorted(sys.modules))
assert titles.search("pulp")
print(*sorted(sys.modules))
"""
# Each costs megabytes or milliseconds that a program which only reads would pay for nothing.
HEAVY = {
    "argparse", "asyncio", "cryptography", "dataclasses", "email", "hashlib", "http", "httpx2", "hypercorn", "inspect",
    "json", "logging", "msgspec", "pathlib", "random", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "tomllib",
    "trio", "urllib", "zoneinfo",
}  # fmt: skip
QUERYING = {"dataclasses", "inspect", "json"}


def test_importing_and_opening_load_little(tmp_path: Path) -> None:
    filled(tmp_path, 100, hops=1)
    # Without the coverage tool, which loads more than the reader does.
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", LIGHT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=bare)
    opened, searched = (set(line.split()) for line in done.stdout.splitlines())
    assert HEAVY.isdisjoint(name.partition(".")[0] for name in opened)
    ours = {name for name in opened if name.startswith("edged.")}
    assert ours <= {
        "edged.clock", "edged.errors", "edged.feed", "edged.feed.cbor", "edged.feed.limits", "edged.feed.names",
        "edged.feed.schema", "edged.files", "edged.feed.zstd",
        "edged.replica", "edged.replica.files", "edged.replica.files.disk", "edged.replica.files.manifest",
        "edged.replica.files.settings", "edged.replica.files.touched", "edged.replica.files.usedtime",
        "edged.replica.finds", "edged.replica.layers", "edged.replica.watches",
        "edged.replica.layers.layers", "edged.replica.layers.lookup", "edged.replica.layers.pool",
        "edged.replica.loading", "edged.replica.packs", "edged.replica.packs.frames", "edged.replica.packs.pack",
        "edged.replica.packs.packmeta", "edged.replica.reader", "edged.replica.view",
    }  # fmt: skip
    assert (HEAVY - QUERYING).isdisjoint(name.partition(".")[0] for name in searched)
