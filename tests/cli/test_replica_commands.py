"""`edged ls`, `search`, `get` and `types` on a replica on disk."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cbor2
import jsonschema
import pytest

from edged.cli.main import main
from edged.feed.schema import CollectionSchema, Schema
from edged.replica.recordtypes import MOST_FIELDS, Seen, json_schema, schema_of, type_names, typescript, typescript_of
from edged.replica.writer import Writer
from tests.replica.feeds import Publisher

SCHEMA = Schema(
    {
        "titles": CollectionSchema(("genres", "year"), ("name",), order=("year",), interval=("from", "to")),
        "rows": CollectionSchema(refs={"items": "titles", "promo.title": "titles"}),
    }
)
TITLES: dict[str, Any] = {
    f"t{n}": {
        "name": f"Title {n}",
        "year": 2000 + n,
        "genres": ["Drama", "Noir"][: n % 3],
        "from": 100 * n,
        "to": 100 * n + 150,
    }
    for n in range(1, 7)
}
ROWS: dict[str, Any] = {"r": {"items": ["t1", "gone"], "promo": {"title": "t2", "x-y": None}}, "s": {"items": []}}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("commands")
    records = {
        (collection, key): cbor2.dumps(value, canonical=True)
        for collection, held in (("titles", TITLES), ("rows", ROWS))
        for key, value in held.items()
    }
    with Writer.open(root, "catalog") as writer:
        Publisher({"core": records}).snapshot_into(writer, schema=SCHEMA)
    return root


@pytest.fixture
def say(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command on the replica: (exit code, output, errors)."""

    def run(command: str, *words: str) -> tuple[int, str, str]:
        code = main([command, str(data_dir), "catalog", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ((), "t1 t2 t3 t4 t5 t6"),
        (("--where", "year.gte=2003", "--order=-year"), "t6 t5 t4 t3"),
        (("--where", "year=2001", "--where", "year=2004"), "t1 t4"),
        (("--where", "genres=Noir", "--limit", "1"), "t2"),
        (("--at", "260"), "t2"),
        (("--from", "260", "--to", "300"), "t2"),
        (("--from", "600"), "t5 t6"),
        (("--distinct", "genres"), "t1 t2 t3 t6"),
        (("--prefix", "t3"), "t3"),
    ],
)
def test_ls_answers_questions(say: Any, words: tuple[str, ...], keys: str) -> None:
    assert say("ls", "titles", *words) == (0, "".join(f"{key}\n" for key in keys.split()), "")
    code, out, _ = say("ls", "titles", *words, "--json")
    assert (code, json.loads(out)) == (0, keys.split())


def test_ls_prints_groups_values_counts_and_what_keys_refer_to(say: Any) -> None:
    assert say("ls", "titles", "--group", "genres", "--limit", "2")[1] == "Drama\tt1\nDrama\tt2\nNoir\tt2\nNoir\tt5\n"
    lines = say("ls", "titles", "--group", "genres", "--limit", "1", "--values")[1].splitlines()
    assert json.loads(lines[1]) == {"key": "t2", "group": "Noir", "value": TITLES["t2"]}
    assert json.loads(say("ls", "titles", "--where", "year=2001", "--values", "--json")[1]) == [
        {"key": "t1", "value": TITLES["t1"]}
    ]
    expanded = {**ROWS["r"], "items": [{"key": "t1", "value": TITLES["t1"]}, {"key": "gone", "value": None}]}
    assert json.loads(say("ls", "rows", "--expand", "items", "--limit", "1")[1]) == {"key": "r", "value": expanded}
    assert json.loads(say("get", "rows", "r", "--expand", "items")[1]) == expanded
    assert say("ls", "titles", "--where", "genres=Drama", "--count")[1] == "4 records\n"
    counted = say("ls", "titles", "--facets", "genres,year", "--where", "year.lt=2003")[1].splitlines()
    assert counted[1].split() == ["genres", "Drama", "2"]
    assert counted[-1] == "2 records"
    assert json.loads(say("ls", "titles", "--facets", "genres", "--json")[1]) == {
        "total": 6, "facets": {"genres": {"Drama": 4, "Noir": 2}}
    }  # fmt: skip


