"""HPACK (RFC 7541): against its own examples, against another implementation, and at its bounds."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.http.h2.fieldblocks import (
    STATES,
    BlockDecoder,
    Field,
    TableState,
    encode_fields,
    encode_status,
)
from edged.http.h2.frames import ConnectionFault, ErrorCode
from edged.http.h2.huffman import HuffmanDecoder

NAMES = st.sampled_from([b":path", b"accept", b"x", b"user-agent", b"cookie", b"a" * 50])
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=60)), max_size=12)


def decoder(list_bytes: int = 1 << 20, count: int = 1000) -> BlockDecoder:
    return BlockDecoder(1 << 18, list_bytes, count)


def decoded(found: BlockDecoder, state: TableState, block: bytes) -> tuple[list[Field], TableState]:
    result = found.decode(state, block)
    assert result.fields is not None
    return list(result.fields), result.after


def test_the_examples_of_rfc_7541_appendix_c_3_and_4() -> None:
    plain = [
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ]
    coded = [
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ]
    for blocks in (plain, coded):
        every, state, sizes = decoder(), decoder().empty, []
        for number, block in enumerate(blocks):
            fields, state = decoded(every, state, bytes.fromhex(block))
            sizes.append(state.size)
            assert fields[3] == (b":authority", b"www.example.com")
            assert fields[0] == (b":method", b"GET")
            if number == 2:
                assert fields[-1] == (b"custom-key", b"custom-value")
                assert state.entries[0] == (b"custom-key", b"custom-value")
        assert sizes == [57, 110, 164]


@given(st.lists(FIELDS, max_size=6), st.booleans(), st.integers(0, 4096))
def test_blocks_of_another_encoder_decode_to_what_went_in(lists: list[list[Field]], huffman: bool, size: int) -> None:
    encoder, every = hpack.Encoder(), decoder()
    state = every.empty
    encoder.header_table_size = size
    for fields in lists:
        block = encoder.encode(fields, huffman=huffman)
        found, state = decoded(every, state, block)
        assert found == fields
        again, same = decoded(every, state, b"\x82")
        assert (again, same) == ([(b":method", b"GET")], state)


@given(FIELDS)
def test_another_decoder_reads_our_blocks_and_keeps_an_empty_table(fields: list[Field]) -> None:
    other = hpack.Decoder()
    block = encode_status(200) + encode_fields(fields)
    found = [(bytes(name), bytes(value)) for name, value in other.decode(block, raw=True)]
    assert found == [(b":status", b"200"), *fields]
    assert len(other.header_table.dynamic_entries) == 0


@given(st.binary(max_size=80))
def test_any_bytes_decode_or_end_the_connection_as_another_decoder_says(block: bytes) -> None:
    every = decoder()
    try:
        ours = every.decode(every.empty, block).fields
    except ConnectionFault:
        ours = None
    try:
        theirs = [(bytes(n), bytes(v)) for n, v in hpack.Decoder().decode(block, raw=True)]
    except Exception:  # of many kinds
        theirs = None
    if ours is not None and theirs is not None:
        assert list(ours) == theirs
    else:
        assert ours is None, block


@given(st.binary(max_size=60))
def test_the_string_code_goes_there_and_back(text: bytes) -> None:
    coded = hpack.huffman.HuffmanEncoder(
        hpack.huffman_constants.REQUEST_CODES, hpack.huffman_constants.REQUEST_CODES_LENGTH
    ).encode(text)
    assert HuffmanDecoder().decode(coded) == text


def test_tables_that_hold_the_same_are_one_state_and_remember_for_each_other() -> None:
    every = decoder()
    block = b"\x82\x87\x04\x02/a\x41\x01h"
    first, second = every.decode(every.empty, block), every.decode(every.empty, block)
    assert first is second
    assert first.after is not every.empty
    other = every.decode(every.empty, b"\x41\x01h").after
    assert other is first.after


def test_states_are_bounded_and_their_names_are_never_used_again() -> None:
    every = decoder()
    names = {every.empty.name}
    for number in range(3 * STATES):
        names.add(every.decode(every.empty, b"\x40\x01x\x04%04d" % number).after.name)
        assert len(every.states) <= STATES
    assert len(names) == 3 * STATES + 1
    assert every.decode(every.empty, b"\x82").fields == ((b":method", b"GET"),)


def test_eviction_is_exact() -> None:
    every = decoder()
    state = every.empty
    for number in range(120):
        _, state = decoded(every, state, b"\x40\x01%c\x01y" % (33 + number % 90))
    assert (state.size, len(state.entries)) == (120 * 34, 120)
    _, state = decoded(every, state, b"\x40\x01x\x0f" + b"z" * 15)  # 48 bytes: 4,128 is 32 too many
    assert (state.size, len(state.entries)) == (4096 - 2, 120)
    _, state = decoded(every, state, b"\x3f\x0f")  # to 46 bytes
    assert state.entries == ()
    _, state = decoded(every, state, b"\x40\x01x\x0e" + b"z" * 14 + b"\x40\x01y\x0d" + b"z" * 13)
    assert state.entries == ((b"y", b"z" * 13),)  # 47 bytes fit none of it, 46 do


@pytest.mark.parametrize(
    "block",
    [b"\x40", b"\x00\x05ab", b"\x00\x01x\x7f", b"\x7f\xff\xff\xff\xff\x0f", b"\xff", b"\x3f", b"\x82\x20"],
)
def test_what_breaks_off_or_overflows_ends_the_connection(block: bytes) -> None:
    every = decoder()
    with pytest.raises(ConnectionFault) as found:
        every.decode(every.empty, block)
    assert found.value.code == ErrorCode.COMPRESSION_ERROR
