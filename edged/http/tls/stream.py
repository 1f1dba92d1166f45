"""A TLS session as a trio stream: for connections that go on under Hypercorn, with the session that the lane began."""

from __future__ import annotations

from contextlib import suppress

import trio

from edged.http.tls.session import TlsFault, TlsSession

RECEIVE_BYTES = 64 << 10
FAREWELL_S = 1.0
GONE = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)


class TlsStream(trio.abc.HalfCloseableStream):
    """transport: the socket, on which nothing is under way; unsent: records that the kernel has not taken yet."""

    def __init__(self, transport: trio.abc.HalfCloseableStream, session: TlsSession, unsent: bytes = b"") -> None:
        self.transport_stream = transport
        self.session = session
        self.unsent = unsent
        self.sending = trio.Lock()  # a reader may have to send too: alerts, new keys

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises trio.BrokenResourceError."""
        async with self.sending:
            try:
                records = self.unsent + (self.session.write(bytes(data)) if data else b"")
            except TlsFault as fault:
                raise trio.BrokenResourceError from fault
            self.unsent = b""
            await self.transport_stream.send_all(records)

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport_stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What the peer has sent, also more than `max_bytes`; nothing once it has ended. Raises
        trio.BrokenResourceError where it has gone without a farewell.
        """
        session = self.session
        try:
            while True:
                data = session.read()
                if data or session.ended:
                    await trio.lowlevel.checkpoint()
                    return data
                if session.outgoing.pending:
                    await self.send_all(b"")
                session.feed(bytes(await self.transport_stream.receive_some(RECEIVE_BYTES)))
        except TlsFault as fault:
            raise trio.BrokenResourceError from fault

    async def send_eof(self) -> None:
        """The farewell: nothing follows."""
        async with self.sending:
            records, self.unsent = self.unsent + self.session.close(), b""
            await self.transport_stream.send_all(records)

    async def aclose(self) -> None:
        with trio.move_on_after(FAREWELL_S), suppress(*GONE):
            await self.send_eof()
        await self.transport_stream.aclose()
