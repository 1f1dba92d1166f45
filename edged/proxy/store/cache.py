"""Both tiers as one: find, keep, freshen, invalidate. The store on disk is asked in its own thread."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diskcache

from edged.config import ProxyConfig
from edged.errors import DamageError, StoreError
from edged.feed.cbor import encode
from edged.files import FileStamp, stamp_of
from edged.http.fields import Fields
from edged.proxy.rules.decisions import CacheEntry, is_worth_keeping
from edged.proxy.rules.invalidation import GroupLedger, origin_of
from edged.proxy.rules.vary import Variant, add_variant
from edged.proxy.store.disk import Spool
from edged.proxy.store.disktier import DiskLookup, DiskTier
from edged.proxy.store.memory import MemoryTier, Presence, StoredResponse
from edged.proxy.store.record import (
    BOOTS,
    LEDGER,
    STARTS,
    Stamp,
    block_sums,
    decode_list,
    encode_entry,
    index_key,
    is_scoped,
    primary_key,
    response_key,
    variant_name,
)
from edged.proxy.store.store import PURGED, Store
from edged.proxy.store.worker import Worker
from edged.proxy.timeline import Timeline
from edged.units import size_bytes

log = logging.getLogger(__name__)

# What an operation of the store may end with: its own error, or the system's where that comes from deeper down.
STORE_FAULTS = (StoreError, DamageError, OSError, sqlite3.Error, diskcache.Timeout)
REOPEN_S = 30.0  # between attempts to open a store that could not be
REWRITE_S = 60.0  # what a 304 freshens is written to the disk at most this often; memory has it at once
PURGE_CHECK_S = 1.0


class Cache:
    """`open()` before and `close()` after use. directory: where answers are kept; None: in memory alone.

    Storing numbers (`next_order`) order what happens: a response asked for before its URL or a group of its was made
    invalid is not stored afterwards. groups, urls: what was made invalid, and by which number.
    """

    def __init__(self, config: ProxyConfig, directory: Path | None, timeline: Timeline) -> None:
        self.directory, self.timeline = directory, timeline
        self.quota_bytes = size_bytes(config.quota)
        self.memory = MemoryTier(size_bytes(config.memory))
        largest_bytes = size_bytes(config.largest) or self.quota_bytes // 8
        self.largest_bytes = min(largest_bytes, self.memory.largest_bytes) if directory is None else largest_bytes
        self.groups, self.urls = GroupLedger(), GroupLedger()
        self.store: Store | None = None
        self.worker: Worker | None = None
        self.order = 1
        self.presence = Presence()
        self.added: list[bytes] | None = None  # to it while it is made anew
        self.purge_order = 0
        self.saved: list[bytes] = []  # keys written since another process was last seen to purge, or not to
        self.disk: DiskTier | None = None
        self.purged: FileStamp | None = None
        self.lost = 0
        self.last_error: str | None = None
        self.reopen_s = 0.0

    async def open(self) -> None:
        """Open the store. Where its directory cannot be used answers are kept in memory alone, until it can."""
        if self.directory is not None:
            self.worker = Worker("edged-proxy-store")
            await self.try_open()

    async def try_open(self) -> None:
        assert self.worker is not None
        self.reopen_s = self.timeline.now_s() + REOPEN_S
        try:
            store, disk = await self.worker.run(self.open_store, self.directory)
        except STORE_FAULTS as fault:
            self.note_fault(f"{fault}; answers are kept in memory alone until it can be used")
            return
        self.store, self.disk, self.last_error = store, disk, None

    def open_store(self, directory: Path) -> tuple[Store, DiskTier]:
        store = Store(directory, self.quota_bytes, self.recently_used)
        try:
            return store, self.begin(store, directory)
        except BaseException:
            store.close()
            raise

    def begin(self, store: Store, directory: Path) -> DiskTier:
        """Take up what was noted when it was last closed."""
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
        self.order = max(self.order, ((starts + 1) << 32) + 1)
        store.put(STARTS, encode([starts + 1]))
        self.purged = stamp_of(directory / PURGED)
        disk = DiskTier(store, self.memory.largest_bytes)
        self.presence = disk.find_present()
        return disk

    async def renew_presence(self) -> None:
        """Make the bitmap anew from what there is; what is written meanwhile is added to both."""
        assert self.disk is not None
        if self.added is not None:
            return  # it is under way
        self.added = []
        try:
            presence: Presence | None = await self.in_store(self.disk.find_present)
            if presence is not None:
                for primary in self.added:
                    presence.add(primary)
                self.presence = presence
        finally:
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
        if self.worker is not None:
            if self.store is not None:
                await self.in_store(self.store.close)
            self.worker.close()
        self.worker = self.store = self.disk = None

    async def in_store(self, what: Callable[..., Any], *arguments: Any) -> Any:
        """Run a method of the store. Whatever its disk does costs this one operation: None, and what is not stored is
        fetched again."""
        assert self.worker is not None
        try:
            return await self.worker.run(what, *arguments)
        except STORE_FAULTS as fault:
            self.note_fault(str(fault))
            return None

    def note_fault(self, what: str) -> None:
        """The store has failed: counted, in the status, and in the log once for each new thing that is wrong."""
        self.lost += 1
        if what != self.last_error:
            log.warning("the proxy's store failed", extra={"fault": what})
        self.last_error = what

    def next_order(self) -> int:
        self.order += 1
        return self.order

    # --- find --------------------------------------------------------------------------------------------------------

    def peek(self, primary: bytes, request: Fields) -> StoredResponse | None:
        """What a request selects, if it is in memory and was not made invalid."""
        held = self.memory.find(primary, request)
        if held is None:
            return None
        if not self.valid(held.key, held.entry):
            self.memory.drop(held.key)
            return None
        if held.entry.received_s is None:
            self.place(held)
        return held

    def place(self, held: StoredResponse) -> None:
        """A clock that was not set when an entry was read may be set now."""
        moment = self.timeline.place(held.stamp.boot, held.stamp.up_s)
        if moment is not None:
            held.entry = replace(held.entry, received_s=moment)

    def valid(self, key: bytes, entry: CacheEntry) -> bool:
        """Whether nothing has made a response invalid. For everyone who asks plainly it was deleted at once."""
        if not entry.groups and not is_scoped(key):
            return True
        origin = origin_of(entry.url)
        if not self.groups.holds(origin, entry.groups, entry.order):
            return False
        return not is_scoped(key) or self.urls.holds(origin, (url_group(entry.url),), entry.order)

    async def find(self, primary: bytes, request: Fields) -> StoredResponse | None:
        """What a request selects, from memory or from the disk."""
        held = self.peek(primary, request)
        if held is not None or self.disk is None:
            return held
        if not self.presence.may_have(primary):
            return None
        begun = self.next_order()
        loaded: DiskLookup | None = await self.in_store(self.disk.load, primary, request)
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

    def take(self, primary: bytes, loaded: DiskLookup) -> StoredResponse | None:
        if loaded.variants is not None:
            variants = loaded.variants
            for variant in self.memory.indexes.get(primary, ()):
                variants, _ = add_variant(variants, variant)
            self.memory.put_index(primary, variants)
        if loaded.stored is None:
            return None
        stamp = loaded.stored.stamp
        entry = replace(loaded.stored.entry, received_s=self.timeline.place(stamp.boot, stamp.up_s))
        if not self.valid(loaded.key, entry):
            return None
        held = StoredResponse(loaded.key, entry, stamp, loaded.body, loaded.path, loaded.stored.sums)
        held.saved_s = self.timeline.now_s()
        self.memory.put(held)
        return held

    # --- keep --------------------------------------------------------------------------------------------------------

    async def keep(
        self,
        primary: bytes,
        entry: CacheEntry,
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
        held = StoredResponse(key, entry, stamp, body)
        variants, gone = self.enter(primary, key, entry)
        if body is not None and len(body) <= self.memory.largest_bytes:
            self.memory.put(held)
        else:
            self.memory.drop(key)  # what it names is replaced
        for dead in gone:
            self.memory.drop(dead)
        worth = is_worth_keeping(entry) or body is None
        unchanged = old is not None and old.saved_s is not None and old.body is not None and old.body == body
        if self.disk is None or not worth:
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
        saved = await self.in_store(self.disk.save, primary, held, variants, gone, spool)
        if saved and not self.unharmed(entry.url, entry.groups, entry.order):
            await self.drop(held)  # made invalid, or everything purged, while it was written
            return False
        if saved:
            held.saved_s = self.timeline.now_s()
            self.saved.append(key)
        return bool(saved) or held.alive

    async def discard(self, spool: Spool | None) -> None:
        if spool is not None and self.store is not None:
            await self.in_store(self.store.drop, spool)

    def enter(
        self, primary: bytes, key: bytes, entry: CacheEntry
    ) -> tuple[tuple[Variant, ...] | None, tuple[bytes, ...]]:
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

    async def freshen(self, held: StoredResponse, entry: CacheEntry) -> StoredResponse:
        """Put the entry that a 304 made in the place of the held one. The disk learns of it now and then."""
        fresh = held.renewed(entry)
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
            if held.entry.groups and not self.valid(held.key, held.entry):
                self.memory.drop(held.key)
        if self.store is not None:
            await self.save_ledgers()

    async def save_ledgers(self) -> None:
        if self.store is not None:
            await self.in_store(self.store.put, LEDGER, encode([self.groups.dump(), self.urls.dump()]))

    def forget(self, held: StoredResponse) -> None:
        """The disk does not give a body: look there anew before it is given again."""
        self.memory.drop(held.key)
        if self.disk is not None:
            self.disk.look_anew(held.path)

    async def drop(self, held: StoredResponse) -> None:
        """A stored response is damaged, contradicted, or may be kept no longer."""
        self.memory.drop(held.key)
        if self.disk is not None:
            self.disk.look_anew(held.path)
        if self.store is not None:
            await self.in_store(self.store.delete, [held.key])

    async def tend(self) -> None:
        """Each second: note the clock, and forget what is in memory when another process has purged."""
        if self.worker is not None and self.store is None and self.timeline.now_s() >= self.reopen_s:
            await self.try_open()
        if self.store is None or self.directory is None:
            return
        if self.presence.is_full:
            await self.renew_presence()
        if self.timeline.note():
            await self.in_store(self.store.put, BOOTS, encode(self.timeline.dump()))
        try:
            mark = stamp_of(self.directory / PURGED)
        except OSError as fault:
            self.note_fault(f"look at {self.directory / PURGED}: {fault.strerror}")
            return
        saved, self.saved = self.saved, []
        if mark != self.purged:
            self.purged = mark
            self.purge_order = self.next_order()
            self.memory.clear()
            # What was written since may have been asked for before the purge.
            await self.in_store(self.store.delete, saved)
            await self.in_store(self.store.recount)


def url_group(url: bytes) -> str:
    return url.decode("latin-1")
