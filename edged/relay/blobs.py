"""One dataset's blobs on a relay: only those that its heads lead to, each fetched once however many ask for it.

A name that neither the newest heads nor their chains hold is refused without asking anybody, and the size of every
other is known before a byte of it comes. Nothing goes out that does not have the SHA-256 that it is asked for by.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import trio

from edged.errors import EdgedError, MissingError, StoreError, TransportError
from edged.feed.blob import BlobRef
from edged.feed.chain import Chain, decode_chain, decode_page
from edged.feed.head import Head
from edged.feedserving.files import BLOB, BRIEF, IMMUTABLE, open_file
from edged.files import discard
from edged.http.application import Answer, FileResponse, Held, InThread, Response, Signal, problem
from edged.http.request import Request
from edged.relay.cache import BlobCache, CachedBlob, Key, taken
from edged.sync.core.polling import Backoff
from edged.sync.replication import one_line
from edged.sync.subscription import Subscription
from edged.sync.transports.origins import transport_of
from edged.sync.transports.transport import Traffic, Transport
from edged.threads import in_thread

log = logging.getLogger("edged.relay")

Prefetch = Literal["none", "head", "all"]
BLOB_WAIT_S = 120  # how long a request waits for a blob that is being fetched
UNKNOWN_WAIT_S = 2  # and for a head that leads to the blob
LARGE_BYTES = 4 << 20  # of blobs over this one is fetched at a time, of others FETCHES: they are checked in memory
FETCHES, CHECKS = 8, 2
RETRY = ((b"Retry-After", b"2"),)


@dataclass(slots=True)
class RelayCounters:
    """Of all datasets, since the start. hits: answered from the disk; fetches: blobs asked for above; joined: requests
    that waited for a fetch under way; fetched_bytes: of blobs; failures: fetches that brought nothing; damaged: files
    whose bytes had changed; store_failures: blobs that could not be written."""

    hits: int = 0
    fetches: int = 0
    joined: int = 0
    fetched_bytes: int = 0
    failures: int = 0
    damaged: int = 0
    store_failures: int = 0


@dataclass(slots=True)
class RelayShelf:
    """What all datasets share: the cache, the counters, and how much is done at once."""

    cache: BlobCache
    prefetch: Prefetch
    counters: RelayCounters = field(default_factory=RelayCounters)
    fetching: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(FETCHES))
    fetching_large: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))
    checking: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(CHECKS))

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        async with self.fetching_large if size > LARGE_BYTES else self.fetching:
            yield


@dataclass(slots=True, eq=False)
class BlobFetch:
    """A blob on its way. data: once it is here; fault: why it did not come."""

    ref: BlobRef
    signal: Signal = field(default_factory=Signal)
    data: bytes | None = None
    fault: EdgedError | None = None
    over: bool = False


class FeedBlobs:
    """named: by the newest head, listed: by its chains and their pages, listed_before: by those of the head before,
    which devices may be at work on; each SHA-256 to size.
    """

    def __init__(self, subscription: Subscription, shelf: RelayShelf, traffic: Traffic) -> None:
        self.subscription, self.shelf, self.traffic = subscription, shelf, traffic
        self.head: Head | None = None
        self.named: dict[bytes, int] = {}
        self.listed: dict[bytes, int] = {}
        self.listed_before: dict[bytes, int] = {}
        self.pages: dict[bytes, list[BlobRef]] = {}  # what is in the pages of the newest chains
        self.learnt: Head | None = None  # the head whose chains `listed` is of
        self.done: Head | None = None  # the head of which all that is fetched ahead is here
        self.learning = Signal()
        self.wanted = trio.Event()
        self.under_way: dict[bytes, BlobFetch] = {}
        self.idle: dict[str, Transport] = {}
        self.first = 0  # the origin that is asked first
        self.last_error: str | None = None
        self.nursery: trio.Nursery | None = None

    @property
    def dataset(self) -> str:
        return self.subscription.dataset

    def take(self, head: Head) -> None:
        """A head has been taken: what it names may be asked for from now on."""
        self.head = head
        self.named = sizes(head.blobs())
        self.learning.move()
        self.wanted.set()

    def size_of(self, sha256: bytes) -> int | None:
        for names in (self.named, self.listed, self.listed_before):
            if sha256 in names:
                return names[sha256]
        return None

    # --- answering ---------------------------------------------------------------------------------------------------

    def answer(self, sha256: bytes, request: Request) -> Answer:
        """A blob, from the disk or when it has been fetched."""
        cache, counters = self.shelf.cache, self.shelf.counters
        found = cache.find((self.dataset, sha256))
        if found is None:
            return self.seek(sha256, request)
        if not cache.is_fresh(found):
            return InThread(partial(self.check, sha256, found, request), self.shelf.checking)
        answer = self.open(sha256, request)
        if answer.status != 404:
            counters.hits += 1
            return answer
        cache.forget((self.dataset, sha256))  # somebody has removed the file
        return self.seek(sha256, request)

    def open(self, sha256: bytes, request: Request) -> Response | FileResponse:
        return open_file(self.shelf.cache.path((self.dataset, sha256)), BLOB, sha256.hex().encode(), request)

    def check(self, sha256: bytes, found: CachedBlob, request: Request) -> Answer:
        """In a thread: read the file before it goes out. A damaged one is fetched anew, for this request too."""
        cache = self.shelf.cache
        try:
            cache.read((self.dataset, sha256), found.size)
        except EdgedError as fault:
            # A generation that never was has it asked again at once, on the server's thread.
            return Held(self.learning, -1, BLOB_WAIT_S, partial(self.replace, sha256, request, fault))
        found.checked_at = cache.monotonic()
        return self.open(sha256, request)

    def replace(self, sha256: bytes, request: Request, fault: EdgedError, last: bool) -> Answer:
        """In place of a file that is damaged, or gone."""
        self.forget_damaged((self.dataset, sha256), fault)
        return self.seek(sha256, request)

    def forget_damaged(self, key: Key, fault: EdgedError) -> None:
        cache = self.shelf.cache
        if key in cache.blobs:
            log.warning("%s: %s; it is fetched again", self.dataset, one_line(fault))
            self.shelf.counters.damaged += 1
            cache.forget(key)
            discard([cache.path(key)])

    def seek(self, sha256: bytes, request: Request) -> Answer:
        """A blob that is not held: fetched where the newest heads lead to it."""
        size = self.size_of(sha256)
        if size is not None:
            self.shelf.counters.joined += sha256 in self.under_way
            fetch = self.begin(BlobRef(sha256, size), "blob for a device")
            return Held(fetch.signal, fetch.signal.generation, BLOB_WAIT_S, partial(self.arrived, fetch, request))
        if self.head is self.learnt:
            unknown = partial(self.still_unknown, sha256, request)
            return Held(self.learning, self.learning.generation, UNKNOWN_WAIT_S, unknown)
        if self.last_error is not None:
            return problem(503, f"what there is is not known yet: {self.last_error}", RETRY, BRIEF)
        return Held(self.learning, self.learning.generation, BLOB_WAIT_S, partial(self.learnt_more, sha256, request))

    def still_unknown(self, sha256: bytes, request: Request, last: bool) -> Answer:
        """A request for what no head leads to: whoever asks may have the next head already, from a broker."""
        if last:
            return problem(404, "no head of the dataset leads to such a blob", cache=BRIEF)
        return self.answer(sha256, request)

    def learnt_more(self, sha256: bytes, request: Request, last: bool) -> Answer:
        """A request that waited for the newest head's chain to say what there is."""
        if last:
            return problem(503, "the chain of the newest version is being fetched", RETRY, BRIEF)
        return self.answer(sha256, request)

    def arrived(self, fetch: BlobFetch, request: Request, last: bool) -> Answer:
        """A request that waited for a fetch."""
        if fetch.data is None:
            what = "it is being fetched" if fetch.fault is None else str(fetch.fault)
            missing = isinstance(fetch.fault, MissingError)
            return problem(404 if missing else 503, f"the blob is not here: {what}", () if missing else RETRY, BRIEF)
        if self.shelf.cache.find((self.dataset, fetch.ref.sha256)) is not None:
            answer = self.open(fetch.ref.sha256, request)
            if answer.status != 404:
                return answer
        fields = (
            (b"Content-Type", BLOB),
            (b"Cache-Control", IMMUTABLE),
            (b"ETag", b'"%b"' % fetch.ref.name.encode()),
            (b"Content-Length", b"%d" % len(fetch.data)),
        )
        return Response(200, fields, fetch.data)

    # --- fetching ----------------------------------------------------------------------------------------------------

    def begin(self, ref: BlobRef, what: str) -> BlobFetch:
        """The fetch of a blob, one for all who ask."""
        found = self.under_way.get(ref.sha256)
        if found is None:
            found = self.under_way[ref.sha256] = BlobFetch(ref)
            assert self.nursery is not None, "asked before run"
            self.nursery.start_soon(self.fetch, found, what)
        return found

    async def fetch(self, fetch: BlobFetch, what: str) -> None:
        counters, ref = self.shelf.counters, fetch.ref
        try:
            async with self.shelf.turn(ref.size):
                counters.fetches += 1
                data = await self.fetch_from_any(ref, what)
                counters.fetched_bytes += len(data)
                await self.keep(ref, data)
                fetch.data = data
        except EdgedError as fault:
            counters.failures += 1
            fetch.fault = fault
        finally:
            fetch.over = True
            del self.under_way[ref.sha256]
            fetch.signal.move()

    async def fetch_from_any(self, ref: BlobRef, what: str) -> bytes:
        """From the first origin that has it, that of the last success first. Raises the last one's fault."""
        origins = self.subscription.origins
        error: EdgedError | None = None
        for step in range(len(origins)):
            number = (self.first + step) % len(origins)
            try:
                async with self.transport(origins[number]) as transport:
                    data = ref.check(await transport.blob(ref, what), what)
            except EdgedError as fault:
                error = fault
                continue
            self.first = number
            return data
        assert error is not None
        raise error

    @asynccontextmanager
    async def transport(self, origin: str) -> AsyncIterator[Transport]:
        """One for this fetch alone; one an origin is kept for the next."""
        found = self.idle.pop(origin, None) or transport_of(origin, self.traffic, self.subscription.access)
        try:
            yield found
        finally:
            if origin in self.idle:
                with trio.CancelScope(shield=True):
                    await found.aclose()
            else:
                self.idle[origin] = found

    async def keep(self, ref: BlobRef, data: bytes) -> None:
        """On the disk, if it is to be had: without it the blob goes to those who wait, and is fetched again."""
        cache, key = self.shelf.cache, (self.dataset, ref.sha256)
        if taken(ref.size) > cache.quota or self.size_of(ref.sha256) is None:  # a takedown may have come meanwhile
            return
        try:
            await in_thread(cache.write, key, data)
            gone = cache.add(key, ref.size, cache.monotonic())
            await in_thread(discard, gone)
        except StoreError as fault:
            self.shelf.counters.store_failures += 1
            log.warning("%s: %s", self.dataset, one_line(fault))

    async def obtain(self, ref: BlobRef, what: str) -> bytes:
        """A blob's bytes, from the disk or from above. Raises EdgedError."""
        key, cache = (self.dataset, ref.sha256), self.shelf.cache
        if cache.find(key) is not None:
            try:
                return await in_thread(cache.read, key, ref.size)
            except EdgedError as fault:
                self.forget_damaged(key, fault)
        fetch = self.begin(ref, what)
        while not fetch.over:
            await fetch.signal.wait(fetch.signal.generation)
        if fetch.data is None:
            raise fetch.fault or TransportError(f"fetch {what}: cut short")
        return fetch.data

    # --- ahead of being asked ----------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """For ever: learn what each new head leads to, and fetch of it what `prefetch` says."""
        backoff = Backoff(random.random)
        try:
            async with trio.open_nursery() as self.nursery:
                task_status.started()
                while True:
                    await self.wanted.wait()
                    self.wanted = trio.Event()
                    assert self.head is not None
                    try:
                        if await self.follow(self.head):
                            self.done = self.head
                        backoff.succeed()
                        self.note(None)
                    except EdgedError as fault:
                        self.note(fault)
                        self.learning.move()
                        with trio.move_on_after(backoff.fail()):
                            await self.wanted.wait()
                        self.wanted.set()
        finally:
            self.nursery = None
            with trio.CancelScope(shield=True):
                for transport in self.idle.values():
                    await transport.aclose()
            self.idle.clear()

    def note(self, fault: EdgedError | None) -> None:
        text = None if fault is None else one_line(fault)
        if text is not None and text != self.last_error:
            log.warning("%s: %s", self.dataset, text)
        self.last_error = text

    async def follow(self, head: Head) -> bool:
        """False where a newer head has come meanwhile. Raises EdgedError."""
        for hop in head.hops():
            if hop.inline is not None and self.shelf.cache.find((self.dataset, hop.blob.sha256)) is None:
                await self.keep(hop.blob, hop.inline)  # devices that are further behind ask for it by its name
        chains = [await self.learn(ref) for ref in head.chains()]
        await self.list_blobs(head, chains)
        named = head.blobs() if self.shelf.prefetch != "none" else ()
        listed = (ref for chain in chains for ref in snapshot_blobs(chain)) if self.shelf.prefetch == "all" else ()
        for ref in named:
            if not await self.fetch_ahead(ref, head, evict=True):
                return False
        for ref in listed:
            if not await self.fetch_ahead(ref, head, evict=False):
                return False
        return self.head is head

    async def learn(self, ref: BlobRef) -> Chain:
        data = await self.obtain(ref, "chain")
        return await in_thread(decode_chain, data)

    async def list_blobs(self, head: Head, chains: list[Chain]) -> None:
        """Know all that `chains` lead to. What neither this head nor the one before it leads to goes.

        All that this one does not lead to goes at the start and with a takedown, which a later head of the same version
        may carry out.
        """
        names = sizes(ref for chain in chains for ref in chain.blobs())
        pages: dict[bytes, list[BlobRef]] = {}
        for page in (page for chain in chains for page in chain.pages()):
            found = self.pages.get(page.blob.sha256)
            if found is None:
                data = await self.obtain(page.blob, "page of the chain")
                found = [hop.blob for hop in await in_thread(decode_page, data, page)]
            pages[page.blob.sha256] = found
            names |= sizes(found)
        before, oldest = self.learnt, self.listed_before
        self.listed_before, self.listed, self.pages, self.learnt = self.listed, names, pages, head
        cache = self.shelf.cache
        held: Iterable[bytes] = oldest
        if before is None or before.takedowns != head.takedowns or before.newest_version == head.newest_version:
            self.listed_before, held = {}, cache.of(self.dataset)
        gone = cache.drop(self.dataset, [sha256 for sha256 in held if self.size_of(sha256) is None])
        self.learning.move()
        await in_thread(discard, gone)

    async def fetch_ahead(self, ref: BlobRef, head: Head, *, evict: bool) -> bool:
        """Have a blob on the disk before somebody asks; evict: others may go for it. Whether to go on. Raises
        EdgedError."""
        cache = self.shelf.cache
        if self.head is not head:
            return False
        fits = taken(ref.size) <= (cache.quota if evict else cache.room)
        if (self.dataset, ref.sha256) not in cache.blobs and fits:
            await self.obtain(ref, "blob ahead of being asked")
        return True


def snapshot_blobs(chain: Chain) -> Iterator[BlobRef]:
    """What a new device begins with."""
    for entry in chain.slices.values():
        yield from entry.dictionary_refs()
        if entry.snapshots:
            yield from max(entry.snapshots, key=lambda snapshot: snapshot.version).parts


def sizes(refs: Iterable[BlobRef]) -> dict[bytes, int]:
    return {ref.sha256: ref.size for ref in refs}
