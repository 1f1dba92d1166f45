"""What is read equals what was published: gets, lists, conditions, search and changes, through snapshots and hops."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import edged
from edged.errors import BusyError, ChainError, DamageError, QueryError, StoreError
from edged.feed import cbor
from edged.feed.blob import BlobRef
from edged.replica.layers.fieldpaths import FieldPaths
from edged.replica.layers.layers import pack_names, unpack_names
from edged.replica.reader import covers
from edged.replica.view import View
from edged.replica.writer import Writer
from tests.replica.feeds import Publisher, filled, made_up


def test_every_record_reads_as_published_after_a_snapshot_and_hops(tmp_path: Path) -> None:
    publisher = filled(tmp_path, 500, hops=30)
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.hop_into(writer, 20, random.Random(3), coded=True)
        assert writer.status().slices["core"].digest == publisher.digest("core")[0]
    with edged.open(tmp_path) as replica:
        catalog = replica["catalog"]
        assert catalog.version == 32
        assert sorted(catalog) == ["people", "titles"]
        for name, collection in catalog.items():
            expected = {key: value for (held, key), value in publisher.slices["core"].items() if held == name}
            assert len(collection) == len(expected)
            assert list(collection) == sorted(expected, key=str.encode)
            assert {key: collection.get_raw(key) for key in expected} == expected
            assert dict(collection.items()) == {key: cbor.decode(data, "test") for key, data in expected.items()}
            assert collection.get_many([*expected, "missing"])[-2:] == [
                cbor.decode(list(expected.values())[-1], ""),
                None,
            ]


def test_missing_keys_are_missing_and_never_raise(tmp_path: Path) -> None:
    filled(tmp_path, 100, hops=3)
    with edged.open(tmp_path) as replica:
        titles = replica["catalog"]["titles"]
        for key in ("", "x", "1950", "1950/000000x", "é" * 300, "k" * 100_000, "\ud800", "1950/\udfff"):
            assert titles.get_raw(key) is None
            assert key not in titles
        with pytest.raises(KeyError):
            titles["nothing"]
        with pytest.raises(KeyError):
            replica["catalog"]["nothing"]
        with pytest.raises(KeyError):
            replica["nothing"]


def test_prefix_and_after_page_through_in_key_order(tmp_path: Path) -> None:
    publisher = filled(tmp_path, 500, hops=10)
    keys = sorted((key for name, key in publisher.slices["core"] if name == "titles"), key=str.encode)
    with edged.open(tmp_path) as replica:
        titles = replica["catalog"]["titles"]
        assert [key for key, _ in titles.items(prefix="1994/")] == [key for key in keys if key.startswith("1994/")]
        paged: list[str] = []
        while page := [key for key, _ in titles.items(after=paged[-1] if paged else None, limit=7)]:
            paged += page
        assert paged == keys
        assert [key for key, _ in titles.items(prefix="1994/", after="1994/000100")] == [
            key for key in keys if key.startswith("1994/") and key > "1994/000100"
        ]


def test_changes_since_any_version_bring_an_old_copy_up_to_date(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(300)})
    chance = random.Random(5)
    copies = {}
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        for _ in range(12):
            copies[publisher.version] = dict(publisher.slices["core"])
            publisher.hop_into(writer, 8, chance)
    with edged.open(tmp_path) as replica:
        view = replica["catalog"].view()
        assert view.changes_from == 1
        for since, copy in copies.items():
            changes = list(view.changes(since))
            order = [(change.version, change.collection, change.key) for change in changes]
            assert order == sorted(order)
            assert len({item[1:] for item in order}) == len(order)
            assert all(since < change.version <= view.version for change in changes)
            for change in changes:
                if change.value is None:
                    copy.pop((change.collection, change.key), None)
                else:
                    copy[change.collection, change.key] = change.value
            assert copy == publisher.slices["core"]
        assert list(view.changes(view.version)) == []
        for unknown in (0, view.version + 1):
            with pytest.raises(ChainError, match=f"known from 1 to {view.version}; read everything anew"):
                view.changes(unknown)


def test_taken_down_records_are_hidden_on_every_path_and_come_back(tmp_path: Path) -> None:
    publisher = filled(tmp_path, 200)
    hidden = ("titles", "1950/000000")
    title = cbor.decode(publisher.slices["core"][hidden], "test")["title"]
    with edged.open(tmp_path) as replica, Writer.open(tmp_path, "catalog") as writer:
        titles = replica["catalog"]["titles"]
        assert hidden[1] in titles
        before = len(titles)
        with writer.stage() as staging:
            staging.set_takedowns(b"signed list", [hidden])
            staging.commit(2, b"head", as_of=2, fresh_s=1, expires_s=1)
        assert replica["catalog"].view().is_taken_down(*hidden)
        assert titles.get_raw(hidden[1]) is None
        assert len(titles) == before - 1
        assert hidden[1] not in list(titles)
        assert hidden[1] not in [key for key, _ in titles.where(year=1950)]
        assert hidden[1] not in [key for key, _ in titles.search(title)]
        change = next(replica["catalog"].changes(1))
        assert (change.collection, change.key, change.value, change.version) == (*hidden, None, 2)
        assert writer.status().takedowns == b"signed list"
        with writer.stage() as staging:
            staging.set_takedowns(None, [])
            staging.commit(3, b"head", as_of=3, fresh_s=1, expires_s=1)
        assert titles.get_raw(hidden[1]) == publisher.slices["core"][hidden]
        change = next(replica["catalog"].changes(2))
        assert (change.key, change.value, change.version) == (hidden[1], publisher.slices["core"][hidden], 3)


def test_conditions_and_search_find_what_a_full_scan_finds(tmp_path: Path) -> None:
    publisher = filled(tmp_path, 500, hops=5)
    films = {key: cbor.decode(value, "") for (name, key), value in publisher.slices["core"].items() if name == "titles"}
    with edged.open(tmp_path) as replica:
        titles = replica["catalog"]["titles"]
        assert [key for key, _ in titles.where(year=1994)] == sorted(
            key for key, film in films.items() if film["year"] == 1994
        )
        assert [key for key, _ in titles.where(year=(1994, 1995), genres="Noir")] == sorted(
            key for key, film in films.items() if film["year"] in (1994, 1995) and "Noir" in film["genres"]
        )
        assert list(titles.where(year=1)) == []
        with pytest.raises(QueryError, match="no index"):
            titles.where(extract="x").__next__()
        with pytest.raises(QueryError, match="no text fields"):
            replica["catalog"]["people"].search("x")
        found = titles.search("senor caf", limit=1000)
        words = {
            key
            for key, film in films.items()
            if all(any(w in (part.lower()) for part in [film["title"], *film["cast"]]) for w in ("señor", "café"))
        }
        assert {key for key, _ in found} == words
        assert titles.search("") == []


def test_one_version_stays_while_others_land(tmp_path: Path) -> None:
    publisher = filled(tmp_path, 200)
    chance = random.Random(9)
    with edged.open(tmp_path) as replica, Writer.open(tmp_path, "catalog") as writer:
        titles = replica["catalog"]["titles"]
        old = dict(publisher.slices["core"])
        with replica.at_version():
            for _ in range(5):
                publisher.hop_into(writer, 20, chance)
            assert replica["catalog"].version == 1
            assert dict(titles.dataset.view().scan("titles")) == {k: v for (n, k), v in old.items() if n == "titles"}
        assert replica["catalog"].version == 6
        assert {("titles", key): titles.get_raw(key) for key in titles} == {
            name: value for name, value in publisher.slices["core"].items() if name[0] == "titles"
        }


def test_second_writer_is_refused_with_advice(tmp_path: Path) -> None:
    with Writer.open(tmp_path, "catalog"), pytest.raises(BusyError, match="another process writes there"):
        Writer.open(tmp_path, "catalog")
    Writer.open(tmp_path, "catalog").close()


def test_nothing_synced_yet_says_so(tmp_path: Path) -> None:
    with edged.open(tmp_path) as replica:
        assert list(replica) == []
    with pytest.raises(StoreError):
        edged.open(tmp_path / "missing")


def test_status_pin_roots_and_touch_survive_reopening(tmp_path: Path) -> None:
    publisher = filled(tmp_path, 50, hops=1)
    with Writer.open(tmp_path, "catalog") as writer:
        writer.set_roots(b"root 3")
        writer.pin(2)
        assert writer.touch_head(b"newer head", as_of=99, fresh_s=5, expires_s=6) <= 8192
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        held = writer.status()
        assert (held.version, held.head, held.roots, held.pinned, held.last_signed_at) == (
            2, b"newer head", b"root 3", 2, 99,
        )  # fmt: skip
        assert (held.slices["core"].digest, held.slices["core"].records) == publisher.digest("core")
        assert held.slices["core"].damaged is None
        view = replica["catalog"].view()
        assert (view.as_of, view.fresh_s, view.expires_s, view.head) == (99, 5, 6, b"newer head")
        publisher.hop_into(writer, 1, random.Random(1))
        assert replica["catalog"].view().head == b"head 3"


def test_parts_on_disk_survive_a_restart_and_are_not_fetched_again(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(300)})
    part = publisher.parts("core")[0]
    ref = BlobRef.of(part)
    with Writer.open(tmp_path, "catalog") as writer, writer.stage() as staging:
        staging.begin_snapshot("core", 1, publisher.dictionaries["core"])
        assert not staging.has_part("core", ref)
        staging.add_part("core", ref, part)
    with Writer.open(tmp_path, "catalog") as writer, writer.stage() as staging:
        assert writer.status().version == 0
        staging.begin_snapshot("core", 1, publisher.dictionaries["core"])
        assert staging.has_part("core", ref)
        assert staging.digest("core") == publisher.digest("core")
        staging.commit(1, b"head", as_of=1, fresh_s=1, expires_s=1)
        assert list((tmp_path / "catalog/staging").iterdir()) == []
    with edged.open(tmp_path) as replica:
        assert len(replica["catalog"]["titles"]) == 300


def test_a_processor_with_the_other_order_of_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, 20)
    monkeypatch.setattr(sys, "byteorder", "big")
    with edged.open(tmp_path) as replica, pytest.raises(StoreError, match="big-endian, expected little-endian"):
        replica["catalog"]
    with pytest.raises(StoreError, match="big-endian"):
        Writer.open(tmp_path, "catalog")


def test_names_of_changes_are_packed_in_the_order_of_their_versions() -> None:
    names = {
        ("titles", "b"): 2,
        ("people", "ü/ 1\n%"): 10,
        ("titles", "a"): 2,
        ("people", "z"): 2,
        ("titles", "k" * 512): 1,
    }
    packed = pack_names(names)
    assert list(unpack_names(packed)) == [
        (1, "titles", "k" * 512),
        (2, "people", "z"),
        (2, "titles", "a"),
        (2, "titles", "b"),
        (10, "people", "ü/ 1\n%"),
    ]
    assert list(unpack_names(pack_names({}))) == []
    many = {("titles", f"1994/Film_{number:06}"): 7 for number in range(1000)}
    assert len(pack_names(many)) < 40 * 1000


def test_a_collections_paths_are_looked_for_in_its_own_records_alone(tmp_path: Path) -> None:
    filled(tmp_path, 30)
    with edged.open(tmp_path) as replica:
        (layers,) = replica["catalog"].view().layers
        paths = FieldPaths(layers.base[0], "people")  # titles come right behind them
        assert paths.look(["name", "title", "number"]) == ["title"]
        assert paths.is_whole


def test_a_whole_view_covers_what_cannot_be_read_at_the_moment(tmp_path: Path) -> None:
    filled(tmp_path, 30)
    with edged.open(tmp_path) as replica:
        view = replica["catalog"].view()
    others = SimpleNamespace(version=2, broken={"core": DamageError("Input/output error")}, slices=view.slices)
    more = SimpleNamespace(version=2, broken=others.broken, slices={**view.slices, "kids": None})
    assert covers(view, cast(View, others))
    assert not covers(cast(View, others), view)
    assert not covers(view, cast(View, more))
    assert not covers(cast(View, SimpleNamespace(version=0, broken={}, slices={})), cast(View, others))
