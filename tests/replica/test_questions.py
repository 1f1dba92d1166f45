"""Questions by ordered and interval indexes, against what a look at every record says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import edged
from edged.errors import QueryError
from edged.feed import cbor
from edged.feed.schema import CollectionSchema, Schema
from edged.replica.indexes import terms
from edged.replica.layers.question import Cursor, Question, read_cursor, span_between, write_cursor, write_term
from edged.replica.reader import Collection
from edged.replica.view import View
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from tests.replica.feeds import Publisher, Records

SCHEMA = Schema(
    {
        "guide": CollectionSchema(("channel", "genres"), ("title",), 5, ("year", "start"), ("start", "end")),
        "people": CollectionSchema(("name",)),
    }
)
ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    "1999",
    "",
    "zz",
    "é",
    -3,
    2.5,
    0,
    -0.0,
    1 << 53,
    (1 << 53) + 1,
    [7, 2000],
    [],
    {},
)


def programme(number: int, chance: random.Random) -> dict[str, Any]:
    start = 1_000_000 + chance.randrange(500) * 60
    record: dict[str, Any] = {
        "title": f"Programme {number}",
        "channel": f"c{chance.randrange(6)}",
        "genres": chance.sample(["Drama", "Comedy", "Noir", "News"], chance.randint(0, 3)),
        "year": chance.choice(ODD) if chance.random() < 0.3 else chance.randint(1990, 2005),
        "start": start,
        "end": start + chance.choice([60, 600, 3600]),
    }
    if chance.random() < 0.1:
        del record[chance.choice(["year", "end", "start", "channel"])]
    if chance.random() < 0.1 and "start" in record:
        record["start"] = datetime.fromtimestamp(record["start"], UTC).isoformat().replace("+00:00", "Z")
    return record


def guide(count: int, mark: str, seed: int) -> Records:
    chance = random.Random(seed)
    records: Records = {
        ("guide", f"{chance.randrange(10**6):06d}{mark}"): cbor.encode(programme(number, chance))
        for number in range(count)
    }
    records["people", "p1"] = cbor.encode({"name": "Ann"})
    return records


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[View, dict[str, Any]]]:
    """A view with base, middle and fresh packs in two slices, and the records that it holds."""
    root = tmp_path_factory.mktemp("questions")
    publisher = Publisher({"core": guide(260, "a", 1), "kids": guide(120, "b", 2)})
    chance = random.Random(3)
    with Writer.open(root, "catalog") as writer:
        publisher.snapshot_into(writer, schema=SCHEMA)
        for step in range(3):
            publisher.version += 1
            with writer.stage() as staging:
                for name, records in publisher.slices.items():
                    known = sorted(records)
                    changes: dict[tuple[str, str], bytes | None] = {
                        key: cbor.encode(programme(step, chance)) if key[0] == "guide" else records[key]
                        for key in chance.sample(known, 20)
                    }
                    changes[chance.choice([key for key in known if key[0] == "guide"])] = None
                    changes["guide", f"new{step}{name}"] = cbor.encode(programme(step, chance))
                    staging.apply_changes(name, publisher.version, publisher.apply(name, changes))
                if step == 2:
                    staging.set_takedowns(b"list", [min(publisher.slices["core"])])
                staging.commit(publisher.version, b"head", as_of=1, fresh_s=1, expires_s=1)
            if step == 1:
                writer.compact(policy=MergePolicy(fresh_packs=0, least_bytes=1 << 40))
    with edged.open(root) as opened:
        view = opened["catalog"].view()
        kinds = [(len(layers.base), len(layers.middle), len(layers.fresh)) for layers in view.layers]
        assert all(min(kind) >= 1 for kind in kinds), kinds
        yield view, {key: cbor.decode(value, "test") for key, value in view.scan("guide")}


def expected(
    records: dict[str, Any], keep: Callable[[Any], bool], field: str = "", *, falling: bool = False
) -> list[str]:
    found = [key for key in sorted(records) if keep(records[key])]
    if not field:
        return found
    placed = {key: terms.order_term_of(records[key], field, times=field in ("start", "end")) for key in found}
    first = sorted(
        (key for key in found if placed[key] is not None), key=lambda key: placed[key] or b"", reverse=falling
    )
    return first + [key for key in found if placed[key] is None]


def asked(view: View, question: Question, limit: int | None = None) -> list[str]:
    return [match.key for match in view.ask("guide", question, limit=limit)]


def holds(record: Any, begin: int, end: int) -> bool:
    span = terms.span_of(record, ("start", "end"))
    return span is not None and span[0] < end and span[1] > begin


def is_on(during: tuple[int, int], channel: str | None = None) -> Callable[[Any], bool]:
    return lambda record: holds(record, *during) and channel in (None, record.get("channel"))


YEARS = [{"gte": 1995}, {"gt": 1995}, {"lte": 1995}, {"lt": 1995}, {"gte": 1995, "lt": 1999}, {"gt": 2003, "lt": 1990}]


@pytest.mark.parametrize("order", ["", "year", "-year", "start", "-start"])
@pytest.mark.parametrize("bounds", [None, *YEARS, {"gte": "0"}, {"lt": True}, {"gte": -3, "lte": 2.5}])
@pytest.mark.parametrize("where", [{}, {"channel": "c1"}, {"channel": ("c1", "c2", "none"), "genres": "Drama"}])
def test_conditions_and_orders_answer_as_a_look_at_every_record_does(
    replica: tuple[View, dict[str, Any]], where: dict[str, Any], bounds: dict[str, Any] | None, order: str
) -> None:
    view, records = replica
    span = span_between("year", bounds) if bounds else None

    def keep(record: Any) -> bool:
        placed = terms.order_term_of(record, "year")
        return (span is None or (placed is not None and span.low <= placed < span.high)) and all(
            set(terms.wanted_terms(value)) & terms.record_terms(record, name) for name, value in where.items()
        )

    question = Question(where, {"year": bounds} if bounds else {}, order=order)
    wanted = expected(records, keep, question.order_field, falling=question.falling)
    assert asked(view, question) == wanted
    assert view.tally("guide", question).total == len(wanted)
    pages: list[str] = []
    after = None
    while True:  # by pages, each from the cursor of the one before
        found = list(view.ask("guide", question._replace(after=after), limit=7))
        pages += [match.key for match in found]
        if len(found) < 7:
            break
        after = found[-1].cursor(question)
    assert pages == wanted


@pytest.mark.parametrize("width", [1, 60, 3000, 10**7])
def test_what_is_on_at_a_time_or_within_some(replica: tuple[View, dict[str, Any]], width: int) -> None:
    view, records = replica
    for begin in (0, 999_999, 1_000_000, 1_000_059, 1_000_060, 1_015_000, 1_033_539, 1_033_540, 2_000_000):
        during = (begin, begin + width)
        wanted = expected(records, is_on(during))
        assert asked(view, Question(during=during)) == wanted, during
        one = expected(records, is_on(during, "c3"))
        assert asked(view, Question({"channel": "c3"}, during=during)) == one
        late = expected(records, is_on(during), "start")
        assert asked(view, Question(during=during, order="start")) == late


def test_an_interval_holds_its_first_second_and_not_its_last(replica: tuple[View, dict[str, Any]]) -> None:
    view, records = replica
    key, record = next(
        (key, record) for key, record in records.items() if type(record.get("start")) is int and record.get("end")
    )
    start, end = record["start"], record["end"]
    for at, there in ((start - 1, False), (start, True), (end - 1, True), (end, False)):
        assert (key in asked(view, Question(during=(at, at + 1)))) is there, at


def test_counts_by_value_groups_and_distinct(replica: tuple[View, dict[str, Any]]) -> None:
    view, records = replica
    question = Question({"channel": ("c1", "c2")}, {"year": {"gte": 1995}}, order="-start")
    among = {key: records[key] for key in asked(view, question)}
    tally = view.tally("guide", question, ["genres", "channel"])
    for field in ("genres", "channel"):
        counts: dict[bytes, int] = {}
        for record in among.values():
            for term in terms.record_terms(record, field):
                counts[term] = counts.get(term, 0) + 1
        assert tally.facets[field] == counts
    groups = {group.value: group.matches for group in view.ask_by_group("guide", question, "channel", limit=3)}
    assert list(groups) == ["c1", "c2"]
    for channel, found in groups.items():
        wanted = [key for key in asked(view, question) if records[key]["channel"] == channel][:3]
        assert [match.key for match in found] == wanted
    every = list(view.ask_by_group("guide", Question(), "channel", limit=1))
    assert [group.value for group in every] == ["c0", "c1", "c2", "c3", "c4", "c5"]
    once = [records[key].get("channel") for key in asked(view, Question(order="start", distinct="channel"))]
    named = [name for name in once if name is not None]
    assert sorted(named) == ["c0", "c1", "c2", "c3", "c4", "c5"]
    assert once.count(None) == sum("channel" not in record for record in records.values())


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (Question({"year": 1}), "no index on year, only on channel, genres"),
        (
            Question(ranges={"channel": {"gte": 1}}),
            "where.channel.gte: guide has no order on channel, only on year, start",
        ),
        (Question(order="-title"), "order=-title: guide has no order on title, only on year, start"),
        (Question(distinct="year"), "distinct=year"),
        (Question(ranges={"year": {"gte": 1, "lt": "x"}}), "two kinds"),
        (Question(ranges={"year": {"gte": [1]}}), "no bound"),
        (Question(order="year", after="nonsense"), "after='nonsense'"),
        (Question(order="year", after="\udc80~x"), "after="),
        (Question(order="year", after="é~x"), "after='é~x'"),
        (Question(text="programme", after="k"), "after='k'"),
        (Question(text="programme", after="-1~k"), "after='-1~k'"),
        (
            Question(ranges={"start": {"gte": "soon"}}),
            "where.start.gte='soon': start holds numbers; ask for one of those",
        ),
        (Question(ranges={"start": {"gte": (True, "true")}}), "start holds numbers"),
    ],
)
def test_what_is_not_declared_says_what_is(
    replica: tuple[View, dict[str, Any]], question: Question, words: str
) -> None:
    with pytest.raises(QueryError, match=words):
        list(replica[0].ask("guide", question))


def test_a_bound_with_several_readings_is_of_the_type_that_the_index_holds(
    replica: tuple[View, dict[str, Any]],
) -> None:
    view, records = replica
    moment = "1970-01-12T18:00:00+01:00"
    for bound in (1_011_600, (1_011_600, "1011600"), moment, (moment,)):
        late = asked(view, Question(ranges={"start": {"gte": bound}}))
        assert late == expected(records, lambda record: (terms.time_of(record.get("start")) or 0) >= 1_011_600), bound


def test_pages_by_words_conditions_and_value(replica: tuple[View, dict[str, Any]]) -> None:
    view, records = replica
    year = {"year": {"gte": 1995}}
    wanted = set(asked(view, Question({"channel": ("c1", "c2")}, year))) & set(asked(view, Question(text="progr 1")))
    assert len(wanted) > 20
    for question in (
        Question({"channel": ("c1", "c2")}, year, text="progr 1"),
        Question({"channel": ("c1", "c2")}, year, text="progr 1", order="-year"),
        Question(text="progr", distinct="channel"),
        Question(ranges=year, order="-start", distinct="channel"),
        Question(ranges=year, distinct="genres"),
    ):
        every = asked(view, question)
        pages: list[str] = []
        after = None
        while found := list(view.ask("guide", question._replace(after=after), limit=3)):
            pages += [match.key for match in found]
            after = found[-1].cursor(question)
        assert pages == every, question
        assert len(set(every)) == len(every)
        if question.distinct:
            once = [name for key in every for name in [records[key].get("channel")] if name]
            assert question.distinct == "genres" or len(once) == len(set(once)) > 3
        else:
            assert set(every) == wanted
            assert view.tally("guide", question).total == len(wanted)


def test_a_page_of_the_best_goes_on_where_its_last_match_is_now(replica: tuple[View, dict[str, Any]]) -> None:
    view, _ = replica
    question = Question(text="progr")
    best = asked(view, question)
    for after, wanted in (
        (f"3~{best[5]}", best[6:]),
        (f"7~{best[5]}", best[6:]),
        ("5~gone", best[5:]),
        ("0~gone", best),
    ):
        assert asked(view, question._replace(after=after)) == wanted, after
    assert asked(view, question._replace(after="999999999~gone")) == []


def test_groups_have_pages(replica: tuple[View, dict[str, Any]]) -> None:
    view, _ = replica
    every = list(view.ask_by_group("guide", Question(order="year"), "channel", limit=2))
    for number, group in enumerate(every):
        rest = view.ask_by_group("guide", Question(order="year", after=group.cursor), "channel", limit=2)
        assert list(rest) == every[number + 1 :]
    between = write_term(terms.term("c3x"))  # of a value that is gone
    rest = view.ask_by_group("guide", Question(order="year", after=between + "~"), "channel", limit=2)
    assert [group.value for group in rest] == ["c4", "c5"]
    with pytest.raises(QueryError, match="after='é'"):
        list(view.ask_by_group("guide", Question(after="é"), "channel", limit=2))
    begin, end = every[1].cursor[:-1], every[1].cursor[-1]
    for foreign in ("c1", "abcd", "zz~", "~", f"{begin}{end}k1", f"{begin}={end}", begin, "c2Mx/Q~", "000001a"):
        with pytest.raises(QueryError, match="expected the `next` of the page before"):
            list(view.ask_by_group("guide", Question(after=foreign), "channel", limit=2))
    favourites = Question({"channel": ("c4", "c1", "c4")})
    assert [group.value for group in view.ask_by_group("guide", favourites, "channel", limit=2)] == ["c4", "c1"]
    words = list(view.ask_by_group("guide", Question(text="progr 1"), "channel", limit=2))
    assert [match.key for match in words[1].matches] == asked(view, Question({"channel": "c1"}, text="progr 1"), 2)


def test_a_collection_without_an_interval_says_so(replica: tuple[View, dict[str, Any]]) -> None:
    with pytest.raises(QueryError, match="people declares no interval"):
        replica[0].tally("people", Question(during=(1, 2)))
    with pytest.raises(QueryError, match="no index on year"):
        replica[0].tally("guide", Question(), ["year"])
    with pytest.raises(QueryError, match="no index on year"):
        list(replica[0].ask_by_group("guide", Question(), "year", limit=1))


def test_terms_sort_as_values_do_and_cursors_come_back() -> None:
    values: list[Any] = [
        None, False, True, -1e300, -(1 << 63), -2.5, -2, -1, 0, 5e-324, 0.5, 1, 2, 2**53 - 1, 2**53, 2**53 + 1,
        2**53 + 2, 2**63, 2**64 - 1, 1e300, "", "\0", "a", "a\0", "ab", "b", "é", "\U0001f600",
    ]  # fmt: skip
    found = [terms.order_term(value) for value in values if value not in (-(1 << 63), -1e300)]
    assert found == sorted(found, key=lambda item: item or b"")
    assert len(set(found)) == len(found)
    assert terms.order_term(-1e300) < terms.order_term(-(1 << 63)) < terms.order_term(-2.5)  # type: ignore[operator]
    for value in (None, True, False, 0, -7, 2.5, 1e300, 2**63, "", "true", "7", "é"):
        term = terms.term(value)
        assert term is not None
        assert (terms.value_of(term), type(terms.value_of(term))) == (value, type(value))
    assert terms.order_term(2.0) == terms.order_term(2)
    assert terms.order_term(0.0) == terms.order_term(-0.0) == terms.order_term(0)
    assert b"n" < terms.order_term(-(10**400)) < terms.order_term(-1e300)  # type: ignore[operator]  # as bounds may be
    assert terms.order_term(1e300) < terms.order_term(10**400) < b"o"  # type: ignore[operator]
    assert terms.order_term(2**64 - 1) < terms.order_term(10**25 + 7) < terms.order_term(10**26)  # type: ignore[operator]
    assert terms.order_term([]) is terms.order_term({}) is terms.order_term(float("nan")) is None
    for item in found:
        for key in ("k", "a~b", "é"):
            ordered = Question(order="year")
            assert read_cursor(ordered._replace(after=write_cursor(Cursor(item, key), ordered))) == (item, key, 0)
    for foreign in ("k", "zz~k", "0~k", f"{write_term(terms.order_term(7))}=~k", "bsHawem8wAA/~k"):
        with pytest.raises(QueryError, match="expected the `next` of the page before"):
            read_cursor(Question(order="year", after=foreign))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (5, 5), (5.9, 5), (-0.5, -1), ("1970-01-01T00:00:05Z", 5), ("1970-01-01t01:00:05+01:00", 5),
        ("1970-01-01T00:00:05.999Z", 5), (True, None), (None, None), ("1970-01-01", None),
        ("1970-01-01T00:00:05", None),
        ("1970-13-01T00:00:05Z", None), (1 << 60, None), ((1 << 60) - 1, (1 << 60) - 1), ("soon", None), ([5], None),
    ],
)  # fmt: skip
def test_times_are_whole_seconds_or_none(value: Any, seconds: int | None) -> None:
    assert terms.time_of(value) == seconds


def test_the_embedded_api_asks_alike(tmp_path: Path) -> None:
    publisher = Publisher({"core": guide(50, "", 9)})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer, schema=SCHEMA)
    with edged.open(tmp_path) as replica:
        titles = replica["catalog"]["guide"]
        every = dict(titles.items())
        late = list(titles.where(year__gte=2000, year__lt=2003, order="-year", limit=5))
        assert [value["year"] for _, value in late] == sorted(
            (
                value["year"]
                for value in every.values()
                if type(value.get("year")) is int and 2000 <= value["year"] < 2003
            ),
            reverse=True,
        )[:5]
        moment = datetime.fromtimestamp(1_010_000, UTC)
        on = [key for key, value in every.items() if holds(value, 1_010_000, 1_010_001)]
        assert [key for key, _ in titles.where(at=moment)] == on == [key for key, _ in titles.where(at=1_010_000.5)]
        assert titles.count(at=moment) == len(on)
        assert titles.count() == len(titles) == len(every)
        assert sum(titles.count(by="channel").values()) == sum("channel" in value for value in every.values())
        assert titles.groups("channel", channel=("c1", "c2"), limit=2, order="year") == {
            name: list(titles.where(channel=name, order="year", limit=2)) for name in ("c1", "c2")
        }
        found = titles.search("programme", year__gte=2000, at=1_010_000, order="-year", limit=None)
        assert {key for key, _ in found} == {key for key, _ in titles.where(year__gte=2000, at=1_010_000)}
        assert titles.search("") == titles.search("'") == []
        within = [key for key, value in every.items() if holds(value, 1_000_000, 1_005_000)]
        assert [key for key, _ in titles.where(between=(1_000_000, 1_005_000))] == within


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """Programmes of ten minutes, one after the other, by the embedded API."""
    root = tmp_path_factory.mktemp("embedded")
    records: Records = {
        ("guide", f"p{number}"): cbor.encode(
            {"channel": f"c{number % 3}", "year": 1990 + number, "start": 600 * number, "end": 600 * (number + 1)}
        )
        for number in range(6)
    }
    with Writer.open(root, "catalog") as writer:
        Publisher({"core": records}).snapshot_into(writer, schema=SCHEMA)
    with edged.open(root) as opened:
        yield opened["catalog"]["guide"]


@pytest.mark.parametrize("kind", [tuple, list, set, frozenset, dict.fromkeys])
def test_several_values_may_come_in_any_collection(embedded: Collection, kind: Callable[[list[str]], Any]) -> None:
    wanted = kind(["c0", "c2"])
    if isinstance(wanted, dict):
        wanted = wanted.keys()
    assert [key for key, _ in embedded.where(channel=wanted)] == ["p0", "p2", "p3", "p5"]
    assert embedded.count(channel=wanted) == 4
    assert sorted(embedded.groups("channel", channel=wanted)) == ["c0", "c2"]


def test_what_a_dict_takes_for_one_value_counts_and_is_grouped_together(tmp_path: Path) -> None:
    names = {"a": 1, "b": True, "c": False, "d": "1", "e": True, "f": [True, "x"]}
    records: Records = {("people", key): cbor.encode({"name": name}) for key, name in names.items()}
    with Writer.open(tmp_path, "catalog") as writer:
        Publisher({"core": records}).snapshot_into(writer, schema=SCHEMA)
    with edged.open(tmp_path) as opened:
        people = opened["catalog"]["people"]
        assert people.count(by="name") == {False: 1, True: 4, "1": 1, "x": 1}
        groups = people.groups("name", limit=3)
        assert {value: [key for key, _ in found] for value, found in groups.items()} == {
            False: ["c"], True: ["b", "e", "f"], "1": ["d"], "x": ["f"]
        }  # fmt: skip
        assert [key for key, _ in people.groups("name", limit=9)[1]] == ["b", "e", "f", "a"]


def test_a_number_and_its_text_count_together_before_the_most_frequent_are_taken() -> None:
    counts = {b"sa": 3, b"n7": 2, b"s7": 2, b"n-2.5": 1, b"s\xc3\xa9": 5, b"btrue": 1, b"strue": 1, b"znull": 1}
    wanted = [("é", 5), ("7", 4), ("a", 3), ("true", 2), ("-2.5", 1), ("null", 1)]
    assert list(terms.by_text(counts).items()) == wanted
    assert list(terms.by_text(counts, 2).items()) == wanted[:2]
    assert terms.by_text({b"sb": 3, b"sc": 3, b"n7": 2, b"s7": 2}, 1) == {"7": 4}


@pytest.mark.parametrize("wrong", [{"a": 1}, b"c0", [["c0"]], object(), datetime(2026, 11, 26, tzinfo=UTC)])
def test_what_no_index_holds_is_refused_rather_than_not_found(embedded: Collection, wrong: Any) -> None:
    with pytest.raises(QueryError, match="is no value of an index"):
        embedded.where(channel=wrong)


def test_a_text_is_not_taken_for_a_list_of_keys(embedded: Collection) -> None:
    assert [value and value["year"] for value in embedded.get_many(key for key in ("p2", "none", "p0"))] == [
        1992,
        None,
        1990,
    ]
    with pytest.raises(QueryError, match="expected several keys"):
        embedded.get_many("p2")


def keys_in(embedded: Collection, begin: Any, end: Any) -> list[str]:
    return [key for key, _ in embedded.where(between=(begin, end))]


def test_times_of_the_embedded_api_are_taken_as_those_of_a_url(embedded: Collection) -> None:
    assert keys_in(embedded, 600, 1200) == ["p1"]
    assert keys_in(embedded, 599.5, 1200) == ["p0", "p1"]
    assert keys_in(embedded, 600, 1200.5) == ["p1", "p2"]  # for p2 begins before that
    assert keys_in(embedded, 600.2, 600.7) == ["p1"]
    assert keys_in(embedded, datetime.fromtimestamp(600, UTC), datetime.fromtimestamp(1200, UTC)) == ["p1"]
    late = embedded.where(start__gte=datetime.fromtimestamp(2400, UTC), order="-start")
    assert [key for key, _ in late] == ["p5", "p4"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"between": (1200, 600)}, "nothing lies between"),
        ({"between": (600, 600)}, "nothing lies between"),
        ({"between": 600}, "expected two times"),
        ({"between": (1, 2, 3)}, "expected two times"),
        ({"between": (1, "2")}, "expected seconds since 1970"),
        ({"at": 600, "between": (600, 1200)}, "at does not go together with between"),
        ({"at": "now"}, "expected seconds since 1970"),
        ({"at": float("inf")}, "expected seconds since 1970"),
        ({"at": float("nan")}, "expected seconds since 1970"),
        ({"at": True}, "expected seconds since 1970"),
    ],
)
def test_times_that_are_none_are_refused(embedded: Collection, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(QueryError, match=words):
        embedded.where(**asked)
    with pytest.raises(QueryError, match=words):
        embedded.count(**asked)


def test_an_index_of_a_collection_with_a_least_number_of_records_is_not_made_again(tmp_path: Path) -> None:
    publisher = Publisher({"core": guide(50, "", 9)})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer, schema=SCHEMA)
        before = [ref.index for ref in writer.live.manifest.slices["core"].base]
        publisher.version += 1
        with writer.stage() as staging:
            changed = {("guide", "k"): cbor.encode({"year": 1})}
            staging.apply_changes("core", publisher.version, publisher.apply("core", changed))
            staging.commit(publisher.version, b"head", as_of=1, fresh_s=1, expires_s=1)
        assert [ref.index for ref in writer.live.manifest.slices["core"].base] == before
