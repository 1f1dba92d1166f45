"""What a device carries: slices that come and go, pins, takedowns, the schema, the seed bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from edged.errors import ChainError, ConfigError, RequestError, StoreError, TransportError
from edged.feed.blob import BlobRef
from edged.feed.schema import CollectionSchema, Schema
from edged.origin.bundling import write_bundle
from edged.replica.audit import verify
from edged.replica.writer import HeldVersion, Writer
from edged.sync.control import Control
from edged.sync.transports.bundle import BundleTransport
from edged.sync.transports.transport import Traffic
from tests.sync.driving import first_sync, held, running, sync
from tests.sync.simulator import Device, Feed, Origin, failing

FILMS: dict[str, object | None] = {f"t{number:03}": {"title": f"Film {number}"} for number in range(40)}
EDIT: dict[str, object | None] = {"t001": {"title": "Film 1, restored"}}
LATER: dict[str, object | None] = {"t002": {"title": "Film 2, later"}}


@pytest.fixture
def feed() -> Feed:
    feed = Feed(slices=("core", "kids", "region-br"))
    feed.publish(FILMS, "core")
    feed.publish(FILMS, "kids")
    return feed


def state(device: Device) -> HeldVersion:
    with Writer.open(device.directory, device.name) as writer:
        return writer.status()


def pin(device: Device, version: int | None) -> None:
    with Writer.open(device.directory, device.name) as writer:
        writer.pin(version)


# ---- slices


async def test_only_subscribed_slices_are_fetched(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    await first_sync(device, feed)
    assert set(state(device).slices) == {"core"}


async def test_a_slice_that_is_added_is_fetched_alone_and_one_that_is_dropped_fetches_nothing(
    tmp_path: Path, feed: Feed
) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    device.slices = ("core", "kids")
    assert (await sync(device, origin)).error is None
    assert origin.requests["blob"] == 2  # chain and dictionary; the content came inlined
    assert held(device, "kids") == feed.slices["kids"].records
    origin.requests.clear()
    device.slices = ("core",)
    assert (await sync(device, origin)).error is None
    assert origin.requests["blob"] == 0
    assert set(state(device).slices) == {"core"}
    assert held(device) == feed.slices["core"].records


async def test_slice_that_is_not_published_is_reported_and_the_others_go_on(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed, slices=("core", "region-pt"))
    outcome = await sync(device, Origin(feed))
    assert isinstance(outcome.error, ChainError)
    assert "no slice region-pt; it has core, kids, region-br" in str(outcome.error)
    assert outcome.version == 2
    assert held(device) == feed.slices["core"].records


async def test_slice_that_never_had_a_record_needs_no_blob(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed, slices=("core", "region-br"))
    assert (await sync(device, Origin(feed))).error is None
    assert held(device, "region-br") == {}
    feed.publish(EDIT, "region-br")
    assert (await sync(device, Origin(feed))).error is None
    assert held(device, "region-br") == feed.slices["region-br"].records


async def test_core_is_carried_even_if_it_is_not_configured(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed, slices=("kids",))
    await first_sync(device, feed)
    assert set(state(device).slices) == {"core", "kids"}


async def test_change_of_a_slice_not_carried_costs_no_blob(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish(EDIT, "kids")
    outcome = await sync(device, origin)
    assert outcome.version == 3
    assert origin.requests["blob"] == 0


# ---- takedowns and schema


async def test_takedown_comes_with_the_inlined_hop_and_one_blob(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.hidden.add(("titles", "t007"))
    feed.publish({"t007": None})
    assert (await sync(device, origin)).error is None
    assert origin.requests["blob"] == 1
    kept = state(device).takedowns
    assert kept is not None
    feed.hidden.clear()
    feed.publish({"t007": {"title": "Back again"}})
    assert (await sync(device, origin)).error is None
    assert state(device).takedowns is None


async def test_schema_is_taken_from_the_chain_when_it_changes(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.schema, feed.schema_version = Schema({"titles": CollectionSchema(index=("year",))}), 3
    feed.publish(EDIT)
    assert (await sync(device, origin)).error is None
    assert origin.requests["blob"] == 1
    assert state(device).schema_version == 3


# ---- pins


async def test_pinned_device_stays_and_follows_again_when_let_go(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    origin = Origin(feed)
    async with running(device, origin) as sync_task:
        await sync_task.until(2)
        await sync_task.control.pin(2)
        assert sync_task.status.pinned == 2
        feed.publish(EDIT)
        origin.announce()
        await trio.sleep(500)
        assert (sync_task.status.version, sync_task.status.last_error) == (2, None)
        assert origin.requests["head"] < 12  # it still waits for news rather than asking in a circle
        await sync_task.control.pin(None)
        await sync_task.until(3, within_s=1)
    assert held(device) == feed.slices["core"].records


async def test_pin_survives_a_restart(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    pin(device, 2)
    feed.publish(EDIT)
    outcome = await sync(device, origin)
    assert (outcome.version, outcome.error) == (2, None)


async def test_pinned_ahead_follows_up_to_the_pin_and_no_further(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    pin(device, 4)
    for number in range(4):
        feed.publish({"t001": {"title": f"Edit {number}"}})
    assert feed.version == 6
    outcome = await sync(device, origin)
    assert (outcome.version, outcome.error) == (4, None)
    assert held(device) == feed.slices["core"].history[4]
    assert verify(device.directory).faults == []
    pin(device, None)
    assert (await sync(device, origin)).version == 6


async def test_pin_to_a_version_before_the_one_held_goes_back_by_snapshot(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    feed.publish(EDIT)
    feed.publish(LATER)
    origin = await first_sync(device, feed)
    pin(device, 3)
    outcome = await sync(device, origin)
    assert (outcome.version, outcome.error) == (3, None)
    assert held(device) == feed.slices["core"].history[3]


async def test_pin_that_cannot_be_reached_is_refused_with_its_reason_but_takedowns_apply(
    tmp_path: Path, feed: Feed
) -> None:
    device = Device.of(tmp_path, feed)
    for number in range(6):
        feed.publish({"t001": {"title": f"Edit {number}"}})
    origin = await first_sync(device, feed)
    item = feed.slices["core"]
    feed.publish(EDIT, sign=False)
    feed.hidden.add(("titles", "t007"))
    feed.snapshot("core")
    item.hops = [hop for hop in item.hops if hop.from_version >= 7]
    feed.sign()
    pin(device, 4)
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, ChainError)
    assert "choose a later one" in str(outcome.error)
    assert outcome.version == 8
    assert state(device).takedowns is not None


async def test_takedown_applies_while_pinned(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    pin(device, 2)
    feed.hidden.add(("titles", "t007"))
    feed.publish({"t007": None})
    outcome = await sync(device, origin)
    assert (outcome.version, outcome.error) == (2, None)
    assert state(device).takedowns is not None
    without = {name: value for name, value in feed.slices["core"].history[1].items() if name[1] != "t007"}
    assert held(device) == without
    assert verify(device.directory).faults == []
    # The head of version 3 has been seen, so an older one is still a rollback.
    old = Feed(slices=("core", "kids", "region-br"))
    old.publish(FILMS, "core")
    old.publish(FILMS, "kids")
    outcome = await sync(device, Origin(old))
    assert outcome.error is not None
    assert "rollback" in str(outcome.error)


@pytest.mark.parametrize("goal", [4, None])
async def test_what_a_takedown_was_cut_out_of_is_never_built_upon(tmp_path: Path, feed: Feed, goal: int | None) -> None:
    """A hop onto it could come out as other values, which no digest tells where the version's is not signed."""
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    pin(device, 2)
    for number in range(3):
        feed.publish({"t001": {"title": f"Edit {number}"}, "t030": {"title": f"Edit {number}"}})
    feed.hidden.add(("titles", "t007"))
    feed.publish({"t007": None})
    assert (await sync(device, origin)).error is None
    assert state(device).slices["core"].cut
    pin(device, goal)
    outcome = await sync(device, origin)
    assert (outcome.version, outcome.error) == (goal or 6, None)
    assert held(device) == {
        name: value for name, value in feed.slices["core"].history[goal or 6].items() if name[1] != "t007"
    }
    assert state(device).slices["core"].cut is (goal is not None)
    assert verify(device.directory).faults == []


