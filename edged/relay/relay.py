"""Which datasets are handed on: those that are configured, and those of a pattern once somebody asks for them."""

from __future__ import annotations

import fnmatch
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from edged.clock import Clock
from edged.errors import RequestError
from edged.feed.names import NAME
from edged.feed.trust.root import VerifiedHead
from edged.feedserving.app import PublicHead
from edged.feedserving.files import COSE, IMMUTABLE
from edged.files import discard, explained
from edged.http.application import Answer, Response, Signal
from edged.http.request import Request
from edged.relay.blobs import FeedBlobs, Prefetch, RelayShelf
from edged.relay.cache import NEVER, BlobCache
from edged.relay.following import HeadFollower
from edged.sync.subscription import OriginAccess, Subscription
from edged.threads import in_thread

log = logging.getLogger("edged.relay")

MOST_DATASETS, MOST_EXPECTED = 4096, 64  # followed in all; of these without a head, because somebody asked
FORGET_S = 30.0  # a name that was asked for and has no head is asked for again after so long


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """subscriptions: the datasets that are named; origins: base URLs, below which those that match a pattern lie;
    trust: the file with their root of trust; quota: bytes on the disk."""

    subscriptions: tuple[Subscription, ...]
    quota: int
    prefetch: Prefetch = "all"
    origins: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    trust: str = ""
    poll_s: int = 30
    access: OriginAccess = field(default_factory=OriginAccess)

    def named(self) -> dict[str, Subscription]:
        """Every dataset that is known by name; those of [[datasets]] in their own way."""
        exact = [name for name in self.patterns if "*" not in name]
        return {name: self.below(name) for name in exact} | {item.dataset: item for item in self.subscriptions}

    def matching(self, dataset: str) -> Subscription | None:
        """How to follow a dataset that nobody named, None where no pattern is for it."""
        if not NAME.fullmatch(dataset) or not any(fnmatch.fnmatchcase(dataset, item) for item in self.patterns):
            return None
        return self.below(dataset)

    def below(self, dataset: str) -> Subscription:
        origins = tuple(f"{base.rstrip('/')}/{dataset}" for base in self.origins)
        return Subscription(dataset, origins, self.trust, poll_s=self.poll_s, access=self.access)


class RelayedFeed:
    """One dataset. signal: moves when its head does."""

    def __init__(self, subscription: Subscription, directory: Path, clock: Clock, shelf: RelayShelf) -> None:
        self.subscription = subscription
        self.shown: PublicHead | None = None
        self.signal = Signal()
        self.scope, self.ended = trio.CancelScope(), trio.Event()
        self.follower = HeadFollower(subscription, directory, clock, self.show, self.signal.move)
        self.blobs = FeedBlobs(subscription, shelf, self.follower.status.traffic)

    def show(self, verified: VerifiedHead) -> None:
        self.shown = PublicHead.of(verified.data, verified.head)
        self.blobs.take(verified.head)
        self.signal.move()

    async def run(self, *, for_ever: bool) -> None:
        """Until it is cancelled; a dataset that was asked for and is not there is let go after a while."""
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.blobs.run)
                    nursery.start_soon(self.follower.run)
                    await trio.sleep(FORGET_S)
                    if self.shown is None and not for_ever:
                        nursery.cancel_scope.cancel()
        finally:
            self.ended.set()

    def document(self) -> dict[str, Any]:
        """The dataset's member of `relay` in /status."""
        status, head = self.follower.status, self.shown
        return {
            "version": 0 if head is None else head.version,
            "newest": 0 if head is None else head.newest_version,
            "signed_at": 0 if head is None else head.document.signed_at,
            "waiting": len(self.signal.followers),
            "origin": status.origin,
            "connected": status.connected,
            "bytes_received": status.traffic.received,
            "bytes_sent": status.traffic.sent,
            "complete": head is not None and self.blobs.done is head.document,
            "last_error": status.last_error or self.blobs.last_error,
        }


