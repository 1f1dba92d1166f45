"""Keys at rest, roots of trust and their rotation."""

from __future__ import annotations

import errno
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edged.errors import ConfigError, OriginError, StoreError, TrustError, UnknownKeyError, WireError
from edged.feed import limits
from edged.feed.trust import root as trust
from edged.origin.publisher import EARLIEST_S, Publisher
from edged.origin.signing.roots import RENEW_S, ROOT_LIFE_S, WARN_S, load_roots
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
    assert roots.newest.number == 3
    assert [path.name for path in revoked] == ["head-1.key"]
    assert revoked[0].parent.name == "revoked"
    publisher.publish_changes("catalog", [edit(1)])
    for device in devices:
        head = device.sync()
        assert (device.root.number, head.root) == (3, 3 if device.dataset == "catalog" else 2)
    with pytest.raises(UnknownKeyError):
        trust.verify_head((publisher.public / "catalog" / "head").read_bytes(), old_root, "catalog")
    with pytest.raises(UnknownKeyError):  # what the revoked key signed is worth nothing under the new root
        trust.verify_head(old_head, roots.newest, "catalog")
    assert publisher.publish("new", films(1)).version == 1
    assert sorted(path.name for path in (publisher.public / "new" / "trust").iterdir()) == ["1", "2", "3"]


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
    device.sync()
    assert device.root.number == 3
    assert publisher.rotate_key(root_keys_directory=offline)[0].newest.number == 5
    device.sync()
    assert device.root.number == 5


def test_a_rotation_that_is_cut_short_is_finished_by_the_next_operation(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.publish("catalog", films(3))
    device = Device(publisher.path, "catalog")
    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "datasets", lambda self: [])
        publisher.rotate_key()
    result = Publisher.open(publisher.path, clock=publisher.clock).publish("catalog", films(4))
    assert (result.version, device.sync().root) == (2, 3)


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


def test_a_clock_that_was_a_day_ahead_is_let_go_by_a_rotation(publisher: Publisher, clock: Clock) -> None:
    publisher.publish("catalog", films(3))
    right = clock.now
    clock.now = right + limits.FUTURE_S
    publisher.publish_changes("catalog", [edit(1)])
    clock.now = right
    # What devices still take is published, and not dated before the head they may have.
    assert publisher.publish_changes("catalog", [edit(2)]).version == 3
    assert Device(publisher.path, "catalog").head().signed_at == right + limits.FUTURE_S
    clock.now = right - 1
    before = (publisher.public / "catalog" / "head").read_bytes()
    operations: list[Callable[[], object]] = [
        lambda: publisher.publish_changes("catalog", [edit(0)]),
        lambda: publisher.takedown("catalog", "titles", ["t00001"]),
        lambda: publisher.resign("catalog"),
    ]
    for operation in operations:
        with pytest.raises(OriginError, match=r"signed 1 day after .* edged origin rotate-key"):
            operation()
    assert (publisher.public / "catalog" / "head").read_bytes() == before
    publisher.rotate_key()
    device = Device(publisher.path, "catalog")
    assert device.sync().signed_at == right - 1
    assert publisher.publish_changes("catalog", [edit(0)]).version == 4


@pytest.mark.parametrize("operation", ["init", "publish", "rotate"])
def test_a_clock_that_cannot_be_right_signs_nothing(publisher: Publisher, tmp_path: Path, operation: str) -> None:
    publisher.publish("catalog", films(3))
    early = Publisher.open(publisher.path, clock=lambda: EARLIEST_S - 1)
    exact = Publisher.open(publisher.path, clock=lambda: float(EARLIEST_S))
    act: dict[str, Callable[[Publisher], object]] = {
        "init": lambda one: Publisher.init(tmp_path / "other", clock=one.clock),
        "publish": lambda one: one.publish("new", films(4)),
        "rotate": lambda one: one.rotate_key(),
    }
    with pytest.raises(OriginError, match=r"clock says 2019-12-31T23:59:59Z.*set it"):
        act[operation](early)
    assert not (tmp_path / "other").exists()
    assert Publisher.open(publisher.path).roots.newest.number == 1
    act[operation](exact)


def test_the_key_with_the_greatest_number_signs(publisher: Publisher) -> None:
    publisher.publish("catalog", films(2))
    for _ in range(5):
        publisher.rotate_key()
    assert (publisher.private / "keys" / "head-11.key").exists()
    assert Device(publisher.path, "catalog").sync().version == 1


def test_one_dataset_that_cannot_be_signed_does_not_keep_the_others_from_it(publisher: Publisher) -> None:
    for dataset in ("a", "b", "c"):
        publisher.publish(dataset, films(2))
    (publisher.path / "b.toml").write_text("[fresh]\n")
    with pytest.raises(OriginError, match=r"root of trust 3 is made, .*dataset b: .*the next operation"):
        publisher.rotate_key()
    for dataset in ("a", "b", "c"):
        assert Device(publisher.path, dataset).sync().version == 1
    (publisher.path / "b.toml").unlink()
    publisher.resign("b")
    device = Device(publisher.path, "b")
    device.sync()
    assert (device.root.number, device.root.heads.threshold, len(device.root.heads.keys)) == (3, 1, 1)


def test_a_root_is_renewed_in_time_where_its_keys_are_at_hand_and_asked_for_where_not(
    publisher: Publisher, clock: Clock
) -> None:
    publisher.publish("catalog", films(3))
    device = Device(publisher.path, "catalog")
    expires = publisher.roots.newest.expires_at
    clock.now = expires - RENEW_S - 1
    publisher.resign("catalog")
    assert (publisher.roots.newest.number, publisher.warning()) == (1, None)
    clock.now += 1
    publisher.publish_changes("catalog", [edit(1)])
    device.sync()
    assert (device.root.number, device.root.expires_at) == (2, expires - RENEW_S + ROOT_LIFE_S)
    assert publisher.trust_path.read_bytes() == publisher.roots.documents[1]
    (publisher.private / "keys" / "root-1-1.key").unlink()
    clock.now = publisher.roots.newest.expires_at - WARN_S
    publisher.publish_changes("catalog", [edit(2)])
    assert (publisher.roots.newest.number, publisher.warning()) == (2, None)
    clock.now += 1
    publisher.resign("catalog")
    assert "root of trust 2 expires in" in str(publisher.warning())


def test_a_feed_that_may_not_be_read_is_no_missing_feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exists(path: Path, **_: object) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", exists)
    with pytest.raises(StoreError, match=r"^read .*/private/trust: Permission denied"):
        load_roots(tmp_path / "private")
