"""The audits: `verify` holds every byte against its checksums and every slice against the signed head; `look_over` the
checksums alone, which costs little more than reading the files, for whoever writes the replica and can mend it.

They read files instead of mapping them, so that a disk that cannot deliver a page is a line in the report.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edged.errors import DamageError, EdgedError, TrustError, WireError
from edged.feed.digest import SetHash
from edged.feed.head import Head
from edged.files import StrPath
from edged.progress import Watch, unwatched
from edged.replica.files import disk as files
from edged.replica.files.disk import datasets, explained
from edged.replica.files.manifest import (
    HEADER,
    MAGIC,
    FileRef,
    Manifest,
    PackRef,
    SliceState,
    decode_commit,
    dictionary_name,
    file_name,
)
from edged.replica.files.touched import is_whole, read_file, read_touched
from edged.replica.layers.layers import Layers
from edged.replica.layers.pool import Pool
from edged.replica.loading import read_manifest
from edged.replica.packs.pack import HEADER as PACK_HEADER
from edged.replica.packs.pack import Pack

ALIGN = 8
ROOT_ADVICE = "sync once to store the root of trust"
LAST_RESORT = "they were written so, by failing memory perhaps: stop the daemon, remove the dataset's directory, sync"


@dataclass(frozen=True, slots=True)
class Finding:
    """slice_name: "" where the whole dataset is meant; file: below the dataset's directory, "" for the content."""

    dataset: str
    slice_name: str
    file: str
    what: str

    def __str__(self) -> str:
        where = "/".join(item for item in (self.dataset, self.file) if item)
        whose = f"{where} (slice {self.slice_name})".lstrip() if self.slice_name else where
        return f"{whose}: {self.what}" if whose else self.what


@dataclass
class Report:
    """faults: empty where all is well; versions: of each dataset audited; empty: names of those that have never been
    synced; records, bytes: how much was read."""

    faults: list[Finding] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    records: int = 0
    bytes: int = 0


def read_whole(path: StrPath) -> bytes:
    """A file's content by plain reads, which report a failing disk as an error. Raises DamageError, StoreError."""
    with explained("read", path):
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError as fault:
            raise DamageError(
                f"read {path}: missing; fetch its slice again (edged does so at the next sync)"
            ) from fault


class ReadPool(Pool):
    """A pool that reads files instead of mapping them. Holds one slice's files at a time."""

    def foresee(self, state: SliceState) -> list[mmap.mmap]:
        return []

    def map(self, name: str) -> bytes:  # type: ignore[override]  # both are buffers
        return read_whole(os.path.join(self.packs_dir, name))


def verify(data_dir: str | os.PathLike[str], *, watch: Watch = unwatched) -> Report:
    """Audit every dataset below `data_dir`. Writes nothing and needs no lock; a running daemon is not disturbed.

    watch: told how many records are done, and of how many. Raises StoreError if the directory cannot be
    listed; whatever is wrong inside it is in the report.
    """
    report, root = Report(), Path(data_dir)
    for name in datasets(root):
        DatasetAudit(root / name, report, watch).run()
    for name in files.unsynced(root):
        if has_lost_its_manifest(root / name):
            what = f"missing, and {files.PREVIOUS} too, while there are packs that it named; all is fetched again"
            report.faults.append(Finding(name, "", files.MANIFEST, what))
        else:
            report.empty.append(name)
    return report


def has_lost_its_manifest(root: Path) -> bool:
    """Whether packs lie in a directory without a manifest, and no parts of a first snapshot, which its commit ends."""
    disk = files.Disk(root)
    return not disk.names(files.STAGING) and any(name.endswith(".pack") for name in disk.names(files.PACKS))


def look_over(root: Path, manifest: Manifest, report: Report) -> Iterator[int]:
    """Check every checksum of one dataset as its writer knows it, adding to `report`. Yields the bytes of each file.

    No value is decompressed: the pages' checksums cover them. Writes nothing, and files that are merged away meanwhile
    look missing. Raises StoreError for a fault that is no damage (too many open files, say).
    """
    if not manifest.generation:
        return
    audit = DatasetAudit(root, report, unwatched, DamageError)
    audit.check_manifest()
    audit.check_previous()
    audit.check_touched()
    audit.stored_roots()
    audit.check_settings(manifest.settings)
    for name, state in manifest.slices.items():
        yield from audit.check_files(name, state)


