"""A version ahead on a device: fetched sealed, readable to nobody, and live as soon as its key comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from edged.feed import cbor
from edged.feed.ahead import laidhop
from edged.feed.coding.hop import HEADER_BYTES
from edged.feed.head import Head
from edged.feed.trust import root as trust
from edged.feed.trust.sealing import bound_to, seal, unseal
from edged.origin.ahead import plans, preparing
from edged.origin.ahead.preparing import AheadOptions
from edged.origin.blobs.laid import make_laid
from edged.origin.input.reading import Values
from edged.origin.publisher import Publisher
from edged.replica.audit import verify
from edged.sync.core.prefetch import place_in_window
from edged.sync.transports.file import FileTransport
from edged.sync.transports.http import HttpTransport
from edged.sync.transports.transport import Traffic
from tests.sync.driving import held, running, sync
from tests.sync.simulator import Device
from tests.sync.test_end_to_end import device_of, expected, serving, titles

SECRET = "the surprise of the season, and nobody may know it before"
NEW = [("titles", f"t{number:04}", {"title": f"{SECRET} {number}", "n": number}) for number in range(7, 207, 2)]


def prepare(publisher: Publisher, edits: list[tuple[str, str, Any]] = NEW, **options: Any) -> preparing.AheadResult:
    with publisher.at_work("catalog") as place:
        return preparing.prepare(place, Values(edits, edits=True), AheadOptions(**{"spread_s": 0, **options}))


def release(publisher: Publisher) -> int:
    with publisher.at_work("catalog") as place:
        return preparing.release(place).version


def head_of(publisher: Publisher) -> Head:
    root = trust.read_root(publisher.trust_path.read_bytes(), "trust file")
    return trust.verify_head((publisher.public / "catalog" / "head").read_bytes(), root, "catalog").head


def sealed_files(device: Device) -> list[Path]:
    return sorted((device.directory / "catalog" / "ahead").iterdir())


def transport(publisher: Publisher) -> FileTransport:
    return FileTransport((publisher.public / "catalog").as_uri(), Traffic())


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    publisher = Publisher.init(tmp_path / "feed")
    publisher.publish("catalog", titles())
    return publisher


@pytest.fixture
def device(tmp_path: Path, publisher: Publisher) -> Device:
    return device_of(tmp_path, (publisher.public / "catalog").as_uri())


def after(edits: list[tuple[str, str, Any]] = NEW) -> dict[tuple[str, str], bytes]:
    return expected(titles()) | expected(edits)


async def until(found: Callable[[], object]) -> None:
    with trio.fail_after(20):
        while not found():  # noqa: ASYNC110 - files have no event
            await trio.sleep(0.02)


async def test_it_is_fetched_sealed_and_live_with_its_key_alone(
    tmp_path: Path, publisher: Publisher, device: Device
) -> None:
    origin = transport(publisher)
    async with running(device, origin, device_id="box") as task:
        await task.until(1, within_s=20)
        prepared = prepare(publisher)
        await until(lambda: sealed_files(device))
        for place in (device.directory, publisher.public):
            readable = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
            assert SECRET[:12].encode() not in readable
        kept = sealed_files(device)[0].read_bytes()
        assert len(kept) == prepared.slices["core"]
        before = origin.traffic.received
        assert release(publisher) == 2
        await task.until(2, within_s=20)
        head_bytes = (publisher.public / "catalog" / "head").stat().st_size
        assert head_bytes < 400
        assert origin.traffic.received - before == head_bytes  # and nothing else
        await until(lambda: not sealed_files(device))
    assert held(device) == after()
    assert verify(device.directory).faults == []


async def test_a_device_that_was_off_at_the_release_has_it_from_its_disk(publisher: Publisher, device: Device) -> None:
    assert (await sync(device, transport(publisher))).version == 1
    prepare(publisher)
    outcome = await sync(device, transport(publisher))
    assert (outcome.version, outcome.error, len(sealed_files(device))) == (1, None, 1)
    release(publisher)
    for blob in (publisher.public / "catalog" / "blobs").iterdir():
        if blob.name == sealed_files(device)[0].name:
            blob.unlink()  # so it can come from the disk alone
    origin = transport(publisher)
    outcome = await sync(device, origin)
    assert (outcome.version, outcome.error) == (2, None)
    assert held(device) == after()
    assert sealed_files(device) == []


async def test_who_missed_it_and_who_is_new_come_by_what_is_public(
    tmp_path: Path, publisher: Publisher, device: Device
) -> None:
    assert (await sync(device, transport(publisher))).version == 1
    prepare(publisher)
    release(publisher)
    newcomer = Device(tmp_path / "new", device.trust, clock_s=time.time())
    for one in (device, newcomer):
        outcome = await sync(one, transport(publisher))
        assert (outcome.version, outcome.error) == (2, None)
        assert held(one) == after()


async def test_a_damaged_sealed_blob_is_fetched_again(publisher: Publisher, device: Device) -> None:
    await sync(device, transport(publisher))
    prepare(publisher)
    await sync(device, transport(publisher))
    kept = sealed_files(device)[0]
    kept.write_bytes(bytes(kept.stat().st_size))
    release(publisher)
    outcome = await sync(device, transport(publisher))
    assert (outcome.version, outcome.error) == (2, None)
    assert held(device) == after()


async def test_what_a_killed_device_left_of_a_prefetch_goes(publisher: Publisher, device: Device) -> None:
    await sync(device, transport(publisher))
    prepare(publisher)
    await sync(device, transport(publisher))
    whole = sealed_files(device)
    (whole[0].parent / ".half-written").write_bytes(b"x" * 10)
    (whole[0].parent / ("0" * 64)).write_bytes(b"of a version long gone")
    await sync(device, transport(publisher))
    assert sealed_files(device) == whole


async def test_withdrawn_it_leaves_the_device(publisher: Publisher, device: Device) -> None:
    await sync(device, transport(publisher))
    prepare(publisher)
    await sync(device, transport(publisher))
    with publisher.at_work("catalog") as place:
        assert preparing.withdraw(place) == 2
    await sync(device, transport(publisher))
    assert (head_of(publisher).ahead, sealed_files(device)) == (None, [])
    publisher.publish_changes("catalog", [("titles", "t0001", {"title": "another"})])
    await sync(device, transport(publisher))
    assert held(device) == after([("titles", "t0001", {"title": "another"})])


async def test_another_one_and_a_publish_supersede_it(publisher: Publisher, device: Device) -> None:
    await sync(device, transport(publisher))
    prepare(publisher)
    await sync(device, transport(publisher))
    first = sealed_files(device)
    prepare(publisher, [("titles", "t0001", {"title": "second"})])
    await sync(device, transport(publisher))
    assert len(sealed_files(device)) == 1
    assert sealed_files(device) != first
    result = publisher.publish_changes("catalog", [("titles", "t0002", {"title": "third"})])
    assert any("superseded" in hint for hint in result.hints)
    outcome = await sync(device, transport(publisher))
    assert (outcome.version, sealed_files(device)) == (2, [])
    assert held(device) == after([("titles", "t0002", {"title": "third"})])
    with pytest.raises(Exception, match="none is prepared"):
        release(publisher)


@pytest.mark.parametrize("renewed", [False, True])
async def test_a_takedown_overtakes_it_and_the_record_does_not_come_back(
    publisher: Publisher, device: Device, renewed: bool
) -> None:
    await sync(device, transport(publisher))
    prepare(publisher)
    await sync(device, transport(publisher))
    with publisher.reading("catalog") as state:
        plan = plans.held(state)
        assert plan is not None
    sealed = plan.ahead.hops["core"].blob
    publisher.takedown("catalog", "titles", ["t0007"])
    assert not (publisher.public / "catalog" / "blobs" / sealed.name).exists()
    await sync(device, transport(publisher))
    assert sealed_files(device) == []
    if renewed:
        with publisher.at_work("catalog") as place:
            again = preparing.renew(place)
        assert again is not None
        assert again.version == 3
        await sync(device, transport(publisher))
        assert len(sealed_files(device)) == 1
    assert release(publisher) == 3
    released = head_of(publisher).released
    assert (released is not None) == renewed
    assert released is None or released.key != plan.key
    outcome = await sync(device, transport(publisher))
    assert (outcome.version, outcome.error) == (3, None)
    wanted = after()
    del wanted["titles", "t0007"]
    assert held(device) == wanted
    publisher.restore("catalog", "titles", ["t0007"])
    await sync(device, transport(publisher))
    assert held(device) == after()  # with the value that was prepared while it was down


@pytest.mark.parametrize("count", [1, laidhop.SUMMED - 1, laidhop.SUMMED, 100])
async def test_few_changes_and_many(publisher: Publisher, device: Device, count: int) -> None:
    await sync(device, transport(publisher))
    edits = [*NEW[:count], ("people", "new", {"name": "who was not there"}), ("titles", "t0299", None)]
    prepare(publisher, edits)
    await sync(device, transport(publisher))
    release(publisher)
    outcome = await sync(device, transport(publisher))
    assert (outcome.version, outcome.error) == (2, None)
    wanted = after([edit for edit in edits if edit[2] is not None])
    del wanted["titles", "t0299"]
    assert held(device) == wanted
    assert verify(device.directory).faults == []


async def test_what_is_too_large_to_be_laid_down_comes_as_another_hop(
    publisher: Publisher, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(laidhop, "CONTENT_BYTES", 1000)
    await sync(device, transport(publisher))
    prepare(publisher)
    await sync(device, transport(publisher))
    assert len(sealed_files(device)) == 1
    release(publisher)
    outcome = await sync(device, transport(publisher))
    assert (outcome.version, held(device)) == (2, after())


async def test_what_holds_other_records_than_its_sum_is_found_and_fetched_anew(
    publisher: Publisher, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As no publisher of ours makes it: two values have changed places."""

    def false_hop(*arguments: Any) -> bytes | None:
        data = make_laid(*arguments)
        assert data is not None
        total, groups = cbor.decode(data[HEADER_BYTES + 1 :], "hop")
        frames = groups[0][2]
        frames[0], frames[1] = frames[1], frames[0]
        return data[: HEADER_BYTES + 1] + cbor.encode([total, groups])

    monkeypatch.setattr(preparing, "make_laid", false_hop)
    async with running(device, transport(publisher), device_id="box") as task:
        await task.until(1, within_s=20)
        prepare(publisher)
        await until(lambda: sealed_files(device))
        release(publisher)
        await task.until(2, within_s=20)
        await until(lambda: task.status.snapshots_applied == 2)
        assert any("does not hold" in error.text for error in task.status.errors)
    assert held(device) == after()
    assert verify(device.directory).faults == []


