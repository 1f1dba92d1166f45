"""Staging: a new version built beside the live one. Nothing is visible before `commit`; a method that raises has
changed nothing of what is live."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from edged.errors import ChainError, DamageError, StoreError
from edged.feed import limits
from edged.feed.ahead.laidhop import Laid, laid_of
from edged.feed.blob import BlobRef
from edged.feed.coding.changes import Change, Lookup
from edged.feed.coding.hop import dictionary_tag, tag_of, unpack_hop
from edged.feed.coding.snapshot import decode_part
from edged.feed.digest import SetHash
from edged.feed.names import check_name
from edged.feed.schema import Schema
from edged.replica.files import disk as files
from edged.replica.files.manifest import HEADER, FileRef, Manifest, SliceState, file_name
from edged.replica.files.settings import ReplicaSettings, encode_settings
from edged.replica.layers.layers import Layers
from edged.replica.packs.pack import Pack
from edged.replica.packs.packbuilder import PackBuilder
from edged.replica.writing.counting import count_all, count_changes
from edged.replica.writing.hopbuilder import PACK_BYTES, HopBuilder
from edged.replica.writing.laying import Unproved, summed
from edged.replica.writing.live import Live, WriterPool
from edged.replica.writing.newfiles import NewFiles
from edged.replica.writing.parts import (
    build_part,
    clear_parts,
    dictionary_of,
    open_part,
    part_name,
    parts_on_disk,
    with_part,
)

ALIGN = 8
SIGNED_VERSIONS = 64
FRESH_RECORDS = 8192  # a hop of more becomes packs with files of their own


def windows_in(settings: ReplicaSettings | None) -> dict[str, tuple[str, ...]]:
    """The fields of the windows that are declared, by collection."""
    collections = settings.schema.collections if settings is not None else {}
    return {name: rules.valid for name, rules in collections.items() if rules.valid}


def signing_times(windows: object, before: Mapping[int, int], version: int, as_of: int) -> dict[int, int]:
    """When a version and those before it were signed, none where no windows are declared."""
    known = {version: as_of, **{number: time for number, time in before.items() if number <= version}}
    return dict(sorted(known.items())[-SIGNED_VERSIONS:]) if windows else {}


@dataclass
class StagedSlice:
    """A slice under way. parts: staged files by final number; snapshot: the version of one that is being taken;

    touched: records that hops have added or removed.
    """

    state: SliceState
    layers: Layers | None = None
    parts: dict[int, str] = field(default_factory=dict)
    snapshot: int | None = None
    dictionary: bytes = b""
    touched: set[tuple[str, str]] = field(default_factory=set)


class Staging:
    """Made by `Writer.stage()`. Leave the `with` block without `commit` and the live version stays.

    Snapshot parts that were added stay on disk for a later attempt, unless `abort` is called.
    """

    def __init__(
        self,
        live: Live,
        unpack: Callable[[bytes, Lookup, bytes], list[Change]] = unpack_hop,
        decode: Callable[..., Iterator[tuple[str, str, bytes]]] = decode_part,
    ) -> None:
        self.live = live
        self.unpack = unpack
        self.decode = decode
        self.base = live.manifest
        self.pool = WriterPool(live.root)
        for mine, theirs in ((self.pool.files, live.pool.files), (self.pool.packs, live.pool.packs)):
            mine.update(theirs)  # type: ignore[arg-type]
        self.pool.frames.update(live.pool.frames)
        self.pool.inodes.update(live.pool.inodes)
        self.slices: dict[str, StagedSlice] = {name: StagedSlice(state) for name, state in self.base.slices.items()}
        self.files = NewFiles(live, self.pool)
        self.packs = bytearray()  # what goes into the commit file
        self.unproved: list[Unproved] = []
        self.schema: tuple[Schema, int] | None = None
        self.takedowns: tuple[bytes | None, frozenset[tuple[str, str]]] | None = None

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def drop(self) -> None:
        """Forget what was staged, except for snapshot parts on disk."""
        self.files.take_back()
        self.slices.clear()

    def abort(self) -> None:
        """Forget everything that was staged, snapshot parts on disk included."""
        self.drop()
        clear_parts(self.live.disk)

    def staged(self, slice_name: str) -> StagedSlice:
        try:
            return self.slices[slice_name]
        except KeyError:
            raise ChainError(f"stage slice {slice_name!r}: not held; take its snapshot first") from None

    def add_dictionary(self, slice_name: str, data: bytes) -> None:
        """Keep a dictionary for the slice, named by its SHA-256; new records are compressed with it."""
        staged = self.staged(slice_name)
        sha256 = self.keep_dictionary(data)
        others = tuple(item for item in staged.state.dictionaries if item != sha256)
        staged.state = staged.state._replace(dictionaries=(*others, sha256))

    def keep_dictionary(self, data: bytes) -> bytes:
        if not 0 < len(data) <= limits.DICTIONARY_BYTES:
            raise ChainError(f"dictionary of {len(data)} bytes: expected 1 to {limits.DICTIONARY_BYTES}")
        sha256 = hashlib.sha256(data).digest()
        self.files.write_dictionary(sha256, data)
        return sha256

    def begin_snapshot(self, slice_name: str, version: int, dictionary: bytes | None) -> None:
        """Build the slice anew from the snapshot of `version`, whose parts follow. dictionary: as records use it."""
        check_name(slice_name, "slice")
        known = (self.keep_dictionary(dictionary),) if dictionary else ()
        state = SliceState(version=version, dictionaries=known, floor=version)
        self.slices[slice_name] = StagedSlice(state, snapshot=version, dictionary=dictionary or b"")

    def parts_on_disk(self, slice_name: str) -> frozenset[bytes]:
        """SHA-256 of the snapshot parts of the slice that lie staged from an attempt before, unchecked."""
        return parts_on_disk(self.live.disk, slice_name)

    def open_part(self, slice_name: str, ref: BlobRef) -> Pack | None:
        staged = self.staged(slice_name)
        return open_part(self.live.disk, slice_name, staged.state, staged.snapshot, ref)

    def has_part(self, slice_name: str, ref: BlobRef) -> bool:
        """Whether a part of the snapshot begun is on disk already, from before a restart; it then counts as added."""
        staged = self.staged(slice_name)
        name = part_name(slice_name, ref)
        if name in staged.parts.values():
            return True
        pack = self.open_part(slice_name, ref)
        if pack is None:
            return False
        self.take_part(staged, name, pack)
        return True

    def add_part(self, slice_name: str, ref: BlobRef, data: bytes) -> None:
        """Take a verified part of the snapshot begun. Raises WireError for bytes that are not a part."""
        staged = self.staged(slice_name)
        if staged.snapshot is None:
            raise ChainError(f"add part to slice {slice_name}: no snapshot was begun")
        if self.has_part(slice_name, ref):
            return
        sha256 = dictionary_of(staged.state)
        records = self.decode(data, staged.dictionary, max_bytes=limits.PART_BYTES)
        name = part_name(slice_name, ref)
        pack_bytes = build_part(slice_name, staged.snapshot, sha256, records, self.pool.frames_of(sha256))
        self.live.disk.write(f"{files.STAGING}/{name}", pack_bytes)
        pack = self.open_part(slice_name, ref)
        if pack is None:
            raise StoreError(f"read back {files.STAGING}/{name}: not as written; the disk is failing")
        self.take_part(staged, name, pack)

    def take_part(self, staged: StagedSlice, name: str, pack: Pack) -> None:
        """Add a staged pack to the slice's base."""
        pack.number = self.files.number()
        ref = self.files.register(pack)
        staged.state = with_part(staged.state, pack, ref, self.pool)
        staged.parts[pack.number] = name
        staged.layers = None

    def current(self, slice_name: str) -> Layers:
        """The slice as staged so far. Raises DamageError if what is held of it cannot be read."""
        staged = self.staged(slice_name)
        if staged.layers is None:
            former = self.live.layers(slice_name) if self.base.slices.get(slice_name) == staged.state else None
            staged.layers = former or Layers(slice_name, staged.state, self.pool)
        return staged.layers

    def apply_hop(self, slice_name: str, to_version: int, data: bytes) -> None:
        """Apply a verified hop to the staged state. Raises WireError, ChainError, DamageError."""
        staged = self.staged(slice_name)
        if to_version <= staged.state.version:
            raise ChainError(
                f"apply hop to slice {slice_name}: leads to version {to_version}, {staged.state.version} is held"
            )
        layers = self.current(slice_name)
        dictionary = self.dictionary_for(staged.state, data)
        laid = laid_of(data)
        if laid is not None and dictionary_tag(data) == tag_of(dictionary):
            self.lay(slice_name, to_version, laid, dictionary)
            return
        changes = self.unpack(data, layers, dictionary)
        self.apply_changes(slice_name, to_version, changes)

    def lay(self, slice_name: str, to_version: int, laid: Laid, dictionary: bytes) -> None:
        """Take what a hop holds as it lies. Where it brings its sum along it is proved once it is live."""
        staged, layers = self.staged(slice_name), self.current(slice_name)
        sha256 = hashlib.sha256(dictionary).digest() if dictionary else b""
        builder = HopBuilder(slice_name, staged.state, to_version, sha256, self.pool.frames_of(sha256))
        if laid.sum:
            total = SetHash(staged.state.state)
            total.merge(SetHash(laid.sum))
        else:
            total = summed(layers, laid, sha256)
        builder.lay(laid, total)
        self.take_built(staged, layers, builder)
        if laid.sum:
            self.unproved.append(Unproved(slice_name, layers, staged.state, laid, sha256))

    def dictionary_for(self, state: SliceState, data: bytes) -> bytes:
        """The dictionary that a hop names, b"" if it names none that is held (unpacking then says so)."""
        tag = dictionary_tag(data)
        for sha256 in state.dictionaries:
            dictionary = self.pool.frames_of(sha256).dictionary
            if tag_of(dictionary) == tag:
                return dictionary
        return b""

    def apply_changes(self, slice_name: str, to_version: int, changes: Sequence[Change]) -> None:
        """Apply decoded changes, one at most a record."""
        staged, layers = self.staged(slice_name), self.current(slice_name)
        sha256 = staged.state.dictionaries[-1] if staged.state.dictionaries else b""
        builder = HopBuilder(slice_name, staged.state, to_version, sha256, self.pool.frames_of(sha256))
        builder.apply(changes, layers, self.live.pool.relax)
        self.take_built(staged, layers, builder)

    def take_built(self, staged: StagedSlice, layers: Layers, builder: HopBuilder) -> None:
        staged.touched |= builder.touched
        staged.state = self.place_packs(builder.state(), builder.builders)
        staged.layers = Layers(builder.slice_name, staged.state, self.pool, layers)

    def place_packs(self, state: SliceState, builders: list[PackBuilder]) -> SliceState:
        """Put the packs of one hop into the commit file, or into files of their own if they are large."""
        if sum(map(len, builders)) <= FRESH_RECORDS and builders[-1].size <= PACK_BYTES:
            data = builders[0].finish()
            if not len(builders[0]):
                return state
            self.packs += bytes(-len(self.packs) % ALIGN)
            pack = Pack(data, 0, len(data), file_name(self.files.commit_file), self.files.commit_file)
            ref = self.files.register(pack, HEADER.size + len(self.packs))
            self.packs += data
            return state._replace(fresh=(*state.fresh, ref))
        # Fresh packs are newer than middle ones, so those there are go down with the hop.
        refs = [*state.middle, *state.fresh]
        for builder in builders:
            data = builder.finish(upper=True)
            refs.append(self.files.write_pack(data))
        return state._replace(middle=tuple(refs), fresh=())

    def drop_slice(self, slice_name: str) -> None:
        """Give a slice up; its packs go with the commit."""
        self.slices.pop(slice_name, None)

    def digest(self, slice_name: str) -> tuple[bytes, int]:
        """(digest, records) of the slice as staged."""
        state = self.staged(slice_name).state
        return SetHash(state.state).digest(), state.records

    def set_schema(self, schema: Schema, schema_version: int) -> None:
        self.schema = (schema, schema_version)

    def set_takedowns(self, blob: bytes | None, entries: Iterable[tuple[str, str]]) -> None:
        """Replace the takedowns: `blob` as published, `entries` the (collection, key) in it."""
        self.takedowns = (blob, frozenset(entries))

    def settings(self, version: int) -> ReplicaSettings:
        """What the settings file is to say. Raises DamageError where it is damaged and nothing replaces it."""
        held = self.live.settings()
        if held is None:
            if self.schema is None and self.takedowns is None:  # what was taken down would come back
                raise DamageError(
                    f"commit {self.base.dataset}: the file with schema and takedowns cannot be read; set both anew"
                )
            held = ReplicaSettings()
        if self.schema is not None:
            held = held._replace(schema=self.schema[0], schema_version=self.schema[1])
        if self.takedowns is not None:
            blob, entries = self.takedowns
            hidden = {name: held.hidden.get(name, version) for name in entries}
            restored = {name: version for name in held.hidden if name not in entries}
            kept = {name: since for name, since in held.restored.items() if name not in entries}
            held = held._replace(takedowns=blob, hidden=hidden, restored={**kept, **restored})
        return held

    def write_settings(self, version: int) -> tuple[FileRef | None, ReplicaSettings]:
        settings = self.settings(version)
        if self.base.settings is not None and settings == self.live.settings():
            return self.base.settings, settings
        return self.files.write(encode_settings(settings)), settings

    def link_parts(self) -> None:
        """Give the staged parts their names as packs; the staged names go only when the version is live."""
        for staged in self.slices.values():
            for number, name in staged.parts.items():
                self.live.disk.link(f"{files.STAGING}/{name}", f"{files.PACKS}/{file_name(number)}")
                self.files.names.append(file_name(number))

    def commit(self, version: int, head: bytes, *, as_of: int, fresh_s: int, expires_s: int) -> int:
        """Make what was staged the live version, durably. Returns the bytes written to flash since `stage()`.

        Checks nothing of trust: the caller has compared `digest` with the signed head. Raises StoreError, and then
        the version before is still live and whole.
        """
        live = self.live
        if live.manifest is not self.base:
            raise StoreError(f"commit {self.base.dataset}: another version was committed meanwhile; stage again")
        before = live.flash_bytes_written
        self.readable(self.slices)
        self.link_parts()
        settings_ref, settings = self.write_settings(version)
        slices = self.indexed(settings.schema)
        same = windows_in(settings) == windows_in(self.live.settings())
        if set(slices) != set(self.base.slices) or version < self.base.version or not same:
            # Records came or went with a slice or by windows, and no hop says which: `changes` can only begin here. So
            # too when the version goes back: to a pin, or because a stolen key had signed numbers that bind no longer.
            slices = {name: state._replace(floor=version) for name, state in slices.items()}
        manifest = Manifest(
            dataset=self.base.dataset,
            version=version,
            head=head,
            as_of=as_of,
            fresh_s=fresh_s,
            expires_s=expires_s,
            settings=settings_ref,
            next_file=self.files.next_number,
            pinned=self.base.pinned,
            collections=self.count(settings),
            slices=slices,
            signed=signing_times(windows_in(settings), self.base.signed if same else {}, version, as_of),
        )
        live.swap(manifest, bytes(self.packs), self.files.commit_file, self.files.names)
        for slice_name, staged in self.slices.items():
            if staged.snapshot is not None:
                live.marked.pop(slice_name, None)
        self.files.names.clear()
        clear_parts(self.live.disk)
        return live.flash_bytes_written - before

    def prove(self) -> dict[str, str]:
        """After `commit`: the slices in which a hop that was taken as it lay is not what it says, and why."""
        unproved, self.unproved = self.unproved, []
        return {one.slice_name: reason for one in unproved if (reason := one.prove()) is not None}

    def content(self, version: int) -> tuple[Schema, dict[str, int]]:
        """The schema and the records by collection, over all slices, as `commit(version, …)` would make them live."""
        settings = self.settings(version)
        return settings.schema, self.count(settings)

    def is_changed(self, name: str) -> bool:
        return self.slices[name].state != self.base.slices.get(name)

    def readable(self, names: Iterable[str]) -> dict[str, Layers]:
        """Those of the slices that are staged or can be read; damage elsewhere must not hold up a commit."""
        found: dict[str, Layers] = {}
        for name in names:
            try:
                found[name] = self.current(name)
            except DamageError:
                if self.is_changed(name):
                    raise
        return found

    def indexed(self, schema: Schema) -> dict[str, SliceState]:
        """The slices as they go into the manifest, with an index file for each pack that needs one."""
        held = self.live.settings()
        anew = held is None or held.schema != schema
        states: dict[str, SliceState] = {}
        readable = self.readable(self.slices)
        for name in sorted(self.slices):
            state = self.slices[name].state
            if name in readable and (anew or self.is_changed(name)):
                state = self.files.with_indexes(state, schema)
            states[name] = state
        return states

    def count(self, settings: ReplicaSettings) -> dict[str, int]:
        """Records by collection over all slices."""
        held = self.live.settings()
        readable = self.readable(self.slices)
        damaged = [name for name in self.base.slices if self.live.damage_of(name) is not None]
        same = set(self.slices) == set(self.base.slices) and len(readable) == len(self.slices)
        known = same and held is not None and not damaged
        if len(self.slices) == 1 or not known or any(one.snapshot is not None for one in self.slices.values()):
            return count_all(list(readable.values()), settings.hidden)
        touched = {name for one in self.slices.values() for name in one.touched}
        assert held is not None
        touched.update(set(held.hidden) ^ set(settings.hidden))
        before = [self.live.layers(name) for name in self.base.slices]
        return count_changes(
            self.base.collections, touched, (before, held.hidden), (list(readable.values()), settings.hidden)
        )
