"""The rules of RFC 9113, section by section: what a peer does, and what that ends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edged.http.h2 import frames
from edged.http.h2.events import BodyEnded, BodyReceived, RequestRefused, StreamReset
from edged.http.h2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    MAX_FRAME_BYTES,
    MAX_WINDOW,
    PADDED,
    PREFACE,
    PRIORITY,
    ErrorCode,
    FrameType,
    Setting,
)
from tests.http.h2.peer import GET, POST, Frame, Pairs, Peer, block, data, headers, raw

PROTOCOL, SIZE, CLOSED = ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR, ErrorCode.STREAM_CLOSED
FLOW, COMPRESSION = ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.COMPRESSION_ERROR
OPEN = headers(1, POST, END_HEADERS)
HALF = headers(1)
REST = frames.frame(FrameType.CONTINUATION, END_HEADERS, 1)
BEGUN = frames.frame(FrameType.HEADERS, END_STREAM, 1, block(GET)[:5])
PRIORITY_OF_1 = (1).to_bytes(4, "big") + b"\x10"


def settings(*pairs: tuple[int, int]) -> bytes:
    return raw(4, 0, 0, b"".join(n.to_bytes(2, "big") + v.to_bytes(4, "big") for n, v in pairs))


def window_update(stream_id: int, by: int) -> bytes:
    return raw(8, 0, stream_id, by.to_bytes(4, "big"))


ENDS_CONNECTION: dict[str, tuple[Sequence[bytes], ErrorCode]] = {
    "3.4 not SETTINGS first": ([raw(6, 0, 0, bytes(8))], PROTOCOL),
    "4.2 DATA over the frame size": ([OPEN, data(1, bytes(MAX_FRAME_BYTES + 1))], SIZE),
    "4.2 HEADERS over the frame size": ([raw(1, 5, 1, bytes(MAX_FRAME_BYTES + 1))], SIZE),
    "4.3 no field block": ([raw(1, 5, 1, b"\xff\xff\xff\xff\xff\xff")], COMPRESSION),
    "4.3 an index past the tables": ([raw(1, 5, 1, b"\xbe")], COMPRESSION),
    "4.3 index 0": ([raw(1, 5, 1, b"\x80")], COMPRESSION),
    "4.3 PRIORITY within a field block": ([BEGUN, raw(2, 0, 1, bytes(5)), REST], PROTOCOL),
    "4.3 HEADERS of another stream within one": ([BEGUN, headers(3)], PROTOCOL),
    "4.3 the same HEADERS again within one": ([BEGUN, headers(1)], PROTOCOL),
    "5.1 DATA on an idle stream": ([data(1, b"x")], PROTOCOL),
    "5.1 DATA on an idle stream above": ([HALF, data(3, b"x")], PROTOCOL),
    "5.1 RST_STREAM on an idle stream": ([raw(3, 0, 1, bytes(4))], PROTOCOL),
    "5.1 WINDOW_UPDATE on an idle stream": ([window_update(1, 1)], PROTOCOL),
    "5.1 CONTINUATION on an idle stream": ([REST], PROTOCOL),
    "5.1 CONTINUATION behind a whole request": ([HALF, REST], PROTOCOL),
    "5.1.1 an even stream": ([headers(2)], PROTOCOL),
    "5.1.1 a stream that was passed over": ([headers(5), headers(3)], PROTOCOL),
    "5.5 an unknown frame within a field block": ([BEGUN, raw(22, 0, 0), REST], PROTOCOL),
    "6.1 DATA on stream 0": ([data(0, b"x")], PROTOCOL),
    "6.1 padding as long as the payload": ([OPEN, data(1, b"\x04abc", PADDED)], PROTOCOL),
    "6.1 padded and empty": ([OPEN, data(1, b"", PADDED)], SIZE),
    "6.2 HEADERS on stream 0": ([headers(0)], PROTOCOL),
    "6.2 padding as long as the payload": ([raw(1, 5 | PADDED, 1, b"\x02a")], PROTOCOL),
    "6.2 too short for its priority": ([raw(1, 5 | PRIORITY, 1, bytes(4))], SIZE),
    "6.3 PRIORITY on stream 0": ([raw(2, 0, 0, bytes(5))], PROTOCOL),
    "6.3 PRIORITY of 4 bytes": ([HALF, raw(2, 0, 1, bytes(4))], SIZE),
    "6.3 PRIORITY that depends on itself": ([HALF, raw(2, 0, 1, PRIORITY_OF_1)], PROTOCOL),
    "6.4 RST_STREAM on stream 0": ([raw(3, 0, 0, bytes(4))], PROTOCOL),
    "6.4 RST_STREAM of 3 bytes": ([HALF, raw(3, 0, 1, bytes(3))], SIZE),
    "6.5 SETTINGS ACK with a payload": ([raw(4, ACK, 0, bytes(6))], SIZE),
    "6.5 SETTINGS on a stream": ([raw(4, 0, 1)], PROTOCOL),
    "6.5 SETTINGS of 5 bytes": ([raw(4, 0, 0, bytes(5))], SIZE),
    "6.5.2 ENABLE_PUSH of 2": ([settings((2, 2))], PROTOCOL),
    "6.5.2 a window of 2^31": ([settings((4, MAX_WINDOW + 1))], FLOW),
    "6.5.2 a frame size below the least": ([settings((5, MAX_FRAME_BYTES - 1))], PROTOCOL),
    "6.5.2 a frame size of 2^24": ([settings((5, 1 << 24))], PROTOCOL),
    "RFC 9218 2.1 NO_RFC7540_PRIORITIES of 2": ([settings((9, 2))], PROTOCOL),
    "6.6 PUSH_PROMISE": ([HALF, raw(5, 4, 1, bytes(4))], PROTOCOL),
    "6.7 PING on a stream": ([raw(6, 0, 1, bytes(8))], PROTOCOL),
    "6.7 PING of 7 bytes": ([raw(6, 0, 0, bytes(7))], SIZE),
    "6.8 GOAWAY on a stream": ([raw(7, 0, 1, bytes(8))], PROTOCOL),
    "6.8 GOAWAY of 7 bytes": ([raw(7, 0, 0, bytes(7))], SIZE),
    "6.9 a connection's window by nothing": ([window_update(0, 0)], PROTOCOL),
    "6.9 WINDOW_UPDATE of 3 bytes": ([raw(8, 0, 0, bytes(3))], SIZE),
    "6.9.1 a connection's window too wide": ([window_update(0, MAX_WINDOW)], FLOW),
    "6.9.2 a stream's window too wide": ([OPEN, window_update(1, 1 << 30), settings((4, MAX_WINDOW))], FLOW),
    "6.10 CONTINUATION on stream 0": ([BEGUN, raw(9, 4, 0)], PROTOCOL),
    "6.10 CONTINUATION behind a whole block": ([headers(1, POST, END_HEADERS), REST], PROTOCOL),
    "6.10 CONTINUATION behind DATA": ([OPEN, data(1, b"x"), REST], PROTOCOL),
    "RFC 9218 7.1 PRIORITY_UPDATE on a stream": ([HALF, raw(16, 0, 1, bytes(4))], PROTOCOL),
    "RFC 9218 7.1 PRIORITY_UPDATE of stream 0": ([raw(16, 0, 0, bytes(4))], PROTOCOL),
    "RFC 9218 7.1 PRIORITY_UPDATE of 3 bytes": ([raw(16, 0, 0, bytes(3))], SIZE),
    "RFC 7541 4.2 a size update behind a field": ([raw(1, 5, 1, block(GET) + b"\x20")], COMPRESSION),
    "RFC 7541 6.3 a size update over the setting": ([raw(1, 5, 1, b"\x3f\xe2\x1f" + block(GET))], COMPRESSION),
    "RFC 7541 5.2 padding over 7 bits": ([raw(1, 5, 1, b"\x04\x82\x63\xff" + block(GET))], COMPRESSION),
    "RFC 7541 5.2 padding of zeros": ([raw(1, 5, 1, b"\x04\x81\x60" + block(GET))], COMPRESSION),
    "RFC 7541 5.2 the end's code": ([raw(1, 5, 1, b"\x04\x84\xff\xff\xff\xff" + block(GET))], COMPRESSION),
}


@pytest.mark.parametrize("name", ENDS_CONNECTION)
def test_what_ends_a_connection(name: str) -> None:
    sent, code = ENDS_CONNECTION[name]
    peer = Peer(begun=not name.startswith("3.4"))
    if name.startswith("3.4"):
        peer.send(PREFACE)
    peer.send(*sent)
    assert peer.ended() == code
    assert peer.send(headers(9)) == []  # nothing is read any more
    assert [event for event in peer.requests() if event.stream_id == 9] == []


ENDS_STREAM: dict[str, tuple[Sequence[bytes], ErrorCode]] = {
    "5.1 DATA behind the end": ([HALF, data(1, b"x")], CLOSED),
    "5.1 HEADERS behind the end": ([HALF, headers(1)], CLOSED),
    "5.1 DATA behind the peer's own reset": ([OPEN, raw(3, 0, 1, bytes(4)), data(1, b"x")], CLOSED),
    "6.9 a stream's window by nothing": ([OPEN, window_update(1, 0)], PROTOCOL),
    "6.9.1 a stream's window too wide": ([OPEN, window_update(1, MAX_WINDOW)], FLOW),
    "5.3.1 a stream that depends on itself": ([raw(1, 5 | PRIORITY, 1, PRIORITY_OF_1 + block(GET))], PROTOCOL),
    "6.9.1 more DATA than the stream's window": ([OPEN, *[data(1, bytes(16_384))] * 4], FLOW),
    "8.1 a second HEADERS that is no end": ([OPEN, headers(1, (), END_HEADERS)], PROTOCOL),
    "8.1 a pseudo-field in trailers": ([OPEN, headers(1, [(b":path", b"/")])], PROTOCOL),
    "8.1 a capital in trailers": ([OPEN, raw(1, 5, 1, b"\x00\x01X\x01y")], PROTOCOL),
    "8.1 Connection in trailers": ([OPEN, headers(1, [(b"connection", b"close")])], PROTOCOL),
    "8.1 a length in trailers": ([OPEN, headers(1, [(b"content-length", b"0")])], PROTOCOL),
    "8.1 a host in trailers": ([OPEN, headers(1, [(b"host", b"a")])], PROTOCOL),
    "8.1 a line end in trailers": ([OPEN, headers(1, [(b"x", b"a\r\nb: c")])], PROTOCOL),
    "8.1.1 a body too long": ([headers(1, (*POST, (b"content-length", b"1")), 4), data(1, b"xy", 1)], PROTOCOL),
    "8.1.1 a body too short": ([headers(1, (*POST, (b"content-length", b"3")), 4), data(1, b"xy", 1)], PROTOCOL),
    "8.1.1 a body too short before trailers": (
        [headers(1, (*POST, (b"content-length", b"3")), 4), data(1, b"xy"), headers(1, [(b"x", b"y")])],
        PROTOCOL,
    ),
    "8.1.1 a body announced and ended": ([headers(1, (*POST, (b"content-length", b"1")))], PROTOCOL),
}


@pytest.mark.parametrize("name", ENDS_STREAM)
def test_what_ends_a_stream_and_nothing_else(name: str) -> None:
    sent, code = ENDS_STREAM[name]
    peer = Peer()
    peer.send(*sent)
    assert peer.ended() is None
    assert peer.reset(1) == code
    assert peer.connection.streams == {}
    peer.send(headers(3))
    assert [event.stream_id for event in peer.requests()][-1] == 3  # the connection goes on


def without(name: bytes) -> Pairs:
    return [field for field in GET if field[0] != name]


MALFORMED: dict[str, Pairs] = {
    "8.2 a capital in a name": (*GET, (b"X", b"y")),
    "8.2.1 a space in a name": (*GET, (b"x y", b"z")),
    "8.2.1 a colon in a name": (*GET, (b"x:", b"z")),
    "8.2.1 an empty name": (*GET, (b"", b"z")),
    "8.2.1 NUL in a value": (*GET, (b"x", b"a\0b")),
    "8.2.1 CR in a value": (*GET, (b"x", b"a\rb")),
    "8.2.1 LF in a value": (*GET, (b"x", b"a\nb")),
    "8.2.1 a space before a value": (*GET, (b"x", b" a")),
    "8.2.1 a tab behind a value": (*GET, (b"x", b"a\t")),
    "8.2.2 connection": (*GET, (b"connection", b"x")),
    "8.2.2 keep-alive": (*GET, (b"keep-alive", b"x")),
    "8.2.2 proxy-connection": (*GET, (b"proxy-connection", b"x")),
    "8.2.2 transfer-encoding": (*GET, (b"transfer-encoding", b"chunked")),
    "8.2.2 upgrade": (*GET, (b"upgrade", b"h2c")),
    "8.2.2 te of more than trailers": (*GET, (b"te", b"trailers, deflate")),
    "8.3 an unknown pseudo-field": (*GET, (b":test", b"x")),
    "8.3 a pseudo-field of answers": (*GET, (b":status", b"200")),
    "8.3 a pseudo-field behind a field": (*without(b":path"), (b"x", b"y"), (b":path", b"/")),
    "8.3.1 an empty path": (*without(b":path"), (b":path", b"")),
    "8.3.1 a path without its slash": (*without(b":path"), (b":path", b"v1")),
    "8.3.1 a path with a space": (*without(b":path"), (b":path", b"/a b")),
    "8.3.1 * of GET": (*without(b":path"), (b":path", b"*")),
    "8.3.1 no method": without(b":method"),
    "8.3.1 no scheme": without(b":scheme"),
    "8.3.1 no path": without(b":path"),
    "8.3.1 two methods": (GET[0], *GET),
    "8.3.1 two schemes": (GET[1], *GET),
    "8.3.1 two paths": (GET[2], *GET),
    "8.3.1 two authorities": (GET[3], *GET),
    "8.3.1 a password in the authority": (*without(b":authority"), (b":authority", b"me:secret@localhost")),
    "8.3.1 a path in the authority": (*without(b":authority"), (b":authority", b"localhost/v1")),
    "8.3.1 an empty authority": (*without(b":authority"), (b":authority", b"")),
    "8.3.1 a Host beside another authority": (*GET, (b"host", b"elsewhere")),
    "8.3.1 two Hosts": (*GET, (b"host", b"localhost"), (b"host", b"localhost")),
    "8.3.1 a method that is no token": (*without(b":method"), (b":method", b"GET /")),
    "8.5 CONNECT with a path": ((b":method", b"CONNECT"), *GET[1:]),
    "8.5 CONNECT without an authority": ((b":method", b"CONNECT"),),
    "RFC 9110 8.6 two lengths": (*GET, (b"content-length", b"0"), (b"content-length", b"0")),
    "RFC 9110 8.6 a length that is no number": (*GET, (b"content-length", b"+1")),
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("flags", [END_STREAM | END_HEADERS, END_HEADERS])
def test_a_malformed_request_ends_its_stream(name: str, flags: int) -> None:
    peer = Peer()
    literals = b"".join(b"\x00%c%b%c%b" % (len(n), n, len(v), v) for n, v in MALFORMED[name])
    peer.send(raw(1, flags, 1, literals), headers(3))
    assert peer.reset(1) == PROTOCOL
    assert [event.stream_id for event in peer.requests()] == [3]
    peer.send(data(1, b"its body", END_STREAM)) if flags == END_HEADERS else None  # was on its way: passed over
    assert peer.ended() is None
    assert peer.connection.room + peer.connection.taken == 1 << 18


GOOD: dict[str, tuple[Sequence[bytes], int]] = {
    "padding of all the rest": ([headers(1, POST, 4), data(1, b"\x03abc", PADDED | END_STREAM)], 0),
    "an unknown type": ([raw(22, 255, 0, b"x")], 0),
    "undefined flags": ([raw(6, 0x16, 0, bytes(8))], 1),
    "the reserved bit": ([raw(6, 0, 1 << 31, bytes(8))], 1),
    "PING ACK": ([raw(6, ACK, 0, bytes(8))], 0),
    "SETTINGS of unknown names": ([settings((255, 1))], 1),
    "SETTINGS ACK": ([raw(4, ACK, 0)], 0),
    "PRIORITY on an idle stream": ([raw(2, 0, 7, bytes(5))], 0),
    "PRIORITY_UPDATE of an idle stream": ([raw(16, 0, 0, (7).to_bytes(4, "big") + b"u=1")], 0),
    "GOAWAY of an unknown code": ([raw(7, 0, 0, bytes(4) + b"\xff\xff\xff\xff" + b"words")], 0),
    "the largest window": ([window_update(0, MAX_WINDOW - 65_535)], 0),
    "the largest first window": ([settings((4, MAX_WINDOW))], 1),
    "the largest frame size": ([settings((5, (1 << 24) - 1))], 1),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_taken(name: str) -> None:
    sent, answers = GOOD[name]
    peer = Peer()
    assert len(peer.send(*sent)) == answers
    peer.send(headers(9))
    assert peer.requests()[-1].stream_id == 9
    assert peer.ended() is None


def test_ping_gives_its_bytes_back() -> None:
    assert Peer().send(raw(6, 0, 0, b"12345678")) == [Frame(FrameType.PING, ACK, 0, b"12345678")]


@pytest.mark.parametrize("bad", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", PREFACE[:-1] + b"x", b"PRX"])
def test_what_does_not_begin_with_the_preface_is_not_http2(bad: bytes) -> None:
    peer = Peer(begun=False)
    peer.send(bad)
    assert peer.ended() == PROTOCOL


def test_a_frame_of_exactly_the_frame_size_is_taken() -> None:
    peer = Peer()
    peer.send(OPEN, data(1, bytes(MAX_FRAME_BYTES), END_STREAM))
    assert [len(event.data) for event in peer.events if isinstance(event, BodyReceived)] == [MAX_FRAME_BYTES]
    assert peer.ended() is None


def test_a_request_with_padding_priority_and_continuations_is_whole() -> None:
    peer, whole = Peer(), block(GET)
    peer.send(
        raw(1, PADDED | PRIORITY | END_STREAM, 1, b"\x02" + bytes(5) + whole[:4] + bytes(2)),
        raw(9, 0, 1, whole[4:9]),
        raw(9, 0, 1, b""),
        raw(9, END_HEADERS, 1, whole[9:]),
    )
    (event,) = peer.requests()
    assert (event.head.method, event.head.target, event.head.version) == (b"GET", b"/v1", "2")
    assert event.head.fields == [(b"host", b"localhost")]
    assert event.ended


def test_a_body_with_trailers_comes_in_order() -> None:
    peer = Peer()
    peer.send(
        OPEN, data(1, b"one"), data(1, b"\x03two123", PADDED), headers(1, [(b"checksum", b"x"), (b"te", b"trailers")])
    )
    assert [event.data for event in peer.events if isinstance(event, BodyReceived)] == [b"one", b"two"]
    assert peer.events[-1] == BodyEnded(1, ((b"checksum", b"x"), (b"te", b"trailers")))


def test_cookies_in_pieces_are_one_line() -> None:
    peer = Peer()
    peer.send(headers(1, (*GET, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"))))
    assert peer.requests()[0].head.fields == [(b"host", b"localhost"), (b"x", b"y"), (b"cookie", b"a=1; b=2")]


def test_a_request_without_authority_keeps_its_host_or_has_none() -> None:
    peer = Peer()
    peer.send(headers(1, (*without(b":authority"), (b"host", b"h"))), headers(3, without(b":authority")))
    assert [event.head.fields for event in peer.requests()] == [[(b"host", b"h")], []]


def test_connect_and_options_of_everything_are_requests_like_others() -> None:
    peer = Peer()
    peer.send(headers(1, [(b":method", b"CONNECT"), (b":authority", b"db:5432")]))
    peer.send(headers(3, [(b":method", b"OPTIONS"), (b":scheme", b"http"), (b":path", b"*"), GET[3]]))
    assert [(event.head.method, event.head.target) for event in peer.requests()] == [
        (b"CONNECT", b"db:5432"),
        (b"OPTIONS", b"*"),
    ]


@pytest.mark.parametrize(("count", "refused"), [(124, False), (129, True)])
def test_more_fields_than_are_taken_are_refused_with_an_answer(count: int, refused: bool) -> None:
    peer = Peer()
    peer.send(headers(1, (*GET, *[(b"x", b"")] * count)))
    found = [event for event in peer.events if isinstance(event, RequestRefused)]
    assert [event.status for event in found] == ([431] if refused else [])
    assert len(peer.requests()) == (not refused)
    peer.answer(1, b"body")
    peer.send(headers(3))
    assert peer.ended() is None


@pytest.mark.parametrize(("more", "refused"), [(0, False), (1, True)])
def test_the_list_of_fields_is_bounded_as_it_is_counted(more: int, refused: bool) -> None:
    used = sum(len(name) + len(value) + 32 for name, value in GET)
    peer = Peer(head_bytes=1000)
    entry = b"x" * (1000 - used - 33 + more)
    peer.send(headers(1, (*GET, (b"x", entry))))
    assert [isinstance(event, RequestRefused) for event in peer.events] == [refused]


def test_the_table_goes_on_with_a_request_that_is_refused() -> None:
    peer = Peer(head_bytes=300)
    indexed = b"\x40\x01x\x04here"
    peer.send(raw(1, 5, 1, indexed + block([*GET, (b"y", bytes(b"z" * 300))])))
    peer.send(raw(1, 5, 3, block(GET) + b"\xbe"))
    assert peer.requests()[-1].head.fields == [(b"host", b"localhost"), (b"x", b"here")]


@pytest.mark.parametrize(("streams", "refused"), [(3, False), (4, True)])
def test_streams_at_once_are_bounded(streams: int, refused: bool) -> None:
    peer = Peer(streams=3)
    peer.send(*[headers(1 + 2 * n, POST, END_HEADERS) for n in range(streams)])
    assert (peer.reset(7) == ErrorCode.REFUSED_STREAM) == refused
    assert len(peer.connection.streams) == 3
    peer.answer(1)
    peer.send(headers(9))
    assert peer.requests()[-1].stream_id == 9


def test_closed_streams_pass_over_what_was_on_its_way_and_refuse_what_was_not() -> None:
    peer = Peer()
    peer.send(OPEN)
    peer.answer(1, b"no body wanted")
    assert peer.reset(1) == ErrorCode.NO_ERROR
    peer.send(data(1, b"on its way"), window_update(1, 1), raw(3, 0, 1, bytes(4)), data(1, b"and on"))
    assert peer.ended() is None
    peer.send(headers(3))
    peer.answer(3)
    peer.send(headers(3))
    assert peer.ended() == CLOSED


def test_a_peer_that_cancels_is_told_of_once() -> None:
    peer = Peer()
    peer.send(OPEN, raw(3, 0, 1, (8).to_bytes(4, "big")))
    assert peer.events[-1] == StreamReset(1, ErrorCode.CANCEL)
    assert peer.answer(1, b"late") == []
    peer.send(headers(3), raw(3, 0, 3, (77).to_bytes(4, "big")))
    assert peer.events[-1] == StreamReset(3, ErrorCode.INTERNAL_ERROR)  # a code that nobody knows


def test_an_answer_that_breaks_off_is_a_reset_at_once() -> None:
    peer = Peer()
    peer.send(HALF)
    peer.connection.begin(1, b"\x88", ended=False)
    peer.connection.send(1, b"part", ended=False)
    peer.connection.reset(1, ErrorCode.INTERNAL_ERROR)
    assert [frame.kind for frame in peer.take()] == [FrameType.HEADERS, FrameType.RST_STREAM]
    assert peer.connection.held_bytes() == 0


def test_shutting_down_ends_what_is_under_way_and_takes_nothing_new() -> None:
    peer = Peer()
    peer.send(HALF)
    peer.connection.shut_down()
    (farewell,) = peer.take()
    assert (farewell.kind, farewell.payload[:8]) == (FrameType.GOAWAY, bytes(3) + b"\x01" + bytes(4))
    assert not peer.connection.is_finished()
    peer.send(headers(3, (*GET, (b"x", b"y"))))
    assert len(peer.requests()) == 1
    peer.answer(1, b"whole")
    assert peer.connection.is_finished()
    assert peer.ended() is None


def test_shutting_down_before_anything_or_within_a_block() -> None:
    fresh = Peer(begun=False)
    fresh.connection.shut_down()
    assert fresh.connection.is_finished()
    peer = Peer()
    peer.send(BEGUN)
    peer.connection.shut_down()
    assert peer.requests() == []
    peer.send(raw(9, 0, 1, block(GET)[5:9]), raw(9, 4, 1, block(GET)[9:]))
    assert peer.connection.is_finished()
    assert peer.requests() == []


def test_a_peer_whose_table_shrinks_is_told_that_ours_has() -> None:
    peer = Peer()
    peer.send(settings((Setting.HEADER_TABLE_SIZE, 4095)), headers(1), headers(3))
    assert peer.answer(1)[0].payload[:1] == b"\x20"
    assert peer.answer(3)[0].payload[:1] == b"\x88"


def test_a_long_head_goes_out_in_continuations() -> None:
    peer = Peer()
    peer.send(HALF)
    found = peer.answer(1, b"", b"\x88" + bytes(2 * MAX_FRAME_BYTES))
    assert [(f.kind, f.flags, len(f.payload)) for f in found] == [
        (FrameType.HEADERS, END_STREAM, MAX_FRAME_BYTES),
        (FrameType.CONTINUATION, 0, MAX_FRAME_BYTES),
        (FrameType.CONTINUATION, END_HEADERS, 1),
    ]


def test_an_interim_answer_comes_before_the_answer_alone() -> None:
    peer = Peer()
    peer.send(OPEN)
    peer.connection.interim(1, b"\x08\x03100")
    peer.answer(1)
    peer.connection.interim(1, b"\x08\x03100")
    assert [f.flags for f in peer.sent if f.kind == FrameType.HEADERS] == [END_HEADERS, END_HEADERS | END_STREAM]
