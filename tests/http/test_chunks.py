"""The chunked coding: strictly, in any pieces, and never otherwise than another reader has it."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.http.framing import ChunkedBody
from edged.http.head import HeadError
from tests.http.bodies import BROKEN, MOST_BYTES, WHOLE

BEHIND = b"GET /behind HTTP/1.1\r\n"
BITS = [b"\r\n", b"\n", b"\r", b"0", b"3", b";", b'"', b"=", b" ", b"\0", b"a", b":", b"0\r\n\r\n", b"3\r\nabc\r\n"]


def read(pieces: list[bytes]) -> tuple[bytes, bytes, bool]:
    """The body, what is behind it, and whether it has ended."""
    body, found, behind = ChunkedBody(MOST_BYTES), b"", b""
    for piece in pieces:
        if body.ended:
            behind += piece
            continue
        data, behind = body.feed(piece)
        found += data
    return found, behind, body.ended


@pytest.mark.parametrize("what", WHOLE)
def test_a_whole_body_is_read_to_its_end_byte_by_byte_too(what: str) -> None:
    data = WHOLE[what] + BEHIND
    found = read([data])
    assert found[1:] == (BEHIND, True)
    assert read([data[at : at + 1] for at in range(len(data))]) == found


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_body_is_refused_byte_by_byte_too(what: str) -> None:
    data, status = BROKEN[what]
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        with pytest.raises(HeadError) as caught:
            read(pieces)
        assert caught.value.status == status


@pytest.mark.parametrize(("more", "refused"), [(0, False), (1, True)])
def test_extensions_are_bounded_by_what_they_come_with(more: int, refused: bool) -> None:
    count, each = 40, MOST_BYTES // 40
    left = MOST_BYTES + count * 10 - count * each + more
    data = (b"a;" + b"y" * (each - 1) + b"\r\n0123456789\r\n") * count + b"0;" + b"y" * (left - 1) + b"\r\n\r\n"
    if refused:
        with pytest.raises(HeadError, match="extensions"):
            read([data])
    else:
        assert read([data])[2]


@given(st.lists(st.sampled_from(BITS), max_size=12), st.lists(st.integers(1, 9), max_size=8))
def test_what_is_taken_another_reader_takes_alike(bits: list[bytes], sizes: list[int]) -> None:
    """It may refuse more than h11, never less, and never sees another end."""
    data = b"".join(bits)
    pieces, at = [], 0
    for size in (*sizes, len(data)):
        pieces.append(data[at : at + size])
        at += size
    try:
        found, behind, ended = read(pieces)
    except HeadError:
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    assert isinstance(other.next_event(), h11.Request)
    got = b""
    while isinstance(event := other.next_event(), h11.Data):
        got += event.data
    if ended:
        assert (got, isinstance(event, h11.EndOfMessage), other.trailing_data[0]) == (found, True, behind)
    else:
        assert (got, event) == (found, h11.NEED_DATA)
