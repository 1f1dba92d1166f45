"""The chain: one blob that lists how any retained version of each slice reaches the live one, and the schema.

A device whose hop came inlined in the head never fetches it. As it travels it is one zstd frame around CBOR.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edged.errors import WireError
from edged.feed import cbor, limits, zstd
from edged.feed.blob import BlobRef
from edged.feed.digest import DIGEST_BYTES
from edged.feed.head import HopRef
from edged.feed.names import check_name
from edged.feed.schema import Schema

FORMAT = 2


@dataclass(frozen=True, slots=True)
class SnapshotRef:
    """A slice's whole content at `version`, in parts that are in record order and decodable one by one.

    dictionary: what the parts were compressed with and the replica compresses records with; None for a slice too
    small to train one. digest and records are those of the slice at that version.
    """

    version: int
    digest: bytes
    records: int
    dictionary: BlobRef | None
    parts: tuple[BlobRef, ...]

    @property
    def total_bytes(self) -> int:
        return sum(part.size for part in self.parts) + (self.dictionary.size if self.dictionary else 0)


@dataclass(frozen=True, slots=True)
class PageRef:
    """Older short hops of a slice in a blob of their own, which only a device that comes from there needs.

    Its hops lead from slice version `low` or later to `high` or earlier; through: the bytes of the cheapest way through
    them from the one to the other, 300 for each request counted in.
    """

    low: int
    high: int
    through: int
    blob: BlobRef

    def to_cbor(self) -> list[Any]:
        return [self.low, self.high, self.through, *self.blob.to_cbor()]

    @classmethod
    def from_cbor(cls, item: object, what: str) -> PageRef:
        match item:
            case [int() as low, int() as high, int() as through, size, sha256] if 0 <= low < high and through >= 0:
                return cls(low, high, through, BlobRef.from_cbor([size, sha256], what))
        raise WireError(f"decode {what}: not a page reference: {item!r:.120}")


@dataclass(frozen=True, slots=True)
class SliceChain:
    """Snapshots (usually one) and retained hops of a slice; dictionaries that those hops name and no snapshot does;
    pages with those of the hops that are not listed here."""

    snapshots: tuple[SnapshotRef, ...]
    hops: tuple[HopRef, ...] = ()
    dictionaries: tuple[BlobRef, ...] = ()
    pages: tuple[PageRef, ...] = ()

    def with_page(self, page: PageRef, hops: tuple[HopRef, ...]) -> SliceChain:
        """The same with the hops of one of its pages in its place."""
        return replace(self, hops=(*self.hops, *hops), pages=tuple(item for item in self.pages if item != page))

    def dictionary_refs(self) -> list[BlobRef]:
        """Every dictionary, each once, that of the newest snapshot first: it is what new hops are coded with.

        A blob's name is that of the compressed dictionary; the tag in a hop is of its content.
        """
        newest_first = sorted(self.snapshots, key=lambda snapshot: snapshot.version, reverse=True)
        refs = [snapshot.dictionary for snapshot in newest_first if snapshot.dictionary is not None]
        return list(dict.fromkeys((*refs, *self.dictionaries)))


@dataclass(frozen=True, slots=True)
class Chain:
    """What the head's `chain` blob holds."""

    dataset: str
    version: int
    schema: Schema
    slices: Mapping[str, SliceChain] = field(default_factory=dict)

    def pages(self) -> Iterator[PageRef]:
        for entry in self.slices.values():
            yield from entry.pages

    def blobs(self) -> Iterator[BlobRef]:
        """Every blob that the chain names itself; its pages name more hops."""
        for entry in self.slices.values():
            for snapshot in entry.snapshots:
                yield from snapshot.parts
            yield from entry.dictionary_refs()
            yield from (hop.blob for hop in entry.hops)
            yield from (page.blob for page in entry.pages)


def encode_chain(chain: Chain) -> bytes:
    """The blob."""
    document = {
        1: FORMAT,
        2: chain.dataset,
        3: chain.version,
        4: chain.schema.to_cbor(),
        5: {
            name: [
                [snapshot_to_cbor(snapshot) for snapshot in item.snapshots],
                [hop.to_cbor() for hop in item.hops],
                [ref.to_cbor() for ref in item.dictionaries],
                *([[page.to_cbor() for page in item.pages]] if item.pages else []),
            ]
            for name, item in chain.slices.items()
        },
    }
    return zstd.compress(cbor.encode(document))


