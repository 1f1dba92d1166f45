"""The one writer of a replica: takes the lock, stages a new version beside the live one, merges and mends."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from edged.errors import StoreError
from edged.feed.blob import BlobRef
from edged.feed.digest import SetHash
from edged.feed.names import check_name
from edged.replica.audit import Finding, Report, look_over
from edged.replica.files import disk as files
from edged.replica.files.disk import Disk
from edged.replica.files.touched import encode_touched, read_touched
from edged.replica.writing import mending
from edged.replica.writing.compaction import MergePolicy, compact
from edged.replica.writing.live import Live
from edged.replica.writing.purging import purge
from edged.replica.writing.staging import Staging

DEFAULT_POLICY = MergePolicy()
BLOB_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SliceOnDisk:
    """A slice on disk. dictionaries: SHA-256 of each; damaged: why its files cannot be used, None if they can; cut: see
    SliceState."""

    version: int
    digest: bytes
    records: int
    dictionaries: tuple[bytes, ...]
    damaged: str | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class HeldVersion:
    """What is on disk. version: 0 for nothing; head, roots, takedowns: as received; last_signed_at: of the head."""

    version: int = 0
    head: bytes | None = None
    roots: bytes | None = None
    slices: dict[str, SliceOnDisk] = field(default_factory=dict)
    schema_version: int = 0
    takedowns: bytes | None = None
    last_signed_at: int = 0
    pinned: int | None = None
    flash_bytes_written: int = 0


class Writer:
    """Writes one dataset's replica. Use `Writer.open` and a `with` block. Not for use by several threads at once."""

    def __init__(self, live: Live) -> None:
        self.live = live

    @classmethod
    def open(cls, data_dir: str | os.PathLike[str], dataset: str) -> Writer:
        """Make the directory if need be and take its lock. Raises BusyError, StoreError, WireError for the name."""
        root = Path(data_dir) / check_name(dataset, "dataset")
        Disk(root).prepare()
        handle = files.take_lock(root)
        try:
            return cls(Live(root, handle))
        except BaseException:
            os.close(handle)
            raise

    def close(self) -> None:
        """Give the lock back."""
        self.live.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def mark_damaged(self, slice_name: str, reason: str) -> None:
        """Remember that reading found damage in a slice; `status` then says so until the slice is staged anew."""
        self.live.marked[slice_name] = reason

    def look_over(self, report: Report) -> Iterator[int]:
        """Check every checksum of the live version, a file at each step; see audit.look_over.

        The one method that another thread may use meanwhile. Findings are for `mend`, which knows what is merged away.
        """
        return look_over(self.live.root, self.live.manifest, report)

    def mend(self, findings: Iterable[Finding]) -> int:
        """Make anew what of `findings` can be made here, mark the slices of the others; see mending.mend."""
        return mending.mend(self.live, findings)

    def purge(self) -> int:
        """Rid packs and dictionaries of what is taken down; see purging.purge. Returns the bytes written to flash."""
        return purge(self.live)

    def status(self) -> HeldVersion:
        """What is held. Reads headers only; `audit.verify` reads everything."""
        live = self.live
        live.reread()
        manifest = read_touched(live.root / files.TOUCHED, live.manifest)
        settings = live.settings()
        return HeldVersion(
            version=manifest.version,
            head=manifest.head or None,
            roots=self.roots(),
            slices={
                name: SliceOnDisk(
                    state.version,
                    SetHash(state.state).digest(),
                    state.records,
                    state.dictionaries,
                    live.damage_of(name),
                    state.cut,
                )
                for name, state in manifest.slices.items()
            },
            schema_version=settings.schema_version if settings is not None else 0,
            takedowns=settings.takedowns if settings is not None else None,
            last_signed_at=manifest.as_of,
            pinned=manifest.pinned,
            flash_bytes_written=live.flash_bytes_written,
        )

    @property
    def flash_bytes_written(self) -> int:
        """Bytes written to this replica since it was made, as whole pages."""
        return self.live.flash_bytes_written

    def roots(self) -> bytes | None:
        """The roots of trust as stored (feed/trust/succession.py), None where there are none or they are damaged."""
        data = self.live.disk.intact(files.ROOTS, files.ROOTS_BYTES)
        if data is None or len(data) < 4 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
            return None
        return data[4:]

    def set_roots(self, data: bytes) -> None:
        """Store the roots of trust since the trust file."""
        if data != self.roots():
            self.live.disk.write(files.ROOTS, zlib.crc32(data).to_bytes(4, "little") + data)
            self.live.disk.sync(self.live.root)

    def aheads(self) -> frozenset[bytes]:
        """SHA-256 of the sealed blobs of versions ahead that lie on disk, unchecked."""
        names = self.live.disk.names(files.AHEAD)
        return frozenset(bytes.fromhex(name) for name in names if BLOB_NAME.fullmatch(name))

    def keep_ahead(self, ref: BlobRef, data: bytes) -> None:
        """Keep a blob of a version ahead, whose hash has been checked."""
        self.live.disk.write(f"{files.AHEAD}/{ref.name}", data)
        self.live.disk.sync(self.live.root / files.AHEAD)

    def ahead(self, ref: BlobRef) -> bytes | None:
        """A blob that was kept, None where it is missing or damaged."""
        data = self.live.disk.intact(f"{files.AHEAD}/{ref.name}", ref.size)
        return data if data is not None and BlobRef.of(data) == ref else None

    def drop_aheads(self, keep: frozenset[bytes]) -> None:
        """Remove the blobs of versions ahead that are of no use any more, and what a killed writer left of one."""
        kept = {sha256.hex() for sha256 in keep}
        for name in self.live.disk.names(files.AHEAD) - kept:
            self.live.disk.remove(f"{files.AHEAD}/{name}")

    def touch_head(self, head: bytes, *, as_of: int, fresh_s: int, expires_s: int) -> int:
        """Take a newer head of the version that is held: one small file. Returns the bytes written to flash."""
        live = self.live
        before = live.disk.written
        live.disk.write(files.TOUCHED, encode_touched(live.manifest.version, head, as_of, fresh_s, expires_s))
        live.disk.sync(live.root)
        live.bump()
        return live.disk.written - before

    def pin(self, version: int | None) -> None:
        """Remember that sync is to hold `version`; None lets it follow. Raises StoreError where nothing is held."""
        self.live.reread()
        manifest = self.live.manifest
        if not manifest.version:
            raise StoreError(f"pin {self.live.root.name}: nothing has been synced yet; sync first")
        if version != manifest.pinned:
            self.live.swap(manifest._replace(pinned=version), b"", manifest.next_file)

    def stage(self) -> Staging:
        """Begin a new version."""
        return Staging(self.live)

    def compact(self, budget: int | None = None, *, policy: MergePolicy = DEFAULT_POLICY) -> int:
        """Merge packs where that is due and about `budget` bytes allow it (None: whatever it takes).

        What is taken down leaves them whatever it takes. Returns the bytes written to flash. Raises StoreError or
        DamageError; what is held is then as it was.
        """
        return purge(self.live) + compact(self.live, budget, policy)
