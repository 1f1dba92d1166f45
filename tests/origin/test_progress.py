"""`origin publish --follow --progress FILE`: what FILE says is in the feed, whatever ends the publisher when."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edged.cli.publishing.following import EditFollower, InputProgress
from edged.errors import ConfigError, EdgedError, OriginError, ValidationError
from edged.origin.input import following, positions
from edged.origin.input.following import EditStream
from edged.origin.input.positions import START, InputCursor, InputMark, ProgressFile
from edged.origin.input.reading import Inputs
from edged.origin.publisher import Publisher, PublishOptions
from tests.origin.conftest import Clock
from tests.origin.devices import Device
from tests.origin.test_faults import Killed, Steps, database_full, disk_full, stepping
from tests.origin.test_follow import feed, following_of, line, published
from tests.system.programs import edged

__all__ = ["feed"]

KEYS = ("a", "b", "c", "d", "e")


def edits(count: int, *, given: int = 0) -> list[str]:
    """Edits of a few records, the n-th with the number n. given: every so many have a position; 0: none has."""
    lines = []
    for number in range(1, count + 1):
        more = {"position": number} if given and number % given == 0 else {}
        lines.append(line(KEYS[number * number % 5], {"n": number}, **more))
    return lines


def content_after(lines: list[str]) -> dict[str, Any]:
    found = {}
    for one in lines:
        edit = json.loads(one)
        if "key" in edit:
            found[edit["key"]] = edit["value"]
    return found


def contents(lines: list[str]) -> list[dict[str, Any]]:
    """What the feed may hold: the content after none of the lines, after the first, and so on."""
    return [content_after(lines[:number]) for number in range(len(lines) + 1)]


def left_of(lines: list[str], file: Path) -> bytes:
    """The input from where FILE says, as whoever gives it goes on."""
    said = json.loads(file.read_bytes())
    whole = "".join(f"{one}\n" for one in lines).encode()
    if said["counted"]:
        return whole[said["position"] :]
    return "".join(f"{one}\n" for one in lines[said["position"] :]).encode()


def publish(home: Path, data: bytes, seen: Callable[[], None] = lambda: None) -> int:
    """Publish input to its end in this process, piece by piece. The exit code. seen: called after each version."""
    publisher = Publisher.open(home / "feed", clock=Clock())
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
        os.close(writer)
        progress = InputProgress.open(publisher, "catalog", home / "feed" / "progress.json")
        stream = EditStream(
            reader, Inputs(["-"], edits=True), lambda text: follower.refuse(text), cursor=progress.cursor
        )
        follower = EditFollower(publisher, "catalog", PublishOptions(), stream, lambda result: seen(), 0.0)
        follower.progress = progress
        return follower.run([])
    finally:
        os.close(reader)


def held(home: Path) -> dict[str, Any]:
    return published(home / "feed") if (home / "feed" / "public" / "catalog" / "head").exists() else {}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feed that held something before the input began."""
    home = tmp_path_factory.mktemp("begun")
    publisher = Publisher.init(home / "feed", clock=Clock())
    publisher.publish("catalog", [("titles", "a", {"n": 0})])
    return home


