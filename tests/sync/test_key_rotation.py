"""Roots of trust: rotation, revocation, and what an attacker with an old key, or with the origin's disk, can try."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.errors import NewerRootError, TrustError, UnknownKeyError, WireError
from edged.feed.trust import root as trust
from edged.feed.trust.succession import decode_roots
from edged.replica.writer import Writer
from tests.sync.driving import first_sync, held, on_disk, sync
from tests.sync.simulator import ROOT_LIFE_S, Device, Feed, Origin, key

FILMS: dict[str, object | None] = {f"t{number:03}": {"title": f"Film {number}"} for number in range(20)}
EDIT: dict[str, object | None] = {"t001": {"title": "Film 1, restored"}}


@pytest.fixture
def feed() -> Feed:
    feed = Feed()
    feed.publish(FILMS)
    return feed


def install(device: Device, trust_file: bytes) -> None:
    Path(device.trust).write_bytes(trust_file)


def roots_kept(device: Device) -> list[bytes]:
    with Writer.open(device.directory, device.name) as writer:
        kept = writer.status().roots
    assert kept is not None
    return decode_roots(kept, "test")


async def test_head_key_is_rotated(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.rotate(heads="head 2")
    feed.publish(EDIT)
    assert (await sync(device, origin)).error is None
    assert held(device) == feed.slices["core"].records
    assert roots_kept(device) == feed.roots


async def test_many_rotations_while_the_device_was_away(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    for number in range(2, 20):
        feed.rotate(heads=f"head {number}", roots=[f"root {number}"])
    feed.publish(EDIT)
    assert (await sync(device, origin)).error is None
    assert origin.requests["trust"] == 19
    origin.requests.clear()
    assert (await sync(device, origin)).error is None
    assert origin.requests["trust"] == 1  # the newest is kept; only the question for the next is asked


async def test_root_keys_move_to_a_threshold(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.rotate(heads="head 2", roots=["a", "b", "c"], threshold=2)
    feed.rotate(heads="head 3")
    feed.publish(EDIT)
    assert (await sync(device, origin)).error is None
    assert len(roots_kept(device)) == 3


def next_root(feed: Feed, signers: list[str], *, roots: list[str], threshold: int = 1, number: int = 0) -> bytes:
    """A second root that names Mallory's head key."""
    role = trust.role_of(threshold, [feed_public(name) for name in roots])
    root = trust.Root(
        number or len(feed.roots) + 1, feed.now, feed.now + ROOT_LIFE_S, role, Feed.role([key("mallory")])
    )
    return trust.sign_root(root, [key(name) for name in signers])


def feed_public(name: str) -> bytes:
    return next(iter(Feed.role([key(name)]).keys.values()))


@pytest.mark.parametrize(
    ("signers", "words"),
    [
        (["mallory"], "of the root before it"),  # by the new keys alone
        (["root 1"], "of its own"),  # by the old keys alone
        (["head 1", "mallory"], "of the root before it"),  # by an online key
    ],
)
async def test_root_signed_by_too_few(tmp_path: Path, feed: Feed, signers: list[str], words: str) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.roots.append(next_root(feed, signers, roots=["mallory"]))
    feed.head_key = key("mallory")
    feed.publish(EDIT)
    before = on_disk(device)
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, TrustError)
    assert words in str(outcome.error)
    assert on_disk(device) == before


async def test_root_below_its_own_threshold(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.roots.append(next_root(feed, ["root 1", "mallory"], roots=["mallory", "trudy"], threshold=2))
    feed.head_key = key("mallory")
    feed.publish(EDIT)
    before = on_disk(device)
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, TrustError)
    assert "1 of the 2 root keys of its own" in str(outcome.error)
    assert on_disk(device) == before


async def test_one_signature_does_not_count_twice(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.roots.append(next_root(feed, ["root 1", "mallory", "mallory"], roots=["mallory", "trudy"], threshold=2))
    feed.head_key = key("mallory")
    feed.publish(EDIT)
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, TrustError)
    assert "1 of the 2" in str(outcome.error)


async def test_root_number_skipped(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.roots.append(next_root(feed, ["root 1", "mallory"], roots=["mallory"], number=3))
    feed.head_key = key("mallory")
    feed.publish(EDIT)
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, TrustError)
    assert "is numbered 3" in str(outcome.error)


