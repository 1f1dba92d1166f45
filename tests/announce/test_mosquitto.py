"""A real Mosquitto that dies, forgets, is flooded, and has one to serve who does not read."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trio

from edged.announce.broker import PACKET_BYTES, BrokerAccess
from edged.announce.putting import Announcer
from edged.origin.publisher import Publisher
from edged.origin.serving import keeping
from tests.announce.brokers import Mosquitto, client, message, mosquitto, needs_mosquitto, payloads, subscriber
from tests.announce.test_broker import announcing, connected, device_of, feed, publish, pushed, retained  # noqa: F401
from tests.relay.stations import edit, origin_of, until

TOPIC = "feed/catalog/head"
pytestmark = [pytest.mark.slow, needs_mosquitto]


def url_of(broker: Mosquitto) -> str:
    return f"mqtt://127.0.0.1:{broker.port}/feed"


def head_of(feed: Publisher) -> bytes:  # noqa: F811
    return (feed.public / "catalog" / "head").read_bytes()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "BROKER_LOOK_S", 0.3)
    monkeypatch.setattr(keeping, "REPEAT_S", 1.0)


async def test_a_publisher_that_goes_on_keeps_its_connection_and_finds_the_broker_again(
    feed: Publisher,  # noqa: F811
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with mosquitto(tmp_path / "broker") as broker:
        announcing(feed, url_of(broker))
        feed.announcements.keeps = True
        feed.publish_changes("catalog", edit(1, 2))
        first = feed.announcements.announcer
        assert first is not None
        connection = first.connection
        feed.publish_changes("catalog", edit(1, 3))
        assert first.connection is connection is not None
        assert await trio.to_thread.run_sync(retained, url_of(broker)) == head_of(feed)
        broker.kill()
        feed.publish_changes("catalog", edit(1, 4))  # costs its announcement alone
        assert "the head is live" in caplog.text
        broker.start()
        feed.publish_changes("catalog", edit(1, 5))
        assert await trio.to_thread.run_sync(retained, url_of(broker)) == head_of(feed)
        feed.announcements.close()


async def test_killed_between_two_heads_it_has_the_second_one(
    feed: Publisher,  # noqa: F811
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is back before the next publish: the connection is dead, and that shows only when the head was sent."""
    with mosquitto(tmp_path / "broker") as broker:
        announcing(feed, url_of(broker))
        feed.announcements.keeps = True
        feed.publish_changes("catalog", edit(1, 2))
        broker.kill()
        broker.start()
        with caplog.at_level(logging.WARNING):
            feed.publish_changes("catalog", edit(1, 3))
        assert caplog.text == ""
        assert await trio.to_thread.run_sync(retained, url_of(broker)) == head_of(feed)
        feed.announcements.close()


async def test_what_it_has_forgotten_it_is_told_again(feed: Publisher, tmp_path: Path) -> None:  # noqa: F811
    """While everybody is connected: someone has cleared it, or put something else there."""
    with mosquitto(tmp_path / "broker") as broker:
        announcing(feed, url_of(broker))
        access = BrokerAccess(url_of(broker))
        async with origin_of(feed) as origin, device_of(feed, tmp_path / "device", origin, access) as device:
            await until(lambda: device.status.version == 1 and connected(device))
            with client(broker.port, "vandal") as vandal:
                for payload in (b"", b"garbage"):
                    vandal.sendall(message(TOPIC, payload))
                    await trio.sleep(0.2)
                    await until_retained(broker, head_of(feed))
            await publish(feed, 1, 2)
            await until(lambda: device.status.version == 2)
            await until(lambda: pushed(device))


async def until_retained(broker: Mosquitto, head: bytes) -> None:
    with trio.fail_after(20):
        while await trio.to_thread.run_sync(now_retained, broker) != [head]:  # noqa: ASYNC110
            await trio.sleep(0.1)


def now_retained(broker: Mosquitto) -> list[bytes]:
    with subscriber(broker.port, TOPIC) as sock:
        return payloads(sock, 0.2)


async def test_each_head_goes_out_once(feed: Publisher, tmp_path: Path) -> None:  # noqa: F811
    """Though both the command that publishes and `origin serve` look after the broker."""
    with mosquitto(tmp_path / "broker") as broker:
        announcing(feed, url_of(broker))
        async with origin_of(feed):
            await until_retained(broker, head_of(feed))
            with subscriber(broker.port, TOPIC) as sock:
                assert payloads(sock, 0.3) == [head_of(feed)]
                for edition in (2, 3):
                    await publish(feed, 1, edition)
                    heads = await trio.to_thread.run_sync(payloads, sock, 1.5)
                    assert head_of(feed) == heads[-1]
                    assert len(set(heads)) == len(heads)


async def test_one_who_does_not_read_holds_up_nobody(feed: Publisher, tmp_path: Path) -> None:  # noqa: F811
    with mosquitto(tmp_path / "broker") as broker:
        announcing(feed, url_of(broker))
        access = BrokerAccess(url_of(broker))
        async with origin_of(feed) as origin, device_of(feed, tmp_path / "device", origin, access) as device:
            await until(lambda: device.status.version == 1 and connected(device))
            sleepers = [subscriber(broker.port, "feed/#", f"sleeper{number}") for number in range(20)]
            try:
                await trio.to_thread.run_sync(announce_many, access, 400)
                await publish(feed, 1, 2)
                await until(lambda: device.status.version == 2)
                assert pushed(device)
            finally:
                for sock in sleepers:
                    sock.close()


def announce_many(access: BrokerAccess, count: int) -> None:
    """40 MB to each subscriber of everything: more than the system's buffers take for one who does not read."""
    with Announcer(access) as announcer:
        for number in range(count):
            announcer.announce("other", number.to_bytes(2, "big") * 50_000)


async def test_a_flood_and_garbage_through_it_cost_nothing(feed: Publisher, tmp_path: Path) -> None:  # noqa: F811
    stranger = Publisher.init(tmp_path / "stranger")
    stranger.publish("catalog", [("titles", "a", {"title": "not yours"})])
    forged, old = head_of(stranger), head_of(feed)
    with mosquitto(tmp_path / "broker") as broker:
        announcing(feed, url_of(broker))
        access = BrokerAccess(url_of(broker))
        async with origin_of(feed) as origin, device_of(feed, tmp_path / "device", origin, access) as device:
            await until(lambda: device.status.version == 1 and connected(device))
            await publish(feed, 1, 2)
            await until(lambda: device.status.version == 2)
            with client(broker.port, "vandal") as vandal:
                await trio.to_thread.run_sync(vandal.sendall, message(TOPIC, forged, retained=False) * 3000)
                for payload in (b"", old, old[:-1] + b"x", b"\xff" * 900):
                    vandal.sendall(message(TOPIC, payload))
                await publish(feed, 1, 3)
                await until(lambda: device.status.version == 3)
                assert device.status.last_error is None
                vandal.sendall(message(TOPIC, bytes(PACKET_BYTES)))  # longer than any head: the device hangs up
                await until(lambda: device.status.broker is not None and device.status.broker.last_error is not None)
                await publish(feed, 1, 4)
                await until(lambda: device.status.version == 4)
            await until(lambda: connected(device))  # the origin has put the head in its place again
            await publish(feed, 1, 5)
            await until(lambda: device.status.version == 5)
