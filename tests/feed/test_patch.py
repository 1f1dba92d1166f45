"""Heads as what differs from another: what comes out is what went in, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged.errors import WireError
from edged.feed import limits
from edged.feed.patch import CHECK_BYTES, MARK, check_of, decode_patch, encode_patch, is_patch

BASE = bytes(range(256)) * 2


@given(st.lists(st.one_of(st.binary(max_size=40), st.tuples(st.integers(0, 511), st.integers(0, 300))), max_size=8))
@example([(0, 200), b"new", (203, 300)])
@example([(300, 100), (0, 100), (300, 100)])
@example([])
def test_a_head_comes_back_from_what_differs(pieces: list[bytes | tuple[int, int]]) -> None:
    data = b"".join(piece if isinstance(piece, bytes) else BASE[piece[0] : sum(piece)] for piece in pieces)
    patch = encode_patch(BASE, data)
    if patch is not None:
        assert is_patch(patch)
        assert len(patch) < len(data)
        assert decode_patch(BASE, patch) == data


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_of_short_heads_without_anything_in_common_there_is_none(base: bytes, data: bytes) -> None:
    patch = encode_patch(base, data)
    assert patch is None or decode_patch(base, patch) == data


def test_what_was_replaced_costs_few_bytes_beside_itself() -> None:
    data = BASE[:100] + b"x" * 64 + BASE[164:300] + b"more" + BASE[300:]
    patch = encode_patch(BASE, data)
    assert patch is not None
    assert len(patch) <= 1 + CHECK_BYTES + 64 + 4 + 12
    assert encode_patch(BASE, BASE) == MARK + check_of(BASE) + bytes([0, 0x80, 8])  # 512 bytes, all of them


@pytest.mark.parametrize(
    "rest",
    [
        bytes([5]) + b"four",  # cut short
        bytes([0, 3]),  # a run without its place
        bytes([0, 0x82, 8]),  # 513 bytes, where the base has 512
        bytes([0, 3, 1]),  # before its begin
        bytes([0, 3, 0x80, 8]),  # after its end
        bytes([0x80, 0x00]),  # a number that is not in its shortest form
        bytes([0, 0x80, 8]) + bytes([0, 0x81, 8, 0xFF, 7]) * 128,  # longer than heads that come so
    ],
)
def test_a_patch_that_is_none_is_refused(rest: bytes) -> None:
    with pytest.raises(WireError, match="patch of a head"):
        decode_patch(BASE, MARK + check_of(BASE) + rest)


@given(st.binary(max_size=200))
def test_nothing_that_comes_does_more_than_be_refused(rest: bytes) -> None:
    try:
        found = decode_patch(BASE, MARK + check_of(BASE) + rest)
    except WireError:
        return
    assert len(found) <= 2 * limits.PATCHED_BYTES


def test_a_patch_of_another_head_or_of_none_is_refused() -> None:
    patch = encode_patch(BASE, BASE + b"more")
    assert patch is not None
    for base, sent in ((BASE[1:], patch), (BASE, patch[:3]), (BASE, b""), (BASE, b"\xd2" + patch[1:])):
        with pytest.raises(WireError):
            decode_patch(base, sent)
    with pytest.raises(WireError, match="another head"):
        decode_patch(BASE, patch + bytes(limits.PATCHED_BYTES))


def test_long_heads_are_sent_as_they_are() -> None:
    assert encode_patch(BASE, bytes(limits.PATCHED_BYTES + 1)) is None
    assert encode_patch(bytes(limits.PATCHED_BYTES + 1), BASE) is None
