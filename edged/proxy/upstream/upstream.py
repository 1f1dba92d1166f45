"""One route's upstream: pooled connections by httpcore2 (the transport of httpx2), HTTP/2 where it is offered.

The transport is used without httpx2's client: a proxy passes bytes on as they are, without decoding, redirects,
cookies or headers of its own.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import h2.exceptions
import hpack.exceptions
import httpcore2
import trio

from edged.config import RouteConfig
from edged.errors import ConfigError, TransportError
from edged.http.fields import DIGITS, Fields, value_of
from edged.http.urls import sound_url
from edged.proxy.rules.circuit import Circuit
from edged.proxy.rules.forward import BadFraming, check_framing, mapped_back
from edged.proxy.upstream.guarded import TELL, GuardedBackend, GuardedStream, Tell

log = logging.getLogger(__name__)

KEEP_IDLE_S = 30.0
WRITE_S = 15.0
IDLE_CONNECTIONS = 8


class UnreachableError(TransportError):
    """The upstream did not answer: no connection, a broken one, or silence past the deadline. detail: a word for
    Cache-Status."""

    http_status = 504
    detail = "offline"


class UntrustedError(UnreachableError):
    """Who answers there has no certificate that is trusted for it: another host, perhaps a captive portal."""

    http_status = 502
    detail = "untrusted"


class ExhaustedError(UnreachableError):
    """This device has no descriptor or memory left for a connection. It says nothing of the upstream."""

    http_status = 503
    detail = "exhausted"


class AnswerError(TransportError):
    """The upstream answered with what is not HTTP, or breaks its own framing."""

    http_status = 502


@dataclass(slots=True)
class UpstreamAnswer:
    """An upstream's answer: its head, and the body still to come. To be closed, also after reading it to the end.
    waited_s: from the request to its head."""

    status: int
    fields: Fields
    response: httpcore2.Response
    head_only: bool
    waited_s: float = 0.0

    @property
    def network_stream(self) -> Any:
        """The connection, after a 101."""
        return self.response.extensions["network_stream"]

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body in pieces. Raises UnreachableError or AnswerError where it breaks off."""
        try:
            async with aclosing(self.response.aiter_stream()) as pieces:
                async for piece in pieces:
                    yield piece
        except FAULTS as fault:
            raise translate(fault, "read the answer") from fault
        guard = self.response.extensions.get("network_stream")
        if isinstance(guard, GuardedStream) and self.response.extensions.get("http_version") != b"HTTP/2":
            wrong = guard.judge(self.wire_length())
            if wrong:
                raise AnswerError(f"read the answer: {wrong}; the upstream breaks HTTP, ask those who run it")

    def wire_length(self) -> int | None:
        if self.head_only or self.status in (204, 304):
            return 0
        length = value_of(self.fields, b"content-length")
        return int(length) if length is not None and DIGITS.fullmatch(length) else None

    async def aclose(self) -> None:
        with trio.move_on_after(WRITE_S, shield=True):
            await self.response.aclose()


# Whatever a host may cause, names that cannot be looked up and frames that cannot be read included.
FAULTS = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ConnectionNotAvailable,
    h2.exceptions.H2Error,
    hpack.exceptions.HPACKError,
    OSError,
    ValueError,
    LookupError,
)
BROKEN_BEFORE_ANSWER = (httpcore2.ReadError, httpcore2.WriteError, httpcore2.RemoteProtocolError)
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


def causes(fault: BaseException) -> Iterator[BaseException]:
    """A fault and all that led to it."""
    waiting: list[BaseException] = [fault]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def doubt_of(fault: ssl.SSLCertVerificationError) -> str:
    """What is wrong with a certificate, in OpenSSL's words where it was OpenSSL that refused it."""
    return getattr(fault, "verify_message", "") or str(fault)


def translate(fault: Exception, what: str) -> TransportError:
    """A transport's exception as ours."""
    for cause in causes(fault):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return UntrustedError(
                f"{what}: its certificate is not trusted ({doubt_of(cause)}); set the route's ca, or look whether "
                "a captive portal answers in its place and whether the clock here is right"
            )
        if isinstance(cause, OSError) and cause.errno in EXHAUSTED:
            return ExhaustedError(f"{what}: {os.strerror(cause.errno)} on this device; ask again")
    if isinstance(fault, httpcore2.TimeoutException):
        return UnreachableError(f"{what}: no {'connection' if is_connecting(fault) else 'answer'} within the time set")
    text = str(fault) or type(fault).__name__
    protocol = (httpcore2.ProtocolError, h2.exceptions.H2Error, hpack.exceptions.HPACKError)
    if isinstance(fault, protocol) and "disconnected" not in text.lower():
        return AnswerError(f"{what}: {text}; the upstream breaks HTTP, ask those who run it")
    return UnreachableError(f"{what}: {reason(fault)}")


