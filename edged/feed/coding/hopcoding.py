"""Hops: the changes that turn version A of a slice into version B, coded against what the receiver holds of A.

A hop is a format byte and what the format says. Formats differ in what they cost, never in what they mean; the
publisher takes the smaller. Applying needs the records that the hop touches, one neighbour a new record at most, and
the slice's dictionary: never the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from edged.errors import WireError
from edged.feed.coding.arithmetic import BITS_MOST, TooLong
from edged.feed.coding.changes import Change, Lookup, sort_key
from edged.feed.coding.modelledhop import CHANGES_MOST, NEW_BYTES, decode_modelled, encode_modelled
from edged.feed.coding.wholehop import decode_whole, encode_whole
from edged.feed.names import check_collection, check_key

WHOLE = 1  # format: whole records, see wholehop
MODELLED = 3  # format: patches, see modelledhop


def encode_hop(changes: Sequence[Change], old: Lookup, dictionary: bytes, bits: int = BITS_MOST) -> bytes:
    """The smallest coding of `changes` against version A as `old` sees it.

    bits: at most so many are coded one by one, at some 15 microseconds each.
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
    whole = encode_whole(entries, old, dictionary)
    if len(entries) <= CHANGES_MOST and sum(len(value or b"") for _, _, value in entries) <= NEW_BYTES:
        try:
            modelled = encode_modelled(entries, old, dictionary, bits)
        except TooLong:  # more than a receiver should work through bit by bit
            return bytes([WHOLE]) + whole
        if len(modelled) <= len(whole):
            return bytes([MODELLED]) + modelled
    return bytes([WHOLE]) + whole


def decode_hop(data: bytes, old: Lookup, dictionary: bytes, *, max_bytes: int) -> list[Change]:
    """The changes of a hop, in the order of collection and key, for exactly the version A it was made against.

    max_bytes bounds keys and values together, decoded. Raises WireError for anything malformed; a hop applied to
    another version than its own may also come out as wrong values, which the digest of version B then tells.
    """
    match data[:1]:
        case b"\x01":
            entries = decode_whole(data[1:], old, dictionary, max_bytes)
        case b"\x03":
            entries = decode_modelled(data[1:], old, dictionary, max_bytes)
        case form:
            raise WireError(f"decode hop: format {form.hex() or 'none'} is not known here; update edged")
    return [Change(*entry) for entry in entries]
