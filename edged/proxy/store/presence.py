"""Which keys the disk may have: a bitmap that never misses one, so that a miss need not ask the disk first."""

from __future__ import annotations

BITS = 1 << 22  # half a megabyte; at 100,000 keys one look in forty is in vain


class Presence:
    """`may_have` is True for every key that was added, and for a few others."""

    def __init__(self) -> None:
        self.bits = bytearray(BITS // 8)
        self.added = 0

    def add(self, key: bytes) -> None:
        place = hash(key) & (BITS - 1)
        self.bits[place >> 3] |= 1 << (place & 7)
        self.added += 1

    def may_have(self, key: bytes) -> bool:
        place = hash(key) & (BITS - 1)
        return bool(self.bits[place >> 3] >> (place & 7) & 1)

    @property
    def is_full(self) -> bool:
        """Whether so many were added that it says yes too often, and is to be made anew from what there is."""
        return self.added > BITS // 8
