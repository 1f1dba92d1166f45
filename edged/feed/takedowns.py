"""Takedowns: the blob of records that must not be shown in any version, pinned and rolled back ones included.

As it travels it is one zstd frame around CBOR: {1: format, 2: {collection: [keys in the order of their bytes]}}.
"""

from __future__ import annotations

from collections.abc import Iterable

from edged.errors import WireError
from edged.feed import cbor, limits, zstd
from edged.feed.names import check_collection, check_key

FORMAT = 1


def encode_takedowns(entries: Iterable[tuple[str, str]]) -> bytes:
    """The blob for (collection, key) `entries`, in any order. Raises WireError for names that are not acceptable."""
    keys: dict[str, list[str]] = {}
    for collection, key in sorted(set(entries), key=lambda entry: (entry[0], entry[1].encode())):
        keys.setdefault(check_collection(collection), []).append(check_key(key))
    document = cbor.encode({1: FORMAT, 2: keys})
    if len(document) > limits.CHAIN_BYTES:
        raise WireError(
            f"encode takedowns: {len(document)} bytes, at most {limits.CHAIN_BYTES} are allowed; restore some"
        )
    cbor.check_items(document, "encode takedowns")
    return zstd.compress(document)


def decode_takedowns(data: bytes) -> frozenset[tuple[str, str]]:
    """The (collection, key) entries of a blob whose hash has been checked. Raises WireError."""
    document = cbor.decode_document(zstd.decompress(data, "takedowns", limits.CHAIN_BYTES), "takedowns", depth=4)
    match document:
        case {1: 1, 2: dict() as collections} if len(document) == 2:
            return frozenset(
                (check_collection(collection), check_key(key))
                for collection, keys in collections.items()
                for key in keys_of(keys)
            )
    raise WireError(f"decode takedowns: unknown format or a missing field; this edged reads format {FORMAT}")


def keys_of(item: object) -> list[object]:
    if not isinstance(item, list):
        raise WireError("decode takedowns: a collection's keys are not a list")
    return item
