"""Who comes first, who makes room, and that memory answers nobody whom the application has not seen."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from edged.access.identity import UNJUDGED, Identity, Peer
from edged.http.application import Answer, Application
from edged.http.h2.fieldblocks import encode_fields
from edged.http.h2.frames import HEADER, PREFACE, FrameType, settings_frame
from edged.http.lane.connection import LaneConnection, LaneState
from edged.http.lane.lane import Lane
from edged.http.lane.precedence import AT_A_LOOK, LOOK_S, TURNS, YIELD_S, Precedence, Spared
from edged.http.limits import Limits
from edged.http.meter import Meter
from edged.http.request import Request
from edged.http.server import PRESSED_BATCH, Listening, Server, serve
from tests.http.lane.answers import whole
from tests.http.protocols import PROTOCOLS, Ask, everywhere
from tests.http.tls.pem import make


@dataclass
class Judging(Application):
    """Knows whose a request is by its field `who`. asked: audience and target of each; gone: peers that left."""

    judges = True
    deciding = frozenset({b"who"})
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    gone: list[Peer] = field(default_factory=list)
    last: bool = False

    def identify(self, peer: Peer) -> Identity:
        return UNJUDGED

    def left(self, peer: Peer) -> None:
        self.gone.append(peer)

    def answer(self, request: Request) -> Answer:
        audience = request.get(b"who") or "public"
        self.asked.append((audience, request.target))
        request.who = Identity(audience, audience)
        return replace(whole(request.target, keep=True), last=self.last, common=True)


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_first_request_of_each_connection_is_judged_and_others_come_from_memory(
    tmp_path: Path, protocol: str
) -> None:
    application = Judging()
    async with everywhere(application, make(tmp_path, "localhost")) as found:
        for _ in range(3):
            stream = [Ask("/a", fields=[("who", "public")])]
            assert [got.body for got in await found.ask(protocol, *stream)] == [b"/a"]
        assert application.asked == [("public", b"/a")] * 3
        application.asked.clear()
        many = [Ask("/a", fields=[("who", "public")])] * 5
        if protocol.startswith("h1"):
            await found.ask(protocol, *many)
            assert application.asked == [("public", b"/a")]
    assert len(application.gone) in (3, 4)
    assert len({id(peer) for peer in application.gone}) == len(application.gone)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_connection_ends_after_an_answer_that_is_the_last(tmp_path: Path, protocol: str) -> None:
    application = Judging(last=True)
    async with everywhere(application, make(tmp_path, "localhost")) as found, await found.open(protocol) as stream:
        if protocol.startswith("h1"):
            await stream.send_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n")
            data = b"".join([bytes(piece) async for piece in stream])
            assert b"Connection: close\r\n" in data
            assert data.endswith(b"/a")
        else:
            (got,) = await found.ask(protocol, Ask("/a"))
            assert (got.status, got.body) == (200, b"/a")
            while application.gone == []:  # noqa: ASYNC110 - the server tells nobody else
                await trio.sleep(0.01)
    assert [target for _, target in application.asked] == [b"/a"]


# --- turns -----------------------------------------------------------------------------------------------------------


MOST_IN_A_LOOK = 2 * TURNS  # of what is ready, and of what was read before


def asked_in_a_look(lane: Lane, application: Judging) -> int:
    """How many others are answered before the first are looked for again."""
    before = len(application.asked)
    lane.slice_s = lambda: 0.0  # type: ignore[method-assign]
    lane.work()
    del lane.slice_s
    return len(application.asked) - before


class Idle:
    def is_busy(self) -> bool:
        return False

    def release(self, peer: Peer) -> None:
        pass


@contextmanager
def lane_with(application: Application, *count: str) -> Iterator[tuple[Lane, list[socket.socket]]]:
    """A lane that is turned by hand, and a connection of each audience named, which has asked once."""
    lane = Lane(application, time.time, Meter(), Limits())
    lane.sockets.server = cast(Any, Idle())
    with ExitStack() as stack:
        clients = []
        for audience in count:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            stack.enter_context(theirs)
            stack.enter_context(ours)
            lane.adopt(ours, Peer(False, "127.0.0.1"))
            theirs.sendall(ask_of(audience, "/first"))
            lane.work()
            assert theirs.recv(1 << 16).endswith(b"/first")
            clients.append(theirs)
        stack.callback(lane.sockets.epoll.close)
        yield lane, clients


def ask_of(audience: str, target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\nwho: {audience}\r\n\r\n".encode()


def test_the_internal_audience_is_answered_between_what_others_have_sent_before() -> None:
    application = Judging()
    with lane_with(application, *["public"] * 5, "internal") as (lane, clients):
        application.asked.clear()
        for name, client in zip("abcde", clients, strict=False):
            client.sendall(b"".join(ask_of("public", f"/{name}{number}") for number in range(100)))
        for _ in range(3):
            assert asked_in_a_look(lane, application) <= MOST_IN_A_LOOK
        clients[5].sendall(ask_of("internal", "/mine"))
        got = [b""] * 5
        while not all(data.endswith(b"99") for data in got):
            lane.work()
            for number, client in enumerate(clients[:5]):
                if select.select([client], [], [], 0)[0]:
                    got[number] += client.recv(1 << 20)
        places = [number for number, (audience, _) in enumerate(application.asked) if audience == "internal"]
        assert len(places) == 1
        assert places[0] <= 4 * MOST_IN_A_LOOK
        assert len(application.asked) == 501  # and everybody is


def test_nobody_gives_way_where_nobody_of_the_first_asks() -> None:
    application = Judging()
    with lane_with(application, "public", "partner") as (lane, clients):
        assert lane.precedence.some_wait
        for name, client in zip("ab", clients, strict=True):
            client.sendall(b"".join(ask_of("public", f"/{name}{number}") for number in range(100)))
        lane.work()
        assert not lane.precedence.yields
        assert len(application.asked) == 202


def test_those_who_come_first_do_so_for_a_while() -> None:
    precedence, connections = Precedence(), {}
    for number, audience in enumerate(["internal", "public", "public"]):
        connections[number] = cast(LaneConnection, FakeConnection(waits=audience != "internal"))
    new = connections[8] = cast(LaneConnection, FakeConnection(judged=False))
    every = [(number, 1) for number in range(3)]
    assert precedence.take(every[1:], connections, 10.0) == every[1:]
    taken = [precedence.take(every, connections, 10.0) for _ in range(4)]
    assert sorted(taken) == [every[:2], every[:2], every[::2], every[::2]]  # in turn, as the kernel does not
    assert taken[0] != taken[1] != taken[2]
    assert precedence.take(every[1:2], connections, 10.0 + YIELD_S - 0.01) == every[1:2]
    assert len(precedence.take(every[1:], connections, 10.0 + YIELD_S - 0.01)) == TURNS
    assert precedence.take(every[1:], connections, 10.0 + YIELD_S) == every[1:]
    unknown = [(9, 1), (8, 1), *every[1:]]  # a listener, and a connection that has asked nothing
    assert precedence.take(unknown, connections, 20.0) == unknown
    precedence.note(new, 20.0)
    assert precedence.take(every[1:], connections, 20.0) == every[1:]
    precedence.note(connections[0], 20.0)
    assert precedence.take([*every[1:2], *unknown[:2]], connections, 20.0) == [*unknown[:2], every[1]]


def test_streams_of_http2_give_way_frame_by_frame() -> None:
    application = Judging()
    with lane_with(application, "internal") as (lane, clients), ExitStack() as stack:
        asking = []
        for name in range(3):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            stack.enter_context(theirs)
            lane.adopt(ours, Peer(False, "127.0.0.1"))
            stack.callback(lane.sockets.close, lane.sockets.connections[ours.fileno()])
            theirs.sendall(PREFACE + settings_frame(()))
            lane.work()
            theirs.sendall(frame_of(b"/judged%d" % name, 1))
            lane.work()
            asking.append(theirs)
        application.asked.clear()
        for name, theirs in enumerate(asking):
            for number in range(3, 103, 2):
                theirs.sendall(frame_of(b"/%d/%d" % (name, number), number))
        for _ in range(6):
            assert asked_in_a_look(lane, application) <= MOST_IN_A_LOOK
        clients[0].sendall(ask_of("internal", "/mine"))
        for _ in range(1500):
            lane.work()
        targets = [target for _, target in application.asked]
        assert targets.index(b"/mine") <= 7 * MOST_IN_A_LOOK
        assert len(targets) == 151


def frame_of(path: bytes, stream_id: int) -> bytes:
    """A request in one frame, which leaves the peer's table as it was."""
    block = encode_fields(((b":method", b"GET"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x")))
    return HEADER.pack(0, len(block), FrameType.HEADERS, 5, stream_id) + block


@pytest.mark.parametrize("last", [False, True])
def test_bytes_of_http2_that_were_asked_before_are_judged_on_each_connection(last: bool) -> None:
    application = Judging(last=last)
    with lane_with(application) as (lane, _):
        for number in range(1, 4):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            with ours, theirs:
                lane.adopt(ours, Peer(False, "127.0.0.1"))
                theirs.sendall(PREFACE + settings_frame(()))
                lane.work()
                theirs.sendall(frame_of(b"/same", 1))
                lane.work()
                assert len(application.asked) == number
                told = theirs.recv(1 << 16)
                assert (HEADER.pack(0, 0, FrameType.GOAWAY, 0, 0)[3:] in told) == last
                if not last:
                    theirs.sendall(frame_of(b"/same", 3))
                    lane.work()
                    assert theirs.recv(1 << 16).endswith(b"/same")
                    assert len(application.asked) == number
                for connection in list(lane.sockets.connections.values()):
                    lane.sockets.close(connection)


async def test_fewer_are_accepted_at_once_while_somebody_of_the_first_asks() -> None:
    server = Server(Application(), Listening(("127.0.0.1:0",)), time.time, Meter())
    assert server.lane is not None
    assert server.batch() > PRESSED_BATCH
    server.lane.precedence.yields = True
    assert server.batch() == PRESSED_BATCH
    server.lane.sockets.epoll.close()


# --- room ------------------------------------------------------------------------------------------------------------


@dataclass
class FakeConnection:
    waits: bool = True
    judged: bool = True
    progress_at: float = 0.0
    inbox: bytes = b""
    outbox: object = None
    queued_bytes: int = 0
    more: bool = False
    state: LaneState = LaneState.READING
    doing: object = None


@dataclass
class Streams:
    is_busy: bool


def take(connections: list[FakeConnection], now: float = 100.0) -> FakeConnection | None:
    return cast(FakeConnection | None, Spared().take(cast(Any, connections), now))


BUSY = [
    FakeConnection(waits=False),
    FakeConnection(inbox=b"GET"),
    FakeConnection(outbox=object()),
    FakeConnection(queued_bytes=1),
    FakeConnection(more=True),
    FakeConnection(state=LaneState.HELD),
    FakeConnection(state=LaneState.LINGERING),
    FakeConnection(state=LaneState.MULTIPLEXED, doing=Streams(True)),
]


@pytest.mark.parametrize("busy", BUSY)
def test_what_is_under_way_is_not_ended_for_others(busy: FakeConnection) -> None:
    assert take([busy]) is None


def test_the_one_that_has_done_nothing_for_longest_makes_room() -> None:
    old, newer = FakeConnection(progress_at=1.0), FakeConnection(progress_at=2.0)
    multiplexed = FakeConnection(progress_at=0.5, state=LaneState.MULTIPLEXED, doing=Streams(False))
    assert take([*BUSY, newer, old]) is old
    assert take([newer, old, multiplexed]) is multiplexed


def test_it_is_not_looked_for_at_each_connection() -> None:
    spared, connections = Spared(), [FakeConnection(progress_at=float(n)) for n in range(AT_A_LOOK + 10)]
    taken = [spared.take(cast(Any, connections), 100.0) for _ in range(AT_A_LOOK)]
    assert cast(Any, taken) == connections[:AT_A_LOOK]
    assert spared.take(cast(Any, connections), 100.0 + LOOK_S / 2) is None
    found = spared.take(cast(Any, connections), 100.0 + 2 * LOOK_S)
    assert found is cast(Any, connections[0])
    connections[1].progress_at = 99.0  # it has asked meanwhile
    assert spared.take(cast(Any, connections), 100.0 + 2 * LOOK_S) is cast(Any, connections[2])


async def test_a_full_server_takes_one_more_in_place_of_an_idle_one_that_comes_later() -> None:
    application = Judging()
    listening = Listening(("127.0.0.1:0",), limits=Limits(connections=3))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(partial(serve, application, listening))
            port = int(url.rpartition(":")[2])

            async def client(audience: str) -> tuple[trio.SocketStream, bytes]:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(ask_of(audience, "/x"))
                return stream, bytes(await stream.receive_some(1 << 16))

            held = [await client(audience) for audience in ("internal", "public", "internal", "internal")]
            assert [data.endswith(b"/x") for _, data in held] == [True] * 4
            assert await held[1][0].receive_some(1) == b""  # the public one has made room
            held.append(await client("internal"))
            assert held[-1][1].startswith(b"HTTP/1.1 503")
            for stream, _ in held:
                await stream.aclose()
            nursery.cancel_scope.cancel()


def test_those_who_wait_get_their_turns_one_after_the_other() -> None:
    application = Judging()
    with lane_with(application, *["public"] * 3, "internal") as (lane, clients):
        application.asked.clear()
        for name, client in zip("abc", clients, strict=False):
            client.sendall(b"".join(ask_of("public", f"/{name}{number}") for number in range(100)))
        for _ in range(30):
            asked_in_a_look(lane, application)
        found = [sum(target.startswith(b"/" + name) for _, target in application.asked) for name in (b"a", b"b", b"c")]
        assert min(found) >= 8, found