async def test_a_pin_under_a_chain_of_another_version_is_refused_and_what_is_held_stays(
    tmp_path: Path, feed: Feed
) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    before, old_chain = held(device), feed.document().chain
    for _ in range(3):
        feed.publish(EDIT, sign=False)
    pin(device, 4)
    feed.sign(chain=old_chain)
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, ChainError)
    assert "is for catalog, version 2" in str(outcome.error)
    assert held(device) == before


async def test_slice_added_while_pinned_comes_at_the_pinned_version(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    pin(device, 2)
    feed.publish(EDIT, "kids")
    device.slices = ("core", "kids")
    outcome = await sync(device, origin)
    assert (outcome.version, outcome.error) == (2, None)
    assert held(device, "kids") == feed.slices["kids"].history[2]


async def test_pin_needs_a_version_and_something_held(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    origin = Origin(feed)
    origin.delay_s = 5.0
    async with running(device, origin) as sync_task:
        with pytest.raises(ConfigError, match="versions begin at 1"):
            await sync_task.control.pin(0)
        with pytest.raises(StoreError, match="nothing has been synced yet"):
            await sync_task.control.pin(1)


# ---- the seed


def seed_of(tmp_path: Path, feed: Feed, slices: frozenset[str]) -> BundleTransport:
    path = tmp_path / "seed.bundle"
    roots = dict(enumerate(feed.roots, 1))
    write_bundle(path, feed.dataset, feed.head, roots, slices, lambda ref: feed.blobs[ref.sha256])
    return BundleTransport(path, Traffic())


async def test_seed_serves_before_the_network_does(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    seed = seed_of(tmp_path, feed, frozenset({"core"}))
    feed.publish(EDIT)
    origin = Origin(feed)
    origin.fault = failing("head", lambda: StoreError("no network"))
    async with running(device, origin, seed=seed) as sync_task:
        await sync_task.until(2, within_s=1)
        origin.fault = None
        await sync_task.until(3, within_s=60)
        assert origin.requests["blob"] == 0  # all the rest came with the head


async def test_a_seed_is_no_origin_that_could_be_lost(
    tmp_path: Path, feed: Feed, jumping: Any, caplog: pytest.LogCaptureFixture
) -> None:
    device = Device.of(tmp_path, feed)
    origin = Origin(feed)

    def fail(*_: object) -> bytes | None:
        raise TransportError("no network")

    origin.fault = fail
    async with running(device, origin, seed=seed_of(tmp_path, feed, frozenset({"core"}))) as sync_task:
        await sync_task.until(2, within_s=1)
        await sync_task.until_error("no network", within_s=100)
        assert (sync_task.status.connected, sync_task.status.origin) == (False, origin.name)
        assert "is lost" not in caplog.text


async def test_seed_without_a_slice_that_is_configured_seeds_the_others(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed, slices=("core", "kids"))
    outcome = await sync(device, Origin(feed), seed=seed_of(tmp_path, feed, frozenset({"core"})))
    assert outcome.error is None
    assert held(device, "kids") == feed.slices["kids"].records


async def test_seed_is_not_looked_at_once_there_is_a_replica(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    seed = seed_of(tmp_path, feed, frozenset({"core"}))
    feed.publish(EDIT)
    origin = await first_sync(device, feed)
    assert (await sync(device, origin, seed=seed)).version == 3
    assert seed.layout is None


@pytest.mark.parametrize("size", [0, 5, 40, 3000, -1])
async def test_seed_that_is_cut_short_is_passed_over(tmp_path: Path, feed: Feed, size: int) -> None:
    device = Device.of(tmp_path, feed)
    seed = seed_of(tmp_path, feed, frozenset({"core"}))
    seed.path.write_bytes(seed.path.read_bytes()[:size])
    outcome = await sync(device, Origin(feed), seed=seed)
    assert outcome.error is None
    assert outcome.version == 2


async def test_a_pin_is_kept_at_once_while_an_update_is_under_way_and_ends_it(
    tmp_path: Path, feed: Feed, jumping: Any
) -> None:
    class SlowBlobs(Origin):
        async def blob(self, ref: BlobRef, what: str) -> bytes:
            asked.set()
            await trio.sleep(500)
            return await super().blob(ref, what)

    asked = trio.Event()
    device = Device.of(tmp_path, feed)
    feed.inline_bytes = 0
    await first_sync(device, feed)
    feed.publish(EDIT)
    async with running(device, SlowBlobs(feed)) as sync_task:
        with trio.fail_after(100):
            await asked.wait()
            await sync_task.control.pin(2)
            assert sync_task.status.pinned == 2
        await trio.sleep(2000)
        assert (sync_task.status.version, sync_task.status.last_error) == (2, None)
        await sync_task.control.pin(None)
        await sync_task.until(3, within_s=2000)


async def test_a_pin_is_kept_at_once_where_the_trust_file_cannot_be_used(
    tmp_path: Path, feed: Feed, jumping: Any
) -> None:
    device = Device.of(tmp_path, feed)
    await first_sync(device, feed)
    remove(device.trust)
    async with running(device, Origin(feed)) as sync_task:
        await sync_task.until_error("read the trust file")
        with trio.fail_after(1):
            await sync_task.control.pin(2)
        assert sync_task.status.pinned == 2
        with pytest.raises(RequestError, match="no such version yet"):
            await sync_task.control.pin(99)


def remove(path: str) -> None:
    Path(path).unlink()


async def test_pin_before_anything_is_known(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="try again in a moment"):
        await Control().pin(2)
