"""Old blobs go when nothing needs them any more, and never before."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.errors import OriginError
from edged.feed.chain import decode_chain
from edged.origin.publisher import Publisher
from edged.origin.retention import named_blobs
from tests.origin.conftest import Clock
from tests.origin.devices import Device
from tests.origin.test_publish import edit, film, films, words

RULES = '[retention]\nversions = 8\ngrace = "1h"\nchains = "10m"\n'


def blobs(publisher: Publisher) -> set[str]:
    return {path.name for path in (publisher.public / "catalog" / "blobs").iterdir()}


def needed(publisher: Publisher) -> set[str]:
    device = Device(publisher.path, "catalog")
    head = device.head()
    data = (publisher.public / "catalog" / "blobs" / head.chain.name).read_bytes()
    return {sha256.hex() for sha256 in named_blobs(head, [decode_chain(data)])}


def test_blobs_outlive_their_last_mention_by_the_grace_period_and_no_longer(publisher: Publisher, clock: Clock) -> None:
    (publisher.path / "catalog.toml").write_text(RULES)
    publisher.publish("catalog", films(60))
    last_named: dict[str, float] = {}
    for number in range(30):
        clock.now += 300
        publisher.publish_changes("catalog", [edit(number % 60, n=number, text=words(number))])
        there, named = blobs(publisher), needed(publisher)
        assert named <= there
        for name in there:  # some are named only between an edit and the snapshot that it brought about
            if name in named or name not in last_named:
                last_named[name] = clock.now
        assert max(clock.now - last_named[name] for name in there) <= 3600 + 300
        gone = last_named.keys() - there
        assert min((clock.now - last_named.pop(name) for name in gone), default=600) >= 600
        fresh = Device(publisher.path, "catalog")
        fresh.sync()
        assert fresh.version == number + 2
    with publisher.reading("catalog") as state:
        assert len(state.version_rows()) <= 9
        assert next(state.rows("SELECT count(*) FROM journal"))[0] <= 8
        assert next(state.rows("SELECT count(*) FROM slices WHERE state NOT NULL"))[0] <= 8
    for _ in range(2):  # what the first names no more is gone after the second
        clock.now += 4000
        publisher.resign("catalog")
    assert blobs(publisher) - needed(publisher) == set()


def test_a_device_that_begins_with_an_old_head_finds_its_blobs_during_the_grace_period(
    publisher: Publisher, clock: Clock
) -> None:
    (publisher.path / "catalog.toml").write_text(RULES)
    publisher.publish("catalog", films(10))
    begun = Device(publisher.path, "catalog")
    head = begun.head()
    chain = begun.chain(head)
    for number in range(3):
        clock.now += 500
        rewritten = [
            (*item[:2], item[2] | {"text": words(number * 100 + at + 1000)}) for at, item in enumerate(films(10))
        ]
        publisher.publish("catalog", rewritten)
    begun.bring("core", head, chain)
    assert len(begun.keys()) == 10
    begun.sync()
    assert begun.version == 4


def test_versions_beyond_retention_cannot_be_rolled_back_to_and_devices_of_them_take_the_snapshot(
    publisher: Publisher, clock: Clock
) -> None:
    (publisher.path / "catalog.toml").write_text(RULES)
    publisher.publish("catalog", films(30))
    ancient = Device(publisher.path, "catalog")
    ancient.sync()
    for number in range(30):
        clock.now += 1000
        publisher.publish_changes("catalog", [edit(number % 30, text=words(number))])
    with pytest.raises(OriginError, match="versions 23 to 31 are retained"):
        publisher.rollback("catalog", 22)
    ancient.snapshots = 0
    ancient.sync()
    assert ancient.snapshots == 1
    publisher.rollback("catalog", 23)
    ancient.sync()
    assert ancient.version == 32


def test_parts_in_which_nothing_changed_are_the_same_blobs_in_the_next_snapshot(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edged.origin.blobs import snapshots

    monkeypatch.setattr(snapshots, "PART_CONTENT_BYTES", 5_000)
    publisher.publish("catalog", films(400))
    device = Device(publisher.path, "catalog")
    before = device.chain(device.head()).slices["core"].snapshots[0]
    rewritten = [("titles", f"t{number:05d}", film(number) | {"text": words(number + 5000)}) for number in range(120)]
    publisher.publish_changes("catalog", [*rewritten, ("titles", "t00300", None)])
    after = device.chain(device.head()).slices["core"].snapshots[0]
    assert (before.version, after.version) == (1, 2)
    kept = set(before.parts) & set(after.parts)
    assert len(kept) >= len(before.parts) * 0.6
    assert len(kept) <= len(before.parts) - 3
    device.sync()
    assert len(device.keys()) == 399


def test_a_snapshot_never_reuses_parts_from_before_the_journal_begins(publisher: Publisher, clock: Clock) -> None:
    (publisher.path / "catalog.toml").write_text(
        f'[slices.a]\nwhere = {{ part = "a" }}\n[slices.b]\nwhere = {{ part = "b" }}\n{RULES}'
    )
    publisher.publish("catalog", [("titles", f"{part}{n}", {"part": part, "n": n}) for part in "ab" for n in range(40)])
    publisher.publish_changes("catalog", [("titles", "a7", {"part": "a", "changed": True})])
    for number in range(20):
        clock.now += 1000
        publisher.publish_changes("catalog", [("titles", "b1", {"part": "b", "n": number})])
    publisher.publish_changes("catalog", [("titles", f"a{n}", {"part": "a", "text": words(n)}) for n in range(20, 40)])
    fresh = Device(publisher.path, "catalog", ("a",))
    fresh.sync()
    assert fresh.value("titles", "a7", "a") == {"part": "a", "changed": True}


def test_files_that_a_killed_publisher_left_are_swept(publisher: Publisher, tmp_path: Path) -> None:
    import os

    publisher.publish("catalog", films(60))
    directory = publisher.public / "catalog" / "blobs"
    strays = [directory / ("f" * 64), directory / ".tmp-1-x"]
    for path in strays:
        path.write_bytes(b"left behind")
        os.utime(path, (1, 1))
    young = directory / ("e" * 64)
    young.write_bytes(b"of a publisher that may still be at work")
    publisher.publish(
        "catalog", [(*item[:2], item[2] | {"text": words(at + 5000)}) for at, item in enumerate(films(60))]
    )
    assert [path.exists() for path in (*strays, young)] == [False, False, True]


def test_a_chain_and_other_blobs_go_exactly_when_their_grace_is_over(publisher: Publisher, clock: Clock) -> None:
    (publisher.path / "catalog.toml").write_text(RULES)
    publisher.publish("catalog", films(40))
    device = Device(publisher.path, "catalog")
    head = device.head()
    chain, part = head.chain.name, device.chain(head).slices["core"].snapshots[0].parts[0].name
    began = clock.now
    publisher.publish("catalog", [(*item[:2], {"text": words(at + 900)}) for at, item in enumerate(films(40))])
    # The snapshot before is listed until it is older than the grace period itself; from then on its parts have theirs.
    there: dict[str, float] = {}
    for after in (599, 600, 3600, 3601, 7200, 7201):
        clock.now = began + after
        publisher.resign("catalog")
        there |= {name: after for name in (chain, part) if name in blobs(publisher)}
    assert there == {chain: 599, part: 7200}


def test_as_many_versions_as_are_retained_can_be_gone_back_to(publisher: Publisher) -> None:
    (publisher.path / "catalog.toml").write_text("[retention]\nversions = 3\n")
    publisher.publish("catalog", films(10))
    for number in range(5):
        publisher.publish_changes("catalog", [edit(number)])
    with pytest.raises(OriginError, match="versions 3 to 6 are retained"):
        publisher.rollback("catalog", 2)
    with publisher.reading("catalog") as state:
        assert [row.version for row in state.version_rows()] == [3, 4, 5, 6]
        assert [row[0] for row in state.rows("SELECT DISTINCT version FROM journal ORDER BY 1")] == [4, 5, 6]
        kept = list(state.rows("SELECT version FROM slices WHERE state NOT NULL"))
    assert kept == [(6,)]  # one LtHash sum, from which all others can be proved
    assert publisher.rollback("catalog", 3).changed == 3
