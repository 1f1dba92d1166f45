"""WebSockets passed through, message by message (RFC 6455). Each direction is as fast as its reader."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from edged.errors import TransportError
from edged.http.fields import Fields, members_of, value_of
from edged.http.problem import make_problem
from edged.proxy.exchange.context import Context
from edged.proxy.rules.forward import Refused, answer_fields, upstream_fields
from edged.proxy.upstream.upstream import FAULTS, AnswerError, UpstreamAnswer

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MESSAGE_BYTES = 16 << 20
CHUNK_BYTES = 64 << 10
REFUSAL_BYTES = 64 << 10  # of the body with which an upstream refuses
# Written by us: the handshake is made anew, without extensions.
HANDSHAKE = frozenset((b"sec-websocket-key", b"sec-websocket-extensions", b"sec-websocket-version"))
ACCEPT_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


async def bridge(context: Context, receive: Receive, send: Send, via: bytes) -> None:
    """Connect to the upstream, accept the client, and pass messages until either ends. What refuses the handshake is
    told to the client as it was said."""
    if (await receive())["type"] != "websocket.connect":
        return
    try:
        answer = await connect(context, via)
    except (TransportError, Refused) as fault:
        status = fault.status if isinstance(fault, Refused) else fault.http_status
        fields, body = make_problem(status, str(fault))
        await refuse(send, status, tuple((name.lower(), value) for name, value in fields), body)
        return
    if answer.status != 101:
        await pass_refusal(send, answer)
        return
    accept: dict[str, Any] = {"type": "websocket.accept"}
    protocol = value_of(answer.fields, b"sec-websocket-protocol")
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


async def connect(context: Context, via: bytes) -> UpstreamAnswer:
    """The handshake with the upstream: a 101 that answers this very one, or its refusal. Raises TransportError,
    Refused."""
    upstream, fields = context.upstream, context.request.fields
    passed = upstream_fields(
        tuple(pair for pair in fields if pair[0] not in HANDSHAKE),
        method=b"GET",
        host=context.host,
        via=via,
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
    answer = await upstream.send_upgrade(context.target, asked)
    if answer.status == 101:
        wrong = misread(answer.fields, key, fields)
        if wrong:
            await answer.aclose()
            raise AnswerError(f"ask {upstream.route.upstream} for a WebSocket: {wrong}; ask those who run it")
    return answer


def misread(answer: Fields, key: bytes, request: Fields) -> str:
    """What is wrong with a 101 (RFC 6455 section 4.1); empty if nothing is."""
    wanted = base64.b64encode(hashlib.sha1(key + ACCEPT_SALT, usedforsecurity=False).digest())
    if value_of(answer, b"sec-websocket-accept") != wanted:
        return "its Sec-WebSocket-Accept does not answer our key"
    if (value_of(answer, b"upgrade") or b"").lower() != b"websocket":
        return "it upgrades to something else"
    if value_of(answer, b"sec-websocket-extensions"):
        return "it uses an extension that nobody offered"
    protocol = value_of(answer, b"sec-websocket-protocol")
    if protocol is not None and protocol not in members_of(request, b"sec-websocket-protocol"):
        return "it has chosen a protocol that nobody offered"
    return ""


async def pass_refusal(send: Send, answer: UpstreamAnswer) -> None:
    """The upstream's own words for why not, such as a 401 with what to sign in with."""
    body = b""
    try:
        async with aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > REFUSAL_BYTES:
                    break
    except TransportError:
        body = b""  # the status and the fields say enough
    finally:
        await answer.aclose()
    kept = tuple(pair for pair in answer_fields(answer.status, answer.fields) if pair[0] != b"content-length")
    if len(body) > REFUSAL_BYTES:
        body = b""
    await refuse(send, answer.status, (*kept, (b"content-length", b"%d" % len(body))), body)


async def refuse(send: Send, status: int, fields: Fields, body: bytes) -> None:
    """Answer the handshake with something else than a 101."""
    await send({"type": "websocket.http.response.start", "status": status, "headers": list(fields)})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


class Tunnel:
    """The connection to the upstream after its 101."""

    def __init__(self, answer: UpstreamAnswer) -> None:
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
