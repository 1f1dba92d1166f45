"""The digest of a set: order does not matter, everything else does."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.feed import digest
from edged.feed.digest import EMPTY_DIGEST, LANES, STATE_BYTES, SetHash

records = st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9), st.binary(max_size=20)), max_size=12)


def by_lanes(items: list[tuple[str, str, bytes]]) -> bytes:
    """The definition, lane by lane: what the fast code must equal."""
    total = [0] * LANES
    for collection, key, value in items:
        name, word = collection.encode(), key.encode()
        material = b"edged/1 record" + struct.pack(">H", len(name)) + name + struct.pack(">H", len(word)) + word + value
        lanes = struct.unpack(f"<{LANES}H", hashlib.shake_128(material).digest(2 * LANES))
        total = [(one + other) % 65536 for one, other in zip(total, lanes, strict=True)]
    return struct.pack(f"<{LANES}H", *total)


def hash_of(items: list[tuple[str, str, bytes]]) -> SetHash:
    made = SetHash()
    for item in items:
        made.add(*item)
    return made


@given(records)
def test_the_sum_is_lane_by_lane(items: list[tuple[str, str, bytes]]) -> None:
    assert hash_of(items).state() == by_lanes(items)


@given(records, st.randoms(use_true_random=False))
def test_the_order_does_not_matter_and_removing_undoes_adding(
    items: list[tuple[str, str, bytes]], random: object
) -> None:
    mixed = list(items)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    made = hash_of(mixed)
    assert made.digest() == hash_of(items).digest()
    for item in items:
        made.remove(*item)
    assert made.digest() == EMPTY_DIGEST


@given(records, records)
def test_merging_is_adding_all(some: list[tuple[str, str, bytes]], others: list[tuple[str, str, bytes]]) -> None:
    made = hash_of(some)
    made.merge(hash_of(others))
    assert made.state() == hash_of(some + others).state()


def test_where_a_name_ends_matters() -> None:
    assert hash_of([("ab", "c", b"")]).digest() != hash_of([("a", "bc", b"")]).digest()
    assert hash_of([("a", "b", b"c")]).digest() != hash_of([("a", "bc", b"")]).digest()


def test_it_goes_on_from_a_saved_state_past_the_headroom() -> None:
    made = SetHash()
    item = ("a", "b", b"c")
    for _ in range(65_600):
        made.add(*item)
    again = SetHash(made.state())
    twin = again.copy()
    for _ in range(65_600):
        again.remove(*item)
    assert again.digest() == EMPTY_DIGEST
    assert twin.digest() == made.digest() != EMPTY_DIGEST


@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize("count", [65_534, 65_535, 65_536, 65_537, 65_538, 131_100])
def test_lanes_that_are_all_at_their_most_never_overflow_into_one_another(
    count: int, least: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The worst that records can bring: a sum of so many has to come out as the same sum lane by lane.
    most = (1 << 8 * STATE_BYTES) - 1
    monkeypatch.setattr(digest, "element", lambda *_: 0 if least else most)
    full = SetHash(most.to_bytes(STATE_BYTES, "little"))
    for _ in range(count):
        if least:
            full.remove("a", "b", b"c")  # what is added for it is 2^16, the most of all
        else:
            full.add("a", "b", b"c")
    lane = (0xFFFF + (0 if least else count * 0xFFFF)) & 0xFFFF
    assert full.state() == lane.to_bytes(2, "little") * (STATE_BYTES // 2)


def test_merged_sums_at_their_most_never_overflow() -> None:
    full, total = SetHash(b"\xff" * STATE_BYTES), SetHash()
    for _ in range(65_540):
        total.merge(full)
    assert total.state() == (65_540 * 0xFFFF & 0xFFFF).to_bytes(2, "little") * (STATE_BYTES // 2)


def test_a_state_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2048"):
        SetHash(b"short")
