"""The head: the small signed document that names the live version of a dataset. CDDL: docs/feed.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edged.errors import WireError
from edged.feed import cbor, limits
from edged.feed.blob import BlobRef
from edged.feed.digest import DIGEST_BYTES
from edged.feed.names import check_name

FORMAT = 1
AAD = b"edged/1 head"


@dataclass(frozen=True, slots=True)
class HopRef:
    """A hop of one slice, from one of the slice's versions to a later one. `inline` holds the blob's own bytes."""

    from_version: int
    to_version: int
    blob: BlobRef
    inline: bytes | None = None

    def to_cbor(self) -> list[Any]:
        if self.inline is not None:
            return [self.from_version, self.to_version, self.inline]
        return [self.from_version, self.to_version, *self.blob.to_cbor()]

    @classmethod
    def from_cbor(cls, item: object, what: str) -> HopRef:
        match item:
            case [int() as low, int() as high, bytes() as inline] if 0 <= low < high:
                return cls(low, high, BlobRef.of(inline), inline)
            case [int() as low, int() as high, size, sha256] if 0 <= low < high:
                return cls(low, high, BlobRef.from_cbor([size, sha256], what))
        raise WireError(f"decode {what}: not a hop reference: {item!r:.120}")


@dataclass(frozen=True, slots=True)
class SliceHead:
    """A slice as the head names it.

    version: the dataset version at which its content last changed (it is unchanged from there to the live one);
    digest: 32 bytes, see feed/digest.py; records: how many; hops: those that lead to `version`.
    """

    version: int
    digest: bytes
    records: int
    hops: tuple[HopRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Head:
    """The live version of a dataset. Times in seconds (signed_at since 1970 UTC, the others from signed_at on).

    chain: the blob that lists snapshots, dictionaries, the schema and all hops (feed/chain.py);
    schema_version: the version at which the schema last changed, so that a device that takes an inlined hop knows
    whether it needs the chain; takedowns: the blob of records that must not be shown in any version.
    """

    dataset: str
    version: int
    signed_at: int
    fresh_s: int
    expires_s: int
    root: int
    schema_version: int
    chain: BlobRef
    slices: Mapping[str, SliceHead] = field(default_factory=dict)
    takedowns: BlobRef | None = None


def encode_head(head: Head) -> bytes:
    """The payload to sign."""
    document: dict[int, Any] = {
        1: FORMAT,
        2: head.dataset,
        3: head.version,
        4: head.signed_at,
        5: [head.fresh_s, head.expires_s],
        6: head.root,
        7: {
            name: [item.version, item.digest, item.records, [hop.to_cbor() for hop in item.hops]]
            for name, item in head.slices.items()
        },
        8: head.chain.to_cbor(),
        9: head.schema_version,
    }
    if head.takedowns is not None:
        document[10] = head.takedowns.to_cbor()
    return cbor.encode(document)


def decode_head(payload: bytes) -> Head:
    """Decode a payload whose signature has been checked. Raises WireError."""
    document = cbor.decode(payload, "head", depth=8)
    if not isinstance(document, dict) or document.get(1) != FORMAT:
        found = document.get(1) if isinstance(document, dict) else type(document).__name__
        raise WireError(f"decode head: format {found!r:.40}, this edged reads {FORMAT}; update edged")
    match document:
        case {
            2: dataset,
            3: int() as version,
            4: int() as signed_at,
            5: [int() as fresh_s, int() as expires_s],
            6: int() as root,
            7: dict() as slices,
            8: chain,
            9: int() as schema_version,
        } if (
            min(version, root, signed_at) >= 1
            and 0 <= fresh_s <= expires_s
            and 0 <= schema_version <= version
            and len(slices) <= limits.SLICES
        ):
            takedowns = document.get(10)
            return Head(
                dataset=check_name(dataset, "dataset"),
                version=version,
                signed_at=signed_at,
                fresh_s=fresh_s,
                expires_s=expires_s,
                root=root,
                schema_version=schema_version,
                chain=BlobRef.from_cbor(chain, "head, chain"),
                slices={check_name(name, "slice"): decode_slice(name, item, version) for name, item in slices.items()},
                takedowns=None if takedowns is None else BlobRef.from_cbor(takedowns, "head, takedowns"),
            )
    raise WireError("decode head: a field is missing or of another kind than docs/feed.md says")


def decode_slice(name: str, item: object, live_version: int) -> SliceHead:
    match item:
        case [int() as version, bytes() as digest, int() as records, list() as hops] if (
            0 <= version <= live_version and len(digest) == DIGEST_BYTES and records >= 0
        ):
            refs = tuple(HopRef.from_cbor(hop, f"head, slice {name}") for hop in hops)
            if all(ref.to_version == version for ref in refs):
                return SliceHead(version, digest, records, refs)
    raise WireError(f"decode head: slice {name!r} is not [version, digest, records, hops to that version]")
