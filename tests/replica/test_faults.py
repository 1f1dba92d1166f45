"""Power loss, kill, full disk and failing disk at every call that changes the disk."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from edged import files
from edged.errors import DamageError, StoreError
from edged.replica.files import disk
from edged.replica.files.manifest import Manifest, decode_commit
from edged.replica.loading import read_manifest
from edged.replica.writer import Writer
from edged.replica.writing import live as live_module
from tests.conftest import FUZZ_SEED
from tests.replica.faults import FaultyOs, Killed
from tests.replica.feeds import Publisher, made_up
from tests.replica.scenario import check_survivor, commit, read_everything, scenario

Run = Callable[[FaultyOs], list[int]]
SAID = {
    "full": ("disk is full",),
    "eio": ("disk reports a fault", "disk is failing", "cannot be read", "had failed to deliver"),
}
HALFWAY = 4  # the version from which a second process goes on, with files of all kinds lying there


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the scenario over a faulty disk until it ends or is killed; the versions whose commit returned."""

    def runs(faulty: FaultyOs) -> list[int]:
        committed: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr(disk, "os", faulty)
            patch.setattr(files, "os", faulty)
            try:
                with Writer.open(faulty.root, "catalog") as writer:
                    scenario().run(writer, committed)
            except Killed:
                pass
        return committed

    return runs


def begin(root: Path, life: int) -> list[int]:
    """What a first process has left for the second; the versions committed."""
    committed: list[int] = []
    if life == 2:
        with Writer.open(root, "catalog") as writer:
            scenario().run(writer, committed, HALFWAY)
    return committed


@pytest.fixture
def calls(run: Run, tmp_path: Path) -> dict[int, int]:
    """How many calls of the scenario change the disk, in the first process alone and in the second of two."""
    made = {}
    for life in (1, 2):
        root = tmp_path / f"whole{life}"
        before = begin(root, life)
        whole = FaultyOs(root)
        assert [*before, *run(whole)] == list(scenario().steps)
        assert whole.log.count("fsync") > 15
        made[life] = whole.calls
    return made


def kill_at(run: Run, place: Path, life: int, at: int) -> None:
    chance = random.Random(at)
    before = begin(place / "disk", life)
    faulty = FaultyOs(place / "disk", at=at, chance=chance)
    committed = [*before, *run(faulty)]
    assert faulty.dead
    faulty.after_power_loss(place / "lost")
    check_survivor(place / "lost", committed)
    check_survivor(faulty.root, committed)  # killed, but the machine went on
    shutil.rmtree(place)


@pytest.mark.parametrize("life", [1, 2])
def test_killed_or_without_power_at_seeded_calls(run: Run, calls: dict[int, int], tmp_path: Path, life: int) -> None:
    for at in sorted(random.Random(1).sample(range(1, calls[life] + 1), 6)):
        kill_at(run, tmp_path / str(at), life, at)


@pytest.mark.slow
@pytest.mark.parametrize("life", [1, 2])
def test_killed_or_without_power_at_every_call(run: Run, calls: dict[int, int], tmp_path: Path, life: int) -> None:
    for at in range(1, calls[life] + 1):
        kill_at(run, tmp_path / str(at), life, at)


def fail_at(monkeypatch: pytest.MonkeyPatch, root: Path, mode: str, life: int, at: int) -> None:
    """A fault that the writer survives: reading goes on, and so does writing when the fault is over."""
    committed = begin(root, life)
    before = list(committed)
    faulty = FaultyOs(root, mode=mode, at=at)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "os", faulty)
        patch.setattr(files, "os", faulty)
        said = ""
        try:
            with Writer.open(root, "catalog") as writer:
                said = go_on_after_fault(writer, faulty, committed)
        except StoreError as fault:  # while opening
            said = str(fault)
            assert committed == before
    if said:
        assert any(words in said for words in SAID[mode]), said
    check_survivor(root, committed)
    shutil.rmtree(root)


def go_on_after_fault(writer: Writer, faulty: FaultyOs, committed: list[int]) -> str:
    """What was said of the fault, if it was not one that the writer could pass over."""
    read_on(faulty, committed)  # whatever opening met
    try:
        scenario().run(writer, committed)
    except StoreError as fault:
        read_on(faulty, committed)
        faulty.at = 0
        scenario().run(writer, committed)
        return str(fault)
    return ""


def read_on(faulty: FaultyOs, committed: list[int]) -> None:
    """A full disk does not keep a reader from reading; one call that fails is to be the writer's."""
    faulty.resting = faulty.mode == "eio"
    version, found = read_everything(faulty.root)
    faulty.resting = False
    assert version >= max(committed, default=0)
    assert found == scenario().states[version]


@pytest.mark.parametrize("life", [1, 2])
@pytest.mark.parametrize("mode", ["full", "eio"])
def test_full_or_failing_disk_at_seeded_calls(
    monkeypatch: pytest.MonkeyPatch, calls: dict[int, int], tmp_path: Path, mode: str, life: int
) -> None:
    for at in sorted(random.Random(2).sample(range(1, calls[life] + 1), 6)):
        fail_at(monkeypatch, tmp_path / str(at), mode, life, at)


@pytest.mark.slow
@pytest.mark.parametrize("life", [1, 2])
@pytest.mark.parametrize("mode", ["full", "eio"])
def test_full_or_failing_disk_at_every_call(
    monkeypatch: pytest.MonkeyPatch, calls: dict[int, int], tmp_path: Path, mode: str, life: int
) -> None:
    for at in range(1, calls[life] + 1):
        fail_at(monkeypatch, tmp_path / str(at), mode, life, at)


CHILD = "import sys; from tests.replica.test_faults import live; live(sys.argv[1])"


