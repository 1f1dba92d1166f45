"""The feed over HTTP: what devices get, what they wait for, and what nobody gets."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cbor2
import pytest
import trio
import trio.testing

from edged.errors import ConfigError
from edged.http.application import Signal
from edged.origin.publisher import Publisher, PublishOptions
from edged.origin.serving import keeping as station
from edged.origin.serving.heads import Heads
from edged.origin.serving.server import serve_feed
from tests.origin.conftest import Clock
from tests.origin.devices import Device
from tests.origin.test_publish import edit, films

pytestmark = pytest.mark.trio
DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    head_bytes: int


class Client:
    """One connection to the server, byte for byte."""

    def __init__(self, url: str, stream: trio.SocketStream) -> None:
        self.url, self.stream, self.rest = url, stream, b""

    async def ask(self, target: str, *, method: str = "GET", **headers: str) -> Reply:
        lines = [
            f"{method} {target} HTTP/1.1",
            "Host: feed",
            *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
        ]
        with trio.fail_after(DEADLINE_S):
            await self.stream.send_all("\r\n".join([*lines, "", ""]).encode())
            return await self.reply(method)

    async def reply(self, method: str) -> Reply:
        while b"\r\n\r\n" not in self.rest:
            await self.more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
        while len(self.rest) < length:
            await self.more()
        body, self.rest = self.rest[:length], self.rest[length:]
        return Reply(int(first.split()[1]), headers, body, len(head) + 4)

    async def more(self) -> None:
        piece = await self.stream.receive_some()
        assert piece, "the server closed the connection"
        self.rest += piece


@asynccontextmanager
async def serving(publisher: Publisher) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    """The feed served on a port of the kernel's choice; yields what makes connections to it."""
    async with trio.open_nursery() as nursery:
        run = partial(serve_feed, publisher.path, ["127.0.0.1:0"], clock=publisher.clock)
        urls = await nursery.start(run)
        streams: list[trio.SocketStream] = []

        async def connect() -> Client:
            stream = await trio.open_tcp_stream("127.0.0.1", int(urls[0].rsplit(":", 1)[1]))
            streams.append(stream)
            return Client(urls[0], stream)

        yield connect
        for stream in streams:
            await stream.aclose()
        nursery.cancel_scope.cancel()


@pytest.fixture
def feed(publisher: Publisher) -> Publisher:
    publisher.publish("catalog", films(20))
    return publisher


def head_of(feed: Publisher) -> bytes:
    return (feed.public / "catalog" / "head").read_bytes()


