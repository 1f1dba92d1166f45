"""Connections to upstreams that know where an answer ends: what comes after it is never taken for the next one, and
what two readers may read in two ways is no answer.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from math import inf
from typing import Any

import httpcore2
import trio

from edged.http.fields import Fields, members_of
from edged.http.framing import ChunkedBody
from edged.http.head import HeadError

HEAD = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n")
HEAD_BYTES = 256 << 10
MORE_BYTES = 32 << 10  # of trailers, and of what extends chunks
CLOSE_S = 1.0

Tell = Callable[[int, Fields], Awaitable[None]]
# Whom to tell of a 1xx: httpcore2 has no place for it, and reads a connection in the task of whoever asks.
TELL: ContextVar[Tell | None] = ContextVar("tell", default=None)


class GuardedStream(httpcore2.AsyncNetworkStream):
    """A connection that knows when an HTTP/1.1 upstream has sent more than its answer, and is then not used again.

    Bytes past the end of an answer would be read as the answer to the next request (response splitting). The pool
    asks `is_readable` before it uses a connection again, and drops one that says yes. 1xx answers, which httpcore2
    drops, are told to whoever asks.

    fd: of a plain socket, which is read and written without the layers between; -1 for TLS. chunks: of an answer that
    comes in chunks; fault: what is wrong with them.
    """

    def __init__(self, inner: httpcore2.AsyncNetworkStream, fd: int = -1, *, tls: bool = False) -> None:
        self.inner = inner
        self.fd = fd
        self.tls = tls
        self.spoilt = False
        self.begin()

    def begin(self) -> None:
        """A new exchange."""
        self.head = bytearray()
        self.head_done = False
        self.body_bytes = 0
        self.chunks: ChunkedBody | None = None
        self.fault = ""
        self.reading = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await (self.inner.read(max_bytes, timeout) if self.fd < 0 else self.read_plain(max_bytes, timeout))
        if not data and self.tls:
            await self.check_close()
        self.reading = True
        if self.head_done:
            self.find_end(data)
        else:
            await self.find_head(data)
        return data

    async def check_close(self) -> None:
        """TLS has come to its end. Raises ReadError unless the peer has said so (RFC 9112 section 9.8): a body that
        ends with its connection may have been cut by anyone on the way. After a cut trio's stream is broken for good.
        """
        try:
            await self.inner.read(1, CLOSE_S)
        except (httpcore2.ReadError, httpcore2.ReadTimeout) as fault:
            raise httpcore2.ReadError("cut off without the end that TLS announces (close_notify)") from fault

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
            status, lines = int(match[1]), match[0].split(b"\r\n")[1:-2]
            del self.head[: match.end()]
            pairs = [line.partition(b":") for line in lines]
            fields = tuple((name.lower(), value.strip()) for name, _, value in pairs)
            if status < 200 and status != 101:
                tell = TELL.get()
                if tell is not None:
                    await tell(status, fields)
                continue
            self.head_done = True
            if any(coding.lower() == b"chunked" for coding in members_of(fields, b"transfer-encoding")):
                self.chunks = ChunkedBody(MORE_BYTES)
            rest = bytes(self.head)
            self.head.clear()
            self.find_end(rest)
            return
        if len(self.head) > HEAD_BYTES:
            self.spoilt = True
            self.head.clear()

    def find_end(self, data: bytes) -> None:
        """Follow the body. A fault of its chunks is told when it has been read: the head says whether there is one."""
        self.body_bytes += len(data)
        if self.chunks is None or self.fault or not data:
            return
        try:
            _, beyond = (b"", data) if self.chunks.ended else self.chunks.feed(data)
        except HeadError as fault:
            self.fault = str(fault)
            self.spoilt = True
        else:
            self.spoilt = self.spoilt or bool(beyond)

    def judge(self, length: int | None) -> str:
        """An answer was read to its end. length: its body's bytes on the wire, None where it came in chunks, or ends
        with its connection. Returns what is wrong with its chunks: nothing of such an answer is to be believed.
        """
        if length is not None:
            self.spoilt = self.spoilt or not self.head_done or self.body_bytes != length
            return ""
        self.spoilt = self.spoilt or not self.head_done or self.chunks is None or not self.chunks.ended
        return self.fault

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
        return GuardedStream(await self.inner.start_tls(ssl_context, server_hostname, timeout), tls=True)

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
