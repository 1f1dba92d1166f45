"""The store: its quota, its checks, and what it does when something outside breaks it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from edged.errors import StoreError
from edged.proxy.store.disk import INLINE_BYTES, Record, Spool
from edged.proxy.store.record import block_sums
from edged.proxy.store.store import DATABASE, SETTINGS, Store
from edged.proxy.store.worker import Worker

QUOTA = 6 << 20


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill loses nothing that the kernel has; these tests need no disk to confirm it."""
    monkeypatch.setitem(SETTINGS, "sqlite_synchronous", 0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "proxy", QUOTA)
    yield opened
    opened.close()


def du(directory: Path) -> int:
    """Bytes as du counts them."""
    return sum(blocks_of(directory).values()) * 512


def blocks_of(directory: Path) -> dict[str, int]:
    """By path; files that go while it looks count as they are found."""
    found = {}
    for folder, _, files in os.walk(directory):
        for name in [".", *files]:
            path = os.path.join(folder, name)
            with suppress(FileNotFoundError):
                found[path] = os.lstat(path).st_blocks
    return found


def body_of(store: Store, key: bytes) -> bytes | None:
    found = store.get(key)
    if found is None:
        return None
    return Path(found.path).read_bytes() if found.path else found.body


def fill(store: Store, key: bytes, body: bytes) -> bool:
    return store.put(key, b"head of " + key, body)


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 65536, 65537, 500_000])
def test_what_is_put_is_what_is_got(store: Store, size: int) -> None:
    body = random.Random(size).randbytes(size)
    assert fill(store, b"Rkey", body)
    found = store.get(b"Rkey")
    assert found is not None
    assert found.head == b"head of Rkey"
    assert body_of(store, b"Rkey") == body
    assert store.verify(b"Rkey", found, size, block_sums(body))
    assert bool(found.path) == (size > INLINE_BYTES)


def test_a_replaced_body_leaves_no_file_behind(store: Store) -> None:
    for number in range(5):
        fill(store, b"Rkey", bytes([number]) * 100_000)
    files = list(store.directory.rglob("*.val"))
    assert len(files) == 1
    assert store.disk.used == files[0].stat().st_blocks * 512
    assert store.delete([b"Rkey", b"Rother"]) == 1
    assert store.disk.used == 0


def test_a_new_head_keeps_the_body(store: Store) -> None:
    for size in (100, 100_000):
        body = b"x" * size
        fill(store, b"Rkey", body)
        assert store.rewrite(b"Rkey", b"fresher")
        found = store.get(b"Rkey")
        assert found is not None
        assert (found.head, body_of(store, b"Rkey")) == (b"fresher", body)
    files = list(store.directory.rglob("*.val"))
    assert store.disk.used == sum(file.stat().st_blocks * 512 for file in files)
    assert len(files) == 1
    assert not store.rewrite(b"Rgone", b"fresher")


def written_bytes() -> int:
    with open("/proc/self/io") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("wchar"))


def test_a_hit_writes_no_byte(store: Store) -> None:
    for size in (100, 100_000):
        fill(store, b"R%d" % size, b"x" * size)
    store.get(b"R100")
    log = os.stat(store.directory / (DATABASE + "-wal")).st_size
    database = (store.directory / DATABASE).read_bytes()
    before = written_bytes()
    for _ in range(200):
        store.get(b"R100")
        found = store.get(b"R100000")
        assert found is not None
        store.verify(b"R100000", found, 100_000, block_sums(b"x" * 100_000))
    assert written_bytes() == before
    assert os.stat(store.directory / (DATABASE + "-wal")).st_size == log
    assert (store.directory / DATABASE).read_bytes() == database


@contextmanager
def watched(directory: Path) -> Iterator[list[int]]:
    """The most that lay there at once while the block ran, looked at all the time from another thread: what two looks
    in a row have found. One look alone may find a file that goes and then another that takes its room."""
    most = [0]
    stop = threading.Event()

    def look() -> None:
        before: dict[str, int] = {}
        while not stop.is_set():
            found = blocks_of(directory)
            both = sum(min(blocks, before.get(path, 0)) for path, blocks in found.items())
            most[0], before = max(most[0], both * 512), found

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


def hammer(store: Store, count: int, seed: int = 1) -> int:
    chance = random.Random(seed)
    kept = 0
    for number in range(count):
        size = int(2 ** chance.uniform(0, 17))
        kept += fill(store, b"R%d" % chance.randrange(count), chance.randbytes(size))
        if number % 97 == 0:
            store.rewrite(b"R%d" % chance.randrange(count), b"h" * 2000)
    return kept


@pytest.mark.parametrize("quota", [4 << 20, QUOTA])
def test_the_quota_holds_at_all_times(tmp_path: Path, quota: int) -> None:
    store = Store(tmp_path / "proxy", quota)
    with watched(store.directory) as most:
        assert hammer(store, 500) == 500
    assert quota // 2 < most[0] <= quota
    assert store.used_bytes() <= quota
    store.close()


