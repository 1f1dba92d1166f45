"""Origins that are frozen in time, or answer what was not asked: the others are asked, and the newest head decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from edged.errors import TransportError, TrustError
from edged.sync.core.polling import SURVEY_S
from edged.sync.transports.transport import HeadReply
from tests.sync.driving import first_sync, held, running, sync
from tests.sync.simulator import Device, Feed, Origin, failing

FILMS: dict[str, object | None] = {f"t{number:03}": {"title": f"Film {number}"} for number in range(10)}
EDIT: dict[str, object | None] = {"t001": {"title": "Film 1, restored"}}
ANOTHER: dict[str, object | None] = {"t002": {"title": "Film 2, restored"}}


class Frozen(Origin):
    """Shows one head for ever, and holds polls as if nothing had happened since."""

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed, "memory:frozen")
        self.shown = feed.head

    async def head(self, after: int | None, wait_s: int, etag: str | None) -> HeadReply | None:
        self.polls.append((trio.current_time(), after, wait_s, etag))
        if wait_s:
            await trio.sleep(wait_s)
            return None
        return HeadReply(self.shown, "frozen")


@pytest.fixture
def feed() -> Feed:
    feed = Feed()
    feed.publish(FILMS)
    return feed


async def test_one_synchronisation_asks_all_origins_and_takes_the_newest(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    frozen = Frozen(feed)
    feed.publish(EDIT)
    middle = Frozen(feed)
    feed.publish(ANOTHER)
    outcome = await sync(device, frozen, middle, Origin(feed), Frozen(feed))
    assert (outcome.error, outcome.version) == (None, 3)
    assert held(device) == feed.slices["core"].records


async def test_an_origin_that_is_down_does_not_fail_a_synchronisation_that_another_served(
    tmp_path: Path, feed: Feed
) -> None:
    device = Device.of(tmp_path, feed)
    down = Origin(feed)
    down.fault = failing("head", lambda: TransportError("down"))
    outcome = await sync(device, Origin(feed), down)
    assert (outcome.error, outcome.version) == (None, 1)
    assert down.requests["head"] == 1
    outcome = await sync(device, down, Origin(feed))
    assert (outcome.error, outcome.version) == (None, 1)


async def test_the_daemon_asks_the_others_while_stale(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    feed.fresh_s = 3600
    feed.resign(0)
    frozen = Frozen(feed)
    feed.publish(EDIT)
    async with running(device, frozen, Origin(feed)) as sync_task:
        await sync_task.until(1)
        device.clock_s += 3700  # the head is stale now; the clock of the test stands still otherwise
        await sync_task.until(2, within_s=700)
        assert sync_task.status.origin == "memory:origin"
        feed.publish(ANOTHER)
        await sync_task.until(3, within_s=1500)


@pytest.mark.slow
async def test_the_daemon_asks_the_others_once_a_day(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    feed.fresh_s = feed.expires_s = 30 * 86_400
    feed.resign(0)
    frozen, other = Frozen(feed), Origin(feed)
    feed.publish(EDIT)
    async with running(device, frozen, other) as sync_task:
        await sync_task.until(2, within_s=SURVEY_S + 300)


async def test_the_others_are_asked_no_more_often_than_that(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    feed.fresh_s = feed.expires_s = 30 * 86_400
    feed.resign(0)
    first, second = Origin(feed), Origin(feed)
    async with running(device, first, second) as sync_task:
        await sync_task.until(1)
        await trio.sleep(10 * SURVEY_S)
        assert 9 <= len(second.polls) <= 11
        assert all(wait_s == 0 for _, _, wait_s, _ in second.polls)
        assert sync_task.status.origin != ""


async def test_unchanged_to_who_has_not_said_what_is_known_is_that_origins_fault(
    tmp_path: Path, feed: Feed, jumping: Any
) -> None:
    class Confused(Origin):
        async def head(self, after: int | None, wait_s: int, etag: str | None) -> HeadReply | None:
            self.polls.append((trio.current_time(), after, wait_s, etag))
            return None

    device = Device.of(tmp_path, feed)
    bad = Confused(feed)
    async with running(device, bad, Origin(feed)) as sync_task:
        await sync_task.until(1, within_s=1)
        await trio.sleep(1800)
        assert len(bad.polls) <= 5
    (tmp_path / "alone").mkdir()
    alone = Device.of(tmp_path / "alone", feed)
    outcome = await sync(alone, Confused(feed))
    assert isinstance(outcome.error, TransportError)
    assert (outcome.version, "nothing has changed" in str(outcome.error)) == (0, True)


async def test_a_first_origin_that_lags_is_left_again(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    """After ten minutes the first is tried again: it shows an older head, and the second goes on being used."""
    device = Device.of(tmp_path, feed)
    lagging = Frozen(feed)
    feed.publish(EDIT)
    origin = await first_sync(device, feed)
    async with running(device, lagging, origin) as sync_task:
        await sync_task.until(2)
        for version in range(3, 8):
            await trio.sleep(700)
            feed.publish({"t003": {"title": f"Edit {version}"}})
            origin.announce()
            await sync_task.until(version, within_s=5)


async def test_a_lagging_origin_alone_is_a_rollback(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    frozen = Frozen(feed)
    feed.publish(EDIT)
    await first_sync(device, feed)
    outcome = await sync(device, frozen)
    assert isinstance(outcome.error, TrustError)
    assert "rollback" in str(outcome.error)
