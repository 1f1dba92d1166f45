"""Hostile bytes on the fast lane: whatever comes in whatever pieces, the server answers or closes, and lives."""

from __future__ import annotations

import os
import random
from pathlib import Path

import h11
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.http.head import HeadError, head_end, read_head
from edged.http.limits import Limits
from tests.serve.lanes import ask_once, client, head, running_lanes

GET = head("GET", "/v1/catalog/titles/1997/Film_0007")
SEEDS = [
    GET,
    head("HEAD", "/v1", {"Connection": "close"}),
    b"POST /v1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /v1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    head("GET", "/v1/catalog/changes?since=0"),
]
TOKENS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b":",
    b"\t",
    b"GET ",
    b"Content-Length: 3\r\n",
    b"HTTP/1.1",
    b"\xff",
    b"%",
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        if draw(st.booleans()):
            data[place:place] = draw(st.sampled_from(TOKENS))
        else:
            del data[place : place + draw(st.integers(1, 8))]
    return bytes(data)


PIECES = st.tuples(damaged(), st.lists(st.integers(1, 200), max_size=4))


@settings(max_examples=15)
@given(st.lists(PIECES, min_size=5, max_size=15))
def test_damaged_requests_in_any_pieces_cost_their_own_connection_alone(cases: list[tuple[bytes, list[int]]]) -> None:
    async def main() -> None:
        async with running_lanes() as lanes:
            for url in (lanes.fast, lanes.slow):
                for data, sizes in cases:
                    async with client(url) as asker:
                        begin = 0
                        try:
                            for size in (*sizes, len(data)):
                                await asker.send(data[begin : begin + size])
                                begin += size
                            await asker.stream.send_eof()
                        except trio.BrokenResourceError:
                            continue  # refused before all was sent
                        found = await asker.end()
                        assert not found or found.startswith((b"HTTP/1.1 ", b"\0"))
                assert (await ask_once(url, GET)).status == 200

    trio.run(main)


@given(damaged())
def test_what_the_judge_lets_pass_another_strict_parser_reads_alike(data: bytes) -> None:
    """The judge may refuse more than h11, never less, and never sees another end."""
    try:
        end = head_end(data, Limits().head_bytes)
        if end < 0:
            return
        found = read_head(data[:end])
    except HeadError:
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(data.removeprefix(b"\r\n") if data.startswith(b"\r\n") else data)
    try:
        request = other.next_event()
    except h11.RemoteProtocolError:
        assert data.startswith(b"\r\n")  # empty lines before a request are h11's own strictness
        return
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (found.method, found.target)
    assert list(request.headers) == found.fields
    assert (request_ends_with_head(other)) != found.body


def request_ends_with_head(parser: h11.Connection) -> bool:
    try:
        return isinstance(parser.next_event(), h11.EndOfMessage)
    except h11.RemoteProtocolError:
        return False  # a chunk that is none: so there was a body


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


@pytest.mark.slow
def test_ten_thousand_damaged_connections_leave_no_memory_and_no_descriptor_behind() -> None:
    async def main() -> None:
        chance = random.Random(1)
        async with running_lanes(patience_s=600) as lanes:
            sizes = []
            for round_number in range(4):
                for _ in range(2500):
                    data = bytearray(chance.choice(SEEDS) * chance.randint(1, 3))
                    for _ in range(chance.randint(0, 6)):
                        data[chance.randrange(len(data))] = chance.randrange(256)
                    async with client(chance.choice([lanes.fast, lanes.slow])) as asker:
                        try:
                            await asker.send(bytes(data))
                            await asker.stream.send_eof()
                        except trio.BrokenResourceError:
                            continue
                        await asker.end()
                sizes.append(resident_kib())
                assert len(os.listdir("/proc/self/fd")) < 60, f"descriptors after round {round_number}"
            assert sizes[-1] < sizes[0] + 4096, f"KiB after each round: {sizes}"

    trio.run(main)
