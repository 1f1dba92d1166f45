"""The manifest: which packs make up which version. It ends a commit file, which may also hold that commit's packs.

A commit file is a header, the packs of the commit, and the manifest. `manifest` is a hard link to the newest one and
`manifest.1` to the one before, so that a commit is one file, one link and one rename. Specification: docs/replica.md.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from edged.errors import DamageError, WireError
from edged.feed import cbor
from edged.feed.names import check_name
from edged.replica.packs.pack import Buffer

MAGIC = b"\x89EDGMF\r\n"
FORMAT = 3
HEADER = struct.Struct("<8sHHIQII")  # magic, format, 0, bytes of manifest, its offset, its CRC-32, CRC-32 of the above
MANIFEST_BYTES = 64 << 20
DICTIONARY_SUFFIX = ".dict"
STATE_BYTES = 2048  # feed.digest.STATE_BYTES, here so that readers do not load hashlib and with it libcrypto (3 MB)
NOTHING: Mapping[str, Any] = MappingProxyType({})
NO_TIMES: Mapping[int, int] = MappingProxyType({})


class FileRef(NamedTuple):
    """A whole file of `packs/`: its number, size in bytes and CRC-32 (of a pack: the one in its header)."""

    number: int
    size: int
    crc: int

    def to_cbor(self) -> list[int]:
        return [self.number, self.size, self.crc]


class PackRef(NamedTuple):
    """A pack: file number, offset in it, size, and the CRC-32 in its header. index: the file with its indexes."""

    number: int
    offset: int
    size: int
    crc: int
    index: FileRef | None = None  # type: ignore[assignment]  # hides tuple.index, which means nothing here

    @property
    def place(self) -> PackRef:
        """The same without its index, as which a pack is known."""
        return self if self.index is None else PackRef(self.number, self.offset, self.size, self.crc)

    def to_cbor(self) -> list[Any]:
        place: list[Any] = [self.number, self.offset, self.size, self.crc]
        return place if self.index is None else [*place, self.index.to_cbor()]


class SliceState(NamedTuple):
    """A slice as it is held. Packs shadow each other: fresh (newest last) over middle (newest last) over base.

    version: of the slice; records: live ones; state: the LtHash sum; dictionaries: SHA-256 of each, newest last;
    floor: the oldest version that `changes` can start from; counts: live records by collection;
    base: packs of one key range each, in key order; remotes: numbers of files that entries of other packs point into;
    purged: the takedowns of which its files hold nothing any more (settings.takedown_mark); cut: whether a record was
    taken out of it that its version has, so that no hop can be applied to it.
    """

    version: int = 0
    records: int = 0
    state: bytes = bytes(STATE_BYTES)
    dictionaries: tuple[bytes, ...] = ()
    floor: int = 0
    counts: Mapping[str, int] = NOTHING
    base: tuple[PackRef, ...] = ()
    middle: tuple[PackRef, ...] = ()
    fresh: tuple[PackRef, ...] = ()
    remotes: tuple[int, ...] = ()
    purged: int = 0
    cut: bool = False

    def packs(self) -> Iterator[PackRef]:
        yield from self.base
        yield from self.middle
        yield from self.fresh

    def to_cbor(self) -> list[Any]:
        return [
            self.version,
            self.records,
            self.state,
            list(self.dictionaries),
            self.floor,
            dict(self.counts),
            [ref.to_cbor() for ref in self.base],
            [ref.to_cbor() for ref in self.middle],
            [ref.to_cbor() for ref in self.fresh],
            list(self.remotes),
            self.purged,
            self.cut,
        ]


class Manifest(NamedTuple):
    """One version of a replica. generation: grows by one with each manifest, also where the version stays.

    settings: the file with schema and takedowns (settings.py); next_file: the number of the next file;
    flash_bytes: written so far, as whole pages; pinned: the version that sync is to hold, if any; signed: when versions
    were signed of which `changes` may be asked without a time, where the schema declares windows.
    """

    dataset: str
    generation: int = 0
    version: int = 0
    head: bytes = b""
    as_of: int = 0
    fresh_s: int = 0
    expires_s: int = 0
    settings: FileRef | None = None
    next_file: int = 1
    flash_bytes: int = 0
    pinned: int | None = None
    collections: Mapping[str, int] = NOTHING
    slices: Mapping[str, SliceState] = NOTHING
    signed: Mapping[int, int] = NO_TIMES

    def files(self) -> set[str]:
        """Names below `packs/` of everything that this version needs."""
        names: set[str] = set()
        if self.settings is not None:
            names.add(file_name(self.settings.number))
        for state in self.slices.values():
            names.update(dictionary_name(sha256) for sha256 in state.dictionaries)
            names.update(file_name(number) for number in state.remotes)
            for ref in state.packs():
                names.add(file_name(ref.number))
                if ref.index is not None:
                    names.add(file_name(ref.index.number))
        return names

    def to_cbor(self) -> dict[int, Any]:
        return {
            1: self.dataset,
            2: self.generation,
            3: self.version,
            4: self.head,
            5: [self.as_of, self.fresh_s, self.expires_s],
            6: None if self.settings is None else self.settings.to_cbor(),
            7: self.next_file,
            8: self.flash_bytes,
            9: self.pinned,
            10: dict(self.collections),
            11: {name: state.to_cbor() for name, state in self.slices.items()},
            **({12: dict(self.signed)} if self.signed else {}),
        }


def file_name(number: int) -> str:
    """The name below `packs/` of file `number`."""
    return f"{number:08x}.pack"


def dictionary_name(sha256: bytes) -> str:
    """The name below `packs/` of a dictionary."""
    return sha256.hex() + DICTIONARY_SUFFIX


def encode_commit(manifest: Manifest, packs: bytes) -> bytes:
    """A commit file. packs: what goes between header and manifest; PackRef offsets into it count HEADER.size on."""
    document = cbor.encode(manifest.to_cbor())
    start = HEADER.size + len(packs)
    head = HEADER.pack(MAGIC, FORMAT, 0, len(document), start, zlib.crc32(document), 0)[:-4]
    return b"".join((head, struct.pack("<I", zlib.crc32(head)), packs, document))


def decode_commit(buffer: Buffer, file: str) -> Manifest:
    """The manifest in a commit file. Raises DamageError."""
    head = buffer[: HEADER.size]
    if len(head) < HEADER.size or zlib.crc32(head[:-4]) != int.from_bytes(head[-4:], "little"):
        raise DamageError(f"read {file}: the manifest's header is damaged; edged goes back to the version before")
    magic, form, _, length, start, crc, _ = HEADER.unpack(head)
    if magic != MAGIC or form != FORMAT:
        raise DamageError(f"read {file}: not a manifest of format {FORMAT}; written by another edged? update edged")
    if length > MANIFEST_BYTES:
        raise DamageError(f"read {file}: a manifest of {length} bytes, at most {MANIFEST_BYTES} are allowed")
    document = buffer[start : start + length]
    if len(document) != length or zlib.crc32(document) != crc:
        raise DamageError(f"read {file}: the manifest is damaged or cut short; edged goes back to the version before")
    try:
        return manifest_from_cbor(cbor.decode(document, f"manifest {file}", depth=8))
    except (WireError, ValueError, TypeError) as fault:
        raise DamageError(f"read {file}: the manifest cannot be decoded: {fault}") from fault


def manifest_from_cbor(item: object) -> Manifest:
    match item:
        case {
            1: dataset,
            2: int() as generation,
            3: int() as version,
            4: bytes() as head,
            5: [int() as as_of, int() as fresh_s, int() as expires_s],
            6: settings,
            7: int() as next_file,
            8: int() as flash_bytes,
            9: (int() | None) as pinned,
            10: dict() as collections,
            11: dict() as slices,
            **more,
        }:
            return Manifest(
                check_name(dataset, "dataset"),
                generation,
                version,
                head,
                as_of,
                fresh_s,
                expires_s,
                None if settings is None else FileRef(*settings),
                next_file,
                flash_bytes,
                pinned,
                collections,
                {check_name(name, "slice"): slice_from_cbor(entry) for name, entry in slices.items()},
                times_from_cbor(more.get(12, {})),
            )
    raise WireError(f"a field is missing or of another kind than in format {FORMAT}")


def times_from_cbor(item: object) -> Mapping[int, int]:
    if isinstance(item, dict) and all(isinstance(part, int) for pair in item.items() for part in pair):
        return item
    raise WireError("the times of versions are no map of numbers")


def slice_from_cbor(item: Any) -> SliceState:
    version, records, state, dictionaries, floor, counts, base, middle, fresh, remotes, purged, cut = item
    if len(state) != STATE_BYTES:
        raise WireError(f"the digest's sum has {len(state)} bytes, expected {STATE_BYTES}")
    return SliceState(
        version,
        records,
        state,
        tuple(dictionaries),
        floor,
        counts,
        tuple(pack_from_cbor(ref) for ref in base),
        tuple(pack_from_cbor(ref) for ref in middle),
        tuple(pack_from_cbor(ref) for ref in fresh),
        tuple(remotes),
        purged,
        cut,
    )


def pack_from_cbor(item: Any) -> PackRef:
    number, offset, size, crc, *index = item
    return PackRef(number, offset, size, crc, FileRef(*index[0]) if index else None)
