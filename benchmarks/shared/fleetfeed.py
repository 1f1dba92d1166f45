"""What a made-up feed really weighs: heads, blobs, and what is spoken around them with an origin on this machine."""

from __future__ import annotations

import base64
import random
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from benchmarks.shared.publishes import Record, made_up
from edged.feed.head import Head
from edged.origin.ahead import preparing
from edged.origin.ahead.preparing import AheadOptions
from edged.origin.input.reading import Values
from edged.origin.publisher import Publisher
from edged.origin.serving.server import serve_feed
from edged.sync.transports.http import HttpTransport
from edged.sync.transports.transport import HeadReply, Traffic

T = TypeVar("T")
DATASET = "catalog"
QUIET_S, SPREAD_S, NOTE_BYTES, PATCH_TITLES, AHEAD_TITLES = 2, 600, 500, 200, 1250


@dataclass(frozen=True, slots=True)
class Spoken:
    """Bytes of a request and of its answer without the body, as they go through the socket."""

    sent: int
    received: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is spoken for: a head at once, a poll without news and with them, a root that is not there, a blob."""

    anew: Spoken
    quiet: Spoken
    news: Spoken
    root: Spoken
    blob: Spoken


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes. edit: the head of an edit that it carries; patch, chain, hop: a head, and what has to be fetched for it;
    coming, sealed, release: the head that announces a version ahead, its blob, and the head with its key."""

    edit: int
    patch: int
    chain: int
    hop: int
    coming: int
    sealed: int
    release: int
    spoken: Conversation


class WeighedFeed:
    """A feed in a folder, and what is published in it."""

    def __init__(self, place: Path, titles: int) -> None:
        records, self.edits = made_up(titles)
        kept, self.chance = list(records), random.Random(7)
        self.titles = [record for record in kept if record[0] == "titles"]
        Publisher.init(place / "feed")
        self.publisher = Publisher.open(place / "feed", wait_s=60)  # the one before may be at what is not urgent
        (self.publisher.path / f"{DATASET}.toml").write_text(f'[delivery]\nspread = "{SPREAD_S}s"\n')
        self.publisher.publish(DATASET, kept)

    @property
    def head(self) -> Head:
        return self.publisher.believed_head(DATASET)

    @property
    def head_bytes(self) -> int:
        return (self.publisher.public / DATASET / "head").stat().st_size

    def publish(self, records: list[Record]) -> Head:
        self.publisher.publish_changes(DATASET, records)
        return self.head

    def noted(self, count: int) -> list[Record]:
        """So many titles, each with a note that no coding makes smaller."""

        def note() -> str:
            return base64.b85encode(self.chance.randbytes(NOTE_BYTES)).decode()

        return [(name, key, {**value, "note": note()}) for name, key, value in self.titles[:count]]

    def prepare(self) -> Head:
        with self.publisher.at_work(DATASET) as place:
            preparing.prepare(place, Values(self.noted(AHEAD_TITLES), edits=True), AheadOptions(spread_s=SPREAD_S))
        return self.head

    def release(self) -> None:
        with self.publisher.at_work(DATASET) as place:
            preparing.release(place)


class Wire:
    """A device's connection to the origin, and what goes through it."""

    def __init__(self, url: str) -> None:
        self.traffic = Traffic()
        self.transport = HttpTransport(url, self.traffic)

    async def spoken(self, asking: Awaitable[T], body: Callable[[T], int] = lambda found: 0) -> tuple[T, Spoken]:
        sent, received = self.traffic.sent, self.traffic.received
        found = await asking
        return found, Spoken(self.traffic.sent - sent, self.traffic.received - received - body(found))


def size_of(reply: HeadReply | None) -> int:
    assert reply is not None, "the origin answered that nothing has changed"
    return len(reply.data)


async def weigh(feed: WeighedFeed) -> Weights:
    in_thread = trio.to_thread.run_sync
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(partial(serve_feed, feed.publisher.path, ["127.0.0.1:0"]))
        wire = Wire(f"{urls[0]}/{DATASET}")
        asks = wire.transport
        asks.held = "12 1a2b3c4d"  # as a device has it in its User-Agent
        await asks.head(None, 0, None)  # connects
        head, anew = await wire.spoken(asks.head(None, 0, None), size_of)
        assert head is not None
        version = feed.head.version
        _, quiet = await wire.spoken(asks.head(version, QUIET_S, head.etag))
        _, root = await wire.spoken(asks.trust(2))

        async def publish_soon() -> None:
            await trio.sleep(0.5)
            await in_thread(feed.publish, next(feed.edits)[:1])

        nursery.start_soon(publish_soon)
        edited, news = await wire.spoken(asks.head(version, 60, head.etag), size_of)
        patched = await in_thread(feed.publish, feed.noted(PATCH_TITLES))
        patch, hop = feed.head_bytes, next(iter(patched.slices["core"].hops)).blob
        _, blob = await wire.spoken(asks.blob(hop, "hop"), len)
        coming = await in_thread(feed.prepare)
        assert coming.ahead is not None
        announced, sealed = feed.head_bytes, coming.ahead.hops["core"].blob.size
        await in_thread(feed.release)
        await asks.aclose()
        nursery.cancel_scope.cancel()
    spoken = Conversation(anew, quiet, news, root, blob)
    return Weights(size_of(edited), patch, patched.chain.size, hop.size, announced, sealed, feed.head_bytes, spoken)


def weights(titles: int) -> Weights:
    """Of a feed of so many titles that is made for this and deleted again."""
    with tempfile.TemporaryDirectory() as name:
        return trio.run(weigh, WeighedFeed(Path(name), titles))