def fits(data: bytes) -> bool:
    """Whether a device takes a chain blob of this size."""
    try:
        cbor.check_items(zstd.decompress(data, "chain", limits.CHAIN_BYTES), "chain")
    except WireError:
        return False
    return True


def snapshot_to_cbor(snapshot: SnapshotRef) -> list[Any]:
    dictionary = None if snapshot.dictionary is None else snapshot.dictionary.to_cbor()
    return [
        snapshot.version,
        snapshot.digest,
        snapshot.records,
        dictionary,
        [part.to_cbor() for part in snapshot.parts],
    ]


def decode_chain(data: bytes) -> Chain:
    """Decode a chain blob whose hash has been checked. Raises WireError."""
    document = cbor.decode_document(zstd.decompress(data, "chain", limits.CHAIN_BYTES), "chain", depth=32)
    if not isinstance(document, dict) or document.get(1) != FORMAT:
        found = document.get(1) if isinstance(document, dict) else type(document).__name__
        raise WireError(f"decode chain: format {found!r:.40}, this edged reads {FORMAT}; update edged")
    match document:
        case {2: dataset, 3: int() as version, 4: schema, 5: dict() as slices} if len(slices) <= limits.SLICES:
            return Chain(
                dataset=check_name(dataset, "dataset"),
                version=version,
                schema=Schema.from_cbor(schema),
                slices={check_name(name, "slice"): decode_slice_chain(name, item) for name, item in slices.items()},
            )
    raise WireError("decode chain: a field is missing or of another kind than docs/feed.md says")


def decode_slice_chain(name: str, item: object) -> SliceChain:
    match item:
        case [list() as snapshots, list() as hops, list() as dictionaries, *more] if len(more) <= 1:
            where = f"chain, slice {name}"
            pages = more[0] if more else []
            if not isinstance(pages, list):
                raise WireError(f"decode {where}: its pages are not a list")
            return SliceChain(
                tuple(decode_snapshot(snapshot, where) for snapshot in snapshots),
                tuple(HopRef.from_cbor(hop, where) for hop in hops),
                tuple(decode_dictionary(ref, where) for ref in dictionaries),
                tuple(PageRef.from_cbor(page, where) for page in pages),
            )
    raise WireError(f"decode chain: slice {name!r} is not [snapshots, hops, dictionaries, pages]")


def encode_page(hops: Sequence[HopRef]) -> bytes:
    """The blob: the same for the same hops, so that one version's pages are the next one's too."""
    return zstd.compress(cbor.encode({1: FORMAT, 2: [hop.to_cbor() for hop in hops]}))


def decode_page(data: bytes, ref: PageRef) -> tuple[HopRef, ...]:
    """Decode a page whose hash has been checked. Raises WireError."""
    what = f"page of hops {ref.low} to {ref.high}"
    match cbor.decode_document(zstd.decompress(data, what, limits.PAGE_BYTES), what, depth=8):
        case {1: int() as number, 2: list() as items} if number == FORMAT:
            hops = tuple(HopRef.from_cbor(item, what) for item in items)
            if all(ref.low <= hop.from_version and hop.to_version <= ref.high for hop in hops):
                return hops
    raise WireError(f"decode {what}: not a list of hops between these versions in format {FORMAT}; update edged")


def decode_snapshot(item: object, where: str) -> SnapshotRef:
    match item:
        case [int() as version, bytes() as digest, int() as records, dictionary, list() as parts] if (
            len(digest) == DIGEST_BYTES and version >= 0 and records >= 0
        ):
            return SnapshotRef(
                version,
                digest,
                records,
                None if dictionary is None else decode_dictionary(dictionary, where),
                tuple(BlobRef.from_cbor(part, where) for part in parts),
            )
    raise WireError(f"decode {where}: not a snapshot reference: {item!r:.120}")


def decode_dictionary(item: object, where: str) -> BlobRef:
    ref = BlobRef.from_cbor(item, where)
    if ref.size > limits.DICTIONARY_BYTES:
        raise WireError(
            f"decode {where}: a dictionary of {ref.size} bytes, at most {limits.DICTIONARY_BYTES} are allowed"
        )
    return ref
