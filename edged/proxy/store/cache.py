"""Both tiers as one: find, keep, freshen, invalidate. The store on disk is asked in its own thread."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edged.errors import DamageError, StoreError
from edged.feed.cbor import encode
from edged.files import FileStamp, stamp_of
from edged.proxy.rules.decisions import Entry, is_worth_keeping
from edged.proxy.rules.fields import Fields
from edged.proxy.rules.invalidation import GroupLedger, origin_of
from edged.proxy.rules.vary import Variant, add_variant, choose
from edged.proxy.settings import ProxySettings
from edged.proxy.store.disk import Spool
from edged.proxy.store.memory import Held, MemoryTier
from edged.proxy.store.presence import Presence
from edged.proxy.store.record import (
    BOOTS,
    LEDGER,
    STARTS,
    Stamp,
    Stored,
    block_sums,
    decode_entry,
    decode_index,
    decode_list,
    encode_entry,
    encode_index,
    index_key,
    primary_key,
    primary_of_key,
    response_key,
    variant_name,
)
from edged.proxy.store.store import PURGED, Found, Store
from edged.proxy.store.worker import Worker
from edged.proxy.timeline import Timeline

log = logging.getLogger(__name__)

REWRITE_S = 60.0  # what a 304 freshens is written to the disk at most this often; memory has it at once
PURGE_CHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the disk has for a request. body: where it is small enough for memory."""

    variants: tuple[Variant, ...] | None
    stored: Stored | None = None
    key: bytes = b""
    body: bytes | None = None
    path: str = ""


