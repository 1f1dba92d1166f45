"""The tier in memory: bodies and heads of what was used last, and which keys the disk may have."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from edged.http.fields import Fields
from edged.proxy.rules.decisions import CacheEntry
from edged.proxy.rules.vary import Variant, choose
from edged.proxy.store.record import Stamp, primary_of_key, response_key

OVERHEAD_BYTES = 2 << 10  # of an entry beside its body, about
MAX_INDEXES = 4096
BITS = 1 << 22  # half a megabyte; at 100,000 keys one look in forty is in vain


@dataclass(slots=True, eq=False)
class StoredResponse:
    """A stored response at hand. body: in memory, or None; then path names its file on the disk, and sums its blocks.

    alive: it is still what the store has; an answer made from it may be given again. saved_s: when it was last written
    to the disk, None if never.
    """

    key: bytes
    entry: CacheEntry
    stamp: Stamp
    body: bytes | None
    path: str = ""
    sums: bytes = b""
    alive: bool = True
    saved_s: float | None = None

    def renewed(self, entry: CacheEntry) -> StoredResponse:
        """The same body under an entry that a 304 has made."""
        stamp = Stamp(self.stamp.boot, entry.received_s or 0.0)
        return StoredResponse(self.key, entry, stamp, self.body, self.path, self.sums, saved_s=self.saved_s)

    @property
    def cost_bytes(self) -> int:
        return OVERHEAD_BYTES + len(self.body or b"")


class MemoryTier:
    """The least recently used go first. `cost_bytes` never passes `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.cost_bytes = 0
        self.held: OrderedDict[bytes, StoredResponse] = OrderedDict()
        self.indexes: OrderedDict[bytes, tuple[Variant, ...]] = OrderedDict()

    @property
    def largest_bytes(self) -> int:
        """The largest body that is kept here."""
        return min(1 << 20, self.limit_bytes // 4)

    def find(self, primary: bytes, request: Fields) -> StoredResponse | None:
        """What a request selects, if it is here."""
        variants = self.indexes.get(primary)
        name = b""
        if variants is not None:
            variant = choose(variants, request)
            if variant is None:
                return None
            name = variant.name
        held = self.held.get(response_key(primary, name))
        if held is not None:
            self.held.move_to_end(held.key)
        return held

    def put(self, held: StoredResponse) -> None:
        self.drop(held.key)
        if held.cost_bytes > self.limit_bytes:
            return
        self.held[held.key] = held
        self.cost_bytes += held.cost_bytes
        while self.cost_bytes > self.limit_bytes:
            self.drop(next(iter(self.held)))  # and with it what lanes remember of it, so that the bound holds

    def put_index(self, primary: bytes, variants: tuple[Variant, ...] | None) -> None:
        self.indexes.pop(primary, None)
        if variants:
            self.indexes[primary] = variants
            while len(self.indexes) > MAX_INDEXES:
                gone, _ = self.indexes.popitem(last=False)
                self.drop_primary(gone)

    def drop(self, key: bytes) -> None:
        """It is no longer what the store has."""
        held = self.held.pop(key, None)
        if held is not None:
            held.alive = False
            self.cost_bytes -= held.cost_bytes

    def drop_primary(self, primary: bytes) -> None:
        """Every variant of a URL for one scope."""
        variants = self.indexes.pop(primary, None)
        for name in [b"", *(variant.name for variant in variants or ())]:
            self.drop(response_key(primary, name))

    def clear(self) -> None:
        for held in self.held.values():
            held.alive = False
        self.held.clear()
        self.indexes.clear()
        self.cost_bytes = 0

    def primaries_of(self, url: bytes) -> set[bytes]:
        """The primary keys here, of any scope, of a URL."""
        found = {primary for key in self.held if (primary := primary_of_key(key)) is not None}
        return {primary for primary in found if primary.partition(b"\0")[2] == url}


class Presence:
    """A bitmap that never misses a key, so that a miss need not ask the disk first: `may_have` is True for every key
    that was added, and for a few others."""

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
