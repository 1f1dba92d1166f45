"""A fleet does not come all at once: each device takes a version at its own place, and has its polls held for its own
time."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from edged.feed.blob import BlobRef
from edged.feed.digest import EMPTY_DIGEST
from edged.feed.head import Head, HopRef, SliceHead, decode_head, encode_head
from edged.feed.limits import SPREAD_S
from edged.origin.publisher import Publisher
from edged.sync.boots import NOTE, START_WITHIN_S, start_within_s
from edged.sync.core.events import CarriedSlice, HeldState
from edged.sync.core.polling import Backoff
from edged.sync.core.prefetch import delay_s, place_in_window
from edged.sync.core.turns import PollTurns, place_at_start, place_at_turn
from tests.sync.driving import held, running, sync
from tests.sync.simulator import NOW, Device, Feed, Origin
from tests.sync.test_ahead import transport
from tests.sync.test_end_to_end import expected, titles

REF = BlobRef(bytes(32), 100)
HELD = HeldState(1, slices={"core": CarriedSlice(1, EMPTY_DIGEST, 0)}, schema_version=1)
HEAD = Head("catalog", 2, NOW, 10, 20, 1, 1, REF, {"core": SliceHead(2, EMPTY_DIGEST, 0)}, spread=(NOW, 600))


def test_each_device_has_its_place_and_no_wait_once_that_is_past() -> None:
    place = place_in_window("box", 2) * 600
    assert delay_s(HEAD, HELD, "box", NOW) == pytest.approx(place)
    assert delay_s(HEAD, HELD, "box", NOW + place - 1) == pytest.approx(1)
    assert delay_s(HEAD, HELD, "box", NOW + place + 1) == 0
    assert delay_s(HEAD, HELD, "box", 0) == 600  # a clock that is not set waits for no longer than the window


def test_who_does_not_wait() -> None:
    inlined = {"core": SliceHead(2, EMPTY_DIGEST, 0, (HopRef(1, 2, BlobRef.of(b"x"), b"x"),))}
    others = {"core": SliceHead(2, EMPTY_DIGEST, 0, (HopRef(0, 2, BlobRef.of(b"x"), b"x"),))}
    assert delay_s(replace(HEAD, slices=inlined), HELD, "box", NOW) == 0
    assert delay_s(replace(HEAD, slices=inlined, schema_version=2), HELD, "box", NOW) > 0
    assert delay_s(replace(HEAD, slices=others), HELD, "box", NOW) > 0
    assert delay_s(replace(HEAD, takedowns=REF), HELD, "box", NOW) == 0
    assert delay_s(replace(HEAD, spread=None), HELD, "box", NOW) == 0
    assert delay_s(HEAD, HeldState(), "box", NOW) == 0
    assert delay_s(HEAD, replace(HELD, version=2), "box", NOW) == 0
    assert delay_s(HEAD, HELD, "", NOW) == 0


def test_the_head_carries_it_within_bounds() -> None:
    assert decode_head(encode_head(HEAD)) == HEAD
    assert decode_head(encode_head(replace(HEAD, spread=(NOW, SPREAD_S)))).spread == (NOW, SPREAD_S)
    with pytest.raises(Exception, match="its spread is not"):
        decode_head(encode_head(replace(HEAD, spread=(NOW, SPREAD_S + 1))))


def test_those_who_were_answered_together_come_back_one_after_the_other_and_stay_apart() -> None:
    fleet = [PollTurns(f"box-{number}") for number in range(4800)]
    times, ends = Counter[int](), Counter[int]()
    for one in fleet:
        now = 0.0
        while now < 1200:
            now += one.ask(240, 7, now, ())
            ends[round(now)] += 1
            one.ended(now)
            now += one.rest_s(now, ())
            times[int(now) // 10] += 1
    asked = [times[at] for at in range(1, 119)]
    assert max(asked) / (sum(asked) / len(asked)) < 1.5
    assert len({at for at in ends if at <= 240}) == 48  # what a cache on the way sees of 4,800


def test_from_its_turn_on_a_device_asks_for_what_all_others_ask_for() -> None:
    one = PollTurns("box")
    assert one.ask(240, 7, 0.0, ()) == (int(place_at_turn("box", 7) * 48) + 1) * 5
    one.ended(100.0)
    assert one.ask(240, 7, 101.0, ()) == 240
    assert one.ask(240, 7, 102.0, ()) < 240  # that one was not held to its end
    one.ended(341.0)
    assert one.ask(240, 8, 342.0, ()) == 240


def test_something_due_ends_a_poll_before_and_is_waited_for_to_the_moment() -> None:
    one = PollTurns("box")
    assert one.ask(240, 7, 0.0, [11.5, 300.0]) == 10
    one.ended(10.0)
    assert one.rest_s(10.0, [11.5, 300.0]) == 1.5
    assert one.rest_s(11.5, [11.5, 300.0]) == 0
    assert one.ask(240, 7, 12.0, [11.5]) == 5  # overdue, and for another reason not done
    assert one.ask(240, 7, 12.0, ()) < 240
    assert one.ask(0, 7, 12.0, [11.5]) == 0


def test_who_has_no_id_or_holds_polls_for_a_short_time_has_no_turns() -> None:
    for one, limit_s in ((PollTurns(""), 240), (PollTurns("box"), 59)):
        assert one.ask(limit_s, 7, 0.0, ()) == limit_s
        one.ended(50.0)
        assert one.rest_s(50.0, ()) == 0


def test_after_a_long_outage_the_fleet_is_back_without_a_burst() -> None:
    backoff = Backoff(lambda: 0.0)
    waits = [backoff.fail() for _ in range(12)]
    assert waits[:9] == [0.0] * 9
    assert waits[9:] == [150.0] * 3
    backoff = Backoff(lambda: 0.5)
    assert [backoff.fail() for _ in range(11)][7:] == [64.0, 128.0, 225.0, 225.0]


async def test_a_publish_waits_for_the_place_and_a_takedown_does_not(tmp_path: Path) -> None:
    publisher = Publisher.init(tmp_path / "feed")
    (publisher.path / "catalog.toml").write_text('[delivery]\nspread = "1d"\n[inline]\nmax = 0\n')
    publisher.publish("catalog", titles())
    device = Device(tmp_path / "data", str(publisher.trust_path), clock_s=time.time())
    assert (await sync(device, transport(publisher))).version == 1
    name = next(name for name in map(str, range(100)) if place_in_window(name, 2) > 0.5)
    async with running(device, transport(publisher), device_id=name) as task:
        publisher.publish("catalog", titles(edition=1))
        with trio.fail_after(20):
            while task.status.newest != 2:  # noqa: ASYNC110 - the status has no event for this
                await trio.sleep(0.02)
        assert task.status.version == 1
        task.control.nudge()  # someone wants it now
        await task.until(2, within_s=20)
        publisher.takedown("catalog", "titles", ["t0003"])
        await task.until(3, within_s=20)
    wanted = expected(titles(edition=1))
    del wanted["titles", "t0003"]
    assert held(device) == wanted
    assert publisher.believed_head("catalog").spread is None


# ---- switched on together


async def test_who_holds_something_asks_at_its_own_place_after_a_boot_and_a_newcomer_at_once(
    tmp_path: Path, jumping: Any
) -> None:
    feed = Feed()
    feed.publish({"a": {"n": 1}})
    device, origin = Device.of(tmp_path, feed), Origin(feed)
    async with running(device, origin, device_id="box", start_within_s=60) as task:
        await task.until(1)
        assert origin.polls[0][0] == pytest.approx(trio.current_time(), abs=1)
    feed.publish({"a": {"n": 2}})
    began, seen = trio.current_time(), len(origin.polls)
    async with running(device, origin, device_id="box", start_within_s=60) as task:
        await task.until(2)
        assert origin.polls[seen][0] == pytest.approx(began + 60 * place_at_start("box", 1), abs=0.01)
    feed.publish({"a": {"n": 3}})
    began, seen = trio.current_time(), len(origin.polls)
    async with running(device, origin, device_id="box", start_within_s=60) as task:
        task.control.nudge()
        await task.until(3)
        assert origin.polls[seen][0] == began


def test_a_boot_is_told_from_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    boot = tmp_path / "boot_id"
    assert start_within_s(tmp_path, boot) == 0  # of a system that does not say
    boot.write_text("6b0c3c1e-1f5b-4c39-9b8c-0f8d1f4f4f01\n")
    assert start_within_s(tmp_path, boot) == 0  # nothing is held yet
    assert start_within_s(tmp_path, boot) == 0
    boot.write_text("d2a0e2a4-7a0d-4f6e-8d53-6c1a5d2c1c02\n")
    assert start_within_s(tmp_path, boot) == START_WITHIN_S
    assert start_within_s(tmp_path, boot) == 0
    (tmp_path / NOTE).write_bytes(b"x" * 10_000)
    assert start_within_s(tmp_path, boot) == 0  # that is no note of ours
    assert start_within_s(tmp_path / "gone", boot) == 0  # of a daemon without datasets
    assert caplog.text == ""
    (tmp_path / NOTE).unlink()
    (tmp_path / NOTE).mkdir()
    assert start_within_s(tmp_path, boot) == 0
    assert "taken for another boot" in caplog.text
