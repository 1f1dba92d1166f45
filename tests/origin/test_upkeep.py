"""The head goes first: skip hops and snapshots come after it, and are never in the way of the next edit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio

from edged.errors import BusyError, OriginError
from edged.files import locked
from edged.origin import upkeep
from edged.origin.blobs.hops import HopSpan, compose, make_hop, path_bytes
from edged.origin.publisher import Publisher, PublishOptions
from edged.origin.serving import keeping
from edged.origin.serving.server import serve_feed
from edged.origin.state import SliceVersion, State
from tests.origin.conftest import Clock
from tests.origin.devices import Device

ALL = range(12)


def titles(*numbers: int, to: int = 0) -> list[tuple[str, str, Any]]:
    return [("titles", f"t{number:03}", {"title": f"Title {number}", "count": to}) for number in numbers]


class Killed(BaseException):
    """What ends a process at once."""


@pytest.fixture
def feed(publisher: Publisher) -> Publisher:
    """Two changes made, so that the next one is owed no skip hop and the one after it is."""
    publisher.publish("catalog", titles(*ALL))
    publisher.publish_changes("catalog", titles(1, to=1))
    publisher.publish_changes("catalog", titles(1, 2, to=2))
    return publisher


def hops_of(publisher: Publisher) -> set[tuple[int, int]]:
    with publisher.reading("catalog") as state:
        return set(state.rows("SELECT from_version, to_version FROM hops"))


def owed(publisher: Publisher) -> set[tuple[int, int]]:
    with publisher.reading("catalog") as state:
        return set(state.rows("SELECT from_version, to_version FROM owed"))


@pytest.fixture
def before_upkeep(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], object]]]:
    """What is done, once each, just before what is due is made."""
    actions: list[Callable[[], object]] = []
    make = upkeep.make_due

    def act_then_make(*arguments: Any) -> Any:
        if actions:
            actions.pop()()
        return make(*arguments)

    monkeypatch.setattr(upkeep, "make_due", act_then_make)
    yield actions
    assert not actions


def kill() -> None:
    raise Killed


def test_the_head_is_in_place_before_what_can_wait_is_begun(
    feed: Publisher, before_upkeep: list[Callable[[], object]]
) -> None:
    seen: list[tuple[int, set[tuple[int, int]]]] = []
    before_upkeep.append(lambda: seen.append((Device(feed.path, "catalog").head().version, owed(feed))))
    feed.publish_changes("catalog", titles(1, 3, to=3))
    assert seen == [(4, {(2, 4)})]
    assert owed(feed) == set()
    assert (2, 4) in hops_of(feed)


def test_a_publisher_killed_before_them_loses_nothing_and_the_next_makes_them(
    feed: Publisher, before_upkeep: list[Callable[[], object]]
) -> None:
    before_upkeep.append(kill)
    with pytest.raises(Killed):
        feed.publish_changes("catalog", titles(1, 3, to=3))
    device = Device(feed.path, "catalog")
    assert device.sync().version == 4
    assert owed(feed) == {(2, 4)}
    feed.resign("catalog")
    assert owed(feed) == set()
    assert (2, 4) in hops_of(feed)


def test_an_edit_that_comes_meanwhile_does_not_wait_and_takes_nothing_away(
    feed: Publisher, before_upkeep: list[Callable[[], object]]
) -> None:
    behind = Device(feed.path, "catalog")
    feed.publish_changes("catalog", titles(4, to=4))  # 4, which owes 2 to 4
    feed.publish_changes("catalog", titles(1, to=5))  # 5
    other = Publisher.open(feed.path, clock=feed.clock)
    before_upkeep.append(lambda: other.publish_changes("catalog", titles(1, 5, 6, to=7)))
    result = feed.publish_changes("catalog", titles(1, 5, to=6))  # 6, which owes 4 to 6; 7 comes first
    assert result.version == 6
    assert {(4, 6)} <= hops_of(feed)
    assert owed(feed) == set()
    assert behind.sync().version == 7
    with feed.reading("catalog") as state:
        assert state.live == 7


def test_a_skip_hop_to_a_version_gone_by_is_proved_by_the_newest_sum(feed: Publisher) -> None:
    for number in range(4, 9):
        feed.publish_changes("catalog", titles(number % 3, number, to=number))
    feed.publish_changes("catalog", [("titles", "t002", None), *titles(20, to=1)])
    with feed.reading("catalog") as state:
        span = HopSpan("core", state.slice_at("core", at=3), state.slice_at("core", at=6))
        found = compose(state, span)
        assert found is not None
        assert [change.key for change in found.changes] == ["t000", "t001", "t002", "t004", "t005", "t006"]
        assert make_hop(state, span, b"", most_content=1 << 20) is not None
        forged = replace(span, since=replace(span.since, digest=bytes(32)))
        with pytest.raises(OriginError, match="do not make the new content"):
            make_hop(state, forged, b"", most_content=1 << 20)


def test_a_takedown_that_comes_meanwhile_throws_away_what_was_made_of_the_record(
    feed: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = upkeep.put_in_place
    outcomes: list[bool] = []

    def taken_down_then_put(*arguments: Any) -> bool:
        if not outcomes:
            outcomes.append(put(*arguments))
        return False

    find = upkeep.make_due

    def make_then_take_down(*arguments: Any) -> Any:
        work = find(*arguments)
        if work is not None and not outcomes:
            monkeypatch.setattr(upkeep, "make_due", lambda *_: None)
            Publisher.open(feed.path, clock=feed.clock).takedown("catalog", "titles", ["t003"])
        return work

    monkeypatch.setattr(upkeep, "put_in_place", taken_down_then_put)
    monkeypatch.setattr(upkeep, "make_due", make_then_take_down)
    feed.publish_changes("catalog", titles(1, 3, to=333))
    assert outcomes == [False]
    assert (2, 4) not in hops_of(feed)
    device = Device(feed.path, "catalog")
    device.sync()
    assert "t003" not in {key for _, key in device.held["core"][1]}
    with feed.reading("catalog") as state:
        known = {row[0].hex() for row in state.rows("SELECT sha256 FROM blobs")}
    assert {path.name for path in (feed.public / "catalog/blobs").iterdir()} <= known


def test_whoever_is_at_it_is_left_alone(feed: Publisher) -> None:
    with locked(feed.lock_path("catalog", "upkeep"), "busy"):
        feed.publish_changes("catalog", titles(1, 3, to=3))
        assert owed(feed) == {(2, 4)}
    feed.keep_up("catalog")
    assert owed(feed) == set()


def test_an_edit_waits_for_upkeep_alone(feed: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.origin.publisher.UPKEEP_WAIT_S", 0.2)
    waited: list[float] = []
    monkeypatch.setattr("edged.files.time.sleep", waited.append)
    lock = feed.private / "state/catalog.lock"
    with locked(lock, "held"), pytest.raises(BusyError):
        feed.publish_changes("catalog", titles(1, to=9))
    assert not waited
    with locked(feed.lock_path("catalog", "upkeep"), "held"), locked(lock, "held"), pytest.raises(BusyError):
        feed.publish_changes("catalog", titles(1, to=9))
    assert waited


def test_a_rehearsal_makes_nothing_of_what_is_owed(feed: Publisher, before_upkeep: list[Callable[[], object]]) -> None:
    before_upkeep.append(kill)
    with pytest.raises(Killed):
        feed.publish_changes("catalog", titles(1, 3, to=3))
    feed.publish_changes("catalog", titles(1, to=9), PublishOptions(dry_run=True))
    assert owed(feed) == {(2, 4)}


def test_an_undone_version_owes_nothing(feed: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("edged.origin.shelves.directory.DirectoryShelf.swap_head", lambda *_: kill())
        with pytest.raises(Killed):
            feed.publish_changes("catalog", titles(1, 3, to=3))
    feed.resign("catalog")
    assert owed(feed) == set()
    assert {high for _, high in hops_of(feed)} == {2, 3}


class Promise:
    """What `is_promising` is asked with."""

    def __init__(self, rows: int, distinct: int) -> None:
        self.db = sqlite3.connect(":memory:")
        self.db.execute("CREATE TABLE journal(version, collection, key)")
        self.db.execute("CREATE TABLE slices(slice, version)")
        self.db.execute("CREATE TABLE versions(version, added, changed, removed)")
        self.db.execute("INSERT INTO versions VALUES(2, 0, ?, 0)", (rows,))
        self.db.execute("INSERT INTO slices VALUES('core', 2)")
        keys = [(2, "titles", str(number % distinct)) for number in range(rows)]
        self.db.executemany("INSERT INTO journal VALUES(?,?,?)", keys)

    def rows(self, query: str, values: Any = ()) -> Iterator[Any]:
        return iter(self.db.execute(query, values))

    def asked(self, path: int) -> bool:
        span = HopSpan("core", SliceVersion(1), SliceVersion(2))
        return upkeep.is_promising(self, span, path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "rows", "distinct", "tried"),
    [
        (upkeep.SMALL_PATH_BYTES, 100, 100, True),  # too little to think about
        (upkeep.SMALL_PATH_BYTES, upkeep.SMALL_PATH_CHANGES, upkeep.SMALL_PATH_CHANGES, True),
        (upkeep.SMALL_PATH_BYTES, upkeep.SMALL_PATH_CHANGES + 1, upkeep.SMALL_PATH_CHANGES + 1, False),
        (upkeep.SMALL_PATH_BYTES + 1, 100, 100, False),  # each record once: the same bytes again
        (1 << 20, 100, 90, False),
        (1 << 20, 100, 89, True),
    ],
)
def test_a_skip_hop_that_would_repeat_the_shorter_ones_is_not_tried(
    path: int, rows: int, distinct: int, tried: bool
) -> None:
    assert Promise(rows, distinct).asked(path) is tried


def test_what_was_too_much_to_code_bit_by_bit_is_not_tried_so_again(
    feed: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4, 8):
        feed.publish_changes("catalog", titles(number, to=number))
    asked: list[int] = []

    def whole(state: State, span: HopSpan, dictionary: bytes, *, most_content: int, bits: int) -> bytes:
        asked.append(bits)
        return b"\x02\0\0\0\0\x01"

    monkeypatch.setattr(upkeep, "make_hop", whole)
    work = upkeep.Upkeep(frozenset())
    with feed.reading("catalog") as state:
        upkeep.make_skips(state, work, [("core", 7, 5), ("core", 7, 3)], 1)
        assert path_bytes(state, HopSpan("core", state.slice_at("core", at=5), state.slice_at("core", at=7)))
    assert [bool(bits) for bits in asked] == [True, False]
    assert work.paid == [("core", 7, 5), ("core", 7, 3)]


async def test_the_origin_makes_what_a_killed_publisher_owed(
    publisher: Publisher, before_upkeep: list[Callable[[], object]], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.publish("catalog", titles(*ALL))
    publisher.publish_changes("catalog", titles(1, to=1))
    publisher.publish_changes("catalog", titles(1, 2, to=2))
    before_upkeep.append(kill)
    with pytest.raises(Killed):
        publisher.publish_changes("catalog", titles(1, 3, to=3))
    assert owed(publisher) == {(2, 4)}
    kept_up = trio.Event()

    monkeypatch.setattr(keeping, "keep_up", keep_up_then(keeping.keep_up, kept_up))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            nursery.start_soon(partial(serve_feed, publisher.path, ["127.0.0.1:0"], stop=stop, clock=clock))
            await kept_up.wait()
            stop.set()
    assert owed(publisher) == set()
    assert (2, 4) in hops_of(publisher)


def keep_up_then(keep_up: Callable[[Publisher, str], None], done: trio.Event) -> Callable[[Publisher, str], None]:
    def kept_up(publisher: Publisher, dataset: str) -> None:
        keep_up(publisher, dataset)
        trio.from_thread.run_sync(done.set)

    return kept_up