def is_connecting(fault: Exception) -> bool:
    return isinstance(fault, httpcore2.ConnectTimeout | httpcore2.PoolTimeout)


def reason(fault: Exception) -> str:
    """Why, in the system's words where it has any."""
    for cause in causes(fault):
        if isinstance(cause, socket.gaierror):
            return f"its name cannot be looked up ({cause.strerror}); is the network there?"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
    return str(fault) or "the connection broke"


class Upstream:
    """A route's connections and its circuit. on_doubt: called when it may be lost, to have `look` run.

    identity: what makes this way of asking differ from that of another route to the same place. seconds: of waiting
    for heads of answers, their sum; answers: how many.
    """

    def __init__(self, route: RouteConfig, on_doubt: Callable[[Upstream], None]) -> None:
        self.route, self.on_doubt = route, on_doubt
        parts = urlsplit(sound_url(route.upstream))
        self.scheme = parts.scheme.encode()
        self.hostname = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.host = parts.netloc.encode()
        self.base = parts.path.rstrip("/").encode()
        self.taken = route.prefix.rstrip("/").encode() if route.strip_prefix else b""
        self.identity = tuple(
            part.encode() for part in (route.cert, route.ca, route.prefix if self.base or self.taken else "")
        )
        if not any(self.identity):
            self.identity = ()
        self.circuit = Circuit()
        self.looking = False
        self.seconds, self.answers = 0.0, 0
        self.pool = self.make_pool(http2=self.scheme == b"https")
        # Of their own, so that bodies which are slow to come keep no connection from those that only ask.
        self.uploads = self.make_pool(http2=self.scheme == b"https")
        self.upgrades = self.make_pool(http2=False)
        self.timeouts = {
            "connect": route.connect_timeout_s,
            "read": route.timeout_s,
            "write": WRITE_S,
            "pool": route.timeout_s,
        }

    def make_pool(self, *, http2: bool) -> httpcore2.AsyncConnectionPool:
        return httpcore2.AsyncConnectionPool(
            ssl_context=make_ssl_context(self.route) if self.scheme == b"https" else None,
            max_connections=self.route.connections,
            max_keepalive_connections=IDLE_CONNECTIONS,
            keepalive_expiry=KEEP_IDLE_S,
            http1=True,
            http2=http2,
            network_backend=GuardedBackend(),
        )

    def target(self, path: bytes, query: bytes) -> bytes:
        """The target upstream of a request's path (under the route's prefix) and query."""
        return self.base + (path[len(self.taken) :] or b"/") + (b"?" + query if query else b"")

    def map_back(self, fields: Fields, host: bytes) -> Fields:
        """Fields of an answer with the places in them as apps know them. host: under which the upstream was asked."""
        if not self.base and not self.taken:
            return fields
        origins = tuple(
            scheme + b"://" + name for name in {self.host.lower(), host.lower()} for scheme in (b"http", b"https")
        )
        return mapped_back(fields, origins, self.base, self.taken)

    async def send(self, method: bytes, target: bytes, fields: Fields, *, tell: Tell | None = None) -> UpstreamAnswer:
        """Send a request without a body; return when the answer's head is there. tell: awaited with each 1xx before it.

        Raises TransportError.
        """
        TELL.set(tell)
        again = self.route.retry and method in (b"GET", b"HEAD")
        while True:
            request = self.make_request(method, target, fields)
            try:
                return await self.exchange(self.pool, request)
            except BROKEN_BEFORE_ANSWER as fault:
                if not again:
                    raise self.failure(fault) from fault
                again = False  # an idle connection may have been closed under us; asking again is safe for these
            except FAULTS as fault:
                raise self.failure(fault) from fault

    async def send_body(
        self, method: bytes, target: bytes, fields: Fields, body: AsyncIterable[bytes], *, short: bool
    ) -> UpstreamAnswer:
        """Send a request with a body. short: all of it is there. Raises TransportError, and what `body` does."""
        TELL.set(None)
        request = self.make_request(method, target, fields, body)
        try:
            return await self.exchange(self.pool if short else self.uploads, request)
        except FAULTS as fault:
            raise self.failure(fault) from fault

    async def send_upgrade(self, target: bytes, fields: Fields) -> UpstreamAnswer:
        """Ask for a WebSocket, over HTTP/1.1 and a connection of its own. Raises TransportError."""
        TELL.set(None)
        request = self.make_request(b"GET", target, fields)
        try:
            return await self.exchange(self.upgrades, request)
        except FAULTS as fault:
            raise self.failure(fault) from fault

    def make_request(
        self, method: bytes, target: bytes, fields: Fields, body: AsyncIterable[bytes] | bytes = b""
    ) -> httpcore2.Request:
        url = httpcore2.URL(scheme=self.scheme, host=self.hostname.encode(), port=self.port, target=target)
        extensions = {"timeout": self.timeouts}
        return httpcore2.Request(method=method, url=url, headers=list(fields), content=body, extensions=extensions)

    async def exchange(self, pool: httpcore2.AsyncConnectionPool, request: httpcore2.Request) -> UpstreamAnswer:
        """The answer to a request, its end certain. Raises AnswerError for any other, and its connection is closed."""
        begun_s = trio.current_time()
        response = await pool.handle_async_request(request)
        waited_s = trio.current_time() - begun_s
        self.seconds += waited_s
        self.answers += 1
        self.found()
        lowered = tuple((bytes(name).lower(), bytes(value)) for name, value in response.headers)
        answer = UpstreamAnswer(response.status, lowered, response, request.method == b"HEAD", waited_s)
        try:
            check_framing(response.extensions.get("http_version", b""), lowered)
        except BadFraming as fault:
            await answer.aclose()
            raise AnswerError(f"ask {self.route.upstream}: {fault}; ask those who run it") from fault
        return answer

    # --- whether it is there -----------------------------------------------------------------------------------------

    def failure(self, fault: Exception) -> TransportError:
        """A transport's exception as ours, counted where it says that the upstream may be lost."""
        error = translate(fault, f"ask {self.route.upstream}")
        if isinstance(error, UntrustedError):
            log.warning("%s", error)
        elif not isinstance(error, ExhaustedError):
            if isinstance(fault, httpcore2.ConnectError | httpcore2.ConnectTimeout):
                self.lost(str(error))
            elif isinstance(fault, httpcore2.ReadTimeout) and not self.looking:
                self.on_doubt(self)  # one slow answer does not mean that it is gone: see whether it takes connections
        return error

    def lost(self, why: str) -> None:
        if self.circuit.failed():
            log.warning("%s; what is stored is served until it is back", why)
            self.on_doubt(self)

    def found(self) -> None:
        if self.circuit.is_open:
            log.warning("%s: it can be reached again", self.route.upstream)
        self.circuit.succeeded()

    async def look(self) -> None:
        """Try whether the upstream takes connections: until it does, the circuit stays open."""
        if self.looking:
            return
        self.looking = True
        try:
            while not await self.takes_connections():
                if not self.circuit.is_open:
                    self.lost(f"ask {self.route.upstream}: it answers no more and takes no connection")
                else:
                    self.circuit.missed()
                await trio.sleep(self.circuit.delay_s or self.circuit.first_s)
            self.found()
        finally:
            self.looking = False

    async def takes_connections(self) -> bool:
        try:
            with trio.fail_after(self.route.connect_timeout_s):
                stream = await trio.open_tcp_stream(self.hostname, self.port)
            await stream.aclose()
        except (OSError, ValueError, trio.TooSlowError):
            return False
        return True

    async def aclose(self) -> None:
        for pool in (self.pool, self.uploads, self.upgrades):
            await pool.aclose()


def make_ssl_context(route: RouteConfig) -> ssl.SSLContext:
    """TLS to an upstream: its certificate checked against `ca` alone where that is set. Raises ConfigError."""
    try:
        context = ssl.create_default_context(cafile=route.ca or None)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # on by default from Python 3.13, which many private CAs fail
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if route.cert:
            context.load_cert_chain(route.cert, route.key)
    except (OSError, ssl.SSLError) as fault:
        raise ConfigError(
            f"proxy route {route.prefix!r}: read ca {route.ca!r} and cert {route.cert!r}: {fault}; name PEM files"
        ) from fault
    return context
