"""A fleet does not come all at once: each device takes a version at its own place, and has its polls held for its own
time."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from edged.feed.blob import BlobRef
from edged.feed.digest import EMPTY_DIGEST
from edged.feed.head import Head, HopRef, SliceHead, decode_head, encode_head
from edged.feed.limits import SPREAD_S
from edged.origin.publisher import Publisher
from edged.sync.core.events import CarriedSlice, HeldState
from edged.sync.core.polling import Backoff
from edged.sync.core.prefetch import delay_s, own_wait_s, place_in_window
from tests.sync.driving import held, running, sync
from tests.sync.simulator import NOW, Device
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


def test_polls_are_held_for_different_times_from_half_on() -> None:
    chances = iter([number / 1000 for number in range(1000)])
    waits = Counter(own_wait_s(240, "box", lambda: next(chances)) for _ in range(1000))
    assert set(waits) == set(range(120, 241))
    assert max(waits.values()) <= 9  # each as often as any other
    assert own_wait_s(240, "", lambda: 0.9) == 240
    assert own_wait_s(59, "box", lambda: 0.9) == 59
    assert own_wait_s(60, "box", lambda: 0.999) == 30
    assert own_wait_s(0, "box", lambda: 0.9) == 0


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
