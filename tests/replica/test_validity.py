"""Records that come and go by time: every reader, at every second, against what a look at every record says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edged.clock import AHEAD_S, BUILD_TIME_S, Clock
from edged.errors import ChainError
from edged.feed import cbor
from edged.feed.schema import CollectionSchema, Schema
from edged.replica.files.usedtime import read_used_time, write_used_time
from edged.replica.indexes.terms import NEVER
from edged.replica.indexes.windows import ALWAYS, AT_NO_TIME, Window, WindowColumn, window_of, windows_as_columns
from edged.replica.layers.question import Question
from edged.replica.layers.validity import Boundary, SliceWindows
from edged.replica.reader import Dataset, Replica
from edged.replica.view import View
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from tests.replica.feeds import Publisher, Records

FIELDS = ("available.from", "available.until")
START = 1_800_000_000
SPAN = 100
TITLES = CollectionSchema(("genre",), ("title",), order=("year",), interval=("start", "end"), valid=FIELDS)
SCHEMA = Schema({"titles": TITLES, "people": CollectionSchema()})
MERGE = MergePolicy(fresh_packs=0, least_bytes=1 << 40)


def title(chance: random.Random) -> dict[str, Any]:
    record: dict[str, Any] = {
        "title": f"Film {chance.randrange(100)}",
        "genre": chance.choice(["Drama", "Noir"]),
        "year": chance.randrange(1990, 2000),
        "start": chance.randrange(50),
        "end": 60,
    }
    sides: dict[str, Any] = {
        name: START + chance.randrange(SPAN) for name in ("from", "until") if chance.random() < 0.8
    }
    if chance.random() < 0.2:
        sides = {name: datetime.fromtimestamp(time, UTC).isoformat() for name, time in sides.items()}
    if chance.random() < 0.05:
        sides["until"] = "soon"
    if sides or chance.random() < 0.5:
        record["available"] = sides
    return record


def titles(count: int, mark: str, seed: int) -> Records:
    chance = random.Random(seed)
    records: Records = {("titles", f"{number:04d}{mark}"): cbor.encode(title(chance)) for number in range(count)}
    records["people", "p1"] = cbor.encode({"name": "Ann"})
    return records


def is_there(record: Any, time: int) -> bool:
    return window_of(record, FIELDS).holds(time)


@dataclass
class Times:
    """A clock to be set."""

    now: float = START
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock(lambda: self.now)


@dataclass
class Filled:
    """states: of the titles, by version."""

    root: Path
    hidden: set[str]
    states: dict[int, dict[str, Any]]

    def expected(self, version: int, time: int) -> dict[str, Any]:
        held = self.states[version].items()
        return {key: value for key, value in held if key not in self.hidden and is_there(value, time)}


def content(publisher: Publisher) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for records in publisher.slices.values():
        for (collection, key), value in records.items():
            if collection == "titles":
                found[key] = cbor.decode(value, "test")
    return dict(sorted(found.items()))


@pytest.fixture(scope="module", params=["one slice", "slices that share records"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """Base, middle and fresh packs, with titles edited, removed and brought back, one of them taken down."""
    root, chance = tmp_path_factory.mktemp("validity"), random.Random(7)
    slices = {"core": titles(150, "a", 1)}
    if request.param != "one slice":
        shared = dict(sorted(slices["core"].items())[10:40])
        slices |= {"kids": {**titles(60, "b", 2), **shared}}
    publisher = Publisher(slices)
    states: dict[int, dict[str, Any]] = {}
    with Writer.open(root, "catalog") as writer:
        publisher.snapshot_into(writer, schema=SCHEMA)
        states[1] = content(publisher)
        for version in range(2, 8):
            publisher.version = version
            known = sorted({key for records in publisher.slices.values() for key in records if key[0] == "titles"})
            changes: dict[tuple[str, str], bytes | None] = {
                key: None if chance.random() < 0.2 else cbor.encode(title(chance)) for key in chance.sample(known, 15)
            }
            added = {("titles", f"new{version}{number}"): cbor.encode(title(chance)) for number in range(4)}
            with writer.stage() as staging:
                for name, records in publisher.slices.items():
                    own = {key: value for key, value in changes.items() if key in records}
                    own |= added if name == "core" else {}
                    staging.apply_changes(name, version, publisher.apply(name, own))
                if version == 7:
                    staging.set_takedowns(b"list", [("titles", key) for key in list(content(publisher))[20:23]])
                staging.commit(version, b"head", as_of=START + version, fresh_s=1, expires_s=1)
            states[version] = content(publisher)
            if version == 4:
                writer.compact(policy=MERGE)
    hidden = set(list(content(publisher))[20:23])
    return Filled(root, hidden, states)


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def dataset(filled: Filled, times: Times) -> Iterator[Dataset]:
    with Replica(filled.root, times.clock) as replica:
        view = replica["catalog"].view()
        assert all(layers.base and layers.middle and layers.fresh for layers in view.layers)
        yield replica["catalog"]


def check_reads(view: View, expected: dict[str, Any], every: set[str]) -> None:
    """Whatever can be asked gives what is there, and no more."""
    keys = list(expected)
    assert {key: cbor.decode(value, "test") for key, value in view.scan("titles")} == expected
    assert list(view.keys("titles")) == keys
    assert [key for key, _ in view.scan("titles", after="0050", limit=9)] == [key for key in keys if key > "0050"][:9]
    assert {key for key in every if view.get_raw("titles", key) is not None} == set(keys)
    assert [value is not None for value in view.get_many_raw("titles", sorted(every))] == [
        key in expected for key in sorted(every)
    ]
    drama = [key for key in keys if expected[key]["genre"] == "Drama"]
    assert [key for key, _ in view.where("titles", {"genre": "Drama"})] == drama
    question = Question(where={"genre": "Drama"}, order="-year", during=(20, 30))
    on = {key for key in drama if expected[key]["start"] < 30}
    assert {match.key for match in view.ask("titles", question)} == on
    tally = view.tally("titles", Question(), ("genre",))
    assert (tally.total, tally.facets["genre"].get(b"sDrama", 0)) == (len(keys), len(drama))
    groups = view.ask_by_group("titles", Question(), "genre", limit=999)
    assert {match.key for group in groups for match in group.matches} == set(keys)
    within = Question(text="film", where={"genre": "Drama"})
    assert {match.key for match in view.ask("titles", within)} == set(drama)
    assert {key for key, _ in view.search("titles", "film", limit=999)} == set(keys)
    assert view.collections["titles"] == len(keys)
    assert view.collections["people"] == 1


def boundaries(state: dict[str, Any]) -> list[int]:
    windows = [window_of(record, FIELDS) for record in state.values()]
    return sorted({time for window in windows for time in window if abs(time) < NEVER})


def test_every_reader_sees_what_is_there_at_every_second(filled: Filled, dataset: Dataset, times: Times) -> None:
    every = {key for state in filled.states.values() for key in state} | {"none", "\ud800"}
    shown = {key: value for key, value in filled.states[7].items() if key not in filled.hidden}
    for time in (*range(START + 7, START + SPAN, 3), START + SPAN, START + SPAN + 1):
        times.now = time + 0.9
        view = dataset.view()
        assert view.time <= time, "a view of the time to come"
        check_reads(view, filled.expected(7, time), every)
        following = [boundary for boundary in boundaries(shown) if boundary > time]
        assert view.next_change == (following[0] if following else None)
        check_reads(dataset.current.at(time), filled.expected(7, time), every)  # nothing taken over from before


def test_what_was_opened_follows_the_time(filled: Filled, dataset: Dataset, times: Times) -> None:
    opened = dataset["titles"]
    get_raw, get = opened.get_raw, opened.get
    for time in range(START + 7, START + SPAN, 7):
        times.now = time
        expected = filled.expected(7, time)
        assert dict(opened.items()) == expected
        assert len(opened) == len(expected)
        assert {key for key in filled.states[7] if get(key) is not None} == set(expected)
        assert {key for key in filled.states[7] if get_raw(key) is not None} == set(expected), "a getter that was kept"


def test_a_view_does_not_change_and_one_beside_a_boundary_is_the_same(dataset: Dataset, times: Times) -> None:
    times.now = START + 10
    view = dataset.view()
    following = view.next_change
    assert following is not None
    keys = list(view.keys("titles"))
    times.now = following - 0.001
    assert dataset.view() is view
    times.now = following
    assert dataset.view() is not view
    assert dataset.view().time == following
    assert list(view.keys("titles")) == keys
    assert list(dataset.view().keys("titles")) != keys


@pytest.mark.parametrize("since", [1, 3, 5, 6, 7])
def test_changes_by_version_and_time_miss_nothing_and_tell_of_nothing_else(
    filled: Filled, dataset: Dataset, times: Times, since: int
) -> None:
    floor = dataset.view().changes_from
    for began, now in [(since, 9), (10, 40), (10, 99), (40, 40), (60, 200)]:
        times.now = START + now
        view = dataset.view().at(START + now)
        if since < floor:
            continue
        before, after = filled.expected(since, START + began), filled.expected(7, START + now)
        if began < since:
            continue
        changes = [change for change in view.changes(since, START + began) if change.collection == "titles"]
        told = {change.key: change for change in changes}
        assert len(told) == len(changes), "told twice"
        must = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert must <= told.keys() | filled.hidden
        for key, change in told.items():
            held = after.get(key)
            assert (None if change.value is None else cbor.decode(change.value, "test")) == held
        if since >= 5:  # of which every hop is known by itself
            never = told.keys() - before.keys() - after.keys() - filled.hidden
            removed = filled.states[since].keys() - filled.states[7].keys()
            assert never <= removed, "told of what was never there"


def test_the_first_change_does_not_wait_until_all_that_have_come_or_gone_are_found(
    dataset: Dataset, times: Times, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Boundary] = []
    boundaries = SliceWindows.boundaries

    def counted(one: SliceWindows, after: int) -> Iterator[Boundary]:
        for boundary in boundaries(one, after):
            found.append(boundary)
            yield boundary

    monkeypatch.setattr(SliceWindows, "boundaries", counted)
    times.now = START + SPAN
    changes = dataset.view().changes(7, START + 7)
    found.clear()
    assert next(changes)
    assert len(found) < 20
    assert len(list(changes)) > 50
    assert len(found) > 100


def test_changes_without_a_time_count_from_when_the_version_was_signed(
    filled: Filled, dataset: Dataset, times: Times
) -> None:
    times.now = START + 60
    view = dataset.view()
    for since in (5, 7):
        known = list(view.changes(since, START + since))
        assert list(view.changes(since)) == known
        assert known
    with pytest.raises(ChainError, match=r"since 0: .*read everything anew"):
        view.changes(0)
    view = view.at(view.time)
    view.manifest = view.manifest._replace(signed={})
    with pytest.raises(ChainError, match=r"since 5: it is not known since which time; give the `time` too"):
        view.changes(5)
    assert list(view.changes(5, START + 5))


def test_what_is_declared_otherwise_cannot_be_told_by_changes(tmp_path: Path) -> None:
    publisher = Publisher({"core": titles(20, "a", 1)})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer, schema=Schema({"titles": CollectionSchema()}))
        for version, schema in ((2, SCHEMA), (3, SCHEMA), (4, Schema())):
            with writer.stage() as staging:
                staging.apply_changes("core", version, publisher.apply("core", {("people", "p1"): b"\x01"}))
                staging.set_schema(schema, version)
                staging.commit(version, b"head", as_of=START + version, fresh_s=1, expires_s=1)
            with Replica(tmp_path, Times(START + 99).clock) as replica:
                view = replica["catalog"].view()
                assert view.changes_from == {2: 2, 3: 2, 4: 4}[version]
                assert view.manifest.signed == {2: {2: START + 2}, 3: {2: START + 2, 3: START + 3}, 4: {}}[version]


def test_a_clock_that_is_unset_or_goes_back_never_shows_what_has_ended(filled: Filled) -> None:
    times = Times(0.0)
    with Replica(filled.root, times.clock) as replica:
        dataset = replica["catalog"]
        assert dataset.view().time == START + 7, "the signed time at least"
        times.now = START + 50
        assert dict(dataset["titles"].items()) == filled.expected(7, START + 50)
        for times.now in (START + 20, 0.0, START + 49.9):
            assert dict(dataset["titles"].items()) == filled.expected(7, START + 50)
        times.now = START + 51
        assert dict(dataset["titles"].items()) == filled.expected(7, START + 51)


def test_a_clock_that_was_days_ahead_is_set_right_by_the_origin(filled: Filled) -> None:
    times = Times(START + 20)
    with Replica(filled.root, times.clock) as replica:
        dataset = replica["catalog"]
        times.now = START + 10 * AHEAD_S
        later = filled.expected(7, START + 10 * AHEAD_S)
        assert dict(dataset["titles"].items()) == later
        times.now = START + 30
        assert not times.clock.heard(START + 30 - AHEAD_S - 1), "a signature of days ago proves nothing"
        assert dict(dataset["titles"].items()) == later
        assert times.clock.heard(START + 29)
        assert dict(dataset["titles"].items()) == filled.expected(7, START + 30)
        told = {change.key for change in dataset.changes(7, START + 10 * AHEAD_S)}
        before, after = filled.expected(7, START + 10 * AHEAD_S), filled.expected(7, START + 30)
        assert told == before.keys() ^ after.keys()


def test_trusted_time_stays_where_it_is_within_two_days() -> None:
    times = Times(START)
    assert times.clock.trusted() == START
    times.now = START - AHEAD_S
    assert not times.clock.heard(START - AHEAD_S)
    assert times.clock.trusted() == START
    times.now = START - AHEAD_S - 1
    assert times.clock.heard(START - AHEAD_S - 1)
    assert times.clock.trusted() == START - AHEAD_S, "never below a signed time"
    assert Clock(lambda: 0.0).trusted() == BUILD_TIME_S


def test_the_file_of_the_time_is_believed_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "time"
    assert read_used_time(path) == 0
    write_used_time(path, START + 0.9)
    assert read_used_time(path) == START
    times = Times(0.0)
    Replica(tmp_path, times.clock)
    assert times.clock.trusted() == START
    data = path.read_bytes()
    for damaged in (b"", data[:-1], data + b"x", bytes([data[0] ^ 1]) + data[1:], data[:-1] + bytes([data[-1] ^ 128])):
        path.write_bytes(damaged)
        assert read_used_time(path) == 0
    path.unlink()
    path.mkdir()
    assert read_used_time(path) == 0


@pytest.mark.parametrize(
    ("record", "window"),
    [
        ({}, ALWAYS),
        ({"available": None}, ALWAYS),
        ({"available": {"from": None, "until": None}}, ALWAYS),
        ({"available": {"from": 5}}, Window(5, NEVER)),
        ({"available": {"until": "1970-01-01T00:01:00Z"}}, Window(-NEVER, 60)),
        ({"available": {"from": 5, "until": 6.9}}, Window(5, 6)),
        ({"available": {"from": 6, "until": 6}}, AT_NO_TIME),
        ({"available": {"from": 7, "until": 6}}, AT_NO_TIME),
        ({"available": {"from": "soon"}}, AT_NO_TIME),
        ({"available": {"until": True}}, AT_NO_TIME),
        ({"available": {"until": {}}}, AT_NO_TIME),
        ({"available": [{"from": [5, 1]}, {"from": 1}]}, Window(5, NEVER)),
        ({"available.from": 3}, Window(3, NEVER)),
        ("no object", ALWAYS),
    ],
)
def test_the_window_of_a_record(record: object, window: Window) -> None:
    assert window_of(record, FIELDS) == window


@pytest.mark.parametrize("wide", [False, True])
def test_columns_say_what_windows_say(wide: bool) -> None:
    chance = random.Random(3)
    moments = [-5, 0, 3, 4, 9, 1 << 40 if wide else 1 << 20]
    windows = [ALWAYS, AT_NO_TIME, *(Window(a, b) for a in (-NEVER, *moments) for b in (*moments, NEVER) if a < b)]
    chance.shuffle(windows)
    base, columns = windows_as_columns(windows)
    assert columns[0].typecode == ("q" if wide else "I")
    column = WindowColumn(10, base, [memoryview(part) for part in columns])
    assert [column.window(10 + number) for number in range(len(windows))] == windows
    probes = sorted({time + step for time in moments for step in (-1, 0, 1)} | {-(1 << 50), 1 << 50})
    shown = column.shown_at(probes[0])
    for before, time in [*pairwise(probes), *pairwise(reversed(probes))]:
        shown = column.moved(column.shown_at(before), before, time)
        assert shown == column.shown_at(time)
        assert [bool(byte) for byte in shown] == [window.holds(time) for window in windows]
        passed = [(moment, place) for moment, place in column.boundaries(time)]
        assert passed == sorted(passed, key=lambda pair: pair[0])
        assert sorted(passed) == sorted(
            (moment, 10 + number)
            for number, window in enumerate(windows)
            for moment in window
            if abs(moment) < NEVER and moment > time
        )