async def test_a_bad_root_does_not_stop_updates_that_the_known_one_vouches_for(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish(EDIT)
    feed.roots.append(b"<html>This page has moved</html>")
    outcome = await sync(device, origin)
    assert outcome.version == 2
    assert held(device) == feed.slices["core"].records


async def test_revoked_key(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.rotate(heads="head 2")
    feed.publish(EDIT)
    assert (await sync(device, origin)).error is None
    feed.head_key = key("head 1")
    feed.publish(FILMS)
    before = on_disk(device)
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, UnknownKeyError)
    assert on_disk(device) == before


async def test_key_revoked_while_the_device_was_away(tmp_path: Path, feed: Feed) -> None:
    """Known to the root that is held, not to the next: the next is asked for before anything is believed."""
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.rotate(heads="head 2")
    feed.head_key = key("head 1")
    feed.publish(EDIT)
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, UnknownKeyError)
    assert outcome.version == 1


async def test_fast_forward_recovery(tmp_path: Path, feed: Feed) -> None:
    """A stolen key signs version 2^40; once it is revoked, rightful heads of small versions are taken again."""
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    stolen = Feed()
    stolen.version = 1 << 40
    stolen.now = int(device.clock_s) + 80_000
    stolen.publish({"t001": {"title": "Owned"}})
    origin.feed = stolen
    assert (await sync(device, origin)).version == (1 << 40) + 1

    feed.publish(EDIT)
    origin.feed = feed
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, TrustError)
    assert "rollback" in str(outcome.error)

    feed.rotate(heads="head 2")
    feed.resign()
    outcome = await sync(device, origin)
    assert outcome.error is None
    assert outcome.version == 2
    assert held(device) == feed.slices["core"].records


async def test_another_trust_file_is_installed(tmp_path: Path, feed: Feed) -> None:
    """The roots kept from before count for nothing then, however high their number."""
    device = Device.of(tmp_path, feed)
    await first_sync(device, feed)
    feed.rotate(heads="head 2")
    feed.publish(EDIT)
    assert (await sync(device, Origin(feed))).error is None

    other = Feed()
    other.root_keys, other.head_key = [key("other root")], key("other head")
    root = trust.Root(1, other.now, other.now + ROOT_LIFE_S, Feed.role(other.root_keys), Feed.role([other.head_key]))
    other.roots = [trust.sign_root(root, other.root_keys)]
    other.publish({"t001": {"title": "From elsewhere"}})
    install(device, other.roots[0])
    assert isinstance((await sync(device, Origin(feed))).error, TrustError)
    outcome = await sync(device, Origin(other))
    assert outcome.error is None
    assert held(device) == other.slices["core"].records
    assert roots_kept(device) == other.roots


