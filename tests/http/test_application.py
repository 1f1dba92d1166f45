"""Every kind of answer, by both lanes: what an application says is what its client gets."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from edged.http.application import (
    DATE,
    Answer,
    Application,
    ByTask,
    Client,
    Disconnected,
    FileResponse,
    Held,
    InThread,
    Response,
    Signal,
    Stream,
    Waiter,
)
from edged.http.lane.sockets import Sockets
from edged.http.limits import Limits
from edged.http.request import Request
from edged.http.server import Listening, serve
from tests.serve.lanes import ask_once, client, eventually, head

pytestmark = pytest.mark.trio


def whole(body: bytes, status: int = 200, *, keep: bool = False) -> Response:
    return Response(status, ((b"Content-Length", b"%d" % len(body)),), body, keep=keep)


class Scripted(Application):
    """Answers by path. resumed: how held requests were asked again."""

    def __init__(self) -> None:
        self.signal, self.other = Signal(), Signal()
        self.served = 1  # the generation
        self.made: list[str] = []
        self.resumed: list[bool] = []
        self.slow: Callable[[], None] = lambda: None
        self.file = ""

    def generation(self) -> int:
        return self.served

    def answer(self, request: Request) -> Answer:
        self.made.append(request.target.decode())
        match request.target:
            case b"/held":
                return Held(self.signal, self.signal.generation, 60, self.resume)
            case b"/held-before":
                return Held(self.signal, self.signal.generation - 1, 60, self.resume)
            case b"/held-briefly":
                return Held(self.signal, self.signal.generation, 0, self.resume)
            case b"/thread":
                return InThread(self.work, trio.CapacityLimiter(1))
            case b"/thread-then-held":
                return InThread(lambda: Held(self.signal, 0, 60, self.resume), trio.CapacityLimiter(1))
            case b"/fail":
                raise ValueError("meant to fail")
            case b"/fail-in-thread":
                return InThread(self.fail, trio.CapacityLimiter(1))
            case b"/stream":
                fields = ((b"Content-Type", b"text/plain"),)
                return Stream(200, fields, DATE, iter([b"one", b"", b"two"]), self.signal, self.more)
            case b"/file":
                size = os.path.getsize(self.file)
                return FileResponse(200, ((b"Content-Length", b"%d" % (size - 5)),), self.open(), 5, size - 5)
            case b"/shrinking":
                return FileResponse(200, ((b"Content-Length", b"99999999"),), self.open(), 0, 99999999)
            case b"/echo":
                return ByTask(self.echo)
            case b"/silent":
                return ByTask(self.silent)
        return whole(b"of generation %d" % self.served, keep=True)

    def open(self) -> int:
        return os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)

    def resume(self, last: bool) -> Answer:
        self.resumed.append(last)
        if not last and len(self.resumed) < 2:
            return Held(self.signal, self.signal.generation, 60, self.resume)
        return whole(b"last" if last else b"moved")

    def work(self) -> Answer:
        found = whole(b"of generation %d" % self.served, keep=True)
        self.slow()
        return found

    def fail(self) -> Answer:
        raise ValueError("meant to fail")

    def more(self) -> Iterator[bytes]:
        return iter([b"moved %d" % self.signal.generation])

    async def echo(self, client: Client) -> None:
        await client.start(200, ())
        try:
            async for piece in client.body():
                await client.write(piece)
        except Disconnected:
            return
        await client.end(b".")

    async def silent(self, client: Client) -> None:
        """Answers nothing."""


@dataclass
class Running:
    app: Scripted
    lane: str
    hypercorn: str
    stop: trio.Event

    @property
    def both(self) -> tuple[str, str]:
        return self.lane, self.hypercorn


@asynccontextmanager
async def running(limits: Limits = Limits()) -> AsyncIterator[Running]:  # noqa: B008  frozen
    app, stop = Scripted(), trio.Event()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            urls = []
            for lane in (True, False):
                listening = Listening(("127.0.0.1:0",), limits=limits, lane=lane)
                urls += await nursery.start(partial(serve, app, listening, clock=lambda: 0.0, stop=stop))
            yield Running(app, urls[0], urls[1], stop)
            nursery.cancel_scope.cancel()


async def test_a_held_request_is_asked_again_at_each_move_of_its_own_signal_alone() -> None:
    async with running() as server:
        for url in server.both:
            server.app.resumed.clear()
            async with client(url) as asker:
                await asker.send(head("GET", "/held"))
                await eventually(lambda: len(server.app.signal.followers) == 1)
                server.app.other.move()
                server.app.signal.move()
                await eventually(lambda: server.app.resumed == [False])
                await eventually(lambda: len(server.app.signal.followers) == 1)
                server.app.signal.move()
                assert (await asker.reply()).body == b"moved"
            assert server.app.resumed == [False, False]
            assert not server.app.signal.followers


async def test_a_move_between_the_look_and_the_wait_is_not_lost() -> None:
    async with running() as server:
        for url in server.both:
            server.app.resumed[:] = [False]
            assert (await ask_once(url, head("GET", "/held-before"))).body == b"moved"


@pytest.mark.parametrize("how", ["time", "end", "stop"])
async def test_a_held_request_is_asked_for_the_last_time_when_it_cannot_wait_on(how: str) -> None:
    async with running() as server, client(server.lane) as one, client(server.hypercorn) as other:
        for asker in (one, other):
            await asker.send(head("GET", "/held-briefly" if how == "time" else "/held"))
        if how != "time":
            await eventually(lambda: len(server.app.signal.followers) == 2)
        if how == "end":
            for asker in (one, other):
                await asker.stream.send_eof()
        if how == "stop":
            server.stop.set()
        assert [(await asker.reply()).body for asker in (one, other)] == [b"last", b"last"]
        assert server.app.resumed == [True, True]
        assert not server.app.signal.followers


async def test_a_client_that_goes_while_it_is_held_leaves_nothing_behind() -> None:
    async with running() as server:
        for url in server.both:
            async with client(url) as asker:
                await asker.send(head("GET", "/held"))
                await eventually(lambda: len(server.app.signal.followers) == 1)
            await eventually(lambda: not server.app.signal.followers)


async def test_a_stream_goes_on_at_each_move_and_ends_with_the_server() -> None:
    async with running() as server, client(server.lane) as one, client(server.hypercorn) as other:
        for asker in (one, other):
            await asker.send(head("GET", "/stream"))
        await eventually(lambda: len(server.app.signal.followers) == 2)
        server.app.signal.move()
        await eventually(lambda: len(server.app.signal.followers) == 2)
        server.stop.set()
        for asker in (one, other):
            assert (await asker.reply()).body == b"onetwomoved 0moved 1"


async def test_an_answer_from_a_thread_is_remembered_unless_its_generation_has_gone_by() -> None:
    """A slow answer of an older version must not be given to whoever asks later."""
    async with running() as server:
        data = head("GET", "/thread")
        assert (await ask_once(server.lane, data)).body == b"of generation 1"
        assert (await ask_once(server.lane, data)).body == b"of generation 1"
        assert server.app.made == ["/thread"]

        def move_on() -> None:
            server.app.served += 1

        server.app.served, server.app.slow = 2, move_on
        assert (await ask_once(server.lane, data)).body == b"of generation 2"  # it has moved meanwhile
        server.app.slow = lambda: None
        assert (await ask_once(server.lane, data)).body == b"of generation 3"
        assert server.app.made == ["/thread"] * 3


async def test_a_thread_may_find_that_there_is_something_to_wait_for() -> None:
    async with running() as server:
        for url in server.both:
            server.app.resumed[:] = [False]
            async with client(url) as asker:
                await asker.send(head("GET", "/thread-then-held"))
                if not server.app.signal.generation:
                    await eventually(lambda: len(server.app.signal.followers) == 1)
                    server.app.signal.move()
                assert (await asker.reply()).body == b"moved"


@pytest.mark.parametrize("target", ["/fail", "/fail-in-thread", "/silent"])
async def test_a_fault_of_the_application_costs_one_request(target: str) -> None:
    async with running() as server:
        for url in server.both:
            assert (await ask_once(url, head("GET", target))).status == 500
            assert (await ask_once(url, head("GET", "/"))).status == 200


async def test_a_file_is_sent_from_its_offset_and_closed(tmp_path: Path) -> None:
    data = os.urandom((3 << 20) + 7)
    (tmp_path / "file").write_bytes(data)
    async with running() as server:
        server.app.file = str(tmp_path / "file")
        count = len(os.listdir("/proc/self/fd"))
        for url in server.both:
            async with client(url) as asker:
                await asker.send(head("HEAD", "/file") + head("GET", "/file") + head("GET", "/"))
                assert (await asker.reply("HEAD")).fields["content-length"] == str(len(data) - 5)
                assert (await asker.reply()).body == data[5:]
                assert (await asker.reply()).body == b"of generation 1"
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= count)


async def test_a_file_that_is_shorter_than_announced_ends_its_connection_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"short")
    async with running() as server:
        server.app.file = str(tmp_path / "file")
        for url in server.both:
            async with client(url) as asker:
                await asker.send(head("GET", "/shrinking"))
                assert (await asker.end()).endswith(b"short")
            assert (await ask_once(url, head("GET", "/"))).status == 200


async def test_a_body_reaches_the_task_that_answers() -> None:
    async with running() as server:
        request = (
            b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        for url in server.both:
            assert (await ask_once(url, request, "POST")).body == b"abcde."
            assert (await ask_once(url, head("GET", "/echo"))).body == b"."


async def test_a_connection_that_epoll_has_no_room_for_is_closed_and_the_others_live(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add, refuse = Sockets.add, [True]

    def full(sockets: Sockets, connection: object) -> None:
        if refuse.pop() if refuse else False:
            raise OSError(28, "No space left on device")
        add(sockets, connection)  # type: ignore[arg-type]

    monkeypatch.setattr(Sockets, "add", full)
    async with running(Limits(connections=1)) as server:
        async with client(server.lane) as asker:
            assert await asker.end() == b""
        assert (await ask_once(server.lane, head("GET", "/"))).status == 200  # and its place is free
    assert "No space left on device" in caplog.text


async def test_a_signal_wakes_each_follower_once_and_tells_when_the_first_one_comes() -> None:
    wanted: list[int] = []
    signal = Signal(lambda: wanted.append(len(signal.followers)))
    one, other = Waiter(), Waiter()
    assert signal.follow(one, 0)
    assert signal.follow(other, 0)
    assert wanted == [1]
    signal.leave(other)
    signal.move()
    assert (one.event.is_set(), other.event.is_set(), signal.followers) == (True, False, set())
    assert not signal.follow(other, 0)
    assert signal.follow(other, 1)
    with trio.fail_after(5):
        await signal.wait(0)
    assert wanted == [1, 1]
