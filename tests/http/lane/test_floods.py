"""A flooder ends its own connection, is held off, and costs the others nothing; slow peers are cut."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from edged.http.h2.control import CONTROL_BURST
from edged.http.h2.frames import PREFACE, ErrorCode, FrameType, settings_frame
from edged.http.lane import turns
from edged.http.lane.connection import LaneState
from edged.http.lane.secure import ASKING_S, SHARE, TURN_S, Handshakes, SecureConnection
from edged.http.limits import Limits
from tests.http.h2.peer import Frame, headers, parse, raw
from tests.http.h2.test_rules import settings, window_update
from tests.http.lane.answers import LARGE, Answers
from tests.http.protocols import Ask, Everywhere, everywhere
from tests.http.tls.pem import make
from tests.serve.lanes import eventually

pytestmark = pytest.mark.trio


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Everywhere, Answers]]:
    monkeypatch.setattr(turns, "SWEEP_S", 0.02)
    (tmp_path / "file").write_bytes(b"abc" + LARGE)
    answers = Answers(tmp_path / "file")
    limits = Limits(head_s=1.0, idle_s=1.5, write_s=0.5, body_s=0.5, handshake_s=1.5)
    async with everywhere(answers, make(tmp_path, "localhost"), limits) as found:
        yield found, answers


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Until the server has ended."""
    data = b""
    try:
        while piece := await stream.receive_some(65536):
            data += piece
    except trio.BrokenResourceError:
        pass
    return data


async def farewell(stream: trio.abc.ReceiveStream) -> ErrorCode:
    """The code of the GOAWAY that the server ends with."""
    frames = parse(await read_all(stream))
    assert frames[-1].kind == FrameType.GOAWAY
    return ErrorCode(frames[-1].code)


async def test_a_flooder_is_ended_and_held_off_while_others_are_answered(served: tuple[Everywhere, Answers]) -> None:
    found, _ = served
    flooder = await found.open("h2c")
    await flooder.send_all(PREFACE + settings_frame(()) + raw(6, 0, 0, bytes(8)) * (CONTROL_BURST + 1))
    (got,) = await found.ask("h2c", Ask("/whole"))
    assert got.status == 200
    assert await farewell(flooder) == ErrorCode.ENHANCE_YOUR_CALM
    assert found.meter.fast_connections >= 1  # it is not let go of at once, and nothing of it is read
    with trio.move_on_after(1) as limit:
        while True:
            await flooder.send_all(bytes(1 << 16))
    assert limit.cancelled_caught  # the kernel's buffers are full
    await flooder.aclose()


async def test_a_frame_that_does_not_get_whole_is_late(served: tuple[Everywhere, Answers]) -> None:
    for begun in (PREFACE[:9], PREFACE, PREFACE + settings_frame(()) + b"\0\0"):
        stream = await served[0].open("h2c")
        await stream.send_all(begun)
        await read_all(stream)
        await stream.aclose()


async def test_an_idle_connection_is_told_and_closed(served: tuple[Everywhere, Answers]) -> None:
    stream = await served[0].open("h2c")
    await stream.send_all(PREFACE + settings_frame(()))
    assert await farewell(stream) == ErrorCode.NO_ERROR
    await stream.aclose()


async def test_a_window_that_is_never_opened_ends_its_stream_and_no_other(served: tuple[Everywhere, Answers]) -> None:
    found, _ = served
    stream = await found.open("h2c")
    await stream.send_all(PREFACE + settings((4, 10)) + headers(1, fields_of("/large")))
    data, resets = b"", list[Frame]()
    while not resets:
        data += await stream.receive_some(65536)
        resets = [frame for frame in parse(whole(data)) if frame.kind == FrameType.RST_STREAM]
    assert (resets[0].stream_id, resets[0].code) == (1, ErrorCode.CANCEL)
    await stream.send_all(headers(3, fields_of("/none")))
    data = b""
    while not data:
        data = bytes(await stream.receive_some(65536))
    assert parse(whole(data))[0].kind == FrameType.HEADERS
    await stream.aclose()


