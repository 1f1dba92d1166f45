"""Any chunking gives the same, and no bytes make anything but an answer or a farewell."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.http.h2.control import H2Phase
from edged.http.h2.events import BodyEnded, BodyReceived, ConnectionEnded, RequestReceived, RequestRefused
from edged.http.h2.frames import END_HEADERS, PREFACE, settings_frame
from tests.http.h2.peer import GET, OK, POST, Peer, block, data, headers, raw

CONVERSATION = b"".join(
    [
        PREFACE,
        settings_frame(()),
        headers(1),
        raw(6, 0, 0, b"12345678"),
        headers(3, POST, END_HEADERS),
        data(3, b"a body"),
        raw(2, 0, 3, bytes(5)),
        data(3, b" in two", 1),
        raw(1, 1, 5, block(GET)[:7]),
        raw(9, 4, 5, block(GET)[7:]),
        headers(7, POST, END_HEADERS),
        headers(7, [(b"x", b"y")]),
        raw(8, 0, 0, bytes(3) + b"\x01"),
        headers(9, (*GET, (b"Bad", b"name"))),
    ]
)


def converse(peer: Peer, sent: bytes) -> None:
    """Answer what is asked, as somebody does who reads each body first."""
    peer.connection.receive(sent, peer.now)
    answered = 0
    while True:
        peer.events += peer.connection.take_events()
        for event in peer.events[answered:]:
            if isinstance(event, RequestReceived) and event.ended:
                peer.connection.answer(event.stream_id, OK, event.head.target)
            elif isinstance(event, BodyReceived):
                peer.connection.consume(event.stream_id, len(event.data))
            elif isinstance(event, BodyEnded | RequestRefused):
                peer.connection.answer(event.stream_id, OK, b"done")
        answered = len(peer.events)
        peer.take()
        if not peer.connection.has_more() and len(peer.events) == answered:
            return
        peer.connection.receive(b"", peer.now)


WHOLE = Peer(begun=False)
converse(WHOLE, CONVERSATION)


@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=12))
def test_any_chunking_gives_the_same(cuts: list[int]) -> None:
    peer, at = Peer(begun=False), 0
    for cut in [*sorted(cuts), len(CONVERSATION)]:
        converse(peer, CONVERSATION[at:cut])
        at = cut
    assert peer.events == WHOLE.events
    assert sorted(map(repr, peer.sent)) == sorted(map(repr, WHOLE.sent))
    assert peer.connection.streams == {}


def test_byte_by_byte_gives_the_same() -> None:
    peer = Peer(begun=False)
    for at in range(len(CONVERSATION)):
        converse(peer, CONVERSATION[at : at + 1])
    assert peer.events == WHOLE.events


@settings(max_examples=400)
@given(st.data())
def test_mutated_bytes_never_raise_and_never_leave_anything_held(choice: st.DataObject) -> None:
    sent = bytearray(CONVERSATION)
    for _ in range(choice.draw(st.integers(1, 4))):
        place = choice.draw(st.integers(len(PREFACE), len(sent) - 1))
        match choice.draw(st.integers(0, 2)):
            case 0:
                sent[place] ^= 1 << choice.draw(st.integers(0, 7))
            case 1:
                del sent[place : place + choice.draw(st.integers(1, 9))]
                sent += b"\0" * 9
            case _:
                sent[place:place] = choice.draw(st.binary(min_size=1, max_size=9))
    peer = Peer(begun=False)
    converse(peer, bytes(sent))
    if peer.ended() is not None:
        assert isinstance(peer.events[-1], ConnectionEnded)
        assert peer.connection.phase is H2Phase.ENDED
        assert peer.connection.streams == {}
    assert peer.connection.flow.queued_bytes == 0


@given(st.lists(st.tuples(st.sampled_from(["GET", "POST"]), st.binary(max_size=100_000)), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_another_implementation_gets_its_bytes_back(asked: list[tuple[str, bytes]]) -> None:
    """The h2 library as the client: bodies go there and come back through both sides' windows."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    client.initiate_connection()
    client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 5000})
    peer, unsent, got = Peer(begun=False), dict[int, bytes](), dict[int, bytes]()
    bodies: dict[int, bytes] = {}
    for method, body in asked:
        number = client.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":path", f"/{number}"), (":authority", "h")]
        client.send_headers(number, head, end_stream=method == "GET")
        unsent[number] = body if method == "POST" else b""
        got[number] = b""
    while True:
        for number, body in unsent.items():
            room = min(client.local_flow_control_window(number), client.max_outbound_frame_size) if body else 0
            if room:
                client.send_data(number, body[:room], end_stream=len(body) <= room)
                unsent[number] = body[room:]
            elif body == b"" and number not in bodies and asked[number // 2] == ("POST", b""):
                client.end_stream(number)
                bodies[number] = b""
        sent = client.data_to_send()
        peer.connection.receive(sent, 0.0)
        while peer.connection.has_more():
            peer.connection.receive(b"", 0.0)
        for event in peer.connection.take_events():
            assert not isinstance(event, ConnectionEnded)
            if isinstance(event, BodyReceived):
                bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                peer.connection.consume(event.stream_id, len(event.data))
            elif isinstance(event, BodyEnded) or (isinstance(event, RequestReceived) and event.ended):
                peer.connection.answer(event.stream_id, OK, b"got " + bodies.get(event.stream_id, b""))
        back = peer.connection.take_output()
        for answered in client.receive_data(back):
            if isinstance(answered, h2.events.DataReceived):
                assert answered.data is not None
                got[answered.stream_id] += answered.data
                client.acknowledge_received_data(answered.flow_controlled_length, answered.stream_id)
        if not sent and not back:
            break
    assert list(got.values()) == [b"got " + (body if method == "POST" else b"") for method, body in asked]
    assert peer.connection.streams == {}
