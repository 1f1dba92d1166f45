"""The made-up catalogue: the same everywhere, consistent within itself, small in memory, and edited sensibly."""

from __future__ import annotations

import hashlib
import itertools
import tomllib
import tracemalloc
from datetime import date, datetime
from typing import Any

import pytest

from edged.demo import madeup
from edged.demo.catalogue import DATASET_TOML, Edit, catalogue, edits
from edged.demo.madeup import SCHEDULE_DAYS, CatalogueSpec
from edged.feed import cbor, names

Records = dict[tuple[str, str], Any]


def whole(titles: int, seed: int = 1) -> Records:
    return {(collection, key): value for collection, key, value in catalogue(titles, seed)}


def apply(records: Records, changes: list[Edit]) -> None:
    for edit in changes:
        if edit.value is None:
            del records[edit.collection, edit.key]
        else:
            records[edit.collection, edit.key] = edit.value


def test_a_seed_gives_the_same_catalogue_on_every_machine() -> None:
    sums = hashlib.sha256()
    for collection, key, value in catalogue(50, 7):
        sums.update(cbor.encode([collection, key, value]))
    assert sums.hexdigest() == "0e3b79978b020df936e7c87fee942fefa6cae8848fb41780df0fdcd6dcd6e78a"
    assert whole(50, 7) != whole(50, 8)


@pytest.mark.parametrize("titles", [1, 3, 8, 40, 700])
def test_every_record_has_its_own_valid_key_and_canonical_form(titles: int) -> None:
    seen = set()
    for collection, key, value in catalogue(titles):
        names.check_collection(collection)
        names.check_key(key)
        cbor.encode_record(value, key)
        seen.add((collection, key))
    assert len(seen) == CatalogueSpec(titles, 1).records


def test_no_titles_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 title, got 0"):
        next(catalogue(0))


def test_two_hundred_thousand_titles_have_two_hundred_thousand_keys() -> None:
    # Names come from the number without a table of those taken; far apart numbers must not meet.

    spec = CatalogueSpec(10_000_000, 1)
    english = {madeup.title_names(spec, number)[0] for number in range(0, 10_000_000, 50)}
    assert len(english) == 200_000


def test_the_stream_does_not_hold_what_it_has_yielded() -> None:
    stream = catalogue(1_000_000)
    consumed = sum(1 for _ in itertools.islice(stream, 2_000))
    tracemalloc.start()
    consumed += sum(1 for _ in itertools.islice(stream, 6_000))
    grown, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert consumed == 8_000
    assert grown < 1 << 20
    assert peak < 4 << 20


def test_references_lead_to_records() -> None:
    records = whole(900)
    titles = [(key, value) for (collection, key), value in records.items() if collection == "titles"]
    for _, value in titles:
        assert len(value["cast"]) == len(value["credits"]) >= 1
        for name, credit in zip(value["cast"], value["credits"], strict=True):
            assert records["people", credit["person"]]["name"] == name
    rows = [value for (collection, _), value in records.items() if collection == "rows"]
    for row in rows:
        for key in row["titles"]:
            # A row must not show what its region has no licence for.
            assert records["titles", key].get("region") == row.get("region")
    schedules = [value for (collection, _), value in records.items() if collection == "schedule"]
    for day in schedules:
        assert ("channels", day["channel"]) in records
        assert all(("titles", slot["title"]) in records for slot in day["programmes"] if "title" in slot)


def test_a_channels_day_has_no_gaps_and_starts_on_the_day_asked_for() -> None:
    first_day = date(2030, 12, 30)
    days = [value for collection, _, value in catalogue(5, first_day=first_day) if collection == "schedule"]
    assert len({day["date"] for day in days}) == SCHEDULE_DAYS
    assert min(day["date"] for day in days) == "2030-12-30"
    for day in days:
        slots = day["programmes"]
        assert all(before["end"] == after["start"] for before, after in itertools.pairwise(slots))
        span = datetime.fromisoformat(slots[-1]["end"]) - datetime.fromisoformat(slots[0]["start"])
        assert span.total_seconds() == 24 * 3600


@pytest.mark.parametrize("titles", [1, 5, 60, 400])
def test_edits_apply_one_after_the_other_and_keep_the_catalogue_consistent(titles: int) -> None:
    records = whole(titles)
    kinds = set()
    for changes in itertools.islice(edits(titles), 1_500):
        assert 1 <= len(changes) <= 60
        assert len({(edit.collection, edit.key) for edit in changes}) == len(changes)
        before = {(edit.collection, edit.key): records.get((edit.collection, edit.key)) for edit in changes}
        assert any(before[edit.collection, edit.key] != edit.value for edit in changes)
        apply(records, changes)
        kinds |= {edit.why for edit in changes}
    assert {"votes counted", "programme replaced", "synopsis corrected", "licence extended", "title added"} <= kinds
    shown = {key for (collection, _), value in records.items() if collection == "rows" for key in value["titles"]}
    assert all(("titles", key) in records for key in shown)
    assert titles - 60 <= sum(1 for collection, _ in records if collection == "titles") <= titles + 110


def test_edits_are_repeatable_and_small() -> None:
    first, again = (list(itertools.islice(edits(3_000, 4), 300)) for _ in range(2))
    assert first == again
    assert first != list(itertools.islice(edits(3_000, 5), 300))
    assert sum(len(changes) for changes in first) / len(first) < 15


def test_the_dataset_file_declares_collections_that_exist() -> None:
    declared = tomllib.loads(DATASET_TOML)
    records = whole(400)
    by_collection: dict[str, list[Any]] = {}
    for (collection, _), value in records.items():
        by_collection.setdefault(collection, []).append(value)
    for collection, entry in declared["collections"].items():
        for field in (*entry.get("index", ()), *entry.get("text", ())):
            assert all(field in value for value in by_collection[collection]), f"{collection}.{field}"
    for rule in declared["slices"].values():
        wanted = set(rule["where"]["region"])
        assert any(wanted & set(value.get("region", ())) for value in by_collection["titles"])
    for collection, rule in declared["views"]["stb-basic"].items():
        for path in rule["fields"]:
            value = by_collection[collection][0]
            for step in path.split("."):
                value = value[step]
            assert value
