"""Versions that would break apps: refused by the device, the last good one served on, the next one taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.errors import WireError
from edged.feed.schema import CollectionSchema, Schema
from edged.replica.audit import verify
from edged.replica.writer import Writer
from edged.sync.core.judge import ContentError
from tests.sync.driving import first_sync, held, on_disk, running, sync
from tests.sync.simulator import Device, Feed, Origin

FILMS: dict[str, object | None] = {f"t{number}": {"n": number} for number in range(10)}
NONE: dict[str, object | None] = dict.fromkeys(FILMS)


@pytest.fixture
def feed() -> Feed:
    feed = Feed()
    feed.publish(FILMS)
    return feed


async def test_a_version_without_a_required_collection(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed, require=("titles",))
    origin = await first_sync(device, feed)
    before = on_disk(device)
    feed.publish(NONE)
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, ContentError)
    assert "version 2 of catalog: collection titles has no record" in str(outcome.error)
    assert (outcome.version, on_disk(device)) == (1, before)
    feed.publish(FILMS)
    outcome = await sync(device, origin)
    assert (outcome.version, outcome.error) == (3, None)


async def test_a_first_version_without_a_required_collection(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed, require=("titles", "channels"))
    outcome = await first_refused(device, feed)
    assert "channels has no record" in outcome
    assert held(device) == {}


async def first_refused(device: Device, feed: Feed) -> str:
    outcome = await sync(device, Origin(feed))
    assert isinstance(outcome.error, ContentError)
    assert outcome.version == 0
    return str(outcome.error)


async def test_fewer_records_than_the_schema_says(tmp_path: Path, feed: Feed) -> None:
    feed.schema, feed.schema_version = Schema({"titles": CollectionSchema(min_count=8)}), 1
    feed.sign()
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish({"t1": None, "t2": None})
    assert (await sync(device, origin)).version == 2
    feed.publish({"t3": None})
    outcome = await sync(device, origin)
    assert "titles has 7 records, the schema says at least 8" in str(outcome.error)
    assert outcome.version == 2
    assert len(held(device)) == 8


async def test_a_device_with_some_of_the_slices_is_not_held_to_the_number_of_all(tmp_path: Path) -> None:
    feed = Feed(slices=("core", "more"))
    feed.schema, feed.schema_version = Schema({"titles": CollectionSchema(min_count=12)}), 1
    feed.publish(FILMS, sign=False)
    feed.publish({f"m{number}": {"n": number} for number in range(5)}, "more")
    await first_sync(Device.of(tmp_path, feed), feed)
    (tmp_path / "other").mkdir()
    await first_sync(Device.of(tmp_path / "other", feed, slices=("core", "more")), feed)


async def test_what_a_refused_version_takes_down_is_taken_down(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed, require=("titles",))
    origin = await first_sync(device, feed)
    feed.hidden.add(("titles", "t1"))
    feed.publish(NONE)
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, ContentError)
    assert outcome.version == 1
    with Writer.open(device.directory, device.name) as writer:
        settings = writer.live.settings()
        assert settings is not None
        assert ("titles", "t1") in settings.hidden
    assert verify(device.directory).faults == []


async def test_a_running_synchronisation_says_why_and_goes_on(tmp_path: Path, feed: Feed, jumping: object) -> None:
    device = Device.of(tmp_path, feed, require=("titles",))
    origin = await first_sync(device, feed)
    async with running(device, origin) as task:
        await task.until(1)
        feed.publish(NONE)
        origin.announce()
        await task.until_error("titles has no record")
        feed.publish(FILMS)
        origin.announce()
        await task.until(3)
        assert task.status.last_error is None


def test_the_schema_carries_the_least_number() -> None:
    schema = Schema({"titles": CollectionSchema(("year",), (), 5), "people": CollectionSchema()})
    assert Schema.from_cbor(schema.to_cbor()) == schema
    for wrong in (-1, "5", None):
        with pytest.raises(WireError, match="min_count"):
            Schema.from_cbor({"collections": {"titles": {"index": [], "text": [], "min_count": wrong}}, "views": {}})
