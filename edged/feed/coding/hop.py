"""A hop as it travels: a format byte, the tag of the dictionary it was coded with, and the coded changes.

Which slice it is of and between which versions is said by the signed head or by the chain that the head names, never
by the hop itself; whether it fits is proved by the digest of the state after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from edged.errors import ChainError, WireError
from edged.feed import limits
from edged.feed.coding.arithmetic import BITS_MOST
from edged.feed.coding.changes import Change, Lookup
from edged.feed.coding.hopcoding import decode_hop, encode_hop

FORMAT = 1
DICTIONARY_TAG_BYTES = 4
HEADER_BYTES = 1 + DICTIONARY_TAG_BYTES
NO_DICTIONARY_TAG = bytes(DICTIONARY_TAG_BYTES)


def tag_of(dictionary: bytes) -> bytes:
    """The first bytes of the dictionary's SHA-256; zeros for no dictionary."""
    return hashlib.sha256(dictionary).digest()[:DICTIONARY_TAG_BYTES] if dictionary else NO_DICTIONARY_TAG


def pack_hop(changes: Sequence[Change], old: Lookup, dictionary: bytes, bits: int = BITS_MOST) -> bytes:
    """The blob for `changes` against `old`. dictionary: the slice's trained one, or b""; bits: see encode_hop."""
    return bytes([FORMAT]) + tag_of(dictionary) + encode_hop(changes, old, dictionary, bits)


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
