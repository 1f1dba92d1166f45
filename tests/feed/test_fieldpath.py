"""A dotted field path means one thing, wherever one may be written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.feed import cbor
from edged.feed.fieldpath import ABSENT, reach, step
from edged.feed.schema import ViewRule
from edged.origin.declared.rules import SliceRules
from edged.origin.declared.slicing import CORE_ONLY, Slicer
from edged.origin.declared.validate import unique_values
from edged.origin.history import differing_fields
from edged.replica.indexes.terms import record_terms, record_words
from edged.serve.answers.shape import Shape

# (record, path, what lies there)
MEANINGS: list[tuple[Any, str, list[Any]]] = [
    ({"a": "x"}, "a", ["x"]),
    ({"a": {"b": "x"}}, "a.b", ["x"]),
    ({"a.b": "dotted", "a": {"b": "deep"}}, "a.b", ["dotted"]),
    ({"a.b": {"c": "x"}, "a": {"b.c": "deep"}}, "a.b.c", ["x"]),
    ({"a": {"b.c": "x", "b": {"c": "deep"}}}, "a.b.c", ["x"]),
    ({"a.b.c": "x", "a.b": {"c": "shorter"}}, "a.b.c", ["x"]),
    ({"a": [{"b": "x"}, {"b": "y"}]}, "a.b", ["x", "y"]),
    ({"a": [[{"b.c": "x"}], {"b": {"c": "y"}}]}, "a.b.c", ["x", "y"]),
    ({"a.b": 1, "a": {"b": {"c": "lost"}}}, "a.b.c", []),  # the name wins, and leads nowhere
    ({"a": []}, "a.b", []),
    ({"b": "x"}, "a", []),
    ({"": {"": "x"}}, ".", ["x"]),
    ({"a": {"": "x"}, "b": 1}, "a.", ["x"]),
]


@pytest.mark.parametrize(("record", "path", "there"), MEANINGS)
def test_path_means_the_same_in_index_slice_validator_and_view(record: Any, path: str, there: list[str]) -> None:
    assert [item for item in reach(record, path) if item is not ABSENT] == there
    assert record_terms(record, path) == {b"s" + text.encode() for text in there}
    assert record_words(record, path) == there
    for wanted in ("x", "y", "dotted", "deep", "lost", "shorter"):
        slices = Slicer({"some": SliceRules({path: wanted})}).slices_of(cbor.encode(record))
        assert slices == (("some",) if wanted in there else CORE_ONLY)
    assert len(unique_values(cbor.encode(record), [path])) == len(there)
    kept = Shape("x", ViewRule(fields=(path,)), ()).apply(record)
    assert [item for item in reach(kept, path) if item is not ABSENT] == there
    assert Shape("x", ViewRule(), (path,)).apply(record) == kept
    marked = Shape("x", ViewRule(truncate={path: 0}), ()).apply(record)
    assert [item for item in reach(marked, path) if item is not ABSENT] == [""] * len(there)


@pytest.mark.parametrize(("record", "path", "there"), [row for row in MEANINGS if len(row[2]) == 1])
def test_rename_takes_what_the_path_means(record: Any, path: str, there: list[str]) -> None:
    renamed = Shape("x", ViewRule(rename={path: "new"}), ()).apply(record)
    assert renamed["new"] == there[0]
    assert there[0] not in [item for item in reach(renamed, path) if item is not ABSENT]


def test_names_that_the_log_tells_lead_to_the_fields_that_it_means() -> None:
    old = {"a": {"b": "deep"}, "a.b": "x", "a.b.c": 1, "same": 1}
    new = {"a": {"b": "other"}, "a.b": "y", "a.b.c": 2, "same": 1}
    told = list(differing_fields(cbor.encode(old), cbor.encode(new)))
    assert [name for name, _, _ in told] == ["a", "a.b", "a.b.c"]
    for name, before, after in told:
        assert [cbor.encode(item) for item in reach(old, name)] == [before]
        assert [cbor.encode(item) for item in reach(new, name)] == [after]


NAMES = st.text(alphabet="ab.", max_size=4)
VALUES = st.recursive(
    st.integers(0, 3), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3)
)


@given(fields=st.dictionaries(NAMES, VALUES, max_size=4), path=st.text(alphabet="ab.", max_size=7))
def test_longest_beginning_that_is_a_name_wins(fields: dict[str, Any], path: str) -> None:
    taken = step(fields, path)
    fitting = [name for name in fields if path == name or path.startswith(name + ".")]
    if taken is None:
        assert fitting == []
        assert list(reach(fields, path)) == [ABSENT]
        return
    name, rest = taken
    assert name == max(fitting, key=len)
    assert path == name if rest is None else path == f"{name}.{rest}"
