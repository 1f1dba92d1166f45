"""`origin publish --follow`: a version at most so often, and whatever was read is published or named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edged.origin.input import following
from edged.origin.input.following import EditStream
from edged.origin.input.reading import Inputs
from edged.origin.publisher import Publisher
from tests.origin.devices import Device
from tests.system.programs import DEADLINE_S, edged

COMMAND = [sys.executable, "-m", "edged", "origin", "publish"]


def line(key: str, value: object = None, **more: Any) -> str:
    return json.dumps({"collection": "titles", "key": key, **({"value": value} if value is not None else {}), **more})


class Follower:
    """The command, and what it said. `--every 0.05` unless told."""

    def __init__(self, feed: Path, *more: str, every: str = "0.05") -> None:
        words = [*COMMAND, str(feed), "--dataset", "catalog", "--follow", "--every", every, "--json", *more]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout

    def give(self, *lines: str) -> None:
        self.input.write("".join(f"{one}\n" for one in lines).encode())
        self.input.flush()

    def version(self) -> dict[str, Any]:
        """The next one that it tells of."""
        found: dict[str, Any] = json.loads(self.output.readline())
        return found

    def end(self, code: int = 0) -> tuple[list[dict[str, Any]], str]:
        """What else it made, and what it complained of."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        assert self.process.returncode == code, err.decode()
        return [json.loads(one) for one in out.splitlines()], err.decode()


