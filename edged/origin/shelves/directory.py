"""The blobs of one dataset on disk: written durably, named by hash, and taken back if the publish fails."""

from __future__ import annotations

import os
import time
from pathlib import Path

from edged.errors import OriginError, StoreError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.files import TEMPORARY, discard, prepare, read_bounded, swap, sync_directory
from edged.origin.state import State

STRAY_S = 3600  # a file that no publisher has finished after this long was left by one that was killed


class BlobStore:
    """Writes below `<base>/blobs/` and notes each blob in the state, inside the caller's transaction.

    state: None for one that only writes, and whose blobs that of a transaction adopts later.
    """

    def __init__(self, directory: Path, state: State | None) -> None:
        self.directory, self.state = directory, state
        self.unnoted: list[tuple[BlobRef, str]] = []
        self.fresh: list[Path] = []
        self.written_bytes = 0
        self.found: set[str] | None = None
        self.memory: dict[str, bytes] | None = None

    def store(self, kind: str, data: bytes) -> BlobRef:
        """Write one blob. Raises StoreError, OriginError for one over limits.BLOB_BYTES."""
        if len(data) > limits.BLOB_BYTES:
            raise OriginError(f"store {kind}: {len(data)} bytes, at most {limits.BLOB_BYTES} are allowed in one blob")
        ref = BlobRef.of(data)
        path = self.directory / ref.name
        if self.memory is not None:
            self.memory[ref.name] = data
        elif not self.holds(path, ref):
            swap(prepare(path, (data,)), path)
            self.fresh.append(path)
            if self.found is not None:
                self.found.add(ref.name)
            self.written_bytes += ref.size
        self.note(ref, kind)
        return ref

    def note(self, ref: BlobRef, kind: str) -> None:
        if self.state is None:
            self.unnoted.append((ref, kind))
        else:
            self.state.run("INSERT OR IGNORE INTO blobs VALUES(?,?,?,NULL)", (ref.sha256, kind, ref.size))

    def are_there(self) -> bool:
        """Whether all that was written and not noted is still there: a takedown sweeps what nobody knows."""
        return all(self.holds(self.directory / ref.name, ref) for ref, _ in self.unnoted)

    def adopt(self, others: BlobStore) -> None:
        """Note what `others` has written; it is taken back with what is written here."""
        for ref, kind in others.unnoted:
            self.note(ref, kind)
        self.fresh += others.fresh
        others.fresh.clear()

    def names(self) -> set[str]:
        """What lies there, looked at once an operation. Raises StoreError."""
        if self.found is None:
            try:
                self.found = set(os.listdir(self.directory))
            except OSError as fault:
                raise StoreError(f"list {self.directory}: {fault.strerror}") from fault
        return self.found | (self.memory or {}).keys()

    def rehearse(self) -> None:
        """From now on blobs are kept in memory alone."""
        self.memory = {}

    def read(self, ref: BlobRef) -> bytes:
        """A blob's bytes, checked. Raises StoreError, HashError."""
        if self.memory is not None and ref.name in self.memory:
            return self.memory[ref.name]
        return ref.check(read_bounded(self.directory / ref.name, ref.size), "blob of the feed")

    def holds(self, path: Path, ref: BlobRef) -> bool:
        try:
            return not path.is_symlink() and path.stat().st_size == ref.size and BlobRef.of(path.read_bytes()) == ref
        except OSError:
            return False  # not there, or not readable: it is written

    def sync(self) -> None:
        """Make the names of the new blobs durable; before any head may name them."""
        if self.fresh:
            sync_directory(self.directory)

    def take_back(self) -> None:
        """The publish failed: nothing names the new blobs."""
        discard(self.fresh)
        self.fresh.clear()

    def sweep(self, *, older_s: float = STRAY_S) -> None:
        """Delete files of that age that the state does not know: left by publishers that were killed."""
        if self.memory is not None or self.state is None:
            return
        known = {row[0].hex() for row in self.state.rows("SELECT sha256 FROM blobs")}
        strays = []
        with os.scandir(self.directory) as entries:
            for entry in entries:
                stray = entry.name.startswith(TEMPORARY) or entry.name not in known
                if stray and entry.stat(follow_symlinks=False).st_mtime < time.time() - older_s:
                    strays.append(Path(entry.path))
        discard(strays)
