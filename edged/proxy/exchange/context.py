"""One request on its way through the proxy: what it asks for, where it goes, and whose answers may answer it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from edged.access.identity import LOCAL, Identity, Peer, identify
from edged.http.fields import Fields, value_of
from edged.proxy.rules.decisions import CacheRequest, read_request
from edged.proxy.rules.forward import check_fields, check_host, check_target
from edged.proxy.rules.keys import partition_of, private_scope
from edged.proxy.rules.validation import without_hop_by_hop
from edged.proxy.store.record import primary_key
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


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came, in origin form. credentials: names of fields that were meant for edged alone."""

    method: bytes
    path: bytes
    query: bytes
    fields: Fields
    credentials: frozenset[bytes] = frozenset()


@dataclass(slots=True)
class Context:
    """A request, where it goes, and for whom.

    target, host: as they go upstream. fields: as they came, with those of the connection. scopes: where its answer may
    lie, the most private first. body: whether one follows. client: who asks, where that is by the fast lane; there is
    nothing to receive then.
    """

    request: CacheRequest
    upstream: Upstream
    target: bytes
    host: bytes
    fields: Fields
    scopes: tuple[bytes, ...]
    body: bool
    receive: Receive
    send: Send
    client: Client | None = None

    @property
    def private_allowed(self) -> bool:
        return len(self.scopes) > 1

    @property
    def is_head(self) -> bool:
        return self.request.method == b"HEAD"

    @property
    def shared(self) -> bytes:
        """The primary key of what everyone may have who asks so."""
        return self.primary(self.scopes[-1])

    def primary(self, scope: bytes) -> bytes:
        return primary_key(scope, self.request.url)

    def storing_key(self, scope: str) -> bytes:
        """The primary key to store under: that of who asks for a private answer, else everyone's."""
        return self.primary(self.scopes[0]) if scope == "private" else self.shared


def is_known(who: Identity) -> bool:
    """Whether answers may be kept for this identity alone. Any program on the device that nobody told apart is not
    one app: what is private to one of them is not kept."""
    return who.name != LOCAL.name or who.uid is not None


def read_scope(scope: Scope) -> Incoming:
    """The request of an ASGI scope."""
    return Incoming(
        scope.get("method", "GET").encode(),
        bytes(scope.get("raw_path") or scope["path"].encode()),
        bytes(scope.get("query_string", b"")),
        tuple((bytes(name).lower(), bytes(value)) for name, value in scope["headers"]),
        (scope.get("state") or {}).get(CREDENTIALS, frozenset()),
    )


def who_asks(scope: Scope) -> Identity:
    """The identity of a scope's peer; without one, as in a test, any program on the device."""
    peer: Peer | None = (scope.get("state") or {}).get(PEER)
    return LOCAL if peer is None else identify(peer)


def make_context(upstream: Upstream, incoming: Incoming, who: Identity, receive: Receive, send: Send) -> Context:
    """Raises Refused for a request that is not forwarded.

    What decides the answer is in the key: the Host that is sent, the fields that steer an upstream, the route's
    certificate. What Connection takes away on the way up selects nothing (RFC 9110 section 7.6.1).
    """
    check_target(incoming.path + (b"?" + incoming.query if incoming.query else b""))
    check_fields(incoming.fields)
    fields = tuple(pair for pair in incoming.fields if pair[0] not in incoming.credentials)
    route = upstream.route
    named = value_of(fields, b"host") if route.keep_host else None
    host = upstream.host if named is None else check_host(named)
    target = upstream.target(incoming.path, incoming.query)
    passed = without_hop_by_hop(fields)
    shared = partition_of(passed, upstream.identity)
    scopes: tuple[bytes, ...] = (shared,)
    if is_known(who):
        name = who.name if who.uid is None else f"{who.name}:{who.uid}"
        scopes = private_scope(name, passed, shared), shared
    return Context(
        request=read_request(incoming.method, upstream.scheme + b"://" + host.lower() + target, passed),
        upstream=upstream,
        target=target,
        host=host,
        fields=fields,
        scopes=scopes,
        body=has_body(fields),
        receive=receive,
        send=send,
    )


def has_body(fields: Fields) -> bool:
    """Whether a request announces a body; in HTTP/2 one may come unannounced."""
    return any(name == b"transfer-encoding" or (name == b"content-length" and int(value) > 0) for name, value in fields)
