"""A socket as a trio stream, of which nothing is left when its peer has gone.

trio's own goes through a generator when a call fails, and from Python 3.12 on the exception, and with it all that the
connection held, then waits for the garbage collector, which may come after minutes.
"""

from __future__ import annotations

import socket
from typing import NoReturn

import trio


class PlainStream(trio.abc.HalfCloseableStream):
    """Over a connected, non-blocking socket, which is its own from now on."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = trio.socket.from_stdlib_socket(sock)
        self.sending = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises trio.ClosedResourceError, BrokenResourceError, BusyResourceError."""
        if self.sending:
            raise trio.BusyResourceError("another task is sending")
        self.sending = True
        try:
            with memoryview(data) as whole:
                sent = 0
                while sent < len(whole):
                    with whole[sent:] as rest:
                        sent += await self.socket.send(rest)
            if not sent:
                await trio.lowlevel.checkpoint()
        except OSError as fault:
            self.fail(fault)
        finally:
            self.sending = False

    async def wait_send_all_might_not_block(self) -> None:
        try:
            await self.socket.wait_writable()
        except OSError as fault:
            self.fail(fault)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Nothing where the peer has ended. Raises as `send_all` does."""
        try:
            return await self.socket.recv(65536 if max_bytes is None else max_bytes)
        except OSError as fault:
            self.fail(fault)

    async def send_eof(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as fault:
            self.fail(fault)
        await trio.lowlevel.checkpoint()

    def fail(self, fault: OSError) -> NoReturn:
        if self.socket.fileno() < 0:
            raise trio.ClosedResourceError("this socket was closed") from None
        raise trio.BrokenResourceError(f"socket connection broken: {fault}") from None

    async def aclose(self) -> None:
        self.socket.close()
        await trio.lowlevel.checkpoint()
