"""The audit finds what is wrong and says in which slice and file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import edged
from edged.feed.blob import BlobRef
from edged.feed.head import Head, SliceHead
from edged.feed.trust import root as trust
from edged.feed.trust import succession
from edged.feed.trust.cose import public_bytes
from edged.replica.audit import Finding, Report, verify
from edged.replica.files.manifest import file_name
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from tests.replica.feeds import Publisher, made_up

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ROLE = trust.role_of(1, [public_bytes(KEY)])


def signed(publisher: Publisher, *, records_off: int = 0) -> bytes:
    slices = {}
    for name in publisher.slices:
        digest, records = publisher.digest(name)
        slices[name] = SliceHead(publisher.version, digest, records + records_off)
    head = Head("catalog", publisher.version, 1000, 60, 600, 1, 1, BlobRef(bytes(32), 1), slices)
    return trust.sign_head(head, KEY)


def synced(data_dir: Path, *, records_off: int = 0) -> Publisher:
    publisher = Publisher({"core": made_up(300), "region-br": made_up(100, seed=2, mark="br")})
    with Writer.open(data_dir, "catalog") as writer:
        document = trust.sign_root(trust.Root(1, 1, 1 << 40, ROLE, ROLE), [KEY])
        writer.set_roots(succession.RootSuccession((document,), trust.read_root(document, "test")).encode())
        publisher.snapshot_into(writer)
        with writer.stage() as staging:
            head = signed(publisher, records_off=records_off)
            staging.commit(publisher.version, head, as_of=1000, fresh_s=60, expires_s=600)
    return publisher


def test_a_whole_replica_passes(tmp_path: Path) -> None:
    synced(tmp_path)
    report = verify(tmp_path)
    assert report.faults == []
    assert report.records == 330 + 110
    assert report.versions == {"catalog": 1}


def test_content_that_the_head_does_not_sign_is_named(tmp_path: Path) -> None:
    synced(tmp_path, records_off=1)
    assert {fault.slice_name for fault in verify(tmp_path).faults} == {"core", "region-br"}


def test_a_head_without_a_root_or_with_a_bad_signature_is_named(tmp_path: Path) -> None:
    synced(tmp_path)
    with Writer.open(tmp_path, "catalog") as writer:
        head = bytearray(writer.live.manifest.head)
        head[-1] ^= 1
        with writer.stage() as staging:
            staging.commit(1, bytes(head), as_of=1000, fresh_s=60, expires_s=600)
    assert "signature does not hold" in str(verify(tmp_path).faults[0])
    (tmp_path / "catalog/roots").unlink()
    assert "no root of trust" in str(verify(tmp_path).faults[0])


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_flipped_byte_in_a_pack_is_named_with_its_slice(tmp_path: Path, place: float) -> None:
    synced(tmp_path)
    with Writer.open(tmp_path, "catalog") as writer:
        ref = writer.live.manifest.slices["region-br"].base[0]
    path = tmp_path / f"catalog/packs/{ref.number:08x}.pack"
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0x40
    path.write_bytes(data)
    faults = verify(tmp_path).faults
    assert [(fault.slice_name, fault.file) for fault in faults] == [("region-br", f"packs/{path.name}")]
    with Writer.open(tmp_path, "catalog") as writer:
        assert writer.status().slices["core"].damaged is None


def test_a_manifest_that_was_deleted_is_missed_where_packs_lie_there(tmp_path: Path) -> None:
    synced(tmp_path)
    (tmp_path / "catalog/manifest").unlink()
    for name in ("roots", "head", "manifest.1"):
        (tmp_path / "catalog" / name).unlink(missing_ok=True)
    (fault,) = verify(tmp_path).faults
    assert (fault.dataset, fault.file) == ("catalog", "manifest")
    assert "missing" in fault.what


def test_a_first_sync_that_was_cut_short_is_no_fault(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(30)})
    with Writer.open(tmp_path, "catalog") as writer:
        assert verify(tmp_path).empty == ["catalog"]
        with writer.stage() as staging:
            staging.begin_snapshot("core", 1, publisher.dictionaries["core"])
            part = publisher.parts("core")[0]
            staging.add_part("core", BlobRef.of(part), part)
            staging.link_parts()
            report = verify(tmp_path)
            assert (report.faults, report.empty) == ([], ["catalog"])


def looked_over(writer: Writer) -> Report:
    report = Report()
    for _ in writer.look_over(report):
        pass
    return report


def test_looking_over_finds_what_decays_in_every_file_that_a_version_needs(tmp_path: Path) -> None:
    publisher, chance = synced(tmp_path), random.Random(5)
    with Writer.open(tmp_path, "catalog") as writer:
        for number in range(6):
            publisher.hop_into(writer, 6, chance)
            if number == 3:
                writer.compact(policy=MergePolicy(fresh_packs=1, least_bytes=1 << 40, keep_bytes=1))
        writer.touch_head(b"touched", as_of=2000, fresh_s=1, expires_s=1)
        assert any(state.remotes for state in writer.live.manifest.slices.values())
        assert looked_over(writer).faults == []
        names = [f"packs/{name}" for name in sorted(writer.live.manifest.files())]
        for name in [*names, "manifest", "manifest.1", "roots", "head"]:
            path = tmp_path / "catalog" / name
            whole, at = path.read_bytes(), 50 if "/" in name else 10
            for harmed in (
                whole[: min(40, len(whole) // 2)],
                bytes(len(whole)),
                whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
            ):
                path.write_bytes(harmed)
                assert name in {fault.file for fault in looked_over(writer).faults}, name
            path.unlink()
            found = {fault.file for fault in looked_over(writer).faults}
            assert name in found or name in ("manifest.1", "head"), name  # which a replica need not have
            path.write_bytes(whole)
        assert looked_over(writer).faults == []


def test_what_was_merged_away_since_it_was_found_damaged_is_passed_over(tmp_path: Path) -> None:
    synced(tmp_path)
    with Writer.open(tmp_path, "catalog") as writer:
        stale = Finding("catalog", "core", "packs/0000ffff.pack", "missing")
        assert writer.mend([stale]) == 0
        assert writer.status().slices["core"].damaged is None
        live = f"packs/{file_name(writer.live.manifest.slices['core'].base[0].number)}"
        assert writer.mend([Finding("catalog", "core", live, "missing")]) == 0
        assert writer.status().slices["core"].damaged == "missing"


@pytest.mark.parametrize("name", ["manifest", "manifest.1"])
def test_a_writer_writes_a_damaged_manifest_again_and_never_falls_back_to_it(tmp_path: Path, name: str) -> None:
    publisher, chance = synced(tmp_path), random.Random(5)
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        publisher.hop_into(writer, 6, chance)
        held = replica["catalog"]
        assert held.version == 2
        path = tmp_path / "catalog" / name
        for mending in (True, False):
            data = path.read_bytes()
            path.unlink()  # mended, both may be one file
            path.write_bytes(b"nonsense" + data[8:])
            writer.live.bump()
            assert held.version == writer.live.manifest.version  # kept, though it cannot be read any more
            assert (held.fault is not None) == (name == "manifest")
            if mending:
                assert writer.mend([]) == 1
                assert writer.mend([]) == 0
            else:
                publisher.hop_into(writer, 6, chance)
                writer.mend([])
            assert held.version == writer.live.manifest.version
            assert held.fault is None
            assert looked_over(writer).faults == []
            with edged.open(tmp_path) as other:
                (tmp_path / "catalog/manifest").rename(tmp_path / "aside")
                assert sum(1 for _ in other["catalog"]["titles"].items()) > 0
            with edged.open(tmp_path) as other:  # the fallback, with all of its packs
                assert all(item.damaged is None for item in other["catalog"].view().slices.values())
            (tmp_path / "aside").rename(tmp_path / "catalog/manifest")
