"""Flow control both ways (RFC 9113 sections 5.2 and 6.9), priorities (RFC 9218), and what unread answers hold."""

from __future__ import annotations

import pytest

from edged.http.h2.answering import CONNECTION_WINDOW, OUT_BYTES
from edged.http.h2.events import BodyReceived, Drained, StreamReset
from edged.http.h2.frames import END_HEADERS, END_STREAM, FIRST_WINDOW, MAX_FRAME_BYTES, ErrorCode, FrameType
from tests.http.h2.peer import GET, OK, POST, Frame, Peer, data, headers, raw
from tests.http.h2.test_rules import settings, window_update


def bodies(sent: list[Frame], stream_id: int = 1) -> bytes:
    return b"".join(frame.payload for frame in sent if frame.kind == FrameType.DATA and frame.stream_id == stream_id)


def order(sent: list[Frame]) -> list[int]:
    """Numbers of the streams whose DATA came, in order, without repeats in a row."""
    numbers = [frame.stream_id for frame in sent if frame.kind == FrameType.DATA]
    return [number for n, number in enumerate(numbers) if not n or numbers[n - 1] != number]


def test_a_window_of_one_byte_lets_one_byte_through() -> None:
    peer = Peer()
    peer.send(settings((4, 1)), headers(1))
    found = peer.answer(1, b"body")
    assert [(f.kind, f.payload) for f in found[1:]] == [(FrameType.DATA, b"b")]
    assert bodies(peer.send(window_update(1, 2))) == b"od"
    last = peer.send(window_update(1, 9))
    assert (last[-1].payload, last[-1].flags) == (b"y", END_STREAM)
    assert peer.connection.streams == {}


def test_a_first_window_that_changes_moves_open_streams_below_nothing_too() -> None:
    peer = Peer()
    peer.send(settings((4, 10)), headers(1))
    assert bodies(peer.answer(1, b"0123456789abcdef")) == b"0123456789"
    assert peer.send(settings((4, 4)))[1:] == []  # the window is -6
    assert bodies(peer.send(window_update(1, 6))) == b""
    assert bodies(peer.send(window_update(1, 1))) == b"a"
    assert bodies(peer.send(settings((4, 9)))) == b"bcdef"


@pytest.mark.parametrize(("size", "whole"), [(FIRST_WINDOW, True), (FIRST_WINDOW + 1, False)])
def test_the_connection_window_holds_all_streams_together(size: int, whole: bool) -> None:
    peer = Peer()
    peer.send(settings((4, 1 << 20)), headers(1), headers(3))
    peer.answer(1, bytes(1000))
    found = peer.answer(3, bytes(size - 1000))
    assert len(bodies(found, 3)) == FIRST_WINDOW - 1000
    assert (3 not in peer.connection.streams) == whole
    assert len(bodies(peer.send(window_update(0, 10)), 3)) == (0 if whole else 1)


def test_large_answers_go_out_in_frames_that_others_get_between() -> None:
    peer = Peer()
    peer.send(settings((5, 1 << 20)), headers(1))
    assert [len(f.payload) for f in peer.answer(1, bytes(40_000))[1:]] == [16_384, 16_384, 7232]


def test_output_is_given_in_pieces_of_some_size() -> None:
    peer = Peer()
    peer.send(settings((4, 1 << 30)), window_update(0, 1 << 30), headers(1))
    peer.connection.answer(1, OK, bytes(1 << 20))
    pieces = []
    while piece := peer.connection.take_output():
        pieces.append(len(piece))
    assert len(pieces) == 4
    assert max(pieces) <= OUT_BYTES + MAX_FRAME_BYTES + 18
    assert peer.connection.held_bytes() == 0


def test_answers_end_reading_until_they_have_gone() -> None:
    peer = Peer()
    peer.send(settings((4, 1 << 30)), window_update(0, 1 << 30), headers(1))
    peer.connection.begin(1, OK, ended=False)
    peer.connection.flow.put(bytes(OUT_BYTES))
    peer.connection.receive(headers(3), 0.0)
    assert peer.connection.has_more()
    assert len(peer.requests()) == 1
    peer.connection.flow.take()
    peer.send()
    assert len(peer.requests()) == 2


def test_a_body_is_read_as_fast_as_it_is_taken() -> None:
    peer = Peer()
    peer.send(headers(1, POST, END_HEADERS))
    for _ in range(3):
        peer.send(data(1, bytes(MAX_FRAME_BYTES)))
    assert [f.kind for f in peer.sent] == []  # nobody has taken anything
    assert peer.connection.streams[1].room == FIRST_WINDOW - 3 * MAX_FRAME_BYTES
    peer.connection.consume(1, MAX_FRAME_BYTES)
    assert peer.take() == []
    peer.connection.consume(1, MAX_FRAME_BYTES)
    (update,) = peer.take()
    assert (update.kind, update.stream_id, update.payload) == (8, 1, (2 * MAX_FRAME_BYTES).to_bytes(4, "big"))