def live(root: str) -> None:
    """For the child that is killed: says each version whose commit has returned."""
    committed: list[int] = []

    class Said(list[int]):
        def append(self, version: int) -> None:
            print(version, flush=True)

    scenario()
    with Writer.open(root, "catalog") as writer:
        scenario().run(writer, Said(committed))


# Every kind of system call by which a store can be changed or looked at.
TRACED = (
    "openat", "read", "pread64", "write", "pwrite64", "lseek", "ftruncate", "fsync", "fdatasync", "mmap", "close",
    "flock", "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat",
    "newfstatat", "statx",
)  # fmt: skip
STEADY = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}  # the same calls at every run


def under_strace(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The scenario in a process of its own, until it ends or is killed."""
    command = ["strace", "-qq", *options, sys.executable, "-c", CHILD, str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=STEADY)


def store_calls(place: Path) -> list[tuple[str, int]]:
    """(name, how many of that name the process has made by then) of every system call that touches the store."""
    root, trace = place / "store", place / "trace"
    whole = under_strace(root, "-y", "-e", f"trace={','.join('?' + name for name in TRACED)}", "-o", str(trace))
    assert whole.returncode == 0, whole.stderr
    made: Counter[str] = Counter()
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        name = line.partition("(")[0]
        made[name] += 1
        if str(root) in line:
            found.append((name, made[name]))
    shutil.rmtree(root)
    return found


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_sigkill_at_system_calls_by_strace(tmp_path: Path) -> None:
    """Real kills of a real process at system calls that touch the store, in seeded order.

    60 runs; EDGED_KILLS for more, up to every call there is. Which come first is EDGED_FUZZ_SEED's.
    """
    runs = int(os.environ.get("EDGED_KILLS", "60"))
    calls = store_calls(tmp_path)
    assert {"fsync", "rename", "link", "unlink", "write", "openat"} <= {name for name, _ in calls}
    random.Random(FUZZ_SEED).shuffle(calls)
    killed = 0
    for number in range(runs):
        root = tmp_path / f"store{number % 10}"  # a path as long as the first
        call, when = calls[number % len(calls)]
        fault = f"inject={call}:signal=SIGKILL:when={when}"
        done = under_strace(root, "-e", f"trace={call}", "-e", fault, "-o", "/dev/null")
        killed += done.returncode == -signal.SIGKILL
        if (root / "catalog").is_dir():
            check_survivor(root, [int(line) for line in done.stdout.split()])
        shutil.rmtree(root, ignore_errors=True)
    print(f"{killed} of {runs} runs were killed; {len(calls)} system calls touch the store")
    assert killed >= 0.95 * runs


@pytest.mark.parametrize("first", ["status", "pin", "commit"])
def test_a_version_that_a_disk_failed_to_deliver_for_a_moment_is_not_written_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: str
) -> None:
    with Writer.open(tmp_path, "catalog") as writer:
        scenario().run(writer, [])
    newest, found = read_everything(tmp_path)
    real, failing = read_manifest, [True]

    def reading(root: Path) -> tuple[Manifest, DamageError | None]:
        if not failing:
            return real(root)
        failing.clear()
        fault = DamageError("read the manifest: Input/output error")
        fault.__cause__ = OSError(errno.EIO, os.strerror(errno.EIO))
        return decode_commit((root / "manifest.1").read_bytes(), "manifest.1"), fault

    monkeypatch.setattr(live_module, "read_manifest", reading)
    with Writer.open(tmp_path, "catalog") as writer:
        assert writer.live.manifest.version < newest
        match first:
            case "status":
                assert writer.status().version == newest
            case "pin":
                writer.pin(1)
                assert writer.status().pinned == 1
            case _:
                with writer.stage() as staging, pytest.raises(StoreError, match="can be read again"):
                    commit(staging, newest + 1)
        assert read_everything(tmp_path) == (newest, found)
        with writer.stage() as staging:
            commit(staging, newest + 1)
    assert read_everything(tmp_path)[0] == newest + 1


def test_a_manifest_is_read_anew_only_where_a_newer_one_comes_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Writer.open(tmp_path, "catalog") as writer:
        scenario().run(writer, [])
    newest, _ = read_manifest(tmp_path / "catalog")
    before = decode_commit((tmp_path / "catalog" / "manifest.1").read_bytes(), "manifest.1")
    fault = DamageError("read the manifest: Input/output error")
    fault.__cause__ = OSError(errno.EIO, os.strerror(errno.EIO))
    found: list[tuple[Manifest, DamageError | None]] = [(before, fault)]
    monkeypatch.setattr(live_module, "read_manifest", lambda root: found[-1])
    with Writer.open(tmp_path, "catalog") as writer:
        for read in ((before, None), (newest, fault)):
            found.append(read)
            assert not writer.live.reread()
            assert writer.live.manifest.version == before.version
        found.append((newest, None))
        assert writer.live.reread()
        assert writer.live.manifest.version == newest.version
        assert not writer.live.reread()  # there is nothing to mend any more


def test_a_version_that_fails_at_its_last_step_leaves_no_file_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """But the parts of its snapshot, which need not be fetched again."""
    publisher = Publisher({"core": made_up(60)})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        before = sorted(os.listdir(tmp_path / "catalog" / "packs"))

        link = disk.Disk.link

        def failing(self: disk.Disk, source: str, target: str) -> None:
            if target == disk.MANIFEST:
                raise StoreError("link: no space left on device")
            link(self, source, target)

        with monkeypatch.context() as patch:
            patch.setattr(disk.Disk, "link", failing)
            with pytest.raises(StoreError, match="no space"):
                publisher.snapshot_into(writer)
        assert sorted(os.listdir(tmp_path / "catalog" / "packs")) == before
