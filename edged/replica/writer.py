"""The one writer of a replica: takes the lock, stages a new version beside the live one, swaps the manifest."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from edged.errors import DamageError, StoreError
from edged.feed.digest import SetHash
from edged.feed.names import check_name
from edged.files import TEMPORARY
from edged.replica.audit import Fault, Report, look_over
from edged.replica.files import disk as files
from edged.replica.files.disk import Disk
from edged.replica.files.manifest import HEADER, Manifest, decode_commit, encode_commit, file_name
from edged.replica.files.settings import Settings
from edged.replica.files.touched import encode_touched, read_touched
from edged.replica.layers.layers import Layers
from edged.replica.loading import read_manifest
from edged.replica.writing import mending
from edged.replica.writing.compaction import Policy, Progress, compact
from edged.replica.writing.staging import Staging
from edged.replica.writing.writerpool import WriterPool

DEFAULT_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class HeldSlice:
    """A slice on disk. dictionaries: SHA-256 of each; damaged: why its files cannot be used, None if they can."""

    version: int
    digest: bytes
    records: int
    dictionaries: tuple[bytes, ...]
    damaged: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What is on disk. version: 0 for nothing; head, roots, takedowns: as received; last_signed_at: of the head."""

    version: int = 0
    head: bytes | None = None
    roots: bytes | None = None
    slices: dict[str, HeldSlice] = field(default_factory=dict)
    schema_version: int = 0
    takedowns: bytes | None = None
    last_signed_at: int = 0
    pinned: int | None = None
    flash_bytes_written: int = 0


