"""Records in the place of the keys that refer to them: a screen in one request, and told when a part of it changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest

import edged
from edged.errors import QueryError
from edged.feed.references import MAX_KEYS
from edged.feed.schema import CollectionSchema, Schema, ViewRule
from edged.http.application import ByTask, InThread, Response, Stream
from edged.http.request import Request
from edged.replica.reader import Replica
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from edged.serve.answers import render
from edged.serve.answers.respond import Service
from edged.serve.answers.routes import answer
from edged.serve.apps import Api
from tests.replica.feeds import Publisher
from tests.serve.asking import ask, field_of, make_service
from tests.serve.memory import NOW, MemoryDataset

SCHEMA = Schema(
    {
        "rows": CollectionSchema(("kind",), refs={"items": "titles", "promo.title": "titles"}),
        "titles": CollectionSchema(("year",), ("name",), refs={"cast": "people", "similar": "titles"}),
        "people": CollectionSchema(),
        "loose": CollectionSchema(),
    },
    {
        "tv": {
            "rows": ViewRule(("name", "items"), rename={"items": "cards"}, expand=("items",), limit={"items": 3}),
            "titles": ViewRule(("name", "poster"), choose={"poster": ("big", "small")}),
        },
        "deep": {"rows": ViewRule(expand=("items.cast",))},
    },
)
ROWS: dict[str, Any] = {
    "new": {
        "name": "New",
        "kind": "a",
        "items": ["t1", "t2", "gone", "t3", "t4"],
        "promo": [{"title": "t4"}, {"title": 7}],
    },
    "old": {"name": "Old", "kind": "b", "items": "t5"},
    "odd": {"name": "Odd", "kind": "b", "items": [["t1"], None, {"x": 1}], "promo": "t1"},
    "none": {"name": "None", "kind": "b"},
}
TITLES: dict[str, Any] = {
    f"t{n}": {
        "name": f"Title {n}",
        "year": 1990 + n,
        "cast": [f"p{n}", "p0"],
        "similar": ["t1"],
        "poster": {"big": f"{n}.jpg"},
    }
    for n in range(1, 6)
}
PEOPLE = {f"p{n}": {"name": f"Person {n}"} for n in range(3)}


def publish(
    publisher: Publisher, writer: Writer, edits: dict[tuple[str, str], Any], hidden: Sequence[tuple[str, str]] = ()
) -> int:
    """One version more."""
    publisher.version += 1
    changes = {name: None if value is None else cbor2.dumps(value, canonical=True) for name, value in edits.items()}
    with writer.stage() as staging:
        staging.apply_changes("core", publisher.version, publisher.apply("core", changes))
        if hidden:
            staging.set_takedowns(b"list", list(hidden))
        staging.commit(publisher.version, b"head", as_of=int(NOW), fresh_s=1, expires_s=1)
    return publisher.version


class Feed:
    """A replica of rows, titles and people, and what serves it."""

    def __init__(self, root: Path) -> None:
        records = {
            (collection, key): cbor2.dumps(value, canonical=True)
            for collection, held in (("rows", ROWS), ("titles", TITLES), ("people", PEOPLE), ("loose", {"x": {}}))
            for key, value in held.items()
        }
        self.publisher = Publisher({"core": records})
        self.writer = Writer.open(root, "catalog")
        self.publisher.snapshot_into(self.writer, schema=SCHEMA)
        self.replica: Replica = edged.open(root)
        self.service = make_service({"catalog": self.replica["catalog"]})

    def publish(self, edits: dict[tuple[str, str], Any], hidden: Sequence[tuple[str, str]] = ()) -> int:
        return publish(self.publisher, self.writer, edits, hidden)

    def ask(self, path: str, accept: str = "application/json") -> Response:
        found = answer(self.service, request(path, accept), NOW, in_thread=True)
        assert isinstance(found, Response)
        return found

    def json(self, path: str) -> Any:
        found = self.ask(path)
        assert found.status == 200, found.body
        return msgspec.json.decode(found.body)

    def changed(self, query: str) -> list[tuple[str, str, int]]:
        found = self.ask(f"changes?{query}", "application/x-ndjson")
        assert found.status == 200, found.body
        lines = [msgspec.json.decode(line) for line in found.body.splitlines()]
        return [(line["collection"], line["key"], line["version"]) for line in lines]


def request(path: str, accept: str = "application/json") -> Request:
    return Request("GET", f"/v1/catalog/{path}".encode(), ((b"host", b"localhost"), (b"accept", accept.encode())))


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    found = Feed(tmp_path)
    yield found
    found.replica.close()
    found.writer.close()


def test_a_record_that_is_not_there_is_null_whatever_fields_name_below_it(feed: Feed) -> None:
    found = feed.json("rows/new?expand=items&fields=items.key,items.value.name")
    assert found["items"][1:3] == [{"key": "t2", "value": {"name": "Title 2"}}, {"key": "gone", "value": None}]
    page = feed.json("rows?keys=new&expand=items&fields=items.value.name")
    assert page["items"][0]["value"]["items"][2] == {"value": None}


def test_records_come_in_the_place_of_their_keys_through_lists(feed: Feed) -> None:
    found = feed.json("rows/new?expand=items,promo.title")
    assert found["name"] == "New"
    assert [item["key"] for item in found["items"]] == ROWS["new"]["items"]
    assert [item["value"] for item in found["items"]] == [TITLES.get(key) for key in ROWS["new"]["items"]]
    assert found["promo"] == [{"title": {"key": "t4", "value": TITLES["t4"]}}, {"title": 7}]
    assert feed.json("rows/old?expand=items")["items"] == {"key": "t5", "value": TITLES["t5"]}
    assert feed.json("rows/odd?expand=items,promo.title") == {
        **ROWS["odd"],
        "items": [[{"key": "t1", "value": TITLES["t1"]}], None, {"x": 1}],
    }
    assert feed.json("rows/none?expand=items") == ROWS["none"]


def test_a_second_level_is_named_by_its_path_and_a_third_is_refused(feed: Feed) -> None:
    found = feed.json("rows/old?expand=items.cast,items.similar")["items"]["value"]
    assert found["cast"] == [{"key": "p5", "value": None}, {"key": "p0", "value": PEOPLE["p0"]}]
    assert found["similar"] == [{"key": "t1", "value": TITLES["t1"]}]  # whose own stay keys
    refused = feed.ask("rows/old?expand=items.similar.cast")
    assert refused.status == 400
    assert b"further than 2 levels" in refused.body


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("rows?expand=name", "expand=name: rows declares no reference there, only at items, promo.title"),
        ("rows?expand=items.name", "expand=name: titles declares no reference there, only at cast, similar"),
        ("rows?expand=item", "declares no reference"),
        ("people?expand=cast", "only at nothing; declare it in collections.people.refs"),
        ("rows?expand=", "expected a field"),
        ("rows?expand=a,b,c,d,e,f,g,h,i", "1 to 8"),
        ("changes?since=1&expand=name", "no collection declares such a reference"),
    ],
)
def test_what_is_no_reference_names_those_there_are(feed: Feed, path: str, words: str) -> None:
    found = feed.ask(path)
    assert found.status == 400
    assert words in msgspec.json.decode(found.body)["detail"]


def test_a_view_declares_a_screen(feed: Feed) -> None:
    found = feed.json("rows?keys=old,new,missing&view=tv")["items"]
    cards = [
        {"key": key, "value": TITLES.get(key) and {"name": f"Title {key[1]}", "poster": f"{key[1]}.jpg"}}
        for key in ("t1", "t2", "gone")
    ]
    assert found == [
        {
            "key": "old",
            "value": {"name": "Old", "cards": {"key": "t5", "value": {"name": "Title 5", "poster": "5.jpg"}}},
        },
        {"key": "new", "value": {"name": "New", "cards": cards}},
        {"key": "missing", "value": None},
    ]
    assert feed.json("rows/new?view=tv&fields=cards.value.name")["cards"] == [
        {"value": {"name": "Title 1"}}, {"value": {"name": "Title 2"}}, {"value": None}
    ]  # fmt: skip
    cast = feed.json("rows/old?view=deep")["items"]["value"]["cast"]
    assert cast[1] == {"key": "p0", "value": PEOPLE["p0"]}


@pytest.mark.parametrize(
    "query", ["keys=new,old&view=tv", "where.kind=a&expand=items.cast", "limit=2&expand=items&fields=items.key"]
)
def test_every_format_expands_alike(feed: Feed, query: str) -> None:
    wanted = feed.json(f"rows?{query}")["items"]
    packed = feed.ask(f"rows?{query}", "application/cbor").body
    assert cbor2.loads(packed)["items"] == wanted
    assert cbor2.dumps(cbor2.loads(packed), canonical=True) == packed
    lines = feed.ask(f"rows?{query}", "application/x-ndjson").body.splitlines()
    assert [msgspec.json.decode(line) for line in lines] == wanted
    assert feed.ask(f"rows?{query}", "application/cbor-seq").body == b"".join(
        cbor2.dumps(item, canonical=True) for item in wanted
    )
    one = feed.json("rows/new?view=tv")
    assert cbor2.loads(feed.ask("rows/new?view=tv", "application/cbor").body) == one


def test_missing_deleted_and_taken_down_look_alike(feed: Feed) -> None:
    feed.publish({("titles", "t2"): None}, [("titles", "t3")])
    found = feed.json("rows/new?expand=items")["items"]
    assert [item["value"] is None for item in found] == [False, True, True, True, False]
    assert {frozenset(item) for item in found} == {frozenset({"key", "value"})}


def test_what_takes_milliseconds_is_left_to_a_thread(feed: Feed) -> None:
    for path in ("rows?keys=new&view=tv", "rows/new?view=tv", "rows/new?view=tv&fields=name"):
        found = answer(feed.service, request(path), NOW)
        assert isinstance(found, InThread), path
        made = found.work()
        assert isinstance(made, Response)
        assert made.body == feed.ask(path).body
        assert made.keep
    for path in ("rows?keys=new", "titles/t1?view=tv", "rows?keys=new&fields=name"):
        assert isinstance(answer(feed.service, request(path), NOW), Response)
    outer = Api(feed.service).answer(request("rows/new?expand=items"))
    assert isinstance(outer, InThread)
    assert isinstance(outer.work(), Response)


def test_a_row_changes_when_a_title_in_it_does(feed: Feed) -> None:
    version = feed.publish({("titles", "t4"): {"name": "Other"}})
    for query in ("", "&view=tv", "&expand=items"):
        assert feed.changed(f"since={version - 1}{query}") == [("rows", "new", version), ("titles", "t4", version)]
        assert feed.changed(f"since={version - 1}&collection=rows{query}") == [("rows", "new", version)]
    feed.writer.compact(policy=MergePolicy(fresh_packs=0, least_bytes=1 << 40))
    later = feed.publish({("titles", "t5"): None, ("rows", "old"): {"items": ["t1"]}})
    assert feed.changed(f"since={later - 1}") == [("rows", "old", later), ("titles", "t5", later)]
    again = feed.publish({("rows", "new"): None, ("titles", "t1"): {"name": "First", "similar": []}})
    assert feed.changed(f"since={again - 1}") == [
        ("rows", "new", again), ("rows", "odd", again), ("rows", "old", again),
        *(("titles", f"t{n}", again) for n in (1, 2, 3)),
    ]  # fmt: skip  # t4 and t5 have no similar any more; odd holds it in a list in a list
    hidden = feed.publish({}, [("titles", "t1")])
    assert ("rows", "old", hidden) in feed.changed(f"since={hidden - 1}")


def test_two_levels_are_followed_where_they_are_expanded(feed: Feed) -> None:
    version = feed.publish({("people", "p1"): {"name": "Renamed"}})
    assert feed.changed(f"since={version - 1}") == [("people", "p1", version), ("titles", "t1", version)]
    deep = feed.changed(f"since={version - 1}&view=deep")
    assert deep == [
        ("people", "p1", version),
        ("rows", "new", version),
        ("rows", "odd", version),
        ("titles", "t1", version),
    ]
    assert feed.changed(f"since={version - 1}&expand=items.cast") == deep


def test_the_events_of_a_screen_come_with_its_records(feed: Feed) -> None:
    version = feed.publish({("titles", "t5"): {"name": "Live"}})
    found = answer(
        feed.service,
        request(f"changes?since={version - 1}&collection=rows&view=tv", "text/event-stream"),
        NOW,
        in_thread=True,
    )
    assert isinstance(found, Stream)
    events = b"".join(found.pieces)
    assert b'"key":"old","value":{"name":"Old","cards":{"key":"t5","value":{"name":"Live"}}}' in events
    assert b"id: %d" % version in events


def test_at_most_so_many_keys_of_a_record_are_expanded_and_the_others_stay(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.publish({("rows", "long"): {"items": ["t1"] * (MAX_KEYS + 1)}})
    found = feed.json("rows/long?expand=items")["items"]
    assert [isinstance(item, dict) for item in found] == [True] * MAX_KEYS + [False]
    assert found[-1] == "t1"
    size = len(msgspec.json.encode({"key": "t1", "value": TITLES["t1"]}))
    monkeypatch.setattr(render, "EXPANDED_BYTES", 2 * size)
    feed.publish({("rows", "long"): {"items": ["t1", "t1", "t2", "t1"]}})
    assert [isinstance(item, dict) for item in feed.json("rows/long?expand=items")["items"]] == [
        True,
        True,
        False,
        False,
    ]


def test_a_screen_is_made_anew_when_a_title_of_it_changes(feed: Feed) -> None:
    before = feed.ask("rows?keys=old&view=tv")
    assert before.keep
    assert field_of(feed.ask("rows?keys=old&view=tv"), "etag") == field_of(before, "etag")
    feed.publish({("titles", "t5"): {"name": "Other"}})
    after = feed.ask("rows?keys=old&view=tv")
    assert b"Other" in after.body
    assert field_of(after, "etag") != field_of(before, "etag")


def test_the_embedded_api_expands_alike(feed: Feed) -> None:
    rows = feed.replica["catalog"]["rows"]
    wanted = feed.json("rows/new?expand=items,promo.title")
    assert rows.get("new", expand="items,promo.title") == wanted
    assert rows.get("missing", 5, expand="items") == 5
    assert rows.get_many(["new", "missing"], expand=["items", "promo.title"]) == [wanted, None]
    assert dict(rows.items(expand=("items", "promo.title")))["new"] == wanted
    assert dict(rows.where(kind="a", expand="items,promo.title")) == {"new": wanted}
    assert rows.groups("kind", kind="a", expand="items,promo.title") == {"a": [("new", wanted)]}
    people = feed.replica["catalog"]["titles"].search("title 1", expand="cast")
    assert people[0][1]["cast"] == [{"key": "p1", "value": PEOPLE["p1"]}, {"key": "p0", "value": PEOPLE["p0"]}]
    with pytest.raises(QueryError, match=r"only at items, promo\.title"):
        rows.get("new", expand="cast")


def test_a_dataset_says_what_refers_to_what(feed: Feed) -> None:
    found = msgspec.json.decode(ask(feed.service, "/v1/catalog").body)
    assert found["refs"] == {
        "rows": {"items": "titles", "promo.title": "titles"},
        "titles": {"cast": "people", "similar": "titles"},
    }


def test_a_page_that_would_be_too_large_with_its_records_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = MemoryDataset("catalog", schema=SCHEMA)
    dataset.publish("titles", {"t1": {"name": "x" * 1000}})
    dataset.publish("rows", {f"r{n}": {"items": ["t1"] * 10} for n in range(10)})
    service: Service = make_service({"catalog": dataset})
    whole = answer(service, request("rows?expand=items"), NOW, in_thread=True)
    assert isinstance(whole, Response)
    size = sum(len(msgspec.json.encode(item)) for item in msgspec.json.decode(whole.body)["items"])
    monkeypatch.setattr("edged.serve.answers.large.WHOLE_BYTES", 1000)
    monkeypatch.setattr("edged.serve.answers.lists.MAX_ANSWER_BYTES", size)
    exactly = answer(service, request("rows?expand=items"), NOW, in_thread=True)
    assert isinstance(exactly, InThread)
    assert isinstance(exactly.work(), ByTask)
    monkeypatch.setattr("edged.serve.answers.lists.MAX_ANSWER_BYTES", size - 1)
    beyond = answer(service, request("rows?expand=items"), NOW, in_thread=True)
    assert isinstance(beyond, InThread)
    refused = beyond.work()
    assert isinstance(refused, Response)
    assert refused.status == 400
    assert b"ask for fewer" in refused.body
