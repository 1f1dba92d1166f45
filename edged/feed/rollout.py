"""Rollouts: which devices take the version that a head offers beside the stable one. No I/O."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from edged.feed.head import Head, Offer


def bucket_of(salt: bytes, device_id: str) -> int:
    """Where a device stands for a salt, from 0 to 999: the first 8 bytes of SHA-256(salt, device id) modulo 1000."""
    return int.from_bytes(hashlib.sha256(salt + device_id.encode()).digest()[:8], "big") % 1000


def is_chosen(offer: Offer, device_id: str) -> bool:
    """Whether the offer is for this device. A device without an id takes none."""
    return bool(device_id) and bucket_of(offer.salt, device_id) < offer.permille


def accepted(head: Head) -> Head:
    """The head as it is for a device that takes the offer."""
    offer = head.offer
    if offer is None:
        return head
    return replace(
        head,
        version=offer.version,
        slices=offer.slices,
        chain=offer.chain,
        schema_version=offer.schema_version,
        offer=None,
        released=None,  # its hops lead to the stable version
    )


def head_for(head: Head, device_id: str, held_version: int) -> Head:
    """The head as it is for a device that holds `held_version`.

    Who has taken the offer stays with it, whatever its id is now: versions only grow.
    """
    offer = head.offer
    if offer is None:
        return head
    return accepted(head) if held_version > head.version or is_chosen(offer, device_id) else head
