"""Publishing and following: what a device reconstructs from the public files alone is what was published."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edged.errors import BusyError, ConfigError, OriginError, StoreError, ValidationError
from edged.feed import cbor
from edged.files import locked
from edged.origin import history
from edged.origin.publisher import Publisher, PublishOptions
from edged.origin.release import CORE_HOPS, KEPT_VERSIONS, OTHERS_BYTES
from tests.origin.conftest import Clock
from tests.origin.devices import Device

Films = list[tuple[str, str, dict[str, Any]]]


def films(count: int, **more: Any) -> Films:
    return [("titles", f"t{number:05d}", film(number) | more) for number in range(count)]


def film(number: int) -> dict[str, Any]:
    return {"title": f"Film {number}", "year": 1950 + number % 70, "text": words(number)}


def words(number: int) -> str:
    chance = random.Random(number)
    return " ".join("".join(chance.choices("abcdefgh", k=chance.randrange(3, 9))) for _ in range(25))


def edit(number: int, **more: Any) -> tuple[str, str, dict[str, Any]]:
    return "titles", f"t{number:05d}", {"title": f"Film {number}", "edited": True, **more}


def test_a_device_reads_what_was_published_and_takes_an_edit_as_an_inlined_hop(publisher: Publisher) -> None:
    first = publisher.publish("catalog", films(300))
    device = Device(publisher.path, "catalog")
    device.sync()
    assert (first.version, first.added, device.version) == (1, 300, 1)
    assert device.value("titles", "t00007") == films(300)[7][2]
    result = publisher.publish("catalog", [*films(299), edit(299)])
    assert (result.version, result.added, result.changed, result.removed) == (2, 0, 1, 0)
    device.fetched.clear()
    device.sync()
    assert device.fetched == []  # all that was needed came with the head
    assert device.value("titles", "t00299") == edit(299)[2]
    assert result.hop_bytes * 20 < result.snapshot_bytes


def test_hops_of_slices_that_only_some_carry_weigh_little_on_all_others(publisher: Publisher) -> None:
    names = [f"s{number}" for number in range(8)]
    (publisher.path / "catalog.toml").write_text("".join(f'[slices.{n}]\nwhere = {{ of = "{n}" }}\n' for n in names))
    records = [("titles", f"{n}-{k}", {"title": words(k), "of": n}) for n in [*names, "core"] for k in range(9)]
    publisher.publish("catalog", records)
    everywhere = Device(publisher.path, "catalog", slices=("core", *names))
    everywhere.sync()
    changed = [
        (c, key, {**value, "title": words(700 + n)}) for n, (c, key, value) in enumerate(records) if key[-1] in "37"
    ]
    publisher.publish_changes("catalog", changed)
    slices = everywhere.head().slices
    inlined = {n: hop.blob.size for n, item in slices.items() for hop in item.hops if hop.inline is not None}
    others = [size for name, size in inlined.items() if name != "core"]
    left = min(hop.blob.size for n, item in slices.items() if n not in inlined for hop in item.hops)
    assert "core" in inlined
    assert 0 < sum(others) <= OTHERS_BYTES < sum(others) + left
    everywhere.sync()
    content = everywhere.held["s3"][1]
    assert cbor.decode(content["titles", "s3-7"], "s3-7") == next(v for _, key, v in changed if key == "s3-7")


def test_a_head_names_few_hops_of_slices_that_only_some_carry(publisher: Publisher) -> None:
    """Who carries none of them receives some 30 bytes of each, and what the changed one inlines."""
    names = [f"s{number}" for number in range(8)]
    (publisher.path / "catalog.toml").write_text("".join(f'[slices.{n}]\nwhere = {{ of = "{n}" }}\n' for n in names))
    records = [("titles", f"{n}-{k}", {"n": k, "of": n}) for n in [*names, "core"] for k in range(9)]
    publisher.publish("catalog", records)
    device = Device(publisher.path, "catalog")

    def others() -> dict[str, list[int]]:
        found = device.head().slices
        return {name: [hop.from_version for hop in item.hops] for name, item in found.items() if name != "core"}

    for step in (1, 2, 3):
        changed = [("titles", f"{n}-1", {"n": 40 + step, "of": n}) for n in [*names, "core"]]
        publisher.publish_changes("catalog", changed)
    assert others() == {name: [3] for name in names}
    core = next(hop for hop in device.head().slices["core"].hops if hop.inline is not None)
    for step in range(KEPT_VERSIONS):
        assert others()["s4"] == [3]
        slices = device.head().slices
        assert slices["core"].hops == ((core,) if step else slices["core"].hops)  # as it was, so that little differs
        publisher.publish_changes("catalog", [("titles", "s3-1", {"n": 70 + step, "of": "s3"})])
    assert others() == {**{name: [] for name in names}, "s3": [3 + KEPT_VERSIONS]}
    slices = device.head().slices
    assert slices["core"].hops == ()
    weight = len(cbor.encode({n: [s.version, s.digest, s.records, []] for n, s in slices.items() if n != "core"}))
    assert weight <= 8 * 30
    behind = Device(publisher.path, "catalog", slices=("core", "s4"))
    behind.sync()
    assert behind.held["s4"][0] == 4


def test_a_head_names_the_hops_of_core_from_the_last_changes(publisher: Publisher) -> None:
    publisher.publish("catalog", films(30))
    for number in range(32):
        publisher.publish_changes("catalog", [edit(number % 7, n=number)])
    head = Device(publisher.path, "catalog").head()
    assert [head.version - hop.from_version for hop in head.slices["core"].hops] == [1]
    publisher.publish_changes("catalog", [("titles", "t00005", None)])
    for _ in range(15):
        publisher.publish_changes("catalog", [edit(3, n=head.version + _)])
    head = Device(publisher.path, "catalog").head()
    back = [head.version - hop.from_version for hop in head.slices["core"].hops]
    assert len(back) <= CORE_HOPS
    assert max(back) <= 2 ** (CORE_HOPS - 1)


def test_whole_states_and_edits_lead_to_the_same_content(publisher: Publisher) -> None:
    publisher.publish("whole", films(50))
    publisher.publish("edits", films(50))
    publisher.publish("whole", [*films(48), edit(48), edit(70)])
    publisher.publish_changes("edits", [edit(48), edit(70), ("titles", "t00049", None), ("titles", "nowhere", None)])
    contents = []
    for dataset in ("whole", "edits"):
        device = Device(publisher.path, dataset)
        device.sync()
        contents.append(device.held["core"][1])
    assert contents[0] == contents[1]


def test_nothing_changed_signs_the_same_version_anew(publisher: Publisher, clock: Clock) -> None:
    publisher.publish("catalog", films(20))
    device = Device(publisher.path, "catalog")
    before = device.sync()
    clock.now += 500
    result = publisher.publish("catalog", films(20))
    after = device.sync()
    assert result.unchanged
    assert (before.version, after.version, after.signed_at - before.signed_at) == (1, 1, 500)


def test_a_clock_that_goes_back_never_signs_an_older_time(publisher: Publisher, clock: Clock) -> None:
    publisher.publish("catalog", films(3))
    signed_at = Device(publisher.path, "catalog").sync().signed_at
    clock.now -= 5000
    publisher.publish_changes("catalog", [edit(1)])
    assert Device(publisher.path, "catalog").sync().signed_at == signed_at


def test_any_retained_version_reaches_the_head_by_few_hops(publisher: Publisher) -> None:
    publisher.publish("catalog", films(400))
    device = Device(publisher.path, "catalog")
    left_behind: list[Device] = []
    chance = random.Random(3)
    for number in range(36):
        device.sync()
        left_behind.append(copy.copy(device))
        left_behind[-1].held = dict(device.held)
        publisher.publish_changes("catalog", [edit(chance.randrange(450), n=number), edit(500 + number)])
    for behind in left_behind[::3]:
        behind.fetched, behind.snapshots = [], 0
        behind.sync()
        assert behind.version == 37
        assert len(behind.fetched) <= 10
    assert sum(behind.snapshots for behind in left_behind[::3]) == 0


def test_random_edits_over_slices_always_reach_devices_of_any_slices(publisher: Publisher) -> None:
    (publisher.path / "catalog.toml").write_text(
        '[slices.br]\nwhere = { region = ["BR", "*"] }\n[slices.kids]\nwhere = { rating = "U", kids = [true] }\n'
    )
    chance = random.Random(11)
    state: dict[str, dict[str, Any]] = {}
    devices = [Device(publisher.path, "catalog", slices) for slices in (("core",), ("br",), ("br", "core", "kids"))]
    for number in range(20):
        edits: list[tuple[str, str, dict[str, Any] | None]] = []
        for key in sorted({f"k{chance.randrange(60)}" for _ in range(chance.randrange(1, 9))}):
            value = None
            if chance.random() < 0.8:
                region: Any = chance.choice(["BR", "DE", "*", ["DE", "BR"], None])
                value = {"n": number, "region": region, "rating": chance.choice("UX"), "kids": chance.random() < 0.5}
            edits.append(("titles", key, value))
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value
        publisher.publish_changes("catalog", edits)
        for device in devices:
            if chance.random() < 0.5:
                device.sync()
    for device in devices:
        device.sync()
    wanted: dict[str, set[str]] = {"core": set(), "br": set(), "kids": set()}
    for key, value in state.items():
        regions = value["region"] if isinstance(value["region"], list) else [value["region"]]
        names = ["br"] if {"BR", "*"} & set(regions) else []
        names += ["kids"] if value["kids"] and value["rating"] == "U" else []
        for name in names or ["core"]:
            wanted[name].add(key)
    for device in devices:
        assert {name: device.keys(name) for name in device.slices} == {name: wanted[name] for name in device.slices}


def test_changed_slice_rules_move_records_without_an_input_that_changes_them(publisher: Publisher) -> None:
    records = [("titles", f"k{number}", {"region": "BR" if number % 3 == 0 else "DE"}) for number in range(30)]
    publisher.publish("catalog", records)
    device = Device(publisher.path, "catalog")
    device.sync()
    (publisher.path / "catalog.toml").write_text('[slices.br]\nwhere = { region = "BR" }\n')
    result = publisher.publish("catalog", records)
    assert (result.version, result.unchanged, result.changed) == (2, False, 0)
    device.slices = ("core", "br")
    device.sync()
    assert (len(device.keys("core")), len(device.keys("br"))) == (20, 10)
    (publisher.path / "catalog.toml").unlink()
    publisher.publish("catalog", records, PublishOptions(allow_removals=True))
    device.slices = ("core",)
    assert set(device.sync().slices) == {"core"}
    assert len(device.keys()) == 30


def test_a_slice_that_nothing_is_in_has_version_0_and_can_be_carried(publisher: Publisher) -> None:
    (publisher.path / "catalog.toml").write_text('[slices.br]\nwhere = { region = "BR" }\n')
    publisher.publish("catalog", films(5))
    device = Device(publisher.path, "catalog", ("core", "br"))
    head = device.sync()
    assert (head.slices["br"].version, head.slices["br"].records) == (0, 0)
    publisher.publish_changes("catalog", [("titles", "x", {"region": "BR"})])
    device.sync()
    assert device.keys("br") == {"x"}


def test_a_changed_schema_is_a_new_version_without_changed_slices(publisher: Publisher) -> None:
    publisher.publish("catalog", films(5))
    (publisher.path / "catalog.toml").write_text('[collections.titles]\nindex = ["year"]\n')
    publisher.publish("catalog", films(5))
    device = Device(publisher.path, "catalog")
    head = device.sync()
    assert (head.version, head.schema_version, head.slices["core"].version) == (2, 2, 1)
    assert device.chain(head).schema.collections["titles"].index == ("year",)


def test_rollback_brings_old_content_back_as_a_new_version(publisher: Publisher) -> None:
    publisher.publish("catalog", films(14))
    device = Device(publisher.path, "catalog")
    device.sync()
    first = device.held["core"][1]
    publisher.publish("catalog", [*films(10), edit(3000)])
    publisher.publish_changes("catalog", [edit(2)])
    result = publisher.rollback("catalog", 1)
    device.sync()
    assert (result.version, device.held["core"][1]) == (4, first)
    assert publisher.rollback("catalog", 3).version == 5
    with pytest.raises(OriginError, match="versions 1 to 5 are retained"):
        publisher.rollback("catalog", 9)


def test_a_takedown_stays_through_publishes_and_rollbacks_until_restore(publisher: Publisher) -> None:
    publisher.publish("catalog", films(10))
    device = Device(publisher.path, "catalog")
    publisher.takedown("catalog", "titles", ["t00003", "never-was"])
    device.sync()
    assert device.taken_down == {("titles", "t00003"), ("titles", "never-was")}
    publisher.publish("catalog", [*films(3), edit(3, take=2)], PublishOptions(allow_removals=True))
    publisher.rollback("catalog", 1)
    device.sync()
    assert ("titles", "t00003") in device.taken_down
    assert device.keys() == {f"t{number:05d}" for number in range(10)} - {"t00003"}
    result = publisher.restore("catalog", "titles", ["t00003"])
    device.sync()
    assert (result.added, device.taken_down) == (1, frozenset({("titles", "never-was")}))
    assert device.value("titles", "t00003") == edit(3, take=2)[2]  # the newest value that the publisher was given
    with pytest.raises(OriginError, match="not taken down"):
        publisher.restore("catalog", "titles", ["t00003"])


def test_a_record_that_is_removed_while_taken_down_does_not_come_back(publisher: Publisher) -> None:
    publisher.publish("catalog", films(10))
    publisher.takedown("catalog", "titles", ["t00003"])
    publisher.publish("catalog", [film for film in films(10) if film[1] != "t00003"])
    publisher.restore("catalog", "titles", ["t00003"])
    device = Device(publisher.path, "catalog")
    device.sync()
    assert device.value("titles", "t00003") is None
    assert len(device.keys()) == 9


def test_two_publishers_cannot_race(publisher: Publisher) -> None:
    publisher.publish("catalog", films(3))
    with locked(publisher.private / "state" / "catalog.lock", "dataset catalog"):
        with pytest.raises(BusyError, match="another publisher"):
            publisher.publish("catalog", films(4))
        assert publisher.publish("other", films(2)).version == 1  # another dataset is free
        with pytest.raises(BusyError):
            Publisher.open(publisher.path, wait_s=0.12).publish("catalog", films(4))
    assert publisher.publish("catalog", films(4)).version == 2


def test_the_rotation_of_the_key_waits_for_publishers(publisher: Publisher) -> None:
    with locked(publisher.private / "lock", "feed", shared=True), pytest.raises(BusyError):
        publisher.rotate_key()


def test_a_whole_state_without_records_is_refused_unless_meant(publisher: Publisher) -> None:
    publisher.publish("catalog", films(3))
    with pytest.raises(ValidationError, match="allow-empty"):
        publisher.publish("catalog", [])
    assert publisher.publish("catalog", [], PublishOptions(allow_empty=True)).removed == 3
    device = Device(publisher.path, "catalog")
    device.sync()
    assert device.keys() == set()


def test_a_refused_first_publish_leaves_no_trace_of_the_dataset(publisher: Publisher) -> None:
    with pytest.raises(ValidationError):
        publisher.publish("catalog", [("titles", "", {})])
    assert list(publisher.public.iterdir()) == []
    assert publisher.datasets() == []
    with pytest.raises(OriginError, match="none yet"):
        publisher.rollback("catalog", 1)


def test_a_record_that_occurs_twice_with_different_contents_is_refused(publisher: Publisher) -> None:
    with pytest.raises(ValidationError, match=r"record 3: titles/a is there twice .* first at record 1"):
        publisher.publish("catalog", [("titles", "a", {"n": 1}), ("titles", "b", {}), ("titles", "a", {"n": 2})])
    assert publisher.publish("catalog", [("titles", "a", {"n": 1}), ("titles", "a", {"n": 1})]).added == 1


def test_of_several_edits_of_one_record_the_last_counts(publisher: Publisher) -> None:
    publisher.publish("catalog", [("titles", key, {"n": 0}) for key in "abcd"])
    edits: list[tuple[str, str, Any]] = [
        *(("titles", key, {"n": number}) for number in range(1, 700) for key in "ab"),
        ("titles", "a", None),
        ("titles", "c", None),
        ("titles", "c", {"n": 5}),
        ("titles", "d", {"n": 9}),
        ("titles", "d", {"n": 0}),
    ]
    result = publisher.publish_changes("catalog", edits)
    assert (result.added, result.changed, result.removed) == (0, 2, 1)
    device = Device(publisher.path, "catalog")
    device.sync()
    assert [device.value("titles", key) for key in "abcd"] == [None, {"n": 699}, {"n": 5}, {"n": 0}]


def test_a_whole_state_without_most_of_a_collection_is_refused_unless_meant(publisher: Publisher) -> None:
    people = [("people", f"p{number}", {"n": number}) for number in range(4)]
    publisher.publish("catalog", [*films(10), *people])
    assert publisher.publish("catalog", [*films(5), *people]).removed == 5  # half is not more than half
    with pytest.raises(ValidationError, match=r"titles: 3 of 5 .* --changes .* --allow-removals") as caught:
        publisher.publish("catalog", [*films(2), *people])
    assert caught.value.exit_code == 3
    with pytest.raises(ValidationError, match="people: 4 of 4"):
        publisher.publish("catalog", films(300))  # however many come beside them
    assert publisher.publish("catalog", [*films(2), *people], PublishOptions(allow_removals=True)).removed == 3
    # Edits say themselves what goes.
    assert publisher.publish_changes("catalog", [("people", f"p{n}", None) for n in range(4)]).removed == 4


def test_a_slice_that_would_vanish_is_refused_unless_meant(publisher: Publisher) -> None:
    toml = publisher.path / "catalog.toml"
    toml.write_text('[slices.br]\nwhere = { region = "BR" }\n')
    publisher.publish("catalog", [*films(4), ("titles", "b", {"region": "BR"})])
    publisher.publish_changes("catalog", [edit(1)])
    toml.unlink()
    operations: list[Callable[[], object]] = [
        lambda: publisher.publish_changes("catalog", [edit(2)]),
        lambda: publisher.publish("catalog", films(5)),
        lambda: publisher.rollback("catalog", 1),
    ]
    for operation in operations:
        with pytest.raises(ValidationError, match=r"no slice br any more.*--allow-removals"):
            operation()
    publisher.takedown("catalog", "titles", ["t00003"])  # is not held up
    assert "br" not in Device(publisher.path, "catalog").head().slices
    assert publisher.publish_changes("catalog", [edit(2)], PublishOptions(allow_removals=True)).version == 4


def test_a_dry_run_says_what_would_come_of_it_and_writes_nothing(publisher: Publisher) -> None:
    def picture() -> dict[str, bytes]:
        files = (path for path in publisher.path.rglob("*") if path.is_file() and not path.name.endswith("lock"))
        return {str(path): path.read_bytes() for path in files if "state" not in path.parts[-2:]}

    before = picture()
    first = publisher.publish("catalog", films(60), PublishOptions(dry_run=True))
    assert (first.version, first.added, first.rehearsed) == (1, 60, True)
    assert first.snapshot_bytes > 1000
    assert publisher.datasets() == []
    assert picture() == before
    publisher.publish("catalog", films(60))
    with publisher.reading("catalog") as state:
        contents = list(state.db.iterdump())
    before = picture()
    rehearsed = publisher.publish_changes("catalog", [edit(3), edit(70)], PublishOptions(dry_run=True))
    assert picture() == before
    with publisher.reading("catalog") as state:
        assert list(state.db.iterdump()) == contents
    real = publisher.publish_changes("catalog", [edit(3), edit(70)])
    assert dataclasses.replace(rehearsed, rehearsed=False) == real
    assert publisher.publish_changes("catalog", [edit(3)], PublishOptions(dry_run=True)).unchanged
    with pytest.raises(ValidationError, match="--allow-removals"):
        publisher.publish("catalog", films(3), PublishOptions(dry_run=True))


def test_what_is_new_and_what_is_declared_of_nothing_is_said(publisher: Publisher) -> None:
    toml = publisher.path / "catalog.toml"
    toml.write_text(
        '[collections.titles]\nindex = ["year", "yeer"]\nrefs = { title = "people" }\n'
        '[slices.br]\nwhere = { "region.code" = "BR" }\n'
    )
    first = publisher.publish("catalog", films(3))
    assert first.hints == (
        "catalog is a new dataset, of titles",
        "collections.titles: no record has the field 'yeer'",
        "slices.br: no record has the field 'region.code'",
        "collections.titles.refs: 'title' holds keys of people, which has no records",
    )
    assert publisher.publish_changes("catalog", [edit(1)]).hints == ()
    assert publisher.publish_changes("catalog", [("titels", "x", {})]).hints[0] == (
        "collection titels is new in catalog: 1 record"
    )
    two = publisher.publish_changes("catalog", [("people", key, {}) for key in "ab"])
    assert two.hints[0] == "collection people is new in catalog: 2 records"
    publisher.publish_changes("catalog", [("titles", "x", {"yeer": None, "region": {"code": 1}})])
    toml.write_text(toml.read_text().replace("yeer", "text"))
    assert publisher.publish_changes("catalog", []).hints == ()


def test_a_message_is_kept_in_the_log(publisher: Publisher) -> None:
    publisher.publish("catalog", films(3), PublishOptions(message="the first of many: ü"))
    publisher.publish_changes("catalog", [edit(1)])
    with publisher.reading("catalog") as state:
        assert [item["message"] for item in history.versions(state)] == ["the first of many: ü", ""]


def test_a_dataset_that_has_shrunk_gets_a_snapshot_where_that_is_cheaper(publisher: Publisher) -> None:
    publisher.publish("catalog", films(400))

    def snapshot() -> int:
        device = Device(publisher.path, "catalog")
        return device.chain(device.head()).slices["core"].snapshots[0].version

    publisher.publish_changes("catalog", [("titles", f"t{number:05d}", None) for number in range(60)])
    assert snapshot() == 1  # a sixth less to fetch is not worth a new one
    publisher.publish_changes("catalog", [("titles", f"t{number:05d}", None) for number in range(60, 300)])
    assert snapshot() == 3


def test_a_state_older_than_the_public_head_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish("catalog", films(3))
    database = publisher.private / "state" / "catalog.db"
    backup = database.read_bytes()
    publisher.publish("catalog", films(4))
    database.write_bytes(backup)
    with pytest.raises(StoreError, match="public head is version 2"):
        publisher.publish("catalog", films(5))


def test_the_dataset_file_governs_freshness_and_refuses_unknown_keys(publisher: Publisher) -> None:
    toml = publisher.path / "catalog.toml"
    toml.write_text('[freshness]\nfresh = "10m"\nexpires = "2h"\n')
    publisher.publish("catalog", films(3))
    head = Device(publisher.path, "catalog").sync()
    assert (head.fresh_s, head.expires_s) == (600, 7200)
    toml.write_text('[collections.titles]\nindexes = ["year"]\n[retention]\nversions = "many"\n')
    with pytest.raises(ConfigError, match=r"line 2: .*did you mean 'index'") as caught:
        publisher.publish("catalog", films(4))
    assert len(caught.value.faults) == 2
    assert Device(publisher.path, "catalog").sync().version == 1


def test_the_log_tells_what_changed_and_what_a_field_costs(publisher: Publisher) -> None:
    publisher.publish("catalog", films(60, seen="0"))
    for day in range(1, 4):
        stamped = films(60, seen=f"2026-01-{day:02d}T00:00:00Z/{day * 7919}")
        stamped[5][2]["title"] = f"Renamed {day}"
        publisher.publish("catalog", [*stamped[:40], ("people", "p", {"name": "Ann"})])
    with publisher.reading("catalog") as state:
        versions = history.versions(state)
        changes = list(history.changes(state, 1, 4))
        costs = history.costs(state, 1, 4)
        last, none = history.costs(state, 3, 4), history.costs(state, 4, 4)
    assert [item["version"] for item in versions] == [1, 2, 3, 4]
    assert (versions[1]["added"], versions[1]["changed"], versions[1]["removed"]) == (1, 40, 20)
    spent = sum(item["slices"]["core"]["hop_bytes"] for item in versions[1:])
    assert sum(cost.bytes for cost in costs) == pytest.approx(spent)
    assert sum(cost.bytes for cost in last) == pytest.approx(versions[3]["slices"]["core"]["hop_bytes"])
    assert none == []
    by_field = {(cost.collection, cost.field): cost for cost in costs}
    assert by_field["titles", "seen"].changes == 120
    assert by_field["titles", "seen"].bytes > 10 * by_field["titles", "title"].bytes
    assert [change.change for change in changes].count("removed") == 20
    assert next(change.fields for change in changes if change.key == "t00005") == ["seen", "title"]
