"""One request on its way through the proxy, and how answers are written to whoever asks."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import trio

from edged.access.identity import LOCAL, Identity, Peer, identify
from edged.errors import DamageError
from edged.proxy.rules.answer import StoredAnswer
from edged.proxy.rules.decisions import Request, read_request
from edged.proxy.rules.fields import Fields, values_of, write_date
from edged.proxy.rules.forward import check_fields, check_target
from edged.proxy.rules.ranges import Span
from edged.proxy.rules.status import CacheStatus
from edged.proxy.store.cache import Cache
from edged.proxy.store.disk import read_block
from edged.proxy.store.memory import Held
from edged.proxy.store.record import BLOCK_BYTES, primary_key, scope_of
from edged.proxy.upstream.upstream import Upstream

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Client(Protocol):
    """Who asks by the fast lane."""

    def when_gone(self, act: Callable[[], None] | None) -> None:
        """What to do when it has gone; at once if it has. None: nothing any more."""

    async def send(self, message: dict[str, Any]) -> None:
        """A message of ASGI."""

    async def send_interim(self, status: int, fields: Fields) -> None:
        """A 1xx before the answer."""


# What the serving side puts into scope["state"]: the peer, and the names of fields that were meant for edged alone.
PEER, CREDENTIALS = "peer", "credentials"


@dataclass(slots=True)
class Context:
    """A request, where it goes, and for whom. scopes: where its answer may lie, the most private first. client: who
    asks, where that is by the fast lane; there is nothing to receive then."""

    request: Request
    upstream: Upstream
    target: bytes
    who: Identity
    credentials: frozenset[bytes]
    scopes: tuple[bytes, ...]
    body: bool
    receive: Receive
    send: Send
    client: Client | None = None

    @property
    def private_allowed(self) -> bool:
        return len(self.scopes) > 1 or bool(self.scopes[0])

    def primary(self, scope: bytes) -> bytes:
        return primary_key(scope, self.request.url)

    def storing_scope(self, scope: str) -> bytes:
        """The scope to store under: that of who asks for a private answer, else everyone's."""
        return self.scopes[0] if scope == "private" else b""


def is_known(who: Identity) -> bool:
    """Whether answers may be kept for this identity alone. Any program on the device that nobody told apart is not
    one app: what is private to one of them is not kept."""
    return who.name != LOCAL.name or who.uid is not None


def read_context(scope: Scope, who: Identity, upstream: Upstream, receive: Receive, send: Send) -> Context:
    """The request of an ASGI scope. Raises Refused for one that is not forwarded."""
    fields: Fields = tuple((bytes(name).lower(), bytes(value)) for name, value in scope["headers"])
    path = bytes(scope.get("raw_path") or scope["path"].encode())
    query = bytes(scope.get("query_string", b""))
    check_target(path + (b"?" + query if query else b""))
    check_fields(fields)
    credentials: frozenset[bytes] = (scope.get("state") or {}).get(CREDENTIALS, frozenset())
    return make_context(upstream, scope["method"].encode(), path, query, fields, who, credentials, receive, send)


def who_asks(scope: Scope) -> Identity:
    """The identity of a scope's peer; without one, as in a test, any program on the device."""
    peer: Peer | None = (scope.get("state") or {}).get(PEER)
    return LOCAL if peer is None else identify(peer)


def make_context(
    upstream: Upstream,
    method: bytes,
    path: bytes,
    query: bytes,
    fields: Fields,
    who: Identity,
    credentials: frozenset[bytes],
    receive: Receive,
    send: Send,
) -> Context:
    fields = tuple(pair for pair in fields if pair[0] not in credentials)
    target = upstream.target(path, query)
    request = read_request(method, upstream.origin + target, fields)
    return Context(
        request=request,
        upstream=upstream,
        target=target,
        who=who,
        credentials=credentials,
        scopes=scopes_of(who, fields),
        body=has_body(fields),
        receive=receive,
        send=send,
    )


def has_body(fields: Fields) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and int(value) > 0) for name, value in fields)


def scopes_of(who: Identity, fields: Fields) -> tuple[bytes, ...]:
    """The scopes in which an answer may lie: that of the app, and of the credentials it shows upstream; everyone's."""
    if not is_known(who):
        return (b"",)
    name = who.name if who.uid is None else f"{who.name}:{who.uid}"
    return scope_of(name, values_of(fields, b"authorization")), b""


# --- writing ---------------------------------------------------------------------------------------------------------


async def send_head(send: Send, status: int, fields: Fields) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(fields)})


async def send_last(send: Send, data: bytes = b"") -> None:
    await send({"type": "http.response.body", "body": data, "more_body": False})


async def send_piece(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def send_problem(send: Send, status: int, detail: str, cache_status: CacheStatus, *, head: bool = False) -> None:
    """An answer of the proxy's own (RFC 9457)."""
    phrase = HTTPStatus(status).phrase
    body = json.dumps({"type": "about:blank", "title": phrase, "status": status, "detail": detail}).encode()
    fields: list[tuple[bytes, bytes]] = [
        (b"date", write_date(time.time())),
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"cache-status", cache_status.encode()),
    ]
    if status == 504:
        fields.append((b"retry-after", b"1"))
    await send_head(send, status, tuple(fields))
    await send_last(send, b"" if head else body)


async def send_stored(send: Send, answer: StoredAnswer, held: Held, cache: Cache) -> None:
    """An answer from the store. A body that turns out damaged on the way ends the connection and is dropped."""
    if answer.span is None:
        await send_head(send, answer.status, answer.fields)
        await send_last(send)
        return
    if held.body is not None:
        await send_head(send, answer.status, answer.fields)
        whole = answer.span.size == len(held.body)
        await send_last(send, held.body if whole else held.body[answer.span.first : answer.span.last + 1])
        return
    async with open_body(held) as fd:
        await send_head(send, answer.status, answer.fields)
        try:
            async with aclosing(read_span(fd, held, answer.span)) as pieces:
                async for piece in pieces:
                    await send_piece(send, piece)
        except DamageError:
            await cache.drop(held)
            return  # without an end the client knows that the body is not whole
    await send_last(send)


@asynccontextmanager
async def open_body(held: Held) -> AsyncIterator[int]:
    """The file of a body that is not in memory. Raises OSError where it has gone."""
    fd = os.open(held.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


async def read_span(fd: int, held: Held, span: Span) -> AsyncGenerator[bytes, None]:
    """The bytes of a span, every block checked before any of it goes out. Raises DamageError."""
    for number in range(span.first // BLOCK_BYTES, span.last // BLOCK_BYTES + 1):
        block = await trio.to_thread.run_sync(read_block, fd, number, held.entry.size, held.sums)
        start = number * BLOCK_BYTES
        yield block[max(0, span.first - start) : span.last + 1 - start]
