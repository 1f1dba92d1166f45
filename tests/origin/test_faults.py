"""A publish that fails at any step changes nothing; one that is killed at any step is finished or undone afterwards."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edged import files
from edged.errors import EdgedError, OriginError, StoreError
from edged.feed.trust import root as trust
from edged.origin import upkeep
from edged.origin.publisher import Publisher
from edged.origin.shelves.directory import DirectoryShelf
from edged.origin.state import State
from tests.origin.conftest import Clock
from tests.origin.devices import Device
from tests.origin.test_publish import edit, films, words

CHANGES = [edit(3), edit(77), ("titles", "t00005", None)]


class Steps:
    """Counts the steps that reach the disk, and fails at one of them."""

    def __init__(self, fail_at: int, fault: Callable[[], BaseException]) -> None:
        self.fail_at, self.fault, self.count = fail_at, fault, 0
        self.names: list[str] = []

    def step(self, name: str) -> None:
        self.names.append(name)
        self.count += 1
        if self.count == self.fail_at:
            raise self.fault()


@contextmanager
def stepping(steps: Steps) -> Iterator[None]:
    """Have every write, fsync, rename and database statement that writes be a step."""

    class FailingOs:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def write(self, handle: int, data: bytes) -> int:
            if steps.count + 1 == steps.fail_at:
                os.write(handle, data[: len(data) // 2])  # torn
            steps.step("write")
            return os.write(handle, data)

        def fsync(self, handle: int) -> None:
            steps.step("fsync")
            os.fsync(handle)

        def replace(self, one: Path, other: Path) -> None:
            steps.step(f"replace {other.name[:5]}")
            os.replace(one, other)

    class FailingConnection(sqlite3.Connection):
        def execute(self, query: str, *values: Any) -> sqlite3.Cursor:
            if not query.lstrip().startswith(("SELECT", "PRAGMA", "BEGIN", "ROLLBACK")):
                steps.step(query[:40])
            return super().execute(query, *values)

        def executemany(self, query: str, *values: Any) -> sqlite3.Cursor:
            steps.step(query[:40])
            return super().executemany(query, *values)

    original = sqlite3.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "os", FailingOs())
        patch.setattr(sqlite3, "connect", lambda *args, **more: original(*args, factory=FailingConnection, **more))
        yield


def disk_full() -> BaseException:
    return OSError(errno.ENOSPC, "No space left on device")


def database_full() -> BaseException:
    return sqlite3.OperationalError("database or disk is full")


class Killed(BaseException):
    """The process ends here: nothing that would clean up may run."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    feed = tmp_path_factory.mktemp("published") / "feed"
    publisher = Publisher.init(feed, clock=Clock())
    publisher.publish("catalog", films(20))
    publisher.publish_changes("catalog", [edit(1)])
    publisher.takedown("catalog", "titles", ["t00009"])
    return feed


def picture(feed: Path) -> dict[str, bytes]:
    """What devices can see."""
    return {str(path.relative_to(feed)): path.read_bytes() for path in (feed / "public").rglob("*") if path.is_file()}


def state_of(feed: Path) -> Device:
    device = Device(feed, "catalog")
    device.sync()
    return device


def operations() -> dict[str, Callable[[Publisher], object]]:
    return {
        "publish": lambda publisher: publisher.publish_changes("catalog", CHANGES),
        "whole": lambda publisher: publisher.publish("catalog", [*films(15), edit(77)]),
        "takedown": lambda publisher: publisher.takedown("catalog", "titles", ["t00002"]),
        "restore": lambda publisher: publisher.restore("catalog", "titles", ["t00009"]),
        "rollback": lambda publisher: publisher.rollback("catalog", 1),
        "resign": lambda publisher: publisher.resign("catalog"),
    }