def said(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "feed" / "progress.json").read_bytes())
    return found


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few edits are read at a time, so that there are several versions."""
    monkeypatch.setattr(following, "PIECE_BYTES", 150)


def steps_of(begun: Path, tmp_path: Path, lines: list[str]) -> list[str]:
    shutil.copytree(begun, tmp_path / "whole")
    steps = Steps(0, Killed)
    with stepping(steps):
        assert publish(tmp_path / "whole", "".join(f"{one}\n" for one in lines).encode()) == 0
    return steps.names


def die_at(begun: Path, tmp_path: Path, lines: list[str], number: int) -> Path:
    """What is on the disk after a publisher was killed at step `number`."""
    home, at_death = tmp_path / "home", tmp_path / "death"
    for path in (home, at_death):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(begun, home)

    def die() -> BaseException:
        shutil.copytree(home, at_death)
        return Killed()

    with stepping(Steps(number, die)), pytest.raises(Killed):
        publish(home, "".join(f"{one}\n" for one in lines).encode())
    return at_death


def goes_on(home: Path, lines: list[str], where: str) -> None:
    """Start again from FILE: all that it acknowledges is there, and nothing older than what was seen ever comes."""
    possible = [{"a": {"n": 0}} | one for one in contents(lines)]
    at = possible.index(held(home))
    if (home / "feed" / "progress.json").exists():
        said_before = said(home)
        size = said_before["position"]
        whole = [len("".join(f"{one}\n" for one in lines[:number])) for number in range(len(lines) + 1)]
        assert at >= (whole.index(size) if said_before["counted"] else size), where
        data = left_of(lines, home / "feed" / "progress.json")
    else:
        data = "".join(f"{one}\n" for one in lines).encode()
    shown = [at]

    def see() -> None:
        shown.append(possible.index(held(home)))

    assert publish(home, data, see) == 0, where
    assert shown == sorted(shown), where
    assert shown[-1] == len(lines), where
    assert left_of(lines, home / "feed" / "progress.json") == b"", where


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("given", [0, 2])
def test_killed_at_a_step_it_goes_on_from_what_file_says(given: int, begun: Path, tmp_path: Path) -> None:
    lines = edits(8, given=given)
    names = steps_of(begun, tmp_path, lines)
    for number in range(1, len(names) + 1, 19):
        goes_on(die_at(begun, tmp_path, lines, number), lines, f"step {number} of {len(names)}, {names[number - 1]}")


@pytest.mark.slow
@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("given", [0, 1, 2])
def test_killed_at_any_step_it_goes_on_from_what_file_says(given: int, begun: Path, tmp_path: Path) -> None:
    lines = edits(8, given=given)
    names = steps_of(begun, tmp_path, lines)
    for number in range(1, len(names) + 1):
        goes_on(die_at(begun, tmp_path, lines, number), lines, f"step {number} of {len(names)}, {names[number - 1]}")


@pytest.mark.slow
@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("given", [0, 2])
def test_a_disk_that_is_full_at_any_step_costs_no_edit(
    given: int, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edged.cli.publishing import following as command

    for name in ("FIRST_PAUSE_S", "MOST_PAUSE_S"):
        monkeypatch.setattr(command, name, 0.0)
    lines = edits(8, given=given)
    names = steps_of(begun, tmp_path, lines)
    for number, name in enumerate(names, 1):
        home = tmp_path / str(number)
        shutil.copytree(begun, home)
        fault = disk_full if name.startswith(("write", "fsync", "replace")) else database_full
        where = f"step {number} of {len(names)}, {name}"
        with stepping(Steps(number, fault)):
            try:
                publish(home, "".join(f"{one}\n" for one in lines).encode())
            except EdgedError:
                assert not (home / "feed" / "progress.json").exists() or said(home)["position"] == 0, where
        goes_on(home, lines, where)
        shutil.rmtree(home)


def test_file_says_how_far_the_input_is_and_with_which_version(feed: Path) -> None:
    file = feed / "progress.json"
    with following_of(feed, "--progress", str(file)) as follower:
        follower.give(line("a", {"n": 1}))
        assert follower.version()["version"] == 1
        follower.give(line("b", {"n": 1}), line("a", {"n": 2}))
        follower.end()
    found = json.loads(file.read_bytes())
    size = sum(len(one) + 1 for one in (line("a", {"n": 1}), line("b", {"n": 1}), line("a", {"n": 2})))
    assert (found["dataset"], found["position"], found["counted"]) == ("catalog", size, True)
    assert found["version"] == Device(feed, "catalog").sync().version
    with following_of(feed, "--progress", str(file)) as follower:  # what goes on from there is counted on
        follower.give(line("c", {"n": 3}, position="0/16B3748"), line("d", {"n": 4}))
        _, told = follower.end(code=1)
        assert "1 edits came after the last position" in told
    found = json.loads(file.read_bytes())
    assert (found["position"], found["counted"]) == ("0/16B3748", False)
    assert set(published(feed)) == {"a", "b", "c"}


def test_a_position_alone_is_kept_without_a_version(feed: Path) -> None:
    file = feed / "progress.json"
    words = ("origin", "publish", feed, "--dataset", "catalog", "--follow", "--every", "0", "--progress", file)
    edged(*words, data='{"position": 4}\n')
    assert json.loads(file.read_bytes())["position"] == 0  # no version holds it yet
    edged(*words, data=line("a", {"n": 1}, position=5) + "\n")
    edged(*words, data='{"position": 7}\n')
    found = json.loads(file.read_bytes())
    assert (found["version"], found["position"]) == (1, 7)
    done = edged(*words, data=line("a", {"n": 0}, position=6) + "\n" + line("b", {"n": 2}, position=8) + "\n")
    assert "1 edits came again" in done.stderr
    assert published(feed) == {"a": {"n": 1}, "b": {"n": 2}}


def test_edits_that_belong_together_come_in_one_version(feed: Path) -> None:
    with following_of(feed, "--progress", str(feed / "p"), every="0") as follower:
        follower.give(line("a", {"n": 1}, position=1))
        follower.version()
        follower.give(line("b", {"n": 1}))
        time.sleep(0.3)
        follower.give(line("c", {"n": 1}, position=2), line("d", {"n": 1}))
        assert follower.version()["added"] == 2
        follower.process.send_signal(signal.SIGTERM)
        _, told = follower.end()
        assert "1 edits came after the last position" in told
    assert set(published(feed)) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([line("b", {"n": 2}, position=5)], "input:2: `position`: expected a number above the one before, 5, got 5"),
        ([line("b", {"n": 2}, position=4)], "input:2: `position`: expected a number above"),
        ([line("b", {"n": 2}, position=-1)], "input:2: `position`: expected a whole number from 0"),
        ([line("b", {"n": 2}, position=True)], "input:2: `position`: expected a whole number from 0"),
        ([line("b", {"n": 2}, position="")], "input:2: `position`: expected a whole number from 0"),
        ([line("b", {"n": 2}, position=[1])], "input:2: `position`: expected a whole number from 0"),
    ],
)
def test_positions_that_make_none_end_it_once_the_rest_is_published(feed: Path, lines: list[str], told: str) -> None:
    words = ("origin", "publish", feed, "--dataset", "catalog", "--follow", "--progress", feed / "p")
    data = "".join(f"{one}\n" for one in [line("a", {"n": 1}, position=5), *lines, line("c", {"n": 3}, position=9)])
    assert told in edged(*words, data=data, code=3).stderr
    assert set(published(feed)) == {"a"}
    assert json.loads((feed / "p").read_bytes())["position"] == 5


def test_a_position_needs_progress(feed: Path) -> None:
    words = ("origin", "publish", feed, "--dataset", "catalog", "--follow")
    assert "'position'" in edged(*words, data=line("a", {"n": 1}, position=5) + "\n", code=3).stderr
    assert "--follow" in edged(*words[:-1], "-", "--progress", feed / "p", data="", code=2).stderr


def test_a_line_that_was_cut_off_is_not_counted(begun: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(begun, home)
    lines = edits(3)
    whole = "".join(f"{one}\n" for one in lines).encode()
    first = len(lines[0]) + 1
    assert publish(home, whole[: first + 20]) == 3
    assert said(home)["position"] == first
    assert publish(home, whole[first : first + len(lines[1])]) == 0  # whole but for the line break
    assert said(home)["position"] == first + len(lines[1])
    assert publish(home, whole[said(home)["position"] :]) == 0
    assert said(home)["position"] == len(whole)
    assert held(home) == {"a": {"n": 0}} | content_after(lines)


def test_what_is_refused_is_passed_by(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LINE_BYTES", 1000)
    monkeypatch.setattr(following, "PIECE_BYTES", 300)
    home = tmp_path / "home"
    shutil.copytree(begun, home)
    (home / "feed" / "catalog.toml").write_text('[validate.titles]\nrequired = ["n"]\n')
    lines = [line("a", {"n": 1}), "nonsense", "", "y" * 5000, line("b", {"m": 1}), line("c", {"n": 1}), line("d", {})]
    data = "".join(f"{one}\n" for one in lines).encode()
    assert publish(home, data) == 3
    assert said(home)["position"] == len(data)
    assert held(home) == {"a": {"n": 1}, "c": {"n": 1}}


def test_more_than_can_be_held_back_is_published_before_its_position(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PENDING_BYTES", 3000)
    monkeypatch.setattr(following, "PIECE_BYTES", 1000)
    home, marks = tmp_path / "home", []
    shutil.copytree(begun, home)
    lines = [line("z", {"n": 1}, position=1), *(line(f"k{n}", {"n": n, "t": "x" * 90}) for n in range(60))]
    data = "".join(f"{one}\n" for one in [*lines, '{"position": 2}']).encode()
    assert publish(home, data, lambda: marks.append(said(home)["position"])) == 0
    assert len(marks) > 2
    assert set(marks[:-1]) == {1}
    assert said(home)["position"] == 2
    assert len(held(home)) == 62


def restored(home: Path, tmp_path: Path, name: str) -> None:
    """Put the feed back to what it was when it was copied to `name`; FILE stays as it is."""
    file = (home / "feed" / "progress.json").read_bytes()
    shutil.rmtree(home / "feed")
    shutil.copytree(tmp_path / name, home / "feed")
    (home / "feed" / "progress.json").write_bytes(file)


def test_a_feed_that_was_restored_asks_for_the_input_again(begun: Path, tmp_path: Path) -> None:
    home, lines = tmp_path / "home", edits(6, given=1)
    shutil.copytree(begun, home)
    shutil.copytree(home / "feed", tmp_path / "empty")
    assert publish(home, "".join(f"{one}\n" for one in lines[:3]).encode()) == 0
    shutil.copytree(home / "feed", tmp_path / "backup")
    assert publish(home, "".join(f"{one}\n" for one in lines[3:]).encode()) == 0
    restored(home, tmp_path, "backup")
    with pytest.raises(OriginError, match=r"restored from a backup.* now says 3: start again"):
        publish(home, b"")
    assert publish(home, left_of(lines, home / "feed" / "progress.json")) == 0
    assert held(home) == {"a": {"n": 0}} | content_after(lines)
    restored(home, tmp_path, "empty")
    with pytest.raises(OriginError, match="does not know the input"):
        publish(home, b"")
    (home / "feed" / "progress.json").unlink()
    assert publish(home, "".join(f"{one}\n" for one in lines).encode()) == 0
    assert held(home) == {"a": {"n": 0}} | content_after(lines)


def test_two_that_publish_one_input_find_it_out(begun: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(begun, home)
    publisher = Publisher.open(home / "feed", clock=Clock())
    first = InputProgress.open(publisher, "catalog", home / "feed" / "p")
    second = InputProgress.open(publisher, "catalog", home / "feed" / "p")
    assert first.file.name == second.file.name
    options = first.options(PublishOptions(), InputMark(10))
    publisher.publish_changes("catalog", [("titles", "a", {"n": 1})], options)
    with pytest.raises(OriginError, match="another process publishes this input"):
        publisher.publish_changes(
            "catalog", [("titles", "a", {"n": 2})], second.options(PublishOptions(), InputMark(20))
        )
    assert published(home / "feed") == {"a": {"n": 1}}
    first.note(InputMark(30))  # also where it was not told that its own is kept
    assert ProgressFile.open(home / "feed" / "p", "catalog").mark == InputMark(30)


def test_inputs_are_kept_apart_and_forgotten_one_day(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "KEPT", 3)
    home = tmp_path / "home"
    shutil.copytree(begun, home)
    publisher = Publisher.open(home / "feed", clock=Clock())
    for number in range(6):
        one = InputProgress.open(publisher, "catalog", home / "feed" / f"p{number}")
        assert one.mark == START
        for step in range(1, 4):
            options = one.options(PublishOptions(), InputMark(step))
            result = publisher.publish_changes("catalog", [("titles", "a", {"n": 10 * number + step})], options)
            one.kept(result.version, InputMark(step))
    with publisher.reading("catalog") as state:
        rows = list(state.rows("SELECT name, count(*) FROM inputs GROUP BY name"))
    assert len(rows) == 3
    assert {count for _, count in rows} == {2}  # the last, and the one before in case that is undone


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "{}", '{"dataset": "catalog", "version": 1, "position": 1, "counted": true, "input": 5}',
     '{"dataset": "catalog", "version": true, "position": 1, "counted": true, "input": "a"}', "x" * 10_000],
)  # fmt: skip
def test_a_file_that_is_none_is_refused(feed: Path, text: str) -> None:
    (feed / "p").write_text(text)
    with pytest.raises(EdgedError) as caught:
        ProgressFile.open(feed / "p", "catalog")
    assert "p" in str(caught.value)
    assert (feed / "p").read_text() == text


def test_a_file_of_another_dataset_is_refused(feed: Path) -> None:
    ProgressFile.open(feed / "p", "catalog")
    with pytest.raises(ConfigError, match="is of dataset 'catalog', not of other"):
        ProgressFile.open(feed / "p", "other")


def test_texts_have_no_order_so_a_file_that_was_behind_asks_for_another_start() -> None:
    cursor = InputCursor(InputMark("one", False), InputMark("two", False))
    with pytest.raises(OriginError, match="start again"):
        cursor.give("two")
    cursor = InputCursor(InputMark("two", False), InputMark("two", False))
    assert cursor.give("one")
    with pytest.raises(ValidationError):
        InputCursor(InputMark(1, False), InputMark(1, False), repeating=False).give(1)


@pytest.mark.slow
def test_sigkill_at_any_time_loses_nothing_that_file_acknowledges(feed: Path) -> None:
    chance, lines, file = random.Random(14), edits(4000, given=1), feed / "p"
    possible, at = contents(lines), 0
    for _ in range(12):
        begin = json.loads(file.read_bytes())["position"] if file.exists() else 0
        with following_of(feed, "--progress", str(file), every="0") as follower:
            follower.give(*lines[begin : begin + 300])
            time.sleep(chance.uniform(0.3, 1.2))
            follower.process.kill()
            follower.process.wait()
        now = possible.index(published(feed)) if (feed / "public" / "catalog" / "head").exists() else 0
        assert at <= now
        at = now
        assert at >= (json.loads(file.read_bytes())["position"] if file.exists() else 0)
    assert at > 300
