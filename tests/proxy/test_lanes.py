"""What is proxied is answered alike by the fast lane and by Hypercorn: hits, misses, errors, streams, ends of them."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from edged.access.identity import Peer
from edged.clock import Clock
from edged.config import ServeConfig
from edged.http.lane.lane import Lane
from edged.http.lane.turns import PARKED_SLICE_S
from edged.http.limits import Limits
from edged.http.meter import Meter
from edged.http.server import Listening, serve
from edged.proxy.application import ProxyApplication
from edged.proxy.upstream.guarded import GuardedStream
from edged.serve.app_server import AppServer
from tests.http.test_http import ask_http2
from tests.proxy.driving import Asked, Handler, Origin, Says, running
from tests.serve.lanes import Client, Reply, client, eventually, head

pytestmark = pytest.mark.trio
FRESH = (("Cache-Control", "max-age=1000"), ("ETag", '"a"'), ("Date", "Fri, 15 Jan 2027 08:00:00 GMT"))


@asynccontextmanager
async def both(
    says: Handler | Says, directory: Path | None = None, upstream: Origin | None = None
) -> AsyncIterator[tuple[str, str, Origin, Meter, ProxyApplication]]:
    """URLs of a proxy behind the fast lane, and of another before the same upstream behind Hypercorn alone."""
    meter = Meter()
    fast_dir, slow_dir = (None, None) if directory is None else (directory / "fast", directory / "slow")
    async with (
        running(says, directory=fast_dir, origin=upstream, serve=upstream is None) as (app, origin),
        running(says, directory=slow_dir, origin=origin, serve=False) as (other, _),
        trio.open_nursery() as nursery,
    ):
        config = ServeConfig(bind=["127.0.0.1:0"])
        fast: list[str] = await nursery.start(AppServer({}, config, Clock(), meter, others=app).run)
        listening = Listening(("127.0.0.1:0",), lane=False)
        slow: list[str] = await nursery.start(partial(serve, other, listening))
        with trio.fail_after(20):
            yield fast[0], slow[0], origin, meter, app
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def unix_lane(says: Handler | Says, directory: Path) -> AsyncIterator[tuple[str, Meter]]:
    """A proxy behind the fast lane on a Unix socket, whose buffers are small."""
    path, meter = str(directory / "edged.sock"), Meter()
    async with running(says) as (app, _), trio.open_nursery() as nursery:
        config = ServeConfig(bind=[f"unix:{path}"])
        await nursery.start(AppServer({}, config, Clock(), meter, others=app).run)
        with trio.fail_after(20):
            yield path, meter
        nursery.cancel_scope.cancel()


def comparable(reply: Reply) -> tuple[int, dict[str, str], bytes]:
    """A reply without what differs from one second, or one proxy, to the next."""
    fields = {name: value for name, value in reply.fields.items() if name not in ("date", "age")}
    if "cache-status" in fields:
        fields["cache-status"] = re.sub(r"ttl=-?\d+", "ttl", fields["cache-status"])
    return reply.status, fields, reply.body


async def ask_alike(asker: list[Client], data: bytes, method: str = "GET") -> Reply:
    """Both lanes' answers to a request, which must be the same."""
    replies = []
    for one in asker:
        await one.send(data)
        replies.append(await one.reply(method))
    assert comparable(replies[0]) == comparable(replies[1])
    return replies[0]


