"""A real publisher, its HTTP server on loopback, and a real replica; what crosses the wire is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from edged.feed import cbor
from edged.origin.publisher import Publisher
from edged.origin.serving.server import serve_feed
from edged.replica.writer import Writer
from edged.sync.control import Control
from edged.sync.status import DatasetStatus
from edged.sync.task import run, sync_once
from tests.sync.driving import held
from tests.sync.simulator import Device

COUNT = 300
OTHERS_BYTES = 300  # received of a version that touched only what a device does not carry
ORDINARY_BYTES = 450  # of an update: request, answer and what differs of the head, with its hop


def titles(edition: int = 0) -> list[tuple[str, str, Any]]:
    return [
        ("titles", f"t{number:04}", {"title": f"Film {number}", "year": 1950 + number % 70, "edition": edition})
        for number in range(COUNT)
    ]


def expected(records: list[tuple[str, str, Any]]) -> dict[tuple[str, str], bytes]:
    return {(collection, key): cbor.encode(value) for collection, key, value in records}


@asynccontextmanager
async def serving(feed_dir: Path) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(serve_feed, feed_dir, ["127.0.0.1:0"])
        yield urls[0].rstrip("/")
        nursery.cancel_scope.cancel()


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    publisher = Publisher.init(tmp_path / "feed")
    publisher.publish("catalog", titles())
    return publisher


def device_of(tmp_path: Path, *origins: str) -> Device:
    return Device(tmp_path / "data", str(tmp_path / "feed" / "root.trust"), origin=origins, clock_s=time.time())


async def test_edits_arrive_by_the_held_poll_within_their_bytes(tmp_path: Path, publisher: Publisher) -> None:
    async with serving(publisher.path) as url:
        device = device_of(tmp_path, f"{url}/catalog")
        status, control = DatasetStatus("catalog"), Control()
        with Writer.open(device.directory, "catalog") as writer:
            async with trio.open_nursery() as nursery:
                await nursery.start(start, device, writer, status, control)
                await until(status, 1)
                for version in range(2, 6):
                    edit = [("titles", "t0007", {"title": "Film 7", "year": 1957, "edition": version})]
                    before = status.bytes_received + status.bytes_sent
                    await trio.to_thread.run_sync(publisher.publish_changes, "catalog", edit)
                    began = trio.current_time()
                    await until(status, version)
                    assert trio.current_time() - began < 2
                    assert status.last_update is not None
                    assert status.last_update.kinds == {"core": "hops"}
                    spent = status.last_update.bytes_received + status.last_update.bytes_sent
                    assert spent <= status.bytes_received + status.bytes_sent - before + 200
                    assert spent < ORDINARY_BYTES
                assert (status.snapshots_applied, status.hops_applied) == (1, 4)
                with publisher.reading("catalog") as state:
                    [(parts,)] = state.rows("SELECT sum(size) FROM parts WHERE version = 1")
                    [(dictionary,)] = state.rows(
                        "SELECT d.size FROM snapshots AS s JOIN dictionaries AS d ON d.sha256 = s.dictionary"
                    )
                whole = parts + dictionary
                assert [update.full_bytes for _, update in status.updates] == [whole] * 5
                assert all(update.bytes_received < whole for _, update in list(status.updates)[1:])
                assert status.last_error is None
                nursery.cancel_scope.cancel()
    changed = titles()
    changed[7] = ("titles", "t0007", {"title": "Film 7", "year": 1957, "edition": 5})
    assert held(device) == expected(changed)


async def test_versions_of_slices_that_a_device_does_not_carry_are_few_bytes(
    tmp_path: Path, publisher: Publisher
) -> None:
    names = [f"region-{number}" for number in range(8)]
    rules = "".join(f'[slices.{name}]\nwhere = {{ of = "{name}" }}\n' for name in names)
    (publisher.path / "catalog.toml").write_text(rules)
    publisher.publish("catalog", [*titles(), *(("titles", name, {"title": "A film", "of": name}) for name in names)])
    before = publisher.publish_changes("catalog", [("titles", "t0003", {"title": "Film 3", "year": 1900})]).version
    received = []
    async with serving(publisher.path) as url:
        device = device_of(tmp_path, f"{url}/catalog")
        status = DatasetStatus("catalog")
        with Writer.open(device.directory, "catalog") as writer:
            async with trio.open_nursery() as nursery:
                await nursery.start(start, device, writer, status, Control())
                await until(status, before)
                for version, name in enumerate(names, before + 1):
                    edit = [("titles", name, {"title": "Another film", "of": name, "year": 1990 + version})]
                    await trio.to_thread.run_sync(publisher.publish_changes, "catalog", edit)
                    await until(status, version)
                    assert status.last_update is not None
                    assert status.last_update.kinds == {}
                    received.append(status.last_update.bytes_received)
                nursery.cancel_scope.cancel()
    assert statistics.median(received) <= OTHERS_BYTES
    assert held(device) == expected(
        [*titles()[:3], ("titles", "t0003", {"title": "Film 3", "year": 1900}), *titles()[4:]]
    )


async def start(
    device: Device, writer: Writer, status: DatasetStatus, control: Control, *, task_status: trio.TaskStatus[None]
) -> None:
    await run(device.replication(writer, status, control), task_status=task_status)


async def until(status: DatasetStatus, version: int) -> None:
    with trio.fail_after(20):
        while status.version != version:  # noqa: ASYNC110 - the status has no event, and needs none but here
            await trio.sleep(0.01)


@pytest.mark.parametrize("scheme", ["http", "file"])
async def test_far_behind_by_hops_and_a_whole_new_state_by_snapshot(
    tmp_path: Path, publisher: Publisher, scheme: str
) -> None:
    async with serving(publisher.path) as url:
        origin = f"{url}/catalog" if scheme == "http" else (publisher.path / "public" / "catalog").as_uri()
        device = device_of(tmp_path, origin)
        status = await once(device)
        assert status.snapshots_applied == 1
        for edition in range(1, 11):
            edit = [("titles", f"t{edition:04}", {"title": "Edited", "edition": edition})]
            await trio.to_thread.run_sync(publisher.publish_changes, "catalog", edit)
        status = await once(device)
        assert (status.version, status.snapshots_applied) == (11, 0)
        assert 1 <= status.hops_applied <= 6
        await trio.to_thread.run_sync(publisher.publish, "catalog", titles(edition=99))
        assert (await once(device)).version == 12
    assert held(device) == expected(titles(edition=99))


async def once(device: Device) -> DatasetStatus:
    status = DatasetStatus("catalog")
    with Writer.open(device.directory, "catalog") as writer:
        outcome = await sync_once(device.replication(writer, status))
    assert outcome.error is None
    return status


async def test_takedown_rollback_and_rotation_by_the_real_publisher(tmp_path: Path, publisher: Publisher) -> None:
    device = device_of(tmp_path, (publisher.path / "public" / "catalog").as_uri())
    first_trust = (publisher.path / "root.trust").read_bytes()
    (tmp_path / "first.trust").write_bytes(first_trust)
    device.trust = str(tmp_path / "first.trust")
    await once(device)
    publisher.takedown("catalog", "titles", ["t0003"])
    await once(device)
    with Writer.open(device.directory, "catalog") as writer:
        assert writer.status().takedowns is not None
    publisher.publish("catalog", titles(edition=1))
    publisher.rotate_key()
    publisher.rollback("catalog", 1)
    status = await once(device)
    assert status.version == publisher_version(publisher)
    publisher.restore("catalog", "titles", ["t0003"])
    await once(device)
    with Writer.open(device.directory, "catalog") as writer:
        assert writer.status().takedowns is None
    kept = expected(titles())
    assert {name: value for name, value in held(device).items() if name[1] != "t0003"} == {
        name: value for name, value in kept.items() if name[1] != "t0003"
    }


def publisher_version(publisher: Publisher) -> int:
    with publisher.at_work("catalog") as place:
        return place.state.live


async def test_resigned_head_refreshes_without_a_new_version(tmp_path: Path, publisher: Publisher) -> None:
    device = device_of(tmp_path, (publisher.path / "public" / "catalog").as_uri())
    before = (await once(device)).as_of
    later = Publisher.open(publisher.path, clock=lambda: before + 500.0)
    later.resign("catalog")
    status = await once(device)
    assert (status.version, status.as_of) == (1, before + 500)
    assert status.last_update is None


async def test_directory_that_is_not_a_feed(tmp_path: Path, publisher: Publisher) -> None:
    device = device_of(tmp_path, (tmp_path / "nowhere").as_uri())
    status = DatasetStatus("catalog")
    with Writer.open(device.directory, "catalog") as writer:
        outcome = await sync_once(device.replication(writer, status), rests=0)
    assert outcome.error is not None
    assert "is this the feed's directory" in str(outcome.error)
