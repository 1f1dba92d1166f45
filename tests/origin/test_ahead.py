"""A version ahead at the publisher: cut short at any step, refused where it cannot be, and from the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edged.cli.main import main
from edged.errors import OriginError
from edged.feed.trust import root as trust
from edged.origin.ahead import plans, preparing
from edged.origin.ahead.preparing import AheadOptions
from edged.origin.input.reading import Values
from edged.origin.publisher import Publisher, PublishOptions
from tests.origin.conftest import Clock
from tests.origin.devices import Device
from tests.origin.test_faults import Killed, Steps, stepping
from tests.origin.test_publish import edit, films

EDITS = [edit(3, secret="s" * 40), edit(7), ("titles", "t00005", None), edit(40)]


def prepare(publisher: Publisher, edits: list[Any] = EDITS) -> None:
    with publisher.at_work("catalog") as place:
        preparing.prepare(place, Values(edits, edits=True), AheadOptions())


def release(publisher: Publisher) -> None:
    with publisher.at_work("catalog") as place:
        preparing.release(place)


def withdraw(publisher: Publisher) -> None:
    with publisher.at_work("catalog") as place:
        preparing.withdraw(place)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    feed = tmp_path_factory.mktemp("plain") / "feed"
    Publisher.init(feed, clock=Clock()).publish("catalog", films(30))
    return feed


@pytest.fixture(scope="module")
def prepared(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    feed = tmp_path_factory.mktemp("prepared") / "feed"
    shutil.copytree(plain, feed)
    prepare(Publisher.open(feed, clock=Clock()))
    return feed


def content_of(feed: Path) -> tuple[int, dict[tuple[str, str], bytes]]:
    device = Device(feed, "catalog")
    device.sync()
    return device.version, device.held["core"][1]


def killed_everywhere(feed: Path, tmp_path: Path, operation: Callable[[Publisher], None], every: int) -> list[Path]:
    """The feed as it lies on the disk when the operation is killed at each of its steps."""
    counting = tmp_path / "counting"
    shutil.copytree(feed, counting)
    steps = Steps(0, Killed)
    with stepping(steps):
        operation(Publisher.open(counting, clock=Clock()))
    found = []
    for number in range(1, steps.count + 1, every):
        work, death = tmp_path / f"work{number}", tmp_path / f"death{number}"
        shutil.copytree(feed, work)

        def die(work: Path = work, death: Path = death) -> BaseException:
            shutil.copytree(work, death)
            return Killed()

        with stepping(Steps(number, die)), pytest.raises(Killed):
            operation(Publisher.open(work, clock=Clock()))
        found.append(death)
    return found


def test_killed_while_it_is_prepared(plain: Path, tmp_path: Path) -> None:
    old = content_of(plain)
    for feed in killed_everywhere(plain, tmp_path, prepare, every=4):
        assert content_of(feed) == old
        publisher = Publisher.open(feed, clock=Clock())
        publisher.resign("catalog")
        with publisher.reading("catalog") as state:
            plan = plans.held(state)
        assert announced(publisher) == (None if plan is None else plan.ahead)
        prepare(publisher)
        release(publisher)
        assert content_of(feed)[0] == 2


def announced(publisher: Publisher) -> object:
    root = trust.read_root(publisher.trust_path.read_bytes(), "trust file")
    return trust.verify_head((publisher.public / "catalog" / "head").read_bytes(), root, "catalog").head.ahead


def test_killed_while_it_is_released(prepared: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(prepared, whole)
    release(Publisher.open(whole, clock=Clock()))
    old, new = content_of(prepared), content_of(whole)
    assert (old[0], new[0]) == (1, 2)
    for feed in killed_everywhere(prepared, tmp_path, release, every=4):
        found = content_of(feed)
        assert found in (old, new)
        if found == old:
            release(Publisher.open(feed, clock=Clock()))
            assert content_of(feed) == new
        else:
            with pytest.raises(OriginError, match="none is prepared"):
                release(Publisher.open(feed, clock=Clock()))


def test_killed_while_it_is_withdrawn(prepared: Path, tmp_path: Path) -> None:
    old = content_of(prepared)
    for feed in killed_everywhere(prepared, tmp_path, withdraw, every=2):
        assert content_of(feed) == old
        publisher = Publisher.open(feed, clock=Clock())
        publisher.resign("catalog")
        with publisher.reading("catalog") as state:
            if plans.held(state) is None:
                assert announced(publisher) is None


def test_what_was_let_pass_when_it_was_prepared_is_asked_for_nothing_when_it_is_released(
    plain: Path, tmp_path: Path
) -> None:
    """All of it was judged then; at its time nobody is there to say that it is meant."""
    shutil.copytree(plain, tmp_path / "feed")
    publisher = Publisher.open(tmp_path / "feed", clock=Clock())
    gone: list[Any] = [("titles", f"t{number:05}", None) for number in range(20)]
    prepare(publisher, [*gone, edit(25), edit(26)])
    (publisher.path / "catalog.toml").write_text("[validate.titles]\nmax_change = 1\n")
    release(publisher)
    version, content = content_of(publisher.path)
    assert (version, len(content)) == (2, 10)


def test_signed_anew_it_stays_and_after_the_release_the_key_does(prepared: Path, tmp_path: Path) -> None:
    feed = tmp_path / "feed"
    shutil.copytree(prepared, feed)
    publisher = Publisher.open(feed, clock=Clock())
    before = announced(publisher)
    publisher.resign("catalog")
    assert announced(publisher) == before is not None
    release(publisher)
    released = publisher.believed_head("catalog").released
    publisher.resign("catalog")
    assert publisher.believed_head("catalog").released == released is not None
    publisher.publish_changes("catalog", [edit(1)])
    assert publisher.believed_head("catalog").released is None
    assert publisher.verify("catalog").faults == []


@pytest.mark.parametrize("released", [False, True])
def test_a_lost_sealed_hop_is_found_and_named_no_more(prepared: Path, tmp_path: Path, released: bool) -> None:
    feed = tmp_path / "feed"
    shutil.copytree(prepared, feed)
    publisher = Publisher.open(feed, clock=Clock())
    if released:
        release(publisher)
    sealed = next(publisher.believed_head("catalog").sealed_hops()).blob
    (feed / "public" / "catalog" / "blobs" / sealed.name).unlink()
    assert sealed.name in "".join(publisher.verify("catalog").faults)
    assert publisher.verify("catalog", mend=True).mended
    assert list(publisher.believed_head("catalog").sealed_hops()) == []
    assert publisher.verify("catalog").faults == []
    assert content_of(feed)[0] == 1 + released


def test_what_is_refused(plain: Path, tmp_path: Path) -> None:
    feed = tmp_path / "feed"
    shutil.copytree(plain, feed)
    publisher = Publisher.open(feed, clock=Clock())
    with pytest.raises(OriginError, match="nothing would change"):
        prepare(publisher, [films(30)[0]])
    with pytest.raises(OriginError, match="none is prepared"):
        release(publisher)
    with pytest.raises(OriginError, match="time given is over"), publisher.at_work("catalog") as place:
        preparing.prepare(place, Values(EDITS, edits=True), AheadOptions(at=1_600_000_000))
    publisher.publish_changes("catalog", [edit(2)], PublishOptions(permille=100))
    with pytest.raises(OriginError, match="a rollout is under way"):
        prepare(publisher)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    feed, lines = tmp_path / "feed", tmp_path / "in.ndjson"

    def edged(*words: str, code: int = 0) -> str:
        assert main(["origin", words[0], str(feed), *words[1:]]) == code
        return capsys.readouterr().out

    edged("init")
    lines.write_text('{"collection": "titles", "key": "a", "value": 1}\n')
    edged("publish", "--dataset", "d", str(lines))
    lines.write_text('{"collection": "titles", "key": "b", "value": 2}\n')
    told = json.loads(edged("ahead", "--dataset", "d", str(lines), "--changes", "--message", "finale", "--json"))
    assert (told["version"], told["base"], told["added"], told["at"]) == (2, 1, 1, None)
    assert "is prepared: 1 added" in edged("ahead", "--dataset", "d", str(lines), "--changes", "--spread", "5")
    assert "withdrawn" in edged("withdraw-ahead", "--dataset", "d")
    edged("withdraw-ahead", "--dataset", "d", code=1)
    edged("ahead", "--dataset", "d", str(lines), "--changes", "--message", "finale", "--at", "2100-01-01T00:00:00Z")
    assert json.loads(edged("release", "--dataset", "d", "--json"))["version"] == 2
    entry = json.loads(edged("log", "--dataset", "d", "--json"))["versions"][-1]
    assert (entry["kind"], entry["message"], entry["added"]) == ("release", "finale", 1)
    edged("release", "--dataset", "d", code=1)
