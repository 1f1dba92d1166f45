"""An answer that a task writes, as the lane frames it."""

from __future__ import annotations

from collections import Counter

import pytest

from edged.http.application import ByTask, Client
from edged.http.head import read_head
from edged.http.lane.client import FramingError, LaneClient

pytestmark = pytest.mark.trio


async def written_by(answer: ByTask, request: bytes) -> tuple[LaneClient, list[bytes]]:
    written: list[bytes] = []

    async def send(data: bytes) -> None:
        written.append(data)

    client = LaneClient(answer, read_head(request), Counter())
    await client.run(send)
    return client, written


@pytest.mark.parametrize("pieces", [(b"abcd",), (b"ab",), (b"ab", b"cd")])
async def test_a_body_of_another_length_than_announced_never_ends_cleanly(pieces: tuple[bytes, ...]) -> None:
    seen: list[LaneClient] = []

    async def answer(client: Client) -> None:
        assert isinstance(client, LaneClient)
        seen.append(client)
        await client.start(200, ((b"content-length", b"3"),))
        for piece in pieces[:-1]:
            await client.write(piece)
        await client.end(pieces[-1])

    with pytest.raises(FramingError):
        await written_by(ByTask(answer), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert not seen[0].complete


@pytest.mark.parametrize(
    ("request_head", "status", "expected", "close"),
    [
        (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            200,
            b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            False,
        ),
        (b"GET / HTTP/1.0\r\n\r\n", 200, b"Connection: close\r\n\r\nabc", True),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 200, b"transfer-encoding: chunked\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 304, b"Connection: close\r\n\r\n", True),
    ],
)
async def test_a_body_without_length_goes_out_in_chunks_or_until_the_end(
    request_head: bytes, status: int, expected: bytes, close: bool
) -> None:
    async def answer(client: Client) -> None:
        await client.start(status, ())
        await client.write(b"ab")
        await client.end(b"c")

    client, written = await written_by(ByTask(answer), request_head)
    assert b"".join(written).partition(b"\r\n")[2] == expected
    assert (client.complete, client.close, client.status) == (True, close, status)
    assert client.answers == {status: 1}


async def test_whoever_goes_is_told_of_once_it_is_asked_for() -> None:
    told: list[str] = []
    client = LaneClient(ByTask(lambda client: None), read_head(b"GET / HTTP/1.0\r\n\r\n"), Counter())  # type: ignore[arg-type,return-value]
    client.when_gone(lambda: told.append("first"))
    client.when_gone(None)
    client.leave()
    assert told == []
    client.when_gone(lambda: told.append("late"))
    assert told == ["late"]
    assert [piece async for piece in client.body()] == []