def test_small_values_do_not_keep_the_room_of_large_ones(tmp_path: Path) -> None:
    # A database full of small values must shrink when large bodies take their place.
    store = Store(tmp_path / "proxy", QUOTA)
    for number in range(1_500):
        fill(store, b"R%d" % number, b"x" * 3_000)
    with watched(store.directory) as most:
        for number in range(40):
            assert fill(store, b"L%d" % number, b"y" * 400_000)
    assert most[0] <= QUOTA
    assert len(list(store.directory.rglob("*.val"))) >= 8
    store.close()


@pytest.mark.slow
def test_the_quota_holds_for_a_hundred_thousand_random_objects(tmp_path: Path) -> None:
    quota = 64 << 20
    store = Store(tmp_path / "proxy", quota)
    with watched(store.directory) as most:
        assert hammer(store, 100_000) == 100_000
    assert quota // 2 < most[0] <= quota
    store.close()
    again = Store(tmp_path / "proxy", quota)
    assert again.rebuilds == 0
    assert du(tmp_path / "proxy") <= quota
    again.close()


def test_what_does_not_fit_is_not_stored(store: Store) -> None:
    assert not fill(store, b"Rhuge", b"x" * (QUOTA + 1))
    assert store.get(b"Rhuge") is None
    assert not list(store.directory.rglob("*.val"))


def test_a_spool_over_the_quota_is_given_up(store: Store) -> None:
    spool = store.spool()

    def spool_all() -> None:
        for _ in range(QUOTA // 65536 + 1):
            store.append(spool, b"x" * 65536)

    with pytest.raises(StoreError, match="does not fit"):
        spool_all()
    assert du(store.directory) <= QUOTA
    assert not list(store.directory.rglob("*.val"))


def test_what_was_used_last_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "proxy", QUOTA, recently_used=lambda key: key == b"R0")
    for number in range(200):
        fill(store, b"R%d" % number, b"x" * 60_000)
    assert store.get(b"R0") is not None
    assert store.get(b"R1") is None
    store.close()


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["truncated", "flipped", "gone", "longer"])
def test_a_damaged_file_is_dropped_and_never_given(store: Store, how: str) -> None:
    body = random.Random(0).randbytes(200_000)
    fill(store, b"Rkey", body)
    found = store.get(b"Rkey")
    assert found is not None
    path = Path(found.path)
    data = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(data[:-1])
    elif how == "longer":
        path.write_bytes(bytes(data) + b"x")
    elif how == "gone":
        path.unlink()
    else:
        data[150_000] ^= 1
        path.write_bytes(data)
    assert not store.verify(b"Rkey", found, len(body), block_sums(body))
    assert store.get(b"Rkey") is None
    assert not path.exists()


def damage_rows(store: Store, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(store.directory / DATABASE)) as database:
        database.execute(statement, values)
        database.commit()


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("UPDATE Cache SET value = substr(value, 1, 20)", ()),
        ("UPDATE Cache SET value = zeroblob(200)", ()),
        ("UPDATE Cache SET value = 'text'", ()),
        ("UPDATE Cache SET value = NULL", ()),
        ("UPDATE Cache SET mode = 4", ()),  # a pickle
        ("UPDATE Cache SET mode = 4, value = ?", (b"cos\nsystem\n(S'touch /tmp/owned'\ntR.",)),
        ("UPDATE Cache SET mode = 2, filename = ?", ("../../etc/passwd",)),
        ("UPDATE Cache SET mode = 2, filename = ?", ("/etc/passwd",)),
    ],
)
def test_a_row_that_edged_did_not_write_is_dropped(store: Store, statement: str, values: tuple[object, ...]) -> None:
    victim = store.directory.parent / "victim"
    victim.write_bytes(b"precious")
    fill(store, b"Rkey", b"small")
    damage_rows(store, statement, *values)
    assert store.get(b"Rkey") is None
    assert store.list_keys() == []
    assert victim.exists()
    assert Path("/etc/passwd").exists()
    assert fill(store, b"Rkey", b"again")


def test_a_pickled_key_ends_in_a_rebuilt_database(store: Store) -> None:
    fill(store, b"Rkey", b"small")
    damage_rows(store, "UPDATE Cache SET raw = 0")
    assert store.get(b"Rkey") is None
    store.close()
    again = Store(store.directory, QUOTA)
    assert again.get(b"Rkey") is None
    assert fill(again, b"Rkey", b"new")
    again.close()


