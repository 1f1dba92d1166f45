"""Strict CBOR, zstd from strangers, names, and the schema."""

from __future__ import annotations

import math
import struct
import tracemalloc
from typing import Any

import cbor2
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import WireError
from edged.feed import cbor, limits, zstd
from edged.feed.names import check_collection, check_key, check_name
from edged.feed.schema import CollectionSchema, Schema, ViewRule
from tests.feed.making import chain

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcé", max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_records_come_back(value: Any) -> None:
    data = cbor.encode_record(value, "test")
    assert cbor.decode(data, "test") == value
    assert cbor.encode(cbor.decode(data, "test")) == data


@given(st.binary(max_size=60))
def test_noise_decodes_to_itself_or_raises(noise: bytes) -> None:
    try:
        value = cbor.decode(noise, "noise")
    except WireError:
        return
    assert cbor.encode(value) == noise


@given(value=VALUES)
def test_the_size_of_an_encoding_is_known_without_it(value: Any) -> None:
    assert cbor.encoded_size(value) == len(cbor.encode(value))
    assert cbor.decode_held(cbor.encode(value), "test") == value


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_sizes_at_the_ends_of_heads(bits: int) -> None:
    most = (1 << bits) - 1
    for number in (23, 24, most, -1 - most, *([most + 1, -2 - most] if bits < 64 else [])):
        assert cbor.encoded_size(number) == len(cbor.encode(number)), number
    for size in (23, 24, 255, 256, 65_535, 65_536):
        for value in ("a" * size, "é" * size, [None] * size, {f"{place}": 0.1 for place in range(size)}):
            assert cbor.encoded_size(value) == len(cbor.encode(value)), size


@pytest.mark.parametrize("data", [b"", b"\x61", b"\x9f\xff", b"\xa2\x61a\x01\x61a\x02", b"\x81" * 200 + b"\x00"])
def test_a_held_record_that_has_decayed_is_refused(data: bytes) -> None:
    with pytest.raises(WireError, match="decode held record: not acceptable CBOR"):
        cbor.decode_held(data, "held record")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00",  # trailing data
        b"\x18\x01",  # not the shortest
        b"\xfb" + struct.pack(">d", 1.0),  # a float that fits in half the bytes
        b"\x9f\xff",  # indefinite
        b"\x7f\x61a\xff",
        b"\xa2\x61a\x01\x61a\x02",  # the same key twice
        b"\xa2\x61b\x01\x61a\x02",  # keys out of order
        b"\xc1\x00",  # tags: time,
        b"\xc2\x49" + b"\xff" * 9,  # bignum,
        b"\xc4\x82\x1b" + b"\x0f" * 8 + b"\x01",  # decimal fraction with a huge exponent,
        b"\xd8\x1e\x82\x01\x00",  # rational with denominator 0,
        b"\xd8\x23\x61(",  # regular expression,
        b"\xd8\x1c\x81\xd8\x1d\x00",  # a list that holds itself,
        b"\xd9\x01\x02\x80",  # set
        b"\xf7",  # undefined
        b"\xf8\x20",  # simple value
        b"\x9b\x00\x00\x00\x7f\xff\xff\xff\xff",  # a list of two thousand million
        b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1\x80\x01",  # a list as key
        b"\x61\xff",  # not UTF-8
        b"\x63\xed\xa0\x80",  # a surrogate
    ],
)
def test_cbor_that_is_refused(data: bytes) -> None:
    with pytest.raises(WireError, match="decode thing"):
        cbor.decode(data, "thing")


@pytest.mark.parametrize("value", [True, [1, False], {1: {2: True}}, 1.5, [0.0]])
def test_a_document_of_the_feed_holds_no_true_where_a_number_stands(value: Any) -> None:
    data = cbor.encode(value)
    assert cbor.decode(data, "record") == value
    with pytest.raises(WireError, match="decode thing: holds a"):
        cbor.decode_document(data, "thing", depth=8)
    assert cbor.decode_document(cbor.encode({1: [2, None, b"3", "4"]}), "thing", depth=8) == {1: [2, None, b"3", "4"]}


