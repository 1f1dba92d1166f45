"""The files of one replica, and all that changes them.

Everything that changes the disk goes through `Disk`, which counts what it writes in whole pages, as flash does.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edged.errors import DamageError, StoreError
from edged.feed.names import NAME
from edged.files import StrPath, lock, prepare, read_regular, replace_link, swap, sync_directory, told

if TYPE_CHECKING:
    from pathlib import Path  # not loaded by readers: it takes a megabyte

PAGE_BYTES = 4096
MANIFEST, PREVIOUS, LOCK, COUNTER, ROOTS, TOUCHED = "manifest", "manifest.1", "lock", "counter", "roots", "head"
ROOTS_BYTES = 16 << 20  # all roots of trust since the trust file, see feed/roots.py
PACKS, STAGING, AHEAD = "packs", "staging", "ahead"  # the last: sealed blobs of versions that are not live yet
COUNTER_BYTES = 8
DEFAULT_DATA_DIR = "/var/lib/edged"  # as config.DaemonConfig has it, which readers do not load


def pages(size: int) -> int:
    """Bytes that `size` bytes take as whole pages."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES


@contextlib.contextmanager
def explained(what: str, path: StrPath) -> Iterator[None]:
    """As files.explained, with DamageError where a file that is there cannot be read or is not one that edged wrote:
    it has to be fetched again like one with wrong bytes.
    """
    try:
        yield
    except OSError as fault:
        kind = DamageError if what == "read" and fault.errno in (errno.EIO, errno.EFBIG) else StoreError
        raise kind(told(what, path, fault)) from fault


def checksum(data: bytes) -> int:
    """The CRC-32 that FileRef keeps."""
    return zlib.crc32(data)


class Disk:
    """Writes below one dataset's directory. `written`: bytes since this object was made, as whole pages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.written = 0

    def prepare(self) -> None:
        """Make the directories. Raises StoreError."""
        with explained("make the directory", self.root):
            for path in (self.root, *(self.root / name for name in (PACKS, STAGING, AHEAD))):
                if not path.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    sync_directory(path.parent)

    def sync(self, directory: Path) -> None:
        """Make names in `directory` durable."""
        sync_directory(directory)

    def write(self, name: str, data: bytes) -> None:
        """Put `data` under `name` durably, whole or not at all; the name becomes durable with `sync`."""
        path = self.root / name
        swap(prepare(path, (data,), None), path)  # who may read them is for the service's umask to say
        self.written += pages(len(data))

    def link(self, source: str, target: str) -> None:
        """Make `target` another name of `source`, replacing what had that name."""
        replace_link(self.root / source, self.root / target)

    def remove(self, name: str) -> None:
        """Remove a file that nothing refers to any more; it may be gone already."""
        with explained("remove", self.root / name), contextlib.suppress(FileNotFoundError):
            os.unlink(self.root / name)

    def names(self, directory: str) -> set[str]:
        with explained("list", self.root / directory):
            try:
                return set(os.listdir(self.root / directory))
            except FileNotFoundError:
                return set()

    def read(self, name: str, most: int) -> bytes | None:
        """A small file's content, None where it is missing. Raises DamageError if it is larger than `most`."""
        with explained("read", self.root / name):
            try:
                return read_regular(self.root / name, most)
            except FileNotFoundError:
                return None

    def intact(self, name: str, most: int) -> bytes | None:
        """What `read` gives, None also where that finds damage."""
        try:
            return self.read(name, most)
        except DamageError:
            return None


def map_file(path: StrPath) -> mmap.mmap:
    """The file mapped for reading. Raises DamageError where it is missing or empty, StoreError for other faults."""
    with explained("read", path):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as fault:
            raise DamageError(
                f"open {path}: missing; fetch its slice again (edged does so at the next sync)"
            ) from fault
        try:
            if not os.fstat(handle).st_size:
                raise DamageError(f"open {path}: empty; fetch its slice again (edged does so at the next sync)")
            return mmap.mmap(handle, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(handle)


def take_lock(root: Path) -> int:
    """Take the writer's lock; it ends with the returned handle or the process. Raises BusyError."""
    busy = f"open {root} for writing: another process writes there (a running `edged run`?); stop it or wait"
    return lock(root / LOCK, busy)


class VersionCounter:
    """The number that all processes watch: it moves when there may be a new manifest. Never written to say what.

    Writing shared memory tells nobody; so that who waits is told, the file is opened for writing, and closed.
    """

    def __init__(self, root: StrPath, *, write: bool = False) -> None:
        """Raises FileNotFoundError for readers where no writer has made it yet."""
        self.path = path = os.path.join(root, COUNTER)
        with explained("open", path) if write else contextlib.nullcontext():
            handle = os.open(path, (os.O_RDWR | os.O_CREAT if write else os.O_RDONLY) | os.O_CLOEXEC, 0o644)
            try:
                if os.fstat(handle).st_size < COUNTER_BYTES:
                    if not write:
                        raise FileNotFoundError(path)
                    # Written, not truncated to size: a hole would turn a full disk into SIGBUS at the first bump.
                    os.pwrite(handle, bytes(COUNTER_BYTES), 0)
                    os.fsync(handle)
                protection = mmap.PROT_READ | (mmap.PROT_WRITE if write else 0)
                inode = os.fstat(handle).st_ino
                self.memory = mmap.mmap(handle, COUNTER_BYTES, mmap.MAP_SHARED, protection)
            finally:
                os.close(handle)
        self.cell: memoryview[int] = memoryview(self.memory).cast("Q")
        self.inode = inode

    def bump(self) -> None:
        self.cell[0] = (self.cell[0] + 1) & (1 << 64) - 1
        with contextlib.suppress(OSError):  # then they see it at their next look
            os.close(os.open(self.path, os.O_WRONLY | os.O_CLOEXEC))


def holds_version(root: StrPath) -> bool:
    """Whether there is a manifest in a dataset's directory."""
    return any(os.path.exists(os.path.join(root, name)) for name in (MANIFEST, PREVIOUS))


def directories(data_dir: StrPath) -> list[str]:
    """The names below `data_dir` that could be datasets, in order. Raises StoreError."""
    try:
        with explained("list", data_dir):
            return sorted(item.name for item in os.scandir(data_dir) if NAME.fullmatch(item.name) and item.is_dir())
    except StoreError as fault:
        if isinstance(fault.__cause__, FileNotFoundError | NotADirectoryError):
            raise StoreError(
                f"open {data_dir}: there is no such directory; edged keeps replicas in {DEFAULT_DATA_DIR}, or where "
                "`data_dir` in its configuration says"
            ) from fault
        raise


def datasets(data_dir: StrPath) -> list[str]:
    """The names of the replicas below `data_dir`, in order. Raises StoreError."""
    return [name for name in directories(data_dir) if holds_version(os.path.join(data_dir, name))]


def unsynced(data_dir: StrPath) -> list[str]:
    """The names of what a writer has made below `data_dir` that has no manifest, in order. Raises StoreError."""
    names = [name for name in directories(data_dir) if os.path.isdir(os.path.join(data_dir, name, PACKS))]
    return [name for name in names if not holds_version(os.path.join(data_dir, name))]
