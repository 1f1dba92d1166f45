"""Both lanes running over one catalog, and a client that reads answers strictly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import h11
import trio

from edged.access.identity import Identity, Peer, identify
from edged.http.limits import Limits
from edged.http.meter import Meter
from edged.http.server import Listening, serve
from edged.serve.answers.respond import Service
from edged.serve.apps import Api
from edged.serve.catalog import Clock
from edged.serve.news import News
from tests.serve.asking import make_service
from tests.serve.memory import NOW, MemoryDataset, make_dataset

PATIENCE_S = 10  # how long a test waits for what must come; a loaded machine is slow


@dataclass
class Lanes:
    """fast: URL with the fast lane in front; slow: of Hypercorn alone."""

    fast: str
    slow: str
    unix: str
    dataset: MemoryDataset
    meter: Meter
    news: News
    stop: trio.Event
    service: Service


class Identified(Api):
    """As with configured apps: who asks is looked up."""

    def __init__(self, service: Service, who: Callable[[Peer], Identity]) -> None:
        super().__init__(service)
        self.who = who

    def identify(self, peer: Peer) -> Identity:
        return self.who(peer)


@dataclass
class Reply:
    status: int
    fields: dict[str, str]
    body: bytes = b""
    closed: bool = False
    raw: bytes = field(default=b"", repr=False)


@asynccontextmanager
async def running_lanes(
    dataset: MemoryDataset | None = None,
    *,
    limits: Limits = Limits(),  # noqa: B008  frozen
    origins: tuple[str, ...] = (),
    unix: str = "",
    patience_s: float = 3 * PATIENCE_S,
    who: Callable[[Peer], Identity] = identify,
    clock: Clock = lambda: NOW,
) -> AsyncIterator[Lanes]:
    dataset = make_dataset() if dataset is None else dataset
    catalog = {"catalog": dataset, "empty": MemoryDataset("empty")}
    service, meter, stop = make_service(catalog, origins, clock), Meter(), trio.Event()
    news, app = service.news, Identified(service, who)
    with trio.fail_after(patience_s):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(news.run)
            start = partial(serve, app, clock=clock, meter=meter, stop=stop)
            bind = ("127.0.0.1:0", *([f"unix:{unix}"] if unix else []))
            fast = await nursery.start(partial(start, Listening(bind, limits=limits, socket_mode=0o666)))
            slow = await nursery.start(partial(start, Listening(("127.0.0.1:0",), limits=limits, lane=False)))
            yield Lanes(fast[0], slow[0], unix, dataset, meter, news, stop, service)
            stop.set()
            nursery.cancel_scope.cancel()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def connect(url: str) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", port_of(url))


def head(method: str, target: str, fields: dict[str, str] | None = None, version: str = "1.1") -> bytes:
    lines = {"Host": "localhost", **(fields or {})}
    text = f"{method} {target} HTTP/{version}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in lines.items()) + "\r\n"
    return text.encode("latin-1")


class Client:
    """Sends bytes as they are and reads the answers to `methods` strictly, one after the other."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self.buffer = b""
        self.ended = False

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def reply(self, method: str = "GET") -> Reply:
        """The next whole answer."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        if self.buffer:
            parser.receive_data(self.buffer)
        raw = self.buffer
        found: Reply | None = None
        with trio.fail_after(PATIENCE_S):
            while True:
                event = parser.next_event()
                if event is h11.NEED_DATA:
                    data = bytes(await self.stream.receive_some(65536))
                    raw += data
                    parser.receive_data(data)
                elif isinstance(event, h11.Response):
                    fields = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                    assert len(fields) == len(list(event.headers)), "a field is there twice"
                    found = Reply(event.status_code, fields)
                elif isinstance(event, h11.Data):
                    assert found is not None
                    found.body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    raise AssertionError(f"no answer: {event!r}")
        assert found is not None
        self.buffer = parser.trailing_data[0]
        found.raw = raw[: len(raw) - len(self.buffer)]
        found.closed = found.fields.get("connection") == "close"
        return found

    async def end(self) -> bytes:
        """What still comes until the server closes."""
        with trio.fail_after(PATIENCE_S):
            data = self.buffer
            while True:
                try:
                    piece = bytes(await self.stream.receive_some(65536))
                except trio.BrokenResourceError:
                    return data
                if not piece:
                    return data
                data += piece


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    stream = await connect(url)
    async with stream:
        yield Client(stream)


async def ask_once(url: str, data: bytes, method: str = "GET") -> Reply:
    async with client(url) as asker:
        await asker.send(data)
        return await asker.reply(method)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what another task will bring about; fails after PATIENCE_S."""
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  what is waited for tells nobody
            await trio.sleep(0.002)