def test_records_are_laid_out_as_a_careful_encoder_would() -> None:
    value = {
        "zz": [7.0, 6.2, -0.0, {"b": None, "aa": 1, "a": True}],
        "é": {"y": 1 << 63, "x": -(1 << 63)},
        "a": [],
        "zé": {},
        "bb": 0.1,
    }
    data = cbor.encode_record(value, "thing")
    assert data == cbor2.dumps(value, canonical=True)
    assert list(value) == ["zz", "é", "a", "zé", "bb"]  # left as it was
    assert value["zz"] == [7.0, 6.2, -0.0, {"b": None, "aa": 1, "a": True}]
    with pytest.raises(WireError, match="not deterministic"):
        cbor.decode(cbor2.dumps(value), "thing")


@given(st.dictionaries(st.text("abc", max_size=3), VALUES, min_size=1, max_size=6), VALUES, st.data())
def test_a_field_is_replaced_in_the_encoding_or_left_to_the_whole(
    value: dict[str, Any], new: Any, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(value)))
    before = cbor.encode_record(value, "thing")
    found = cbor.with_field(before, name, value[name], new, "thing")
    if found is not None:
        assert found == cbor.encode_record(value | {name: new}, "thing")
    else:
        assert before.count(cbor.encode_record({name: value[name]}, "thing")[1:]) != 1 or len(before) > 128


def test_a_field_that_seems_to_be_there_twice_is_left_to_the_whole() -> None:
    within = cbor.encode_record({"a": 1}, "thing")[1:].decode("latin-1")
    value = {"a": 1, "b": within, "c": {"a": 1}}
    assert cbor.with_field(cbor.encode_record(value, "thing"), "a", 1, 2, "thing") is None
    assert cbor.with_field(cbor.encode_record({"a": 1, "b": 1}, "thing"), "a", 3, 2, "thing") is None
    with pytest.raises(WireError, match="is not a JSON number"):
        cbor.with_field(cbor.encode_record({"a": 1}, "thing"), "a", 1, float("inf"), "thing")


def test_orders_of_fields_are_remembered_within_bounds() -> None:
    for number in range(cbor.ORDERED_MOST + 10):
        value = {f"b{number}": 1, "a": 2}
        assert cbor.encode_record(value, "thing") == cbor2.dumps(value, canonical=True)
    cbor.encode_record({"x" * (cbor.NAMED_MOST + 1): 1}, "thing")
    assert len(cbor.ORDERS) <= cbor.ORDERED_MOST
    assert all(len("".join(names)) <= cbor.NAMED_MOST for names in cbor.ORDERS)


def test_nesting_is_bounded_both_ways() -> None:
    deep: Any = 1
    for _ in range(limits.DEPTH + 1):
        deep = [deep]
    with pytest.raises(WireError, match="nested deeper"):
        cbor.encode_record(deep, "thing")
    with pytest.raises(WireError):
        cbor.decode(b"\x81" * 100_000 + b"\x01", "thing")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "not a JSON number"),
        ({"a": [math.inf]}, "not a JSON number"),
        (1 << 64, "64 bits"),
        (-(1 << 63) - 1, "64 bits"),
        ({1: 2}, "field name is not text"),
        ("\ud800", "valid Unicode"),
        (b"bytes", "bytes is not of the JSON data model"),
        ((1, 2), "tuple is not of the JSON data model"),
        ("x" * limits.VALUE_BYTES, "split the record"),
    ],
)
def test_records_that_cannot_be_published(value: Any, words: str) -> None:
    with pytest.raises(WireError, match=words):
        cbor.encode_record(value, "titles/x")


# ---- zstd