async def test_the_head_costs_few_bytes_and_is_confirmed_by_its_etag(feed: Publisher) -> None:
    async with serving(feed) as connect:
        client = await connect()
        reply = await client.ask("/catalog/head")
        assert (reply.status, reply.body) == (200, head_of(feed))
        assert reply.head_bytes < 210  # the number for the next poll included
        assert "server" not in reply.headers
        assert reply.headers["cache-control"] == "max-age=1, stale-if-error=86400"
        again = await client.ask("/catalog/head", If_None_Match=reply.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        assert (await client.ask("/catalog/head", If_None_Match='"other", *')).status == 304
        only = await client.ask("/catalog/head", method="HEAD")
        assert (only.status, only.headers["content-length"]) == (200, str(len(head_of(feed))))
        assert (await client.ask("/catalog/head")).status == 200


async def test_a_poll_is_held_until_the_next_version(feed: Publisher) -> None:
    async with serving(feed) as connect, trio.open_nursery() as nursery:
        sender, receiver = trio.open_memory_channel[Reply](5)

        async def poll(target: str) -> None:
            await sender.send(await (await connect()).ask(target))

        for _ in range(5):
            nursery.start_soon(poll, "/catalog/head?after=1&wait=60")
        await trio.testing.wait_all_tasks_blocked(0.05)
        with pytest.raises(trio.WouldBlock):
            receiver.receive_nowait()
        await trio.to_thread.run_sync(feed.publish_changes, "catalog", [edit(3)])
        with trio.fail_after(DEADLINE_S):
            replies = [await receiver.receive() for _ in range(5)]
        assert {(reply.status, reply.body) for reply in replies} == {(200, head_of(feed))}
        at_once = await (await connect()).ask("/catalog/head?after=1&wait=60")
        assert at_once.status == 200


async def test_a_poll_hears_of_an_offer_of_its_share_and_of_its_end(feed: Publisher) -> None:
    async with serving(feed) as connect:
        client = await connect()
        etag = (await client.ask("/catalog/head")).headers["etag"]
        seen = 1  # the newest version that the device has seen, offered or live
        for operation in (
            lambda: feed.publish_changes("catalog", [edit(3)], PublishOptions(permille=50)),
            lambda: feed.rollout("catalog", 250),
            lambda: feed.takedown("catalog", "titles", ["t1"]),
            lambda: feed.rollout("catalog", 1000),
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, operation)
                with trio.fail_after(DEADLINE_S):
                    reply = await client.ask(f"/catalog/head?after={seen}&wait=60", If_None_Match=etag)
            assert (reply.status, news_of(reply.body)) == (200, news_of(head_of(feed)))
            assert reply.headers["etag"] != etag
            etag, seen = reply.headers["etag"], max(seen + 1, 2)


def news_of(data: bytes) -> tuple[int, list[Any], Any]:
    """Version, salt, share and version of the offer, and takedowns of a signed head."""
    document = cbor2.loads(cbor2.loads(data).value[2])
    return document[3], document.get(11, [])[:3], document.get(10)


async def test_a_head_that_says_nothing_new_is_not_sent_to_whoever_has_the_one_before(feed: Publisher) -> None:
    async with serving(feed) as connect:
        client = await connect()
        etag = (await client.ask("/catalog/head")).headers["etag"]
        assert isinstance(feed.clock, Clock)
        feed.clock.now += 60
        await trio.to_thread.run_sync(feed.resign, "catalog")
        with trio.move_on_after(0.3) as held:
            await client.ask("/catalog/head?after=1&wait=60", If_None_Match=etag)
        assert held.cancelled_caught
        fresh = await connect()
        reply = await fresh.ask("/catalog/head?after=1&wait=0", If_None_Match=etag)
        assert (reply.status, reply.body) == (200, head_of(feed))


async def test_a_poll_that_names_another_head_is_answered_at_once(feed: Publisher) -> None:
    async with serving(feed) as connect:
        with trio.fail_after(DEADLINE_S):
            reply = await (await connect()).ask("/catalog/head?after=9&wait=60", If_None_Match='"older"')
        assert (reply.status, reply.body) == (200, head_of(feed))


async def test_a_poll_that_nothing_comes_of_ends_in_204_or_304(feed: Publisher) -> None:
    async with serving(feed) as connect:
        client = await connect()
        assert (await client.ask("/catalog/head?after=1&wait=0")).status == 204
        reply = await client.ask("/catalog/head?after=99&wait=0")
        assert (reply.status, reply.body) == (204, b"")
        etag = reply.headers["etag"]
        assert (await client.ask("/catalog/head?after=1&wait=0", If_None_Match=etag)).status == 304
        await trio.to_thread.run_sync(feed.publish, "catalog", films(20))  # nothing changed
        assert isinstance(feed.clock, Clock)
        feed.clock.now += 60
        await trio.to_thread.run_sync(feed.resign, "catalog")
        newer = await client.ask("/catalog/head?after=1&wait=0", If_None_Match=etag)
        assert (newer.status, newer.body) == (200, head_of(feed))  # a newer signature is worth having


async def test_a_client_that_goes_while_it_waits_leaves_nothing_behind(
    feed: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals: list[Signal] = []
    signal = Heads.signal

    def noted(heads: Heads, dataset: str) -> Signal:
        signals.append(signal(heads, dataset))
        return signals[-1]

    monkeypatch.setattr(Heads, "signal", noted)
    async with serving(feed) as connect:
        client = await connect()
        await client.stream.send_all(b"GET /catalog/head?after=1&wait=300 HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: bool(signals) and len(signals[0].followers) == 1)
        await client.stream.aclose()
        await until(lambda: not signals[0].followers)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    "query", ["after=x&wait=1", "after=1&wait=-1", "after=1&wait=", "after=1&wait=1.5", "after=" + "9" * 30]
)
async def test_a_malformed_poll_is_400(feed: Publisher, query: str) -> None:
    async with serving(feed) as connect:
        reply = await (await connect()).ask(f"/catalog/head?{query}")
        assert reply.status == 400
        assert json.loads(reply.body)["status"] == 400


@pytest.mark.parametrize(
    "target",
    [
        "/catalog/../../private/keys/head-1.key",
        "/../private/lock",
        "/catalog/blobs/../../../private/lock",
        "/catalog/blobs/..%2f..%2f..%2fprivate%2flock",
        "/catalog/blobs/%2e%2e/%2e%2e/%2e%2e/private/lock",
        "/..%2fprivate/head",
        "/catalog/trust/0",
        "/catalog/trust/01",
        "/catalog/trust/2",
        "/catalog/trust/1/",
        "/catalog/blobs/" + "0" * 64,
        "/catalog/blobs/" + "A" * 64,
        "/catalog/blobs/",
        "/catalog/head/",
        "/catalog/head%00",
        "/catalog",
        "/nowhere/head",
        "/nowhere/head?after=1&wait=100",
        "//catalog/head",
        "/catalog.toml",
        "/private/state/catalog.db",
    ],
)
async def test_nothing_but_the_feed_has_a_name(feed: Publisher, target: str) -> None:
    async with serving(feed) as connect:
        reply = await (await connect()).ask(target)
        assert reply.status == 404
        assert reply.headers["content-type"] == "application/problem+json"


async def test_a_symlink_among_the_blobs_is_not_followed(feed: Publisher) -> None:
    os.symlink(feed.private / "keys" / "head-1.key", feed.public / "catalog" / "blobs" / ("a" * 64))
    os.symlink(feed.private / "keys" / "head-1.key", feed.public / "catalog" / "trust" / "7")
    async with serving(feed) as connect:
        client = await connect()
        assert (await client.ask("/catalog/blobs/" + "a" * 64)).status == 404
        assert (await client.ask("/catalog/trust/7")).status == 404


async def test_blobs_are_immutable_and_can_be_fetched_in_ranges(feed: Publisher) -> None:
    path = max((feed.public / "catalog" / "blobs").iterdir(), key=lambda item: item.stat().st_size)
    data, target = path.read_bytes(), f"/catalog/blobs/{path.name}"
    async with serving(feed) as connect:
        client = await connect()
        whole = await client.ask(target)
        assert (whole.status, whole.body) == (200, data)
        assert whole.headers["cache-control"] == "public, max-age=31536000, immutable"
        for asked, start, end in (("5-9", 5, 10), ("100-", 100, len(data)), ("-7", len(data) - 7, len(data))):
            part = await client.ask(target, Range=f"bytes={asked}")
            assert (part.status, part.body) == (206, data[start:end])
            assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(data)}"
        past = await client.ask(target, Range=f"bytes={len(data)}-")
        assert (past.status, past.headers["content-range"]) == (416, f"bytes */{len(data)}")
        for ignored in ("bytes=9-5", "bytes=1-2,5-6", "lines=1-2", "bytes=-"):
            assert (await client.ask(target, Range=ignored)).status == 200
        etag = whole.headers["etag"]
        assert (await client.ask(target, If_None_Match=etag)).status == 304
        assert (await client.ask(target, Range="bytes=1-2", If_Range=etag)).status == 206
        assert (await client.ask(target, Range="bytes=1-2", If_Range='"other"')).status == 200
        only = await client.ask(target, method="HEAD")
        assert (only.status, only.body, only.headers["content-length"]) == (200, b"", str(len(data)))
        assert (await client.ask(target, method="DELETE")).status == 405


async def test_a_large_blob_arrives_whole(feed: Publisher) -> None:
    data = os.urandom(3 << 20)
    path = feed.public / "catalog" / "blobs" / ("b" * 64)
    path.write_bytes(data)
    async with serving(feed) as connect:
        assert (await (await connect()).ask(f"/catalog/blobs/{path.name}")).body == data


async def test_roots_of_trust_are_served_with_their_numbers(feed: Publisher) -> None:
    feed.rotate_key()
    async with serving(feed) as connect:
        client = await connect()
        for number in (1, 2):
            assert (await client.ask(f"/catalog/trust/{number}")).body == feed.roots.documents[number - 1]
        assert (await client.ask("/catalog/head")).status == 200


async def test_the_listing_names_datasets_and_versions(feed: Publisher) -> None:
    feed.publish("schedule", films(2))
    feed.publish("schedule", films(3))
    async with serving(feed) as connect:
        listing = json.loads((await (await connect()).ask("/")).body)["datasets"]
        assert {name: item["version"] for name, item in listing.items()} == {"catalog": 1, "schedule": 2}


async def test_a_forged_head_file_does_not_replace_the_rightful_one(feed: Publisher) -> None:
    rightful = head_of(feed)
    async with serving(feed) as connect:
        client = await connect()
        assert (await client.ask("/catalog/head")).body == rightful
        forged = bytearray(rightful)
        forged[-1] ^= 1
        (feed.public / "catalog" / "head").write_bytes(bytes(forged))
        assert (await client.ask("/catalog/head")).body == rightful


async def test_heads_are_signed_anew_at_half_their_fresh_time(feed: Publisher) -> None:
    assert isinstance(feed.clock, Clock)
    device = Device(feed.path, "catalog")
    first, before = device.sync(), head_of(feed)
    heads = Heads(feed.public)
    feed.clock.now += first.fresh_s / 2 - 1
    assert not station.is_aging(heads.current("catalog"), feed.clock.now)
    feed.clock.now += 1
    assert station.is_aging(heads.current("catalog"), feed.clock.now)
    async with serving(feed) as connect:
        client = await connect()
        with trio.fail_after(DEADLINE_S):
            while (await client.ask("/catalog/head")).body == before:
                await trio.testing.wait_all_tasks_blocked()
    again = device.sync()
    assert (again.signed_at, again.version) == (int(feed.clock.now), 1)


async def test_a_head_that_cannot_be_signed_anew_is_served_as_it_is(
    feed: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    (feed.path / "catalog.toml").write_text("[fresh]\n")
    station.sign_anew(feed, "catalog")
    assert "head of catalog is not signed anew" in caplog.text
    assert Device(feed.path, "catalog").sync().version == 1


async def test_without_the_head_key_the_feed_is_served_as_it_is(feed: Publisher) -> None:
    (feed.private / "keys" / "head-1.key").unlink()
    assert await trio.to_thread.run_sync(station.open_with_key, feed.path, feed.clock) is None
    async with serving(feed) as connect:
        assert (await (await connect()).ask("/catalog/head")).status == 200


async def test_a_stop_answers_those_who_wait(feed: Publisher) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(partial(serve_feed, feed.path, ["127.0.0.1:0"], stop=stop, clock=feed.clock))
        stream = await trio.open_tcp_stream("127.0.0.1", int(urls[0].rsplit(":", 1)[1]))
        client = Client(urls[0], stream)
        await stream.send_all(b"GET /catalog/head?after=1&wait=300 HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.05)
        stop.set()
        with trio.fail_after(DEADLINE_S):
            assert (await client.reply("GET")).status == 204
        await stream.aclose()


async def test_a_directory_that_is_no_feed_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a feed"):
        await serve_feed(tmp_path, ["127.0.0.1:0"])


async def test_an_address_that_is_taken_is_said_plainly(feed: Publisher) -> None:
    async with serving(feed) as connect:
        client = await connect()
        with pytest.raises(ConfigError, match="another program has the address"):
            await serve_feed(feed.path, [client.url.removeprefix("http://")])