async def test_a_body_that_does_not_come_ends_its_stream(served: tuple[Everywhere, Answers]) -> None:
    found, answers = served
    stream = await found.open("h2c")
    await stream.send_all(PREFACE + settings_frame(()) + headers(1, fields_of("/echo", b"POST"), 4))
    data, resets = b"", list[Frame]()
    while not resets:
        data += await stream.receive_some(65536)
        resets = [frame for frame in parse(whole(data)) if frame.kind == FrameType.RST_STREAM]
    assert resets[0].code == ErrorCode.CANCEL
    await eventually(lambda: answers.gone == [b"/echo"])
    await stream.aclose()


async def test_handshakes_that_are_left_half_way_are_cut(served: tuple[Everywhere, Answers]) -> None:
    found, _ = served
    port = int(found.urls["h2"].rpartition(":")[2])
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        found.context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    for said in (b"", outgoing.read(), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(300)):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(said) if said else None
        await read_all(stream)
        await stream.aclose()
    (got,) = await found.ask("h2", Ask("/whole"))
    assert got.status == 200


async def test_handshakes_leave_others_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that each step moves on: while somebody is asking, they take a turn and then pause."""
    clock = [100.0]
    monkeypatch.setattr("edged.http.lane.secure.monotonic", lambda: clock[0])
    taken: list[int] = []

    class Slow(SecureConnection):
        def __init__(self, number: int) -> None:  # no socket: nothing but its turn is tried
            self.number = number
            self.queued = False
            self.state = LaneState.HANDSHAKE

        def shake_hands(self) -> None:
            taken.append(self.number)
            clock[0] += TURN_S

    handshakes = Handshakes()
    for number in range(4):
        handshakes.put(Slow(number))
    assert len(handshakes.take_turn(asked_at=0.0)) == 1  # nobody asks: one turn after the other
    assert len(handshakes.take_turn(asked_at=0.0)) == 1
    assert handshakes.take_turn(asked_at=clock[0]) == []  # somebody does
    clock[0] += 0.99 * SHARE * TURN_S
    assert handshakes.take_turn(asked_at=clock[0]) == []
    clock[0] += 0.02 * SHARE * TURN_S
    assert len(handshakes.take_turn(asked_at=clock[0])) == 1
    assert len(handshakes.take_turn(asked_at=clock[0] - 1.01 * ASKING_S)) == 1
    assert taken == [0, 1, 2, 3]


def fields_of(path: str, method: bytes = b"GET") -> list[tuple[bytes, bytes]]:
    return [(b":method", method), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"localhost")]


def whole(data: bytes) -> bytes:
    """The frames of `data` that are there whole."""
    at = 0
    while at + 9 <= len(data):
        end = at + 9 + int.from_bytes(data[at : at + 3], "big")
        if end > len(data):
            break
        at = end
    return data[:at]


async def test_a_window_that_is_opened_by_a_few_bytes_at_a_time_ends_its_stream(
    served: tuple[Everywhere, Answers],
) -> None:
    found, _ = served
    stream = await found.open("h2c")
    await stream.send_all(PREFACE + settings((4, 10)) + headers(1, fields_of("/large")))
    data, resets = b"", list[Frame]()

    async def trickle() -> None:
        while True:
            await stream.send_all(window_update(1, 1))
            await trio.sleep(0.05)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        while not resets:
            data += await stream.receive_some(65536)
            resets = [frame for frame in parse(whole(data)) if frame.kind == FrameType.RST_STREAM]
        nursery.cancel_scope.cancel()
    assert (resets[0].stream_id, resets[0].code) == (1, ErrorCode.CANCEL)
    await stream.aclose()


async def test_what_streams_hold_is_bounded_over_all_connections(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" + LARGE)
    limits = Limits(unread_bytes=5 * len(LARGE) // 2)
    async with everywhere(Answers(tmp_path / "file"), make(tmp_path, "localhost"), limits) as found:
        held = [await found.open("h2c") for _ in range(3)]
        for number, stream in enumerate(held):
            await stream.send_all(PREFACE + settings((4, 10)) + headers(1, fields_of("/large")))
            await eventually(lambda: found.meter.fast_answers[200] == number + 1)  # noqa: B023  awaited here
        assert b"".join([await read_all(held[0])])  # the one that has waited longest is cut off
        (got,) = await found.ask("h2c", Ask("/whole"))
        assert got.status == 200
        await eventually(lambda: found.meter.fast_connections == 2)
        for stream in held:
            await stream.aclose()