def test_what_does_not_print_of_a_key_is_escaped_and_exact_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, year = "a\x1b[31m\nb é", "1\x9b"
    record = cbor2.dumps({"name": "Odd", "year": year}, canonical=True)
    with Writer.open(tmp_path, "catalog") as writer:
        Publisher({"core": {("titles", key): record}}).snapshot_into(writer, schema=SCHEMA)
    for words, lines in ((), r"a\x1b[31m\nb é"), (("--group", "year"), "1\\x9b\ta\\x1b[31m\\nb é"):
        assert main(["ls", str(tmp_path), "catalog", "titles", *words]) == 0
        assert capsys.readouterr().out == f"{lines}\n"
    assert main(["ls", str(tmp_path), "catalog", "titles", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [key]


def test_now_is_the_signed_time_at_least(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 5.0)  # of a box whose clock is not set
    records = {("titles", key): cbor2.dumps(value, canonical=True) for key, value in TITLES.items()}
    with Writer.open(tmp_path, "catalog") as writer:
        Publisher({"core": records}, 260).snapshot_into(writer, schema=SCHEMA)  # which is signed at 260
    assert main(["ls", str(tmp_path), "catalog", "titles", "--at", "now"]) == 0
    assert capsys.readouterr().out == "t2\n"


@pytest.mark.parametrize(("key", "why"), [("t1", "is outside of its window (from, to)"), ("t9" * 300, "is not there")])
def test_a_record_outside_of_its_window_is_said_to_be_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, why: str
) -> None:
    schema = Schema({"titles": CollectionSchema(valid=("from", "to"))})
    records = {("titles", "t1"): cbor2.dumps(TITLES["t1"], canonical=True)}
    with Writer.open(tmp_path, "catalog") as writer:
        Publisher({"core": records}).snapshot_into(writer, schema=schema)
    assert main(["get", str(tmp_path), "catalog", "titles", key]) == 1
    assert f"{why} at version 1" in capsys.readouterr().err


def test_search_goes_within_conditions(say: Any) -> None:
    assert say("search", "titles", "title", "--where", "year.gte=2005", "--order", "year")[1] == "t5\nt6\n"
    assert json.loads(say("search", "titles", "title 3", "--json")[1]) == [{"key": "t3", "value": TITLES["t3"]}]
    assert say("search", "titles", "nowhere") == (0, "nothing found\n", "")
    assert json.loads(say("search", "titles", "nowhere", "--json")[1]) == []
    assert say("search", "titles", "title", "--count")[1] == "6 records\n"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--where", "year"), "expected FIELD=VALUE"),
        (("--where", "=1"), "expected FIELD=VALUE"),
        (("--where", "name=x"), "no index on name, only on genres, year"),
        (("--order", "name"), "no order on name, only on year"),
        (("--at", "soon"), "expected seconds since 1970"),
        (("--where", "year.gte=soon"), "year holds numbers"),
        (("--prefix", "t", "--count"), "--prefix does not go together"),
        (("--expand", "name"), "declares no reference there, only at nothing"),
        (("--group", "name"), "no index on name"),
    ],
)
def test_a_wrong_question_is_one_line_and_exit_code_2(say: Any, words: tuple[str, ...], fault: str) -> None:
    code, out, said = say("ls", "titles", *words)
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert fault in said


@pytest.mark.parametrize(
    "words", [("--count",), ("--at", "now"), ("--prefix", "t"), ("--values",), ("--expand", "items")]
)
def test_what_only_a_collection_answers_is_not_passed_over_without_one(say: Any, words: tuple[str, ...]) -> None:
    code, out, said = say("ls", *words)
    assert (code, out) == (2, "")
    assert "are of a collection; name one" in said


@pytest.mark.parametrize("words", ["", "  "])
def test_a_search_for_nothing_is_refused_as_over_http(say: Any, words: str) -> None:
    code, out, said = say("search", "titles", words)
    assert (code, out) == (2, "")
    assert "TEXT is empty" in said