@contextmanager
def following_of(feed: Path, *more: str, every: str = "0.05") -> Iterator[Follower]:
    follower = Follower(feed, *more, every=every)
    try:
        yield follower
    finally:
        follower.process.kill()
        follower.process.wait()
        for pipe in (follower.input, follower.output, follower.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    Publisher.init(tmp_path / "feed")
    return tmp_path / "feed"


def published(feed: Path) -> dict[str, Any]:
    device = Device(feed, "catalog")
    device.sync()
    return {key: device.value("titles", key) for key in sorted(device.keys())}


def test_edits_become_versions_until_the_input_ends(feed: Path) -> None:
    with following_of(feed) as follower:
        follower.give(line("a", {"n": 1}))
        assert follower.version()["version"] == 1
        follower.give(line("b", {"n": 2}), line("a", {"n": 3}), line("b", deleted=True), line("c", {"n": 4}))
        second = follower.version()
        while published(feed) != {"a": {"n": 3}, "c": {"n": 4}}:
            second = follower.version()
        follower.input.write(line("d", {"n": 5}).encode())  # a last line without its end
        rest, _ = follower.end()
        assert rest[-1]["version"] == second["version"] + 1
    assert published(feed) == {"a": {"n": 3}, "c": {"n": 4}, "d": {"n": 5}}


def test_a_version_is_made_at_most_so_often(feed: Path) -> None:
    with following_of(feed, every="30") as follower:
        follower.give(line("first", {"n": 0}))
        assert follower.version()["added"] == 1
        for number in range(200):
            follower.give(line(f"k{number}", {"n": number}))
        began = time.monotonic()
        rest, _ = follower.end()
        assert time.monotonic() - began < 20
        assert [one["added"] for one in rest] == [200]


def test_sigterm_publishes_what_was_read_and_what_lies_in_the_pipe(feed: Path) -> None:
    with following_of(feed, every="1000") as follower:
        follower.give(line("first", {"n": 0}))
        follower.version()
        follower.give(*(line(f"k{number}", {"n": number}) for number in range(300)))
        follower.process.send_signal(signal.SIGTERM)
        assert [json.loads(one)["added"] for one in follower.output] == [300]
        assert follower.process.wait(DEADLINE_S) == 0
    assert len(published(feed)) == 301


def test_a_bad_line_costs_itself(feed: Path) -> None:
    (feed / "catalog.toml").write_text('[validate.titles]\nrequired = ["title"]\n')
    with following_of(feed, every="0") as follower:
        follower.give(line("a", {"title": "A"}))
        follower.version()
        follower.give(
            "nonsense",
            line("b", {"n": 1}),
            line("c", {"title": "C"}),
            '{"collection": "titles", "key": "d", "value": {"title": "D", "title": "E"}}',
            line("e", {"title": "E"}),
        )
        rest, said = follower.end(code=3)
        assert rest[-1]["version"] >= 2
    assert set(published(feed)) == {"a", "c", "e"}
    for told in ("input:2: not JSON", "input:3: titles/b: the required field 'title'", "input:5: the name 'title'"):
        assert told in said
    assert "3 lines or edits were refused" in said


def test_what_breaks_a_rule_of_the_whole_ends_it_and_is_said(feed: Path) -> None:
    (feed / "catalog.toml").write_text("[validate.titles]\nmax_count = 2\n")
    with following_of(feed) as follower:
        follower.give(line("a", {"n": 1}))
        follower.version()
        follower.give(line("b", {"n": 1}), line("c", {"n": 1}), line("d", {"n": 1}))
        _, said = follower.end(code=3)
    assert "expected at most 2 records" in said
    assert "edits were read and are not published" in said


def test_a_feed_that_another_works_on_is_waited_for(feed: Path) -> None:
    publisher = Publisher.open(feed)
    publisher.publish_changes("catalog", [("titles", "a", {"n": 0})])
    with following_of(feed) as follower:
        with publisher.opened("catalog"):
            follower.give(line("b", {"n": 1}))
            assert follower.process.stderr is not None
            assert b"another publisher is at work" in follower.process.stderr.readline()
        assert follower.version()["version"] == 2
        publisher.takedown("catalog", "titles", ["a"])  # others come between
        follower.give(line("c", {"n": 1}))
        assert follower.version()["version"] == 4
        follower.end()
    assert set(published(feed)) == {"b", "c"}


def test_killed_at_any_time_it_leaves_a_version_and_the_next_goes_on(feed: Path) -> None:
    for number in range(4):
        with following_of(feed, every="0") as follower:
            follower.give(line("x", {"n": number}))
            follower.version()
            follower.give(*(line(f"k{one}", {"n": number}) for one in range(2000)))
            time.sleep(0.02 * number)
            follower.process.kill()
            follower.process.wait()
        held = published(feed)
        assert held["x"] == {"n": number} or number == 0
    with following_of(feed) as follower:
        follower.give(line("end", {"n": 1}))
        follower.version()
        follower.end()
    assert published(feed)["end"] == {"n": 1}


@pytest.mark.parametrize("more", [["--dry-run"], ["--rollout", "5%"], ["file.ndjson"], ["--allow-empty"]])
def test_what_does_not_go_with_it_is_refused(feed: Path, more: list[str]) -> None:
    assert "--follow" in edged("origin", "publish", feed, "--dataset", "catalog", "--follow", *more, code=2).stderr


def test_every_needs_follow(feed: Path) -> None:
    assert "--every" in edged("origin", "publish", feed, "--dataset", "c", "-", "--every", "1", code=2).stderr


def test_what_is_not_published_yet_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PENDING_BYTES", 3000)
    reader, writer = os.pipe()
    stream = EditStream(reader, Inputs(["-"], edits=True), print)
    for number in range(20):
        os.write(writer, (line(f"k{number}", {"text": "x" * 200}) + "\n").encode())
        if not stream.wait(time.monotonic() + 0.01):
            break
    assert 3000 <= stream.bytes < 4000
    assert not stream.wait(time.monotonic())  # whoever writes waits
    batch = stream.take()
    stream.put(batch.pending[0])
    stream.done(batch.pending)
    assert (stream.bytes, stream.edits) == (0, {})
    assert stream.has_room
    os.close(reader)
    os.close(writer)


def test_a_line_without_end_is_named_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LINE_BYTES", 1000)
    monkeypatch.setattr(following, "PIECE_BYTES", 300)
    reader, writer = os.pipe()
    told: list[str] = []
    stream = EditStream(reader, Inputs(["-"], edits=True), told.append)
    os.write(writer, b"y" * 5000 + b"\n" + line("a", {"n": 1}).encode() + b"\n")
    os.close(writer)
    while not stream.ended:
        stream.wait(None)
    assert len(told) == 1
    assert "standard input:1: a line of more than 1000 bytes" in told[0]
    assert list(stream.edits) == [("titles", "a")]
    os.close(reader)
