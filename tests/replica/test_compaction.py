"""Merging changes where records lie and nothing else, writes little, and waits for its budget."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import pytest

import edged
from edged.replica.audit import verify
from edged.replica.layers.lookup import filter_of
from edged.replica.packs.pack import KEY_PREFIX, Pack
from edged.replica.packs.packbuilder import PackBuilder
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from tests.replica.feeds import Publisher, made_up

EAGER = MergePolicy(fresh_packs=4, least_bytes=1 << 40)
POINTING = MergePolicy(fresh_packs=4, least_bytes=1 << 40, keep_bytes=1)
REBASING = MergePolicy(fresh_packs=4, least_bytes=1, base_share=0.2, pack_bytes=20_000, keep_bytes=1)


def contents(data_dir: Path) -> dict[tuple[str, str], bytes]:
    with edged.open(data_dir) as replica:
        view = replica["catalog"].view()
        return {(name, key): value for name in view.collections for key, value in view.scan(name)}


@pytest.mark.parametrize("policy", [EAGER, POINTING, REBASING], ids=["copying", "pointing", "rebasing"])
def test_merging_changes_nothing_that_is_read(tmp_path: Path, policy: MergePolicy) -> None:
    publisher = Publisher({"core": made_up(400)})
    chance = random.Random(7)
    copies = {}
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        publisher.snapshot_into(writer)
        titles = replica["catalog"]["titles"]
        for _ in range(40):
            copies[publisher.version] = dict(publisher.slices["core"])
            publisher.hop_into(writer, 10, chance)
            writer.compact(policy=policy)
            key = chance.choice(sorted(publisher.slices["core"]))
            assert replica["catalog"].view().get_raw(*key) == publisher.slices["core"][key]
            assert titles.get_raw("gone") is None
        state = writer.live.manifest.slices["core"]
        assert len(state.fresh) <= 5
        assert len(state.middle) <= 1
        assert digest_of(writer) == publisher.digest("core")
        files = {path.name for path in (tmp_path / "catalog/packs").iterdir()}
        assert files == writer.live.manifest.files() | writer.live.previous.files()
        view = replica["catalog"].view()
        for since in (view.changes_from, 30, 39):
            copy = copies[since]
            for change in view.changes(since):
                if change.value is None:
                    copy.pop((change.collection, change.key), None)
                else:
                    copy[change.collection, change.key] = change.value
            assert copy == publisher.slices["core"]
    assert contents(tmp_path) == publisher.slices["core"]


@pytest.mark.parametrize("step", [(1 << 32) - 2, (1 << 32) - 1, 1 << 32, (1 << 64) - 100])
def test_versions_far_apart_merge_and_tell_their_changes(tmp_path: Path, step: int) -> None:
    # A signed head may name any version up to 2^64 - 1. In every merge the lowest is 1.
    publisher = Publisher({"core": made_up(80)})
    chance = random.Random(3)
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        publisher.hop_into(writer, 3, chance)
        publisher.version = step
        before = dict(publisher.slices["core"])
        for _ in range(6):
            publisher.hop_into(writer, 3, chance)
            writer.compact(policy=REBASING)
            writer.compact(policy=MergePolicy(fresh_packs=0, least_bytes=1 << 40))
        assert digest_of(writer) == publisher.digest("core")
        (pack,) = writer.live.layers("core").middle or writer.live.layers("core").base
        assert pack.meta.versions[1] == publisher.version
    assert contents(tmp_path) == publisher.slices["core"]
    report = verify(tmp_path)
    assert [finding for finding in report.faults if "root" not in finding.file] == []
    with edged.open(tmp_path) as replica:
        changed = {(one.collection, one.key): one.value for one in replica["catalog"].changes(step)}
    now = publisher.slices["core"]
    assert changed.keys() >= {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    assert all(now.get(name) == value for name, value in changed.items())
    assert len(changed) <= 18


def digest_of(writer: Writer) -> tuple[bytes, int]:
    held = writer.status().slices["core"]
    return held.digest, held.records


def test_a_budget_of_nothing_defers_merging(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(100)})
    chance = random.Random(7)
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        for _ in range(10):
            publisher.hop_into(writer, 2, chance)
        assert writer.compact(0, policy=EAGER) == 0
        assert len(writer.live.manifest.slices["core"].fresh) == 10
        assert writer.compact(1 << 20, policy=EAGER) > 0
        assert len(writer.live.manifest.slices["core"].fresh) == 0
        assert writer.compact(policy=EAGER) == 0


def test_keys_that_a_middle_pack_lacks_pass_it_by_without_a_probe(tmp_path: Path) -> None:
    publisher = Publisher({"core": {name: value for name, value in made_up(900).items() if name[0] == "titles"}})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        publisher.hop_into(writer, 200, random.Random(3))
        writer.compact(policy=MergePolicy(fresh_packs=0, least_bytes=1 << 40))
        (pack,) = writer.live.layers("core").middle
        assert not any(base.filter for base in writer.live.layers("core").base)
    some, lift = filter_of(pack)
    probed = set()
    for _, key in publisher.slices["core"]:
        word = KEY_PREFIX[len(key)] + key.encode()
        checksum = zlib.crc32(word, zlib.crc32(b"titles"))
        if some[checksum >> lift] >> (checksum & 7) & 1:
            probed.add(key)
    held = {key.decode() for key, _ in pack.walk(0, len(pack))}
    assert held & {key for _, key in publisher.slices["core"]} <= probed
    assert len(probed - held) < 0.2 * (900 - len(held))
    with edged.open(tmp_path) as replica:
        titles = replica["catalog"]["titles"]
        for (_, key), value in publisher.slices["core"].items():
            assert titles.get_raw(key) == value
            assert titles.get_raw(key + "x") is None


def test_a_pack_without_a_filter_is_probed_for_every_key() -> None:
    builder = PackBuilder("core", b"")
    for number in range(100):
        builder.add("titles", b"%03d" % number, b"", 1)
    assert filter_of(Pack(builder.finish(), 0, len(builder.finish()), "test")) == (b"\xff", 32)
    assert filter_of(Pack(builder.finish(upper=True), 0, len(builder.finish(upper=True)), "test"))[1] == 25


def test_a_base_pack_that_nothing_touched_is_not_written_again(tmp_path: Path) -> None:
    publisher = Publisher({"core": {name: value for name, value in made_up(400).items() if name[0] == "titles"}})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        split = MergePolicy(fresh_packs=0, least_bytes=1, base_share=0, pack_bytes=4_000)
        publisher.hop_into(writer, 10, random.Random(1))
        writer.compact(policy=split)
        before = writer.live.manifest.slices["core"].base
        assert len(before) > 4
        last = max(publisher.slices["core"])
        publisher.version += 1
        with writer.stage() as staging:
            staging.apply_hop("core", publisher.version, publisher.hop("core", {last: b"\x01"}))
            staging.commit(publisher.version, b"h", as_of=1, fresh_s=1, expires_s=1)
        writer.compact(policy=split)
        after = writer.live.manifest.slices["core"].base
        assert len(set(before) & set(after)) >= len(before) - 2
    assert contents(tmp_path) == publisher.slices["core"]