async def test_newer_trust_file_of_the_same_succession(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.rotate(heads="head 2")
    feed.rotate(heads="head 3")
    feed.publish(EDIT)
    assert (await sync(device, origin)).error is None
    install(device, feed.roots[1])
    origin.requests.clear()
    assert (await sync(device, origin)).error is None
    assert origin.requests["trust"] == 1
    assert roots_kept(device) == feed.roots[1:]


@pytest.mark.parametrize("content", [b"", b"not a root", bytes(70_000)])
async def test_unusable_trust_file(tmp_path: Path, feed: Feed, content: bytes) -> None:
    device = Device.of(tmp_path, feed)
    install(device, content)
    with pytest.raises(WireError, match="trust file of catalog"):
        await sync(device, Origin(feed))


async def test_trust_file_signed_by_someone_else(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    root = trust.Root(1, feed.now, feed.now + ROOT_LIFE_S, Feed.role([key("root 1")]), Feed.role([key("mallory")]))
    install(device, trust.sign_root(root, [key("mallory")]))
    with pytest.raises(TrustError, match="of its own"):
        await sync(device, Origin(feed))


# ---- roots that were lost or damaged on disk: everything fails closed

STALE_MIRROR = "stood under root 2, known is root 1"


def decay(device: Device, how: str) -> None:
    path = device.directory / device.name / "roots"
    if how == "missing":
        path.unlink()
    else:
        at = {"first byte": 0, "middle": path.stat().st_size // 2, "last byte": -1}[how]
        data = bytearray(path.read_bytes())
        data[at] ^= 0xFF
        path.write_bytes(data)


@pytest.mark.parametrize("how", ["missing", "first byte", "middle", "last byte"])
async def test_roots_that_decay_undo_neither_rotation_nor_rollback_protection(
    tmp_path: Path, feed: Feed, how: str
) -> None:
    device = Device.of(tmp_path, feed)
    stale = Origin(feed.copy())
    feed.rotate(heads="head 2")
    feed.publish(EDIT)
    await first_sync(device, feed)
    decay(device, how)
    before = held(device)
    outcome = await sync(device, stale)
    assert isinstance(outcome.error, TrustError)
    assert STALE_MIRROR in str(outcome.error)
    assert (outcome.version, held(device)) == (2, before)
    outcome = await sync(device, stale, Origin(feed))
    assert (outcome.error, outcome.version) == (None, 2)
    assert roots_kept(device) == feed.roots


async def test_without_the_roots_the_old_key_may_not_sign_a_later_version(tmp_path: Path, feed: Feed) -> None:
    """What a thief of the old key would try on a device whose roots are gone."""
    device = Device.of(tmp_path, feed)
    thief = feed.copy()
    feed.rotate(heads="head 2")
    feed.publish(EDIT)
    await first_sync(device, feed)
    for _ in range(5):
        thief.publish(FILMS)
    decay(device, "missing")
    outcome = await sync(device, Origin(thief))
    assert isinstance(outcome.error, TrustError)
    assert STALE_MIRROR in str(outcome.error)
    assert outcome.version == 2


async def test_the_trust_file_of_another_publisher_where_the_roots_are_lost_is_not_believed(
    tmp_path: Path, feed: Feed
) -> None:
    device = Device.of(tmp_path, feed)
    feed.publish(EDIT)
    await first_sync(device, feed)
    other = Feed()
    other.root_keys, other.head_key = [key("other root")], key("other head")
    root = trust.Root(1, other.now, other.now + ROOT_LIFE_S, Feed.role(other.root_keys), Feed.role([other.head_key]))
    other.roots = [trust.sign_root(root, other.root_keys)]
    other.publish(FILMS)
    decay(device, "missing")
    install(device, other.roots[0])
    outcome = await sync(device, Origin(other))
    assert isinstance(outcome.error, TrustError)
    assert "rollback" in str(outcome.error)


async def test_an_older_trust_file_of_the_same_succession(tmp_path: Path, feed: Feed) -> None:
    """As after a factory reset that keeps the data: what was known binds, and is fetched again."""
    device = Device.of(tmp_path, feed)
    stale = Origin(feed.copy())
    feed.rotate(heads="head 2")
    feed.publish(EDIT)
    install(device, feed.roots[1])
    await first_sync(device, feed)
    install(device, feed.roots[0])
    outcome = await sync(device, stale)
    assert isinstance(outcome.error, TrustError)
    assert STALE_MIRROR in str(outcome.error)
    assert (await sync(device, Origin(feed))).error is None
    assert roots_kept(device) == feed.roots


async def test_a_head_is_not_judged_under_an_older_root_than_it_names(tmp_path: Path, feed: Feed) -> None:
    """Its key is still known: but the root that it names, and that is withheld, may have taken it away."""
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.rotate(heads="head 1")
    feed.publish(EDIT)
    withheld = feed.roots.pop()
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, NewerRootError)
    assert "stands under root of trust 2, known here is root 1" in str(outcome.error)
    assert outcome.version == 1
    feed.roots.append(withheld)
    assert (await sync(device, origin)).version == 2


# ---- roots that expire (TUF specification 5.3.10)


@pytest.mark.parametrize(("late_s", "taken"), [(-1, True), (0, False)])
async def test_no_head_is_taken_under_a_root_that_has_expired(
    tmp_path: Path, feed: Feed, late_s: int, taken: bool
) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    ends = feed.now - 1 + ROOT_LIFE_S
    feed.now = ends - 10
    feed.publish(EDIT)
    device.clock_s = ends + late_s
    outcome = await sync(device, origin)
    assert outcome.version == (2 if taken else 1)
    if not taken:
        assert isinstance(outcome.error, NewerRootError)
        assert "the publisher has to renew the root" in str(outcome.error)
        feed.rotate(heads="head 1")
        feed.resign(1)
        assert (await sync(device, origin)).version == 2


async def test_a_box_without_a_clock_takes_no_head_that_was_signed_after_its_root_expired(
    tmp_path: Path, feed: Feed
) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    device.clock_s = 0.0
    feed.now += ROOT_LIFE_S
    feed.publish(EDIT)
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, NewerRootError)
    assert outcome.version == 1


async def test_a_device_that_was_away_for_years_takes_the_whole_succession(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    for _ in range(5):
        feed.now += ROOT_LIFE_S // 2 + 1000
        feed.rotate(heads="head 1")
    feed.publish(EDIT)
    device.clock_s = feed.now + 5.0
    assert (await sync(device, origin)).version == 2
    assert roots_kept(device) == feed.roots


async def test_the_seed_is_taken_though_its_root_has_expired(tmp_path: Path, feed: Feed) -> None:
    """A box that lay in a shop for years shows something at its first start; the network brings the rest."""
    device = Device.of(tmp_path, feed)
    device.clock_s += 2 * ROOT_LIFE_S
    outcome = await sync(device, Origin(feed), seed=Origin(feed.copy()))
    assert isinstance(outcome.error, NewerRootError)
    assert (outcome.version, held(device)) == (1, feed.slices["core"].records)
