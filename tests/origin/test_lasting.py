"""Many versions in a row by one process: its database stays open, lists of keys stay at hand, upkeep goes beside."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from edged.cli.publishing.caretaking import Caretaker
from edged.errors import OriginError
from edged.origin.blobs import hops
from edged.origin.publisher import Publisher, PublishOptions
from tests.origin.conftest import Clock
from tests.origin.devices import Device

LATER = PublishOptions(kept_up=False)


def titles(numbers: Any, to: int) -> list[tuple[str, str, Any]]:
    return [("titles", f"t{number:04}", {"n": to, "title": f"Title {number}"}) for number in numbers]


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    Publisher.init(tmp_path / "feed", clock=Clock()).publish("catalog", titles(range(300), 0))
    return tmp_path / "feed"


@pytest.fixture
def live(tmp_path: Path) -> Publisher:
    """One whose clock is that of the process beside it."""
    publisher = Publisher.init(tmp_path / "live")
    publisher.publish("catalog", titles(range(9), 0))
    publisher.states.lasting = True
    return publisher


def lasting(feed: Path) -> Publisher:
    publisher = Publisher.open(feed, clock=Clock())
    publisher.states.lasting = True
    return publisher


def turns() -> list[list[tuple[str, str, Any]]]:
    """Edits of so many records that they are named by their places, some of which come and go."""
    chance, found = random.Random(14), []
    for turn in range(1, 8):
        edits = titles(chance.sample(range(310), 90), turn)
        gone = [(collection, key, None) for collection, key, _ in titles(chance.sample(range(310), turn), 0)]
        found.append(list({edit[:2]: edit for edit in [*edits, *gone]}.values()))
    return found


def hops_of(feed: Path) -> list[Any]:
    with Publisher.open(feed, clock=Clock()).reading("catalog") as state:
        return list(state.rows("SELECT to_version, from_version, sha256 FROM hops ORDER BY 1, 2"))


@pytest.mark.parametrize(("held", "moves"), [(hops.KEYS_HELD, hops.MOVES_MOST), (100, 256), (hops.KEYS_HELD, 3)])
def test_the_same_hops_come_of_lists_at_hand(
    held: int, moves: int, feed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(feed, tmp_path / "other")
    publisher = lasting(feed)
    with monkeypatch.context() as patch:
        patch.setattr(hops, "KEYS_HELD", held)
        patch.setattr(hops, "MOVES_MOST", moves)
        for edits in turns():
            publisher.publish_changes("catalog", edits, LATER)
    publisher.states.close()
    for edits in turns():
        Publisher.open(tmp_path / "other", clock=Clock()).publish_changes("catalog", edits, LATER)
    assert hops_of(feed) == hops_of(tmp_path / "other")
    device = Device(feed, "catalog")
    assert device.sync().version == 8


def test_a_publish_that_fails_leaves_no_list_behind(feed: Path) -> None:
    publisher = lasting(feed)
    first, second, third = turns()[:3]
    publisher.publish_changes("catalog", first, LATER)

    def fail(_: object) -> None:
        raise OriginError("no")

    with pytest.raises(OriginError, match="no"):
        publisher.publish_changes("catalog", second, PublishOptions(kept_up=False, note=fail))
    publisher.publish_changes("catalog", third, LATER)  # proves its hop by what it names
    publisher.states.close()
    assert Device(feed, "catalog").sync().version == 3


def test_what_others_do_between_two_versions_is_seen(feed: Path) -> None:
    publisher, other = lasting(feed), Publisher.open(feed, clock=Clock())
    first, second, third = turns()[:3]
    publisher.publish_changes("catalog", first, LATER)
    other.takedown("catalog", "titles", ["t0007"])
    other.publish_changes("catalog", [("titles", f"a{number}", {"n": 1}) for number in range(70)])
    assert publisher.publish_changes("catalog", second, LATER).version == 5
    other.drop("catalog")
    assert publisher.publish("catalog", titles(range(9), 1), LATER).version == 1
    publisher.publish_changes("catalog", third, LATER)
    publisher.states.close()
    device = Device(feed, "catalog")
    assert device.sync().version == 2
    assert device.value("titles", "a1") is None


def test_a_state_put_back_from_a_backup_is_taken_up(feed: Path, tmp_path: Path) -> None:
    publisher = lasting(feed)
    shutil.copytree(feed, tmp_path / "backup")
    publisher.publish_changes("catalog", turns()[0], LATER)
    for name in ("public", "private"):
        shutil.rmtree(feed / name)
        shutil.copytree(tmp_path / "backup" / name, feed / name)
    assert publisher.publish_changes("catalog", turns()[1], LATER).version == 2
    publisher.states.close()
    with Publisher.open(feed).reading("catalog") as state:
        assert state.record("titles", "t0001") is not None
        assert state.live == 2


def owed(feed: Path) -> int:
    with Publisher.open(feed).reading("catalog") as state:
        return int(next(state.rows("SELECT count(*) FROM owed"))[0])


def test_upkeep_goes_beside_versions_in_a_row_and_after_them_in_quiet(live: Publisher) -> None:
    caretaker = Caretaker(live, "catalog")
    caretaker.due, caretaker.last = 0.0, time.monotonic()
    for number in range(5):
        live.publish_changes("catalog", titles([1], number + 1), LATER)
    assert owed(live.path)
    caretaker.after_version(is_busy=True)
    child = caretaker.child
    assert child is not None
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not owed(live.path)
    caretaker.after_version(is_busy=True)
    assert child.returncode == 0
    assert caretaker.due > time.monotonic()  # its share of time is used up
    for number in range(5):
        live.publish_changes("catalog", titles([1], number + 11), LATER)
    assert owed(live.path)
    caretaker.after_version(is_busy=True)
    assert owed(live.path)
    caretaker.last = 0.0
    caretaker.after_version(is_busy=False)
    assert not owed(live.path)
    live.states.close()


@pytest.mark.parametrize("cut_short", [True, False])
def test_at_its_end_what_is_due_is_made_unless_it_is_cut_short(live: Publisher, cut_short: bool) -> None:
    caretaker = Caretaker(live, "catalog")
    caretaker.last = time.monotonic()
    for number in range(5):
        live.publish_changes("catalog", titles([1], number + 1), LATER)
        caretaker.after_version(is_busy=True)
    live.states.close()
    caretaker.end(cut_short=cut_short)
    assert bool(owed(live.path)) is cut_short
