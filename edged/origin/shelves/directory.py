"""Public files in a directory, which any static host can carry: written durably, the head swapped by rename."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from edged.errors import StoreError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.files import (
    TEMPORARY,
    discard,
    explained,
    make_directory,
    prepare,
    read_bounded,
    swap,
    sync_directory,
    write_durable,
)


class DirectoryShelf:
    """One dataset below `base`."""

    is_final = True

    def __init__(self, base: Path) -> None:
        self.base, self.blobs, self.where = base, base / "blobs", str(base)
        self.staged: Path | None = None

    def make(self) -> None:
        for directory in (self.base.parent, self.base, self.blobs):
            make_directory(directory)

    @property
    def head_path(self) -> Path:
        return self.base / "head"

    def head(self) -> bytes | None:
        return read_bounded(self.head_path, limits.HEAD_BYTES) if os.path.lexists(self.head_path) else None

    def stage_head(self, data: bytes) -> None:
        self.staged = prepare(self.head_path, (data,))

    def swap_head(self) -> None:
        assert self.staged is not None, "a head is staged before it is swapped in"
        swap(self.staged, self.head_path)
        self.staged = None

    def unstage_head(self) -> None:
        if self.staged is not None:
            discard([self.staged])
            self.staged = None

    def settle_head(self) -> None:
        sync_directory(self.base)

    def root(self, number: int) -> bytes | None:
        path = self.base / "trust" / str(number)
        return read_bounded(path, limits.TRUST_BYTES) if path.is_file() else None

    def put_root(self, number: int, data: bytes) -> None:
        make_directory(self.base / "trust")
        write_durable(self.base / "trust" / str(number), data)

    def holds(self, ref: BlobRef) -> bool:
        path = self.blobs / ref.name
        try:
            return not path.is_symlink() and path.stat().st_size == ref.size and BlobRef.of(path.read_bytes()) == ref
        except OSError:
            return False  # not there, or not readable: it is written

    def read(self, ref: BlobRef) -> bytes:
        return ref.check(read_bounded(self.blobs / ref.name, ref.size), "blob of the feed")

    def write(self, ref: BlobRef, data: bytes) -> None:
        path = self.blobs / ref.name
        swap(prepare(path, (data,)), path)

    def settle_blobs(self) -> None:
        sync_directory(self.blobs)

    def names(self) -> set[str]:
        try:
            return set(os.listdir(self.blobs))
        except OSError as fault:
            raise StoreError(f"list {self.blobs}: {fault.strerror}") from fault

    def delete(self, names: Iterable[str]) -> None:
        discard(self.blobs / name for name in names)

    def sweep(self, known: Collection[str], older_s: float) -> None:
        strays = []
        with explained("list", self.blobs), os.scandir(self.blobs) as entries:
            for entry in entries:
                stray = entry.name.startswith(TEMPORARY) or entry.name not in known
                if stray and entry.stat(follow_symlinks=False).st_mtime < time.time() - older_s:
                    strays.append(Path(entry.path))
        discard(strays)

    def remove_head(self) -> None:
        with explained("remove", self.head_path):
            self.head_path.unlink()
        sync_directory(self.base)

    def remove(self) -> None:
        with explained("remove", self.base):
            shutil.rmtree(self.base)


class DirectoryShelves:
    """The datasets below `public`."""

    def __init__(self, public: Path) -> None:
        self.public, self.where = public, str(public)

    def make(self) -> None:
        make_directory(self.public)

    def datasets(self) -> list[str]:
        return sorted(path.parent.name for path in self.public.glob("*/head"))

    def of(self, dataset: str) -> DirectoryShelf:
        return DirectoryShelf(self.public / dataset)
