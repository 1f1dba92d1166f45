"""Keys at rest, roots of trust and their rotation."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from edged.errors import ConfigError, OriginError, TrustError, UnknownKeyError, WireError
from edged.feed.trust import root as trust
from edged.origin.publisher import Publisher
from tests.origin.conftest import Clock
from tests.origin.devices import Device
from tests.origin.test_publish import edit, films


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_init_makes_is_private_where_it_must_be(publisher: Publisher) -> None:
    keys = sorted((publisher.private / "keys").iterdir())
    assert [path.name for path in keys] == ["head-1.key", "root-1-1.key"]
    assert {mode(path) for path in keys} == {0o600}
    assert {mode(publisher.private), mode(publisher.private / "keys"), mode(publisher.private / "state")} == {0o700}
    assert publisher.trust_path.read_bytes() == (publisher.private / "trust" / "1").read_bytes()
    publisher.publish("catalog", films(2))
    assert (publisher.public / "catalog" / "trust" / "1").read_bytes() == publisher.trust_path.read_bytes()
    assert mode(publisher.private / "state" / "catalog.db") == 0o600
    assert mode(publisher.public / "catalog" / "head") == 0o644


def test_init_does_not_touch_a_feed_that_is_there(publisher: Publisher) -> None:
    before = publisher.trust_path.read_bytes()
    with pytest.raises(OriginError, match="there is a feed already"):
        Publisher.init(publisher.path)
    assert publisher.trust_path.read_bytes() == before


def test_a_key_that_others_can_read_is_refused(publisher: Publisher) -> None:
    publisher.publish("catalog", films(2))
    key = publisher.private / "keys" / "head-1.key"
    for wrong in (0o644, 0o640, 0o604):
        key.chmod(wrong)
        with pytest.raises(ConfigError, match=r"lets others at it; run: chmod 600"):
            publisher.publish("catalog", films(3))
    key.chmod(0o600)
    assert publisher.publish("catalog", films(3)).version == 2


def test_a_symlinked_key_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    key = publisher.private / "keys" / "head-1.key"
    shutil.move(key, tmp_path / "elsewhere.key")
    key.symlink_to(tmp_path / "elsewhere.key")
    with pytest.raises(ConfigError, match="not a symbolic link"):
        publisher.publish("catalog", films(3))


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", bytes(64)])
def test_a_file_that_holds_no_key_is_refused(publisher: Publisher, content: bytes) -> None:
    (publisher.private / "keys" / "head-1.key").write_bytes(content)
    with pytest.raises(ConfigError, match="not an unencrypted PKCS #8 PEM key"):
        publisher.publish("catalog", films(3))


def test_a_missing_head_key_says_what_to_do(publisher: Publisher) -> None:
    (publisher.private / "keys" / "head-1.key").unlink()
    with pytest.raises(ConfigError, match="edged origin rotate-key"):
        publisher.publish("catalog", films(3))
    publisher.rotate_key()
    assert publisher.publish("catalog", films(3)).version == 1


def test_a_rotated_key_signs_every_dataset_and_old_devices_follow(publisher: Publisher) -> None:
    for dataset in ("catalog", "schedule"):
        publisher.publish(dataset, films(5))
    devices = [Device(publisher.path, dataset) for dataset in ("catalog", "schedule")]
    for device in devices:
        device.sync()
    old_head, old_root = (publisher.public / "catalog" / "head").read_bytes(), devices[0].root
    roots, revoked = publisher.rotate_key()
    assert roots.newest.number == 2
    assert [path.name for path in revoked] == ["head-1.key"]
    assert revoked[0].parent.name == "revoked"
    publisher.publish_changes("catalog", [edit(1)])
    for device in devices:
        head = device.sync()
        assert (device.root.number, head.root) == (2, 2)
    with pytest.raises(UnknownKeyError):
        trust.verify_head((publisher.public / "catalog" / "head").read_bytes(), old_root, "catalog")
    with pytest.raises(UnknownKeyError):  # what the revoked key signed is worth nothing under the new root
        trust.verify_head(old_head, roots.newest, "catalog")
    assert publisher.publish("new", films(1)).version == 1
    assert sorted(path.name for path in (publisher.public / "new" / "trust").iterdir()) == ["1", "2"]


def test_root_keys_are_rotated_with_a_threshold_of_old_and_new(tmp_path: Path, clock: Clock) -> None:
    publisher = Publisher.init(tmp_path / "feed", root_keys=3, threshold=2, clock=clock)
    publisher.publish("catalog", films(2))
    device = Device(publisher.path, "catalog")
    offline = tmp_path / "offline"
    offline.mkdir()
    for number in (1, 3):
        shutil.move(publisher.private / "keys" / f"root-1-{number}.key", offline)
    with pytest.raises(ConfigError, match=r"1 root keys .* 2 must sign; name their directory with --root-keys-dir"):
        publisher.rotate_key()
    assert publisher.roots.newest.number == 1
    roots, _ = publisher.rotate_key(root_keys_directory=offline, new_root_keys=True)
    assert len(roots.newest.roots.keys) == 3
    assert roots.newest.roots.keys.keys().isdisjoint(device.root.roots.keys.keys())
    assert device.sync().root == 2
    assert publisher.rotate_key(root_keys_directory=offline)[0].newest.number == 3
    assert device.sync().root == 3


def test_a_rotation_that_is_cut_short_is_finished_by_the_next_operation(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.publish("catalog", films(3))
    device = Device(publisher.path, "catalog")
    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "datasets", lambda self: [])
        publisher.rotate_key()
    result = Publisher.open(publisher.path, clock=publisher.clock).publish("catalog", films(4))
    assert (result.version, device.sync().root) == (2, 2)


def test_a_root_of_trust_that_was_altered_is_refused(publisher: Publisher) -> None:
    path = publisher.private / "trust" / "1"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises((TrustError, WireError)):
        Publisher.open(publisher.path)


def test_a_directory_that_is_no_feed_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(OriginError, match="not a feed; make one with: edged origin init"):
        Publisher.open(tmp_path)