def by_path(asked: Asked) -> Says:
    path = asked.target
    if "if-none-match" in asked.fields and "/stale" in path:
        return Says(status=304, fields=FRESH[1:])
    if "/stale" in path:
        return Says(fields=(("Cache-Control", "max-age=0"), *FRESH[1:]))
    if "/error" in path:
        return Says(status=503, pieces=(b"no",))
    if "/empty" in path:
        return Says(status=204)
    if "/odd" in path:
        return Says(status=599, pieces=(b"odd",))
    if "/broken" in path:
        return Says(disconnect=True)
    if "/nonsense" in path:
        return Says(raw=b"nonsense\r\n\r\n")
    if "/switch" in path:
        return Says(raw=b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
    if "/private" in path:
        return Says(fields=(("Cache-Control", "no-store"), ("Set-Cookie", "a=1")))
    if "/pieces" in path:
        return Says(fields=FRESH, pieces=(b"one, ", b"two, ", b"three"), length=False)
    if "/large" in path:
        return Says(fields=FRESH, pieces=(bytes(range(256)) * 8192,))
    return Says(fields=FRESH, pieces=(b"hello, ", b"world"))


STEPS = [
    ("GET", "/a", {}),
    ("GET", "/a", {}),
    ("HEAD", "/a", {}),
    ("GET", "/a", {"Range": "bytes=2-4"}),
    ("GET", "/a", {"Range": "bytes=99-"}),
    ("GET", "/a", {"If-None-Match": '"a"'}),
    ("GET", "/a", {"Cache-Control": "no-cache"}),
    ("GET", "/a", {"Content-Length": "0", "TE": "trailers"}),
    ("GET", "/b", {"Cache-Control": "only-if-cached"}),
    ("HEAD", "/c", {}),
    ("GET", "/d", {"Range": "bytes=0-1"}),
    ("GET", "/e", {"Authorization": "x"}),
    ("GET", "/stale", {}),
    ("GET", "/stale", {}),
    ("GET", "/error", {}),
    ("GET", "/empty", {}),
    ("GET", "/odd", {}),
    ("GET", "/private", {}),
    ("GET", "/pieces", {}),
    ("GET", "/pieces", {}),
    ("HEAD", "/pieces2", {}),
    ("GET", "/large", {}),
    ("GET", "/large", {}),
    ("GET", "/large", {"Range": "bytes=1000000-1999999"}),
    ("GET", "/nonsense", {}),
    ("GET", "/switch", {}),
    ("GET", "/broken", {}),
    ("GET", "/unasked", {}),  # the circuit may be open by now, or not: in both alike
]


@pytest.mark.parametrize("disk", [False, True])
async def test_every_step_of_a_conversation_is_answered_alike_and_in_the_lane(tmp_path: Path, disk: bool) -> None:
    async with (
        both(by_path, tmp_path if disk else None) as (fast, slow, _, meter, _app),
        client(fast) as one,
        client(slow) as other,
    ):
        for method, target, fields in STEPS:
            await ask_alike([one, other], head(method, target, fields), method)
        assert meter.fast_connections == 1


@pytest.mark.parametrize("target", ["/a", "/pieces", "/private", "/odd"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_old_clients_and_those_that_close_get_the_same_ends(method: str, target: str) -> None:
    async with both(by_path) as (fast, slow, *_):
        for _ in range(2):  # a miss, and then what is stored
            for version, fields in (("1.0", {}), ("1.1", {"Connection": "close"})):
                answers = []
                for url in (fast, slow):
                    async with client(url) as asker:
                        await asker.send(head(method, target, fields, version))
                        answer = await asker.end()
                        lines, _, body = answer.partition(b"\r\n\r\n")
                        kept = sorted(line for line in lines.lower().split(b"\r\n")[1:] if line[:4] != b"age:")
                        answers.append((lines[:12], kept, body))
                assert answers[0] == answers[1]
                assert b"connection: close" in answers[0][1]
                assert (b"transfer-encoding: chunked" in answers[0][1]) <= (version == "1.1")


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("store", ["max-age=100", "no-store"])
async def test_an_upstream_that_dies_half_way_cuts_the_answer_off(length: bool, store: str) -> None:
    framing = b"Content-Length: 100\r\n" if length else b"Transfer-Encoding: chunked\r\n"
    piece = b"half" if length else b"4\r\nhalf\r\n"
    lines = b"HTTP/1.1 200 OK\r\nCache-Control: %b\r\n%b\r\n%b" % (store.encode(), framing, piece)

    async def die(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65536)
            await stream.send_all(lines)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, die, 0, host="127.0.0.1"))
        origin = Origin(by_path, port=listeners[0].socket.getsockname()[1])
        async with both(by_path, upstream=origin) as (fast, slow, *_):
            for url in (fast, slow):
                async with client(url) as asker:
                    await asker.send(head("GET", "/a"))
                    answer = await asker.end()
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert (b"half" in answer) >= (store == "no-store")
                assert not answer.endswith(b"0\r\n\r\n")
        nursery.cancel_scope.cancel()


async def test_pipelined_requests_behind_a_miss_wait_for_it() -> None:
    release = trio.Event()

    def says(asked: Asked) -> Says:
        return Says(
            fields=FRESH, pieces=(asked.target.encode(),), before=release.wait if asked.target == "/1" else None
        )

    async with both(says) as (fast, _, origin, meter, _app), client(fast) as asker:
        await asker.send(b"".join(head("GET", f"/{number}") for number in (1, 2, 1, 3)))
        await eventually(lambda: len(origin.asked) == 1)
        release.set()
        assert [(await asker.reply()).body for _ in range(4)] == [b"/1", b"/2", b"/1", b"/3"]
        assert [asked.target for asked in origin.asked] == ["/1", "/2", "/3"]
        assert meter.fast_connections == 1


def has_asked(origin: Origin, count: int) -> bool:
    return len(origin.asked) == count


def reset_at_close(asker: Client) -> None:
    """As one that goes with bytes unread: a mere FIN says only that it sends no more."""
    assert isinstance(asker.stream, trio.SocketStream)
    asker.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_a_client_that_ends_gets_its_answer_from_upstream_in_both_lanes() -> None:
    release = trio.Event()
    says = Says(before=release.wait)
    async with both(says) as (fast, slow, origin, *_), client(fast) as one, client(slow) as other:
        for number, asker in enumerate((one, other), 1):
            await asker.send(head("GET", "/a"))
            await asker.stream.send_eof()
            await eventually(partial(has_asked, origin, number))
        release.set()
        for asker in (one, other):
            assert (await asker.end()).endswith(b"hello")


async def test_a_client_that_has_ended_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.serve.app_server.Limits", partial(Limits, ended_s=0.1))
    monkeypatch.setattr("edged.http.lane.turns.SWEEP_S", 0.02)
    async with both(Says(before=trio.sleep_forever)) as (fast, _, _origin, _meter, app):
        async with client(fast) as asker:
            await asker.send(head("GET", "/a"))
            await asker.stream.send_eof()
            assert await asker.end() == b""
        await eventually(lambda: not app.gateway.upstreams[0].pool.connections)


async def test_a_client_that_leaves_frees_its_upstream_connection() -> None:
    async with both(Says(before=trio.sleep_forever)) as (fast, _, origin, meter, app):
        async with client(fast) as asker:
            await asker.send(head("GET", "/a"))
            await eventually(lambda: len(origin.asked) == 1)
            reset_at_close(asker)
        await eventually(lambda: not app.gateway.upstreams[0].pool.connections)
        await eventually(lambda: meter.fast_connections == 0)


async def test_who_waits_for_the_same_takes_over_from_one_that_left() -> None:
    release = trio.Event()
    says = Says(fields=FRESH, before=release.wait)
    async with both(says) as (fast, _, origin, _meter, app), client(fast) as second:
        assert app.gateway.exchange is not None
        flights = app.gateway.exchange.fetcher.flights
        async with client(fast) as first:
            await first.send(head("GET", "/a"))
            await eventually(lambda: len(origin.asked) == 1)
            await second.send(head("GET", "/a"))
            await eventually(lambda: any(flight.waiting for flight in flights.values()))
        release.set()
        assert (await second.reply()).body == b"hello"
    assert len(origin.asked) == 1


async def test_a_client_that_does_not_read_stops_the_reading_of_the_upstream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = [0]
    read = GuardedStream.read

    async def counted(stream: GuardedStream, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await read(stream, max_bytes, timeout)
        taken[0] += len(data)
        return data

    monkeypatch.setattr(GuardedStream, "read", counted)
    size = 200 << 16
    says = Says(fields=(("Cache-Control", "no-store"),), pieces=(b"x" * 65536,) * 200)
    async with unix_lane(says, tmp_path) as (path, _), await trio.open_unix_socket(path) as stream:
        await stream.send_all(head("GET", "/a"))
        await eventually(lambda: taken[0] > 0)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert taken[0] < 4 << 20
        got = 0
        while got < size:
            got += len(await stream.receive_some(1 << 20))
        assert taken[0] > size


async def test_a_unix_socket_does_not_look_at_the_host(tmp_path: Path) -> None:
    async with unix_lane(by_path, tmp_path) as (path, meter), await trio.open_unix_socket(path) as stream:
        asker = Client(stream)
        for _ in range(2):
            await asker.send(head("GET", "/a", {"Host": "launcher"}))
            assert (await asker.reply()).status == 200
        assert (meter.fast_connections, meter.fast_answers[200]) == (1, 2)


async def test_a_fault_of_the_proxy_is_a_500_and_costs_its_own_connection_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    async with both(by_path) as (fast, _, _origin, _meter, app):
        with monkeypatch.context() as patch:
            patch.setattr(app.gateway.exchange, "retrieve", fail)
            async with client(fast) as asker:
                await asker.send(head("GET", "/a"))
                assert (await asker.end()).startswith(b"HTTP/1.1 500 ")
        async with client(fast) as asker:
            await asker.send(head("GET", "/a"))
            assert (await asker.reply()).status == 200
    assert "a fault of ours" in caplog.text


async def test_early_hints_come_before_the_answer_but_not_for_old_clients() -> None:
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\nConnection: x\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    async with both(Says(raw=hints + final)) as (fast, *_):
        for version, hinted in (("1.1", True), ("1.1", False), ("1.0", False)):
            async with client(fast) as asker:
                target = "/a" if version == "1.1" else "/b"
                await asker.send(head("GET", target, {"Connection": "close"}, version))
                answer = await asker.end()
                early = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n"
                assert answer.startswith(early if hinted else b"HTTP/1.1 200 OK\r\n")
                assert answer.endswith(b"\r\n\r\nok")
                assert b"100" not in answer


UNCERTAIN = {
    "length shorter than the chunks": b"1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
    "length longer than the chunks": b"1.1 200 OK\r\nContent-Length: 50\r\nTransfer-Encoding: chunked",
    "length behind the coding": b"1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7",
    "chunks in HTTP/1.0": b"1.0 200 OK\r\nTransfer-Encoding: chunked",
    "two lengths": b"1.1 200 OK\r\nContent-Length: 15\r\nContent-Length: 3",
    "a list of lengths": b"1.1 200 OK\r\nContent-Length: 15, 3",
}


@pytest.mark.parametrize("store", [b"max-age=60", b"no-store"])
@pytest.mark.parametrize("what", UNCERTAIN)
async def test_an_answer_whose_end_is_uncertain_is_a_502_and_neither_stored_nor_followed(
    what: str, store: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    chunks = b"5\r\nhello\r\n0\r\n\r\n"
    raw = b"HTTP/%b\r\nCache-Control: %b\r\n\r\n%b" % (UNCERTAIN[what], store, chunks)
    async with both(Says(raw=raw)) as (fast, slow, origin, _, app), client(fast) as one, client(slow) as other:
        for _ in range(2):
            count = len(origin.asked)
            assert (await ask_alike([one, other], head("GET", "/a"))).status == 502
            assert len(origin.asked) >= count + 2
            assert app.gateway.upstreams[0].pool.connections == []
        assert (await ask_alike([one, other], head("POST", "/a", {"Content-Length": "0"}))).status == 502
    assert "Traceback" not in caplog.text


async def test_a_204_has_no_length_and_a_304_keeps_what_it_says() -> None:
    def says(asked: Asked) -> Says:
        if "if-none-match" in asked.fields:
            return Says(raw=b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 5\r\n\r\n')
        return Says(raw=b"HTTP/1.1 204 No Content\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok")

    async with both(says) as (fast, slow, *_), client(fast) as one, client(slow) as other:
        for method in ("GET", "GET", "HEAD", "DELETE"):
            reply = await ask_alike([one, other], head(method, "/a"), method)
            assert (reply.status, "content-length" in reply.fields) == (204, False)
        reply = await ask_alike([one, other], head("GET", "/b", {"If-None-Match": '"a"'}))
        assert (reply.status, reply.fields["content-length"], reply.body) == (304, "5", b"")


async def test_any_method_that_is_a_token_goes_upstream_as_it_was_sent() -> None:
    def says(asked: Asked) -> Says:
        return Says(pieces=(asked.method.encode(),))

    async with both(says) as (fast, slow, origin, *_), client(fast) as one, client(slow) as other:
        for method in ("FOO", "PURGE", "get", "a.b!"):
            assert (await ask_alike([one, other], head(method, "/a"), method)).body == method.encode()
            async with client(fast) as asker:
                status, _, body = await ask_http2(asker, "/a", method)
            assert (status, body) == (200, method.encode())
        count = len(origin.asked)
        for method in ("TRACE", "CONNECT"):
            assert (await ask_alike([one, other], head(method, "/a"), "GET")).status == 405
        assert len(origin.asked) == count


async def test_streams_that_wait_for_their_upstream_do_not_take_the_thread_from_hits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lanes: list[Lane] = []
    adopt = Lane.adopt

    def noted(lane: Lane, sock: socket.socket, peer: Peer) -> None:
        lanes.append(lane)
        adopt(lane, sock, peer)

    monkeypatch.setattr(Lane, "adopt", noted)
    more = trio.Event()
    events = Says(
        fields=(("Content-Type", "text/event-stream"),), pieces=(b"one", b"two"), between=more.wait, length=False
    )
    async with both(events) as (fast, *_), client(fast) as asker:
        await asker.send(head("GET", "/events"))
        await eventually(lambda: bool(lanes) and lanes[0].tasks == 1)
        assert lanes[0].is_shared()
        await eventually(lambda: not lanes[0].is_shared())
        assert (lanes[0].tasks, lanes[0].slice_s()) == (1, PARKED_SLICE_S)
        more.set()
        assert (await asker.reply()).body == b"onetwo"
        assert lanes[0].is_shared() == (lanes[0].tasks > 0)
