"""Files that outlive a power loss, locks that end with their process, and how to tell that a file was replaced.

A durable write is: a temporary beside the target, write, fsync, rename, fsync of the directory. Readers of a replica
load this module, so it takes paths without loading pathlib.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from edged.errors import BusyError, StoreError

if TYPE_CHECKING:
    from pathlib import Path  # not loaded by readers: it takes a megabyte

StrPath = str | os.PathLike[str]

TEMPORARY = ".tmp-"  # how the name of a file that is not whole yet begins
NO_FOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC
LOCK_POLL_S = 0.05
ADVICE = {
    errno.ENOSPC: "the disk is full; what is there stays readable; free space (a running daemon then goes on)",
    errno.EDQUOT: "the quota is used up; what is there stays readable; raise it (a running daemon then goes on)",
    errno.EROFS: "the file system is read-only; what is there stays readable; remount it for writing",
    errno.EACCES: "give this user the right to do so",
    errno.EPERM: "the file system must allow hard links and this user must own the files",
    errno.EIO: "the disk reports a fault; what is there stays readable as far as it can be read",
    errno.ELOOP: "a symbolic link is not followed here; put the file itself there",
    errno.EFBIG: "this is not a file that edged wrote",
    errno.EMFILE: "this process has too many files open; raise LimitNOFILE",
    errno.ENFILE: "the system has too many files open",
}


class FileStamp(NamedTuple):
    """What differs once a file has been replaced or rewritten."""

    inode: int
    changed_ns: int
    size: int

    def __str__(self) -> str:
        return f"{self.inode:x}-{self.changed_ns:x}-{self.size:x}"


def stamp_of(path: StrPath, *, follow: bool = True) -> FileStamp | None:
    """The stamp of a file, None where there is none. Raises OSError where that cannot be told."""
    try:
        found = os.stat(path, follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FileStamp(found.st_ino, found.st_mtime_ns, found.st_size)


def told(what: str, path: StrPath, fault: OSError) -> str:
    """One line on a fault: what was done to which file, why it failed, and what helps."""
    advice = ADVICE.get(fault.errno or 0)
    return f"{what} {path}: {fault.strerror or fault}" + (f"; {advice}" if advice else "")


@contextlib.contextmanager
def explained(what: str, path: StrPath) -> Iterator[None]:
    """Turn OSError into StoreError that says what was done to which file and what helps."""
    try:
        yield
    except OSError as fault:
        raise StoreError(told(what, path, fault)) from fault


def read_regular(path: StrPath, most: int, *, follow: bool = False) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises OSError, EFBIG for a larger one and EINVAL for what is not a regular file; a pipe does not hold it up.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW))
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"over {most} bytes", os.fspath(path))
    return data


def read_bounded(path: StrPath, most: int) -> bytes:
    """As `read_regular`. Raises StoreError if the file is missing, a symbolic link, or over `most` bytes."""
    with explained("read", path):
        return read_regular(path, most)


def sync_directory(path: StrPath) -> None:
    """Make the names in a directory durable. Raises StoreError."""
    with explained("sync the directory", path):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Create `path` with exactly `mode` if it is not there, durably. Raises StoreError."""
    with explained("create directory", path):
        try:
            path.mkdir(mode=mode)
        except FileExistsError:
            if path.is_symlink() or not path.is_dir():
                raise StoreError(f"create directory {path}: something else is there; move it away") from None
            return
        path.chmod(mode)  # whatever the umask says
    sync_directory(path.parent)


def open_new(path: StrPath, mode: int) -> int:
    """A new file to write to, in place of what a process that was killed left under this name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, mode)


def prepare(path: Path, pieces: Iterable[bytes], mode: int | None = 0o644) -> Path:
    """Write `pieces` into a temporary beside `path` and fsync it; `swap` puts it in place.

    mode: None for 0644 less what the umask takes away. Raises StoreError, and whatever `pieces` raises; the temporary
    is then gone.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with explained("write", path):
            handle = open_new(temporary, 0o644 if mode is None else mode)
            try:
                if mode is not None:
                    os.fchmod(handle, mode)
                for piece in pieces:
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[os.write(handle, rest) :]
                os.fsync(handle)
            finally:
                os.close(handle)
    except Exception:
        discard([temporary])
        raise
    return temporary


def swap(temporary: Path, path: Path) -> None:
    """Rename a prepared file into place. Raises StoreError; then the old file is still there."""
    try:
        with explained("write", path):
            os.replace(temporary, path)
    except StoreError:
        discard([temporary])
        raise


def replace_link(source: Path, target: Path) -> None:
    """Make `target` another name of `source`, replacing what had that name. Raises StoreError."""
    temporary = target.with_name(f"{TEMPORARY}{os.getpid()}-{target.name}")
    with explained("link", target):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.link(source, temporary)
        os.replace(temporary, target)
        # Two names of one inode: rename() then does nothing and leaves the temporary (POSIX).
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def write_durable(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace or create `path` so that after a crash it holds the old bytes or the new. Raises StoreError."""
    swap(prepare(path, (data,), mode), path)
    sync_directory(path.parent)


def discard(paths: Iterable[StrPath]) -> None:
    """Delete files that nothing names; one that cannot be deleted is left for the next sweep."""
    for path in paths:
        with contextlib.suppress(OSError):  # only space is lost
            os.unlink(path)


def lock(path: StrPath, busy: str, *, shared: bool = False, wait_s: float = 0.0) -> int:
    """Take the lock file `path` (flock); it ends when the returned handle is closed, or with the process.

    busy: the message where another process still holds it after `wait_s`. Raises BusyError, StoreError.
    """
    with explained("open the lock", path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW, 0o600)
    deadline = time.monotonic() + wait_s
    try:
        with explained("lock", path):
            while True:
                try:
                    fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                    return handle
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise BusyError(busy) from None
                    time.sleep(LOCK_POLL_S)
    except BaseException:
        os.close(handle)
        raise


def is_locked(path: StrPath) -> bool:
    """Whether some process holds the lock file `path` now."""
    try:
        os.close(lock(path, "held"))
    except BusyError:
        return True
    return False


@contextlib.contextmanager
def locked(path: StrPath, busy: str, *, shared: bool = False, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` within the block; see `lock`."""
    handle = lock(path, busy, shared=shared, wait_s=wait_s)
    try:
        yield
    finally:
        os.close(handle)
