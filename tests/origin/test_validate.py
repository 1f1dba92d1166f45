"""Validators: content that breaks a declared rule is never signed."""

from __future__ import annotations

from typing import Any

import pytest

from edged.errors import ConfigError, ValidationError
from edged.origin.declared.rules import load_rules
from edged.origin.publisher import Publisher, PublishOptions
from tests.origin.devices import Device


def records(count: int, **more: Any) -> list[tuple[str, str, dict[str, Any]]]:
    return [("titles", f"k{number}", {"title": f"T{number}", "n": number} | more) for number in range(count)]


def with_rules(publisher: Publisher, text: str) -> Publisher:
    (publisher.path / "catalog.toml").write_text(text)
    return publisher


@pytest.mark.parametrize(
    ("rules", "change", "complaint"),
    [
        ('required = ["title"]', {"n": 1}, "titles/k1: the required field 'title' is missing"),
        ('required = ["title"]', {"title": None}, "'title' is missing"),
        ('required = ["poster.w342"]', {"poster": {"w92": "x"}}, "'poster.w342' is missing"),
        ('required = ["poster.w342"]', {"poster": []}, "'poster.w342' is missing"),
        ('required = ["poster.w342"]', {"poster": [{"w342": "x"}, {}]}, "'poster.w342' is missing"),
        ('required = ["a.b"]', {"a.b": None, "a": {"b": 1}}, "'a.b' is missing"),
        ('types = { n = "integer" }', {"n": "7"}, "field 'n': expected integer, got string '7'"),
        ('types = { n = "integer" }', {"n": 7.5}, "expected integer, got number"),
        ('types = { n = "integer" }', {"n": True}, "expected integer, got boolean"),
        ('types = { n = "number" }', {"n": None}, "expected number, got null"),
        ('types = { n = "string|null" }', {"n": []}, "expected string|null, got list"),
        ('unique = ["n"]', {"n": 3}, "titles/k1: field 'n' has the same value as k3"),
    ],
)
def test_a_record_that_breaks_a_rule_stops_the_publish(
    publisher: Publisher, rules: str, change: dict[str, Any], complaint: str
) -> None:
    good = records(5, poster={"w342": "p"})
    with_rules(publisher, "").publish("catalog", good)
    with_rules(publisher, f"[validate.titles]\n{rules}\n")
    with pytest.raises(ValidationError) as caught:
        publisher.publish_changes("catalog", [("titles", "k1", change)])
    assert complaint in str(caught.value)
    assert caught.value.exit_code == 3
    device = Device(publisher.path, "catalog")
    device.sync()
    assert (device.version, device.value("titles", "k1")) == (1, good[1][2])


def test_counts_and_shares_are_judged_for_the_collection_as_a_whole(publisher: Publisher) -> None:
    with_rules(publisher, '[validate.titles]\nmin_count = 3\nmax_count = 12\nmax_change = "50%"\n')
    with pytest.raises(ValidationError, match="at least 3 records, got 2"):
        publisher.publish("catalog", records(2))
    publisher.publish("catalog", records(10))
    with pytest.raises(ValidationError, match="at most 12 records, got 13"):
        publisher.publish("catalog", records(13))
    with pytest.raises(ValidationError, match="6 of 10 records would change, at most 50% may"):
        publisher.publish("catalog", records(4))
    assert publisher.publish("catalog", records(5)).removed == 5
    assert publisher.publish("catalog", records(11, x=1), PublishOptions(force_change=True)).version == 3
    with_rules(publisher, "[validate.titles]\nmax_change = 1\n")
    with pytest.raises(ValidationError, match="2 of 11"):
        publisher.publish("catalog", records(9, x=1))


def test_two_records_may_exchange_their_unique_values_and_freed_ones_are_free(publisher: Publisher) -> None:
    with_rules(publisher, '[validate.titles]\nunique = ["n"]\n').publish("catalog", records(4))
    publisher.publish_changes("catalog", [("titles", "k0", {"n": 1}), ("titles", "k1", {"n": 0})])
    publisher.publish_changes("catalog", [("titles", "k2", None)])
    publisher.publish_changes("catalog", [("titles", "k9", {"n": 2})])
    with pytest.raises(ValidationError, match="same value as k9"):
        publisher.publish_changes("catalog", [("titles", "k10", {"n": 2})])
    publisher.rollback("catalog", 1)
    with pytest.raises(ValidationError, match="same value as k2"):
        publisher.publish_changes("catalog", [("titles", "k10", {"n": 2})])


