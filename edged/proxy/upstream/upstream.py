"""One route's upstream: pooled connections by httpcore2 (the transport of httpx2), HTTP/2 where it is offered.

The transport is used without httpx2's client: a proxy passes bytes on as they are, without decoding, redirects,
cookies or headers of its own.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import trio

from edged.errors import ConfigError, TransportError
from edged.proxy.rules.circuit import Circuit
from edged.proxy.rules.fields import DIGITS, Fields, value_of
from edged.proxy.rules.forward import BadFraming, check_framing
from edged.proxy.settings import ProxySettings, Route

KEEP_IDLE_S = 30.0
WRITE_S = 15.0
IDLE_CONNECTIONS = 8
HEAD = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n")
HEAD_BYTES = 256 << 10


Tell = Callable[[int, Fields], Awaitable[None]]
# Whom to tell of a 1xx: httpcore2 has no place for it, and reads a connection in the task of whoever asks.
TELL: ContextVar[Tell | None] = ContextVar("tell", default=None)


class UnreachableError(TransportError):
    """The upstream did not answer: no connection, a broken one, or silence past the deadline."""

    http_status = 504


class AnswerError(TransportError):
    """The upstream answered with what is not HTTP, or breaks its own framing."""

    http_status = 502


class GuardedStream(httpcore2.AsyncNetworkStream):
    """A connection that knows when an HTTP/1.1 upstream has sent more than its answer, and is then not used again.

    Bytes past the end of an answer would be read as the answer to the next request (response splitting). The pool
    asks `is_readable` before it uses a connection again, and drops one that says yes. 1xx answers, which httpcore2
    drops, are told to whoever asks.

    fd: of a plain socket, which is read and written without the layers between; -1 for TLS.
    """

    def __init__(self, inner: httpcore2.AsyncNetworkStream, fd: int = -1) -> None:
        self.inner = inner
        self.fd = fd
        self.spoilt = False
        self.begin()

    def begin(self) -> None:
        """A new exchange."""
        self.head = bytearray()
        self.head_done = False
        self.body_bytes = 0
        self.tail = b""
        self.reading = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await (self.inner.read(max_bytes, timeout) if self.fd < 0 else self.read_plain(max_bytes, timeout))
        self.reading = True
        if self.head_done:
            self.body_bytes += len(data)
            self.tail = (self.tail + data)[-4:]
        else:
            await self.find_head(data)
        return data

    async def read_plain(self, max_bytes: int, timeout: float | None) -> bytes:
        try:
            try:
                data = os.read(self.fd, max_bytes)
            except BlockingIOError:
                with trio.fail_after(inf if timeout is None else timeout):
                    await trio.lowlevel.wait_readable(self.fd)
                return os.read(self.fd, max_bytes)
            await trio.lowlevel.checkpoint()  # a fast upstream must not keep the thread
            return data
        except trio.TooSlowError as fault:
            raise httpcore2.ReadTimeout(str(fault)) from fault
        except (OSError, trio.ClosedResourceError) as fault:
            raise httpcore2.ReadError(str(fault)) from fault

    async def find_head(self, data: bytes) -> None:
        self.head += data
        while match := HEAD.match(self.head):
            if match[1][:1] == b"1" and match[1] != b"101":
                status, lines = int(match[1]), match[0].split(b"\r\n")[1:-2]
                del self.head[: match.end()]
                tell = TELL.get()
                if tell is not None:
                    pairs = [line.partition(b":") for line in lines]
                    await tell(status, tuple((name.lower(), value.strip()) for name, _, value in pairs))
                continue
            self.head_done = True
            self.body_bytes = len(self.head) - match.end()
            self.tail = bytes(self.head[match.end() :][-4:])
            self.head.clear()
            return
        if len(self.head) > HEAD_BYTES:
            self.spoilt = True
            self.head.clear()

    def judge(self, length: int | None) -> None:
        """An answer was read to its end. length: its body's bytes on the wire, None where it came in chunks."""
        if length is None:
            self.spoilt = self.spoilt or not self.head_done or self.tail != b"\r\n\r\n"
        else:
            self.spoilt = self.spoilt or not self.head_done or self.body_bytes != length

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self.reading:
            self.begin()
        if self.fd >= 0 and buffer:
            try:
                buffer = buffer[os.write(self.fd, buffer) :]
            except BlockingIOError:
                pass
            except OSError as fault:
                raise httpcore2.WriteError(str(fault)) from fault
        if buffer:
            await self.inner.write(buffer, timeout)

    async def aclose(self) -> None:
        self.fd = -1
        await self.inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        return GuardedStream(await self.inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self.spoilt:
            return True
        return self.inner.get_extra_info(info)


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """trio's sockets, guarded."""

    def __init__(self) -> None:
        self.inner = httpcore2.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        stream = await self.inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return GuardedStream(stream, stream.get_extra_info("socket").fileno())

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        return GuardedStream(await self.inner.connect_unix_socket(path, timeout, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self.inner.sleep(seconds)


@dataclass(slots=True)
class Answer:
    """An upstream's answer: its head, and the body still to come. To be closed, also after reading it to the end."""

    status: int
    fields: Fields
    response: httpcore2.Response
    head_only: bool

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
            guard.judge(self.wire_length())

    def wire_length(self) -> int | None:
        if self.head_only or self.status in (204, 304):
            return 0
        length = value_of(self.fields, b"content-length")
        return int(length) if length is not None and DIGITS.fullmatch(length) else None

    async def aclose(self) -> None:
        with trio.move_on_after(WRITE_S, shield=True):
            await self.response.aclose()


FAULTS = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ConnectionNotAvailable)
BROKEN_BEFORE_ANSWER = (httpcore2.ReadError, httpcore2.WriteError, httpcore2.RemoteProtocolError)


def translate(fault: Exception, what: str) -> TransportError:
    """A transport's exception as ours."""
    text = str(fault) or type(fault).__name__
    if isinstance(fault, httpcore2.ProtocolError) and "disconnected" not in text.lower():
        return AnswerError(f"{what}: {text}; the upstream breaks HTTP, ask those who run it")
    return UnreachableError(f"{what}: {text}")


class Upstream:
    """A route's connections and its circuit. on_open: called when the circuit opens, to have `look` run."""

    def __init__(self, route: Route, settings: ProxySettings, on_open: Callable[[Upstream], None]) -> None:
        self.route, self.on_open = route, on_open
        parts = urlsplit(route.upstream)
        self.scheme = parts.scheme.encode()
        self.hostname = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.host = parts.netloc.encode()
        self.base = parts.path.rstrip("/").encode()
        self.origin = self.scheme + b"://" + self.host
        self.circuit = Circuit(settings.circuit_failures, settings.circuit_first_s, settings.circuit_most_s)
        self.pool = self.make_pool(http2=self.scheme == b"https")
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
        if self.route.strip_prefix and self.route.prefix != "/":
            path = path[len(self.route.prefix.rstrip("/")) :] or b"/"
        return self.base + path + (b"?" + query if query else b"")

    async def send(
        self,
        method: bytes,
        target: bytes,
        fields: Fields,
        body: AsyncIterable[bytes] | None = None,
        *,
        tell: Tell | None = None,
    ) -> Answer:
        """Send a request; return when the answer's head is there. tell: awaited with each 1xx before it.

        Raises UnreachableError or AnswerError.
        """
        TELL.set(tell)
        url = httpcore2.URL(scheme=self.scheme, host=self.hostname.encode(), port=self.port, target=target)
        again = self.route.retry and body is None and method in (b"GET", b"HEAD")
        while True:
            request = httpcore2.Request(
                method=method,
                url=url,
                headers=list(fields),
                content=body if body is not None else b"",
                extensions={"timeout": self.timeouts},
            )
            try:
                response = await self.pool.handle_async_request(request)
            except FAULTS as fault:
                if again and isinstance(fault, BROKEN_BEFORE_ANSWER):
                    again = False  # an idle connection may have been closed under us; asking again is safe for these
                    continue
                raise self.failure(fault) from fault
            self.circuit.succeeded()
            return await self.accept(response, head_only=method == b"HEAD")

    async def send_upgrade(self, target: bytes, fields: Fields) -> Answer:
        """Ask for a WebSocket, over HTTP/1.1 and a connection of its own. Raises UnreachableError or AnswerError."""
        url = httpcore2.URL(scheme=self.scheme, host=self.hostname.encode(), port=self.port, target=target)
        timeouts = {**self.timeouts, "read": self.route.connect_timeout_s}
        request = httpcore2.Request(method=b"GET", url=url, headers=list(fields), extensions={"timeout": timeouts})
        try:
            response = await self.upgrades.handle_async_request(request)
        except FAULTS as fault:
            raise self.failure(fault) from fault
        return await self.accept(response, head_only=False)

    async def accept(self, response: httpcore2.Response, *, head_only: bool) -> Answer:
        """An answer whose end is certain. Raises AnswerError for any other, and its connection is closed."""
        lowered = tuple((bytes(name).lower(), bytes(value)) for name, value in response.headers)
        answer = Answer(response.status, lowered, response, head_only)
        try:
            check_framing(response.extensions.get("http_version", b""), lowered)
        except BadFraming as fault:
            await answer.aclose()
            raise AnswerError(f"ask {self.route.upstream}: {fault}; ask those who run it") from fault
        return answer

    def failure(self, fault: Exception) -> TransportError:
        error = translate(fault, f"ask {self.route.upstream}")
        lost = isinstance(fault, httpcore2.ConnectError | httpcore2.ConnectTimeout | httpcore2.ReadTimeout)
        if lost and self.circuit.failed():
            self.on_open(self)
        return error

    async def look(self) -> None:
        """Look for the upstream until it takes connections again, and close the circuit."""
        while self.circuit.is_open:
            await trio.sleep(self.circuit.delay_s)
            try:
                with trio.fail_after(self.route.connect_timeout_s):
                    stream = await trio.open_tcp_stream(self.hostname, self.port)
                await stream.aclose()
            except (OSError, trio.TooSlowError):
                self.circuit.missed()
            else:
                self.circuit.succeeded()

    async def aclose(self) -> None:
        await self.pool.aclose()
        await self.upgrades.aclose()


def make_ssl_context(route: Route) -> ssl.SSLContext:
    """TLS to an upstream: its certificate checked against `ca` alone where that is set. Raises ConfigError."""
    try:
        context = ssl.create_default_context(cafile=route.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if route.cert:
            context.load_cert_chain(route.cert, route.key)
    except (OSError, ssl.SSLError) as fault:
        raise ConfigError(
            f"proxy route {route.prefix!r}: read ca {route.ca!r} and cert {route.cert!r}: {fault}; name PEM files"
        ) from fault
    return context