class DatasetAudit:
    """One dataset's audit, adding to `report`. caught: what is a line there; anything else is raised."""

    def __init__(self, root: Path, report: Report, watch: Watch, caught: type[EdgedError] = EdgedError) -> None:
        self.root = root
        self.report = report
        self.watch = watch
        self.caught = caught

    def fault(self, slice_name: str, file: str, what: object) -> None:
        self.report.faults.append(Finding(self.root.name, slice_name, file, str(what)))

    def run(self) -> None:
        try:
            manifest, fault = read_manifest(self.root, read_whole)
        except EdgedError as gone:
            self.fault("", files.MANIFEST, gone)
            return
        if fault is not None:
            self.fault("", files.MANIFEST, fault)
        self.check_previous()
        self.check_touched()
        self.report.versions[self.root.name] = manifest.version
        head = self.check_head(read_touched(self.root / files.TOUCHED, manifest))
        self.check_settings(manifest.settings)
        # Held back by a pin, the newest head is kept all the same, against rollback; it signs a later one's content.
        # So it is when the device refused a version for lack of content, to take down what that takes down.
        pinned = head is not None and manifest.version < head.version
        total = sum(state.records for state in manifest.slices.values())
        for name, state in manifest.slices.items():
            self.check_slice(name, state, None if pinned else head, total)
        if head is not None and head.version != manifest.version and not pinned:
            self.fault("", files.MANIFEST, f"holds version {manifest.version}, its signed head is of {head.version}")

    def check_manifest(self, name: str = files.MANIFEST) -> None:
        try:
            decode_commit(read_whole(self.root / name), f"{self.root.name}/{name}")
        except self.caught as fault:
            self.fault("", name, fault)

    def check_previous(self) -> None:
        """The fallback manifest is worth a warning before it is needed."""
        if (self.root / files.PREVIOUS).exists():
            self.check_manifest(files.PREVIOUS)

    def check_settings(self, ref: FileRef | None) -> None:
        try:
            ReadPool(self.root).settings_of(ref)
        except self.caught as fault:
            self.fault("", f"{files.PACKS}/{file_name(ref.number if ref is not None else 0)}", fault)

    def check_touched(self) -> None:
        """The file with a newer head of the same version, which reading passes over where it is damaged."""
        try:
            if not is_whole(read_file(self.root / files.TOUCHED)):
                self.fault("", files.TOUCHED, "the checksum does not hold; the next head replaces it")
        except self.caught as fault:
            self.fault("", files.TOUCHED, fault)

    def stored_roots(self) -> bytes | None:
        """The roots of trust as stored, None where they cannot be used, which is then a fault."""
        try:
            data = files.Disk(self.root).read(files.ROOTS, files.ROOTS_BYTES)
        except self.caught as fault:
            self.fault("", files.ROOTS, fault)
            return None
        if data is None:
            self.fault("", files.ROOTS, f"no root of trust is stored, so the head proves nothing; {ROOT_ADVICE}")
            return None
        if len(data) < 4 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
            self.fault("", files.ROOTS, f"the checksum does not hold; {ROOT_ADVICE}")
            return None
        return data[4:]

    def check_head(self, manifest: Manifest) -> Head | None:
        """The head that is stored, if its signature holds under the stored root of trust."""
        from edged.feed import rollout
        from edged.feed.trust import root as trust  # load cryptography, which reading does without
        from edged.feed.trust import succession

        data = self.stored_roots()
        if data is None:
            return None
        try:
            what = f"{self.root.name}/{files.ROOTS}"
            trust_file, *_ = succession.decode_roots(data, what)
            known = succession.restore(trust_file, data, what)
            signed = trust.verify_head(manifest.head, known.newest, self.root.name).head
            return rollout.head_for(signed, "", manifest.version)  # who holds more than the live version took the offer
        except (TrustError, WireError) as fault:
            self.fault("", files.MANIFEST, fault)
            return None

    def check_slice(self, name: str, state: SliceState, head: Head | None, total: int) -> None:
        pool = ReadPool(self.root)
        before = len(self.report.faults)
        for sha256 in state.dictionaries:
            self.check_dictionary(name, sha256)
        for ref in state.packs():
            self.check_pack(name, ref, pool)
        if len(self.report.faults) > before:
            return
        try:
            layers = Layers(name, state, pool)
            held = self.sum_up(layers, total)
        except EdgedError as fault:
            self.fault(name, "", fault)
            return
        if held != (state.state, state.records):
            what = f"holds {held[1]} records that do not add up to the manifest's {state.records}; {LAST_RESORT}"
            self.fault(name, "", what)
        signed = head.slices.get(name) if head is not None else None
        if head is not None and (
            signed is None or (signed.digest, signed.records) != (SetHash(held[0]).digest(), held[1])
        ):
            self.fault(name, "", "its content is not what the head signs; it is fetched again at the next sync")

    def check_dictionary(self, name: str, sha256: bytes) -> None:
        file = f"{files.PACKS}/{dictionary_name(sha256)}"
        try:
            if hashlib.sha256(read_whole(self.root / file)).digest() != sha256:
                self.fault(name, file, "its SHA-256 is not its name")
        except self.caught as fault:
            self.fault(name, file, fault)

    def check_pack(self, name: str, ref: PackRef, pool: Pool) -> None:
        """Every page and every value of a pack."""
        try:
            pack = pool.pack(ref)
            pack.check_all()
            for place in range(len(pack)):
                pack.value(place)
            self.report.bytes += ref.size
        except self.caught as fault:
            self.fault(name, f"{files.PACKS}/{file_name(ref.number)}", fault)
        self.check_index(name, ref, pool)

    def check_index(self, name: str, ref: PackRef, pool: Pool) -> None:
        if ref.index is not None:
            try:
                pool.checked_file(ref.index)
            except self.caught as fault:
                what = f"{fault}; being an index, it is made anew from {file_name(ref.number)}"
                self.fault(name, f"{files.PACKS}/{file_name(ref.index.number)}", what)

    def check_files(self, name: str, state: SliceState) -> Iterator[int]:
        """The checksums of a slice's files, one file in memory at a time. Yields the bytes of each."""
        for sha256 in state.dictionaries:
            self.check_dictionary(name, sha256)
        pool = ReadPool(self.root)
        for ref in state.packs():
            yield self.check_pages(name, ref.number, ref)
            self.check_index(name, ref, pool)
        for number in state.remotes:
            yield self.check_pages(name, number, None)

    def check_pages(self, name: str, number: int, ref: PackRef | None) -> int:
        """Every page of the pack `ref` in file `number`, or of all the packs there. Returns the file's bytes."""
        file = f"{files.PACKS}/{file_name(number)}"
        try:
            data = read_whole(self.root / file)
            for start, size in [(ref.offset, ref.size)] if ref is not None else packs_in(data, file):
                pack = Pack(data, start, size, f"{self.root.name}/{file}", number)
                if ref is not None and pack.crc != ref.crc:
                    raise pack.damage("it is another pack than the manifest names")
                pack.check_all()
        except self.caught as fault:
            self.fault(name, file, fault)
            return 0
        self.report.bytes += len(data)
        return len(data)

    def sum_up(self, layers: Layers, total: int) -> tuple[bytes, int]:
        """The LtHash sum and the number of the live records."""
        held, count = SetHash(), 0
        for collection, key, value in records_of(layers):
            held.add(collection, key, value)
            count += 1
            if not count % 1000:
                self.watch(f"verifying {self.root.name}", self.report.records + count, total)
        self.report.records += count
        return held.state(), count


def records_of(layers: Layers) -> Iterator[tuple[str, str, bytes]]:
    for collection in sorted(layers.collections()):
        for key, _, pack, place in layers.scan(collection):
            value = pack.value(place)
            if value is not None:
                yield collection, key, value


def packs_in(data: bytes, file: str) -> Iterator[tuple[int, int]]:
    """(offset, size) of each pack in a file, which is a pack or a commit file. Raises DamageError."""
    if data[: len(MAGIC)] != MAGIC:
        yield 0, len(data)
        return
    end, at = HEADER.unpack(data[: HEADER.size].ljust(HEADER.size))[4], HEADER.size
    while at < end:
        size = PACK_HEADER.unpack_from(data, at)[3] if at + PACK_HEADER.size <= len(data) else 0
        if not size:
            raise DamageError(f"read {file}: a pack in it is damaged; fetch its slice again")
        yield at, size
        at += size + -size % ALIGN
