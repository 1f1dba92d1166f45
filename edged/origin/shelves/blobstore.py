"""The blobs of one operation on a dataset: written to a shelf, named by hash, and taken back if the publish fails."""

from __future__ import annotations

from edged.errors import OriginError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.origin.shelves.shelf import Shelf
from edged.origin.state import State

STRAY_S = 3600  # a file that no publisher has finished after this long was left by one that was killed


class BlobStore:
    """Writes to a shelf and notes each blob in the state, inside the caller's transaction.

    state: None for one that only writes, and whose blobs that of a transaction adopts later.
    """

    def __init__(self, shelf: Shelf, state: State | None) -> None:
        self.shelf, self.state = shelf, state
        self.unnoted: list[tuple[BlobRef, str]] = []
        self.fresh: list[str] = []
        self.written_bytes = 0
        self.found: set[str] | None = None
        self.memory: dict[str, bytes] | None = None

    def store(self, kind: str, data: bytes) -> BlobRef:
        """Write one blob. Raises StoreError, OriginError for one over limits.BLOB_BYTES."""
        if len(data) > limits.BLOB_BYTES:
            raise OriginError(f"store {kind}: {len(data)} bytes, at most {limits.BLOB_BYTES} are allowed in one blob")
        ref = BlobRef.of(data)
        if self.memory is not None:
            self.memory[ref.name] = data
        elif not self.shelf.holds(ref):
            self.shelf.write(ref, data)
            self.fresh.append(ref.name)
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
        return all(self.shelf.holds(ref) for ref, _ in self.unnoted)

    def adopt(self, others: BlobStore) -> None:
        """Note what `others` has written; it is taken back with what is written here."""
        for ref, kind in others.unnoted:
            self.note(ref, kind)
        self.fresh += others.fresh
        others.fresh.clear()

    def names(self) -> set[str]:
        """What lies there, looked at once an operation. Raises StoreError."""
        if self.found is None:
            self.found = self.shelf.names()
        return self.found | (self.memory or {}).keys()

    def rehearse(self) -> None:
        """From now on blobs are kept in memory alone."""
        self.memory = {}

    def read(self, ref: BlobRef) -> bytes:
        """A blob's bytes, checked. Raises StoreError, HashError."""
        if self.memory is not None and ref.name in self.memory:
            return self.memory[ref.name]
        return self.shelf.read(ref)

    def settle(self) -> None:
        """Make the new blobs durable; before any head may name them."""
        if self.fresh:
            self.shelf.settle_blobs()

    def take_back(self) -> None:
        """The publish failed: nothing names the new blobs."""
        self.shelf.delete(self.fresh)
        self.fresh.clear()

    def sweep(self, *, older_s: float = STRAY_S) -> None:
        """Delete files of that age that the state does not know: left by publishers that were killed."""
        if self.memory is None and self.state is not None:
            known = {row[0].hex() for row in self.state.rows("SELECT sha256 FROM blobs")}
            self.shelf.sweep(known, older_s)
