"""Every step of the store's I/O fails once: it costs one request at most, and what was stored is served again after."""

from __future__ import annotations

import builtins
import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import diskcache
import pytest
import trio
import trio.testing

from edged.proxy.store.memory import BITS
from tests.conftest import FUZZ_SEED
from tests.proxy.driving import Asked, Reply, Says, call, running

pytestmark = pytest.mark.trio

SMALL, LARGE = b"s" * 100, bytes(range(256)) * 5200  # inside the database; a file that is spooled, not for memory
NAMES = ("open", "read", "pread", "stat", "link", "rename", "remove", "unlink", "makedirs", "mkdir", "scandir")


class Faults:
    """Counts the calls below a directory, and has one of them fail. at: which, from 1 on; 0 for none; lasting: and all
    that come after it."""

    def __init__(self, root: Path, at: int = 0, code: int = errno.EIO, *, lasting: bool = False) -> None:
        self.root, self.at, self.code, self.lasting = str(root), at, code, lasting
        self.log: list[str] = []
        self.struck = 0
        self.resting = False

    def step(self, name: str) -> None:
        if self.resting:
            return
        self.log.append(name)
        if self.at and (len(self.log) == self.at or (self.lasting and len(self.log) > self.at)):
            self.struck += 1
            if name.startswith("sql"):
                raise sqlite_error(self.code)
            raise OSError(self.code, os.strerror(self.code), name)

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call_through(*arguments: Any, **options: Any) -> Any:
            if name == "pread" or any(str(value).startswith(self.root) for value in arguments[:2]):
                self.step(name)
            return real(*arguments, **options)

        return call_through

    @contextmanager
    def installed(self) -> Iterator[None]:
        """In the place of what the store calls: the system's functions, files, and the database's connection."""
        with pytest.MonkeyPatch.context() as patch:
            for name in NAMES:
                patch.setattr(os, name, self.wrapped(name, getattr(os, name)))
            opened, path_open = builtins.open, Path.open
            patch.setattr(builtins, "open", self.opening("open file", opened))
            patch.setattr(Path, "open", self.opening("open path", path_open))
            execute = diskcache.Cache._con.fget

            def connection(cache: diskcache.Cache) -> Any:
                return Connection(execute(cache), self)

            patch.setattr(diskcache.Cache, "_con", property(connection))
            connect = sqlite3.connect

            def connecting(*arguments: Any, **options: Any) -> Any:
                self.step("sqlite connect")
                return connect(*arguments, **options)

            patch.setattr(sqlite3, "connect", connecting)
            yield

    def opening(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def open_through(*arguments: Any, **options: Any) -> Any:
            if not str(arguments[0]).startswith(self.root):
                return real(*arguments, **options)
            self.step(name)
            return File(real(*arguments, **options), self)

        return open_through


class File:
    """A file each of whose steps may fail. A close that fails has closed."""

    def __init__(self, real: Any, faults: Faults) -> None:
        self.real, self.faults = real, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self.real.close()

    def read(self, *arguments: Any) -> Any:
        self.faults.step("read")
        return self.real.read(*arguments)

    def write(self, data: Any) -> Any:
        self.faults.step("write")
        return self.real.write(data)

    def close(self) -> None:
        self.real.close()
        self.faults.step("close")


class Connection:
    """A database each of whose statements may fail."""

    def __init__(self, real: sqlite3.Connection, faults: Faults) -> None:
        self.real, self.faults = real, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def execute(self, statement: str, *arguments: Any) -> Any:
        self.faults.step(f"sql {statement.split(maxsplit=1)[0]}")
        return self.real.execute(statement, *arguments)


CODES = {errno.ENOSPC: sqlite3.SQLITE_FULL, errno.EROFS: sqlite3.SQLITE_READONLY, errno.EMFILE: sqlite3.SQLITE_CANTOPEN}


def sqlite_error(code: int) -> sqlite3.OperationalError:
    fault = sqlite3.OperationalError(f"made up: {os.strerror(code)}")
    fault.sqlite_errorcode = CODES.get(code, sqlite3.SQLITE_IOERR)
    fault.sqlite_errorname = "made up"
    return fault


def says(asked: Asked) -> Says:
    body = LARGE if "large" in asked.target else SMALL
    tag = f'"{len(asked.target)}"'
    if asked.fields.get("if-none-match") == tag:
        return Says(status=304, fields=(("ETag", tag), ("Cache-Control", "max-age=90"), ("Date", DATE)))
    return Says(
        fields=(("ETag", tag), ("Cache-Control", "max-age=90"), ("Vary", "Accept"), ("Date", DATE)),
        pieces=(asked.target.encode(), body),
    )


DATE = "Fri, 15 Jan 2027 08:00:00 GMT"
PATHS = ("/small", "/large")


def whole(path: str) -> bytes:
    return path.encode() + (LARGE if "large" in path else SMALL)


def is_right(reply: Reply, path: str) -> bool:
    """A request gets its answer, or an error, or an end in the midst; never another body."""
    if reply.status == 200:
        return reply.body == whole(path) if reply.whole else whole(path).startswith(reply.body)
    return reply.status in (502, 503, 504)


async def live(root: Path, faults: Faults | None = None) -> int:
    """One life of a proxy: miss, hit from memory and from the disk, range, revalidation, invalidation, a purge by
    another process, other variants. Returns how many requests went wrong."""
    wrong = 0
    async with running(says, directory=root) as (app, _):

        async def ask(path: str, *fields: tuple[str, str], method: str = "GET") -> None:
            nonlocal wrong
            with trio.fail_after(10):
                reply = await call(app, path, fields, method=method)
            if method == "GET" and not fields:
                assert is_right(reply, path), (path, reply.status, len(reply.body))
            wrong += not reply.whole or reply.status >= 500

        for path in PATHS:
            await ask(path)
            await ask(path, ("Range", "bytes=3-9"))
            app.gateway.cache.memory.clear()
            await ask(path)
            await ask(path, ("Cache-Control", "no-cache"))
            await ask(path, ("Accept", "other"))
        await ask("/small", method="POST")
        await ask("/small")
        app.gateway.cache.presence.added = BITS  # to be made anew
        other_process_purges(root)
        await app.gateway.cache.tend()
        for path in PATHS:
            await ask(path)
        if faults is not None:
            faults.resting = True
        app.gateway.cache.memory.clear()
        for path in PATHS:  # after the fault all is well again
            with trio.fail_after(10):
                reply = await call(app, path)
            assert (reply.status, reply.body, reply.whole) == (200, whole(path), True)
        if faults is not None:
            faults.resting = False
    return wrong


def other_process_purges(
    root: Path, touch: Callable[..., int] = os.open, close: Callable[[int], None] = os.close
) -> None:
    """Another process's calls are not ours: they do not fail here, being those of before any was made to."""
    with suppress(FileNotFoundError):  # there is no store
        descriptor = touch(root / "purged", os.O_WRONLY | os.O_CREAT, 0o600)
        os.utime(descriptor)
        close(descriptor)


async def steps_of(root: Path, lives: int) -> list[str]:
    for _ in range(lives - 1):
        await live(root)
    faults = Faults(root)
    with faults.installed():
        assert await live(root, faults) == 0
    return faults.log


async def fail_at(root: Path, at: int, code: int, *, lives: int, lasting: bool) -> bool:
    """Returns whether there was such a step: what runs beside the requests takes a few more or fewer each time."""
    for _ in range(lives - 1):
        await live(root)
    faults = Faults(root, at, code, lasting=lasting)
    with faults.installed():
        wrong = await live(root, faults)
    if not lasting:
        assert wrong <= 1, faults.log[at - 1]
    await live(root)
    shutil.rmtree(root)
    return faults.struck > 0


@pytest.mark.parametrize("lives", [1, 2])
async def test_the_steps_that_fail_are_of_every_kind(tmp_path: Path, lives: int) -> None:
    log = await steps_of(tmp_path / "store", lives)
    kinds = {"open file", "open path", "read", "write", "close", "stat", "scandir", "sqlite connect", "sql BEGIN"}
    kinds |= {"sql SELECT", "sql COMMIT", "sql PRAGMA", "remove", "open", "pread"}
    assert not kinds - set(log), kinds - set(log)
    assert len(log) > 300


KINDS = (errno.EIO, errno.EMFILE, errno.ENOSPC, errno.EROFS)


@pytest.mark.parametrize("lasting", [False, True])
async def test_one_step_in_a_few_fails(tmp_path: Path, lasting: bool) -> None:
    count = len(await steps_of(tmp_path / "whole", 1))
    stride = 97 if lasting else 41
    for number, at in enumerate(range(1, count + 1, stride)):
        struck = await fail_at(tmp_path / str(at), at, KINDS[number % len(KINDS)], lives=1, lasting=lasting)
        assert struck or at > count * 0.7


# Of all steps each run takes a share, another one by each seed, until every step has failed in every way;
# EDGED_EVERY_STEP=1 takes every step at once.
STRIDE = 1 if os.environ.get("EDGED_EVERY_STEP") else 3
PARTS = 4  # for two processes to share


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("lives", [1, 2])
@pytest.mark.parametrize("lasting", [False, True])
async def test_every_step_fails(tmp_path: Path, lives: int, lasting: bool, part: int) -> None:
    count = len(await steps_of(tmp_path / "whole", lives))
    stride = STRIDE * (5 if lasting else 1)
    for number, at in enumerate(range(1 + FUZZ_SEED % stride, count + 1, stride)):
        if number % PARTS == part:
            code = KINDS[(number + FUZZ_SEED // stride) % len(KINDS)]
            with said(f"EDGED_FUZZ_SEED={FUZZ_SEED}: step {at}, {errno.errorcode[code]}"):
                await fail_at(tmp_path / str(at), at, code, lives=lives, lasting=lasting)


@contextmanager
def said(what: str) -> Iterator[None]:
    """Have a failure say how it comes about again."""
    try:
        yield
    except BaseException as fault:
        fault.add_note(what)
        raise