async def test_origin_serve_releases_it_at_its_time(tmp_path: Path, publisher: Publisher) -> None:
    async with serving(publisher.path) as url:
        device = device_of(tmp_path, f"{url}/catalog")
        async with running(device, HttpTransport(f"{url}/catalog", Traffic()), device_id="box") as task:
            await task.until(1, within_s=20)
            at = int(time.time()) + 3
            prepare(publisher, at=at)
            await until(lambda: sealed_files(device))
            assert time.time() < at
            await task.until(2, within_s=20)
            assert at <= time.time()
    assert held(device) == after()


def test_a_sealed_hop_opens_for_what_it_is_of_alone() -> None:
    key, bound = bytes(range(32)), bound_to("catalog", "core", 1, 2)
    data = seal(key, bound, b"a hop")
    assert unseal(key, bound, data) == b"a hop"
    others = [bound_to("other", "core", 1, 2), bound_to("catalog", "region", 1, 2), bound_to("catalog", "core", 1, 3)]
    for other in others:
        with pytest.raises(Exception, match="does not open it"):
            unseal(key, other, data)
    for broken in (data[:-1], bytes(len(data)), data[:3], bytes([data[0] ^ 1]) + data[1:]):
        with pytest.raises(Exception, match="sealed hop"):
            unseal(key, bound, broken)
    assert len({seal(key, one, b"a hop") for one in (bound, *others)}) == 4


def test_devices_stand_evenly_in_the_window() -> None:
    places = sorted(place_in_window(f"device-{number}", 7) for number in range(2000))
    assert all(abs(place - number / 2000) < 0.04 for number, place in enumerate(places))
    assert place_in_window("device-1", 7) != place_in_window("device-1", 8)


def test_the_private_part_is_private(publisher: Publisher) -> None:
    prepare(publisher)
    with publisher.reading("catalog") as state:
        plan = plans.held(state)
        assert plan is not None
        assert [cbor.decode(value, "value") for _, _, value in plans.edits_of(state) if value] == [
            value for _, _, value in NEW
        ]
        path = state.path
    assert path.is_relative_to(publisher.private)
    assert path.stat().st_mode & 0o077 == 0
    public = b"".join(path.read_bytes() for path in publisher.public.rglob("*") if path.is_file())
    assert plan.key not in public
