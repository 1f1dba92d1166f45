"""Hops: the changes that turn version A of a slice into version B, coded against what the receiver holds of A.

A hop travels as a format byte, the tag of the dictionary it was coded with, and the coded changes: a form byte and what
the form says. Forms differ in what they cost, never in what they mean; the publisher takes the smaller. Applying needs
the records that the hop touches, one neighbour a new record at most, and the slice's dictionary: never the state.

Which slice it is of and between which versions is said by the signed head or by the chain that the head names, never
by the hop itself; whether it fits is proved by the digest of the state after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

from edged.errors import ChainError, WireError
from edged.feed import limits
from edged.feed.coding.arithmetic import BITS_MOST, TooLong
from edged.feed.coding.changes import Change, Entry, Lookup, sort_key
from edged.feed.coding.modelledhop import (
    CHANGE_BITS,
    CHANGES_MOST,
    NEW_BYTES,
    decode_mass,
    decode_modelled,
    encode_mass,
    encode_modelled,
)
from edged.feed.coding.wholehop import decode_whole, encode_whole
from edged.feed.names import check_collection, check_key

FORMAT = 3
DICTIONARY_TAG_BYTES = 4
HEADER_BYTES = 1 + DICTIONARY_TAG_BYTES
NO_DICTIONARY_TAG = bytes(DICTIONARY_TAG_BYTES)
WHOLE = 1  # form: whole records, see wholehop
MODELLED = 2  # form: patches, see modelledhop
MASS = 3  # form: patches of many records, see modelledhop
LAID = 4  # form: values as a replica stores them, of versions ahead alone, see feed/ahead/laidhop
NEW_BYTE_BITS = {MODELLED: 2, MASS: 1}  # coded for each byte of new records, in the form for many without their texts
MASS_CHANGES = 64  # from so many on records are named by their places
SURELY_LESS = (
    100  # modelled bytes of which so many times are less than the content are not tried against the whole form
)


def tag_of(dictionary: bytes) -> bytes:
    """The first bytes of the dictionary's SHA-256; zeros for no dictionary."""
    return hashlib.sha256(dictionary).digest()[:DICTIONARY_TAG_BYTES] if dictionary else NO_DICTIONARY_TAG


def pack_hop(changes: Sequence[Change], old: Lookup, dictionary: bytes, bits: int = BITS_MOST) -> bytes:
    """The blob for `changes` against `old`. dictionary: the slice's trained one, or b""; bits: see encode_hop."""
    return bytes([FORMAT]) + tag_of(dictionary) + encode_hop(changes, old, dictionary, bits)


def is_whole(blob: bytes) -> bool:
    """Whether a hop of ours is of whole records: nothing smaller was within the work that a receiver is given."""
    return blob[HEADER_BYTES] == WHOLE


def dictionary_tag(blob: bytes) -> bytes:
    """The tag of the dictionary that a verified hop needs; NO_DICTIONARY_TAG for none. Raises WireError."""
    if len(blob) < HEADER_BYTES:
        raise WireError(f"hop: {len(blob)} bytes, expected more than {HEADER_BYTES}")
    if blob[0] != FORMAT:
        raise WireError(f"hop: format {blob[0]}, this edged reads {FORMAT}; update edged")
    return blob[1:HEADER_BYTES]


def unpack_hop(blob: bytes, old: Lookup, dictionary: bytes, *, max_bytes: int = limits.HOP_BYTES) -> list[Change]:
    """The changes of a verified hop against the receiver's `old` records.

    Raises WireError for malformed bytes and ChainError if `dictionary` is not the one it was coded with.
    """
    if dictionary_tag(blob) != tag_of(dictionary):
        raise ChainError(
            f"hop: coded with dictionary {dictionary_tag(blob).hex()}, got {tag_of(dictionary).hex()}; "
            "fetch the dictionary that the chain names"
        )
    return decode_hop(blob[HEADER_BYTES:], old, dictionary, max_bytes=max_bytes)


def encode_hop(changes: Sequence[Change], old: Lookup, dictionary: bytes, bits: int = BITS_MOST) -> bytes:
    """The smallest coding of `changes` against version A as `old` sees it.

    bits: at most so many are coded one by one, at some 5 microseconds each; 0: none, records are whole.
    Changes may come in any order, one at most for a record; those that change nothing are left out.
    Raises WireError for names and keys that are not acceptable, a record that is changed twice, and a value that is
    not deterministic CBOR of the JSON data model.
    """
    ordered = sorted(changes, key=sort_key)
    for one, other in pairwise(ordered):
        if (one.collection, one.key) == (other.collection, other.key):
            raise WireError(f"encode hop: {one.collection}/{one.key!r} is changed twice; keep the last change")
    entries = []
    for change in ordered:
        check_collection(change.collection)
        check_key(change.key)
        if old.get(change.collection, change.key) != change.value:
            entries.append((change.collection, change.key, change.value))
    return smallest(entries, old, dictionary, bits)


def smallest(entries: Sequence[Entry], old: Lookup, dictionary: bytes, bits: int) -> bytes:
    """The smallest form of changes. What cannot come out smaller, or would be too much work, is not tried."""
    modelled = b""
    new_bytes = sum(len(value or b"") for _, _, value in entries)
    if len(entries) <= CHANGES_MOST and new_bytes <= NEW_BYTES:
        for form in forms_worth_trying(entries, old, bits):
            encode = encode_mass if form == MASS else encode_modelled
            try:
                modelled = bytes([form]) + encode(entries, old, dictionary, bits)
                break
            except TooLong:  # more than a receiver should work through bit by bit
                continue
    if modelled and len(modelled) * SURELY_LESS < new_bytes:
        return modelled
    whole = bytes([WHOLE]) + encode_whole(entries, old, dictionary)
    return modelled if modelled and len(modelled) <= len(whole) else whole


def forms_worth_trying(entries: Sequence[Entry], old: Lookup, bits: int) -> list[int]:
    """The forms coded bit by bit that may come out within `bits`, by what new records take in them at the least."""
    room = bits + CHANGE_BITS * len(entries)
    new_bytes = sum(len(value) for name, key, value in entries if value is not None and old.get(name, key) is None)
    if not bits:
        return []
    forms = [MODELLED] if len(entries) < MASS_CHANGES and new_bytes * NEW_BYTE_BITS[MODELLED] <= room else []
    return [*forms, MASS] if new_bytes * NEW_BYTE_BITS[MASS] <= room else forms


def decode_hop(data: bytes, old: Lookup, dictionary: bytes, *, max_bytes: int) -> list[Change]:
    """The changes of a hop, in the order of collection and key, for exactly the version A it was made against.

    max_bytes bounds keys and values together, decoded. Raises WireError for anything malformed; a hop applied to
    another version than its own may also come out as wrong values, which the digest of version B then tells.
    """
    match data[:1]:
        case b"\x01":
            entries = decode_whole(data[1:], old, dictionary, max_bytes)
        case b"\x02":
            entries = decode_modelled(data[1:], old, dictionary, max_bytes)
        case b"\x03":
            entries = decode_mass(data[1:], old, dictionary, max_bytes)
        case form:
            raise WireError(f"decode hop: format {form.hex() or 'none'} is not known here; update edged")
    return [Change(*entry) for entry in entries]
