"""An upstream on loopback that counts its requests and answers as a test says, and a client that calls the proxy."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import trio

from edged.access.identity import LOCAL, Identity, Peer
from edged.clock import Clock
from edged.config import ProxyConfig, RouteConfig
from edged.http.application import ByTask, Response
from edged.http.fields import Fields
from edged.http.request import NOBODY, Request
from edged.proxy.application import ProxyApplication
from edged.proxy.gateway import Gateway
from edged.proxy.timeline import Timeline

WALL_S = 1_800_000_000.0
Pairs = Iterable[tuple[str, str]]


@dataclass
class Asked:
    """A request as the upstream got it."""

    method: str
    target: str
    fields: dict[str, str]
    body: bytes = b""


@dataclass
class Says:
    """What the upstream answers. pieces: the body, each written by itself; between: awaited before each piece but the
    first; raw: bytes in the place of an answer; hang: nothing at all; disconnect: close instead."""

    status: int = 200
    fields: Pairs = ()
    pieces: tuple[bytes, ...] = (b"hello",)
    between: Callable[[], Awaitable[object]] | None = None
    before: Callable[[], Awaitable[object]] | None = None
    raw: bytes | None = None
    disconnect: bool = False
    length: bool = True


Handler = Callable[[Asked], Says]


@dataclass
class Origin:
    """The upstream: `says` answers, `asked` remembers."""

    says: Handler
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while await self.exchange(stream, connection):
                    connection.start_next_cycle()
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
                return

    async def exchange(self, stream: trio.SocketStream, connection: h11.Connection) -> bool:
        asked: Asked | None = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                names = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                asked = Asked(event.method.decode(), event.target.decode(), names)
            elif isinstance(event, h11.Data):
                assert asked is not None
                asked.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert asked is not None
        self.asked.append(asked)
        return await self.answer(stream, connection, asked)

    async def answer(self, stream: trio.SocketStream, connection: h11.Connection, asked: Asked) -> bool:
        says = self.says(asked)
        if says.before is not None:
            await says.before()
        if says.disconnect:
            return False
        if says.raw is not None:
            await stream.send_all(says.raw)
            await trio.sleep_forever()
        fields = [(name.encode(), value.encode("latin-1")) for name, value in says.fields]
        bodiless = asked.method == "HEAD" or says.status in (204, 304)
        if says.length and says.status not in (204, 304):
            fields.append((b"Content-Length", b"%d" % sum(len(piece) for piece in says.pieces)))
        await stream.send_all(connection.send(h11.Response(status_code=says.status, headers=fields)))
        for number, piece in enumerate(() if bodiless else says.pieces):
            if number and says.between is not None:
                await says.between()
            await stream.send_all(connection.send(h11.Data(data=piece)))
        await stream.send_all(connection.send(h11.EndOfMessage()))
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


@dataclass
class Reply:
    """What a client got. whole: the answer came to its end."""

    status: int = 0
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False

    def __getitem__(self, name: str) -> str:
        return b", ".join(value for key, value in self.fields if key == name.lower().encode()).decode("latin-1")


@dataclass
class ReplyClient:
    """A client that writes down what it gets. gone: set when it goes; it goes no sooner."""

    pieces: list[bytes]
    gone: trio.Event | None = None
    on_piece: Callable[[bytes], Awaitable[object]] | None = None
    head_only: bool = False
    reply: Reply = field(default_factory=Reply)
    act: Callable[[], None] | None = None

    async def body(self) -> AsyncGenerator[bytes, None]:
        for piece in self.pieces:
            await trio.lowlevel.checkpoint()
            yield piece

    def when_gone(self, act: Callable[[], None] | None) -> None:
        self.act = act
        if act is not None and self.gone is not None and self.gone.is_set():
            act()

    async def interim(self, status: int, fields: Fields) -> None:
        await trio.lowlevel.checkpoint()

    async def start(self, status: int, fields: Fields) -> None:
        await trio.lowlevel.checkpoint()
        assert not self.reply.status
        self.reply.status, self.reply.fields = status, list(fields)

    async def write(self, data: bytes) -> None:
        await self.take(data)

    async def end(self, data: bytes = b"") -> None:
        assert not self.reply.whole
        await self.take(data)
        self.reply.whole = True

    async def take(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.reply.body += b"" if self.head_only else data
        if self.on_piece is not None:
            await self.on_piece(data)

    async def watch(self) -> None:
        if self.gone is not None:
            await self.gone.wait()
            if self.act is not None:
                self.act()


def make_request(app: ProxyApplication, path: str, fields: Pairs = (), method: str = "GET") -> Request:
    """As a server makes it of what came; localhost where `fields` has no Host."""
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    if not any(name == b"host" for name, _ in pairs):
        pairs.insert(0, (b"host", b"localhost:8484"))
    return Request(method, path.encode("latin-1"), tuple(pairs), "1.1", NOBODY, app.identify(NOBODY))


async def call(
    app: ProxyApplication,
    path: str,
    fields: Pairs = (),
    *,
    method: str = "GET",
    body: bytes | Iterable[bytes] | None = None,
    gone: trio.Event | None = None,
    on_piece: Callable[[bytes], Awaitable[object]] | None = None,
) -> Reply:
    """One request, as a server would pass it. gone: when set the client has disconnected."""
    pairs = list(fields)
    pieces = [body] if isinstance(body, bytes) else list(body or ())
    if isinstance(body, bytes):
        pairs.append(("content-length", str(len(body))))
    elif body is not None:
        pairs.append(("transfer-encoding", "chunked"))
    request = make_request(app, path, pairs, method)
    request.body = body is not None and body != b""
    found = app.answer(request)
    await trio.lowlevel.checkpoint()
    if isinstance(found, Response):
        content = b"" if method == "HEAD" else found.body
        if on_piece is not None:
            await on_piece(content)
        return Reply(found.status, list(found.fields), content, whole=True)
    assert isinstance(found, ByTask)
    client = ReplyClient(pieces, gone, on_piece, head_only=method == "HEAD")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.watch)
        await found.run(client)
        nursery.cancel_scope.cancel()
    return client.reply


class KnownApplication(ProxyApplication):
    """A proxy that takes everyone for `who`."""

    def __init__(self, gateway: Gateway, who: Identity) -> None:
        super().__init__(gateway)
        self.who = who

    def identify(self, peer: Peer) -> Identity:
        return self.who


class Time:
    """A clock that a test sets, beside trio's own, on which ages are counted."""

    def __init__(self, wall_s: float = WALL_S) -> None:
        self.offset_s = wall_s - trio.current_time()

    def __call__(self) -> float:
        return trio.current_time() + self.offset_s

    def step(self, seconds: float) -> None:
        self.offset_s += seconds


