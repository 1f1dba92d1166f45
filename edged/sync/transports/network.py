"""TCP and TLS for the HTTP client, counting what crosses the wire beneath TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import httpcore2
import trio

from edged.sync.transports.transport import Traffic


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


class NetworkStream(httpcore2.AsyncNetworkStream):
    """What httpcore2 reads from and writes to. `counted` lies beneath `stream`, which may be TLS."""

    def __init__(self, stream: trio.abc.Stream, counted: CountedStream) -> None:
        self.stream, self.counted = stream, counted

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                return bytes(await self.stream.receive_some(max_bytes))
        except trio.TooSlowError as fault:
            raise httpcore2.ReadTimeout(f"nothing came for {timeout} s") from fault
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError) as fault:
            raise httpcore2.ReadError(str(fault.__cause__ or fault)) from fault

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                await self.stream.send_all(buffer)
        except trio.TooSlowError as fault:
            raise httpcore2.WriteTimeout(f"nothing was taken for {timeout} s") from fault
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError) as fault:
            raise httpcore2.WriteError(str(fault.__cause__ or fault)) from fault

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
            raise httpcore2.ConnectTimeout(f"no TLS within {timeout} s") from fault
        except (trio.BrokenResourceError, ssl.SSLError) as fault:
            await trio.aclose_forcefully(self.stream)
            raise httpcore2.ConnectError(f"TLS: {fault.__cause__ or fault}") from fault
        except BaseException:
            await trio.aclose_forcefully(self.stream)
            raise
        return NetworkStream(secured, self.counted)

    def get_extra_info(self, info: str) -> Any:
        inner = self.counted.inner
        if info == "is_readable" and isinstance(inner, trio.SocketStream):
            return inner.socket.is_readable()  # an idle connection with something to read has been closed by its peer
        if info == "socket" and isinstance(inner, trio.SocketStream):
            return inner.socket
        return None


class Network(httpcore2.AsyncNetworkBackend):
    """Opens connections; a test gives one that opens memory streams."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic

    async def open(self, host: str, port: int) -> trio.abc.Stream:
        return await trio.open_tcp_stream(host, port)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                counted = CountedStream(await self.open(host, port), self.traffic)
        except trio.TooSlowError as fault:
            raise httpcore2.ConnectTimeout(f"no connection within {timeout} s") from fault
        except (OSError, trio.BrokenResourceError) as fault:
            raise httpcore2.ConnectError(str(fault)) from fault
        return NetworkStream(counted, counted)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)