def test_the_connection_window_is_given_back_however_streams_end() -> None:
    peer = Peer()
    for n in range(40):
        number = 1 + 2 * n
        peer.send(headers(number, POST, END_HEADERS), data(number, bytes(16_000)))
        if n % 4 == 0:
            peer.send(raw(3, 0, number, bytes(4)))
        elif n % 4 == 1:
            peer.answer(number)
        elif n % 4 == 2:
            peer.connection.consume(number, 16_000)
            peer.send(data(number, b"", END_STREAM))
            peer.answer(number)
        else:
            peer.send(window_update(number, 0))
    assert peer.ended() is None
    assert peer.connection.streams == {}
    assert peer.connection.room + peer.connection.taken == CONNECTION_WINDOW


@pytest.mark.parametrize(("extra", "ends"), [(0, False), (1, True)])
def test_more_than_the_connection_window_ends_the_connection(extra: int, ends: bool) -> None:
    peer = Peer()
    full, rest = divmod(CONNECTION_WINDOW + extra, 60_000)
    sizes = [60_000] * full + [rest]
    for n, size in enumerate(sizes):
        peer.send(headers(1 + 2 * n, POST, END_HEADERS))
        for at in range(0, size, MAX_FRAME_BYTES):
            peer.send(data(1 + 2 * n, bytes(min(MAX_FRAME_BYTES, size - at))))
    assert peer.ended() == (ErrorCode.FLOW_CONTROL_ERROR if ends else None)


def test_padding_counts_and_is_given_back_at_once() -> None:
    peer = Peer()
    peer.send(headers(1, POST, END_HEADERS), data(1, b"\x05abc" + bytes(5), 8))
    assert [event.data for event in peer.events if isinstance(event, BodyReceived)] == [b"abc"]
    stream = peer.connection.streams[1]
    assert (stream.room, stream.unread, stream.taken) == (FIRST_WINDOW - 9, 3, 6)


def test_who_answers_is_told_when_a_piece_has_gone() -> None:
    peer = Peer()
    peer.send(settings((4, 5)), headers(1))
    peer.connection.begin(1, OK, ended=False)
    peer.connection.send(1, b"12345", ended=False)
    peer.take()
    assert peer.events[-1] == Drained(1)
    peer.connection.send(1, b"678", ended=True)
    peer.take()
    assert not peer.connection.has_room(1)
    assert peer.events.count(Drained(1)) == 1
    peer.send(window_update(1, 3))
    assert bodies(peer.sent) == b"12345678"
    assert peer.connection.has_room(1)
    assert peer.events.count(Drained(1)) == 2  # a task that was never told would stay as long as the connection


def test_an_end_alone_needs_no_window() -> None:
    peer = Peer()
    peer.send(settings((4, 0)), headers(1))
    peer.connection.begin(1, OK, ended=False)
    peer.connection.send(1, b"", ended=True)
    assert [(f.kind, f.flags, f.payload) for f in peer.take()[1:]] == [(FrameType.DATA, END_STREAM, b"")]


def test_a_cancelled_download_frees_its_bytes_at_once() -> None:
    peer = Peer()
    peer.send(settings((4, 0)))
    for n in range(12):
        peer.send(headers(1 + 2 * n))
        peer.answer(1 + 2 * n, bytes(1 << 20))
    assert peer.connection.held_bytes() == 12 << 20
    for n in range(12):
        peer.send(raw(3, 0, 1 + 2 * n, (8).to_bytes(4, "big")))
        assert peer.connection.held_bytes() == (11 - n) << 20
    assert peer.connection.flow.waiting == {}
    assert [type(event) for event in peer.events[-12:]] == [StreamReset] * 12


def blocked(peer: Peer, priorities: list[bytes]) -> None:
    """So many requests, answered in 2,000 bytes each, of which none can go out yet."""
    peer.send(settings((4, 1 << 20)))
    peer.connection.flow.window = 0
    for n, value in enumerate(priorities):
        fields = (*GET, (b"priority", value)) if value else GET
        peer.send(headers(1 + 2 * n, fields))
        peer.answer(1 + 2 * n, bytes(40_000))


def test_the_most_urgent_go_first_and_those_alike_by_number() -> None:
    peer = Peer()
    blocked(peer, [b"", b"u=5", b"u=0", b"u=3", b"u=7;i", b"nonsense", b"u=9"])
    assert order(peer.send(window_update(0, 1 << 20))) == [5, 1, 7, 11, 13, 3, 9]


def test_incremental_answers_share_in_turns() -> None:
    peer = Peer()
    blocked(peer, [b"i", b"u=3, i", b"u=3"])
    assert order(peer.send(window_update(0, 1 << 20))) == [5, 1, 3, 1, 3, 1, 3]


def test_turns_go_on_where_the_window_has_ended_them() -> None:
    peer = Peer()
    blocked(peer, [b"i", b"i"])
    found = [order(peer.send(window_update(0, MAX_FRAME_BYTES))) for _ in range(4)]
    assert found == [[1], [3], [1], [3]]


def test_a_priority_update_moves_an_answer_forward() -> None:
    peer = Peer()
    blocked(peer, [b"u=1", b"u=5"])
    peer.send(raw(16, 0, 0, (3).to_bytes(4, "big") + b"u=0"))
    assert order(peer.send(window_update(0, 1 << 20))) == [3, 1]