def frame(declared: int | None, blocks: int, *, last: bool = True, window_log: int = 20) -> bytes:
    """A frame of run-length blocks of 128 KiB each, three bytes apiece, that declares what it likes."""
    head = 0x80 if declared is not None else 0
    size = struct.pack("<I", declared) if declared is not None else b""
    data = b"\x28\xb5\x2f\xfd" + bytes([head, (window_log - 10) << 3]) + size
    for number in range(blocks):
        data += ((131_072 << 3) | 2 | int(last and number == blocks - 1)).to_bytes(3, "little") + b"x"
    return data


@given(st.binary(max_size=5000))
def test_zstd_comes_back(data: bytes) -> None:
    assert zstd.decompress(zstd.compress(data), "test", 5000) == data


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("declared", [0, 10, 131_072, 1 << 20, None])
def test_bomb_that_lies_about_its_size(declared: int | None, last: bool) -> None:
    bomb = frame(declared, 20_000, last=last)  # 80 kB that want to become 2.6 GB
    tracemalloc.start()
    with pytest.raises(WireError):
        zstd.decompress(bomb, "bomb", 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_zstd_limits() -> None:
    data = zstd.compress(bytes(1000))
    with pytest.raises(WireError, match="declares 1000 bytes, at most 999"):
        zstd.decompress(data, "thing", 999)
    with pytest.raises(WireError, match="window"):
        zstd.decompress(frame(10, 1, window_log=31), "thing", 1 << 20)
    with pytest.raises(WireError, match="data follows it"):
        zstd.decompress(data + b"x", "thing", 1000)
    with pytest.raises(WireError, match="data follows it"):
        zstd.decompress(data + data, "thing", 2000)
    with pytest.raises(WireError, match="not a zstd frame"):
        zstd.decompress(b"", "thing", 10)
    for size in range(len(data)):
        with pytest.raises(WireError):
            zstd.decompress(data[:size], "thing", 1000)


@pytest.mark.parametrize(("window", "log", "taken"), [(0, 25, True), (0, 26, False), (1 << 27, 27, True)])
def test_a_frame_may_ask_for_no_more_of_a_window_than_was_said(window: int, log: int, taken: bool) -> None:
    engine = zstd.decompressor(window=window).decompressobj()
    if taken:
        assert engine.decompress(frame(None, 1, window_log=log)) == b"x" * 131_072
    else:
        with pytest.raises(zstandard.ZstdError):
            engine.decompress(frame(None, 1, window_log=log))


@pytest.mark.parametrize("dictionary", [0, 77, 300, 70_000])
@pytest.mark.parametrize("size", [100, 300, 70_000])
def test_where_a_frame_without_magic_ends(dictionary: int, size: int) -> None:
    """The header has one, two or four bytes of a dictionary's number, and as many for the size."""
    trained = zstandard.train_dictionary(1024, [b"%d words %d" % (n, n * 7) for n in range(2000)], dict_id=dictionary)
    parameters = zstandard.ZstdCompressionParameters(format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_dict_id=True)
    engine = zstandard.ZstdCompressor(dict_data=trained if dictionary else None, compression_params=parameters)
    data = engine.compress(b"5 words 35 " * (size // 11))
    assert zstd.frame_end(data) == len(data)
    assert zstd.frame_end(data + b"more") == len(data)
    assert zstd.frame_end(data[:-1]) > len(data) - 1


def test_zstd_frame_that_wants_a_dictionary() -> None:
    trained = zstandard.train_dictionary(1024, [b"%d words %d" % (n, n * 7) for n in range(2000)], dict_id=77)
    data = zstandard.ZstdCompressor(dict_data=trained, write_dict_id=True).compress(b"5 words 35")
    with pytest.raises(WireError, match="wants dictionary 77"):
        zstd.decompress(data, "thing", 100)


@given(st.binary(min_size=1, max_size=400), st.data())
def test_damaged_frames_raise_or_give_the_declared_size(content: bytes, data: st.DataObject) -> None:
    raw = bytearray(zstd.compress(content))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert len(zstd.decompress(bytes(raw), "thing", 1000)) <= 1000
    except WireError:
        return


# ---- names


@pytest.mark.parametrize("name", ["a", "catalog", "region-br", "v1.2", "A_b", "x" * 64])
def test_good_names(name: str) -> None:
    assert check_name(name, "slice") == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "-a", "a-", "a..b", "a/b", "a\\b", "a b", "a\0", "a\n", "é", "x" * 65, ".hidden", "a%2fb", None, 5],
)
def test_bad_names(name: Any) -> None:
    with pytest.raises(WireError, match="slice name"):
        check_name(name, "slice")


def test_collection_that_would_hide_a_path() -> None:
    with pytest.raises(WireError, match="reserved"):
        check_collection("changes")


@pytest.mark.parametrize("key", ["a", "1994/Pulp Fiction", "../../etc/passwd", "é" * 256, "x" * 512, "\U0001f3ac"])
def test_good_keys(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "x" * 513, "é" * 257, "a\0b", "\ud800", None, b"a"])
def test_bad_keys(key: Any) -> None:
    with pytest.raises(WireError, match="key"):
        check_key(key)


