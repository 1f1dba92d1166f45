"""Conditions and search answer what a look at every record would, in whichever layer the records lie."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import edged
from edged.feed import cbor
from edged.feed.schema import CollectionSchema, Schema
from edged.replica.indexes import terms
from edged.replica.view import View
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from tests.replica.feeds import GENRES, SCHEMA, Publisher, made_up

QUERIES = [
    "pulp",
    "pul fic",
    "p",
    "senor caf",
    "CAFÉ",
    "amelie night",
    "river 1",
    "bjorn",
    "ł",
    "lukasz",
    "zzz",
    "winter wi",
    "n",
    "n o",
    "o o",
]


def films_of(publisher: Publisher) -> dict[str, Any]:
    names = {name: value for records in publisher.slices.values() for name, value in records.items()}
    return {key: cbor.decode(value, "test") for (name, key), value in names.items() if name == "titles"}


def tier_of(asked: Sequence[str], held: Sequence[Sequence[str]]) -> int | None:
    """The tier of a record by the words of its text fields, None where a word is missing."""
    title, everything = held[0], [word for field in held for word in field]
    in_title = all(any(other.startswith(word) for other in title) for word in asked)
    if in_title and title[0] == asked[0]:
        return 0
    if in_title and len(asked) == 1 and title[0].startswith(asked[0]):
        return 1
    if all(word in title for word in asked):
        return 2
    if in_title:
        return 3
    if all(word in everything for word in asked):
        return 4
    return 5 if all(any(other.startswith(word) for other in everything) for word in asked) else None


def expected_order(films: dict[str, Any], text: str) -> list[str]:
    """Keys by tier, then title, then key."""
    asked, found = terms.words(text), []
    for key, film in films.items():
        title, cast = (terms.record_words(film, name) for name in ("title", "cast"))
        tier = tier_of(asked, [title, cast])
        if tier is not None:
            found.append((tier, title, key))
    return [key for _, _, key in sorted(found)]


def check(view: View, films: dict[str, Any]) -> None:
    for year in (1950, 1994, 2019, 3000):
        expected = sorted(key for key, film in films.items() if film["year"] == year)
        assert [key for key, _ in view.where("titles", {"year": year})] == expected
        assert [key for key, _ in view.where("titles", {"year": (str(year), year)}, limit=2)] == expected[:2]
        assert list(view.where("titles", {"year": str(year)})) == []
    for genre in GENRES:
        expected = sorted(key for key, film in films.items() if genre in film["genres"])
        assert [key for key, _ in view.where("titles", {"genres": genre})] == expected
        after = expected[len(expected) // 2]
        assert [key for key, _ in view.where("titles", {"genres": genre}, after=after)] == [
            k for k in expected if k > after
        ]
        both = sorted(key for key in expected if films[key]["year"] == 1960)
        assert [key for key, _ in view.where("titles", {"year": 1960, "genres": genre})] == both
    for text in QUERIES:
        expected = expected_order(films, text)
        for limit in (5, 50, 10_000):
            assert [key for key, _ in view.search("titles", text, limit=limit)] == expected[:limit], text


def layered(data_dir: Path) -> Iterator[tuple[Publisher, Writer]]:
    """The same content with ever more of it in other layers."""
    publisher = Publisher({"core": made_up(600)})
    chance = random.Random(11)
    with Writer.open(data_dir, "catalog") as writer:
        publisher.snapshot_into(writer)
        yield publisher, writer
        for _ in range(6):
            publisher.hop_into(writer, 40, chance)
        yield publisher, writer
        writer.compact(policy=MergePolicy(fresh_packs=3, least_bytes=1 << 40, keep_bytes=1))
        assert writer.live.manifest.slices["core"].middle
        publisher.hop_into(writer, 40, chance)
        yield publisher, writer
        writer.compact(policy=MergePolicy(least_bytes=1, base_share=0, pack_bytes=20_000))
        assert len(writer.live.manifest.slices["core"].base) > 1
        yield publisher, writer


def test_every_layer_answers_like_a_look_at_every_record(tmp_path: Path) -> None:
    for publisher, writer in layered(tmp_path):
        with edged.open(tmp_path) as replica:
            view = replica["catalog"].view()
            check(view, films_of(publisher))
        assert all(ref.index for ref in writer.live.manifest.slices["core"].base)


def test_records_in_several_slices_are_found_once(tmp_path: Path) -> None:
    shared = made_up(300)
    publisher = Publisher({"core": dict(list(shared.items())[:200]), "region-br": dict(list(shared.items())[100:])})
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        publisher.snapshot_into(writer)
        view = replica["catalog"].view()
        check(view, films_of(publisher))
        assert view.collections == {"people": 30, "titles": 300}
        gone = ("titles", sorted(key for name, key in publisher.slices["region-br"] if name == "titles")[0])
        publisher.version += 1
        with writer.stage() as staging:
            changes = publisher.apply("region-br", {gone: None})
            staging.apply_changes("region-br", publisher.version, changes)
            staging.commit(publisher.version, b"h", as_of=1, fresh_s=1, expires_s=1)
        check(replica["catalog"].view(), films_of(publisher))
        assert replica["catalog"].view().collections["titles"] == len(films_of(publisher))


def test_a_changed_schema_is_indexed_by_its_commit(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(300)})
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        publisher.snapshot_into(writer, schema=Schema({"titles": CollectionSchema(("year",))}))
        publisher.hop_into(writer, 20, random.Random(1))
        assert list(replica["catalog"]["titles"].where(year=1960))
        with writer.stage() as staging:
            staging.set_schema(SCHEMA, 3)
            staging.commit(3, b"h", as_of=1, fresh_s=1, expires_s=1)
        check(replica["catalog"].view(), films_of(publisher))


@pytest.mark.parametrize("change", ["gone", "flipped", "cut"])
def test_a_damaged_index_answers_right_and_is_made_anew(tmp_path: Path, change: str) -> None:
    publisher = Publisher({"core": made_up(300)})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        index = writer.live.manifest.slices["core"].base[0].index
    assert index is not None
    path = tmp_path / f"catalog/packs/{index.number:08x}.pack"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(data if change == "flipped" else data[:100])
    with edged.open(tmp_path) as replica, Writer.open(tmp_path, "catalog") as writer:
        check(replica["catalog"].view(), films_of(publisher))
        assert writer.compact() > 0
        assert writer.live.manifest.slices["core"].base[0].index != index
        assert writer.compact() == 0
        check(replica["catalog"].view(), films_of(publisher))


def test_texts_are_folded_as_a_remote_control_types_them() -> None:
    assert terms.words("Amélie's Señor ŁÓDŹ, Straße") == ["amelies", "senor", "lodz", "strasse"]
    assert terms.words("S.W.A.T. 2000-2001 Æon") == ["swat", "2000", "2001", "aeon"]
    assert terms.words("千と千尋 Spirited") == ["千", "と", "千", "尋", "spirited"]
    assert terms.words(" _—! ") == []


def test_conditions_tell_kinds_apart_but_take_text_for_any() -> None:
    record = {"a": [1, "1", True, None, 2.0, 2.5], "b": {"c": [{"d": "x"}, {"d": 7}]}, "e.f": "dotted"}
    assert terms.record_terms(record, "a") == {b"n1", b"s1", b"btrue", b"znull", b"n2", b"n2.5"}
    assert terms.record_terms(record, "b.c.d") == {b"sx", b"n7"}
    assert terms.record_terms(record, "e.f") == {b"sdotted"}
    assert terms.wanted_terms(("1", 1)) == (b"s1", b"n1")
    assert terms.wanted_terms("1") == (b"s1",)
    assert terms.wanted_terms(1) == (b"n1",)
    assert terms.wanted_terms([1]) == ()
