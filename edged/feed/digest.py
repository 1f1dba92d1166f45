"""The digest of a set of records: LtHash16-1024 over SHAKE128 (Bellare and Micciancio 1997; Lewi et al. 2019).

Adding and removing records commute, so the digest of a state follows from that of the state before and the change.
The 2,048-byte sum is what is kept; the 16-byte `digest()` of it is what is signed. Blobs
are named by whole hashes: the digest tells an accident, or a fault of ours, from the content that was meant.
"""

from __future__ import annotations

import hashlib

LANES = 1024
STATE_BYTES = 2 * LANES
DIGEST_BYTES = 16

# Lanes of 16 bits are summed in two integers, every second lane each, so that a carry falls into the gap between.
GAPS = int.from_bytes(b"\xff\xff\x00\x00" * (LANES // 2), "little")
HEADROOM = 65_535  # sums of 16-bit lanes, each of at most 2^16, beside the one there was: then a gap may overflow


def element(collection: str, key: str, value: bytes) -> int:
    """A record as 1,024 little-endian lanes in one integer. `value` is the record's canonical bytes."""
    name, word = collection.encode(), key.encode()
    material = b"edged/1 record" + len(name).to_bytes(2, "big") + name + len(word).to_bytes(2, "big") + word + value
    return int.from_bytes(hashlib.shake_128(material).digest(STATE_BYTES), "little")


class SetHash:
    """A running LtHash16-1024 sum. `SetHash(state)` goes on from a saved `state()`."""

    __slots__ = ("even", "odd", "pending")

    def __init__(self, state: bytes = bytes(STATE_BYTES)) -> None:
        if len(state) != STATE_BYTES:
            raise ValueError(f"an LtHash16-1024 state has {STATE_BYTES} bytes, got {len(state)}")
        whole = int.from_bytes(state, "little")
        self.even = whole & GAPS
        self.odd = (whole >> 16) & GAPS
        self.pending = 0

    def add(self, collection: str, key: str, value: bytes) -> None:
        whole = element(collection, key, value)
        self.even += whole & GAPS
        self.odd += (whole >> 16) & GAPS
        self.settle_if_full()

    def remove(self, collection: str, key: str, value: bytes) -> None:
        """Take a record out; `value` must be the canonical bytes that were added."""
        whole = element(collection, key, value)
        # Lane-wise negation modulo 2^16 is the complement plus one; the plus ones are one constant.
        self.even += ((whole & GAPS) ^ GAPS) + ONES
        self.odd += (((whole >> 16) & GAPS) ^ GAPS) + ONES
        self.settle_if_full()

    def merge(self, other: SetHash) -> None:
        """Add another sum, for instance of a part that was hashed by itself."""
        other.settle()
        self.even += other.even
        self.odd += other.odd
        self.settle_if_full()

    def settle_if_full(self) -> None:
        self.pending += 1
        if self.pending >= HEADROOM:
            self.settle()

    def settle(self) -> None:
        self.even &= GAPS
        self.odd &= GAPS
        self.pending = 0

    def state(self) -> bytes:
        """The 2,048 bytes to save."""
        self.settle()
        return (self.even | (self.odd << 16)).to_bytes(STATE_BYTES, "little")

    def digest(self) -> bytes:
        """What is signed: the first DIGEST_BYTES of the SHA-256 of the state."""
        return hashlib.sha256(self.state()).digest()[:DIGEST_BYTES]

    def copy(self) -> SetHash:
        twin = SetHash()
        twin.even, twin.odd, twin.pending = self.even, self.odd, self.pending
        return twin


ONES = int.from_bytes(b"\x01\x00\x00\x00" * (LANES // 2), "little")
EMPTY_DIGEST = SetHash().digest()
