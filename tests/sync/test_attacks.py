"""Attacks from the TUF specification's list and python-tuf's: each refused, with the replica on disk as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edged.errors import ChainError, EdgedError, HashError, MissingError, TrustError, UnknownKeyError, WireError
from edged.feed import limits
from edged.feed.head import HopRef
from edged.feed.trust import root as trust
from edged.sync.core.judge import ExpiredError
from tests.sync.driving import first_sync, held, on_disk, sync
from tests.sync.simulator import NOW, Device, Feed, Origin, flip, key, swapping

FILMS: dict[str, object | None] = {f"t{number:03}": {"title": f"Film {number}", "year": number} for number in range(40)}
EDIT: dict[str, object | None] = {"t001": {"title": "Film 1, restored", "year": 1}}


@pytest.fixture
def feed() -> Feed:
    feed = Feed()
    feed.publish(FILMS)
    return feed


async def refused(device: Device, origin: Origin, kind: type[EdgedError], words: str) -> None:
    """A synchronisation ends in `kind`, says `words`, and leaves every byte on disk as it was."""
    before = on_disk(device)
    outcome = await sync(device, origin)
    assert type(outcome.error) is kind
    assert words in str(outcome.error)
    assert outcome.version == outcome.before
    assert on_disk(device) == before


# ---- who signed


async def test_wrong_key(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.head_key = key("mallory")
    feed.publish(EDIT)
    await refused(device, origin, UnknownKeyError, "which the root of trust does not name")


async def test_wrong_key_at_first_contact(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    stranger = Feed()
    stranger.head_key = key("mallory")
    stranger.publish(FILMS)
    outcome = await sync(device, Origin(stranger))
    assert isinstance(outcome.error, UnknownKeyError)
    assert outcome.version == 0
    assert held(device) == {}


async def test_signed_by_the_root_key_instead_of_the_head_key(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.head_key = key("root 1")
    feed.publish(EDIT)
    await refused(device, origin, UnknownKeyError, "which the root of trust does not name")


async def test_root_of_trust_passed_off_as_head(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.head = feed.roots[0]
    await refused(device, origin, WireError, "does not begin with CBOR tag")


@pytest.mark.parametrize("place", [0, 2, 10, 40, -100, -64, -1])
async def test_flipped_bit_in_head(tmp_path: Path, feed: Feed, place: int) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish(EDIT)
    feed.head = flip(feed.head, place % len(feed.head))
    before = on_disk(device)
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, TrustError | WireError)
    assert on_disk(device) == before


@pytest.mark.parametrize("size", [0, 1, 30, -1])
async def test_truncated_head(tmp_path: Path, feed: Feed, size: int) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish(EDIT)
    feed.head = feed.head[:size]
    before = on_disk(device)
    outcome = await sync(device, origin)
    assert isinstance(outcome.error, WireError)
    assert on_disk(device) == before


async def test_trailing_data_after_head(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish(EDIT)
    feed.head += b"\0"
    await refused(device, origin, WireError, "1 bytes follow it")


async def test_endless_head(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.head = feed.head + bytes(limits.HEAD_BYTES)
    await refused(device, origin, WireError, "at most")


async def test_head_of_a_later_format_is_not_guessed_at(
    tmp_path: Path, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    with monkeypatch.context() as patch:
        patch.setattr("edged.feed.head.FORMAT", 3)
        feed.publish(EDIT)
    await refused(device, origin, WireError, "update edged")


# ---- old, future and other heads


async def test_rollback(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    old = feed.head
    feed.publish(EDIT)
    origin = await first_sync(device, feed)
    feed.head = old
    await refused(device, origin, TrustError, "rollback")


async def test_rollback_signed_anew(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    feed.publish(EDIT)
    origin = await first_sync(device, feed)
    outdated = Feed()
    outdated.publish(FILMS)
    outdated.resign(1000)
    origin.feed = outdated
    await refused(device, origin, TrustError, "rollback")


async def test_rollback_after_a_restart_of_a_device_without_clock(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed, clock_s=0.0)
    old = feed.head
    feed.publish(EDIT)
    origin = await first_sync(device, feed)
    feed.head = old
    await refused(device, origin, TrustError, "rollback")


async def test_signed_time_going_backwards(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish(EDIT, sign=False)
    feed.sign(signed_at=NOW - 1000)
    await refused(device, origin, TrustError, "before the head seen last")


async def test_older_signature_of_the_same_version(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    old = feed.head
    feed.resign()
    device.clock_s += 60
    origin = await first_sync(device, feed)
    feed.head = old
    await refused(device, origin, TrustError, "before the head seen last")


async def test_same_version_with_other_content(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    other = Feed()
    other.publish({**FILMS, "t001": {"title": "Something else"}})
    other.now += 60
    other.sign()
    origin.feed = other
    await refused(device, origin, TrustError, "not the content that was signed under this number before")


async def test_replay_of_another_datasets_head(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    other = Feed("channels")
    for _ in range(3):
        other.publish(EDIT)
    origin.feed = other
    await refused(device, origin, TrustError, "signed for dataset 'channels'")


async def test_head_from_the_future(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.now = int(device.clock_s) + limits.FUTURE_S + 100
    feed.publish(EDIT)
    await refused(device, origin, TrustError, "in the future")


async def test_head_within_the_tolerance_is_taken_but_moves_it_no_further(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.now = int(device.clock_s) + limits.FUTURE_S - 100
    feed.publish(EDIT)
    assert (await sync(device, origin)).error is None
    feed.now += 1000  # more than a day ahead of the clock, though not of the head seen last
    feed.publish(FILMS)
    await refused(device, origin, TrustError, "in the future")


async def test_a_clock_of_1970_can_call_nothing_future(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed, clock_s=0.0)
    feed.now += 10 * 365 * 86_400
    feed.rotate(heads="head 2")
    feed.publish(EDIT)
    outcome = await sync(device, Origin(feed))
    assert outcome.error is None
    assert outcome.version == 2


async def test_freeze(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish(EDIT)  # withheld: the origin goes on showing the head from before
    feed_before = Feed()
    feed_before.publish(FILMS)
    origin.feed = feed_before
    device.clock_s += feed.expires_s + 100
    await refused(device, origin, ExpiredError, "freeze")
    assert held(device) == feed_before.slices["core"].records


# ---- blobs


def blob_faults() -> dict[str, tuple[Callable[[bytes], bytes], type[EdgedError]]]:
    return {
        "flipped first bit": (lambda data: flip(data, 0), HashError),
        "flipped last bit": (lambda data: flip(data, len(data) - 1), HashError),
        "truncated": (lambda data: data[:-1], HashError),
        "empty": (lambda data: b"", HashError),
        "endless": (lambda data: data + bytes(1 << 20), HashError),
    }


@pytest.mark.parametrize("name", blob_faults())
async def test_blob_on_the_way(tmp_path: Path, feed: Feed, name: str, jumping: object) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.inline_bytes = 0
    feed.publish(EDIT)
    change, kind = blob_faults()[name]
    origin.fault = swapping("blob", change)
    await refused(device, origin, kind, "fetch it again")
    origin.fault = None
    assert (await sync(device, origin)).error is None
    assert held(device) == feed.slices["core"].records


async def test_missing_blob(tmp_path: Path, feed: Feed, jumping: object) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.inline_bytes = 0
    feed.publish(EDIT)
    feed.blobs.clear()
    await refused(device, origin, MissingError, "no such blob")


async def test_chain_of_another_version_under_a_rightful_head(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    old_chain = feed.document().chain
    feed.inline_bytes = 0
    for _ in range(3):
        feed.publish(EDIT, sign=False)
    feed.sign(chain=old_chain)
    await refused(device, origin, ChainError, "is for catalog, version 1")


async def test_chain_of_another_dataset(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    other = Feed("channels")
    for _ in range(2):
        other.publish(FILMS)
    feed.blobs.update(other.blobs)
    feed.publish(EDIT, sign=False)
    item = feed.slices["core"]
    item.hops.clear()
    feed.sign(chain=other.document().chain)
    await refused(device, origin, ChainError, "is for channels")


async def test_mix_and_match_of_slices(tmp_path: Path) -> None:
    """One slice's hop in place of another's: the digest shows it, and no slice of the new version becomes visible."""
    feed = Feed(slices=("core", "kids"))
    feed.publish(FILMS, "core")
    feed.publish(FILMS, "kids")
    device = Device.of(tmp_path, feed, slices=("core", "kids"))
    origin = await first_sync(device, feed)
    feed.publish({"t001": {"title": "For all"}}, "core", sign=False)
    feed.change("kids", {"t001": {"title": "For children"}})
    feed.slices["kids"].snapshots = ()
    own = next(hop for hop in feed.slices["core"].hops if hop.to_version == feed.version)
    feed.slices["kids"].hops = [HopRef(2, feed.version, own.blob)]
    feed.sign()
    await refused(device, origin, ChainError, "slice kids")


async def test_mix_and_match_of_versions(tmp_path: Path) -> None:
    """A head made of slices of two versions cannot be made without the key; what was signed is taken whole."""
    feed = Feed(slices=("core", "kids"))
    feed.publish(FILMS, "core")
    feed.publish(FILMS, "kids")
    device = Device.of(tmp_path, feed, slices=("core", "kids"))
    origin = await first_sync(device, feed)
    old = feed.document()
    feed.publish(EDIT, "core", sign=False)
    feed.change("kids", EDIT)
    mixed = replace(feed.document(), slices={**feed.document().slices, "kids": old.slices["kids"]})
    feed.head = trust.sign_head(mixed, key("mallory"))
    await refused(device, origin, UnknownKeyError, "does not name")


async def test_wrong_hop_is_repaired_from_the_snapshot_and_named(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish(EDIT, sign=False)
    item = feed.slices["core"]
    wrong = item.history[1] | {("titles", "t002"): b"\xf6"}
    item.history[99] = wrong
    forged = feed.add_hop(item, 1, 99)
    item.hops = [HopRef(1, 2, forged.blob)]
    feed.snapshot("core")
    feed.sign()
    outcome = await sync(device, origin)
    assert outcome.error is None
    assert outcome.version == 2
    assert held(device) == item.history[2]


async def test_hop_that_no_snapshot_can_mend(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish(EDIT, sign=False)
    item = feed.slices["core"]
    item.history[99] = item.history[1] | {("titles", "t002"): b"\xf6"}
    forged = feed.add_hop(item, 1, 99)
    item.hops = [HopRef(1, 2, forged.blob)]
    feed.sign()
    await refused(device, origin, ChainError, "none of 1 snapshots and 1 hops leads there")


async def test_wrong_record_count_is_no_small_matter(tmp_path: Path, feed: Feed) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish(EDIT, sign=False)
    document = feed.document()
    lying = replace(document.slices["core"], records=41)
    feed.sign(slices={"core": lying})
    await refused(device, origin, ChainError, "41")
