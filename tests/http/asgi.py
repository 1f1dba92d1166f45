"""An ASGI application behind edged's interface, for tests that speak of nothing but the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from edged.http.application import Answer, Application, ByTask, Client, Disconnected, OnWebSocket
from edged.http.request import Request

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class AsgiApplication(Application):
    def __init__(self, app: AsgiApp) -> None:
        self.app = app

    def answer(self, request: Request) -> Answer:
        return ByTask(partial(self.run, request))

    async def run(self, request: Request, client: Client) -> None:
        pieces = client.body()

        async def receive() -> Any:
            try:
                return {"type": "http.request", "body": await anext(pieces), "more_body": True}
            except StopAsyncIteration:
                return {"type": "http.request", "body": b"", "more_body": False}
            except Disconnected:
                return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                await client.start(message["status"], tuple(message["headers"]))
            elif message.get("more_body", False):
                await client.write(message["body"])
            else:
                await client.end(message.get("body", b""))

        await self.app(scope_of(request), receive, send)

    def on_websocket(self, request: Request) -> OnWebSocket:
        return "open"

    async def websocket(
        self, request: Request, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        await self.app({**scope_of(request), "type": "websocket"}, receive, send)


def scope_of(request: Request) -> dict[str, Any]:
    path, _, query = request.target.partition(b"?")
    return {
        "type": "http",
        "method": request.method,
        "path": path.decode(),
        "query_string": query,
        "headers": request.fields,
    }
