"""A peer for the HTTP transport over memory streams, scripted byte by byte, and the network that leads to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio
import trio.testing

from edged.sync.subscription import OriginAccess
from edged.sync.transports.http import HttpTransport
from edged.sync.transports.network import Network
from edged.sync.transports.transport import Traffic

Ours = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]
Script = Callable[["Peer", bytes], Awaitable[None]]


@dataclass
class Peer:
    """Answers each request by `script(peer, head of the request)`. connections: how many were opened."""

    script: Script
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    stream: Ours | None = None

    async def serve(self, stream: Ours) -> None:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                data = await stream.receive_some()
                if not data:
                    return
                buffer += data
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            self.requests.append(head)
            self.stream = stream
            await self.script(self, head)

    async def send(self, data: bytes) -> None:
        assert self.stream is not None
        await self.stream.send_all(data)

    async def answer(self, body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> None:
        size = len(body) if length is None else length
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {size}", *headers, "", ""]
        await self.send("\r\n".join(lines).encode() + body)

    async def hang_up(self) -> None:
        assert self.stream is not None
        await self.stream.aclose()
        raise EndOfScript


class EndOfScript(Exception):
    """The peer has closed the connection."""


class MemoryNetwork(Network):
    """Every connection leads to `peer`."""

    def __init__(self, traffic: Traffic, peer: Peer, nursery: trio.Nursery) -> None:
        super().__init__(traffic)
        self.peer, self.nursery = peer, nursery

    async def open(self, host: str, port: int) -> trio.abc.Stream:
        if self.public_only:
            return await super().open(host, port)
        ours, theirs = trio.testing.memory_stream_pair()
        self.peer.connections += 1
        self.nursery.start_soon(self.serve, theirs)
        await trio.lowlevel.checkpoint()
        return ours

    async def serve(self, stream: Ours) -> None:
        try:
            await self.peer.serve(stream)
        except (EndOfScript, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the client has hung up, or we have


def transport_to(
    script: Script, nursery: trio.Nursery, access: OriginAccess | None = None
) -> tuple[HttpTransport, Peer, Traffic]:
    traffic, peer = Traffic(), Peer(script)
    network = MemoryNetwork(traffic, peer, nursery)
    return HttpTransport("http://origin.test/catalog", traffic, access, network), peer, traffic
