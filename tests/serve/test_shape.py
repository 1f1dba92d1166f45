"""Views and fields: the shape in which a value goes out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.feed.schema import ViewRule
from edged.serve.answers.shape import Shape

FILM: dict[str, Any] = {
    "title": "Nosferatu, a Symphony of Horror",
    "names": {"de": "Nosferatu, eine Symphonie des Grauens", "en": None, "fr": "Nosferatu le vampire"},
    "poster": {"w185": "/185", "w342": "/342"},
    "cast": [{"name": "Max Schreck", "role": "Orlok"}, {"name": "Greta Schröder"}, "uncredited"],
    "year": 1922,
}


def shaped(rule: ViewRule, fields: tuple[str, ...] = ()) -> Any:
    before = copy.deepcopy(FILM)
    found = Shape("x", rule, fields).apply(FILM)
    assert before == FILM, "the value itself was changed"
    return found


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        (("year", "title"), {"year": 1922, "title": FILM["title"]}),
        (("poster.w342",), {"poster": {"w342": "/342"}}),
        (("poster.w342", "poster"), {"poster": FILM["poster"]}),
        (("poster", "poster.w342"), {"poster": FILM["poster"]}),
        (("cast.name",), {"cast": [{"name": "Max Schreck"}, {"name": "Greta Schröder"}]}),
        (("none", "year.none"), {}),
        (("names.en.short", "names.de.short", "none.short"), {"names": {"en": None}}),
    ],
)
def test_fields_keep_paths_through_objects_and_lists(fields: tuple[str, ...], wanted: Any) -> None:
    assert shaped(ViewRule(fields=fields)) == wanted
    assert shaped(ViewRule(), fields) == wanted


def test_choose_takes_the_first_variant_there_is_and_null_is_none() -> None:
    rule = ViewRule(choose={"names": ("pt", "en", "fr", "de"), "poster": ("w780",), "none": ("a",)})
    found = shaped(rule)
    assert found["names"] == "Nosferatu le vampire"
    assert found["poster"] == FILM["poster"]


def test_truncate_counts_characters_and_marks_the_cut() -> None:
    found = shaped(ViewRule(truncate={"title": 11, "cast.name": 4, "names.de": 500, "year": 1}))
    assert found["title"] == "Nosferatu,…"
    assert found["cast"][0]["name"] == "Max…"
    assert found["names"] == FILM["names"]
    assert found["year"] == 1922
    assert shaped(ViewRule(truncate={"title": 0}))["title"] == ""


def test_rename_moves_to_the_top_and_drops_what_it_empties() -> None:
    found = shaped(
        ViewRule(fields=("poster.w342", "year"), rename={"poster.w342": "image", "year": "released", "x": "y"})
    )
    assert found == {"image": "/342", "released": 1922}
    assert shaped(ViewRule(rename={"poster.w342": "image"}))["poster"] == {"w185": "/185"}
    assert "image" not in shaped(ViewRule(rename={"cast.name": "image"}))


def test_rules_apply_in_the_documented_order_and_request_fields_last() -> None:
    rule = ViewRule(
        fields=("names", "year"), choose={"names": ("fr",)}, truncate={"names": 5}, rename={"names": "title"}
    )
    assert shaped(rule) == {"year": 1922, "title": "Nosf…"}
    assert shaped(rule, ("title",)) == {"title": "Nosf…"}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=12,
)
PATHS = st.lists(st.sampled_from(["a", "b", "a.b", "a.b.c", "b.a", "c"]), max_size=3).map(tuple)


@given(JSON_VALUES, PATHS, PATHS, PATHS)
def test_any_rule_on_any_value_gives_a_value_and_leaves_the_old_one(
    value: Any, fields: tuple[str, ...], cut: tuple[str, ...], moved: tuple[str, ...]
) -> None:
    before = copy.deepcopy(value)
    rule = ViewRule(fields, dict.fromkeys(cut, 2), dict(zip(moved, "xyz", strict=False)), dict.fromkeys(cut, ("a",)))
    once = Shape("x", rule, ()).apply(value)
    assert value == before
    only = Shape("x", ViewRule(fields), ()).apply(value)
    assert Shape("x", ViewRule(fields), ()).apply(only) == only
    if not isinstance(value, dict | list):
        assert only == value
    assert type(once) is type(value) or rule.choose
