"""Outages, restarts and full disks: what is held is never worse for them, and the work goes on where it was."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from edged.clock import Clock
from edged.errors import DamageError, MissingError, StoreError, TransportError
from edged.replica.audit import verify
from edged.replica.files.disk import Disk
from edged.replica.writer import Writer
from edged.sync.core.polling import CAP_S
from edged.sync.status import DatasetStatus
from edged.sync.subscription import OriginAccess
from edged.sync.task import run, sync_once
from edged.sync.transports.origins import Origins
from edged.sync.transports.transport import BusyOriginError
from tests.sync.driving import first_sync, held, on_disk, running, sync
from tests.sync.simulator import Device, Feed, Origin, failing, flip, swapping

FILMS: dict[str, object | None] = {f"t{number:03}": {"title": f"Film {number}"} for number in range(40)}
EDIT: dict[str, object | None] = {"t001": {"title": "Film 1, restored"}}
ANOTHER: dict[str, object | None] = {"t002": None, "u1": {"title": "New"}}


@pytest.fixture
def feed() -> Feed:
    feed = Feed()
    feed.publish(FILMS)
    return feed


def down() -> TransportError:
    return TransportError("connect: refused")


# ---- the origin


async def test_origin_down_at_the_start_and_for_hours(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    origin = Origin(feed)
    origin.fault = failing("head", down)
    async with running(device, origin) as sync_task:
        await trio.sleep(4 * 3600)
        asked = origin.requests["head"]
        # Full jitter halves the mean wait; far from a busy loop, and never silent for much longer than the cap.
        assert 4 * 3600 / CAP_S <= asked <= 40 * 4 * 3600 / CAP_S
        document = sync_task.status.document(0)
        assert (document["last_error"], document["connected"]) == ("connect: refused", False)
        origin.fault = None
        await sync_task.until(1, within_s=CAP_S + 1)
        document = sync_task.status.document(0)
        assert (document["last_error"], document["connected"]) == (None, True)


async def test_origin_down_in_the_middle_of_an_update(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    feed.inline_bytes = 0
    origin = await first_sync(device, feed)
    feed.publish(EDIT)
    origin.fault = failing("blob", down, times=3)
    async with running(device, origin) as sync_task:
        await sync_task.until(2)
    assert origin.requests["head"] <= 2  # the update goes on where it was
    assert held(device) == feed.slices["core"].records


async def test_second_origin_takes_over_and_the_first_is_tried_again_later(
    tmp_path: Path, feed: Feed, jumping: Any
) -> None:
    device = Device.of(tmp_path, feed)
    first, second = Origin(feed, "memory:first"), Origin(feed, "memory:second")
    first.fault = failing("head", down)
    async with running(device, first, second) as sync_task:
        await sync_task.until(1, within_s=1)
        assert sync_task.status.origin == "memory:second"
        first.fault = None
        await trio.sleep(1000)
        assert sync_task.status.origin == "memory:first"
        feed.publish(EDIT)
        first.announce()
        await sync_task.until(2, within_s=1)


async def test_blob_missing_at_one_origin_comes_from_the_other(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    feed.inline_bytes = 0
    await first_sync(device, feed)
    feed.publish(EDIT)
    first, second = Origin(feed), Origin(feed)
    first.fault = failing("blob", lambda: MissingError("no such blob"))
    outcome = await sync(device, first, second)
    assert outcome.error is None
    assert held(device) == feed.slices["core"].records


async def test_evil_first_origin_does_not_keep_the_second_from_being_asked(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    old = feed.head
    feed.publish(EDIT)
    await first_sync(device, feed)
    feed.publish(ANOTHER)
    for fault in (
        swapping("head", lambda data: old),
        swapping("head", lambda data: flip(data, 50)),
        swapping("blob", lambda data: flip(data, 0)),
    ):
        evil = Origin(feed)
        evil.fault = fault
        outcome = await sync(device, evil, Origin(feed))
        assert outcome.error is None
        assert outcome.version == 3


async def test_origin_asks_to_be_left_alone(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    origin = Origin(feed)
    origin.fault = failing("head", lambda: BusyOriginError("status 503, asks to wait", 1000.0), times=1)
    async with running(device, origin) as sync_task:
        await trio.sleep(999)
        assert origin.requests["head"] == 1
        await sync_task.until(1, within_s=10)


async def test_blobs_collected_while_the_device_was_fetching(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    """What the head named is gone because there is a newer head: that is asked for, and nothing is stuck."""
    device = Device.of(tmp_path, feed)
    feed.inline_bytes = 0
    origin = await first_sync(device, feed)
    feed.publish(EDIT)
    stale = feed.head
    feed.publish(ANOTHER)
    origin.fault = lambda kind, name, data: stale if kind == "head" else data
    kept = dict(feed.blobs)
    feed.blobs.clear()
    async with running(device, origin) as sync_task:
        await sync_task.until_error("no such blob")
        feed.blobs.update(kept)
        origin.fault = None
        await sync_task.until(3)
    assert held(device) == feed.slices["core"].records


async def test_a_blob_that_never_comes_is_asked_for_ever_more_rarely(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    feed.inline_bytes = 0
    origin = await first_sync(device, feed)
    feed.publish(EDIT)
    origin.fault = failing("blob", lambda: MissingError("no such blob"))
    async with running(device, origin) as sync_task:
        await trio.sleep(6 * 3600)
        assert sync_task.status.version == 1
        assert sync_task.status.last_error == "no such blob"
    assert origin.requests["blob"] < 40 * 6 * 3600 / CAP_S


async def test_content_that_the_publisher_has_to_mend_is_not_fetched_over_and_over(
    tmp_path: Path, feed: Feed, jumping: Any
) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish(EDIT, sign=False)
    feed.slices["core"].hops.clear()
    feed.sign()
    async with running(device, origin) as sync_task:
        await sync_task.until_error("has to publish a snapshot")
        await trio.sleep(24 * 3600)
        assert "has to publish a snapshot" in str(sync_task.status.last_error)
        assert origin.requests["blob"] < 100
        feed.publish(ANOTHER, sign=False)
        feed.snapshot("core")
        feed.sign()
        origin.announce()
        await sync_task.until(3, within_s=1)  # a newer head is taken at once
        assert sync_task.status.last_error is None


# ---- waiting for news


async def test_news_arrives_by_the_held_poll(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    origin = Origin(feed)
    async with running(device, origin) as sync_task:
        await sync_task.until(1)
        for version in range(2, 6):
            await trio.sleep(100)
            feed.publish({"t001": {"title": f"Edit {version}"}})
            origin.announce()
            await sync_task.until(version, within_s=0.2)
        assert origin.requests["blob"] == 2  # all edits came with the head
        assert sync_task.status.hops_applied == 4 + 1
        assert sync_task.status.last_update is not None
        assert sync_task.status.last_update.kinds == {"core": "hops"}
    assert held(device) == feed.slices["core"].records


async def test_a_fresh_signature_on_the_same_content_writes_no_packs(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    origin = Origin(feed)
    async with running(device, origin) as sync_task:
        await sync_task.until(1)
        before = {name for name in on_disk_names(device) if name.startswith("packs/")}
        signed_at = sync_task.status.as_of
        feed.resign(120)
        await trio.sleep(300)
        assert sync_task.status.as_of == signed_at + 120
        assert {name for name in on_disk_names(device) if name.startswith("packs/")} == before


def on_disk_names(device: Device) -> set[str]:
    return set(on_disk(device))


async def test_host_that_does_not_hold_polls(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    origin = Origin(feed)
    origin.holds = False
    async with running(device, origin) as sync_task:
        await sync_task.until(1)
        await trio.sleep(3000)
        assert 80 <= len(origin.polls) <= 120
        assert all(etag is not None for _, _, _, etag in origin.polls[2:])
        assert sum(1 for _, _, wait_s, _ in origin.polls if wait_s) <= 2  # asked once an hour whether it holds now
        feed.publish(EDIT)
        await sync_task.until(2, within_s=35)


async def test_something_on_the_way_cuts_idle_connections(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    """A proxy that ends what is silent for a minute costs nothing but shorter polls: no error, no back-off."""

    class Cut(Origin):
        async def head(self, after: int | None, wait_s: int, etag: str | None) -> Any:
            with trio.move_on_after(60):
                return await super().head(after, wait_s, etag)
            raise TransportError("GET: ReadError: connection reset")

    device = Device.of(tmp_path, feed)
    origin = Cut(feed)
    async with running(device, origin) as sync_task:
        await sync_task.until(1)
        await trio.sleep(3600)
        assert sync_task.status.last_error is None
        assert all(48 <= wait_s <= 60 for _, _, wait_s, _ in origin.polls[3:])
        feed.publish(EDIT)
        origin.announce()
        await sync_task.until(2, within_s=1)


async def test_black_hole(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    """An origin that swallows every request is left for the other after a few of them."""

    class Hole(Origin):
        async def head(self, after: int | None, wait_s: int, etag: str | None) -> Any:
            await trio.sleep(wait_s + 10)
            raise TransportError("GET: too slow")

    device = Device.of(tmp_path, feed)
    await first_sync(device, feed)
    async with running(device, Origin(feed), hole := Hole(feed)) as sync_task:
        await trio.sleep(1)
        assert sync_task.status.connected
    async with running(device, hole, Origin(feed)) as sync_task:
        await trio.sleep(3600)
        feed.publish(EDIT)
        await sync_task.until(2, within_s=600)


async def test_trust_file_that_cannot_be_used_stops_no_serving(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    await first_sync(device, feed)
    rightful = swap_trust(device, b"damaged")
    feed.publish(EDIT)
    async with running(device, Origin(feed)) as sync_task:
        await sync_task.until_error("trust file of catalog")
        assert (sync_task.status.version, sync_task.status.state(feed.now)) == (1, "fresh")
        swap_trust(device, rightful)
        await sync_task.until(2, within_s=301)


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (OriginAccess(ca="/nonexistent"), "read ca /nonexistent: no such file"),
        (OriginAccess(cert="/nonexistent", key="/nonexistent"), "read cert /nonexistent with key"),
        (OriginAccess(proxy="http://h:0"), "the port is 0"),
    ],
)
async def test_what_an_origin_cannot_be_spoken_to_with_stops_no_serving(
    tmp_path: Path, feed: Feed, access: OriginAccess, words: str, jumping: Any
) -> None:
    device = Device.of(tmp_path, feed)
    await first_sync(device, feed)
    status = DatasetStatus(device.name)
    with Writer.open(device.directory, device.name) as writer:
        replication = device.replication(writer, status)
        replication.subscription = replace(
            replication.subscription, origins=("https://origin.example/catalog",), access=access
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(run, replication)
            await trio.sleep(1000)
            assert words in (status.last_error or "").lower()
            assert status.version == 1
            nursery.cancel_scope.cancel()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


async def test_changes_of_state_are_logged_once_each(
    tmp_path: Path, feed: Feed, jumping: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edged.sync")
    device = Device.of(tmp_path, feed)
    began = trio.current_time()
    clock_s, device.clock = device.clock_s, lambda: Clock(lambda: clock_s + trio.current_time() - began)  # type: ignore[method-assign]
    origin = Origin(feed)
    async with running(device, origin) as sync_task:
        await sync_task.until(1)
        origin.fault = failing("head", down)
        await trio.sleep(feed.expires_s + 3600)
        lines = said(caplog)
        assert [" stale: " in line for line in lines].count(True) == 1
        assert [" expired: " in line for line in lines].count(True) == 1
        assert ["is lost" in line for line in lines].count(True) == 1
        origin.fault = None
        feed.resign(feed.expires_s + 3600)
        await trio.sleep(1000)
        lines = said(caplog)
        assert ["fresh again" in line for line in lines].count(True) == 1
        assert ["answers again" in line for line in lines].count(True) == 1
        await sync_task.control.pin(1)
        await sync_task.control.pin(1)
        await sync_task.control.pin(None)
        await trio.sleep(10)
        lines = said(caplog)
        assert ["pinned at version 1" in line for line in lines].count(True) == 1
        assert ["follows the live version again" in line for line in lines].count(True) == 1


async def test_a_directory_removed_under_the_task_is_made_anew(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    """And what was known binds: what comes to fill it is not older than what was there."""
    device = Device.of(tmp_path, feed)
    origin = Origin(feed)
    async with running(device, origin) as sync_task:
        await sync_task.until(1)
        shutil.rmtree(device.directory)
        await trio.sleep(1200)
        feed.publish(EDIT)
        origin.announce()
        await sync_task.until(2)
        await trio.sleep(600)
        assert sync_task.status.last_error is None
    assert held(device) == feed.slices["core"].records


def swap_trust(device: Device, data: bytes) -> bytes:
    path = Path(device.trust)
    before = path.read_bytes()
    path.write_bytes(data)
    return before


# ---- restarts, and the disk


async def test_killed_in_the_middle_of_a_snapshot(tmp_path: Path) -> None:
    feed = Feed()
    feed.part_records = 4
    feed.inline_bytes = 0
    feed.publish(FILMS)
    feed.slices["core"].hops.clear()
    feed.sign()
    device = Device.of(tmp_path, feed)
    origin = Origin(feed)
    with trio.CancelScope() as scope:

        def kill(kind: str, name: str, data: bytes | None) -> bytes | None:
            if kind == "blob" and origin.requests["blob"] == 8:
                scope.cancel()
            return data

        origin.fault = kill
        await sync(device, origin)
    assert scope.cancelled_caught
    assert held(device) == {}
    origin.fault = None
    origin.requests.clear()
    outcome = await sync(device, origin)
    assert outcome.error is None
    # Of chain, dictionary and ten parts, the parts that were whole before the kill are not fetched again.
    assert origin.requests["blob"] == 2 + 10 - 5
    assert held(device) == feed.slices["core"].records


async def test_a_snapshot_of_many_parts_says_how_far_it_has_come(tmp_path: Path) -> None:
    feed = Feed()
    feed.part_records = 4
    feed.inline_bytes = 0
    feed.publish(FILMS)
    feed.slices["core"].hops.clear()
    feed.sign()
    device = Device.of(tmp_path, feed)
    told: list[tuple[int, int]] = []
    status = DatasetStatus(device.name, watch=lambda what, done, steps: told.append((done, steps)))
    with Writer.open(device.directory, device.name) as writer:
        outcome = await sync_once(device.replication(writer, status), Origins([Origin(feed)]))
    assert outcome.error is None
    done = [at for at, steps in told if steps]
    assert done == sorted(done)
    assert len(set(done)) > 10  # one a part at least
    assert all(at < steps for at, steps in told if steps)
    assert told[-1] == (0, 0)
    assert (status.steps_done, status.steps) == (0, 0)


async def test_staged_part_damaged_by_the_power_loss_is_fetched_again(tmp_path: Path) -> None:
    feed = Feed()
    feed.part_records = 10
    feed.publish(FILMS)
    feed.slices["core"].hops.clear()
    feed.sign()
    device = Device.of(tmp_path, feed)
    origin = Origin(feed)
    origin.fault = lambda kind, name, data: None if kind == "blob" and origin.requests["blob"] > 4 else data
    assert isinstance((await sync(device, origin)).error, TransportError)
    tear(device)
    origin.fault = None
    outcome = await sync(device, origin)
    assert outcome.error is None
    assert held(device) == feed.slices["core"].records


def tear(device: Device) -> None:
    staged = sorted((device.directory / device.name / "staging").iterdir())
    assert len(staged) == 2
    staged[0].write_bytes(staged[0].read_bytes()[:-20])


async def test_disk_full(tmp_path: Path, feed: Feed, jumping: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish(EDIT)
    before = on_disk(device)

    def full(disk: Disk, name: str, data: bytes) -> None:
        raise StoreError(f"write {name}: No space left on device; free space and it goes on by itself")

    async with running(device, origin) as sync_task:
        with monkeypatch.context() as patch:
            patch.setattr(Disk, "write", full)
            sync_task.control.nudge()
            await sync_task.until_error("No space left")
            await trio.sleep(100)
            assert sync_task.status.version == 1
        assert on_disk_now(device) == before
        await sync_task.until(2)
        assert sync_task.status.last_error is None


def on_disk_now(device: Device) -> dict[str, bytes]:
    return on_disk(device)


async def test_damaged_slice_is_fetched_anew_without_the_other_slices(tmp_path: Path) -> None:
    feed = Feed(slices=("core", "kids"))
    feed.publish(FILMS, "core")
    feed.dictionary = b""
    feed.publish(FILMS, "kids")
    device = Device.of(tmp_path, feed, slices=("core", "kids"))
    origin = await first_sync(device, feed)
    with Writer.open(device.directory, device.name) as writer:
        dictionary = writer.live.manifest.slices["core"].dictionaries[0]
        damage(device, f"packs/{dictionary.hex()}.dict")
        writer.mark_damaged("core", "read a record: its dictionary is damaged")
        status = DatasetStatus(device.name)
        outcome = await sync_once(device.replication(writer, status), Origins([origin]))
        assert outcome.error is None
        assert writer.status().slices["core"].damaged is None
    assert status.last_update is not None
    assert set(status.last_update.kinds) == {"core"}
    assert held(device) == feed.slices["core"].records
    assert held(device, "kids") == feed.slices["kids"].records


async def test_damage_that_a_reader_finds_is_mended_while_running(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    origin = Origin(feed)
    async with running(device, origin) as sync_task:
        await sync_task.until(1)
        snapshots = sync_task.status.snapshots_applied
        sync_task.control.damaged("core", "read titles/t001: checksum")
        await trio.sleep(5)
        assert sync_task.status.snapshots_applied == snapshots + 1
        assert sync_task.status.repairs == 1
        assert sync_task.status.last_error is None
        await trio.sleep(1000)
        assert sync_task.status.snapshots_applied == snapshots + 1
    assert held(device) == feed.slices["core"].records


async def test_damage_is_told_until_it_is_mended(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    origin = Origin(feed)
    async with running(device, origin) as sync_task:
        await sync_task.until(1)
        origin.delay_s = 30.0
        sync_task.control.damaged("core", "read titles/t001: checksum")
        await trio.sleep(5)
        assert (sync_task.status.repairs, sync_task.status.snapshots_applied) == (0, 1)
        await sync_task.until_error("(slice core): read titles/t001: checksum", within_s=1)
        await trio.sleep(200)
        assert (sync_task.status.repairs, sync_task.status.snapshots_applied) == (1, 2)
        assert sync_task.status.last_error is None


async def test_roots_that_decay_under_a_running_daemon_are_stored_again(
    tmp_path: Path, feed: Feed, jumping: Any
) -> None:
    device = Device.of(tmp_path, feed)
    async with running(device, Origin(feed)) as sync_task:
        await sync_task.until(1)
        damage(device, "roots")
        assert [fault.file for fault in verify(device.directory).faults] == ["roots"]
        sync_task.control.nudge()
        await trio.sleep(5)
        assert verify(device.directory).faults == []


def damage(device: Device, name: str) -> None:
    path = device.directory / device.name / name
    data = path.read_bytes()
    path.write_bytes(flip(data, len(data) // 2))


async def test_hop_onto_damaged_records_falls_back_to_the_snapshot(
    tmp_path: Path, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish(EDIT)
    from edged.replica.writing.staging import Staging

    real, calls = Staging.apply_hop, []

    def damaged(staging: Staging, slice_name: str, to_version: int, data: bytes) -> None:
        calls.append(to_version)
        if len(calls) == 1:
            raise DamageError("read packs/00000002.pack: damaged")
        real(staging, slice_name, to_version, data)

    monkeypatch.setattr(Staging, "apply_hop", damaged)
    outcome = await sync(device, origin)
    assert outcome.error is None
    assert len(calls) > 1
    assert held(device) == feed.slices["core"].records
