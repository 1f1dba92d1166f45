"""Waiting until files change: woken at once where the kernel tells, in time where it does not."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from edged.inotify import DirectoryWatch
from edged.replica.files.disk import VersionCounter
from edged.serve.news import News
from tests.serve.memory import film, make_dataset

LOOK_S, MOST_S = 0.25, 7.0


def rename(directory: Path) -> None:
    (directory / "other").write_bytes(b"")  # whoever looks now finds nothing new
    (directory / "other").rename(directory / "head")


def rewrite(directory: Path) -> None:
    (directory / "held").write_bytes(b"new")


def remove(directory: Path) -> None:
    (directory / "held").unlink()


def bump(directory: Path) -> None:
    VersionCounter(directory, write=True).bump()


async def waited(watch: DirectoryWatch) -> float:
    began = trio.current_time()
    await watch.wait()
    return trio.current_time() - began


@pytest.mark.parametrize("change", [rename, rewrite, remove, bump])
async def test_a_change_wakes_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, change: Callable[[Path], None]
) -> None:
    (tmp_path / "held").write_bytes(b"old")
    with DirectoryWatch(LOOK_S, MOST_S) as watch:
        watch.follow([str(tmp_path)])
        change(tmp_path)
        assert await waited(watch) == 0
        assert await waited(watch) == pytest.approx(MOST_S)  # and wakes once


async def test_what_does_not_change_a_file_wakes_nobody(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    (tmp_path / "held").write_bytes(b"old")
    below = tmp_path / "blobs"
    below.mkdir()
    with DirectoryWatch(LOOK_S, MOST_S) as watch:
        watch.follow([str(tmp_path)])
        assert (tmp_path / "held").read_bytes() == b"old"
        (below / "blob").write_bytes(b"what a publish writes before its head")
        assert await waited(watch) == pytest.approx(MOST_S)


async def test_nothing_is_followed_once_it_is_let_go(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    with DirectoryWatch(LOOK_S, MOST_S) as watch:
        watch.follow([str(tmp_path)])
        watch.follow(())
        rename(tmp_path)
        assert await waited(watch) <= MOST_S  # the kernel tells that it no longer watches, which may wake once
        rename(tmp_path)
        assert await waited(watch) == pytest.approx(MOST_S)


@pytest.mark.parametrize("away", [shutil.rmtree, lambda path: path.rename(path.with_name("former"))])
async def test_a_directory_that_is_made_anew_is_followed_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, away: Callable[[Path], None]
) -> None:
    directory = tmp_path / "catalog"
    directory.mkdir()
    with DirectoryWatch(LOOK_S, MOST_S) as watch:
        watch.follow([str(directory)])
        away(directory)
        await watch.wait()
        watch.follow([str(directory)])
        if await waited(watch) == 0:  # that it is no longer watched may be told as well
            assert await waited(watch) == pytest.approx(LOOK_S)  # not there: looked for
        directory.mkdir()
        watch.follow([str(directory)])
        rename(directory)
        assert await waited(watch) == 0


def failing(code: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        ctypes.set_errno(code)
        return -1

    return fail


class Libc:
    """A C library whose calls fail where they are given."""

    def __init__(self, real: ctypes.CDLL, failing: dict[str, Callable[..., int]]) -> None:
        self.real, self.failing = real, failing

    def __getattr__(self, name: str) -> Any:
        return self.failing.get(name) or getattr(self.real, name)


@pytest.mark.parametrize(
    "calls",
    [
        {"inotify_init1": failing(errno.ENOSYS)},
        {"inotify_init1": failing(errno.EMFILE)},
        {"inotify_add_watch": failing(errno.ENOSPC)},
        {"inotify_add_watch": failing(errno.EACCES)},
    ],
)
async def test_where_the_kernel_does_not_tell_files_are_looked_at(
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    calls: dict[str, Callable[..., int]],
) -> None:
    libc = Libc(ctypes.CDLL(None, use_errno=True), calls)
    monkeypatch.setattr("edged.inotify.ctypes.CDLL", lambda *_, **__: libc)
    before = len(os.listdir("/proc/self/fd"))
    with DirectoryWatch(LOOK_S, MOST_S) as watch:
        watch.follow([str(tmp_path)])
        rename(tmp_path)
        assert await waited(watch) == pytest.approx(LOOK_S)
        watch.follow([])
        assert await waited(watch) == pytest.approx(MOST_S)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_who_waits_for_a_dataset_is_told_of_another_processs_commit_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """As a further serving process, of which no writer is in the same process."""
    directory = tmp_path / "catalog"
    directory.mkdir()
    dataset = make_dataset(3)
    news = News({"catalog": dataset}, data_dir=str(tmp_path))
    writer = VersionCounter(directory, write=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(news.run)
        nursery.start_soon(news.wait, news.generation)
        await trio.testing.wait_all_tasks_blocked(0.01)
        began = trio.current_time()
        generation = news.generation
        dataset.publish("titles", {"1": film(7)})
        writer.bump()
        await news.wait(generation)
        assert trio.current_time() - began < 0.01
        nursery.cancel_scope.cancel()


async def test_a_counter_that_cannot_be_opened_moves_all_the_same(tmp_path: Path) -> None:
    counter = VersionCounter(tmp_path, write=True)
    reader = VersionCounter(tmp_path)
    (tmp_path / "counter").unlink()
    counter.bump()
    assert reader.cell[0] == 1