def test_types_are_those_of_the_records(say: Any) -> None:
    code, text, _ = say("types")
    assert code == 0
    assert (
        text
        == """// What the records of catalog hold, as of version 1. Made by `edged types`.

/** A record of rows, of 2. */
export interface Rows {
  items: string[];  // keys of titles
  promo?: {
    title: string;  // key of titles
    "x-y": null;
  };
}

/** A record of titles, of 6. */
export interface Titles {
  from: number;
  genres: string[];
  name: string;
  to: number;
  year: number;
}

/** The type of a record by its collection. */
export interface Collections {
  rows: Rows;
  titles: Titles;
}
"""
    )
    assert json.loads(say("types", "--json")[1]) == {"typescript": text}
    schema = json.loads(say("types", "--json-schema")[1])
    assert schema == json.loads(say("types", "--json-schema", "--json")[1])
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"rows": ROWS, "titles": TITLES}, schema)
    for wrong in ({"titles": {"t": {**TITLES["t1"], "year": "x"}}}, {"titles": {"t": {"year": 1}}}, {"rows": {"r": 5}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def seen(*values: Any) -> Seen:
    found = Seen()
    for value in values:
        found.add(value)
    return found


@pytest.mark.parametrize(
    ("values", "script", "schema"),
    [
        ((1, 2), "number", {"type": "integer"}),
        ((1, 2.0), "number", {"type": "integer"}),
        ((1, 2.5), "number", {"type": "number"}),
        ((True, "x", None), "boolean | string | null", {"type": ["null", "boolean", "string"]}),
        (([],), "unknown[]", {"type": "array"}),
        (([1], ["x", None]), "(number | string | null)[]", None),
        (([[1]],), "number[][]", {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}),
        (({},), "{}", {"type": "object"}),
        (({"a": 1}, {}), "{\n  a?: number;\n}", {"type": "object", "properties": {"a": {"type": "integer"}}}),
        (([{"a": 1 }, {"a": None}],), "{\n  a: number | null;\n}[]", None),
        (([{"a": 1}, 5],), "(number | {\n  a: number;\n})[]", None),
        ((), "", {}),
    ],
)  # fmt: skip
def test_each_kind_of_value_has_its_type(values: tuple[Any, ...], script: str, schema: dict[str, Any] | None) -> None:
    found = seen(*values)
    assert typescript_of(found, "", {}) == script
    assert schema is None or schema_of(found) == schema
    for value in values:
        jsonschema.validate(value, schema_of(found))


def test_an_object_with_as_many_names_as_data_has_is_a_map() -> None:
    record = {"by": {f"n{n}": {"x": n} for n in range(MOST_FIELDS)}}
    assert "n99:" in typescript_of(seen(record), "", {})
    more = {"by": {"other": {"x": "text", "y": 1}}}
    for values in ((record, more), (more, record)):
        assert typescript_of(seen(*values), "", {}) == (
            "{\n  by: { [name: string]: {\n    x: number | string;\n    y?: number;\n  } };\n}"
        )
        for value in values:
            jsonschema.validate(value, schema_of(seen(*values)))
    deep = {"by": {f"n{n}": {f"m{n}": n, f"k{n}": [n]} for n in range(2 * MOST_FIELDS)}}
    assert (
        typescript_of(seen(deep, deep), "", {})
        == "{\n  by: { [name: string]: { [name: string]: number | number[] } };\n}"
    )
    jsonschema.validate(deep, schema_of(seen(deep)))


def test_names_of_types_are_unlike_one_another() -> None:
    assert type_names(["a-b", "a_b", "a.b", "1st", "x"]) == {
        "a-b": "AB", "a_b": "AB2", "a.b": "AB3", "1st": "T1st", "x": "X"
    }  # fmt: skip
    text = typescript("d", 1, {"odd": seen(5, {"a": 1})}, {})
    assert "export type Odd = number | {\n  a: number;\n};" in text
    assert json_schema("d", 1, {"odd": seen(5)})["$defs"] == {"Odd": {"type": "integer"}}
