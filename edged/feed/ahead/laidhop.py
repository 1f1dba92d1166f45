"""The form of a hop that is applied as it lies: each value in the frame in which a replica stores it, and the sum by
which the slice's digest changes.

The other forms take the receiver's time to save bytes. A version ahead has its bytes fetched long before, and none of
the work can be done before its key comes: so here nothing is left to code, compress or hash record by record. What a
frame holds is proved by the receiver once it is live, see replica/writing/laying.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from edged.errors import WireError
from edged.feed import cbor, limits, zstd
from edged.feed.coding.changes import Change, Entry, Lookup
from edged.feed.coding.hop import FORMAT, HEADER_BYTES, LAID, dictionary_tag, tag_of
from edged.feed.digest import STATE_BYTES, SetHash
from edged.feed.names import check_collection, check_key

CHANGED, ADDED, REMOVED = 0, 1, 2  # what a change does to the number of records
RECORDS = 8192  # in one hop
SUMMED = 32  # changes from which on the sum is worth its 2 kB: fewer are soon summed by who applies them
CONTENT_BYTES = 16 << 20  # of values, decompressed
FRAME = zstd.FrameForm(level=19, checksum=True, typical_bytes=600)
RESERVED_BIT = 0x08  # of a frame's first byte: RFC 8878 section 3.1.1.1.1


class LaidChange(NamedTuple):
    """frame: the value's, without the magic number, empty where the record is removed. kind: see CHANGED."""

    collection: str
    key: str
    frame: bytes
    kind: int


class Laid(NamedTuple):
    """sum: what is added to the slice's sum, b"" where who applies it is to find out; changes: in the order of
    collection and key."""

    sum: bytes
    changes: list[LaidChange]


def fits(entries: Sequence[Entry]) -> bool:
    content = sum(len(value or b"") for _, _, value in entries)
    return len(entries) <= RECORDS and content <= CONTENT_BYTES


def pack_laid(changes: Sequence[Change], old: Lookup, dictionary: bytes) -> bytes:
    """The hop for changes in the order of collection and key, each of which changes something, and which fit."""
    entries = [(change.collection, change.key, change.value) for change in changes]
    return bytes([FORMAT]) + tag_of(dictionary) + bytes([LAID]) + encode_laid(entries, old, dictionary)


def laid_of(blob: bytes) -> Laid | None:
    """What a verified hop of this form holds, None for one of another. Raises WireError."""
    dictionary_tag(blob)
    return decode_laid(blob[HEADER_BYTES + 1 :]) if blob[HEADER_BYTES : HEADER_BYTES + 1] == bytes([LAID]) else None


def encode_laid(entries: Sequence[Entry], old: Lookup, dictionary: bytes) -> bytes:
    """The hop without its header."""
    engine = zstd.compressor(FRAME, zstd.prepared(dictionary))
    total = SetHash()
    groups = []
    for collection, group in groupby(entries, key=lambda entry: entry[0]):
        keys, frames, kinds = [], [], bytearray()
        for _, key, value in group:
            before = old.get(collection, key)
            if before is not None:
                total.remove(collection, key, before)
            if value is not None:
                total.add(collection, key, value)
            keys.append(key)
            frames.append(b"" if value is None else engine.compress(value)[len(zstd.MAGIC) :])
            kinds.append(REMOVED if value is None else ADDED if before is None else CHANGED)
        groups.append([collection, keys, frames, bytes(kinds)])
    return cbor.encode([total.state() if len(entries) >= SUMMED else b"", groups])


def decode_laid(data: bytes) -> Laid:
    """Raises WireError. No frame is decompressed, but what each says of itself is within bounds."""
    match cbor.decode_document(data, "laid hop", depth=4):
        case [bytes() as total, list() as groups] if len(total) in (0, STATE_BYTES):
            changes = [change for group in groups for change in changes_of(group)]
        case _:
            raise WireError("decode laid hop: not [sum, collections]")
    names = [(change.collection.encode(), change.key.encode()) for change in changes]
    if any(one >= other for one, other in pairwise(names)):
        raise WireError("decode laid hop: its changes are not in order, or one record is changed twice")
    if len(changes) > RECORDS:
        raise WireError(f"decode laid hop: {len(changes)} changes, at most {RECORDS} are allowed")
    content = sum(content_bytes(change) for change in changes)
    if content > CONTENT_BYTES:
        raise WireError(f"decode laid hop: values of {content} bytes, at most {CONTENT_BYTES} are allowed")
    return Laid(total, changes)


def changes_of(group: object) -> Iterator[LaidChange]:
    match group:
        case [str() as collection, list() as keys, list() as frames, bytes() as kinds] if (
            len(keys) == len(frames) == len(kinds)
        ):
            check_collection(collection)
            for key, frame, kind in zip(keys, frames, kinds, strict=True):
                if not isinstance(key, str) or not isinstance(frame, bytes) or kind > REMOVED:
                    raise WireError("decode laid hop: a change is not [key, frame, kind]")
                yield LaidChange(collection, check_key(key), frame, kind)
        case _:
            raise WireError("decode laid hop: not [collection, keys, frames, kinds]")


def content_bytes(change: LaidChange) -> int:
    """What the value takes, as its frame says. Raises WireError for a frame that a replica would not have made."""
    what, frame = f"value of {change.collection}/{change.key}", change.frame
    if (change.kind == REMOVED) == bool(frame):
        raise WireError(f"decode laid hop: {what}: a record that is removed has no frame, any other one")
    if not frame:
        return 0
    # Where a pack has another kind of entry, this bit is set: a frame must never be taken for a pointer.
    if frame[0] & RESERVED_BIT or zstd.frame_end(frame) != len(frame):
        raise WireError(f"decode laid hop: {what}: not exactly one frame")
    size = zstd.declared_bytes(frame, what, magicless=True)
    if size > limits.VALUE_BYTES:
        raise WireError(f"decode laid hop: {what}: {size} bytes, at most {limits.VALUE_BYTES} are allowed")
    return size


def changes_with_values(laid: Laid, dictionary: bytes) -> list[Change]:
    """Raises WireError for a frame that does not decompress."""
    found: list[Change] = []
    for collection, key, frame, _ in laid.changes:
        what = f"value of {collection}/{key}"
        size = zstd.declared_bytes(frame, what, magicless=True) if frame else 0
        value = zstd.decompress_magicless(frame, dictionary, what, size) if frame else None
        found.append(Change(collection, key, value))
    return found
