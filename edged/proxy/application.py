"""The proxy as an Application: what memory has at once, everything else by a task."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from edged.http.application import (
    UNTIMED,
    Answer,
    Application,
    ByTask,
    Client,
    Disconnected,
    OnWebSocket,
    Response,
    Waiter,
)
from edged.http.fields import Fields, names_of
from edged.http.head import RequestHead
from edged.http.request import Request
from edged.proxy.app import ProxyApp
from edged.proxy.exchange.context import PEER
from edged.proxy.lane import ProxyLane, Remembered


@dataclass(frozen=True, slots=True)
class MemoryLease:
    """For as long as not a byte of the answer changes."""

    known: Remembered
    lane: ProxyLane

    def holds(self) -> bool:
        if not self.known.holds(self.lane.now_s()):
            return False
        self.lane.count(self.known)
        return True


class AsgiClient:
    """A Client for code that speaks ASGI."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.pieces: AsyncIterator[bytes] = client.body()
        self.when_gone = client.when_gone
        self.send_interim = client.interim

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            await self.client.start(message["status"], tuple(message["headers"]))
        elif message.get("more_body", False):
            await self.client.write(message.get("body", b""))
        else:
            await self.client.end(message.get("body", b""))


class ProxyApplication(Application):
    """Every path is the proxy's; those under no route are 404."""

    def __init__(self, app: ProxyApp) -> None:
        self.app = app

    def answer(self, request: Request) -> Answer:
        if request.method in ("GET", "HEAD") and not request.body and b"upgrade" not in request.values:
            found = self.from_lane(request)
            if found is not None:
                return found
        return ByTask(partial(self.run, request))

    def from_lane(self, request: Request) -> Answer | None:
        """None where the request has to be read more closely."""
        lane = self.app.fast_lane(request.who, accepts_any)
        lines = b"\r\n".join(b"%b:%b" % pair for pair in request.fields)
        raw = b"%b %b %b\r\n%b" % (request.method.encode(), request.target, request.version.encode(), lines)
        alive = request.version != "1.0" and b"close" not in names_of(request.fields, b"connection")
        head = RequestHead(
            request.method.encode(), request.target, request.version, list(request.fields), False, False, alive
        )
        found = lane.lookup(raw, head)
        if found is None:
            return None
        if not isinstance(found, bytes):
            return ByTask(partial(run_in_lane, found))
        response = parse(found)
        known = lane.heads.get(raw)
        if known is not None:
            response.keep, response.lease = True, MemoryLease(known, lane)
        return response

    async def run(self, request: Request, client: Client) -> None:
        words = AsgiClient(client)
        path, _, query = request.target.partition(b"?")
        scope = {
            "type": "http",
            "method": request.method,
            "http_version": request.version,
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "headers": list(request.fields),
            "state": {PEER: request.peer},
        }
        await self.app(scope, Messages(client).receive, words.send)

    def on_websocket(self, request: Request) -> OnWebSocket:
        return "open"

    async def websocket(
        self, request: Request, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        path, _, query = request.target.partition(b"?")
        scope = {
            "type": "websocket",
            "extensions": {"websocket.http.response": {}},
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "headers": list(request.fields),
            "state": {PEER: request.peer},
        }
        await self.app(scope, receive, send)


class Messages:
    """A request's body and its end, in the words of ASGI."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.pieces = client.body()
        self.whole = False

    async def receive(self) -> dict[str, Any]:
        if not self.whole:
            try:
                return {"type": "http.request", "body": await anext(self.pieces), "more_body": True}
            except StopAsyncIteration:
                self.whole = True
                return {"type": "http.request", "body": b"", "more_body": False}
            except Disconnected:
                return {"type": "http.disconnect"}
        gone = Waiter()
        self.client.when_gone(gone.wake)
        try:
            await gone.event.wait()
        finally:
            self.client.when_gone(None)
        return {"type": "http.disconnect"}


async def run_in_lane(answer: Callable[[Any], Awaitable[None]], client: Client) -> None:
    await answer(AsgiClient(client))


def parse(data: bytes) -> Response:
    """An HTTP/1.1 answer of our own writing."""
    head, _, body = data.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    fields: Fields = tuple((name, value) for name, _, value in (text.partition(b": ") for text in lines))
    return Response(int(line.split(b" ")[1]), fields, body, UNTIMED)


def accepts_any(host: bytes) -> bool:
    """Hosts were judged before."""
    return True
