"""A version ahead: its hops go out encrypted before it is live, and the head that makes it live carries their key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edged.errors import WireError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.feed.names import check_name

KEY_BYTES, TAG_BYTES = 32, 16  # AES-256-GCM


@dataclass(frozen=True, slots=True)
class SealedHop:
    """An encrypted hop of one slice, from its version `from_version`. blob: as it travels, the tag included."""

    from_version: int
    blob: BlobRef

    def to_cbor(self) -> list[Any]:
        return [self.from_version, *self.blob.to_cbor()]

    @classmethod
    def from_cbor(cls, item: object, what: str) -> SealedHop:
        match item:
            case [int() as low, size, sha256] if low >= 0:
                return cls(low, BlobRef.from_cbor([size, sha256], what))
        raise WireError(f"decode {what}: not a sealed hop: {item!r:.120}")


@dataclass(frozen=True, slots=True)
class Ahead:
    """What devices fetch and cannot read yet. version: what it will be; since: seconds since 1970; spread_s: within how
    many seconds they fetch, each at its own place; hops: by slice, each from the version that is live."""

    version: int
    since: int
    spread_s: int
    hops: Mapping[str, SealedHop] = field(default_factory=dict)

    def to_cbor(self) -> list[Any]:
        return [self.version, self.since, self.spread_s, hops_to_cbor(self.hops)]

    @classmethod
    def from_cbor(cls, item: object, live_version: int) -> Ahead:
        match item:
            case [int() as version, int() as since, int() as spread_s, dict() as hops] if (
                version > live_version and min(since, spread_s) >= 0
            ):
                return cls(version, since, spread_s, hops_from_cbor(hops, live_version))
        raise WireError("decode head: its version ahead is not [later version, since, spread, sealed hops]")


@dataclass(frozen=True, slots=True)
class Released:
    """The key of what was fetched ahead of this version. hops: by slice, each to the slice's version in the head."""

    key: bytes
    hops: Mapping[str, SealedHop] = field(default_factory=dict)

    def to_cbor(self) -> list[Any]:
        return [self.key, hops_to_cbor(self.hops)]

    @classmethod
    def from_cbor(cls, item: object, live_version: int) -> Released:
        match item:
            case [bytes() as key, dict() as hops] if len(key) == KEY_BYTES:
                return cls(key, hops_from_cbor(hops, live_version))
        raise WireError(f"decode head: its release is not [key of {KEY_BYTES} bytes, sealed hops]")


def hops_to_cbor(hops: Mapping[str, SealedHop]) -> dict[str, Any]:
    return {name: hop.to_cbor() for name, hop in hops.items()}


def hops_from_cbor(items: Mapping[Any, object], live_version: int) -> dict[str, SealedHop]:
    if len(items) > limits.SLICES:
        raise WireError(f"decode head: sealed hops of {len(items)} slices, at most {limits.SLICES} are allowed")
    found = {
        check_name(name, "slice"): SealedHop.from_cbor(item, f"head, slice {name}") for name, item in items.items()
    }
    if any(hop.from_version > live_version for hop in found.values()):
        raise WireError("decode head: a sealed hop from a version that is not live yet")
    return found