def steps_of(operation: str, published: Path, tmp_path: Path) -> tuple[int, list[str], dict[str, Any]]:
    """How many steps the operation has, their names, and the content after it."""
    feed = tmp_path / "whole"
    shutil.copytree(published, feed)
    steps = Steps(0, Killed)
    with stepping(steps):
        operations()[operation](Publisher.open(feed, clock=Clock()))
    return steps.count, steps.names, {"content": state_of(feed).held["core"][1], "down": state_of(feed).taken_down}


@pytest.mark.parametrize("operation", ["publish", "takedown", "resign"])
def test_a_full_disk_at_any_step_changes_nothing_or_is_complete(
    operation: str, published: Path, tmp_path: Path
) -> None:
    run_into_faults(operation, published, tmp_path, first=len(operation) % 3 + 1, every=3)


@pytest.mark.slow
@pytest.mark.parametrize("operation", sorted(operations()))
def test_a_full_disk_at_any_step_of_any_operation(operation: str, published: Path, tmp_path: Path) -> None:
    run_into_faults(operation, published, tmp_path, first=1, every=1)


def run_into_faults(operation: str, published: Path, tmp_path: Path, *, first: int, every: int) -> None:
    count, names, wanted = steps_of(operation, published, tmp_path)
    swap = names.index("replace head")
    before = picture(published)
    assert swap > 5
    for number in range(first, count + 1, every):
        feed = tmp_path / str(number)
        shutil.copytree(published, feed)
        fault = disk_full if names[number - 1].startswith(("write", "fsync", "replace")) else database_full
        with stepping(Steps(number, fault)), pytest.raises(EdgedError) as caught:
            operations()[operation](Publisher.open(feed, clock=Clock()))
        where = f"step {number} of {count}, {names[number - 1]}"
        if number - 1 <= swap:
            assert picture(feed) == before, where
            assert "is live" not in str(caught.value), where
            assert [path for path in feed.rglob("*") if files.TEMPORARY in path.name] == [], where
        else:
            assert "is live" in str(caught.value), where
        operations()[operation](Publisher.open(feed, clock=Clock())) if number - 1 <= swap else None
        after = state_of(feed)
        assert {"content": after.held["core"][1], "down": after.taken_down} == wanted, where
        shutil.rmtree(feed)


@pytest.mark.parametrize("operation", ["publish", "takedown"])
def test_a_publisher_killed_at_any_step_leaves_a_feed_that_goes_on(
    operation: str, published: Path, tmp_path: Path
) -> None:
    count, names, wanted = steps_of(operation, published, tmp_path)
    before = state_of(published)
    for number in range(1, count + 1, 3):
        feed, at_death = tmp_path / "feed", tmp_path / "death"
        shutil.copytree(published, feed)

        def die(feed: Path = feed, at_death: Path = at_death) -> BaseException:
            shutil.copytree(feed, at_death)  # what the disk holds at this moment
            return Killed()

        with stepping(Steps(number, die)), pytest.raises(Killed):
            operations()[operation](Publisher.open(feed, clock=Clock()))
        found = state_of(at_death)  # devices go on whatever the publisher's state is
        content = {"content": found.held["core"][1], "down": found.taken_down}
        old = {"content": before.held["core"][1], "down": before.taken_down}
        assert content in (old, wanted), names[number - 1]
        result = Publisher.open(at_death, clock=Clock()).publish_changes("catalog", [edit(19, last=True)])
        assert result.version == found.version + 1
        device = state_of(at_death)
        assert device.value("titles", "t00019") == edit(19, last=True)[2]
        expected = found.held["core"][1].keys() | {("titles", "t00019")}
        assert device.held["core"][1].keys() == expected
        shutil.rmtree(feed)
        shutil.rmtree(at_death)