def test_new_rules_are_held_against_records_that_did_not_change(publisher: Publisher) -> None:
    publisher.publish("catalog", [*records(3), ("titles", "old", {"n": 99})])
    with_rules(publisher, '[validate.titles]\nrequired = ["title"]\n')
    with pytest.raises(ValidationError, match="titles/old"):
        publisher.publish_changes("catalog", [("titles", "k1", {"title": "fine"})])
    assert publisher.publish_changes("catalog", [("titles", "old", {"title": "now"})]).version == 2


def test_emergencies_are_not_held_up_by_validators(publisher: Publisher) -> None:
    with_rules(publisher, '[validate.titles]\nmin_count = 3\nmax_change = "40%"\n').publish("catalog", records(3))
    publisher.publish("catalog", records(3, edited=True), PublishOptions(force_change=True))
    assert publisher.takedown("catalog", "titles", ["k0", "k1"]).removed == 2
    assert publisher.rollback("catalog", 1).changed == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[slices.core]\nwhere = { a = 1 }\n", "line 1: slices.core: core holds what no other slice does"),
        ("[slices.br]\nwhere = {}\n", "line 2: slices.br.where: no record can match"),
        ("[slices.br]\nwhere = { a = [] }\n", "no record can match"),
        ("[slices.br]\n", "the key 'where' is missing"),
        ('[slices."../x"]\nwhere = { a = 1 }\n', "not a name"),
        ("[collections.changes]\nindex = []\n", "not a name"),
        ('[collections.guide]\ninterval = ["start"]\n', "line 2: collections.guide.interval: expected two fields"),
        ('[collections.guide]\ninterval = ["at", "at"]\n', "expected two fields"),
        ('[collections.guide]\ninterval = ["a", "b", "c"]\n', "collections.guide.interval"),
        ('[collections.t]\nvalid = ["from"]\n', "line 2: collections.t.valid: expected two fields"),
        ('[collections.t]\nvalid = ["from", "from"]\n', "expected two fields"),
        ('[collections.t]\nrank = "votes"\n', "line 2: collections.t.rank: orders what a search finds"),
        ('[collections.r]\nrefs = { items = "../x" }\n', "line 2: collections.r.refs.items: not a name"),
        ('[collections.r]\nrefs = { a = "t", "a.b" = "t" }\n', "lies in 'a', which holds keys itself"),
        ('[views.tv.r]\nexpand = ["items"]\n', "line 2: views.tv.r.expand: expand=items: r declares no reference"),
        (
            '[collections.r]\nrefs = { a = "r" }\n[views.tv.r]\nexpand = ["a.a.a"]\n',
            "views.tv.r.expand: expand=a.a: leads further than 2 levels",
        ),
        ("[views.tv.r]\nlimit = { items = -1 }\n", "views.tv.r.limit"),
        ('[validate.titles]\ntypes = { n = "float" }\n', "'float' is not of string number integer"),
        ("[validate.titles]\nmin_count = 5\nmax_count = 4\n", "line 3: validate.titles.max_count: is less than"),
        (
            '[validate.titles]\nmax_change = "lots"\n',
            'line 2: validate.titles.max_change: expected a text of the form: a percentage, as in "50%", or a whole',
        ),
        ("[validate.titles]\nmax_change = 1.5\n", "max_change: expected a whole number or a text; got 1.5"),
        ('[freshness]\nfresh = "2d"\nexpires = "1d"\n', "expires comes before fresh ends"),
        ('[retention]\ngrace = "a week"\n', "a whole number and s, m, h or d"),
        ("[inline]\nmax = 99999999\n", "inline.max"),
        ("[sliced.br]\nwhere = { a = 1 }\n", "did you mean 'slices'"),
    ],
)
def test_a_faulty_dataset_file_is_refused_with_its_line(publisher: Publisher, text: str, complaint: str) -> None:
    with_rules(publisher, text)
    with pytest.raises(ConfigError) as caught:
        load_rules(publisher.path / "catalog.toml")
    assert complaint in " ".join(caught.value.faults)


