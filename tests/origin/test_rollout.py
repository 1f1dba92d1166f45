"""Rollouts: a version offered to a share of the devices, raised, completed, withdrawn; nobody ever goes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.errors import EdgedError, OriginError
from edged.feed import limits
from edged.feed.head import Head
from edged.feed.rollout import accepted, bucket_of, head_for, is_chosen
from edged.feed.trust import root as trust
from edged.origin.publisher import Publisher, PublishOptions
from tests.origin.conftest import Clock
from tests.origin.devices import Device


class Taker(Device):
    """A device that takes what is offered."""

    def head(self) -> Head:
        return accepted(super().head())


def titles(**values: int) -> list[tuple[str, str, dict[str, int]]]:
    return [("titles", key, {"n": value}) for key, value in values.items()]


def numbers(device: Device) -> dict[str, object]:
    return {key: device.value("titles", key) for key in device.keys()}  # noqa: SIM118 - a method


@pytest.fixture
def feed(publisher: Publisher) -> Publisher:
    publisher.publish("catalog", titles(a=1, b=1, c=1))
    publisher.publish_changes("catalog", titles(a=2))
    return publisher


def devices(feed: Publisher) -> tuple[Device, Taker]:
    return Device(feed.path, "catalog"), Taker(feed.path, "catalog")


def test_an_offer_reaches_those_it_is_for_and_nobody_else(feed: Publisher) -> None:
    stable, taker = devices(feed)
    result = feed.publish_changes("catalog", titles(a=3), PublishOptions(permille=50))
    assert (result.version, result.permille, result.unchanged) == (3, 50, False)
    head = stable.sync()
    assert (head.version, head.offer and head.offer.version, head.newest_version) == (2, 3, 3)
    assert numbers(stable)["a"] == {"n": 2}
    assert taker.sync().version == 3
    assert numbers(taker)["a"] == {"n": 3}


def test_a_completed_rollout_is_live_for_all(feed: Publisher) -> None:
    stable, taker = devices(feed)
    feed.publish_changes("catalog", titles(a=3), PublishOptions(permille=50))
    for device in (stable, taker):
        device.sync()
    raised = feed.rollout("catalog", 250)
    assert raised is not None
    assert raised.permille == 250
    assert feed.rollout("catalog") == raised
    assert feed.rollout("catalog", 1000) is None
    for device in (stable, taker):
        head = device.sync()
        assert (head.version, head.offer) == (3, None)
        assert numbers(device)["a"] == {"n": 3}
    assert feed.publish_changes("catalog", titles(a=4)).version == 4


def test_a_withdrawn_rollout_gives_the_stable_content_a_later_number(feed: Publisher) -> None:
    stable, taker = devices(feed)
    feed.publish_changes("catalog", [*titles(a=3, z=3), ("titles", "b", None)], PublishOptions(permille=50))
    before = stable.sync()
    taker.sync()
    assert feed.withdraw("catalog").version == 4
    for device in (stable, taker):
        device.fetched.clear()
        head = device.sync()
        assert (head.version, head.offer) == (4, None)
        assert head.slices["core"].digest == before.slices["core"].digest
        assert numbers(device) == {"a": {"n": 2}, "b": {"n": 1}, "c": {"n": 1}}
    inlined = {hop.from_version for hop in head.slices["core"].hops if hop.inline is not None}
    assert inlined == {2, 3}


def test_a_withdrawn_schema_gives_a_later_number_too(feed: Publisher) -> None:
    (feed.path / "catalog.toml").write_text('[collections.titles]\nindex = ["n"]\n')
    feed.publish_changes("catalog", [], PublishOptions(permille=50))
    assert Taker(feed.path, "catalog").sync().version == 3
    result = feed.withdraw("catalog")
    assert (result.version, result.unchanged, result.permille) == (4, False, None)


def test_a_takedown_during_a_rollout_applies_to_both_versions(feed: Publisher) -> None:
    stable, taker = devices(feed)
    feed.publish_changes("catalog", titles(a=3), PublishOptions(permille=50))
    for device in (stable, taker):
        device.sync()
    result = feed.takedown("catalog", "titles", ["b"])
    assert (result.version, result.permille, result.unchanged) == (5, 50, False)
    assert (stable.sync().version, taker.sync().version) == (4, 5)
    assert ("titles", "b") in stable.taken_down & taker.taken_down
    assert "b" not in taker.keys()  # noqa: SIM118
    feed.rollout("catalog", 1000)
    assert stable.sync().version == 5
    assert numbers(stable) == {"a": {"n": 3}, "c": {"n": 1}}


def test_what_was_taken_down_during_a_rollout_stays_down_when_it_is_withdrawn(feed: Publisher) -> None:
    stable, taker = devices(feed)
    feed.publish_changes("catalog", titles(b=3), PublishOptions(permille=50))
    for device in (stable, taker):
        device.sync()
    feed.takedown("catalog", "titles", ["b"])
    assert feed.withdraw("catalog").version == 6
    for device in (stable, taker):
        assert device.sync().version == 6
        assert numbers(device) == {"a": {"n": 2}, "c": {"n": 1}}
    assert feed.restore("catalog", "titles", ["b"]).version == 7


def test_nothing_else_is_published_during_a_rollout(feed: Publisher) -> None:
    feed.publish_changes("catalog", titles(a=3), PublishOptions(permille=50))
    head = (feed.public / "catalog" / "head").read_bytes()
    for operation in (
        lambda: feed.publish_changes("catalog", titles(a=4)),
        lambda: feed.publish_changes("catalog", titles(a=4), PublishOptions(permille=10)),
        lambda: feed.publish("catalog", titles(a=4), PublishOptions(allow_removals=True)),
        lambda: feed.rollback("catalog", 1),
        lambda: feed.rollout("catalog", 40),
    ):
        with pytest.raises(OriginError, match=r"rolled out|raise the rollout"):
            operation()
    assert (feed.public / "catalog" / "head").read_bytes() == head
    assert feed.publish_changes("catalog", []).unchanged
    assert Device(feed.path, "catalog").head().offer is not None


def test_what_is_no_rollout_is_refused(feed: Publisher) -> None:
    for operation in (lambda: feed.rollout("catalog", 500), lambda: feed.withdraw("catalog")):
        with pytest.raises(OriginError, match="none is under way"):
            operation()
    with pytest.raises(OriginError, match="first version"):
        feed.publish("other", titles(a=1), PublishOptions(permille=10))


def test_a_kill_before_the_swap_leaves_the_rollout_as_the_public_head_has_it(
    feed: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.publish_changes("catalog", titles(a=3), PublishOptions(permille=50))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for operation in (lambda: feed.rollout("catalog", 1000), lambda: feed.withdraw("catalog")):
        with monkeypatch.context() as patch:
            patch.setattr("edged.origin.shelves.directory.DirectoryShelf.swap_head", killed)
            with pytest.raises(KeyboardInterrupt):
                operation()
        found = feed.rollout("catalog")
        assert found is not None
        assert (found.stable, found.permille) == (2, 50)
    assert feed.withdraw("catalog").version == 4


def test_both_versions_keep_their_blobs(feed: Publisher, clock: Clock) -> None:
    (feed.path / "catalog.toml").write_text('[retention]\nversions = 4\ngrace = "1h"\nchains = "1h"\n')
    feed.publish_changes("catalog", titles(a=3, d=9), PublishOptions(permille=50))
    for number in range(4):
        clock.now += 7200
        feed.takedown("catalog", "titles", [f"x{number}"])
    stable, taker = devices(feed)
    assert (stable.sync().version, taker.sync().version) == (10, 11)


def test_shares_are_monotone_and_about_right() -> None:
    ids = [f"device {number}" for number in range(4000)]
    buckets = [bucket_of(b"saltsalt", one) for one in ids]
    assert min(buckets) >= 0
    assert max(buckets) <= 999
    assert 0.03 < sum(bucket < 50 for bucket in buckets) / len(ids) < 0.07
    assert buckets != [bucket_of(b"othersalt", one) for one in ids]
    assert bucket_of(b"saltsalt", "a box") == 33  # printf "saltsalta box" | sha256sum


def test_who_took_the_offer_stays_with_it(feed: Publisher) -> None:
    feed.publish_changes("catalog", titles(a=3), PublishOptions(permille=1))
    head = Device(feed.path, "catalog").head()
    assert head.offer is not None
    outside = next(name for name in map(str, range(100)) if not is_chosen(head.offer, name))
    assert head_for(head, outside, 2).version == 2
    assert head_for(head, outside, 3).version == 3
    assert head_for(head, "", 0).version == 2


def test_an_offer_is_signed(feed: Publisher, tmp_path: Path) -> None:
    feed.publish_changes("catalog", titles(a=3), PublishOptions(permille=50))
    data = bytearray((feed.public / "catalog" / "head").read_bytes())
    root = trust.read_root((feed.path / "root.trust").read_bytes(), "trust file")
    at = data.index(bytes([0x18, 50, 3]))
    data[at + 1] = 250
    assert len(data) <= limits.HEAD_BYTES
    with pytest.raises(EdgedError):
        trust.verify_head(bytes(data), root, "catalog")