def test_a_kill_between_the_state_and_the_head_is_undone(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = tmp_path / "feed"
    shutil.copytree(published, feed)

    def die(_: object) -> None:
        raise Killed

    from edged.origin import release

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryShelf, "swap_head", die)
        patch.setattr(release, "recover", lambda place: None)
        with pytest.raises(Killed):
            Publisher.open(feed, clock=Clock()).publish_changes("catalog", CHANGES)
    assert state_of(feed).version == 3
    with Publisher.open(feed).reading("catalog") as state:
        assert (state.live, state.newest()) == (3, 4)
    result = Publisher.open(feed, clock=Clock()).publish_changes("catalog", [edit(18)])
    assert (result.version, result.changed) == (4, 1)
    device = state_of(feed)
    assert device.value("titles", "t00003") == films(4)[3][2]
    assert device.value("titles", "t00005") == films(6)[5][2]


def test_a_kill_between_the_head_and_the_note_of_it_is_finished(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = tmp_path / "feed"
    shutil.copytree(published, feed)
    from edged.origin import release

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(release, "settle", die)
        with pytest.raises(Killed):
            Publisher.open(feed, clock=Clock()).publish_changes("catalog", CHANGES)
    assert state_of(feed).version == 4
    result = Publisher.open(feed, clock=Clock()).publish_changes("catalog", [edit(18)])
    assert (result.version, result.changed) == (5, 1)
    assert state_of(feed).value("titles", "t00077") == edit(77)[2]


def test_a_hop_that_does_not_prove_itself_is_never_signed(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = tmp_path / "feed"
    shutil.copytree(published, feed)
    before = picture(feed)
    from edged.feed.coding.hop import pack_hop as packed
    from edged.origin.blobs import hops

    monkeypatch.setattr(hops, "pack_hop", lambda changes, *rest: packed(changes[1:], *rest))
    with pytest.raises(OriginError, match="do not make the new content"):
        Publisher.open(feed, clock=Clock()).publish_changes("catalog", CHANGES)
    assert picture(feed) == before


def test_a_snapshot_that_fails_after_an_edit_leaves_the_edit_live(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = tmp_path / "feed"
    shutil.copytree(published, feed)
    from edged.origin.blobs import snapshots

    rewritten = [(*film[:2], film[2] | {"text": words(number + 1000)}) for number, film in enumerate(films(16))]
    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "decode_part", lambda data, dictionary, max_bytes: iter([]))
        with pytest.raises(OriginError, match="newest version is live, but its snapshot and skip hops failed"):
            Publisher.open(feed, clock=Clock()).publish("catalog", rewritten)
    device = state_of(feed)
    assert (device.version, len(device.keys())) == (4, 15)
    Publisher.open(feed, clock=Clock()).publish_changes("catalog", [edit(1, again=1)])
    fresh = state_of(feed)
    assert fresh.chain(fresh.head()).slices["core"].snapshots[0].version == 5


def test_a_head_that_cannot_be_renamed_after_upkeep_leaves_what_the_state_names(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, put_in_place = tmp_path / "feed", upkeep.put_in_place
    shutil.copytree(published, feed)
    publisher = Publisher.open(feed, clock=Clock())

    def fail(self: DirectoryShelf) -> None:
        raise StoreError("write head: No space left on device")

    def put(*of_upkeep: Any) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(DirectoryShelf, "swap_head", fail)
            return put_in_place(*of_upkeep)

    def publish_some() -> None:
        for number in range(8):  # one of them owes a skip hop
            publisher.publish_changes("catalog", [edit(4, take=number)])

    with monkeypatch.context() as patch:
        patch.setattr(upkeep, "put_in_place", put)
        with pytest.raises(OriginError, match="skip hops failed"):
            publish_some()
    version = state_of(feed).version
    assert publisher.publish_changes("catalog", [edit(5)]).version == version + 1
    assert publisher.verify("catalog").faults == []


def test_a_first_publish_that_was_killed_leaves_a_feed_that_goes_on(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, at_death = tmp_path / "feed", tmp_path / "death"
    shutil.copytree(published, feed)

    def die(*_: object) -> None:
        shutil.copytree(feed, at_death)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryShelf, "swap_head", die)
        with pytest.raises(Killed):
            Publisher.open(feed, clock=Clock()).publish("fresh", films(5))
    with pytest.raises(OriginError, match="no version yet"):
        Publisher.open(at_death, clock=Clock()).rollback("fresh", 1)
    assert Publisher.open(at_death, clock=Clock()).datasets() == ["catalog"]
    assert Publisher.open(at_death, clock=Clock()).publish("fresh", films(6)).version == 1
    Publisher.open(at_death, clock=Clock()).rotate_key()
    device = Device(at_death, "fresh")
    device.sync()
    assert len(device.keys()) == 6


def test_a_head_that_was_deleted_by_hand_is_made_again(published: Path, tmp_path: Path) -> None:
    feed = tmp_path / "feed"
    shutil.copytree(published, feed)
    before = state_of(feed).held
    (feed / "public" / "catalog" / "head").unlink()
    assert Publisher.open(feed, clock=Clock()).resign("catalog") == 3
    assert state_of(feed).held == before


def steps_of_a_rotation(published: Path, tmp_path: Path) -> list[str]:
    feed = tmp_path / "whole"
    shutil.copytree(published, feed)
    steps = Steps(0, Killed)
    with stepping(steps):
        Publisher.open(feed, clock=Clock()).rotate_key()
    return steps.names


def followed_by_all(feed: Path, old: Device) -> int:
    """The version that a new device and one that had the feed before come to; both can verify it."""
    old.base = feed / "public" / "catalog"
    old.root = trust.read_root((feed / "private" / "trust" / "1").read_bytes(), "the trust file")
    new = state_of(feed)
    assert old.sync().version == new.version
    return new.version


@pytest.mark.parametrize("how", ["killed", "full"])
def test_a_rotation_cut_short_at_any_step_leaves_a_feed_that_everybody_can_verify(
    published: Path, tmp_path: Path, how: str
) -> None:
    names = steps_of_a_rotation(published, tmp_path)
    for number in range(1, len(names) + 1):
        feed, at_death, old = tmp_path / "feed", tmp_path / "death", state_of(published)
        shutil.copytree(published, feed)

        def die(feed: Path = feed, at_death: Path = at_death) -> BaseException:
            shutil.copytree(feed, at_death)
            return Killed()

        if how == "killed":
            with stepping(Steps(number, die)), pytest.raises(Killed):
                Publisher.open(feed, clock=Clock()).rotate_key()
        else:
            fault = disk_full if names[number - 1].startswith(("write", "fsync", "replace")) else database_full
            with stepping(Steps(number, fault)), pytest.raises(EdgedError):
                Publisher.open(feed, clock=Clock()).rotate_key()
            feed.rename(at_death)
        assert followed_by_all(at_death, old) == 3, names[number - 1]
        Publisher.open(at_death, clock=Clock()).publish_changes("catalog", [edit(18)])
        assert followed_by_all(at_death, old) == 4, names[number - 1]
        roots, _ = Publisher.open(at_death, clock=Clock()).rotate_key()
        assert followed_by_all(at_death, old) == 4, names[number - 1]
        assert old.root.number == roots.newest.number
        shutil.rmtree(feed, ignore_errors=True)
        shutil.rmtree(at_death)


def test_a_database_that_cannot_be_made_leaves_no_trace(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = tmp_path / "feed"
    shutil.copytree(published, feed)

    def full(self: State) -> None:
        self.db.execute("CREATE TABLE half(a)")
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(State, "configure", full)
        for name in ("fresh", "catalog"):
            with pytest.raises(StoreError, match="disk is full"):
                Publisher.open(feed, clock=Clock()).publish(name, films(20))
    assert Publisher.open(feed).datasets() == ["catalog"]  # one that was there before stays
    assert not (feed / "private" / "state" / "fresh.db").exists()
