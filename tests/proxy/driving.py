"""An upstream on loopback that counts its requests and answers as a test says, and a client that calls the proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import trio

from edged.access.identity import LOCAL, Identity
from edged.clock import Clock
from edged.config import ProxyConfig, RouteConfig
from edged.proxy.app import ProxyApp
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


async def call(
    app: ProxyApp,
    path: str,
    fields: Pairs = (),
    *,
    method: str = "GET",
    body: bytes | Iterable[bytes] | None = None,
    credentials: frozenset[bytes] = frozenset(),
    gone: trio.Event | None = None,
    on_piece: Callable[[bytes], Awaitable[object]] | None = None,
    host: bytes | None = b"localhost:8484",
) -> Reply:
    """One request, as a server would pass it. gone: when set the client has disconnected. host: None where `fields`
    has one."""
    reply = Reply()
    raw, _, query = path.encode("latin-1").partition(b"?")
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    pieces = [body] if isinstance(body, bytes) else list(body or ())
    if isinstance(body, bytes):
        pairs.append((b"content-length", b"%d" % len(body)))
    elif body is not None:
        pairs.append((b"transfer-encoding", b"chunked"))
    scope = {
        "type": "http",
        "method": method,
        "path": raw.decode("latin-1"),
        "raw_path": raw,
        "query_string": query,
        "headers": [*([] if host is None else [(b"host", host)]), *pairs],
        "http_version": "1.1",
        "state": {"credentials": credentials},
    }
    ended = trio.Event() if gone is None else gone

    async def receive() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if pieces:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}
        if not getattr(receive, "asked", False):
            receive.asked = True  # type: ignore[attr-defined]
            return {"type": "http.request", "body": b"", "more_body": False}
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            assert not reply.status
            reply.status, reply.fields = message["status"], message["headers"]
        else:
            assert message["type"] == "http.response.body"
            assert not reply.whole
            reply.body += message.get("body", b"")
            reply.whole = not message.get("more_body", False)
            if on_piece is not None:
                await on_piece(message.get("body", b""))

    await app(scope, receive, send)
    return reply


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
) -> AsyncIterator[tuple[ProxyApp, Origin]]:
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
        app = ProxyApp(config, directory, who=lambda scope: who, timeline=timeline)
        await nursery.start(app.run)
        yield app, origin
        nursery.cancel_scope.cancel()