class Writer:
    """Writes one dataset's replica. Use `Writer.open` and a `with` block. Not for use by several threads at once."""

    def __init__(self, root: Path, lock: int) -> None:
        self.root = root
        self.lock = lock
        self.disk = Disk(root)
        self.counter = files.Counter(root, write=True)
        self.pool = WriterPool(root)
        self.manifest = Manifest(root.name)
        self.previous = Manifest(root.name)
        self.marked: dict[str, str] = {}
        self.held: dict[str, Layers] = {}
        self.mended: set[str] = set()  # slices whose index files were looked at
        self.fault: DamageError | None = None
        self.read_state()
        self.skip_numbers()
        self.clean()
        self.bump()  # a former writer may have been killed between its rename and its bump

    @classmethod
    def open(cls, data_dir: str | os.PathLike[str], dataset: str) -> Writer:
        """Make the directory if need be and take its lock. Raises BusyError, StoreError, WireError for the name."""
        root = Path(data_dir) / check_name(dataset, "dataset")
        Disk(root).prepare()
        handle = files.take_lock(root)
        try:
            return cls(root, handle)
        except BaseException:
            os.close(handle)
            raise

    def close(self) -> None:
        """Give the lock back."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read_state(self) -> None:
        """Load the newest manifest. Where all are damaged, everything is fetched anew.

        Raises StoreError for a fault that may pass (too many open files, say), which must not look like nothing held.
        """
        if not files.holds_version(self.root):
            return
        try:
            self.manifest, self.fault = read_manifest(self.root)
        except DamageError as fault:
            self.fault = fault
        try:
            self.previous = decode_commit(files.map_file(self.root / files.PREVIOUS), files.PREVIOUS)
        except DamageError:  # missing, or not needed any more once the next version is there
            self.previous = self.manifest

    def skip_numbers(self) -> None:
        """Number new files past all that are there: after a fall back, readers may still hold later ones by name."""
        stems = (name.partition(".")[0] for name in self.disk.names(files.PACKS) if name.endswith(".pack"))
        numbers = (int(stem, 16) for stem in stems if re.fullmatch("[0-9a-f]{8,16}", stem))
        self.manifest = self.manifest._replace(next_file=max(self.manifest.next_file, *(n + 1 for n in numbers), 1))

    def clean(self) -> None:
        """Remove what a killed writer left behind. Parts of a snapshot under way are kept."""
        if self.fault is not None and isinstance(self.fault.__cause__, OSError):
            return  # a disk that failed to deliver a manifest may yet do so, and its files are to be there
        wanted = self.manifest.files() | self.previous.files()
        present = self.disk.names(files.PACKS)
        for name in present - wanted:
            self.disk.remove(f"{files.PACKS}/{name}")
        for name in self.disk.names(files.STAGING):
            if name.startswith(TEMPORARY):
                self.disk.remove(f"{files.STAGING}/{name}")
        for name in self.disk.names("."):
            if name.startswith(TEMPORARY):
                self.disk.remove(name)

    def bump(self) -> None:
        self.counter.bump()
        self.disk.written += files.PAGE_BYTES

    def settings(self) -> Settings | None:
        """Schema and takedowns, None where their file is damaged."""
        try:
            return self.pool.settings_of(self.manifest.settings)
        except DamageError:
            return None

    def layers(self, name: str) -> Layers:
        """A slice as it is held. Raises DamageError."""
        state, known = self.manifest.slices[name], self.held.get(name)
        if known is None or known.state != state:
            known = self.held[name] = Layers(name, state, self.pool, known)
        return known

    def damage_of(self, name: str) -> str | None:
        """Why a slice's files cannot be used: what was marked, or what opening them tells."""
        if name in self.marked:
            return self.marked[name]
        try:
            self.layers(name)
        except DamageError as fault:
            return str(fault)
        return None

    def mark_damaged(self, slice_name: str, reason: str) -> None:
        """Remember that reading found damage in a slice; `status` then says so until the slice is staged anew."""
        self.marked[slice_name] = reason

    def look_over(self, report: Report) -> Iterator[int]:
        """Check every checksum of the live version, a file at each step; see audit.look_over.

        The one method that another thread may use meanwhile. Faults are for `mend`, which knows what is merged away.
        """
        return look_over(self.root, self.manifest, report)

    def mend(self, faults: Iterable[Fault]) -> int:
        """Make anew what of `faults` can be made here, mark the slices of the others; see mending.mend."""
        return mending.mend(self, faults)

    def status(self) -> Held:
        """What is held. Reads headers only; `audit.verify` reads everything."""
        live = read_touched(self.root / files.TOUCHED, self.manifest)
        settings = self.settings()
        return Held(
            version=live.version,
            head=live.head or None,
            roots=self.roots(),
            slices={
                name: HeldSlice(
                    state.version,
                    SetHash(state.state).digest(),
                    state.records,
                    state.dictionaries,
                    self.damage_of(name),
                )
                for name, state in live.slices.items()
            },
            schema_version=settings.schema_version if settings is not None else 0,
            takedowns=settings.takedowns if settings is not None else None,
            last_signed_at=live.as_of,
            pinned=live.pinned,
            flash_bytes_written=self.flash_bytes_written,
        )

    @property
    def flash_bytes_written(self) -> int:
        """Bytes written to this replica since it was made, as whole pages."""
        return self.manifest.flash_bytes + self.disk.written

    def roots(self) -> bytes | None:
        """The roots of trust as stored (feed/roots.py), None where there are none or the file is damaged."""
        data = self.disk.intact(files.ROOTS, files.ROOTS_BYTES)
        if data is None or len(data) < 4 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
            return None
        return data[4:]

    def set_roots(self, data: bytes) -> None:
        """Store the roots of trust since the trust file."""
        if data != self.roots():
            self.disk.write(files.ROOTS, zlib.crc32(data).to_bytes(4, "little") + data)
            self.disk.sync(self.root)

    def touch_head(self, head: bytes, *, as_of: int, fresh_s: int, expires_s: int) -> int:
        """Take a newer head of the version that is held: one small file. Returns the bytes written to flash."""
        before = self.disk.written
        self.disk.write(files.TOUCHED, encode_touched(self.manifest.version, head, as_of, fresh_s, expires_s))
        self.disk.sync(self.root)
        self.bump()
        return self.disk.written - before

    def pin(self, version: int | None) -> None:
        """Remember that sync is to hold `version`; None lets it follow. Raises StoreError where nothing is held."""
        if not self.manifest.version:
            raise StoreError(f"pin {self.root.name}: nothing has been synced yet; sync first")
        if version != self.manifest.pinned:
            self.swap(self.manifest._replace(pinned=version), b"", self.manifest.next_file)

    def stage(self) -> Staging:
        """Begin a new version."""
        return Staging(self)

    def compact(
        self, budget: int | None = None, *, policy: Policy = DEFAULT_POLICY, progress: Progress | None = None
    ) -> int:
        """Merge packs where that is due and about `budget` bytes allow it (None: whatever it takes).

        Returns the bytes written to flash. progress: called with (records done, records in all) now and then. Raises
        StoreError or DamageError; what is held is then as it was.
        """
        return compact(self, budget, policy, progress)

    def swap(self, manifest: Manifest, packs: bytes, number: int, fresh_files: Iterable[str] = ()) -> None:
        """Make `manifest` the live one, in the commit file `number`, which holds `packs` too.

        fresh_files: names below `packs/` that came with this version; they are removed again if it fails. Raises
        StoreError, and then nothing has changed.
        """
        name = f"{files.PACKS}/{file_name(number)}"
        manifest = manifest._replace(
            generation=self.manifest.generation + 1, next_file=max(manifest.next_file, number + 1)
        )
        size = len(packs) + HEADER.size + len(encode_commit(manifest, b"")) + 16
        flash = self.flash_bytes_written + files.pages(size) + files.PAGE_BYTES
        manifest = manifest._replace(flash_bytes=flash)
        try:
            self.disk.write(name, encode_commit(manifest, packs))
            self.disk.sync(self.root / files.PACKS)
            if self.fault is None and self.manifest.generation:
                self.fault = mending.live_fault(self)  # what has decayed since must not become the version to fall to
            if self.fault is None and self.manifest.generation:
                self.disk.link(files.MANIFEST, files.PREVIOUS)
            self.disk.link(name, files.MANIFEST)
            self.disk.sync(self.root)
        except StoreError:
            if not self.is_live(manifest):
                for lost in (name, *(f"{files.PACKS}/{item}" for item in fresh_files)):
                    self.disk.remove(lost)
                raise
        self.disk.written = 0
        self.counter.bump()
        self.previous, self.manifest = (self.manifest if self.fault is None else self.previous), manifest
        self.fault = None
        self.clean()
        self.pool.keep(self.manifest)
        self.held = {name: layers for name, layers in self.held.items() if name in manifest.slices}

    def is_live(self, manifest: Manifest) -> bool:
        """Whether the swap has happened in spite of a fault after it (the directory's fsync, say)."""
        try:
            return read_manifest(self.root)[0].generation == manifest.generation
        except StoreError:
            return False
