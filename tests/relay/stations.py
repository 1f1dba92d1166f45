"""Relays, origins and devices of one test, in this process, on ports that the kernel picks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from edged.clock import Clock
from edged.feed import cbor
from edged.feedserving.app import FeedApp
from edged.http.server import Listening, serve
from edged.origin.publisher import Publisher
from edged.origin.serving.server import serve_feed
from edged.relay.relay import Relay, RelaySettings
from edged.replica.writer import Writer
from edged.sync.status import DatasetStatus
from edged.sync.subscription import Subscription
from edged.sync.task import SyncOutcome, sync_once
from tests.sync.driving import held
from tests.sync.simulator import Device

DEADLINE_S = 20.0
QUOTA = 64 << 20


def titles(count: int = 200, **more: Any) -> list[tuple[str, str, Any]]:
    """Records whose content does not shrink to nothing."""
    return [
        (
            "titles",
            f"t{number:04}",
            {"title": f"Film {number}", "year": 1950 + number % 70, "text": text(number), **more},
        )
        for number in range(count)
    ]


def text(number: int) -> str:
    return " ".join(str(number * prime % 9973) for prime in (7919, 104_729, 1_299_709, 15_485_863, 179_424_673))


def edit(number: int, edition: int) -> list[tuple[str, str, Any]]:
    return [("titles", f"t{number:04}", {"title": f"Film {number}", "edition": edition})]


async def until(good: Callable[[], bool]) -> None:
    with trio.fail_after(DEADLINE_S):
        while not good():  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.005)


@asynccontextmanager
async def origin_of(feed: Publisher, bind: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Its base URL, without a dataset."""
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(serve_feed, feed.path, [bind])
        yield urls[0].rstrip("/")
        nursery.cancel_scope.cancel()


def following(feed: Publisher, *origins: str, dataset: str = "catalog", **more: Any) -> RelaySettings:
    """Of a relay that hands on one dataset, named."""
    urls = tuple(f"{origin}/{dataset}" for origin in origins)
    return RelaySettings((Subscription(dataset, urls, str(feed.trust_path), poll_s=1),), QUOTA, **more)


@asynccontextmanager
async def relay_of(
    settings: RelaySettings, directory: Path, bind: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[Relay, str]]:
    """A relay that answers, and its base URL."""
    relay = Relay(settings, directory, Clock())
    async with trio.open_nursery() as nursery:
        await nursery.start(relay.run)
        urls = await nursery.start(partial(serve, FeedApp(relay, time.time), Listening((bind,)), clock=time.time))
        yield relay, urls[0].rstrip("/")
        nursery.cancel_scope.cancel()


async def complete(relay: Relay, version: int, dataset: str = "catalog") -> None:
    """Until the relay has all of a version."""
    await until(
        lambda: (
            dataset in relay.feeds
            and relay.feeds[dataset].document()["complete"]
            and relay.feeds[dataset].document()["newest"] == version
        )
    )


async def synced(place: Path, feed: Publisher, *origins: str, dataset: str = "catalog") -> SyncOutcome:
    """A device below `place`, new or as it was left, that synchronises once."""
    urls = tuple(f"{origin}/{dataset}" for origin in origins)
    device = Device(place, str(feed.trust_path), dataset, origin=urls, clock_s=time.time())
    with trio.fail_after(DEADLINE_S), Writer.open(device.directory, dataset) as writer:
        return await sync_once(device.replication(writer, DatasetStatus(dataset)), rests=0)


def content(place: Path, feed: Publisher) -> dict[tuple[str, str], Any]:
    device = Device(place, str(feed.trust_path), origin=(), clock_s=time.time())
    return {name: cbor.decode(value, "value") for name, value in held(device).items()}


def as_content(records: list[tuple[str, str, Any]]) -> dict[tuple[str, str], Any]:
    return {(collection, key): value for collection, key, value in records}
