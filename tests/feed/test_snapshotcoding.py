"""Snapshot parts are decoded on their own, in order, byte for byte, and within limits whoever made them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import WireError
from edged.feed import cbor, zstd
from edged.feed.coding import snapshot as snapshotcoding
from edged.feed.coding.columns import apart, read_columns, together, write_columns
from edged.feed.coding.octets import write_varint
from edged.feed.coding.snapshot import (
    decode_part,
    encode_snapshot,
    pack_dictionary,
    sample_evenly,
    train_dictionary,
    unpack_dictionary,
)
from tests.feed.test_hop_forms import BASE, DICTIONARY, STATES, State

Records = list[tuple[str, str, bytes]]


def ordered(state: State) -> Records:
    return sorted(((*name, value) for name, value in state.items()), key=lambda r: (r[0].encode(), r[1].encode()))


@settings(max_examples=100, deadline=None)
@given(STATES)
def test_any_state_comes_back_byte_for_byte(state: State) -> None:
    records = ordered(state)
    for dictionary in (b"", DICTIONARY):
        parts = encode_snapshot(records, dictionary, level=3)
        assert [r for part in parts for r in decode_part(part, dictionary, max_bytes=1 << 20)] == records


def test_parts_are_bounded_and_each_decodes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshotcoding, "PART_CONTENT_BYTES", 4096)
    records = ordered(BASE)
    parts = list(encode_snapshot(records, DICTIONARY, level=3))
    assert len(parts) > 5
    back = [list(decode_part(part, DICTIONARY, max_bytes=8192)) for part in reversed(parts)]
    assert [record for part in reversed(back) for record in part] == records


def test_values_that_use_every_byte_value_are_told_apart() -> None:
    numbers = cbor.encode_record([*range(256), *(n << 8 | 0xFF for n in range(256))], "numbers")
    text = cbor.encode_record("".join(map(chr, range(0x40, 0x800))), "text")
    floats = cbor.encode_record([n * 1.1 for n in range(2000)], "floats")
    records = [("a", "1", numbers), ("a", "2", text), ("b", "1", floats), ("b", "2", floats)]
    parts = list(encode_snapshot(records, b""))
    assert [r for part in parts for r in decode_part(part, b"", max_bytes=1 << 20)] == records


def test_records_out_of_order_are_refused_at_publishing() -> None:
    with pytest.raises(WireError, match="order"):
        list(encode_snapshot([("a", "2", b"\1"), ("a", "1", b"\1")], b""))


def test_a_dictionary_survives_its_blob_and_is_bounded() -> None:
    assert unpack_dictionary(pack_dictionary(DICTIONARY)) == DICTIONARY
    assert 0 < len(DICTIONARY) <= 8192
    with pytest.raises(WireError):
        unpack_dictionary(pack_dictionary(bytes(2 << 20)))


def test_a_dictionary_of_next_to_nothing_is_still_usable() -> None:
    records: Records = [("a", "1", cbor.encode_record({"title": "One"}, "record"))]
    dictionary = train_dictionary(records)
    parts = list(encode_snapshot(records, dictionary))
    assert list(decode_part(parts[0], dictionary, max_bytes=100)) == records
    assert train_dictionary([]) == b""


def test_the_sample_is_bounded_and_spread_over_everything() -> None:
    sample, seen = sample_evenly((("a", str(n), n.to_bytes(4, "big")) for n in range(100_000)), 4000)
    assert seen == 400_000
    numbers = [int.from_bytes(value, "big") for _, value in sample]
    assert 400 <= len(numbers) <= 1000
    assert numbers[0] == 0
    assert numbers[-1] > 98_000


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_parts_raise_wire_error_or_decode_within_the_limit(data: st.DataObject) -> None:
    (part,) = encode_snapshot(ordered(BASE)[:30], DICTIONARY, level=3)
    mutated = bytearray(part)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    try:
        records = list(decode_part(bytes(mutated), DICTIONARY, max_bytes=8192))
    except WireError:
        return
    assert sum(len(value) for _, _, value in records) <= 8192


def test_every_cut_of_a_part_and_data_after_it_are_refused() -> None:
    (part,) = encode_snapshot(ordered(BASE)[:10], DICTIONARY, level=3)
    for damaged in [part[:length] for length in range(len(part))] + [part + b"\0"]:
        with pytest.raises(WireError):
            list(decode_part(damaged, DICTIONARY, max_bytes=1 << 20))


def rle_frame(declared: int, block: int, blocks: int) -> bytes:
    """A magicless frame of run-length blocks that holds `block * blocks` bytes and declares `declared`."""
    body = b"".join((block << 3 | 2 | (number == blocks - 1)).to_bytes(3, "little") + b"a" for number in range(blocks))
    return bytes([0x80, 0x38]) + declared.to_bytes(4, "little") + body


def test_bomb_whose_frame_lies_about_its_size_is_refused() -> None:
    with pytest.raises(WireError):
        zstd.decompress_magicless(rle_frame(1000, 128 << 10, 4000), b"", "bomb", 1000)


def test_bomb_that_declares_its_size_is_refused_before_anything_is_allocated() -> None:
    part = bytearray([snapshotcoding.PLAIN])
    write_varint(part, (500 << 20) * 2 + 1)
    part += rle_frame(500 << 20, 128 << 10, 4000)
    with pytest.raises(WireError, match="at most"):
        list(decode_part(bytes(part), b"", max_bytes=1 << 20))


def test_frame_with_a_huge_window_is_refused() -> None:
    frame = bytearray(rle_frame(1000, 1000, 1))
    frame[1] = 0xF8  # 2**41 bytes
    with pytest.raises(WireError):
        zstd.decompress_magicless(bytes(frame), b"", "window", 1000)


def test_values_that_are_not_cbor_of_the_json_model_come_back_too() -> None:
    odd = [
        b"",
        b"\xff",
        b"\x9f\x01\xff",
        b"\x18\x01",
        b"\x61\xff",
        b"\x43abc",
        b"\xc1\x01",
        b"\x01\x02",
        b"\xa1\x01\x02",
    ]
    records = [("a", str(n), value) for n, value in enumerate(odd)]
    parts = list(encode_snapshot(records, b""))
    assert [r for part in parts for r in decode_part(part, b"", max_bytes=1 << 20)] == records


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_columns_raise_wire_error_or_decode_within_the_limit(data: st.DataObject) -> None:
    batch = [(collection.encode(), key.encode(), value) for collection, key, value in ordered(BASE)[:12]]
    mutated = bytearray(write_columns(batch, data.draw(st.sampled_from([apart, together]))))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(mutated) - 1))
        match data.draw(st.sampled_from(["set", "insert", "cut"])):
            case "set":
                mutated[place] = data.draw(st.integers(0, 255))
            case "insert":
                mutated.insert(place, data.draw(st.integers(0, 255)))
            case _:
                del mutated[place]
    try:
        records = list(read_columns(bytes(mutated), 8192))
    except WireError:
        return
    assert sum(len(key) + len(value) for _, key, value in records) <= 8192


def test_a_part_whose_shape_multiplies_its_bytes_is_refused_at_the_limit() -> None:
    records = [(b"a", b"%03d" % n, bytes([0x59, 0x03, 0xE8]) + bytes(1000)) for n in range(200)]
    content = write_columns(records, apart)
    assert len(content) < 4000
    assert len(list(read_columns(content, 1 << 20))) == 200
    with pytest.raises(WireError, match="more than"):
        list(read_columns(content, 50_000))
