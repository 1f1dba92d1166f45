"""What RFC 9112 and RFC 9113 ask of a server, by every protocol and in both lanes, byte by byte."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
import trio

from edged.http.application import Answer, Held, Signal
from edged.http.request import Request
from tests.http.bodies import BROKEN, WHOLE
from tests.http.lane.answers import Answers, whole
from tests.http.protocols import PROTOCOLS, Everywhere, everywhere
from tests.http.tls.pem import make

pytestmark = pytest.mark.trio

GET = b"GET /whole HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"  # from here on Hypercorn answers
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LANES = {"lane": b"", "hypercorn": POST + b"Content-Length: 1\r\n\r\nx"}


class Telling(Answers):
    """Says what it was asked."""

    def answer(self, request: Request) -> Answer:
        if request.target.startswith(b"/told"):
            return whole(b"%b %b %b" % (request.method.encode(), request.target, request.version.encode()))
        if request.target == b"/later":
            return Held(Signal(), 0, 0.05, lambda last: whole(b"later"))
        return super().answer(request)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Everywhere]:
    (tmp_path / "file").write_bytes(b"abc")
    async with everywhere(Telling(tmp_path / "file"), make(tmp_path, "localhost")) as found:
        yield found


async def exchange(served: Everywhere, protocol: str, data: bytes) -> bytes:
    """All that comes back, until the server closes."""
    stream = await served.open(protocol)
    found = b""
    with trio.fail_after(10), suppress(trio.BrokenResourceError):
        await stream.send_all(data)
        while piece := await stream.receive_some(65536):
            found += piece
    await trio.aclose_forcefully(stream)
    return found


def statuses(data: bytes) -> list[int]:
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("protocol", ["h1", "h1-tls"])
@pytest.mark.parametrize("lane", LANES)
async def test_empty_lines_before_a_request_are_passed_over(served: Everywhere, protocol: str, lane: str) -> None:
    for lines in (b"\r\n", b"\r\n\r\n", b"\r\n" * 500):
        assert statuses(await exchange(served, protocol, LANES[lane] + lines + GET + lines + LAST))[-2:] == [200, 200]
    assert statuses(await exchange(served, protocol, LANES[lane] + b"\n" + LAST))[-1:] == [400]


@pytest.mark.parametrize("protocol", ["h1", "h1-tls"])
@pytest.mark.parametrize("lane", LANES)
async def test_a_later_minor_version_is_asked_and_answered_as_ours(
    served: Everywhere, protocol: str, lane: str
) -> None:
    last = b"GET /told HTTP/1.2\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    found = await exchange(served, protocol, LANES[lane] + last)
    assert statuses(found)[-1] == 200
    assert found.endswith(b"GET /told 1.1")


@pytest.mark.parametrize("protocol", ["h1", "h1-tls"])
@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("target", [b"/told?", b"/told??", b"/told?a=1", b"/told?a=1?", b"/told"])
async def test_a_question_mark_without_a_query_stays(
    served: Everywhere, protocol: str, lane: str, target: bytes
) -> None:
    last = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target
    assert (await exchange(served, protocol, LANES[lane] + last)).endswith(b"GET %b 1.1" % target)


@pytest.mark.parametrize("what", BROKEN)
async def test_broken_chunks_are_refused_over_tls_too(served: Everywhere, what: str) -> None:
    body, status = BROKEN[what]
    found = await exchange(served, "h1-tls", CHUNKED + body + GET)
    assert statuses(found) == [status]


@pytest.mark.parametrize("what", WHOLE)
async def test_whole_chunks_are_taken_and_the_next_request_is_found(served: Everywhere, what: str) -> None:
    for protocol in ("h1", "h1-tls"):
        assert statuses(await exchange(served, protocol, CHUNKED + WHOLE[what] + LAST)) == [200, 200]


# --- half-closed clients --------------------------------------------------------------------------------------------

SLOW = ["/whole", "/thread", "/later", "/echo", "/large"]


class HalfClosing:
    """A client that ends its side: in clear text its socket's, over TLS the session's (RFC 8446 section 6.1)."""

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext | None) -> None:
        self.stream = stream
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = (
            None if context is None else context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        )

    async def shake_hands(self) -> None:
        while self.session is not None:
            try:
                self.session.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self.flush()
                self.incoming.write(await self.stream.receive_some(65536))

    async def flush(self) -> None:
        if self.outgoing.pending:
            await self.stream.send_all(self.outgoing.read())

    async def send_and_end(self, data: bytes) -> None:
        if self.session is None:
            await self.stream.send_all(data)
        else:
            self.session.write(data)
            with suppress(ssl.SSLWantReadError):
                self.session.unwrap()
            await self.flush()
        await self.stream.send_eof()

    async def rest(self) -> bytes:
        found = b""
        while piece := await self.stream.receive_some(65536):
            if self.session is None:
                found += piece
                continue
            self.incoming.write(piece)
            with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                while data := self.session.read(65536):
                    found += data
        return found


async def half_close(served: Everywhere, protocol: str, data: bytes) -> bytes:
    port = int(served.urls[protocol].rpartition(":")[2])
    secure = protocol in ("h1-tls", "h2")
    if secure:
        served.context.set_alpn_protocols(["h2" if protocol == "h2" else "http/1.1"])
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    with trio.fail_after(10):
        async with stream:
            client = HalfClosing(stream, served.context if secure else None)
            await client.shake_hands()
            await client.flush()
            await client.send_and_end(data)
            return await client.rest()


@pytest.mark.parametrize("protocol", ["h1", "h1-tls"])
@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("target", SLOW)
async def test_a_client_that_ends_its_side_gets_its_answer(
    served: Everywhere, protocol: str, lane: str, target: str
) -> None:
    asked = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target.encode()
    found = await half_close(served, protocol, LANES[lane] + asked)
    assert statuses(found)[-1] == 200
    assert len(found) > (1 << 20 if target == "/large" else 0)


@pytest.mark.parametrize("protocol", ["h2c", "h2"])
@pytest.mark.parametrize("target", SLOW[:-1])
async def test_a_client_that_ends_its_side_gets_its_answers_in_http2(
    served: Everywhere, protocol: str, target: str
) -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    pseudo = [(":method", "GET"), (":scheme", "http"), (":path", target), (":authority", "localhost")]
    for number in (1, 3):
        client.send_headers(number, pseudo, end_stream=True)
    events = client.receive_data(await half_close(served, protocol, client.data_to_send()))
    heads = [event.headers for event in events if isinstance(event, h2.events.ResponseReceived)]
    statuses = [str(value) for fields in heads for name, value in fields if str(name) == ":status"]
    ended = [event.stream_id for event in events if isinstance(event, h2.events.StreamEnded)]
    assert (statuses, sorted(ended)) == (["200", "200"], [1, 3])


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_request_that_its_client_leaves_unfinished_gets_no_answer(served: Everywhere, protocol: str) -> None:
    if protocol in ("h1", "h1-tls"):
        for data in (GET[:-1], CHUNKED + b"5\r\nhel", POST + b"Content-Length: 9\r\n\r\nabc"):
            assert b" 200 " not in await half_close(served, protocol, data)
        return
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/echo"), (":authority", "localhost")]
    client.send_headers(1, pseudo)
    client.send_data(1, b"abc")
    events = client.receive_data(await half_close(served, protocol, client.data_to_send()))
    assert not [event for event in events if isinstance(event, h2.events.ResponseReceived)]
    assert [event.stream_id for event in events if isinstance(event, h2.events.StreamReset)] == [1]
