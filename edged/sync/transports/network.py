"""TCP and TLS for the HTTP client: what crosses the wire is counted, read in small pieces, and led where it may go."""

from __future__ import annotations

import errno
import socket
import ssl
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore2
import trio

from edged.errors import TransportError
from edged.http.urls import is_public
from edged.sync.transports.transport import Traffic

CONNECT_S = 15.0  # to a TCP connection, and again to TLS on it
HEAD_BYTES = 64 << 10  # of an answer's head, with all that informs before it (100 Continue)
HEAD_PIECE, BODY_PIECE = 1 << 10, 64 << 10  # read at once: what a piece is parsed into holds up everybody else


class CountedStream(trio.abc.Stream):
    """`inner` with its bytes added to `traffic`."""

    def __init__(self, inner: trio.abc.Stream, traffic: Traffic) -> None:
        self.inner, self.traffic = inner, traffic

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.inner.receive_some(max_bytes)
        self.traffic.received += len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.traffic.sent += len(data)
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.inner.aclose()


class Network(httpcore2.AsyncNetworkBackend):
    """Opens connections; a test gives one that opens memory streams.

    head_left: how many bytes an answer's head may still have, None while a body is read; piece: how many are read at
    once; peer_is_public: whether the last peer is in the network at large, None if that is not known; public_only:
    whether connections may lead only there.
    """

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.head_left: int | None = None
        self.piece = BODY_PIECE
        self.peer_is_public: bool | None = None
        self.public_only = False

    def expect_head(self) -> None:
        self.head_left, self.piece = HEAD_BYTES, HEAD_PIECE

    def expect_body(self, piece: int) -> None:
        self.head_left, self.piece = None, piece

    def take(self, count: int) -> None:
        """`count` bytes were read. Raises RemoteProtocolError beyond what a head may have."""
        if self.head_left is not None:
            self.head_left -= count
            if self.head_left < 0:
                raise httpcore2.RemoteProtocolError(f"the head of the answer has more than {HEAD_BYTES} bytes")

    async def open(self, host: str, port: int) -> trio.abc.Stream:
        if not self.public_only:
            stream = await trio.open_tcp_stream(host, port)
        else:
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = [str(item[4][0]) for item in found]
            if not all(is_public(address) for address in addresses):
                raise httpcore2.ConnectError(
                    f"{host} is an address of this device or its own network, and the origin that led there is not: "
                    "name it in the configuration if it is meant"
                )
            stream = await trio.open_tcp_stream(addresses[0], port)  # not looked up again, or it might be another
        self.peer_is_public = is_public(stream.socket.getpeername()[0])
        return stream

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        del local_address, socket_options
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                counted = CountedStream(await self.open(host, port), self.traffic)
        except trio.TooSlowError as fault:
            raise httpcore2.ConnectTimeout(f"no connection within {timeout:.0f} s") from fault
        except (OSError, ValueError, OverflowError, trio.BrokenResourceError) as fault:
            raise httpcore2.ConnectError(words_for(fault)) from fault
        return NetworkStream(counted, counted, self)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class NetworkStream(httpcore2.AsyncNetworkStream):
    """What httpcore2 reads from and writes to. `counted` lies beneath `stream`, which may be TLS."""

    def __init__(self, stream: trio.abc.Stream, counted: CountedStream, network: Network) -> None:
        self.stream, self.counted, self.network = stream, counted, network

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                data = bytes(await self.stream.receive_some(min(max_bytes, self.network.piece)))
        except trio.TooSlowError as fault:
            raise httpcore2.ReadTimeout(f"nothing came for {timeout:.0f} s") from fault
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError) as fault:
            raise httpcore2.ReadError(words_for(fault)) from fault
        self.network.take(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                await self.stream.send_all(buffer)
        except trio.TooSlowError as fault:
            raise httpcore2.WriteTimeout(f"nothing was taken for {timeout:.0f} s") from fault
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError) as fault:
            raise httpcore2.WriteError(words_for(fault)) from fault

    async def aclose(self) -> None:
        await self.stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        secured = trio.SSLStream(self.stream, ssl_context, server_hostname=server_hostname, https_compatible=True)
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                await secured.do_handshake()
        except trio.TooSlowError as fault:
            await trio.aclose_forcefully(self.stream)
            raise httpcore2.ConnectTimeout(f"no TLS within {timeout:.0f} s") from fault
        except (trio.BrokenResourceError, OSError, ValueError) as fault:
            await trio.aclose_forcefully(self.stream)
            raise httpcore2.ConnectError(words_for(fault)) from fault
        except BaseException:
            await trio.aclose_forcefully(self.stream)
            raise
        return NetworkStream(secured, self.counted, self.network)

    def get_extra_info(self, info: str) -> Any:
        inner = self.counted.inner
        if info == "is_readable" and isinstance(inner, trio.SocketStream):
            return inner.socket.is_readable()  # an idle connection with something to read has been closed by its peer
        if info == "socket" and isinstance(inner, trio.SocketStream):
            return inner.socket
        return None


FAULTS = (
    *(httpcore2.ProtocolError, httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.UnsupportedProtocol),
    *(httpcore2.ProxyError, OSError, ValueError, OverflowError, zlib.error),
    *(trio.BrokenResourceError, trio.ClosedResourceError),
)


@contextmanager
def transport_faults(what: str) -> Iterator[None]:
    """The one place where what the network, TLS, HTTP, URLs and codings may raise becomes ours: TransportError.

    Around calls of libraries alone, never around code that judges what came. what: for the message, with the URL.
    """
    try:
        yield
    except FAULTS as fault:
        raise TransportError(f"{what}: {words_for(fault)}") from fault


WORDS = {
    errno.ECONNREFUSED: "refused: nothing listens there",
    errno.ECONNRESET: "the connection was cut",
    errno.EPIPE: "the connection was cut",
    errno.ETIMEDOUT: "no answer",
    errno.EHOSTUNREACH: "there is no way to this host",
    errno.ENETUNREACH: "there is no network",
    errno.EMFILE: "this process has too many files open",
}


def words_for(fault: BaseException) -> str:
    """What a person can make of a fault: the innermost cause, without Python's or the kernel's numbers."""
    inner = innermost(fault)
    match inner:
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate is not trusted: {inner.verify_message}; check this device's clock, and `ca` if the "
                "authority is a private one"
            )
        case ssl.SSLError():
            return f"TLS: {(inner.reason or str(inner)).replace('_', ' ').lower()}"
        case socket.gaierror():
            return "its name is not known here (DNS): check the name, and the network"
        case OSError() if inner.errno is not None:
            return WORDS.get(inner.errno, (inner.strerror or "input/output error").lower())
        case UnicodeError():
            return "its name cannot be looked up: it is no host name"
        case httpcore2.RemoteProtocolError() | httpcore2.LocalProtocolError():
            return f"not HTTP as it should be: {str(inner) or 'an answer was cut off'}"
        case trio.BrokenResourceError() | trio.ClosedResourceError():
            return "the connection was cut"
    return str(inner) or "the connection was cut"


def innermost(fault: BaseException) -> BaseException:
    """Down the causes and into groups (trio tries several addresses at once), to what the system or the peer said."""
    while True:
        inside = fault.exceptions[0] if isinstance(fault, BaseExceptionGroup) else fault.__cause__
        if inside is None or (isinstance(fault, OSError) and fault.errno is not None):
            return fault
        if not isinstance(inside, BaseExceptionGroup | OSError | UnicodeError):
            return fault
        fault = inside