# ---- schema


def test_schema_comes_back() -> None:
    schema = chain().schema
    assert Schema.from_cbor(cbor.decode(cbor.encode(schema.to_cbor()), "test")) == schema


def test_members_of_a_later_release_are_passed_over() -> None:
    item = chain().schema.to_cbor()
    item["collections"]["titles"]["geo"] = ["place"]
    item["analytics"] = True
    assert Schema.from_cbor(item) == chain().schema


RULE: dict[str, Any] = {"fields": [], "truncate": {}, "rename": {}, "choose": {}}


@pytest.mark.parametrize(
    "item",
    [
        None,
        {},
        {"collections": {}, "views": []},
        {"collections": {"../x": {"index": [], "text": []}}, "views": {}},
        {"collections": {"titles": {"index": "year", "text": []}}, "views": {}},
        {"collections": {"titles": {"index": [1], "text": []}}, "views": {}},
        {"collections": {}, "views": {"tv": []}},
        {"collections": {}, "views": {"tv": {"titles": {}}}},
        {"collections": {}, "views": {"tv": {"titles": {**RULE, "truncate": {"a": -1}}}}},
        {"collections": {}, "views": {"tv": {"titles": {**RULE, "truncate": {"a": "1"}}}}},
        {"collections": {}, "views": {"tv": {"titles": {**RULE, "rename": {"a": 1}}}}},
        {"collections": {}, "views": {"tv": {"titles": {**RULE, "choose": {"a": "pt"}}}}},
    ],
)
def test_malformed_schema(item: Any) -> None:
    with pytest.raises(WireError):
        Schema.from_cbor(item)


def test_defaults_of_a_rule() -> None:
    assert Schema({"t": CollectionSchema()}, {"v": {"t": ViewRule()}}).to_cbor()["views"]["v"]["t"] == RULE
    assert cbor2.loads(cbor.encode(RULE)) == RULE


HEADS = [0, 23, 24, 255, 256, 65_535, 65_536, (1 << 32) - 1, 1 << 32, (1 << 64) - 1]


@pytest.mark.parametrize("argument", HEADS)
def test_head_is_the_shortest_and_read_back(argument: int) -> None:
    assert cbor.head(0, argument) == cbor.encode(argument)
    assert cbor.read_head(b"\x00" + cbor.head(cbor.MAP, argument), 1) == (
        cbor.MAP,
        argument,
        1 + len(cbor.encode(argument)),
    )


def test_head_refuses_what_does_not_fit_or_is_not_the_shortest() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        cbor.head(0, 1 << 64)
    for data in (
        b"\x18\x17",
        b"\x19\x00\xff",
        b"\x1a\x00\x00\xff\xff",
        b"\x1b" + bytes(4) + b"\xff" * 4,
        b"\x1c",
        b"\x9f",
        b"\x19\x01",
    ):
        with pytest.raises(ValueError):  # noqa: PT011  # whatever the words: the caller says what was read
            cbor.read_head(data, 0)
    with pytest.raises(IndexError):
        cbor.read_head(b"", 0)
