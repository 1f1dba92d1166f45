"""The tier on disk: finding what a request selects, checking it, writing it. All of it runs in the store's thread."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edged.errors import DamageError
from edged.http.fields import Fields
from edged.proxy.rules.vary import Variant, add_variant, choose
from edged.proxy.store.disk import Spool
from edged.proxy.store.memory import Presence, StoredResponse
from edged.proxy.store.record import (
    Stored,
    block_sums,
    decode_entry,
    decode_index,
    encode_entry,
    encode_index,
    index_key,
    primary_of_key,
    response_key,
)
from edged.proxy.store.store import Found, Store

MAX_VERIFIED = 4096


@dataclass(frozen=True, slots=True)
class DiskLookup:
    """What the disk has for a request. body: where it is small enough for memory."""

    variants: tuple[Variant, ...] | None
    stored: Stored | None = None
    key: bytes = b""
    body: bytes | None = None
    path: str = ""


class DiskTier:
    """Responses in a store. largest_bytes: of a body that memory takes; a larger one is left on the disk.

    verified: files whose whole body was checked in this run. Every method raises StoreError, or OSError where the disk
    does not do what it is asked; that alone deletes nothing.
    """

    def __init__(self, store: Store, largest_bytes: int) -> None:
        self.store, self.largest_bytes = store, largest_bytes
        self.verified: dict[str, int] = {}

    def find_present(self) -> Presence:
        """The primary keys of what lies there."""
        presence = Presence()
        for key in self.store.list_keys():
            primary = primary_of_key(key)
            if primary is not None:
                presence.add(primary)
        return presence

    def load(self, primary: bytes, request: Fields) -> DiskLookup | None:
        """What a request selects; None where there is nothing."""
        store = self.store
        index = store.get(index_key(primary))
        variants: tuple[Variant, ...] | None = None
        name = b""
        if index is not None:
            try:
                variants = decode_index(index.head, "an index of variants")
            except DamageError:
                store.delete([index_key(primary)])
                return None
            variant = choose(variants, request)
            if variant is None:
                return DiskLookup(variants)
            name = variant.name
        key = response_key(primary, name)
        found = store.get(key)
        return DiskLookup(variants) if found is None else self.read(key, found, variants)

    def read(self, key: bytes, found: Found, variants: tuple[Variant, ...] | None) -> DiskLookup:
        store = self.store
        try:
            stored = decode_entry(found.head, "a response")
        except DamageError:
            store.delete([key])
            return DiskLookup(variants)
        size = stored.entry.size
        if self.verified.get(found.filename) != size or not found.path:
            if not store.verify(key, found, size, stored.sums):
                return DiskLookup(variants)
            self.remember_verified(found.filename, size)
        if not found.path:
            return DiskLookup(variants, stored, key, found.body)
        if size > self.largest_bytes:
            return DiskLookup(variants, stored, key, None, found.path)
        try:
            with open(found.path, "rb") as file:
                body = file.read(size + 1)
        except FileNotFoundError:
            body = b""
        if len(body) != size or block_sums(body) != stored.sums:
            store.delete([key])
            return DiskLookup(variants)
        return DiskLookup(variants, stored, key, body, found.path)

    def remember_verified(self, filename: str, size: int) -> None:
        if filename:
            self.verified[filename] = size
            while len(self.verified) > MAX_VERIFIED:
                del self.verified[next(iter(self.verified))]

    def save(
        self,
        primary: bytes,
        held: StoredResponse,
        variants: tuple[Variant, ...] | None,
        gone: tuple[bytes, ...],
        spool: Spool | None,
    ) -> bool:
        """Write a response, and the index where it varies. Returns False where there is no room."""
        store = self.store
        sums = spool.finish() if spool is not None else block_sums(held.body or b"")
        head = encode_entry(held.entry, held.stamp, sums)
        if not store.put(held.key, head, held.body or b"" if spool is None else b"", spool):
            return False
        if variants is not None:
            merged = self.merge(primary, variants)
            store.put(index_key(primary), encode_index(merged))
        elif store.get(index_key(primary)) is not None:
            store.delete([index_key(primary)])
        if gone:
            store.delete(list(gone))
        return True

    def merge(self, primary: bytes, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        """The variants on the disk that memory did not know, before the ones it does."""
        found = self.store.get(index_key(primary))
        if found is None:
            return variants
        try:
            merged = decode_index(found.head, "an index of variants")
        except DamageError:
            return variants
        for variant in variants:
            merged, _ = add_variant(merged, variant)
        return merged

    def look_anew(self, path: str) -> None:
        """Check a body again before it is given again."""
        self.verified.pop(os.path.join(*Path(path).parts[-2:]) if path else "", None)
