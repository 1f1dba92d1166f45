"""A takedown takes down: the record's text leaves packs, manifests and dictionaries, old ones and new ones alike."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import edged
from edged.errors import StoreError
from edged.feed import cbor
from edged.feed.coding.knowledge import samples, without
from edged.feed.coding.snapshot import train_dictionary
from edged.replica.audit import verify
from edged.replica.files.settings import ReplicaSettings, takedown_mark
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from tests.replica.feeds import Publisher, Records, made_up

SECRET = b"wholly-unmistakable-words"
NAME = ("titles", "1960/secret")


def secret(note: str = "") -> bytes:
    return cbor.encode({"title": SECRET.decode() + note, "year": 1960})


def traces(data_dir: Path) -> list[str]:
    """Files below a directory in which the text can be read, in clear or in a value that decompresses."""
    found = [str(path) for path in data_dir.rglob("*") if path.is_file() and SECRET in path.read_bytes()]
    with Writer.open(data_dir, "catalog") as writer:
        live = writer.live
        assert {path.name for path in (data_dir / "catalog/packs").iterdir()} == live.manifest.files()
        for name in live.manifest.slices:
            layers = live.layers(name)
            for pack in (*layers.fresh, *layers.middle, *layers.base):
                found += [pack.file for place in range(len(pack)) if SECRET in (pack.value(place) or b"")]
    return found


def take_down(publisher: Publisher, writer: Writer, *, gone: bool = True) -> None:
    """As sync does: the takedown is learned of, and the hop that comes with it removes the record."""
    publisher.version += 1
    with writer.stage() as staging:
        staging.set_takedowns(b"signed list", [NAME])
        if gone:
            staging.apply_changes("core", publisher.version, publisher.apply("core", {NAME: None}))
        staging.commit(publisher.version, b"head", as_of=publisher.version, fresh_s=60, expires_s=600)


POLICIES = {
    "fresh": None,
    "pointing": MergePolicy(fresh_packs=0, least_bytes=1 << 40, keep_bytes=1),
    "copied": MergePolicy(fresh_packs=0, least_bytes=1 << 40, keep_bytes=1 << 30),
    "based": MergePolicy(fresh_packs=0, least_bytes=1, base_share=0.001),
}


@pytest.mark.parametrize("sampled", [True, False], ids=["sampled", "unsampled"])
@pytest.mark.parametrize("where", POLICIES)
def test_nothing_of_a_record_is_left_on_the_device(tmp_path: Path, where: str, sampled: bool) -> None:
    records = made_up(60) | ({NAME: secret()} if sampled else {})
    publisher = Publisher({"core": records})
    chance = random.Random(5)
    if sampled:  # a dictionary with a sample of the record, beside others
        values = cbor.encode("titles") + secret() + records["titles", "1950/000000"] + records["titles", "1951/000001"]
        publisher.dictionaries["core"] = values
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        publisher.snapshot_into(writer)
        for note in (" once", " twice"):  # values that newer ones replace
            publisher.version += 1
            with writer.stage() as staging:
                staging.apply_changes("core", publisher.version, publisher.apply("core", {NAME: secret(note)}))
                staging.commit(publisher.version, b"head", as_of=2, fresh_s=60, expires_s=600)
            if (policy := POLICIES[where]) is not None:
                writer.compact(policy=policy)
        dataset = replica["catalog"]
        assert dataset.view().dictionary("titles")[1] == publisher.dictionaries["core"]
        take_down(publisher, writer)
        assert dataset["titles"].get(NAME[1]) is None
        assert dataset.view().dictionary("titles") == (b"", b"")  # it may have samples of the record
        assert writer.compact(0) > 0
        assert writer.purge() == writer.compact(0) == 0
        assert SECRET not in dataset.view().dictionary("titles")[1]
        assert (dataset.view().dictionary("titles")[1] == publisher.dictionaries["core"]) is not sampled
        held = writer.status().slices["core"]
        assert (held.digest, held.records) == publisher.digest("core")
        publisher.hop_into(writer, 5, chance)
        view = dataset.view()
        assert {(name, key): value for name in view.collections for key, value in view.scan(name)} == records
    assert traces(tmp_path) == []
    assert [fault for fault in verify(tmp_path).faults if "root" not in fault.file] == []


def test_a_record_that_a_pinned_version_still_has_is_cut_out_of_it(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(60) | {NAME: secret()}, "kids": made_up(20, mark="k")})
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        publisher.snapshot_into(writer)
        before = writer.status()
        take_down(publisher, writer, gone=False)
        writer.touch_head(b"newer", as_of=7, fresh_s=60, expires_s=600)
        shown = dict(replica["catalog"].view().collections)
        assert writer.purge() > 0
        assert writer.purge() == 0  # nothing is written again and again
        del publisher.slices["core"][NAME]
        held = writer.status()
        core, kids = held.slices["core"], held.slices["kids"]
        assert (core.digest, core.records) == publisher.digest("core")
        assert (core.version, core.cut, kids.cut) == (before.slices["core"].version, True, False)
        assert (held.version, held.head, held.last_signed_at) == (publisher.version, b"newer", 7)
        view = replica["catalog"].view()
        assert dict(view.collections) == shown
        assert {(name, key) for name in view.collections for key in view.keys(name)} == {
            *publisher.slices["core"],
            *publisher.slices["kids"],
        }
    assert traces(tmp_path) == []
    assert [fault for fault in verify(tmp_path).faults if "root" not in fault.file] == []
    publisher.version += 1
    with Writer.open(tmp_path, "catalog") as writer:
        assert writer.status().slices["core"].cut  # also after a restart
        publisher.snapshot_into(writer)
        assert not writer.status().slices["core"].cut


def test_a_purge_that_fails_is_made_up_for_and_changes_nothing_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher({"core": made_up(60) | {NAME: secret()}})
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        publisher.snapshot_into(writer)
        take_down(publisher, writer)
        with monkeypatch.context() as patch:
            patch.setattr(writer.live.disk, "write", full)
            with pytest.raises(StoreError):
                writer.purge()
        view = replica["catalog"].view()
        assert (view.get_raw(*NAME), view.dictionary("titles")) == (None, (b"", b""))
        assert writer.purge() > 0
        assert replica["catalog"].view().dictionary("titles")[0] != b""
    assert traces(tmp_path) == []


def full(name: str, data: bytes) -> None:
    raise StoreError(f"write {name}: No space left on device")


def test_the_mark_tells_takedowns_apart() -> None:
    marks = [
        takedown_mark(ReplicaSettings(hidden=dict.fromkeys(names, 7)))
        for names in ([], [("a", "b")], [("a", "bc")], [("ab", "c")], [("a", "b"), ("a", "c")])
    ]
    assert marks[0] == 0
    assert len(set(marks)) == len(marks)
    assert takedown_mark(ReplicaSettings(hidden={("a", "c"): 1, ("a", "b"): 2})) == marks[-1]


def test_a_dictionary_without_a_sample_still_has_the_others() -> None:
    records: Records = made_up(400)
    dictionary = train_dictionary([(*name, value) for name, value in sorted(records.items())])
    held = list(samples(dictionary))
    assert {collection for collection, _ in held} == {"titles", "people"}
    assert all(value in records.values() for _, value in held)
    taken = {held[0][1], held[-1][1]}
    assert list(samples(without(dictionary, taken))) == [item for item in held if item[1] not in taken]
    assert without(dictionary, {value for _, value in held}) == b""
    assert list(samples(b"of another making")) == []
