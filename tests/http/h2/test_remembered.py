"""Answers from memory are the bytes of answers that are made, and are never those of somebody else or of before."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from edged.http.application import UNTIMED, Response, Shared
from edged.http.fields import Fields
from edged.http.framing import join_fields
from edged.http.h2.events import RequestReceived
from edged.http.h2.frames import END_STREAM, FIRST_WINDOW, MAX_FRAME_BYTES, FrameType
from edged.http.h2.remembered import LAST_KIND
from tests.http.h2.peer import GET, Frame, Peer, headers, raw
from tests.http.h2.test_rules import settings, window_update


@dataclass(frozen=True)
class Second:
    """What of an answer the time moves."""

    def fields(self, now: float) -> Fields:
        return ((b"Date", b"at %d" % now),)


SHARED = Shared(((b"Vary", b"Accept"),), join_fields([(b"Vary", b"Accept")]))
FOUND = Response(200, ((b"ETag", b'"x"'), (b"Content-Length", b"4")), b"body", Second(), True, SHARED)
INDEXED = b"\x82\x86\x41\x01h\x04\x02/a"  # enters its authority in the table
LATER = b"\x82\x86\xbe\x04\x02/a"  # finds it there


def ask(peer: Peer, stream_id: int, found: Response | None, block: bytes = LATER) -> list[Frame]:
    """One request; `found` answers it, where memory does not."""
    seen = len(peer.events)
    sent = peer.send(raw(1, 5, stream_id, block))
    for event in peer.events[seen:]:
        assert isinstance(event, RequestReceived)
        assert found is not None, "not remembered"
        head_only = event.head.method == b"HEAD"
        whole = peer.memory.block_of(found, event.asked, head_only=head_only)
        peer.connection.answer(stream_id, whole, b"" if head_only else found.body)
        sent += peer.take()
    return sent


def like(sent: list[Frame]) -> list[tuple[int, int, bytes]]:
    return [(frame.kind, frame.flags, frame.payload) for frame in sent]


@pytest.mark.parametrize(
    "found",
    [
        FOUND,
        replace(FOUND, body=b"", status=304),
        replace(FOUND, timed=UNTIMED, shared=Shared((), b"")),
        replace(FOUND, body=bytes(MAX_FRAME_BYTES)),
    ],
)
def test_the_second_answer_is_the_first_ones_bytes(found: Response) -> None:
    peer = Peer()
    first = ask(peer, 1, found, INDEXED)
    second = ask(peer, 3, found)  # by another block
    third = ask(peer, 5, None)
    assert like(first) == like(second) == like(third)
    assert [frame.stream_id for frame in third] == [5] * len(third)
    assert third[-1].flags & END_STREAM
    assert peer.memory.take_counts() == {found.status: 1}
    assert peer.memory.take_counts() == {}


def test_clients_that_enter_every_path_in_the_table_are_answered_from_memory_too() -> None:
    one, other = Peer(), Peer()
    other.memory = other.connection.memory = one.memory
    entering = b"\x82\x86\x41\x01h\x44\x02/a"
    first = ask(one, 1, FOUND, entering)
    other.send(raw(1, 5, 1, b"\x82\x86\x41\x01h\x44\x02/b"))  # so that its table is another
    other.answer(1)
    assert like(ask(other, 3, None, b"\x82\x86\xbf\x44\x02/a")) == like(first)
    assert like(ask(one, 3, FOUND, b"\x82\x86\xbf\xbe")) == like(first)
    with pytest.raises(AssertionError, match="not remembered"):
        ask(other, 5, None, b"\x82\x86\xc0\x44\x02/a\x40\x01x\x01y")  # one field more is another request


def test_head_is_remembered_apart_and_without_its_body() -> None:
    peer = Peer()
    head = b"\x02\x04HEAD" + LATER[1:]
    ask(peer, 1, FOUND, INDEXED)
    ask(peer, 3, FOUND, head)
    found = ask(peer, 5, None, head)
    assert [frame.kind for frame in found] == [FrameType.HEADERS]
    assert len(ask(peer, 7, FOUND)) == 2


def test_time_goes_on_in_what_is_remembered() -> None:
    peer = Peer()
    ask(peer, 1, FOUND, INDEXED)
    ask(peer, 3, FOUND)
    peer.memory.renew(1, 15.0)
    later = ask(peer, 5, None)[0].payload
    assert b"at 15" in later


def test_another_generation_forgets_and_an_answer_of_an_older_one_is_not_kept() -> None:
    peer = Peer()
    ask(peer, 1, FOUND, INDEXED)
    ask(peer, 3, FOUND)
    peer.memory.renew(2, 1.0)
    peer.send(raw(1, 5, 5, LATER))
    (event,) = peer.requests()[-1:]
    peer.memory.renew(3, 1.0)  # while it was made
    peer.connection.answer(5, peer.memory.block_of(FOUND, event.asked, head_only=False), FOUND.body)
    with pytest.raises(AssertionError, match="not remembered"):
        ask(peer, 7, None)


@pytest.mark.parametrize("found", [replace(FOUND, keep=False), replace(FOUND, body=bytes(MAX_FRAME_BYTES + 1))])
def test_what_is_not_to_be_kept_or_fits_no_frame_is_not(found: Response) -> None:
    peer = Peer()
    ask(peer, 1, found, INDEXED)
    ask(peer, 3, found)
    with pytest.raises(AssertionError, match="not remembered"):
        ask(peer, 5, None)


def test_others_are_not_given_what_one_was() -> None:
    one, other = Peer(), Peer()
    other.memory = other.connection.memory = one.memory
    other.decoder = other.connection.decoder = one.decoder
    other.connection.table = one.decoder.empty
    ask(one, 1, FOUND, INDEXED)
    ask(one, 3, FOUND)
    other.connection.mark = b"\x02other"
    other.connection.place = other.connection.mark + other.connection.table.name
    ask(other, 1, FOUND, INDEXED)
    with pytest.raises(AssertionError, match="not remembered"):
        ask(other, 3, None)


def test_a_window_too_narrow_takes_the_long_way_and_the_same_bytes_come() -> None:
    peer = Peer()
    ask(peer, 1, FOUND, INDEXED)
    whole = ask(peer, 3, FOUND)
    peer.send(settings((4, 3)))
    found = ask(peer, 5, FOUND) + peer.send(window_update(5, 1))
    assert b"".join(f.payload for f in found if f.kind == 0) == b"body"
    assert found[0].payload == whole[0].payload
    peer.send(settings((4, FIRST_WINDOW)))
    peer.connection.flow.window = 3
    assert b"".join(f.payload for f in ask(peer, 7, FOUND) if f.kind == 0) == b"bod"
    peer.send(window_update(0, 1000))
    ask(peer, 9, None)


def test_numbers_that_are_not_the_next_take_the_long_way() -> None:
    peer = Peer()
    ask(peer, 1, FOUND, INDEXED)
    ask(peer, 3, FOUND)
    ask(peer, 7, FOUND)
    ask(peer, 9, None)
    peer.send(raw(1, 5, 7, LATER))
    assert peer.ended() is not None


def test_kinds_are_bounded() -> None:
    peer = Peer()
    for number in range(LAST_KIND + 2):
        shared = Shared(((b"X", b"%d" % number),), b"")
        peer.memory.block_of(replace(FOUND, shared=shared), None, head_only=False)
        assert len(peer.memory.kinds) <= LAST_KIND + 1
    assert len(peer.memory.kinds) == 1
    peer.send(headers(1, GET))
    assert peer.ended() is None
