"""A connection of the fast lane: what was read, what is still to be written, and what it is in the middle of."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from edged.access.identity import Identity, Peer
from edged.http.head import Head
from edged.http.lane.call import Application, Call
from edged.http.request import Held, Request, Stream


@dataclass(slots=True)
class Flow:
    """An answer in pieces under way. chunked: framed so (HTTP/1.1), else ended by closing; generation: of
    the news that it has followed.
    """

    stream: Stream
    pieces: Iterator[bytes]
    chunked: bool
    close: bool
    generation: int


@dataclass(slots=True)
class Wait:
    """A held request, and when it is answered at the latest (the lane's clock)."""

    held: Held
    request: Request
    close: bool
    until: float


@dataclass(slots=True)
class Job:
    """A request that is answered in a thread. raw: its bytes; generation: of the news when it was asked."""

    request: Request
    raw: bytes
    close: bool
    generation: int
    started: bool = False


class Proxied(Protocol):
    """The proxy's answers for one identity."""

    def remembered(self, raw: bytes) -> bytes | None:
        """The whole answer to the bytes of a head that was answered before, while it holds."""

    def lookup(self, raw: bytes, head: Head) -> bytes | Application | None:
        """For the bytes of a head and what they say: the whole answer where memory has it, else what will answer; None
        where the slow lane must.
        """


# The proxy's answers for an identity; the function says whether a Host value is answered at all.
Lanes = Callable[[Identity, Callable[[bytes], bool]], Proxied]


class LaneConnection:
    """proxied: None where nothing is proxied.

    mark: four bytes before each of its requests in the memory, the same only for the same identity by the same kind
    of listener. outbox: bytes that the kernel did not take. touched: when it last got on (the lane's clock).
    """

    __slots__ = (
        "alive",
        "call",
        "closing",
        "ended",
        "fd",
        "flow",
        "handing",
        "head_since",
        "inbox",
        "job",
        "lingering",
        "mark",
        "outbox",
        "peer",
        "proxied",
        "sock",
        "touched",
        "wait",
        "who",
    )

    def __init__(self, sock: socket.socket, peer: Peer, who: Identity, mark: bytes, now: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.who = who
        self.mark = mark
        self.proxied: Proxied | None = None
        self.inbox = b""
        self.outbox: memoryview | None = None
        self.flow: Flow | None = None
        self.wait: Wait | None = None
        self.job: Job | None = None
        self.call: Call | None = None
        self.alive = True  # in the lane
        self.closing = False  # after what is in the outbox
        self.ended = False  # the peer sends no more, and may still read
        self.handing = False  # to Hypercorn, after what is in the outbox
        self.lingering = False  # closed for writing, reading until the peer ends too
        self.touched = now
        self.head_since = 0.0

    def is_waiting(self) -> bool:
        """Whether the next request has to wait until something other than the peer has happened."""
        return not (self.flow is None and self.wait is None and self.job is None and self.call is None)
