"""Hops: the changes that turn version A of a slice into version B, coded against what the receiver holds of A.

A hop is a format byte and what the format says. Formats differ in what they cost, never in what they mean; the
publisher takes the smallest. Applying needs the records that the hop touches, one neighbour a new record at most, and
the slice's dictionary: never the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from edged.errors import WireError
from edged.feed import limits
from edged.feed.names import check_collection, check_key
from edged.feed.octets import Octets, write_counted, write_varint
from edged.feed.sections import read_section, write_section

WHOLE = 1  # format: whole records, compressed against the old bytes of those they replace
LEVEL = 19
CHANGES = 16 << 20  # in one hop at most; a snapshot is cheaper long before


class Lookup(Protocol):
    """The receiver's, and at publishing the publisher's, view of version A of the slice."""

    def get(self, collection: str, key: str) -> bytes | None:
        """The record's value bytes, None where there is no such record."""
        ...

    def before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        """The record of `collection` with the greatest key below `key`, in the order of their UTF-8 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """One record set to `value` (deterministic CBOR), or deleted where `value` is None."""

    collection: str
    key: str
    value: bytes | None


def sort_key(change: Change) -> tuple[bytes, bytes]:
    return change.collection.encode(), change.key.encode()


def encode_hop(changes: Sequence[Change], old: Lookup, dictionary: bytes) -> bytes:
    """The smallest coding of `changes` against version A as `old` sees it.

    Changes may come in any order, one at most for a record; those that change nothing are left out.
    Raises WireError for names and keys that are not acceptable and for a record that is changed twice.
    """
    ordered = sorted(changes, key=sort_key)
    for one, other in pairwise(ordered):
        if (one.collection, one.key) == (other.collection, other.key):
            raise WireError(f"encode hop: {one.collection}/{one.key!r} is changed twice; keep the last change")
    for change in ordered:
        check_collection(change.collection)
        check_key(change.key)
    effective = [change for change in ordered if old.get(change.collection, change.key) != change.value]
    return encode_whole(effective, old, dictionary)


def decode_hop(data: bytes, old: Lookup, dictionary: bytes, *, max_bytes: int) -> list[Change]:
    """The changes of a hop, in the order of collection and key, for exactly the version A it was made against.

    max_bytes bounds the values and keys together, decoded. Raises WireError for anything malformed; a hop applied to
    another version than its own may also come out as wrong values, which the digest of version B then tells.
    """
    octets = Octets(data, "hop")
    form = octets.byte()
    if form != WHOLE:
        raise WireError(f"decode hop: format {form} is not known here; update edged or take the snapshot")
    return decode_whole(octets, old, dictionary, max_bytes)


def encode_whole(changes: Sequence[Change], old: Lookup, dictionary: bytes) -> bytes:
    out = bytearray([WHOLE])
    write_section(out, pack_keys(changes), dictionary, LEVEL)
    values = bytearray()
    for change in changes:
        if change.value is not None:
            write_counted(values, change.value)
    context = dictionary + old_values(changes, old)
    write_section(out, bytes(values), context, LEVEL, last=True)
    return bytes(out)


def decode_whole(octets: Octets, old: Lookup, dictionary: bytes, max_bytes: int) -> list[Change]:
    keys = unpack_keys(read_section(octets, dictionary, "keys", max_bytes), max_bytes)
    touched = [Change(collection, key, None) for collection, key, _ in keys]
    context = dictionary + old_values(touched, old)
    values = Octets(read_section(octets, context, "values", max_bytes, last=True), "hop values")
    octets.end()
    changes = []
    for collection, key, deleted in keys:
        value = None if deleted else values.counted(limits.VALUE_BYTES, "size of a value")
        changes.append(Change(collection, key, value))
    values.end()
    return changes


def old_values(changes: Sequence[Change], old: Lookup) -> bytes:
    """The old bytes of every touched record; for a new one those of its neighbour, which is likely to be like it."""
    found: list[bytes] = []
    last = ""
    for change in changes:
        value = old.get(change.collection, change.key)
        if value is None:
            neighbour = old.before(change.collection, change.key)
            if neighbour is None or neighbour[0] == last:
                continue
            last, value = neighbour
        found.append(value)
    return b"".join(found)


def pack_keys(changes: Sequence[Change]) -> bytes:
    """By collection: its name, the number of changes, and for each what it shares with the key before and the rest."""
    out = bytearray()
    collection, previous = "", b""
    counts: dict[str, int] = {}
    for change in changes:
        counts[change.collection] = counts.get(change.collection, 0) + 1
    for change in changes:
        if change.collection != collection:
            collection, previous = change.collection, b""
            write_counted(out, collection.encode())
            write_varint(out, counts[collection])
        key = change.key.encode()
        shared = shared_bytes(previous, key)
        write_varint(out, shared * 2 + (change.value is None))
        write_counted(out, key[shared:])
        previous = key
    return bytes(out)


def shared_bytes(one: bytes, other: bytes) -> int:
    """How many bytes `one` and `other` begin with in common."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


def unpack_keys(data: bytes, max_bytes: int) -> list[tuple[str, str, bool]]:
    """(collection, key, deleted) of every change, checked for order and for names that are not acceptable."""
    octets = Octets(data, "hop keys")
    found: list[tuple[str, str, bool]] = []
    collection, spent = b"", 0
    while octets.at < len(data):
        name = octets.counted(limits.NAME_CHARACTERS, "size of a collection's name")
        if name <= collection:
            raise WireError("decode hop keys: collections are not in order")
        collection, previous = name, b""
        text = check_collection(decode_text(name))
        for _ in range(octets.varint(min(CHANGES, len(data)), "number of changes")):
            shared, deleted = divmod(octets.varint(limits.KEY_BYTES * 2 + 1, "shared bytes of a key"), 2)
            if shared > len(previous):
                raise WireError(f"decode hop keys: {shared} bytes shared with a key of {len(previous)}")
            key = previous[:shared] + octets.counted(limits.KEY_BYTES, "size of a key")
            if key <= previous:
                raise WireError("decode hop keys: keys are not in order")
            spent += len(key)
            if spent > max_bytes:
                raise WireError(f"decode hop keys: more than {max_bytes} bytes of keys")
            found.append((text, check_key(decode_text(key)), bool(deleted)))
            previous = key
    return found


def decode_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as fault:
        raise WireError(f"decode hop keys: not UTF-8: {fault}") from fault
