"""A bundle: one file with a head, roots of trust and the blobs that lead to that head's version from nothing.

    magic (13 bytes) | length of the header (4 bytes, big-endian) | header (deterministic CBOR) | one blob after another

The header: {1: format, 2: dataset, 3: [slices], 4: head, 5: [[number, root of trust]], 6: [[size, SHA-256]]}. Nothing
in it is trusted: whoever reads it verifies head and roots, and each blob by its name, as if they came from a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from edged.errors import MissingError, WireError
from edged.feed import cbor, limits
from edged.feed.blob import BlobRef
from edged.feed.names import check_name

FORMAT = 1
MAGIC = b"edged bundle\n"
LENGTH_BYTES = 4
HEADER_BYTES = 4 << 20
BLOBS = 30_000  # in one bundle: three items each


@dataclass(frozen=True, slots=True)
class Bundle:
    """head: signed, as published; roots: signed documents by number; blobs: in the order in which they lie."""

    dataset: str
    slices: frozenset[str]
    head: bytes
    roots: Mapping[int, bytes]
    blobs: tuple[BlobRef, ...]

    def encode(self) -> bytes:
        """What goes before the blobs."""
        header = cbor.encode(
            {
                1: FORMAT,
                2: self.dataset,
                3: sorted(self.slices),
                4: self.head,
                5: [[number, data] for number, data in sorted(self.roots.items())],
                6: [blob.to_cbor() for blob in self.blobs],
            }
        )
        if len(header) > HEADER_BYTES or len(self.blobs) > BLOBS:
            raise WireError(f"bundle of {self.dataset}: {len(self.blobs)} blobs are too many; bundle fewer slices")
        return MAGIC + len(header).to_bytes(LENGTH_BYTES, "big") + header


@dataclass(frozen=True, slots=True)
class Layout:
    """A bundle that lies in a file, and where in it each blob begins."""

    bundle: Bundle
    places: Mapping[bytes, int]
    total_bytes: int

    def read_blob(self, file: BinaryIO, ref: BlobRef, what: str) -> bytes:
        """The bytes of a blob, unverified. Raises MissingError if the bundle has none of that name and size."""
        place = self.places.get(ref.sha256)
        if place is None or ref not in self.bundle.blobs:
            raise MissingError(f"read {what} from the bundle: it has no blob {ref.name[:16]}")
        file.seek(place)
        return read_exactly(file, ref.size, what)


def read_layout(file: BinaryIO) -> Layout:
    """What a bundle says of itself. Raises WireError."""
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        raise WireError(f"read bundle: does not begin with {MAGIC!r}; not a bundle, or damaged")
    size = int.from_bytes(read_exactly(file, LENGTH_BYTES, "length of the header"), "big")
    if size > HEADER_BYTES:
        raise WireError(f"read bundle: a header of {size} bytes, at most {HEADER_BYTES} are allowed")
    bundle = decode_header(read_exactly(file, size, "header"))
    places: dict[bytes, int] = {}
    at = len(MAGIC) + LENGTH_BYTES + size
    for ref in bundle.blobs:
        places[ref.sha256] = at
        at += ref.size
    return Layout(bundle, places, at)


def read_exactly(file: BinaryIO, size: int, what: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise WireError(f"read bundle: {what}: expected {size} bytes, got {len(data)}; the file is cut short")
    return data


def decode_header(data: bytes) -> Bundle:
    document = cbor.decode_document(data, "bundle header", depth=6)
    match document:
        case {
            1: 1,
            2: dataset,
            3: list() as slices,
            4: bytes() as head,
            5: list() as roots,
            6: list() as blobs,
        } if len(head) <= limits.HEAD_BYTES and len(blobs) <= BLOBS and len(slices) <= limits.SLICES:
            return Bundle(
                check_name(dataset, "dataset"),
                frozenset(check_name(name, "slice") for name in slices),
                head,
                dict(decode_root_entry(entry) for entry in roots),
                tuple(decode_refs(blobs)),
            )
    raise WireError(f"decode bundle header: unknown format or a missing field; this edged reads format {FORMAT}")


def decode_root_entry(item: Any) -> tuple[int, bytes]:
    match item:
        case [int() as number, bytes() as data] if number >= 1 and len(data) <= limits.TRUST_BYTES:
            return number, data
    raise WireError("decode bundle header: a root of trust is not [number, signed document]")


def decode_refs(items: Iterable[object]) -> list[BlobRef]:
    refs = [BlobRef.from_cbor(item, "bundle header, blobs") for item in items]
    if len({ref.sha256 for ref in refs}) != len(refs):
        raise WireError("decode bundle header: a blob is there twice")
    return refs
