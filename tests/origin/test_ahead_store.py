"""A version ahead of a feed in an object store: cut off at any request, and on time with nobody at the keyboard."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from edged.cli.main import main
from edged.errors import OriginError, StoreError
from edged.feed.head import Head
from edged.origin.ahead import plans, preparing
from edged.origin.ahead.preparing import AheadOptions
from edged.origin.input.reading import Values
from edged.origin.publisher import Publisher
from edged.origin.shelves import objectstore
from edged.sync.transports.http import HttpTransport
from edged.sync.transports.transport import Traffic
from tests.origin.conftest import Clock
from tests.origin.s3store import BUCKET, S3Store
from tests.origin.test_publish import edit, films
from tests.origin.test_shelves import broken_from, device_of, feed_in, weed  # noqa: F401 (a fixture)
from tests.sync.driving import held, sync
from tests.sync.simulator import Device, Records

EDITS = [edit(3), edit(7)]
# The version that may be live, and whether one may be prepared, after each was cut off somewhere.
OUTCOMES = {
    "ahead": {(1, False), (1, True)},
    "release": {(1, True), (2, False)},
    "withdraw-ahead": {(1, True), (1, False)},
}


pytestmark = pytest.mark.usefixtures("credentials")


def act(publisher: Publisher, operation: str, at: int | None = None) -> None:
    with publisher.at_work("catalog") as place:
        match operation:
            case "ahead":
                preparing.prepare(place, Values(EDITS, edits=True), AheadOptions(at, spread_s=0))
            case "release":
                preparing.release(place)
            case _:
                preparing.withdraw(place)


def origin_of(store: S3Store) -> str:
    return f"{store.url}/{BUCKET}/a/feed/catalog"


def box(store: S3Store, publisher: Publisher, place: Path) -> Device:
    return Device(place, str(publisher.trust_path), origin=(origin_of(store),), clock_s=publisher.clock())


def cut_offs(store: S3Store, feed: Path, place: Path, operation: str, every: int) -> Iterator[Publisher]:
    """The feed and the store as they are when the network goes at each request of the operation, unheard or not."""
    objects = dict(store.objects)
    store.seen.clear()
    shutil.copytree(feed, place / "whole")
    act(Publisher.open(place / "whole", clock=Clock()), operation)
    count = len(store.seen)
    assert count >= 3
    for number in range(count, 0, -every):
        for kind in ("unheard", "unanswered"):
            cut = place / f"{kind}{number}"
            shutil.copytree(feed, cut)
            store.objects = dict(objects)
            store.seen.clear()
            store.fault = broken_from(number, kind)
            with suppress(StoreError, OriginError):
                act(Publisher.open(cut, clock=Clock()), operation)
            store.fault = lambda n, what: None
            yield Publisher.open(cut, clock=Clock())
            shutil.rmtree(cut)


def plan_of(publisher: Publisher) -> plans.Plan | None:
    with publisher.reading("catalog") as state:
        return plans.held(state)


def head_of(publisher: Publisher) -> Head:
    return publisher.believed_head("catalog")


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("operation", list(OUTCOMES))
def test_cut_off_at_requests(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, every: int
) -> None:
    monkeypatch.setattr(objectstore, "TRIES", 1)
    first = feed_in(store, tmp_path / "feed")
    first.publish("catalog", films(12))
    old = device_of(store, tmp_path / "seen").held
    if operation != "ahead":
        act(first, "ahead")
    shutil.copytree(first.path, tmp_path / "end")
    before = dict(store.objects)
    end = Publisher.open(tmp_path / "end", clock=Clock())
    if operation == "ahead":
        act(end, "ahead")
    act(end, "release")
    new = device_of(store, tmp_path / "seen").held
    store.objects = before
    found = set()
    for publisher in cut_offs(store, first.path, tmp_path, operation, every):
        shown = device_of(store, tmp_path / "seen")
        assert shown.held == (new if shown.version == 2 else old)
        assert shown.version == 1 or operation == "release"
        publisher.resign("catalog")  # the next operation goes on from there
        head, plan = head_of(publisher), plan_of(publisher)
        assert head.version == shown.version
        assert head.ahead == (None if plan is None else plan.ahead)
        found.add((head.version, plan is not None))
        if head.version == 1 and plan is not None:
            assert publisher.verify("catalog").faults == []
            act(publisher, "release")
            assert head_of(publisher).released is not None
            assert device_of(store, tmp_path / "seen").held == new
    assert found <= OUTCOMES[operation]
    assert found == OUTCOMES[operation] or every > 1


async def test_a_device_has_it_ahead_from_the_store_and_then_the_key(store: S3Store, tmp_path: Path) -> None:
    await ahead_by_a_store(store, tmp_path)


async def ahead_by_a_store(store: S3Store, tmp_path: Path) -> None:
    """Prepared, withdrawn, prepared, and released while the device is off."""
    publisher = await trio.to_thread.run_sync(feed_in, store, tmp_path / "feed")
    await trio.to_thread.run_sync(publisher.publish, "catalog", films(200))
    device = box(store, publisher, tmp_path / "data")
    sealed = tmp_path / "data" / "catalog" / "ahead"

    async def synced() -> int:
        origin = HttpTransport(device.origin[0], traffic := Traffic())
        told = await sync(device, origin)
        assert told.error is None
        assert told.version == head_of(publisher).version
        return traffic.received

    await synced()
    for operation, count in (("ahead", 1), ("withdraw-ahead", 0), ("ahead", 1)):
        await trio.to_thread.run_sync(act, publisher, operation)
        await synced()
        assert len(list(sealed.iterdir())) == count
    before = held(device)
    await trio.to_thread.run_sync(act, publisher, "release")
    size = len(publisher.shelves.of("catalog").head() or b"")
    assert size < 400
    assert await synced() < size + 1000  # the fields of the answers, one for a root that is not there
    assert list(sealed.iterdir()) == []
    after: Records = held(device)
    assert {key for key in after if after[key] != before[key]} == {("titles", key) for _, key, _ in EDITS}
    assert publisher.verify("catalog").faults == []


@contextmanager
def kept(publisher: Publisher) -> Iterator[dict[str, object]]:
    """`edged origin serve` of a feed in a store, and what it said at its start."""
    words = [sys.executable, "-m", "edged", "origin", "serve", str(publisher.path), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        try:
            yield json.loads(b"".join(iter(child.stdout.readline, b"}\n")) + b"}")
        finally:
            child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0


def on_time(store: S3Store, tmp_path: Path) -> None:
    """It goes live at its time by itself, and not before; a takedown in between has it handed out anew."""
    publisher = Publisher.open(feed_in(store, tmp_path / "feed").path)
    publisher.publish("catalog", films(50))
    with kept(publisher) as said:
        assert said == {"urls": [], "store": f"{store.url}/{BUCKET}/a/feed"}
        act(publisher, "ahead", at=(at := int(time.time()) + 4))
        handed_out = head_of(publisher).ahead
        publisher.takedown("catalog", "titles", ["t00009"])
        until(lambda: (again := head_of(publisher).ahead) is not None and again != handed_out)
        assert time.time() < at
        until(lambda: head_of(publisher).version == 3)
        assert time.time() >= at
    head = head_of(publisher)
    assert head.released is not None
    device = box(store, publisher, tmp_path / "data")
    assert trio.run(sync, device, HttpTransport(device.origin[0], Traffic())).version == 3
    assert {("titles", key) for _, key, _ in EDITS} <= held(device).keys()


def until(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_it_is_released_at_its_time(store: S3Store, tmp_path: Path) -> None:
    on_time(store, tmp_path)


@pytest.mark.slow
async def test_by_seaweedfs(weed: S3Store, tmp_path: Path) -> None:  # noqa: F811
    await ahead_by_a_store(weed, tmp_path)


@pytest.mark.slow
def test_it_is_released_at_its_time_by_seaweedfs(weed: S3Store, tmp_path: Path) -> None:  # noqa: F811
    on_time(weed, tmp_path)


def test_operators_are_told_to_look_at_the_stores_logs(
    store: S3Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher = feed_in(store, tmp_path / "feed")
    assert main(["origin", "serve", str(publisher.path), "--admin-bind", "127.0.0.1:0"]) == 2
    assert "give the store's logs to: edged origin fleet" in capsys.readouterr().err