class Relay:
    """Feeds (edged/feedserving). directory: where heads, roots and blobs are kept."""

    def __init__(self, settings: RelaySettings, directory: Path, clock: Clock) -> None:
        self.settings, self.directory, self.clock = settings, directory, clock
        self.cache = BlobCache(directory, settings.quota, time.monotonic)
        self.shelf = RelayShelf(self.cache, settings.prefetch)
        self.feeds: dict[str, RelayedFeed] = {}
        self.nursery: trio.Nursery | None = None
        self.urls: list[str] = []

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow for ever. Started when what is on the disk is known. Raises StoreError where nothing can be kept."""
        with explained("create directory", self.directory):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = await in_thread(self.cache.scan)
        for key, size in kept:
            discard(self.cache.add(key, size, NEVER))
        async with trio.open_nursery() as self.nursery:
            for subscription in self.settings.named().values():
                self.begin(subscription, for_ever=True)
            for name in sorted({key[0] for key, _ in kept} - self.feeds.keys()):
                found = self.settings.matching(name)
                if found is not None:
                    self.begin(found, for_ever=False)
            task_status.started()
            await trio.sleep_forever()

    async def take(self, subscriptions: tuple[Subscription, ...]) -> None:
        """Follow these named datasets from now on, after the configuration was read anew."""
        before, self.settings = self.settings, replace(self.settings, subscriptions=subscriptions)
        old, new = before.named(), self.settings.named()
        differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        for name in differing:
            if (feed := self.feeds.get(name)) is not None:  # one that is new may be followed by a pattern
                feed.scope.cancel()
                await feed.ended.wait()
        for name in differing:
            if name in new:
                self.begin(new[name], for_ever=True)

    def begin(self, subscription: Subscription, *, for_ever: bool) -> RelayedFeed:
        name = subscription.dataset
        feed = self.feeds[name] = RelayedFeed(subscription, self.directory / name, self.clock, self.shelf)
        assert self.nursery is not None, "asked before run"
        self.nursery.start_soon(self.keep, feed, for_ever)
        return feed

    async def keep(self, feed: RelayedFeed, for_ever: bool) -> None:
        try:
            await feed.run(for_ever=for_ever)
        finally:
            if self.feeds.get(feed.subscription.dataset) is feed:
                del self.feeds[feed.subscription.dataset]
            feed.signal.move()

    # --- Feeds -------------------------------------------------------------------------------------------------------

    def datasets(self) -> list[str]:
        return sorted(name for name, feed in self.feeds.items() if feed.shown is not None)

    def current(self, dataset: str) -> PublicHead | None:
        feed = self.feeds.get(dataset)
        return None if feed is None else feed.shown

    def latest(self, dataset: str) -> PublicHead | None:
        return self.current(dataset)

    def signal(self, dataset: str) -> Signal:
        feed = self.feeds.get(dataset)
        return feed.signal if feed is not None else Signal()

    def expect(self, dataset: str) -> bool:
        """Begin to follow a dataset that a pattern is for. Raises RequestError where its origins do not answer."""
        feed = self.feeds.get(dataset)
        if feed is None:
            found = self.settings.matching(dataset)
            if found is None:
                return False
            expected = sum(feed.shown is None for feed in self.feeds.values())
            if len(self.feeds) >= MOST_DATASETS or expected >= MOST_EXPECTED:
                raise RequestError(503, "too many datasets are asked for", headers=(("Retry-After", "30"),))
            self.begin(found, for_ever=False)
            return True
        status = feed.follower.status
        if status.tried and not status.missing:
            what = f"dataset {dataset!r} cannot be had now: {status.last_error}"
            raise RequestError(503, what, headers=(("Retry-After", "5"),))
        return not status.tried

    def trust(self, dataset: str, number: int, request: Request) -> Answer:
        feed = self.feeds.get(dataset)
        document = None if feed is None else feed.follower.root(number)
        if document is None:
            raise RequestError(404, f"no root of trust {number} of a dataset {dataset!r} here")
        length = (b"Content-Length", b"%d" % len(document))
        return Response(200, ((b"Content-Type", COSE), (b"Cache-Control", IMMUTABLE), length), document)

    def blob(self, dataset: str, name: str, request: Request) -> Answer:
        feed = self.feeds.get(dataset)
        if feed is None:
            raise RequestError(404, f"no dataset {dataset!r} here")
        return feed.blobs.answer(bytes.fromhex(name), request)

    # --- what operators ask ------------------------------------------------------------------------------------------

    def status(self) -> Mapping[str, Any]:
        """The document's member `relay`."""
        cache, counters = self.cache, self.shelf.counters
        return {
            "urls": self.urls,
            "disk_bytes": cache.used,
            "quota_bytes": cache.quota,
            "blobs": len(cache.blobs),
            "evictions": cache.evictions,
            "waiting": sum(len(feed.signal.followers) for feed in self.feeds.values()),
            **asdict(counters),
            "datasets": {name: feed.document() for name, feed in sorted(self.feeds.items())},
        }
