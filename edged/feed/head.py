"""The head: the small signed document that names the live version of a dataset. CDDL: docs/feed.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edged.errors import WireError
from edged.feed import cbor, limits
from edged.feed.ahead.sealed import Ahead, Released, SealedHop
from edged.feed.blob import BlobRef
from edged.feed.digest import DIGEST_BYTES
from edged.feed.names import check_name

FORMAT = 2
AAD = b"edged/1 head"
USUAL_FRESHNESS_S = [86_400, 2_592_000]  # a day and thirty days: left out of the head
SALT_BYTES = (8, 32)  # the least and the most of an offer's salt


@dataclass(frozen=True, slots=True)
class HopRef:
    """A hop of one slice, from one of the slice's versions to a later one. `inline` holds the blob's own bytes; sealed:
    the blob is a version's ahead, and opens with the head's key."""

    from_version: int
    to_version: int
    blob: BlobRef
    inline: bytes | None = None
    sealed: bool = False

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
class Offer:
    """A later version for a share of the devices, beside the stable one: a rollout (feed/rollout.py says to which).

    salt: 8 to 32 bytes, drawn anew for each rollout; permille: the share, 1 to 1000; the rest as in Head. Its hops are
    never inlined, since most devices do not take them.
    """

    salt: bytes
    permille: int
    version: int
    slices: Mapping[str, SliceHead]
    chain: BlobRef
    schema_version: int


@dataclass(frozen=True, slots=True)
class Head:
    """The live version of a dataset. Times in seconds (signed_at since 1970 UTC, the others from signed_at on).

    chain: the blob that lists snapshots, dictionaries, the schema and all hops (feed/chain.py);
    schema_version: the version at which the schema last changed, so that a device that takes an inlined hop knows
    whether it needs the chain; takedowns: the blob of records that must not be shown in any version; offer: a rollout
    that is under way; ahead: what is to be fetched of a version to come; released: what opens what was fetched so;
    spread: from when (seconds since 1970) and within how many seconds devices take the version, each at its own place.
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
    offer: Offer | None = None
    ahead: Ahead | None = None
    released: Released | None = None
    spread: tuple[int, int] | None = None

    @property
    def newest_version(self) -> int:
        """The greatest version number that the head names, offered or live."""
        return self.version if self.offer is None else self.offer.version

    @property
    def news(self) -> object:
        """What waiting devices must hear of: a head that was only signed anew, or has another chain to the same
        versions, can wait for the end of their polls."""
        offered = None if self.offer is None else (self.offer.version, self.offer.salt, self.offer.permille)
        coming = None if self.ahead is None else (self.ahead.version, self.ahead.since)
        return self.version, offered, coming, self.takedowns

    def chains(self) -> tuple[BlobRef, ...]:
        """The chain of the live version, and that of the one offered."""
        return (self.chain,) if self.offer is None else (self.chain, self.offer.chain)

    def hops(self) -> Iterator[HopRef]:
        """Every hop that the head names, to either version."""
        for item in (*self.slices.values(), *(self.offer.slices.values() if self.offer is not None else ())):
            yield from item.hops

    def sealed_hops(self) -> Iterator[SealedHop]:
        """Those of a version ahead, and those of this version that were."""
        for item in (self.ahead, self.released):
            yield from item.hops.values() if item is not None else ()

    def blobs(self) -> Iterator[BlobRef]:
        """Every blob that the head names itself; its chains name more."""
        yield from self.chains()
        yield from (hop.blob for hop in self.sealed_hops())
        if self.takedowns is not None:
            yield self.takedowns
        yield from (hop.blob for hop in self.hops())


def encode_head(head: Head) -> bytes:
    """The payload to sign."""
    document: dict[int, Any] = {
        1: FORMAT,
        2: head.dataset,
        3: head.version,
        4: head.signed_at,
        6: head.root,
        7: slices_to_cbor(head.slices),
        8: head.chain.to_cbor(),
        9: head.schema_version,
    }
    if [head.fresh_s, head.expires_s] != USUAL_FRESHNESS_S:
        document[5] = [head.fresh_s, head.expires_s]
    if head.takedowns is not None:
        document[10] = head.takedowns.to_cbor()
    if head.offer is not None:
        offer = head.offer
        document[11] = [
            offer.salt,
            offer.permille,
            offer.version,
            slices_to_cbor(offer.slices),
            offer.chain.to_cbor(),
            offer.schema_version,
        ]
    if head.ahead is not None:
        document[12] = head.ahead.to_cbor()
    if head.released is not None:
        document[13] = head.released.to_cbor()
    if head.spread is not None:
        document[14] = list(head.spread)
    return cbor.encode(document)


def slices_to_cbor(slices: Mapping[str, SliceHead]) -> dict[str, Any]:
    return {
        name: [item.version, item.digest, item.records, [hop.to_cbor() for hop in item.hops]]
        for name, item in slices.items()
    }


def decode_head(payload: bytes) -> Head:
    """Decode a payload whose signature has been checked. Raises WireError."""
    document = cbor.decode_document(payload, "head", depth=8)
    if not isinstance(document, dict) or document.get(1) != FORMAT:
        found = document.get(1) if isinstance(document, dict) else type(document).__name__
        raise WireError(f"decode head: format {found!r:.40}, this edged reads {FORMAT}; update edged")
    match {5: USUAL_FRESHNESS_S, **document}:
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
                slices=decode_slices(slices, version),
                takedowns=None if takedowns is None else BlobRef.from_cbor(takedowns, "head, takedowns"),
                offer=None if document.get(11) is None else decode_offer(document[11], version),
                ahead=None if document.get(12) is None else Ahead.from_cbor(document[12], version),
                released=None if document.get(13) is None else Released.from_cbor(document[13], version),
                spread=None if document.get(14) is None else decode_spread(document[14]),
            )
    raise WireError("decode head: a field is missing or of another kind than docs/feed.md says")


def decode_spread(item: object) -> tuple[int, int]:
    match item:
        case [int() as since, int() as spread_s] if since >= 0 and 0 <= spread_s <= limits.SPREAD_S:
            return since, spread_s
    raise WireError(f"decode head: its spread is not [since, seconds up to {limits.SPREAD_S}]")


def decode_offer(item: object, stable_version: int) -> Offer:
    match item:
        case [
            bytes() as salt,
            int() as permille,
            int() as version,
            dict() as slices,
            chain,
            int() as schema_version,
        ] if (
            SALT_BYTES[0] <= len(salt) <= SALT_BYTES[1]
            and 1 <= permille <= 1000
            and stable_version < version
            and 0 <= schema_version <= version
            and len(slices) <= limits.SLICES
        ):
            ref = BlobRef.from_cbor(chain, "head, offered chain")
            return Offer(salt, permille, version, decode_slices(slices, version), ref, schema_version)
    raise WireError("decode head: its offer is not [salt, permille, later version, slices, chain, schema version]")


def decode_slices(slices: Mapping[Any, object], live_version: int) -> dict[str, SliceHead]:
    return {check_name(name, "slice"): decode_slice(name, item, live_version) for name, item in slices.items()}


def decode_slice(name: str, item: object, live_version: int) -> SliceHead:
    match item:
        case [int() as version, bytes() as digest, int() as records, list() as hops] if (
            0 <= version <= live_version and len(digest) == DIGEST_BYTES and records >= 0
        ):
            refs = tuple(HopRef.from_cbor(hop, f"head, slice {name}") for hop in hops)
            if all(ref.to_version == version for ref in refs):
                return SliceHead(version, digest, records, refs)
    raise WireError(f"decode head: slice {name!r} is not [version, digest, records, hops to that version]")
