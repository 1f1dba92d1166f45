"""What is live on disk, as its one writer knows it, and how another version takes its place.

Staging, merging and mending work on it; the writer is their face.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from edged.errors import DamageError, StoreError
from edged.files import TEMPORARY
from edged.replica.audit import read_whole
from edged.replica.files import disk as files
from edged.replica.files.disk import Disk
from edged.replica.files.manifest import (
    DICTIONARY_SUFFIX,
    HEADER,
    Manifest,
    decode_commit,
    dictionary_name,
    encode_commit,
    file_name,
)
from edged.replica.files.settings import ReplicaSettings
from edged.replica.layers.layers import Layers
from edged.replica.layers.pool import Pool
from edged.replica.loading import read_manifest


class WriterPool(Pool):
    """Checks the SHA-256 of dictionaries, as a writer is about to compress with them.

    Readers do without, as it would load libcrypto into each of them.
    """

    def dictionary(self, sha256: bytes) -> bytes:
        data = super().dictionary(sha256)
        if hashlib.sha256(data).digest() != sha256:
            name = dictionary_name(sha256)
            raise DamageError(
                f"read {self.name}/{files.PACKS}/{name}: its SHA-256 is not its name; fetch its slice again"
            )
        return data


class Live:
    """The live version of one dataset and the one before it, under the writer's lock.

    marked: slices found damaged, with the reason; mended: slices whose index files were looked at; fault: why
    `manifest` on disk is not the version that is live here.
    """

    def __init__(self, root: Path, lock: int) -> None:
        self.root = root
        self.lock = lock
        self.disk = Disk(root)
        self.counter = files.VersionCounter(root, write=True)
        self.pool = WriterPool(root)
        self.manifest = Manifest(root.name)
        self.previous = Manifest(root.name)
        self.marked: dict[str, str] = {}
        self.held: dict[str, Layers] = {}
        self.mended: set[str] = set()
        self.fault: DamageError | None = None
        self.read_state()
        self.skip_numbers()
        self.clean()
        self.hold_files()
        self.bump()  # a former writer may have been killed between its rename and its bump

    def is_there(self) -> bool:
        """Whether the directory on disk is still the one whose lock is held: it may have been removed or replaced."""
        try:
            found, held = os.stat(self.root / files.LOCK), os.fstat(self.lock)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # which the next write will tell
        return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)

    def renew(self) -> bool:
        """Make anew what was removed under this writer: the directory, and the version if all its files are mapped.

        Otherwise nothing is held any more, and sync brings it again; readers go on with what they have loaded. Returns
        whether anything was amiss. Raises BusyError where another writer has taken the place, StoreError.
        """
        if self.is_there():
            return False
        self.disk.prepare()
        handle = files.take_lock(self.root)
        os.close(self.lock)
        gone, self.lock = self.counter, handle
        self.counter = files.VersionCounter(self.root, write=True)
        manifest, content = self.manifest, self.remembered()
        self.manifest = self.previous = Manifest(self.root.name, next_file=manifest.next_file)
        self.marked.clear()
        self.mended.clear()
        self.fault = None
        try:
            if content is not None:
                for name, data in content.items():
                    self.disk.write(f"{files.PACKS}/{name}", data)
                self.swap(manifest._replace(generation=0), b"", manifest.next_file)
        finally:
            self.pool, self.held = WriterPool(self.root), {}
            gone.bump()  # who watches the one that was removed looks for the new one
            self.bump()
        return True

    def hold_files(self) -> None:
        """Have every file of the live version mapped, which costs address space alone; see `renew`."""
        for name in self.manifest.files():
            with contextlib.suppress(StoreError):  # DamageError too: `damage_of` tells
                if not name.endswith(DICTIONARY_SUFFIX):
                    self.pool.map(name)
        for state in self.manifest.slices.values():
            for sha256 in state.dictionaries:
                with contextlib.suppress(StoreError):
                    self.pool.frames_of(sha256)

    def remembered(self) -> dict[str, bytes] | None:
        """The content of every file of the live version by name, as it is mapped here; None where one is not."""
        frames = {dictionary_name(sha256): item.dictionary for sha256, item in self.pool.frames.items() if sha256}
        names = self.manifest.files()
        known: dict[str, bytes] = {}
        for name in sorted(names):
            mapped = self.pool.files.get(name)
            if mapped is None and name not in frames:
                return None
            known[name] = frames[name] if mapped is None else mapped[:]
        return known if names else None

    def close(self) -> None:
        """Give the lock back."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

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

    def reread(self) -> bool:
        """Where a disk failed to deliver the newest manifest, so that the one before is held: whether it does now, and
        the newest is held. Written over, a version that others may have been served would be gone.
        """
        if self.fault is None or not isinstance(self.fault.__cause__, OSError):
            return False
        try:
            manifest, fault = read_manifest(self.root)
        except StoreError:
            return False
        if fault is not None or manifest.generation <= self.manifest.generation:
            return False
        self.previous, self.manifest, self.fault = self.manifest, manifest, None
        self.skip_numbers()
        self.held.clear()
        self.pool.keep(self.manifest)
        self.hold_files()
        return True

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

    def settings(self) -> ReplicaSettings | None:
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

    @property
    def flash_bytes_written(self) -> int:
        """Bytes written to this replica since it was made, as whole pages."""
        return self.manifest.flash_bytes + self.disk.written

    def swap(self, manifest: Manifest, packs: bytes, number: int, fresh_files: Iterable[str] = ()) -> None:
        """Make `manifest` the live one, in the commit file `number`, which holds `packs` too.

        fresh_files: names below `packs/` that came with this version; they are removed again if it fails. Raises
        StoreError, and then nothing has changed.
        """
        if self.reread():
            raise StoreError(
                f"write version {manifest.version} of {self.root.name}: version {self.manifest.version}, which the "
                "disk had failed to deliver, can be read again; what was begun on the one before is done anew"
            )
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
                self.fault = self.decay()  # what has decayed since must not become the version to fall to
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
        self.hold_files()
        self.held = {name: layers for name, layers in self.held.items() if name in manifest.slices}
        for name in list(self.held):  # now rather than when they are next asked for: old ones keep files mapped
            with contextlib.suppress(DamageError):
                self.layers(name)

    def is_live(self, manifest: Manifest) -> bool:
        """Whether the swap has happened in spite of a fault after it (the directory's fsync, say)."""
        try:
            return read_manifest(self.root)[0].generation == manifest.generation
        except StoreError:
            return False

    def decay(self) -> DamageError | None:
        """Why `manifest` on disk does not say what was made live, None if it does. Raises StoreError."""
        what = f"{self.root.name}/{files.MANIFEST}"
        try:
            found = decode_commit(read_whole(self.root / files.MANIFEST), what)
        except DamageError as fault:
            return fault
        if found.generation != self.manifest.generation:
            return DamageError(
                f"read {what}: generation {found.generation}, expected {self.manifest.generation}; it is written again"
            )
        return None
