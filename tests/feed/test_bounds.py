"""Each bound of the feed at which something is refused: exactly at it, and one beyond."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import cbor2
import pytest

from edged.errors import WireError
from edged.feed import bundle, cbor, chain, limits, zstd
from edged.feed.blob import BlobRef
from edged.feed.coding import aside, guessing, textmodel, transforms, wholehop
from edged.feed.coding.arithmetic import ArithmeticDecoder, ArithmeticEncoder
from edged.feed.coding.columns import apart as by_field
from edged.feed.coding.columns import read_columns, read_values, write_values
from edged.feed.coding.hop import decode_hop
from edged.feed.coding.modelledhop import encode_modelled
from edged.feed.coding.octets import Bits, Octets, write_counted, write_varint
from edged.feed.coding.snapshot import train_dictionary
from edged.feed.coding.textmodel import Decisions, Field, HopMemory
from edged.feed.coding.treecoding import TreeCoder, knowledge_of
from edged.feed.fieldpath import ABSENT
from edged.feed.schema import Schema, ViewRule
from edged.feed.trust import cose
from tests.feed.making import ROOT_KEY
from tests.feed.test_hop_forms import View, film


def ref(number: int) -> BlobRef:
    return BlobRef(number.to_bytes(32, "big"), 10)


def bundle_of(blobs: int, head: int = 10) -> bundle.Bundle:
    return bundle.Bundle("catalog", frozenset(["core"]), bytes(head), {1: b"root"}, tuple(map(ref, range(blobs))))


def test_a_bundle_has_as_many_blobs_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "BLOBS", 3)
    assert len(bundle.read_layout(io.BytesIO(bundle_of(3).encode())).bundle.blobs) == 3
    with pytest.raises(WireError, match="4 blobs are too many"):
        bundle_of(4).encode()
    monkeypatch.setattr(bundle, "BLOBS", 4)
    data = bundle_of(4).encode()
    monkeypatch.setattr(bundle, "BLOBS", 3)
    with pytest.raises(WireError):
        bundle.read_layout(io.BytesIO(data))


def test_a_bundle_has_a_header_as_long_as_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bundle_of(2, head=1000).encode()
    size = len(data) - len(bundle.MAGIC) - bundle.LENGTH_BYTES
    monkeypatch.setattr(bundle, "HEADER_BYTES", size)
    assert bundle_of(2, head=1000).encode() == data
    assert bundle.read_layout(io.BytesIO(data)).total_bytes == len(data) + 20
    monkeypatch.setattr(bundle, "HEADER_BYTES", size - 1)
    with pytest.raises(WireError, match="too many"):
        bundle_of(2, head=1000).encode()
    with pytest.raises(WireError, match="header of"):
        bundle.read_layout(io.BytesIO(data))


@pytest.mark.parametrize("size", [300, 1000, 1500, 2048, 5000])
def test_a_dictionary_is_no_longer_than_it_may_be_and_nearly_as_long(size: int) -> None:
    records = [("titles", f"{number:05}", film(number)) for number in range(900)]
    content = train_dictionary(records, size)
    assert size * 0.7 < len(content) <= size


# --- depth -----------------------------------------------------------------------------------------------------------

Nest = Callable[[Any], Any]
NESTS: dict[str, Nest] = {
    "in an added field": lambda inner: {"a": inner},
    "in a list": lambda inner: [inner],
    "in a list after another item": lambda inner: ["x", inner],
}


def nested(nest: Nest, levels: int) -> Any:
    value: Any = 1
    for _ in range(levels - 1):
        value = nest(value)
    return value


def through_tree(new: Any, base: Any, record: Any = ABSENT) -> Any:
    """A value coded and decoded, without what would refuse it before."""
    encoder = ArithmeticEncoder(1 << 20)
    tree = TreeCoder(encoder, knowledge_of(b""), 1 << 30)
    tree.record = record
    tree.value(new, base, "c")
    decoder = TreeCoder(ArithmeticDecoder(encoder.finish(), "test"), knowledge_of(b""), 1 << 30)
    decoder.record = record
    return decoder.value(ABSENT, base, "c")


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("name", NESTS)
def test_values_are_coded_as_deep_as_they_may_be_and_no_deeper(name: str, guided: bool) -> None:
    nest = NESTS[name]
    record: Any = {"other": 1} if guided else ABSENT
    fits = nested(nest, limits.DEPTH)
    assert through_tree(fits, record, record) == fits
    with pytest.raises(WireError, match="nested deeper"):
        through_tree(nested(nest, limits.DEPTH + 1), record, record)


@pytest.mark.parametrize("name", NESTS)
def test_changes_far_inside_are_coded_as_deep_as_they_may_be(name: str) -> None:
    nest = NESTS[name]

    def deep(levels: int, end: Any) -> Any:
        for _ in range(levels - 1):
            end = nest(end)
        return end

    old, new = deep(limits.DEPTH, 1), deep(limits.DEPTH, 2)
    assert through_tree(new, old, old) == new
    with pytest.raises(WireError, match="nested deeper"):
        through_tree(deep(limits.DEPTH + 1, 2), deep(limits.DEPTH + 1, 1), old)


def test_a_moved_item_of_its_own_is_coded_as_deep_as_it_may_be() -> None:
    for levels, fits in ((limits.DEPTH - 1, True), (limits.DEPTH, False)):
        old, new = ["a", "b"], ["b", "a", nested(lambda inner: [inner], levels)]
        if fits:
            assert through_tree(new, old, old) == new
        else:
            with pytest.raises(WireError, match="nested deeper"):
                through_tree(new, old, old)


def test_a_value_pays_for_every_byte_that_it_makes() -> None:
    old = {"a": "x" * 500, "b": list(range(50)), "c": {"d": "y" * 300}, "n": "z"}
    for new in ({**old, "n": "zz"}, {**old, "b": [*range(1, 50), 0]}, {**old, "a": "x" * 250 + "!" + "x" * 250}, {}):
        encoder = ArithmeticEncoder(1 << 20)
        whole = TreeCoder(encoder, knowledge_of(b""), 1 << 30)
        whole.record = old
        whole.value(new, old, "c")
        spent = (1 << 30) - whole.room
        assert spent >= len(cbor.encode(new)) * 0.9  # heads of items are not counted one by one
        coded = encoder.finish()
        for room, fits in ((spent, True), (spent - 1, False)):
            tree = TreeCoder(ArithmeticDecoder(coded, "test"), knowledge_of(b""), room)
            tree.record = old
            if fits:
                assert tree.value(ABSENT, old, "c") == new
            else:
                with pytest.raises(WireError, match="more than the allowed"):
                    tree.value(ABSENT, old, "c")


# --- columns ---------------------------------------------------------------------------------------------------------


def columns_with(slots: list[tuple[int, int]], streams: list[bytes]) -> bytes:
    """One value of one shape: its slots, each (stream, kind)."""
    out = bytearray()
    write_varint(out, 1)
    write_varint(out, len(slots))
    for number, kind in slots:
        write_counted(out, b"")
        write_varint(out, number * 3 + kind)
    write_counted(out, b"")
    write_counted(out, b"\0")  # shape 0
    write_varint(out, len(streams))
    for stream in streams:
        write_counted(out, stream)
    return bytes(out)


def test_a_slot_names_a_stream_that_is_there() -> None:
    assert list(read_values(columns_with([(0, 2), (1, 2)], [b"\1", b"\2"]), 1, 100, "test")) == [b"\1\2"]
    for slots in ([(0, 2), (2, 2)], [(2, 2), (0, 2)]):
        with pytest.raises(WireError, match="stream 2 of 2"):
            list(read_values(columns_with(slots, [b"\1", b"\2"]), 1, 100, "test"))


def test_values_by_columns_are_as_many_and_as_large_as_they_may_be() -> None:
    values = [film(number) for number in range(5)]
    size = sum(map(len, values))
    data = write_values(values, by_field)
    assert list(read_values(data, 5, size, "test")) == values
    with pytest.raises(WireError, match="more than the allowed"):
        list(read_values(data, 5, size - 1, "test"))
    for count in (4, 6):
        with pytest.raises(WireError):
            list(read_values(data, count, size, "test"))


def test_a_part_of_keys_alone_names_the_stream_that_they_are_in() -> None:
    def part(of_keys: int) -> bytes:
        out = bytearray()
        write_varint(out, 1)
        write_counted(out, b"c")
        write_varint(out, 1)
        write_varint(out, 1)  # one shape, without slots
        write_varint(out, 0)
        write_counted(out, b"\xf6")
        write_counted(out, b"\0")
        write_counted(out, b"\0")
        write_varint(out, of_keys)
        write_varint(out, 1)
        write_counted(out, b"k\xff")
        return bytes(out)

    assert list(read_columns(part(0), 100)) == [("c", "k", b"\xf6")]
    assert list(read_columns(part(0), 2)) == [("c", "k", b"\xf6")]
    with pytest.raises(WireError, match="more than the allowed"):
        list(read_columns(part(0), 1))
    with pytest.raises(WireError, match="stream 1 of 1"):
        list(read_columns(part(1), 100))


# --- hops of many changes ---------------------------------------------------------------------------------------------


def test_old_records_are_context_up_to_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View({("t", f"{number}"): film(number) for number in range(4)})
    changes = [("t", f"{number}", b"\x01") for number in range(4)]
    size = sum(len(film(number)) for number in range(3))
    for room, count in ((size, 3), (size - 1, 2)):
        monkeypatch.setattr(wholehop, "CONTEXT_BYTES", room)
        assert list(wholehop.old_values(changes, view)) == [film(number) for number in range(count)]


@pytest.mark.parametrize(("each", "dense"), [(4, True), (3, False)])
def test_records_are_named_by_place_where_few_stand_between(each: int, dense: bool) -> None:
    view = View({("t", f"{number:02}"): film(number) for number in range(8)})
    assert wholehop.are_dense([("t", "01", b""), ("t", "05", b"")], view, each) is dense


def test_places_are_counted_and_bounded() -> None:
    view = View({("t", f"{number}"): film(number) for number in range(4)})
    changes: list[tuple[str, str, bytes | None]] = [("t", "0", b""), ("t", "15", b""), ("t", "3", None)]
    kinds, places, names = wholehop.pack_places(changes, view)
    assert (kinds, places) == (b"\0\1\2", b"\0\2")
    assert list(wholehop.unpack_places((kinds, places, names), view, 4)) == changes
    with pytest.raises(WireError, match="more than 3 bytes"):
        list(wholehop.unpack_places((kinds, places, names), view, 3))
    for wrong, words in (
        ((kinds, b"\0\3", names), "not here"),
        ((b"\0\1\3", places, names), "kind 3"),
        ((kinds, places + b"\0", names), "follow the end"),
        ((kinds + b"\0", places, names), "follow the end"),
        ((kinds, places, names + names), "not in order"),
        ((b"\0\2\1", places, names), "not in order"),
    ):
        with pytest.raises(WireError, match=words):
            list(wholehop.unpack_places(wrong, view, 100))


@pytest.mark.parametrize("naming", [4, 5, 255])
def test_a_naming_that_is_not_known_is_refused(naming: int) -> None:
    data = b"\x01" + bytes([naming])
    with pytest.raises(WireError, match="naming"):
        decode_hop(data, View({}), b"", max_bytes=100)


FIELD = Field(None, HopMemory())
WORD = b"wordwordwordwordwordw"  # in an alphabet of tokens, yet it does not look like one


def test_texts_stand_aside_once_the_first_are_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "ASIDE_AFTER_BYTES", 20)
    for size, wanted in ((20, aside.CODED), (21, aside.ASIDE)):
        assert aside.Aside().way(WORD[:size], "p", FIELD) == wanted
    for size, wanted in ((aside.ASIDE_LEAST_BYTES - 1, aside.CODED), (aside.ASIDE_LEAST_BYTES, aside.ASIDE)):
        column = aside.Aside()
        column.left = 0
        assert column.way(WORD[:size], "p", FIELD) == wanted


@pytest.mark.parametrize(
    ("count", "cost", "wanted"), [(63, 64, aside.CODED), (64, 29, aside.CODED), (64, 30, aside.ASIDE)]
)
def test_texts_that_the_model_makes_no_shorter_stand_aside(count: int, cost: int, wanted: int) -> None:
    column = aside.Aside()
    column.paid("p", count, cost)
    assert column.way(WORD[:10], "p", FIELD) == wanted
    assert column.way(WORD[:10], "q", FIELD) == aside.CODED


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"3f9a0c1be47d", aside.PACKED),
        (b"3f9a0c1be47", aside.CODED),  # a byte too short to look like a token
        (b"3F9A0C1BE47D", aside.PACKED),
        (b"3f9A0c1Be47d", aside.CODED),  # in a larger alphabet 16 bytes are needed
        (b"3f9xA0c1-e47dG_2", aside.PACKED),
        (b"3f9xA0c1+e47dG/2", aside.PACKED),
        (b"6f1c2d9e-4b7a-4c21-9f0e-7d3a5b8c1e24", aside.PACKED),
        (b"6f1c2d9e-4b7a-4c21-9f0e-7d3a5b8c1e2g", aside.PACKED),  # no UUID, but a token with hyphens
        (b"season-one-episode-two", aside.CODED),
        (b"202611011530", aside.CODED),
        (b"3f9a0c1b e47d", aside.CODED),
    ],
)
def test_what_looks_like_a_token_is_packed_and_comes_back(text: bytes, wanted: int) -> None:
    column = aside.Aside()
    assert column.way(text, "p", FIELD) == wanted
    alphabet = aside.alphabet_of(text)
    if wanted == aside.PACKED:
        assert column.token(text, len(text), alphabet) == text
        out = bytearray()
        column.write(out, b"")
        reading = aside.read_aside(Octets(bytes(out), "test"), b"", 0)
        assert reading.token(b"", len(text), alphabet) == text
        reading.finish()


def test_a_token_that_both_sides_hold_is_not_packed() -> None:
    field = Field(None, HopMemory())
    field.learn(b"https://a.b/3f9a0c1be47d5566")
    assert aside.Aside().way(b"3f9a0c1be47d5566", "p", field) == aside.CODED
    assert aside.Aside().way(b"4f9a0c1be47d5566", "p", field) == aside.PACKED


@pytest.mark.parametrize(("count", "cost", "packed"), [(63, 99, False), (64, 26, False), (64, 27, True)])
def test_numbers_that_cost_as_much_as_chance_are_packed(count: int, cost: int, packed: bool) -> None:
    column = aside.Aside()
    column.paid("p", count, cost)
    assert (column.way(b"20261101", "p", FIELD) == aside.PACKED) is packed
    assert column.way(b"2026110", "p", FIELD) != aside.PACKED


def test_packed_texts_beyond_their_alphabet_are_refused() -> None:
    with pytest.raises(WireError, match="UUID of 35 bytes"):
        aside.Aside([], bytes(20)).token(b"", 35, aside.UUID)
    with pytest.raises(WireError, match="beyond its alphabet"):
        aside.Aside([], b"\xff\xff").token(b"", 3, 0)
    with pytest.raises(WireError, match="cut short"):
        aside.Aside([], bytes(2)).token(b"", 1 << 40, 1)


def test_what_follows_beside_the_coded_bits_is_told_and_bounded() -> None:
    with pytest.raises(WireError, match="4 stands where"):
        aside.read_aside(Octets(b"\x04", "test"), b"", 99)
    with pytest.raises(WireError, match="size of the bits aside is 9"):
        aside.read_aside(Octets(b"\x02\x09\x00", "test"), b"", 99)
    with pytest.raises(WireError, match="size of texts"):
        aside.read_aside(Octets(b"\x01\x09\x00", "test"), b"", 3)


def test_bits_are_read_to_their_end() -> None:
    numbers = [(5, 3), (0, 0), ((1 << 70) - 3, 70), (1, 1), (300, 12)]
    writing = Bits(None, "test")
    for number, bits in numbers:
        writing.number(number, bits)
    data = writing.finish()
    assert len(data) == (3 + 70 + 1 + 12 + 7) // 8
    reading = Bits(data, "test")
    assert [reading.number(0, bits) for _, bits in numbers] == [number for number, _ in numbers]
    assert reading.finish() == b""
    with pytest.raises(WireError, match="cut short"):
        reading.number(0, 9)
    with pytest.raises(WireError, match="left over"):
        Bits(bytes(1), "test").finish()
    ending = Bits(b"\x81", "test")
    assert ending.number(0, 1) == 1
    with pytest.raises(WireError, match="left over"):
        ending.finish()


@pytest.mark.parametrize(
    "number", [0, 1, 4094, 8190, 8191, 16382, 16383, 1 << 18, 1 << 20, (1 << 65) - 2, (1 << 66) - 2]
)
def test_numbers_come_back_with_their_lower_bits_aside(number: int) -> None:
    column, encoder = aside.Aside(), ArithmeticEncoder(1 << 10)
    writing = Decisions(encoder, {})
    writing.spare = column.bits
    writing.number(number, "n")
    writing.position(number, "p")
    reading = Decisions(ArithmeticDecoder(encoder.finish(), "test"), {})
    reading.spare = Bits(column.bits.finish(), "test")
    assert (reading.number(0, "n"), reading.position(0, "p")) == (number, number)


def test_a_number_longer_than_any_difference_is_refused() -> None:
    encoder = ArithmeticEncoder(1 << 10)
    for _ in range(textmodel.SHORT_BITS - 1 + textmodel.LONG_SHIFT):
        encoder.code(1, 32768)
    reading = Decisions(ArithmeticDecoder(encoder.finish(), "test"), {})
    reading.spare = Bits(b"", "test")
    with pytest.raises(WireError, match="bits, at most 66"):
        reading.number(0)


def test_columns_aside_are_read_to_their_ends() -> None:
    column = aside.Aside()
    column.text(b"ab", 2, "p")
    column.text(b"xyz", 3, "q")
    column.text(b"c", 1, "p")
    out = bytearray()
    column.write(out, b"")
    reading = aside.read_aside(Octets(bytes(out), "test"), b"", 99)
    given = reading.given
    assert given == [b"abc", b"xyz"]
    assert (reading.text(b"", 2, "p"), reading.text(b"", 3, "q")) == (b"ab", b"xyz")
    with pytest.raises(WireError, match="left over"):
        reading.finish()
    with pytest.raises(WireError, match="1 are left"):
        reading.text(b"", 2, "p")
    fresh = aside.Aside(given)
    fresh.text(b"", 3, "p")
    with pytest.raises(WireError, match="left over"):
        fresh.finish()
    fresh.text(b"", 3, "q")
    fresh.finish()
    with pytest.raises(WireError, match="no text stands aside"):
        fresh.text(b"", 0, "r")


@pytest.mark.parametrize(("size", "log"), [(8 << 20, 0), ((8 << 20) + 1, 24), (1 << 25, 25), (1 << 28, 25)])
def test_the_window_takes_in_all_up_to_what_decoders_accept(size: int, log: int) -> None:
    assert zstd.window_log(size) == log


def test_a_rank_or_a_value_that_is_not_there_is_refused() -> None:
    refused = 0
    for seed in range(300):
        noise = bytes((seed * 7919 + place * 104_729 >> 3) & 0xFF for place in range(40))
        tree = TreeCoder(ArithmeticDecoder(noise, "test"), knowledge_of(b""), 1 << 10)
        tree.record = {"a": ["x", "y", "z"], "b": "some text that is long enough", "c": 5}
        tree.aside = aside.Aside([])
        try:
            tree.value(ABSENT, tree.record, "c")
        except WireError:
            refused += 1
    assert refused > 100


def test_guesses_are_of_so_many_of_each_kind() -> None:
    guesser = guessing.Guesser(trusting=True)
    record = {f"f{number}": f"word{number}" for number in range(60)}
    guesser.learn(record, "key", "old", "word47")
    assert any(guess.source == ("f47",) for guess in guesser.guesses)
    guesser = guessing.Guesser(trusting=True)
    guesser.learn(record, "key", "old", "word48")  # the 49th
    assert not any(guess.source == ("f48",) for guess in guesser.guesses)


def test_a_cursor_stops_at_the_end() -> None:
    octets = Octets(b"\x01ab", "test")
    assert octets.counted(1, "a run") == b"a"
    with pytest.raises(WireError, match="expected 2 bytes"):
        octets.take(2)


def test_a_key_shares_no_more_than_the_one_before_it_has() -> None:
    def keys(shared: int) -> bytes:
        out = bytearray()
        write_counted(out, b"t")
        write_varint(out, 2)
        for doubled, rest in ((0, b"ab"), (shared * 2 + 1, b"c")):
            write_varint(out, doubled)
            write_counted(out, rest)
        return bytes(out)

    assert wholehop.unpack_keys(keys(2), 100) == [("t", "ab", b""), ("t", "abc", None)]
    with pytest.raises(WireError, match="shared bytes of a key is 7, at most 5"):
        wholehop.unpack_keys(keys(3), 100)


@pytest.mark.parametrize(("count", "turned"), [(8, True), (9, False)])
def test_lists_are_turned_by_so_many_items(count: int, turned: bool) -> None:
    old = list("abcdefghijkl")
    found = list(transforms.explanations(old, [*old[-count:], *old[:-count]]))
    assert (transforms.Turned(count) in found) is turned
    assert any(isinstance(one, transforms.Reordered) for one in found)


def test_a_chain_fits_up_to_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    document = cbor.encode(list(range(1000)))
    data = zstd.compress(document)
    monkeypatch.setattr(limits, "CHAIN_BYTES", len(document))
    assert chain.fits(data)
    monkeypatch.setattr(limits, "CHAIN_BYTES", len(document) - 1)
    assert not chain.fits(data)
    monkeypatch.setattr(limits, "CHAIN_BYTES", 1 << 20)
    monkeypatch.setattr(limits, "ITEMS", 1001)
    assert chain.fits(data)
    monkeypatch.setattr(limits, "ITEMS", 1000)
    assert not chain.fits(data)


@pytest.mark.parametrize("data", [b"\xf7", b"\x81\xf7", b"\x81\x81\xf7", b"\xa1\x61a\xf7", b"\xa1\x61a\x81\xe0"])
def test_what_no_format_uses_is_refused_however_deep(data: bytes) -> None:
    with pytest.raises(WireError):
        cbor.decode(data, "test")
    with pytest.raises(WireError, match="does not belong there"):
        cbor.refuse_foreign(cbor2.loads(data), "test", (str, bytes))


@pytest.mark.parametrize("argument", [24, 27, 28, 31])
def test_items_are_counted_whatever_their_heads_say(argument: int) -> None:
    """Heads with more bytes of argument, and those that RFC 8949 reserves, which the decoder refuses later."""
    width = {24: 1, 27: 8}.get(argument, 0)
    item = bytes([argument]) + bytes(width)
    cbor.check_items(item * limits.ITEMS, "test")
    with pytest.raises(WireError, match="more than"):
        cbor.check_items(item * limits.ITEMS + b"\0", "test")


def test_a_view_may_cut_a_text_to_nothing() -> None:
    rule = ViewRule(truncate={"title": 0})
    schema = Schema({}, {"tv": {"titles": rule}})
    assert Schema.from_cbor(schema.to_cbor()).views["tv"]["titles"] == rule
    document = schema.to_cbor()
    document["views"]["tv"]["titles"]["truncate"]["title"] = -1
    with pytest.raises(WireError, match="truncate"):
        Schema.from_cbor(document)


def test_as_many_signatures_as_allowed_are_looked_at() -> None:
    data = cose.sign_many(b"x", [ROOT_KEY] * limits.ROOT_KEYS, b"aad")
    key = cose.public_bytes(ROOT_KEY)
    assert cose.verify_many(data, {cose.key_id(key): key}, b"aad", "test") == (b"x", frozenset([cose.key_id(key)]))


def test_an_unannounced_field_is_known_to_the_next_record() -> None:
    view = View({("t", f"{number}"): cbor.encode({"a": number}) for number in range(2)})
    long = "a_field_with_a_name_that_costs_many_bytes_to_spell"
    one = [("t", "0", cbor.encode({"a": 0, long: 1}))]
    two = [*one, ("t", "1", cbor.encode({"a": 1, long: 7_777}))]
    sizes = [len(encode_modelled(entries, view, b"")) for entries in (one, two)]
    assert sizes[1] - sizes[0] < 12
