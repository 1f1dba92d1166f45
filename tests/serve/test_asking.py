"""Questions over HTTP: the words of a URL, against what a look at every record says, in every format."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import cbor2
import msgspec
import pytest

import edged
from edged.feed.schema import CollectionSchema, Schema
from edged.replica.layers.asked import MAX_FIELDS, MAX_VALUES, Asked
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from edged.serve.answers.lists import MAX_GROUPED
from edged.serve.answers.respond import Service
from tests.replica.feeds import Publisher, Records
from tests.serve.asking import ask, ask_json, field_of, make_service
from tests.serve.memory import NOW, MemoryDataset

GUIDE = "/v1/tv/guide"
SCHEMA = Schema(
    {
        "guide": CollectionSchema(
            ("channel", "genres"), ("title", "about"), order=("year", "start", "title"), interval=("start", "end")
        ),
        "people": CollectionSchema(),
    }
)
BEGIN = int(NOW) - 9000
WORDS = ["River", "Night", "Garden", "Señor", "Letter", "O'Brien"]


def programme(number: int, chance: random.Random) -> dict[str, Any]:
    start = BEGIN + chance.randrange(48) * 1800
    record: dict[str, Any] = {
        "title": " ".join(chance.choices(WORDS, k=2)),
        "about": " ".join(chance.choices(WORDS, k=4)),
        "channel": chance.choice([1, 2, "two", "three", "a&b,c", True]),
        "genres": chance.sample(["Drama", "Crime", "News"], chance.randint(0, 2)),
        "year": chance.choice([1990 + number % 20, 1990 + number % 20, str(number), None]),
        "start": start,
        "end": start + chance.choice([1800, 3600]),
    }
    if chance.random() < 0.2:
        record.pop(chance.choice(list(record)))
    return record


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Service]]:
    """The same records in a replica of several layers and slices, and in memory."""
    chance = random.Random(5)
    records: Records = {
        ("guide", f"k{number:03}"): cbor2.dumps(programme(number, chance), canonical=True) for number in range(150)
    }
    records["people", "p"] = cbor2.dumps({"name": "Ann"})
    part = {name: value for name, value in records.items() if chance.random() < 0.3}
    publisher = Publisher({"core": records, "kids": part})
    root = tmp_path_factory.mktemp("asking")
    with Writer.open(root, "tv") as writer:
        publisher.snapshot_into(writer, schema=SCHEMA)
        for step in range(3):
            publisher.version += 1
            with writer.stage() as staging:
                for name in publisher.slices:
                    keys = sorted(key for key in publisher.slices[name] if key[0] == "guide")
                    changes = {
                        ("guide", f"k{number:03}"): cbor2.dumps(
                            programme(number, random.Random(f"{step} {number}")), canonical=True
                        )
                        for number in range(step, 160, 23)
                        if name == "core" or ("guide", f"k{number:03}") in publisher.slices["kids"]
                    }
                    edits: dict[tuple[str, str], bytes | None] = {**changes}
                    if name == "core":
                        edits["guide", "k050"] = (
                            None if ("guide", "k050") in keys else changes.get(("guide", "k050"), b"\xa0")
                        )
                    staging.apply_changes(name, publisher.version, publisher.apply(name, edits))
                staging.commit(publisher.version, b"head", as_of=BEGIN, fresh_s=1, expires_s=1)
            if step == 1:
                writer.compact(policy=MergePolicy(fresh_packs=0, least_bytes=1 << 40))
    with edged.open(root) as replica:
        view = replica["tv"].view()
        memory = MemoryDataset("tv", version=view.version, schema=SCHEMA)
        for collection in view.collections:
            memory.records[collection] = dict(view.scan(collection))
        catalog = {"tv": replica["tv"]}
        yield (
            make_service(catalog),
            make_service({"tv": memory}),
        )


@pytest.fixture
def service(both: tuple[Service, Service]) -> Service:
    return both[0]


def keys(service: Service, query: str) -> list[str]:
    return [item["key"] for item in ask_json(service, f"{GUIDE}?{query}")["items"]]


def records(service: Service) -> dict[str, Any]:
    return {item["key"]: item["value"] for item in ask_json(service, f"{GUIDE}?limit=1000")["items"]}


def asked(chance: random.Random) -> list[tuple[str, str]]:
    """A question of some words, most of which mean something."""
    number = str(chance.randint(1985, 2015))
    moment = str(BEGIN + chance.randrange(90_000))
    some = [
        [("where.channel", one) for one in chance.sample(["1", "2", '"1"', "two", "true", "a&b,c", "none"], 2)],
        [("where.genres", chance.choice(["Drama", "News", "none"]))],
        [(f"where.year.{chance.choice(['gte', 'gt'])}", chance.choice([number, f'"{number}"', "1", '"1"', "null"]))],
        [(f"where.year.{chance.choice(['lte', 'lt'])}", chance.choice([number, "100.5", '"4"', "true", "-1"]))],
        [(f"where.start.{chance.choice(['gte', 'lt'])}", chance.choice(["now", moment, "2027-01-15T12:00:00Z", "x"]))],
        [("order", chance.choice(["year", "-year", "start", "-title", "channel"]))],
        [("at", chance.choice(["now", moment, "2027-01-15T10:30:00+01:00", "soon"]))],
        [("from", moment), ("to", chance.choice(["now", str(int(moment) + 7200)]))],
        [("group", chance.choice(["channel", "genres", "year"]))],
        [("distinct", chance.choice(["channel", "genres", "start"]))],
        [("count", "1"), ("facets", chance.choice(["channel", "genres,channel", "about"]))],
        [("limit", chance.choice(["1", "3", "1000"]))],
        [("q", chance.choice(["river", "obrien n", "senor garden", "'", "x"]))],
    ]
    return [pair for part in chance.sample(some, chance.randint(1, 6)) for pair in part]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_asked_is_answered_as_a_look_at_every_record_does(both: tuple[Service, Service], seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(10):
        words = asked(chance)
        found, wanted = (ask(service, f"{GUIDE}?{urlencode(words)}") for service in both)
        assert found.status == wanted.status, (words, found.body, wanted.body)
        assert found.status in (200, 400), (words, found.body)
        if found.status == 400:
            assert found.body == wanted.body
            continue
        ours, theirs = msgspec.json.decode(found.body), msgspec.json.decode(wanted.body)
        named = dict(words)
        if "q" in named and "order" not in named:  # in memory the best are others: only which they are is compared
            assert ours.get("total") == theirs.get("total")
            assert ours.get("facets") == theirs.get("facets")
        else:
            assert ours == theirs, words


def test_every_page_of_every_question_is_there_once(service: Service) -> None:
    for query in (
        "order=-year", "order=year&where.genres=Drama&where.genres=Crime", "from=now&order=start", "q=river",
        "q=river&from=now", "q=river&order=-year&where.channel=1&where.channel=2", "order=-start&distinct=channel",
        "q=night&distinct=channel",
    ):  # fmt: skip
        whole = keys(service, f"{query}&limit=1000")
        assert len(whole) > 3, query
        seen: list[str] = []
        target = f"{GUIDE}?{query}&limit=2"
        while target:
            found = ask(service, target)
            page = msgspec.json.decode(found.body)
            seen += [item["key"] for item in page["items"]]
            link = field_of(found, "link")
            assert (link is None) == (page["next"] is None)
            assert link is None or quote(page["next"], safe="/~-._") in link
            target = "" if link is None else link[1 : link.index(">")]
        assert seen == whole, query


def test_any_of_several_values_and_all_of_several_fields(service: Service) -> None:
    every = records(service)
    wanted = [
        key
        for key, value in every.items()
        if value.get("channel") in (2, "two")
        and value.get("channel") is not True
        and "Drama" in value.get("genres", ())
    ]
    assert keys(service, "where.channel=2&where.channel=two&where.genres=Drama&limit=1000") == wanted != []


def test_now_is_the_clock_and_its_answer_is_not_remembered(service: Service) -> None:
    now = int(NOW)
    wanted = [
        key
        for key, value in records(service).items()
        if "start" in value and value["start"] <= now < value.get("end", now + 1)
    ]
    assert keys(service, "at=now&limit=1000") == keys(service, f"at={now}&limit=1000") == wanted != []
    assert not ask(service, f"{GUIDE}?at=now").keep
    assert not ask(service, f"{GUIDE}?where.start.gte=now").keep
    assert ask(service, f"{GUIDE}?at={now}").keep
    one, other = (ask(service, f"{GUIDE}?at=now&limit=1000", now=time) for time in (now, now + 1800))
    assert one.body != other.body


@pytest.mark.parametrize("sign", ["+", "%2B"])
def test_an_offset_may_have_its_plus_as_it_is(service: Service, sign: str) -> None:
    assert keys(service, f"at=2027-01-15T07:00:00{sign}01:00") == keys(service, "at=2027-01-15T06:00:00Z") != []


@pytest.mark.parametrize(
    ("end", "seconds"),
    [
        ("1800", 1800),
        ("1800.0", 1800),
        ("1800.5", 1801),
        ("-5.5", -5),
        ("1970-01-01T00:30:00Z", 1800),
        ("1970-01-01T00:30:00.001Z", 1801),
        ("1970-01-01T01:30:00.000+01:00", 1800),
        ("now", 7200),
    ],
)
def test_what_begins_within_the_second_of_a_fraction_is_before_it(end: str, seconds: int) -> None:
    assert Asked(begin="-9.5", end=end).during(7200.5) == (-10, seconds)


def test_groups_name_their_value_and_limit_counts_within_each(service: Service) -> None:
    found = ask_json(service, f"{GUIDE}?group=channel&order=start&limit=2&where.channel=two&where.channel=1&count=1")
    assert [item["group"] for item in found["items"]] == ["two", "two", 1, 1]
    assert found["items"][0]["key"] == keys(service, "where.channel=two&order=start&limit=1")[0]
    assert found["total"] == len(keys(service, "where.channel=two&where.channel=1&limit=1000"))
    packed = cbor2.loads(ask(service, f"{GUIDE}?group=channel&limit=1", {"Accept": "application/cbor"}).body)
    assert packed["items"] == ask_json(service, f"{GUIDE}?group=channel&limit=1")["items"]
    raw = ask(service, f"{GUIDE}?group=channel&limit=1", {"Accept": "application/cbor-seq"}).body
    assert raw == b"".join(cbor2.dumps(item, canonical=True) for item in packed["items"])


def test_every_format_answers_alike(service: Service) -> None:
    query = f"{GUIDE}?where.year.gte=1995&order=-year&count=1&limit=4"
    whole = ask(service, query)
    page = msgspec.json.decode(whole.body)
    assert field_of(whole, "edged-total") == str(page["total"])
    assert page["total"] > 4
    for media, read in (
        ("application/cbor", lambda body: cbor2.loads(body)["items"]),
        ("application/x-ndjson", lambda body: [msgspec.json.decode(line) for line in body.splitlines()]),
        ("application/cbor-seq", lambda body: [cbor2.loads(b"\x84" + body)][0]),
    ):
        found = ask(service, query, {"Accept": media})
        assert read(found.body) == page["items"], media
        assert field_of(found, "edged-total") == str(page["total"])
        assert field_of(found, "link") == field_of(whole, "link")
    packed = ask(service, f"{query}&facets=genres", {"Accept": "application/cbor"}).body
    assert cbor2.dumps(cbor2.loads(packed), canonical=True) == packed
    assert cbor2.loads(packed) == ask_json(service, f"{query}&facets=genres")
    refused = ask(service, f"{query}&facets=genres", {"Accept": "application/x-ndjson"})
    assert refused.status == 400
    assert b"application/json" in refused.body


def test_facets_count_values_as_text_the_most_frequent_first(service: Service) -> None:
    every = records(service)
    found = ask_json(service, f"{GUIDE}?facets=channel&limit=1")
    assert "total" not in found
    counts: dict[str, int] = {}
    for value in every.values():
        if "channel" in value:
            name = value["channel"]
            name = name if isinstance(name, str) else msgspec.json.encode(name).decode()
            counts[name] = counts.get(name, 0) + 1
    assert found["facets"]["channel"] == counts
    numbers = list(found["facets"]["channel"].values())
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("where.title=x", "guide has no index on title, only on channel, genres; declare it in tv.toml"),
        ("where.channel.gte=x", "where.channel.gte: guide has no order on channel, only on year, start, title"),
        ("where.start.gte=true", "start holds numbers"),
        ("where.year.gte=1&where.year.lt=%22x%22", "two kinds"),
        ("where.year.gte=1&where.year.gte=2", "is given 2 times"),
        ("order=channel", "order=channel: guide has no order on channel, only on year, start, title"),
        ("order=-", "expected a field"),
        ("group=year", "group=year: guide has no index on year"),
        ("distinct=year", "distinct=year: guide has no index on year"),
        ("facets=year", "facets=year: guide has no index on year"),
        ("facets=", "expected a field"),
        ("facets=" + ",".join("abcdefghi"), "1 to 8"),
        ("count=2", "from 0 to 1"),
        ("at=soon", "at='soon': expected seconds since 1970"),
        ("at=", "expected seconds since 1970"),
        ("at=99999999999999999999", "expected seconds"),
        ("at=1&from=2", "at does not go together"),
        ("from=2&to=2", "nothing lies between"),
        ("order=year&after=k001", "expected the `next` of the page before"),
        ("group=channel&after=%C3%A9", "expected the `next`"),
        ("group=channel&after=k001", "expected the `next`"),
        ("order=year&after=zz~k001", "expected the `next`"),
        ("prefix=k&order=year", "prefix and order do not go together"),
        ("keys=k001&at=now", "keys and at do not go together"),
        ("keys=k001&where.channel=1", "keys and where.FIELD"),
        ("order=year&order=start", "given twice"),
        ("&".join(f"where.f{n}=1" for n in range(MAX_FIELDS + 1)), "more than 8 where conditions"),
        ("&".join("where.channel=1" for n in range(MAX_VALUES + 1)), "more than 500 values"),
    ],
)
def test_a_wrong_question_is_told_what_would_do(service: Service, query: str, words: str) -> None:
    found = ask(service, f"{GUIDE}?{query}")
    assert found.status == 400
    assert words in msgspec.json.decode(found.body)["detail"]


def test_as_much_as_is_allowed_is_answered(service: Service) -> None:
    assert keys(service, "&".join("where.channel=1" for _ in range(MAX_VALUES))) == keys(service, "where.channel=1")
    assert keys(service, "&".join("where.genres=Drama" for _ in range(2))) == keys(service, "where.genres=Drama")
    for name, what in (("people", "declares no interval"), ("people?order=name", "only on nothing")):
        query = name if "?" in name else f"{name}?at=now"
        assert what in msgspec.json.decode(ask(service, f"/v1/tv/{query}").body)["detail"]


def test_a_page_of_groups_ends_with_a_whole_group_and_the_next_goes_on() -> None:
    dataset = MemoryDataset("tv", schema=SCHEMA)
    each = MAX_GROUPED // 2
    dataset.publish("guide", {f"{n:05}": {"channel": n % 3} for n in range(3 * each)})
    service = make_service({"tv": dataset})
    first = ask_json(service, f"{GUIDE}?group=channel&limit=1000")
    assert [item["group"] for item in first["items"]] == [0] * each + [1] * each
    second = ask_json(service, f"{GUIDE}?group=channel&limit=1000&after={quote(first['next'])}")
    assert [item["group"] for item in second["items"]] == [2] * each
    assert second["next"] is None
    dataset.publish("guide", {"more": {"channel": 1}})
    cut = ask_json(service, f"{GUIDE}?group=channel&limit=1000")
    assert [item["group"] for item in cut["items"]] == [0] * each


def test_a_cursor_holds_over_versions(tmp_path: Path) -> None:
    dataset = MemoryDataset("tv", schema=SCHEMA)
    dataset.publish("guide", {f"{n:02}": {"year": n // 3} for n in range(12)})
    service = make_service({"tv": dataset})
    first = ask_json(service, f"{GUIDE}?order=-year&limit=4")
    assert [item["key"] for item in first["items"]] == ["09", "10", "11", "06"]
    dataset.publish("guide", {"06": None, "99": {"year": 9}, "065": {"year": 2}})
    second = ask_json(service, f"{GUIDE}?order=-year&limit=4&after={quote(first['next'])}")
    assert [item["key"] for item in second["items"]] == ["065", "07", "08", "03"]