async def listen(origin: Origin, *, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
    await trio.serve_tcp(origin.serve, origin.port, host="127.0.0.1", task_status=task_status)


@asynccontextmanager
async def running(
    says: Handler | Says,
    *,
    directory: Path | None = None,
    who: Identity = LOCAL,
    time: Time | None = None,
    boot: bytes = b"boot",
    origin: Origin | None = None,
    serve: bool = True,
    settings: dict[str, Any] | None = None,
    **route: Any,
) -> AsyncIterator[tuple[KnownApplication, Origin]]:
    """A proxy before an upstream. directory: where it keeps answers; None: in memory. origin: one of before,
    which listens again if `serve`. Other arguments: the route's."""
    time = time or Time()
    timeline = Timeline(Clock(time), up=trio.current_time, boot=boot)
    async with trio.open_nursery() as nursery:
        if origin is None:
            origin = Origin(says if callable(says) else lambda asked: says)
        if serve:
            listeners = await nursery.start(listen, origin)
            origin.port = listeners[0].socket.getsockname()[1]
        routes = [RouteConfig(**{"prefix": "/", "upstream": origin.url} | route)]
        config = ProxyConfig(routes=routes, **{"quota": "16MiB"} | (settings or {}))
        app = KnownApplication(Gateway(config, directory, timeline=timeline), who)
        await nursery.start(app.run)
        yield app, origin
        nursery.cancel_scope.cancel()