def test_the_file_of_the_contract_is_understood(publisher: Publisher) -> None:
    with_rules(
        publisher,
        """\
[collections.titles]
index = ["year", "genres"]
text = ["title", "cast"]
order = ["year"]
interval = ["start", "end"]
valid = ["available.from", "available.until"]
rank = "votes"
[collections.rows]
refs = { "items" = "titles" }
[views.tv.rows]
expand = ["items"]
limit = { items = 20 }
[slices.region-br]
where = { region = ["BR", "*"] }
[views.stb-basic.titles]
fields = ["title", "year", "poster.w342"]
truncate = { extract = 200 }
[validate.titles]
required = ["title"]
min_count = 1
max_change = "50%"
""",
    )
    rules = load_rules(publisher.path / "catalog.toml")
    assert rules.views["stb-basic"]["titles"].truncate == {"extract": 200}
    assert rules.slices["region-br"].where == {"region": ["BR", "*"]}
    assert rules.collections["titles"].index == ["year", "genres"]
    publisher.publish("catalog", records(3))
    device = Device(publisher.path, "catalog")
    schema = device.chain(device.head()).schema
    assert schema.collections["rows"].refs == {"items": "titles"}
    assert (schema.views["tv"]["rows"].expand, schema.views["tv"]["rows"].limit) == (("items",), {"items": 20})
    told = schema.collections["titles"]
    assert (told.order, told.interval) == (("year",), ("start", "end"))
    assert (told.valid, told.rank) == (("available.from", "available.until"), "votes")


@pytest.mark.parametrize("value", ["soon", "2026-12-31", "2026-12-31T23:00:00", True, 1 << 62])
def test_rights_that_no_device_could_read_are_refused(publisher: Publisher, value: object) -> None:
    with_rules(publisher, '[collections.titles]\nvalid = ["from", "rights.until"]\n')
    good = [("titles", "a", {"from": 1_800_000_000}), ("titles", "b", {"rights": {"until": "2027-01-01T00:00:00Z"}})]
    publisher.publish("catalog", [*good, ("titles", "c", {"from": None, "rights": {}})])
    bad = ("titles", "d", {"rights": {"until": value}})
    with pytest.raises(
        ValidationError, match=r"titles/d: field 'rights.until': expected a time .*2026-12-31T23:00:00Z"
    ):
        publisher.publish("catalog", [*good, bad])


def test_records_are_held_against_rights_that_are_declared_later(publisher: Publisher) -> None:
    publisher.publish("catalog", [("titles", "a", {"from": "soon"})])
    with_rules(publisher, '[collections.titles]\nvalid = ["from", "until"]\n')
    with pytest.raises(ValidationError, match="titles/a: field 'from': expected a time"):
        publisher.publish_changes("catalog", [("titles", "b", {})])


def test_devices_are_told_the_least_number_of_records_but_no_more_than_there_are(publisher: Publisher) -> None:
    (publisher.path / "catalog.toml").write_text("[validate.titles]\nmin_count = 3\n")
    publisher.publish("catalog", [("titles", f"t{number}", {"n": number}) for number in range(3)])

    def least() -> int:
        device = Device(publisher.path, "catalog")
        return device.chain(device.head()).schema.collections["titles"].min_count

    assert least() == 3
    publisher.takedown("catalog", "titles", ["t1"])
    assert least() == 2
    publisher.restore("catalog", "titles", ["t1"])
    assert least() == 3


def test_a_rule_that_comes_later_holds_for_what_was_published_before_it(publisher: Publisher) -> None:
    """Values are claimed a thousand at a time, and each once."""
    with_rules(publisher, "").publish("catalog", records(1001))
    with_rules(publisher, '[validate.titles]\nunique = ["n"]\n')
    assert publisher.publish_changes("catalog", [("titles", "new", {"n": 1001})]).version == 2
    for taken in (0, 999, 1000, 1001):
        with pytest.raises(ValidationError, match="has the same value as"):
            publisher.publish_changes("catalog", [("titles", "another", {"n": taken})])