@pytest.mark.parametrize("how", ["garbage", "zeros", "empty", "torn", "settings"])
def test_a_broken_database_is_rebuilt_and_start_up_goes_on(tmp_path: Path, how: str) -> None:
    directory = tmp_path / "proxy"
    store = Store(directory, QUOTA)
    for number in range(300):
        fill(store, b"R%d" % number, b"x" * (number * 50))
    store.close()
    path = directory / DATABASE
    data = path.read_bytes()
    if how == "garbage":
        path.write_bytes(b"this is no database" * 1000)
    elif how == "zeros":
        path.write_bytes(data[:100] + bytes(len(data) - 100))
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "torn":
        path.write_bytes(data[: len(data) // 2])
    else:
        damage_rows(store, "INSERT INTO Settings VALUES ('sqlite_journal_mode; ATTACH', 1)")
    again = Store(directory, QUOTA)
    for number in range(300):
        found = again.get(b"R%d" % number)
        assert found is None or found.head == b"head of R%d" % number
    assert fill(again, b"Rnew", b"y" * 9_000)
    assert body_of(again, b"Rnew") == b"y" * 9_000
    assert du(directory) <= QUOTA
    again.close()


def test_a_database_that_breaks_under_way_is_rebuilt(store: Store) -> None:
    for number in range(300):
        fill(store, b"R%d" % number, b"x" * 2_000)
    store.connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = store.directory / DATABASE
    size = path.stat().st_size
    with path.open("r+b") as file:
        for offset in range(4096, size, 4096):
            file.seek(offset)
            file.write(b"\xff" * 4096)
    store.cache.close()  # what the connection has in its own memory is sound
    faults = 0
    for number in range(300):
        try:
            store.get(b"R%d" % number)
            fill(store, b"N%d" % number, b"y")
        except StoreError:
            faults += 1
    assert store.rebuilds == 1
    assert faults == 1
    assert store.get(b"R299") is None
    assert body_of(store, b"N299") == b"y"


def test_what_a_kill_left_behind_is_swept(tmp_path: Path) -> None:
    store = Store(tmp_path / "proxy", QUOTA)
    fill(store, b"Rkey", b"x" * 50_000)
    spool = store.spool(b"half a body")
    spool.file.close()
    stray = store.directory / "01" / ("0" * 30 + ".val")
    stray.write_bytes(b"no row names me")
    store.cache.close()
    again = Store(tmp_path / "proxy", QUOTA)
    assert not stray.exists()
    assert not spool.path.exists()
    assert body_of(again, b"Rkey") == b"x" * 50_000
    assert again.used_bytes() == du(again.directory)
    again.close()


KILLED = """
import random, sys
from pathlib import Path
from edged.proxy.store.store import Store
store = Store(Path(sys.argv[1]), 6 << 20)
chance = random.Random(int(sys.argv[2]))
number = 0
while True:
    body = (b"%d " % number) * chance.randrange(1, 20_000)
    store.put(b"R%d" % number, b"%d" % len(body), body)
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_it_has_what_was_stored(tmp_path: Path, seed: int) -> None:
    directory = tmp_path / "proxy"
    command = [sys.executable, "-c", KILLED, str(directory), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        last = -1
        for line in child.stdout:
            last = int(line)
            if last == 20 + 13 * seed:
                child.send_signal(signal.SIGKILL)
                break
        last = max([last, *(int(line) for line in child.stdout if line.strip().isdigit())])
    store = Store(directory, QUOTA)
    assert store.rebuilds == 0
    for number in range(last + 1):
        found = store.get(b"R%d" % number)
        assert found is not None, f"R{number} of {last}"
        body = Path(found.path).read_bytes() if found.path else found.body
        unit = b"%d " % number
        assert body == unit * (len(body) // len(unit))
        assert len(body) == int(found.head)
    assert du(directory) <= QUOTA
    store.close()


def test_a_full_disk_costs_one_answer_and_not_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(spool: Spool, data: bytes) -> None:
        spool.file.write(data[:100])
        raise OSError(28, "No space left on device")

    fill(store, b"Rold", b"x" * 9_000)
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "write", full)
        with pytest.raises(StoreError, match="No space"):
            fill(store, b"Rnew", b"x" * 9_000)
    assert store.get(b"Rnew") is None
    assert body_of(store, b"Rold") == b"x" * 9_000
    assert store.used_bytes() == du(store.directory)
    assert fill(store, b"Rnew", b"x" * 9_000)


def test_a_directory_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="make it writable"):
        Store(tmp_path / "file" / "proxy", QUOTA)


def test_values_and_keys_of_other_types_are_our_bug(store: Store) -> None:
    with pytest.raises(TypeError):
        store.cache.set("text", Record(b""))
    with pytest.raises(TypeError):
        store.cache.set(b"key", {"a": 1})


def test_a_lost_folder_is_made_again(store: Store) -> None:
    for number in range(64):
        shutil.rmtree(store.directory / f"{number:02x}")
    assert fill(store, b"Rkey", b"x" * 9_000)
    assert body_of(store, b"Rkey") == b"x" * 9_000


def test_a_thread_that_the_system_does_not_give_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(StoreError, match=r"edged-proxy-store.*TasksMax"):
        Worker("edged-proxy-store")
