"""WebSockets passed through, message by message (RFC 6455). Each direction is as fast as its reader."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from edged.errors import TransportError
from edged.proxy.exchange.context import CREDENTIALS, Receive, Scope, Send
from edged.proxy.rules.fields import Fields, value_of
from edged.proxy.rules.forward import Refused, check_fields, check_target, upstream_fields
from edged.proxy.upstream.upstream import FAULTS, Answer, Upstream

MESSAGE_BYTES = 16 << 20
CHUNK_BYTES = 64 << 10
# Written by us: the handshake is made anew, without extensions.
HANDSHAKE = frozenset((b"sec-websocket-key", b"sec-websocket-extensions", b"sec-websocket-version"))


async def bridge(scope: Scope, receive: Receive, send: Send, upstream: Upstream | None, via: bytes) -> None:
    """Connect to the upstream, accept the client, and pass messages until either ends."""
    if (await receive())["type"] != "websocket.connect":
        return
    answer = None
    try:
        answer = await connect(scope, upstream, via) if upstream is not None else None
    except (TransportError, Refused):
        answer = None
    if answer is None or answer.status != 101:
        if answer is not None:
            await answer.aclose()
        await send({"type": "websocket.close", "code": 1014})
        return
    protocol = value_of(answer.fields, b"sec-websocket-protocol")
    accept: dict[str, Any] = {"type": "websocket.accept"}
    if protocol is not None:
        accept["subprotocol"] = protocol.decode("latin-1")
    await send(accept)
    tunnel = Tunnel(answer)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tunnel.upward, receive, nursery.cancel_scope)
            await tunnel.downward(send)
            nursery.cancel_scope.cancel()
    finally:
        await answer.aclose()
        with trio.move_on_after(1, shield=True):
            await tunnel.stream.aclose()


async def connect(scope: Scope, upstream: Upstream, via: bytes) -> Answer:
    """The handshake with the upstream. Raises TransportError, Refused."""
    fields: Fields = tuple((bytes(name).lower(), bytes(value)) for name, value in scope["headers"])
    path, query = bytes(scope.get("raw_path") or scope["path"].encode()), bytes(scope.get("query_string", b""))
    check_target(path + (b"?" + query if query else b""))
    check_fields(fields)
    credentials = (scope.get("state") or {}).get(CREDENTIALS, frozenset())
    passed = upstream_fields(
        tuple(pair for pair in fields if pair[0] not in HANDSHAKE),
        host=upstream.host,
        via=via,
        credentials=credentials,
        body=False,
    )
    key = base64.b64encode(secrets.token_bytes(16))
    asked = (
        *passed,
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", key),
    )
    return await upstream.send_upgrade(upstream.target(path, query), asked)


class Tunnel:
    """The connection to the upstream after its 101."""

    def __init__(self, answer: Answer) -> None:
        self.stream = answer.network_stream
        self.frames = Connection(ConnectionType.CLIENT)
        self.sending = trio.Lock()

    async def write(self, event: Any) -> None:
        async with self.sending:
            if self.frames.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
                await self.stream.write(self.frames.send(event), timeout=None)

    async def upward(self, receive: Receive, scope: trio.CancelScope) -> None:
        """From the client to the upstream."""
        try:
            while True:
                message = await receive()
                if message["type"] != "websocket.receive":
                    await self.write(CloseConnection(code=message.get("code") or 1000))
                    break
                text, data = message.get("text"), message.get("bytes")
                await self.write(TextMessage(data=text) if text is not None else BytesMessage(data=data or b""))
        except (LocalProtocolError, *FAULTS):
            pass
        scope.cancel()

    async def downward(self, send: Send) -> None:
        """From the upstream to the client. A message over MESSAGE_BYTES ends both with 1009."""
        parts: list[Any] = []
        size = 0
        code = 1014
        try:
            while True:
                data = await self.stream.read(CHUNK_BYTES, timeout=None)
                self.frames.receive_data(data or None)
                for event in self.frames.events():
                    if isinstance(event, Message):
                        parts.append(event.data)
                        size += len(event.data)
                        if size > MESSAGE_BYTES:
                            await self.write(CloseConnection(code=1009))
                            await send({"type": "websocket.close", "code": 1009})
                            return
                        if event.message_finished:
                            await send(as_message(event, parts))
                            parts, size = [], 0
                    elif isinstance(event, Ping):
                        await self.write(event.response())
                    elif isinstance(event, CloseConnection):
                        await self.write(event.response())
                        await send({"type": "websocket.close", "code": event.code, "reason": event.reason or ""})
                        return
                if not data:
                    break
        except (RemoteProtocolError, LocalProtocolError):
            code = 1002
        except FAULTS:
            code = 1014
        await send({"type": "websocket.close", "code": code})


def as_message(event: Message[Any], parts: list[Any]) -> dict[str, Any]:
    if isinstance(event, TextMessage):
        return {"type": "websocket.send", "text": "".join(parts)}
    return {"type": "websocket.send", "bytes": b"".join(bytes(part) for part in parts)}
