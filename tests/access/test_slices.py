"""An app with some slices is answered as by a device that carries no others."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import msgspec
import pytest

import edged
from edged.access.apps import Access
from edged.access.identity import Peer
from edged.access.rights import App, Rights
from edged.access.usage import UsageBook
from edged.errors import DamageError
from edged.feed import cbor
from edged.http.application import Answer, InThread, Response, Stream
from edged.http.meter import Meter
from edged.http.request import Request
from edged.replica.files.manifest import file_name
from edged.replica.writer import Writer
from edged.serve.apps import Api
from edged.serve.counting import Counting
from edged.serve.guard import Guard
from tests.replica.feeds import Publisher, made_up
from tests.serve.asking import make_service


def app(name: str, *allow: str, slices: tuple[str, ...] = ()) -> App:
    return App(name, "partner", Rights.of(allow, slices), token_sha256=sha256(name.encode()).digest())


class Room:
    """A guarded API over a replica of the slices named."""

    def __init__(self, stack: ExitStack, directory: Path, slices: dict[str, Any], *apps: App) -> None:
        self.publisher = Publisher(slices)
        self.writer = stack.enter_context(Writer.open(directory, "catalog"))
        self.publisher.snapshot_into(self.writer)
        dataset = stack.enter_context(edged.open(directory)).follow("catalog")
        catalog = {"catalog": dataset}
        self.dataset = dataset
        self.service = make_service(catalog)
        counting = Counting(UsageBook(1), Meter(), catalog, None)
        self.guard = Guard(Api(self.service), self.service, Access(apps), counting)

    def any(self, name: str, target: str, accept: str = "application/json", **more: str) -> Answer:
        fields = {"host": "localhost", "authorization": f"Bearer {name}", "accept": accept, **more}
        lines = tuple((key.replace("_", "-").encode(), value.encode()) for key, value in fields.items())
        answer = self.guard.answer(
            Request("GET", target.encode(), lines, who=self.guard.identify(Peer(False, "127.0.0.1")))
        )
        while isinstance(answer, InThread):
            answer = answer.work()
        return answer

    def ask(self, name: str, target: str, accept: str = "application/json", **more: str) -> tuple[int, bytes]:
        answer = self.any(name, target, accept, **more)
        if isinstance(answer, Stream):
            return answer.status, b"".join(answer.pieces)
        assert isinstance(answer, Response), answer
        return answer.status, answer.body

    def edit(self, changes: dict[str, dict[tuple[str, str], bytes | None]]) -> None:
        self.publisher.version += 1
        with self.writer.stage() as staging:
            for name in self.publisher.slices:
                done = self.publisher.apply(name, changes.get(name, {}))
                staging.apply_changes(name, self.publisher.version, done)
            version = self.publisher.version
            staging.commit(version, b"head %d" % version, as_of=version, fresh_s=60, expires_s=600)
        self.dataset.relax()


def slices() -> dict[str, Any]:
    """Two, with a record that is in both, and a collection that is in one of them alone."""
    core, other = made_up(60, 1), made_up(60, 2)
    both = next(iter(core))
    other[both] = core[both]
    other["plans", "p1"] = cbor.encode({"title": "the plan"})
    return {"core": core, "b": other}


@contextmanager
def rooms(tmp_path: Path) -> Iterator[tuple[Room, Room]]:
    """One of both slices, with an app for one of them; one of that slice alone. In each `whole` sees all of it."""
    both = slices()
    some = (app("whole", "catalog/*"), app("part", "catalog/*", slices=("core",)))
    with ExitStack() as stack:
        one = Room(stack, tmp_path / "both", both, *some, app("none", "catalog/*", slices=("elsewhere",)))
        yield one, Room(stack, tmp_path / "alone", {"core": dict(both["core"])}, *some)


def targets(publisher: Publisher) -> list[str]:
    mine = sorted(key for name, key in publisher.slices["core"] if name == "titles")
    every = sorted({key for records in publisher.slices.values() for name, key in records if name == "titles"})
    paths = [f"/v1/catalog/titles/{quote(key)}" for key in every]
    lists = [
        "titles",
        "titles?limit=7",
        f"titles?after={quote(mine[3], safe='')}&limit=5",
        f"titles?keys={','.join(quote(key, safe='') for key in every[:50])}",
        "titles?count=1&limit=1",
        "titles?where.year.gte=1960&order=year&count=1",
        "titles?facets=year&count=1",
        "titles?group=year&limit=2",
        "titles?distinct=year",
        "titles?q=the&count=1",
        "titles?fields=title",
        "plans",
        "plans/p1",
        "changes?since=1",
        "changes?since=1&collection=titles",
    ]
    return [*paths, *(f"/v1/catalog/{path}" for path in lists)]


def compare(both: Room, alone: Room) -> None:
    for _ in range(2):
        for target in targets(both.publisher):
            accept = "application/x-ndjson" if "changes" in target else "application/json"
            both.ask("whole", target, accept)  # which remembers what the other must not be given
            assert both.ask("part", target, accept) == alone.ask("whole", target, accept), target
            assert alone.ask("part", target, accept) == alone.ask("whole", target, accept), target
        events = "/v1/catalog/changes?since=1"
        both.ask("whole", events, "text/event-stream")
        assert both.ask("part", events, "text/event-stream") == alone.ask("whole", events, "text/event-stream")
    described, expected = (
        msgspec.json.decode(room.ask(name, "/v1/catalog")[1]) for room, name in ((both, "part"), (alone, "whole"))
    )
    assert described == expected


@pytest.mark.trio
async def test_no_way_of_asking_tells_of_another_slice(tmp_path: Path) -> None:
    with rooms(tmp_path) as (both, alone):
        compare(both, alone)
        chance = random.Random(5)
        for _ in range(3):
            changes = {name: both.publisher.edit(name, 6, chance) for name in ("core", "b")}
            both.edit(changes)
            alone.edit({"core": changes["core"]})
            compare(both, alone)


@pytest.mark.trio
async def test_a_record_that_goes_to_another_slice_is_gone_and_comes_back(tmp_path: Path) -> None:
    with rooms(tmp_path) as (both, alone):
        (name, key), raw = next(item for item in both.publisher.slices["core"].items() if item[0][1] > "1")
        target = f"/v1/catalog/{name}/{quote(key)}"
        assert both.ask("part", target)[0] == 200
        both.edit({"core": {(name, key): None}, "b": {(name, key): raw}})
        alone.edit({"core": {(name, key): None}})
        assert both.ask("whole", target)[0] == 200
        assert both.ask("part", target)[0] == 404
        compare(both, alone)
        told = both.ask("part", "/v1/catalog/changes?since=1", "application/x-ndjson")[1]
        assert [msgspec.json.decode(line).get("deleted") for line in told.splitlines()] == [True]
        both.edit({"core": {(name, key): raw}})
        alone.edit({"core": {(name, key): raw}})
        compare(both, alone)


@pytest.mark.trio
async def test_what_is_taken_down_is_as_what_never_was_there(tmp_path: Path) -> None:
    with rooms(tmp_path) as (both, _):
        gone = [next(iter(both.publisher.slices[name])) for name in ("core", "b")]
        with both.writer.stage() as staging:
            staging.set_takedowns(b"list", gone)
            staging.commit(2, b"head 2", as_of=2, fresh_s=60, expires_s=600)
        both.dataset.relax()
        for name, key in gone:
            target = f"/v1/catalog/{name}/{quote(key)}"
            assert both.ask("whole", target)[0] == 410
            assert both.ask("part", target)[0] == 404


@pytest.mark.trio
async def test_a_slice_that_is_not_here_holds_nothing(tmp_path: Path) -> None:
    with rooms(tmp_path) as (both, _):
        assert both.ask("none", "/v1/catalog/titles")[0] == 404
        described = msgspec.json.decode(both.ask("none", "/v1/catalog")[1])
        assert (described["slices"], described["collections"], described["dictionaries"]) == ({}, {}, {})


@pytest.mark.trio
async def test_dictionaries_are_of_the_slices_that_an_app_may_have(tmp_path: Path) -> None:
    with rooms(tmp_path) as (both, alone):
        seen = {}
        for room, name in ((both, "whole"), (both, "part"), (alone, "whole")):
            described = msgspec.json.decode(room.ask(name, "/v1/catalog")[1])
            seen[room is both, name] = described["dictionaries"]
        assert seen[True, "part"] == seen[False, "whole"]


@pytest.mark.trio
async def test_damage_of_a_slice_costs_those_who_may_have_it_alone(tmp_path: Path) -> None:
    with rooms(tmp_path) as (both, _):
        for name in ("whole", "part"):
            assert both.ask(name, "/v1/catalog/titles?limit=5")[0] == 200
        for pack in both.writer.live.manifest.slices["b"].packs():
            with (tmp_path / "both" / "catalog" / "packs" / file_name(pack.number)).open("r+b") as file:
                file.seek(pack.offset)
                file.write(bytes(pack.size))
        with edged.open(tmp_path / "both") as replica:
            view = replica["catalog"].view()
            assert list(view.broken) == ["b"]
            assert list(view.of_slices(frozenset({"core"})).keys("titles"))
            with pytest.raises(DamageError):
                list(view.keys("titles"))
            with pytest.raises(DamageError):
                list(view.of_slices(frozenset({"b"})).keys("titles"))


@pytest.mark.trio
async def test_what_was_made_for_one_scope_stays_while_others_ask(tmp_path: Path) -> None:
    with rooms(tmp_path) as (both, _):
        view = both.dataset.view()
        part = view.of_slices(frozenset({"core"}))
        assert part is view.of_slices(frozenset({"core"}))
        renderer, dictionaries = both.service.renderer, both.service.dictionaries
        looks = [renderer.look_of(one, "titles", False, None) for one in (view, part, view, part)]
        assert looks[:2] == looks[2:]
        assert looks[0] != looks[1]
        trained = [dictionaries.of(one, "titles") for one in (view, part, view, part)]
        assert trained[0] is trained[2]
        assert trained[1] is trained[3]
        assert trained[0] is not None
        ages = [both.service.age_of(one) for one in (view, part, view, part)]
        assert ages[0] is ages[2]
        assert ages[1] is ages[3]


@pytest.mark.trio
async def test_an_answer_of_a_part_is_not_renewed(tmp_path: Path) -> None:
    """It may be in another slice at the next version, and would be the same record."""
    with rooms(tmp_path) as (both, _):
        name, key = next(iter(both.publisher.slices["core"]))
        target = f"/v1/catalog/{name}/{quote(key)}"
        part, whole = (cast(Response, both.any(who, target)) for who in ("part", "whole"))
        assert (part.content, part.shared.renewal) == (0, None)
        assert whole.content
        assert whole.shared.renewal is not None
