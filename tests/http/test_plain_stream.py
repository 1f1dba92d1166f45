"""A socket as a stream: whole writes, both ends, and one kind of error each for gone, closed and busy."""

from __future__ import annotations

import gc
import socket
import struct
import weakref
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from edged.http.hypercorn.stream import PlainStream


@pytest.fixture
async def pair() -> AsyncIterator[tuple[PlainStream, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as theirs:
        ours, _ = server.accept()
        ours.setblocking(False)
        stream = PlainStream(ours)
        yield stream, theirs
        await stream.aclose()


def reset(sock: socket.socket) -> None:
    """Close it so that the other side hears of no end, but of a break."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def test_everything_is_sent_and_an_end_is_heard(pair: tuple[PlainStream, socket.socket]) -> None:
    stream, theirs = pair
    data = bytes(range(256)) * 20_000
    got = bytearray()

    async def read() -> None:
        while part := await trio.to_thread.run_sync(theirs.recv, 65536):
            got.extend(part)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await stream.send_all(b"")
        await stream.send_all(memoryview(data))
        await stream.wait_send_all_might_not_block()
        await stream.send_eof()
    assert bytes(got) == data
    theirs.sendall(b"still")
    theirs.shutdown(socket.SHUT_WR)
    assert await stream.receive_some(3) == b"sti"
    assert await stream.receive_some() == b"ll"
    assert await stream.receive_some() == b""


async def test_a_peer_that_has_gone_breaks_it(pair: tuple[PlainStream, socket.socket]) -> None:
    stream, theirs = pair
    reset(theirs)
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_eof()


async def test_one_sends_at_a_time_and_none_once_it_is_closed(pair: tuple[PlainStream, socket.socket]) -> None:
    stream, _ = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, bytes(64 << 20))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.send_all(b"x")
        nursery.cancel_scope.cancel()
    await stream.aclose()
    for call in (stream.receive_some(), stream.send_all(b"x"), stream.send_eof()):
        with pytest.raises(trio.ClosedResourceError):
            await call


async def test_nothing_of_it_waits_for_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            stream = PlainStream(ours)
            kept = weakref.ref(stream)
            theirs.close()
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.send_all(b"x")
            await stream.aclose()
            del stream, caught
            await trio.lowlevel.checkpoint()
            assert kept() is None
    finally:
        gc.enable()
