"""The blobs on a relay's disk: a file each, named by its SHA-256, within a quota; what was not wanted longest goes.

The names are the checksums and the directory is the index, so nothing can be damaged but single files. Each is read and
checked before it goes out for the first time in a run, and again each hour. Its time says when that was.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.feed.names import NAME
from edged.files import TEMPORARY, discard, explained, make_directory, open_new, read_bounded

BLOCK_BYTES = 4096  # what a file takes at least
CHECK_S = 3600.0  # between two checks of a file that is asked for
BLOB_NAME = re.compile(r"[0-9a-f]{64}", re.ASCII)
MODE = 0o600
NEVER = float("-inf")

Key = tuple[str, bytes]  # dataset, SHA-256


@dataclass(slots=True)
class CachedBlob:
    """size: of the file; checked_at: when its bytes were last found right, by a clock that never runs back."""

    size: int
    checked_at: float = NEVER


def taken(size: int) -> int:
    """Bytes that a file of `size` bytes takes on the disk."""
    return max(-(-size // BLOCK_BYTES), 1) * BLOCK_BYTES


class BlobCache:
    """directory: one folder a dataset; quota: bytes on the disk. Used from the server's thread; `write`, `read` and
    `scan` block, touch files alone, and may run in another.
    """

    def __init__(self, directory: Path, quota: int, monotonic: Callable[[], float]) -> None:
        self.directory, self.quota, self.monotonic = directory, quota, monotonic
        self.blobs: OrderedDict[Key, CachedBlob] = OrderedDict()  # the one asked for last is last
        self.used = self.evictions = 0

    def path(self, key: Key) -> Path:
        return self.folder(key[0]) / key[1].hex()

    def folder(self, dataset: str) -> Path:
        return self.directory / dataset / "blobs"

    @property
    def room(self) -> int:
        return self.quota - self.used

    # --- what is known to be there -----------------------------------------------------------------------------------

    def find(self, key: Key) -> CachedBlob | None:
        """A blob that somebody asks for."""
        found = self.blobs.get(key)
        if found is not None:
            self.blobs.move_to_end(key)
        return found

    def is_fresh(self, blob: CachedBlob) -> bool:
        """Whether a file may go out without being read before."""
        return self.monotonic() - blob.checked_at < CHECK_S

    def add(self, key: Key, size: int, checked_at: float) -> list[Path]:
        """Note a file that is there. Returns the files that have to go, which are no longer known."""
        self.forget(key)
        self.blobs[key] = CachedBlob(size, checked_at)
        self.used += taken(size)
        gone = []
        while self.used > self.quota:
            oldest = next(iter(self.blobs))
            gone.append(self.path(oldest))
            self.forget(oldest)
            self.evictions += 1
        return gone

    def forget(self, key: Key) -> None:
        found = self.blobs.pop(key, None)
        if found is not None:
            self.used -= taken(found.size)

    def of(self, dataset: str) -> list[bytes]:
        """The SHA-256 of all that is there of a dataset."""
        return [sha256 for name, sha256 in self.blobs if name == dataset]

    def drop(self, dataset: str, gone: Iterable[bytes]) -> list[Path]:
        """Forget some of a dataset's blobs. Returns the files that were there of them, which have to go."""
        keys = [key for sha256 in gone if (key := (dataset, sha256)) in self.blobs]
        for key in keys:
            self.forget(key)
        return [self.path(key) for key in keys]

    # --- the files ---------------------------------------------------------------------------------------------------

    def write(self, key: Key, data: bytes) -> None:
        """Put a blob there, whole or not at all. Not synced: what a power cut leaves of it fails its check and is
        fetched again. Raises StoreError.
        """
        path = self.path(key)
        temporary = path.with_name(f"{TEMPORARY}{path.name}")
        for folder in (path.parent.parent, path.parent):
            make_directory(folder, 0o700)
        try:
            with explained("write", path), open(open_new(temporary, MODE), "wb") as file:
                file.write(data)
            with explained("write", path):
                os.replace(temporary, path)
        except BaseException:
            discard([temporary])
            raise

    def read(self, key: Key, size: int) -> bytes:
        """A blob's bytes, checked; from now on the file's time says that. Raises StoreError, HashError."""
        path = self.path(key)
        data = BlobRef(key[1], size).check(read_bounded(path, limits.BLOB_BYTES), "blob that a relay holds")
        with explained("touch", path):
            os.utime(path)
        return data

    def scan(self) -> list[tuple[Key, int]]:
        """The blobs that lie there and their sizes, the one wanted longest ago first; what is no blob is removed.

        Raises StoreError.
        """
        found = sorted(self.files())
        return [(key, size) for _, key, size in found]

    def files(self) -> Iterator[tuple[int, Key, int]]:
        with explained("list", self.directory):
            datasets = sorted(os.listdir(self.directory)) if self.directory.is_dir() else []
        for dataset in datasets:
            folder = self.folder(dataset)
            if not NAME.fullmatch(dataset) or not folder.is_dir():
                continue
            with explained("list", folder), os.scandir(folder) as entries:
                for entry in entries:
                    if not BLOB_NAME.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                        discard([entry.path])
                        continue
                    about = entry.stat(follow_symlinks=False)
                    yield about.st_mtime_ns, (dataset, bytes.fromhex(entry.name)), about.st_size
