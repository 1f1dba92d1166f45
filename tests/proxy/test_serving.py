"""The proxy behind the app listener: both lanes, the Host check, and streams, over real connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from edged.clock import Clock
from edged.config import ServeConfig
from edged.http.meter import Meter
from edged.proxy.application import ProxyApplication
from edged.serve.app_server import AppServer
from tests.proxy.driving import Asked, Handler, Origin, Says, running

pytestmark = pytest.mark.trio
FRESH = (("Cache-Control", "max-age=1000"),)


@asynccontextmanager
async def served(
    says: Handler | Says, origins: Sequence[str] = ()
) -> AsyncIterator[tuple[ProxyApplication, Origin, int, Meter]]:
    meter = Meter()
    async with running(says) as (app, origin), trio.open_nursery() as nursery:
        config = ServeConfig(bind=["127.0.0.1:0"], origins=list(origins))
        urls: list[str] = await nursery.start(AppServer({}, config, Clock(), meter, others=app).run)
        with trio.fail_after(20):
            yield app, origin, int(urls[0].rpartition(":")[2]), meter
        nursery.cancel_scope.cancel()


async def ask(stream: trio.SocketStream, request: bytes, until: bytes) -> bytes:
    """What comes back, up to `until` at its end."""
    await stream.send_all(request)
    answer = b""
    while not answer.endswith(until):
        piece = await stream.receive_some(65536)
        assert piece, answer
        answer += piece
    return answer


GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_a_hit_is_answered_in_the_fast_lane_and_as_in_the_slow_one() -> None:
    async with served(Says(fields=FRESH)) as (_app, origin, port, meter):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            missed = await ask(stream, GET, b"hello")
            assert b"cache-status: edged; fwd=uri-miss" in missed
            assert meter.fast_connections == 1  # a miss does not leave the lane
            await ask(stream, GET.replace(b"GET", b"DELETE").replace(b"/a", b"/b"), b"hello")
            assert meter.fast_connections == 0
            slow = await ask(stream, GET, b"hello")
            assert b"\r\ncache-status: edged; hit; ttl=1000\r\n" in slow
        assert meter.remembered == 0
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            fast = [await ask(stream, GET, b"hello") for _ in range(5)]
            two = await ask(stream, GET + GET, b"hello" + b"hello"[:0])
            while two.count(b"hello") < 2:
                two += await stream.receive_some(65536)
        assert meter.remembered == 6  # the first is made from what the cache has in memory
    assert len(origin.asked) == 2
    assert set(fast) == {slow.replace(b"HTTP/1.1 200 \r\n", b"HTTP/1.1 200 OK\r\n")}


@pytest.mark.parametrize("warm", [True, False])
async def test_a_host_that_is_not_answered_gets_421_in_both_lanes(warm: bool) -> None:
    # A web page elsewhere has its name point here (DNS rebinding).
    async with served(Says(fields=FRESH)) as (_, origin, port, _meter):
        if warm:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await ask(stream, GET, b"hello")
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            answer = await ask(stream, GET.replace(b"localhost", b"evil.example"), b"}")
            assert answer.startswith(b"HTTP/1.1 421 ")
    assert len(origin.asked) == warm


async def test_the_api_keeps_its_paths() -> None:
    async with (
        served(Says(fields=FRESH)) as (_, origin, port, _meter),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        answer = await ask(stream, GET.replace(b"/a", b"/v1/none"), b"}")
        assert answer.startswith(b"HTTP/1.1 404 ")
    assert origin.asked == []


@pytest.mark.parametrize("method", [b"GET", b"OPTIONS"])
async def test_cors_of_a_proxied_service_is_its_own(method: bytes) -> None:
    async with (
        served(Says(fields=FRESH), origins=["https://tv.example"]) as (_, origin, port, _meter),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        page = b"\r\nOrigin: https://tv.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n"
        answer = await ask(stream, GET.replace(b"GET", method).replace(b"\r\n\r\n", page), b"hello")
        assert b"access-control" not in answer.lower()
    assert [(asked.method.encode(), asked.fields["origin"]) for asked in origin.asked] == [
        (method, "https://tv.example")
    ]


async def test_a_large_body_goes_both_ways() -> None:
    def says(asked: Asked) -> Says:
        return Says(pieces=(asked.body,))

    body = bytes(range(256)) * 8_000
    async with served(says) as (_, origin, port, _meter), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        head = b"PUT /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        answer = await ask(stream, head + body, body[-1024:])
        while len(answer) < len(body):
            answer += await stream.receive_some(65536)
    assert origin.asked[0].body == body
    assert answer.partition(b"\r\n\r\n")[2] == body


async def test_every_proxied_answer_is_counted_in_both_lanes() -> None:
    async with (
        served(Says(fields=FRESH)) as (_, _origin, port, meter),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        for _ in range(20):  # a miss, then hits: from the cache, and remembered
            await ask(stream, GET, b"hello")
        assert (meter.requests, meter.fast_answers[200]) == (20, 20)
        for _ in range(3):
            await ask(stream, GET.replace(b"GET", b"DELETE"), b"hello")
        assert (meter.requests, meter.slow_answers[200]) == (23, 3)


async def test_a_client_that_leaves_an_event_stream_frees_its_connection() -> None:
    beat = trio.Event()

    async def wait() -> None:
        beat.set()
        await trio.sleep_forever()

    says = Says(
        fields=(("Content-Type", "text/event-stream"),), pieces=(b"data: 1\n\n", b"x"), between=wait, length=False
    )
    async with served(says) as (app, _, port, _meter):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            answer = await ask(stream, GET, b"data: 1\n\n\r\n")
            assert b"transfer-encoding: chunked" in answer.lower()
            await beat.wait()
        for _ in range(200):
            if not app.gateway.upstreams[0].pool.connections:
                break
            await trio.sleep(0.01)
        assert app.gateway.upstreams[0].pool.connections == []
