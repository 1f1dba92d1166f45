"""WebSockets reach proxied services, and only from those who may."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, RejectConnection, Request, TextMessage

from edged.clock import Clock
from edged.config import ServeConfig
from edged.serve.app_server import AppServer
from tests.http.asgi import AsgiApplication


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """A service behind the proxy."""
    assert scope["type"] == "websocket"
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    message = await receive()
    await send({"type": "websocket.send", "text": message["text"].upper()})
    await send({"type": "websocket.close", "code": 1000})


async def ask(port: int, target: str, host: str, origin: str | None) -> list[Any]:
    """Shake hands, say hello, and return what came until the end."""
    client = WSConnection(ConnectionType.CLIENT)
    fields = [] if origin is None else [(b"origin", origin.encode())]
    seen: list[Any] = []
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(client.send(Request(host=host, target=target, extra_headers=fields)))
        while data := await stream.receive_some(4096):
            client.receive_data(data)
            for event in client.events():
                seen.append(event)
                if isinstance(event, AcceptConnection):
                    await stream.send_all(client.send(TextMessage("hello")))
                if isinstance(event, CloseConnection | RejectConnection):
                    return seen
    return seen


async def served(target: str, host: str = "localhost", origin: str | None = None, proxied: bool = True) -> list[Any]:
    config = ServeConfig(bind=["127.0.0.1:0"], origins=["https://tv.example"])
    others = AsgiApplication(echo) if proxied else None
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(AppServer({}, config, Clock(), others=others).run)
        with trio.fail_after(10):
            seen = await ask(int(urls[0].rsplit(":", 1)[1]), target, host, origin)
        nursery.cancel_scope.cancel()
    return seen


@pytest.mark.parametrize("origin", [None, "https://tv.example", "http://localhost"])
async def test_an_app_or_an_allowed_page_talks_to_the_service(origin: str | None) -> None:
    accepted, said, closed = await served("/live", origin=origin)
    assert isinstance(accepted, AcceptConnection)
    assert said.data == "HELLO"
    assert closed.code == 1000


@pytest.mark.parametrize(
    ("target", "host", "origin"),
    [
        ("/live", "evil.example", None),
        ("/live", "localhost", "https://evil.example"),
        ("/live", "localhost", "null"),
        ("/live", "localhost", "http://evil-localhost"),
        ("/v1/catalog", "localhost", None),
    ],
)
async def test_a_rebound_name_a_foreign_page_and_the_api_itself_are_refused(
    target: str, host: str, origin: str | None
) -> None:
    refused = await served(target, host, origin)
    assert isinstance(refused[0], RejectConnection)
    assert refused[0].status_code == (404 if target.startswith("/v1") else 403)


async def test_without_proxied_services_nothing_upgrades() -> None:
    seen = await served("/live", proxied=False)
    assert not any(isinstance(event, AcceptConnection) for event in seen)
