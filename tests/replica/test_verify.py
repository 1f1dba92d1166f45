"""The audit finds what is wrong and says in which slice and file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.feed import roots, trust
from edged.feed.blob import BlobRef
from edged.feed.cose import public_bytes
from edged.feed.head import Head, SliceHead
from edged.replica.audit import verify
from edged.replica.writer import Writer
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
        document = trust.sign_root(trust.Root(1, 1, ROLE, ROLE), [KEY])
        writer.set_roots(roots.Roots((document,), trust.read_root(document, "test")).encode())
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
        head = bytearray(writer.manifest.head)
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
        ref = writer.manifest.slices["region-br"].base[0]
    path = tmp_path / f"catalog/packs/{ref.number:08x}.pack"
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0x40
    path.write_bytes(data)
    faults = verify(tmp_path).faults
    assert [(fault.slice_name, fault.file) for fault in faults] == [("region-br", f"packs/{path.name}")]
    with Writer.open(tmp_path, "catalog") as writer:
        assert writer.status().slices["core"].damaged is None