class Cache:
    """`open()` before and `close()` after use.

    Storing numbers (`next_order`) order what happens: a response asked for before its URL or a group of its was made
    invalid is not stored afterwards. groups, urls: what was made invalid, and by which number.
    """

    def __init__(self, settings: ProxySettings, timeline: Timeline) -> None:
        self.settings, self.timeline = settings, timeline
        self.memory = MemoryTier(settings.memory_bytes)
        self.groups, self.urls = GroupLedger(), GroupLedger()
        self.store: Store | None = None
        self.worker: Worker | None = None
        self.order = 1
        self.presence = Presence()
        self.added: list[bytes] | None = None  # to it while it is made anew
        self.purge_order = 0
        self.saved: list[bytes] = []  # keys written since another process was last seen to purge, or not to
        self.verified: dict[str, int] = {}
        self.purged: FileStamp | None = None
        self.lost = 0

    async def open(self) -> None:
        """Open the store. Raises StoreError where its directory cannot be used."""
        if self.settings.directory is None:
            return
        self.worker = Worker("edged-proxy-store")
        try:
            self.store = await self.worker.run(self.open_store, self.settings.directory)
        except BaseException:
            self.worker.close()
            self.worker = None
            raise

    def open_store(self, directory: Path) -> Store:
        store = Store(directory, self.settings.quota_bytes, self.recently_used)
        starts = 0
        for key, load in ((STARTS, None), (BOOTS, self.timeline.load), (LEDGER, self.load_ledgers)):
            found = store.get(key)
            if found is None:
                continue
            try:
                data = decode_list(found.head, "its own notes")
                if load is None:
                    starts = int(data[0])
                else:
                    load(data)
            except (DamageError, ValueError, TypeError, IndexError) as fault:
                log.warning("the proxy's notes are damaged and dropped", extra={"fault": str(fault)})
        # Storing numbers only grow, over restarts too: what was made invalid stays so.
        self.order = ((starts + 1) << 32) + 1
        store.put(STARTS, encode([starts + 1]))
        self.purged = stamp_of(directory / PURGED)
        self.presence = find_present(store)
        return store

    async def renew_presence(self) -> None:
        """Make the bitmap anew from what there is; what is written meanwhile is added to both."""
        assert self.store is not None
        self.added = []
        presence: Presence | None = await self.in_store(find_present, self.store)
        if presence is not None:
            for primary in self.added:
                presence.add(primary)
            self.presence = presence
        self.added = None

    def load_ledgers(self, data: list[object]) -> None:
        groups, urls = data
        if not isinstance(groups, list) or not isinstance(urls, list):
            raise ValueError("not ledgers")
        self.groups.load(groups)
        self.urls.load(urls)

    def recently_used(self, key: bytes) -> bool:
        return key in self.memory.held

    async def close(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            if self.store is not None:
                await worker.run(self.store.close)
            worker.close()
        self.store = None

    async def in_store(self, what: Callable[..., Any], *arguments: Any) -> Any:
        """Run a method of the store. A StoreError is counted and logged: what is not stored is fetched again."""
        assert self.worker is not None
        try:
            return await self.worker.run(what, *arguments)
        except StoreError as fault:
            self.lost += 1
            log.warning("the proxy's store failed", extra={"fault": str(fault)})
            return None

    def next_order(self) -> int:
        self.order += 1
        return self.order

    # --- find --------------------------------------------------------------------------------------------------------

    def peek(self, primary: bytes, request: Fields) -> Held | None:
        """What a request selects, if it is in memory and was not made invalid."""
        held = self.memory.find(primary, request)
        if held is None:
            return None
        if not self.valid(held.entry):
            self.memory.drop(held.key)
            return None
        if held.entry.received_s is None:
            self.place(held)
        return held

    def place(self, held: Held) -> None:
        """A clock that was not set when an entry was read may be set now."""
        moment = self.timeline.place(held.stamp.boot, held.stamp.up_s)
        if moment is not None:
            held.entry = replace(held.entry, received_s=moment)

    def valid(self, entry: Entry) -> bool:
        origin = origin_of(entry.url)
        if not self.groups.holds(origin, entry.groups, entry.order):
            return False
        return not entry.private or self.urls.holds(origin, (url_group(entry.url),), entry.order)

    async def find(self, primary: bytes, request: Fields) -> Held | None:
        """What a request selects, from memory or from the disk."""
        held = self.peek(primary, request)
        if held is not None or self.store is None:
            return held
        if not self.presence.may_have(primary):
            return None
        begun = self.next_order()
        loaded: Loaded | None = await self.in_store(self.load, primary, request)
        held = self.peek(primary, request)
        if held is not None or loaded is None or not self.unharmed(primary.partition(b"\0")[2], (), begun):
            return held  # changed while it was read: memory knows better
        return self.take(primary, loaded)

    def unharmed(self, url: bytes, groups: tuple[str, ...], begun: int) -> bool:
        """Whether nothing has made a URL or its groups invalid since number `begun`."""
        origin = origin_of(url)
        return (
            begun > self.purge_order
            and self.urls.holds(origin, (url_group(url),), begun)
            and self.groups.holds(origin, groups, begun)
        )

    def take(self, primary: bytes, loaded: Loaded) -> Held | None:
        if loaded.variants is not None:
            variants = loaded.variants
            for variant in self.memory.indexes.get(primary, ()):
                variants, _ = add_variant(variants, variant)
            self.memory.put_index(primary, variants)
        if loaded.stored is None:
            return None
        stamp = loaded.stored.stamp
        entry = replace(loaded.stored.entry, received_s=self.timeline.place(stamp.boot, stamp.up_s))
        if not self.valid(entry):
            return None
        held = Held(loaded.key, entry, stamp, loaded.body, loaded.path, loaded.stored.sums)
        held.saved_s = self.timeline.now_s()
        self.memory.put(held)
        return held

    def load(self, primary: bytes, request: Fields) -> Loaded | None:
        """In the store's thread: read what a request selects; None where there is nothing."""
        store = self.store
        assert store is not None
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
                return Loaded(variants)
            name = variant.name
        key = response_key(primary, name)
        found = store.get(key)
        return Loaded(variants) if found is None else self.read(store, key, found, variants)

    def read(self, store: Store, key: bytes, found: Found, variants: tuple[Variant, ...] | None) -> Loaded:
        try:
            stored = decode_entry(found.head, "a response")
        except DamageError:
            store.delete([key])
            return Loaded(variants)
        size = stored.entry.size
        if self.verified.get(found.filename) != size or not found.path:
            if not store.verify(key, found, size, stored.sums):
                return Loaded(variants)
            self.remember_verified(found.filename, size)
        if not found.path:
            return Loaded(variants, stored, key, found.body)
        if size > self.memory.largest_bytes:
            return Loaded(variants, stored, key, None, found.path)
        try:
            with open(found.path, "rb") as file:
                body = file.read(size + 1)
        except OSError:
            body = b""
        if len(body) != size or block_sums(body) != stored.sums:
            store.delete([key])
            return Loaded(variants)
        return Loaded(variants, stored, key, body, found.path)

    def remember_verified(self, filename: str, size: int) -> None:
        if filename:
            self.verified[filename] = size
            while len(self.verified) > 4096:
                del self.verified[next(iter(self.verified))]

    # --- keep --------------------------------------------------------------------------------------------------------

    async def keep(
        self,
        primary: bytes,
        entry: Entry,
        body: bytes | None,
        spool: Spool | None,
        ready: Callable[[], Awaitable[object]],
    ) -> bool:
        """Store a response whose body has come whole: in memory (body), spooled on the disk. Returns whether it is.

        ready: awaited before the disk is written, which takes the processor from whoever waits for the answer.
        """
        if not self.unharmed(entry.url, entry.groups, entry.order):
            await self.discard(spool)
            return False
        key = response_key(primary, variant_name(entry.selecting))
        stamp = Stamp(self.timeline.boot, entry.received_s or self.timeline.now_s())
        old = self.memory.held.get(key)
        held = Held(key, entry, stamp, body)
        variants, gone = self.enter(primary, key, entry)
        if body is not None and len(body) <= self.memory.largest_bytes:
            self.memory.put(held)
        for dead in gone:
            self.memory.drop(dead)
        worth = is_worth_keeping(entry) or body is None
        unchanged = old is not None and old.saved_s is not None and old.body is not None and old.body == body
        if self.store is None or not worth:
            await self.discard(spool)
            return body is not None
        if unchanged and old is not None and self.timeline.now_s() - (old.saved_s or 0.0) < REWRITE_S:
            held.saved_s = old.saved_s
            await self.discard(spool)
            return True
        self.presence.add(primary)
        if self.added is not None:
            self.added.append(primary)
        await ready()
        if not self.unharmed(entry.url, entry.groups, entry.order):
            await self.discard(spool)
            return False
        saved = await self.in_store(self.save, primary, held, variants, gone, spool)
        if saved:
            held.saved_s = self.timeline.now_s()
            self.saved.append(key)
        return bool(saved) or held.alive

    async def discard(self, spool: Spool | None) -> None:
        if spool is not None and self.store is not None:
            await self.in_store(self.store.drop, spool)

    def enter(self, primary: bytes, key: bytes, entry: Entry) -> tuple[tuple[Variant, ...] | None, tuple[bytes, ...]]:
        """The URL's variants with this one, None where it does not vary; and the keys that go."""
        before = self.memory.indexes.get(primary)
        if not entry.selecting:
            gone = tuple(response_key(primary, variant.name) for variant in before or ())
            self.memory.put_index(primary, None)
            return None, tuple(dead for dead in gone if dead != key)
        language = next((value for name, value in entry.fields if name == b"content-language"), None)
        if language is not None:
            language = language.lower() if b"," not in language else None
        new = Variant(entry.selecting, language, variant_name(entry.selecting), entry.order)
        variants, surplus = add_variant(before or (), new)
        self.memory.put_index(primary, variants)
        gone = tuple(response_key(primary, variant.name) for variant in surplus)
        return variants, (response_key(primary, b""), *gone)

    def save(
        self,
        primary: bytes,
        held: Held,
        variants: tuple[Variant, ...] | None,
        gone: tuple[bytes, ...],
        spool: Spool | None,
    ) -> bool:
        """In the store's thread: write a response, and the index where it varies."""
        store = self.store
        assert store is not None
        sums = spool.finish() if spool is not None else block_sums(held.body or b"")
        head = encode_entry(held.entry, held.stamp, sums)
        if not store.put(held.key, head, held.body or b"" if spool is None else b"", spool):
            return False
        if variants is not None:
            merged = self.merge(store, primary, variants)
            store.put(index_key(primary), encode_index(merged))
        elif store.get(index_key(primary)) is not None:
            store.delete([index_key(primary)])
        if gone:
            store.delete(list(gone))
        return True

    def merge(self, store: Store, primary: bytes, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        """The variants on the disk that memory did not know, before the ones it does."""
        found = store.get(index_key(primary))
        if found is None:
            return variants
        try:
            merged = decode_index(found.head, "an index of variants")
        except DamageError:
            return variants
        for variant in variants:
            merged, _ = add_variant(merged, variant)
        return merged

    async def freshen(self, held: Held, entry: Entry) -> Held:
        """Put the entry that a 304 made in the place of the held one. The disk learns of it now and then."""
        stamp = Stamp(self.timeline.boot, entry.received_s or 0.0)
        fresh = Held(held.key, entry, stamp, held.body, held.path, held.sums, saved_s=held.saved_s)
        if not self.unharmed(entry.url, entry.groups, entry.order):
            return fresh  # invalidated while it was asked about: this answer may still go out, and is not kept
        self.memory.put(fresh)
        now_s = self.timeline.now_s()
        if self.store is not None and (fresh.saved_s is None or now_s - fresh.saved_s >= REWRITE_S):
            fresh.saved_s = now_s
            sums = fresh.sums or block_sums(fresh.body or b"")
            await self.in_store(self.store.rewrite, fresh.key, encode_entry(entry, fresh.stamp, sums))
        return fresh

    # --- invalidate --------------------------------------------------------------------------------------------------

    async def invalidate(self, urls: tuple[bytes, ...], scopes: tuple[bytes, ...]) -> None:
        """Make what is stored for URLs invalid: at once for everyone and for `scopes`, by note for every other app."""
        order = self.next_order()
        keys: list[bytes] = []
        for url in urls:
            self.urls.invalidate(origin_of(url), (url_group(url),), order)
            for primary in {*(primary_key(scope, url) for scope in scopes), *self.memory.primaries_of(url)}:
                keys += [response_key(primary, v.name) for v in self.memory.indexes.get(primary, ())]
                keys += [response_key(primary, b""), index_key(primary)]
                self.memory.drop_primary(primary)
        if self.store is not None:
            await self.in_store(self.store.delete, keys)
            await self.save_ledgers()

    async def invalidate_groups(self, origin: bytes, groups: tuple[str, ...]) -> None:
        """Make every stored response of the groups invalid (RFC 9875 section 3)."""
        if not groups:
            return
        self.groups.invalidate(origin, groups, self.next_order())
        for held in list(self.memory.held.values()):
            if held.entry.groups and not self.valid(held.entry):
                self.memory.drop(held.key)
        if self.store is not None:
            await self.save_ledgers()

    async def save_ledgers(self) -> None:
        if self.store is not None:
            await self.in_store(self.store.put, LEDGER, encode([self.groups.dump(), self.urls.dump()]))

    async def drop(self, held: Held) -> None:
        """A stored response has turned out damaged."""
        self.memory.drop(held.key)
        self.verified.pop(os.path.join(*Path(held.path).parts[-2:]) if held.path else "", None)
        if self.store is not None:
            await self.in_store(self.store.delete, [held.key])

    async def tend(self) -> None:
        """Each second: note the clock, and forget what is in memory when another process has purged."""
        if self.store is None or self.settings.directory is None:
            return
        if self.presence.is_full:
            await self.renew_presence()
        if self.timeline.note():
            await self.in_store(self.store.put, BOOTS, encode(self.timeline.dump()))
        mark, saved = stamp_of(self.settings.directory / PURGED), self.saved
        self.saved = []
        if mark != self.purged:
            self.purged = mark
            self.purge_order = self.next_order()
            self.memory.clear()
            # What was written since may have been asked for before the purge.
            await self.in_store(self.store.delete, saved)
            await self.in_store(self.store.recount)


def find_present(store: Store) -> Presence:
    """In the store's thread: the primary keys of what lies there."""
    presence = Presence()
    for key in store.list_keys():
        primary = primary_of_key(key)
        if primary is not None:
            presence.add(primary)
    return presence


def url_group(url: bytes) -> str:
    return url.decode("latin-1")
