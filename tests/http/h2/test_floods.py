"""What costs us and asks for nothing is bounded by rate, and never by a connection's whole life."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edged.http.h2.connection import FRAMES_A_TURN, LONG_WAY
from edged.http.h2.control import (
    CONTINUATIONS,
    CONTROL_BURST,
    CONTROL_EARNED,
    CONTROL_PER_S,
    MOST_SETTINGS,
    RESET_BURST,
    RESET_PER_S,
)
from edged.http.h2.frames import END_HEADERS, ErrorCode, FrameType
from tests.http.h2.peer import GET, POST, Peer, block, data, headers, raw
from tests.http.h2.test_rules import window_update

CALM = ErrorCode.ENHANCE_YOUR_CALM
OPENED = headers(1, POST, END_HEADERS)

FLOODS: dict[str, Callable[[int], bytes]] = {
    "PING": lambda _: raw(6, 0, 0, bytes(8)),
    "PING ACK": lambda _: raw(6, 1, 0, bytes(8)),
    "SETTINGS": lambda _: raw(4, 0, 0, b"\0\x04\0\0\xff\xff"),
    "SETTINGS ACK": lambda _: raw(4, 1, 0),
    "WINDOW_UPDATE": lambda _: window_update(0, 1),
    "WINDOW_UPDATE of a stream": lambda _: window_update(1, 1),
    "PRIORITY": lambda _: raw(2, 0, 1, bytes(5)),
    "PRIORITY_UPDATE": lambda _: raw(16, 0, 0, b"\0\0\0\x01u=1"),
    "empty DATA": lambda _: data(1, b""),
    "DATA of padding": lambda _: data(1, b"\x01\0", 8),
    "unknown": lambda n: raw(64 + n % 64, 0, 0),
    "GOAWAY": lambda _: raw(7, 0, 0, bytes(8)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_its_own_connection_beyond_its_burst(name: str) -> None:
    peer = Peer()
    already = 1  # the SETTINGS of the preface
    peer.send(OPENED)
    for n in range(CONTROL_BURST - already):
        peer.send(FLOODS[name](n))
    assert peer.ended() is None
    peer.send(FLOODS[name](0))
    assert peer.ended() == CALM


@pytest.mark.parametrize("name", FLOODS)
def test_the_same_at_a_bearable_rate_never_ends(name: str) -> None:
    peer = Peer()
    peer.send(OPENED)
    for n in range(4 * CONTROL_BURST):
        peer.now += 1 / CONTROL_PER_S
        peer.send(FLOODS[name](n))
    assert peer.ended() is None


def test_a_client_that_takes_answers_may_measure_and_open_windows_in_step() -> None:
    peer = Peer()
    for n in range(CONTROL_BURST):
        peer.send(headers(1 + 2 * n))
        peer.answer(1 + 2 * n)
        peer.send(*[raw(6, 0, 0, bytes(8))] * CONTROL_EARNED)
    assert peer.ended() is None
    peer.send(*[raw(6, 0, 0, bytes(8))] * CONTROL_BURST)
    assert peer.ended() == CALM


def cancelled(number: int) -> bytes:
    return headers(number) + raw(3, 0, number, (8).to_bytes(4, "big"))


def at_fault(number: int) -> bytes:
    return headers(number) + window_update(number, 0)


@pytest.mark.parametrize("flood", [cancelled, at_fault])
def test_streams_opened_to_be_cancelled_end_the_connection_beyond_their_burst(flood: Callable[[int], bytes]) -> None:
    peer = Peer()
    for n in range(RESET_BURST):
        if n % 400 == 0:
            peer.connection.control.left = CONTROL_BURST  # the other bound is not what is tried here
        peer.send(flood(1 + 2 * n))
    assert peer.ended() is None
    peer.send(flood(1 + 2 * RESET_BURST))
    assert peer.ended() == CALM


def test_cancelled_downloads_are_counted_by_rate_and_not_for_life() -> None:
    peer = Peer()
    for n in range(5 * RESET_BURST):
        peer.now += 1 / RESET_PER_S
        peer.send(cancelled(1 + 2 * n))
    assert peer.ended() is None


@pytest.mark.parametrize(("pieces", "ends"), [(CONTINUATIONS - 1, False), (CONTINUATIONS, True)])
def test_a_field_block_comes_in_few_frames(pieces: int, ends: bool) -> None:
    peer = Peer()
    peer.send(raw(1, 1, 1, block(GET)), *[raw(9, 0, 1)] * (pieces - 1), raw(9, END_HEADERS, 1))
    assert peer.ended() == (CALM if ends else None)
    assert len(peer.requests()) == (not ends)


@pytest.mark.parametrize(("more", "ends"), [(0, False), (1, True)])
def test_a_field_block_is_bounded_before_it_is_decoded(more: int, ends: bool) -> None:
    peer = Peer(head_bytes=1000)
    peer.send(raw(1, 1, 1, bytes(1600)), raw(9, 0, 1, bytes(400 + more)))
    assert peer.ended() == (CALM if ends else None)


@pytest.mark.parametrize(("count", "ends"), [(MOST_SETTINGS, False), (MOST_SETTINGS + 1, True)])
def test_a_frame_holds_so_many_settings(count: int, ends: bool) -> None:
    peer = Peer()
    peer.send(raw(FrameType.SETTINGS, 0, 0, b"\0\x04\0\0\0\x01" * count))
    assert peer.ended() == (CALM if ends else None)


def test_a_turn_ends_after_so_many_frames_and_the_rest_waits() -> None:
    peer = Peer()
    peer.connection.receive(raw(4, 1, 0) * 200, 0.0)
    assert len(peer.connection.inbox) == (200 - FRAMES_A_TURN // (1 + LONG_WAY)) * 9
    assert peer.connection.has_more()
    peer.send()
    assert peer.connection.inbox == b""
