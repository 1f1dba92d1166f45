"""Open files of one replica: each pack, dictionary and settings file is mapped once and shared by all versions."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
import zlib
from typing import TYPE_CHECKING

from edged.errors import DamageError, StoreError
from edged.feed import limits
from edged.feed.schema import CollectionSchema, Schema
from edged.feed.zstd import DamagedFrame
from edged.files import StrPath
from edged.replica.files.disk import PACKS, explained, map_file
from edged.replica.files.manifest import FileRef, Manifest, PackRef, SliceState, dictionary_name, file_name
from edged.replica.files.settings import ReplicaSettings, decode_settings
from edged.replica.packs.frames import Frames, MakeEngine
from edged.replica.packs.pack import Buffer, Pack

if TYPE_CHECKING:
    from edged.replica.indexes.index import Index
    from edged.replica.layers.fieldpaths import FieldPaths

NO_DICTIONARY = b""
ENDS_BYTES = 8192  # header, `meta` and first entry at the begin of a pack; `crcs` at its end


class EnginePerThread(threading.local):
    """One decompressor a thread, since it lets other threads run while it works."""

    def __init__(self, make: MakeEngine) -> None:
        self.decompress = make().decompress


class Pool:
    """Files stay mapped, and so readable, when a writer has unlinked them, as long as a version here uses them."""

    def __init__(self, root: StrPath) -> None:
        """Raises StoreError on a processor whose numbers are not those of the files."""
        if sys.byteorder != "little":  # words are read in place, not converted
            raise StoreError(
                f"open {root}: this processor is {sys.byteorder}-endian, expected little-endian, as the files are; "
                "ask another machine's edged over HTTP"
            )
        self.name = os.path.basename(root)
        self.packs_dir = os.path.join(root, PACKS)
        self.files: dict[str, mmap.mmap] = {}
        self.packs: dict[PackRef, Pack] = {}
        self.indexes: dict[tuple[Pack, int], tuple[dict[str, CollectionSchema], Index]] = {}
        self.frames: dict[bytes, Frames] = {NO_DICTIONARY: Frames(b"", EnginePerThread)}
        self.settings: dict[FileRef, ReplicaSettings] = {}
        self.inodes: dict[bytes, int] = {NO_DICTIONARY: 0}
        self.paths: dict[tuple[Pack, str], FieldPaths] = {}

    def map(self, name: str) -> mmap.mmap:
        found = self.files.get(name)
        if found is None:
            found = self.files[name] = map_file(os.path.join(self.packs_dir, name))
        return found

    def forget(self, name: str) -> None:
        """Look at a file anew when it is next needed: what is known of it was read before it was damaged."""
        self.files.pop(name, None)
        self.settings = {ref: item for ref, item in self.settings.items() if file_name(ref.number) != name}

    def foresee(self, state: SliceState) -> list[mmap.mmap]:
        """Map the packs of a slice and have the disk deliver, all at once, what opening them reads: both their ends.

        Otherwise each would be waited for, with megabytes of read-ahead. Returns what was mapped, for `settle`.
        """
        names = {file_name(ref.number) for ref in state.packs() if ref.place not in self.packs} - self.files.keys()
        mapped = [self.map(name) for name in names]
        for file in mapped:
            file.madvise(mmap.MADV_RANDOM)
            file.madvise(mmap.MADV_WILLNEED, 0, ENDS_BYTES)
            file.madvise(mmap.MADV_WILLNEED, max(0, len(file) - ENDS_BYTES) // mmap.PAGESIZE * mmap.PAGESIZE)
        return mapped

    def settle(self, mapped: list[mmap.mmap]) -> None:
        """Let lists read ahead again in what `foresee` has mapped."""
        for file in mapped:
            file.madvise(mmap.MADV_NORMAL)

    def relax(self) -> None:
        """Give back the memory of mapped pages that have been read; they come from the disk's cache again if needed."""
        for file in list(self.files.values()):  # other threads map more meanwhile
            file.madvise(mmap.MADV_DONTNEED)

    def pack(self, ref: PackRef) -> Pack:
        """The pack, its header checked against `ref`. Raises DamageError."""
        place = ref.place
        found = self.packs.get(place)
        if found is None:
            name = file_name(ref.number)
            found = Pack(self.map(name), ref.offset, ref.size, f"{self.name}/{PACKS}/{name}", ref.number)
            if found.crc != ref.crc:
                raise found.damage("it is another pack than the manifest names")
            self.equip(found)
            self.packs[place] = found
        return found

    def equip(self, pack: Pack) -> None:
        """Give `pack` its dictionary and the files that it points into."""
        pack.frames = self.frames_of(pack.meta.dictionary)
        pack.remotes = [(self.map(file_name(number)), self.frames_of(sha256)) for number, sha256 in pack.meta.remotes]

    def frames_of(self, sha256: bytes) -> Frames:
        """Frames with the dictionary of that name (b"" for none). Raises DamageError."""
        found = self.frames.get(sha256)
        inode = self.inode_of(sha256)
        if found is None or self.inodes.get(sha256, inode) != inode:
            # Its SHA-256 is for writers and the audit; a frame of another dictionary fails its own checksum.
            try:
                found = self.frames[sha256] = Frames(self.dictionary(sha256), EnginePerThread)
            except DamagedFrame as fault:
                name = dictionary_name(sha256)
                raise DamageError(f"read {self.name}/{PACKS}/{name}: {fault}; fetch its slice again") from fault
            self.inodes[sha256] = inode
        return found

    def inode_of(self, sha256: bytes) -> int:
        """By which a dictionary that was damaged and has been written anew is told from the one in memory."""
        try:
            return os.stat(os.path.join(self.packs_dir, dictionary_name(sha256))).st_ino if sha256 else 0
        except FileNotFoundError:
            return 0

    def dictionary(self, sha256: bytes) -> bytes:
        path = os.path.join(self.packs_dir, dictionary_name(sha256))
        with explained("read", path):
            try:
                with open(path, "rb") as file:
                    return file.read(limits.DICTIONARY_BYTES + 1)
            except FileNotFoundError as fault:
                raise DamageError(f"open {path}: missing; fetch its slice again") from fault

    def index(self, pack: Pack, ref: FileRef | None, schema: Schema, rules: dict[str, CollectionSchema]) -> Index:
        """The indexes of a pack by `rules`: from its index file, or made here if that is missing, old or damaged."""
        from edged.replica.indexes.index import Index, build_index  # here, as only queries need it

        known = self.indexes.get((pack, ref.number if ref is not None else 0))
        if known is not None and known[0] == rules:
            return known[1]
        found: Index | None = None
        if ref is not None:
            with contextlib.suppress(DamageError):  # derived from the pack, so nothing is lost; the writer mends it
                name = file_name(ref.number)
                found = Index(self.map(name), f"{self.name}/{PACKS}/{name}")
        if found is None or found.rules != rules:
            found = Index(build_index(pack, schema) or b"", pack.file)
        self.indexes[pack, ref.number if ref is not None else 0] = (rules, found)
        return found

    def field_paths(self, pack: Pack, collection: str) -> FieldPaths:
        """Which fields the records of a collection in a pack have."""
        from edged.replica.layers.fieldpaths import FieldPaths  # here, as only `fields=` needs it

        found = self.paths.get((pack, collection))
        return found or self.paths.setdefault((pack, collection), FieldPaths(pack, collection))

    def checked_file(self, ref: FileRef) -> Buffer:
        """A whole file whose CRC-32 is checked now. Raises DamageError."""
        name = file_name(ref.number)
        data = self.map(name)
        if len(data) != ref.size or zlib.crc32(data) != ref.crc:
            raise DamageError(f"read {self.name}/{PACKS}/{name}: the checksum does not hold; fetch it again")
        return data

    def settings_of(self, ref: FileRef | None) -> ReplicaSettings:
        if ref is None:
            return ReplicaSettings()
        found = self.settings.get(ref)
        if found is None:
            found = self.settings[ref] = decode_settings(self.checked_file(ref)[:], file_name(ref.number))
        return found

    def keep(self, *manifests: Manifest) -> None:
        """Let go of what none of `manifests` uses; views that still do keep it mapped."""
        names = set().union(*(manifest.files() for manifest in manifests))
        states: list[SliceState] = [state for manifest in manifests for state in manifest.slices.values()]
        refs = {ref.place for state in states for ref in state.packs()}
        wanted = {sha256 for state in states for sha256 in state.dictionaries} | {NO_DICTIONARY}
        # Lists where other threads, which ask of a version, add more meanwhile.
        self.files = {name: file for name, file in list(self.files.items()) if name in names}
        self.packs = {ref: pack for ref, pack in self.packs.items() if ref in refs}
        held = set(self.packs.values())
        self.indexes = {key: item for key, item in list(self.indexes.items()) if key[0] in held}
        self.paths = {key: item for key, item in list(self.paths.items()) if key[0] in held}
        self.frames = {sha256: frames for sha256, frames in self.frames.items() if sha256 in wanted}
        self.settings = {ref: item for ref, item in self.settings.items() if ref in {m.settings for m in manifests}}
