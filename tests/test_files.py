"""Durable writes, bounded reads, stamps and locks: each step fails once, each bound is tried on both sides."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from edged import files
from edged.errors import BusyError, StoreError, WireError

STEPS = ("open", "fchmod", "write", "fsync", "replace")


class FailingOs:
    """Stands in for `os`: the call named fails once."""

    def __init__(self, call: str, number: int) -> None:
        self.call, self.number, self.struck = call, number, False

    def __getattr__(self, name: str) -> Any:
        if name != self.call or self.struck:
            return getattr(os, name)

        def fail(*arguments: Any, **options: Any) -> Any:
            self.struck = True
            raise OSError(self.number, os.strerror(self.number))

        return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    path = tmp_path / "head"
    files.write_durable(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", FailingOs(step, number))
        with pytest.raises(StoreError, match=f"^write {path}: {os.strerror(number)}; {files.ADVICE[number][:9]}"):
            files.write_durable(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["head"]
    files.write_durable(path, b"new")
    assert path.read_bytes() == b"new"


def test_the_directory_is_synced_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Noting:
        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            return getattr(os, name)

    monkeypatch.setattr(files, "os", Noting())
    files.write_durable(tmp_path / "head", b"new")
    order = [name for name in calls if name in {"write", "fsync", "replace", "close"}]
    assert order == ["write", "fsync", "close", "replace", "fsync", "close"]


def test_pieces_that_cannot_be_had_leave_nothing(tmp_path: Path) -> None:
    def pieces() -> Any:
        yield b"first"
        raise WireError("the second is damaged")

    with pytest.raises(WireError):
        files.prepare(tmp_path / "bundle", pieces())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_what_was_asked_for_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        files.write_durable(tmp_path / "exact", b"", mode)
        files.swap(files.prepare(tmp_path / "masked", (b"",), None), tmp_path / "masked")
        files.make_directory(tmp_path / "open", 0o755)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "exact").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "masked").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o755


def test_what_a_killed_process_left_is_replaced_and_a_link_is_not_followed(tmp_path: Path) -> None:
    path, victim = tmp_path / "head", tmp_path / "victim"
    victim.write_bytes(b"precious")
    left = tmp_path / f"{files.TEMPORARY}{os.getpid()}-head"
    left.symlink_to(victim)
    files.write_durable(path, b"new")
    assert (path.read_bytes(), victim.read_bytes(), left.is_symlink()) == (b"new", b"precious", False)


def test_a_read_takes_exactly_its_bound_and_no_byte_more(tmp_path: Path) -> None:
    path = tmp_path / "root"
    path.write_bytes(b"12345")
    assert files.read_bounded(path, 5) == b"12345"
    with pytest.raises(StoreError, match="over 4 bytes; this is not a file that edged wrote"):
        files.read_bounded(path, 4)


def test_pipes_links_and_directories_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"x")
    for name, words in (("pipe", "not a regular file"), ("link", "symbolic link"), (".", "directory|regular")):
        with pytest.raises(StoreError, match=words):
            files.read_bounded(tmp_path / name, 10)
    assert files.read_regular(tmp_path / "link", 10, follow=True) == b"x"


def test_a_stamp_tells_a_file_that_was_replaced_by_one_of_the_same_size(tmp_path: Path) -> None:
    path = tmp_path / "head"
    assert files.stamp_of(path) is None
    assert files.stamp_of(path / "below") is None
    files.write_durable(path, b"one")
    first = files.stamp_of(path)
    assert first is not None
    assert files.stamp_of(path) == first
    files.write_durable(path, b"two")
    os.utime(path, ns=(first.changed_ns, first.changed_ns))
    assert files.stamp_of(path) != first


def test_a_directory_is_made_once_and_nothing_else_is_taken_for_it(tmp_path: Path) -> None:
    files.make_directory(tmp_path / "state", 0o700)
    files.make_directory(tmp_path / "state", 0o700)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "state")
    for name in ("file", "link"):
        with pytest.raises(StoreError, match="something else is there"):
            files.make_directory(tmp_path / name)


def test_a_lock_is_held_by_one_or_shared_by_many(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.locked(path, "busy", shared=True), files.locked(path, "busy", shared=True):
        with pytest.raises(BusyError, match="busy"):
            files.lock(path, "busy")
        with pytest.raises(BusyError):
            files.lock(path, "busy", wait_s=0.06)
    handle = files.lock(path, "busy")
    with pytest.raises(BusyError), files.locked(path, "busy", shared=True):
        pass
    os.close(handle)
    with files.locked(path, "busy"):
        pass
