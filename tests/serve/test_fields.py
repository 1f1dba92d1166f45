"""Names in `fields` that no record has: answered, and told of, the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cbor2
import msgspec
import pytest

import edged
from edged.feed.schema import CollectionSchema, Schema, ViewRule
from edged.http.application import InThread, Response
from edged.http.request import Request
from edged.replica.layers import fieldpaths
from edged.replica.layers.fieldpaths import paths_in
from edged.replica.reader import Dataset
from edged.replica.writer import Writer
from edged.serve.answers.respond import Service
from edged.serve.answers.routes import answer
from tests.replica.feeds import Publisher
from tests.serve.asking import field_of, make_service
from tests.serve.memory import NOW

SCHEMA = Schema(
    {"titles": CollectionSchema(("year",)), "rows": CollectionSchema(refs={"items": "titles"})},
    {
        "tv": {
            "titles": ViewRule(
                ("title", "poster", "about.short"), choose={"poster": ("big", "small")}, rename={"about.short": "text"}
            ),
            "rows": ViewRule(expand=("items",), rename={"items": "cards"}),
        }
    },
)
TITLES: dict[str, dict[str, Any]] = {
    f"t{n}": {"title": f"Title {n}", "poster": {"big": "b", "small": "s"}, "about": {"short": "x", "long": "y"}}
    for n in range(200)
}
TITLES["t7"]["late"] = [{"deep": [1]}, 5]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    root = tmp_path_factory.mktemp("fields")
    records = {("titles", key): cbor2.dumps(value, canonical=True) for key, value in TITLES.items()}
    records["rows", "r"] = cbor2.dumps({"name": "R", "items": ["t1"]}, canonical=True)
    publisher = Publisher({"core": records})
    with Writer.open(root, "catalog") as writer:
        publisher.snapshot_into(writer, schema=SCHEMA)
        publisher.version += 1
        with writer.stage() as staging:
            edited = {("titles", "new"): cbor2.dumps({"fresh": True})}
            staging.apply_changes("core", publisher.version, publisher.apply("core", edited))
            staging.commit(publisher.version, b"head", as_of=int(NOW), fresh_s=1, expires_s=1)
    with edged.open(root) as replica:
        yield replica["catalog"]


@pytest.fixture
def service(dataset: Dataset) -> Service:
    """Which has looked at no record yet."""
    dataset.view().layers[0].pool.paths.clear()
    return make_service({"catalog": dataset})


def request(path: str, accept: str = "application/json") -> Request:
    return Request("GET", f"/v1/catalog/{path}".encode(), ((b"host", b"localhost"), (b"accept", accept.encode())))


def get(service: Service, path: str, accept: str = "application/json") -> Response:
    found = answer(service, request(path, accept), NOW, in_thread=True)
    assert isinstance(found, Response)
    assert found.status == 200, found.body
    return found


@pytest.mark.parametrize(
    ("query", "lost"),
    [
        ("fields=title", ""),
        ("fields=title,titel", "titel"),
        ("fields=poster.big,poster.huge", "poster.huge"),
        ("fields=late.deep", ""),
        ("fields=late.deep.er,fresh", "late.deep.er"),
        ("fields=x%C3%A9,y", "x%C3%A9, y"),
        ("fields=title,text,poster&view=tv", ""),
        ("fields=poster.anything&view=tv", ""),  # the choice decides
        ("fields=about.short,about.long,late&view=tv", "about.short, about.long, late"),
        ("fields=text.more&view=tv", "text.more"),
    ],
)
def test_a_name_that_no_record_has_is_told_of(service: Service, query: str, lost: str) -> None:
    within = " in view tv" if "view=tv" in query else ""  # which may be what lacks it
    warning = f"fields: no record of titles{within} has {lost}" if lost else None
    for path in (f"titles/t1?{query}", f"titles?keys=t1,none&{query}", f"titles?limit=2&{query}"):
        for accept in ("application/json", "application/cbor"):
            found = get(service, path, accept)
            assert field_of(found, "edged-warning") == warning, (path, accept)
            if "/t1" not in path:
                json = accept.endswith("json")
                page = msgspec.json.decode(found.body) if json else cbor2.loads(found.body)
                assert page.get("warnings") == ([warning] if warning else None)
                assert json or cbor2.dumps(page, canonical=True) == found.body
    assert field_of(get(service, f"titles?{query}", "application/x-ndjson"), "edged-warning") == warning


@pytest.mark.parametrize(
    ("query", "lost"),
    [
        ("fields=name,cards.key,cards.value.text&view=tv", ""),
        ("fields=cards.value.titel&view=tv", "cards.value.titel"),
        ("fields=items.value.title&expand=items", ""),
        ("fields=items.value.text&expand=items", "items.value.text"),
    ],
)
def test_names_below_what_is_expanded_are_looked_for_there(service: Service, query: str, lost: str) -> None:
    found = field_of(get(service, f"rows/r?{query}"), "edged-warning")
    within = " in view tv" if "view=tv" in query else ""
    assert found == (f"fields: no record of rows{within} has {lost}" if lost else None)


def test_what_takes_a_look_at_every_record_is_left_to_a_thread_once(service: Service) -> None:
    asked = request("titles/t1?fields=title,never")
    first = answer(service, asked, NOW)
    assert isinstance(first, InThread)
    made, again = first.work(), answer(service, asked, NOW)
    assert isinstance(made, Response)
    assert isinstance(again, Response)
    assert made.fields == again.fields
    assert field_of(again, "edged-warning") == "fields: no record of titles has never"


def test_where_names_are_data_any_may_be_there(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fieldpaths, "MOST_PATHS", 3)
    assert field_of(get(service, "titles/t1?fields=never"), "edged-warning") is None


def test_paths_go_through_lists_and_objects() -> None:
    value = {"a": {"b": [{"c": 1}, [{"d": {}}]]}, "e.f": {"g": None}}
    assert sorted(set(paths_in(value, ""))) == ["a", "a.b", "a.b.c", "a.b.d", "e.f", "e.f.g"]
    assert list(paths_in(5, "")) == []
