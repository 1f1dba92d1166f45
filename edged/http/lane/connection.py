"""A connection of the lane: what was read, what is still to be written, what it is in the middle of.

TRANSITIONS in lane.py says which event is taken in which state and by what; what is absent is a bug of ours.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from edged.access.identity import Identity, Peer
from edged.http.application import Answer, FileResponse, Held, InThread, Stream
from edged.http.head import RequestHead
from edged.http.lane.client import LaneClient
from edged.http.request import Request


class LaneState(IntEnum):
    """What a connection is in the middle of. Bytes that the kernel has not taken may be left over in any of them."""

    READING = 0  # between requests, or in the midst of a head
    IN_THREAD = 1  # its answer is being made in a thread
    HELD = 2  # its request waits for something to move
    STREAMING = 3  # its answer goes out in pieces
    SENDING_FILE = 4
    BY_TASK = 5  # its answer is written by a task of the application's
    HANDING_OVER = 6  # to Hypercorn, once the kernel has taken what was answered before
    LINGERING = 7  # closed for writing; reads until the peer ends too (RFC 9112 section 9.6)
    CLOSED = 8  # or gone to Hypercorn: the lane has no more to do with it
    HANDSHAKE = 9  # of TLS, before anything else
    MULTIPLEXED = 10  # HTTP/2: many requests at once, each with what it is in the middle of


class Event(IntEnum):
    """What happens to a connection."""

    READABLE = 0  # the peer has sent something, or has ended
    WRITABLE = 1  # the kernel takes more
    WOKEN = 2  # what it waits for has moved
    ANSWERED = 3  # the thread or the task is through
    SWEPT = 4  # a second has passed: deadlines
    DRAINED = 5  # the server stops


@dataclass(frozen=True, slots=True)
class FieldSection:
    """The fields of a request, judged once. name: by which answers to requests with them are remembered; common: the
    same of those that a few of the fields decide; tail: what such requests end with, from the version on; close:
    whether the connection ends after the answer.
    """

    name: bytes
    common: bytes
    tail: bytes
    fields: Sequence[tuple[bytes, bytes]]
    close: bool


NO_SECTION = FieldSection(bytes(6), bytes(6), b"\0", (), False)  # under its name nothing is remembered


@dataclass(slots=True)
class StreamUnderWay:
    """chunked: framed so (HTTP/1.1), else ended by closing; generation: of the signal that it has followed. It begins
    with none: the signal may have moved while the first pieces were made.
    """

    stream: Stream
    pieces: Iterator[bytes]
    chunked: bool
    close: bool
    generation: int = -1


@dataclass(slots=True)
class HeldRequest:
    """until: when it is answered at the latest (the lane's clock)."""

    held: Held
    head: RequestHead
    until: float


@dataclass(slots=True)
class ThreadWork:
    """A request that is answered in a thread. raw: its bytes; generation: of the application when it was asked."""

    work: InThread
    head: RequestHead
    request: Request
    raw: bytes
    generation: int
    started: bool = False
    answer: Answer | None = None


@dataclass(slots=True)
class FileUnderWay:
    """How far an open file has been sent."""

    response: FileResponse
    close: bool
    offset: int
    left: int


class ManyStreams(Protocol):
    """What is under way on a connection of HTTP/2."""

    def abandon(self) -> None:
        """The connection is closed."""


Doing = StreamUnderWay | HeldRequest | ThreadWork | FileUnderWay | LaneClient | ManyStreams


class LaneConnection:
    """partition: four bytes before each of its requests in the memory, the same only for the same identity by the
    same kind of listener; section: the fields of its latest request, where they were asked with before; unknown: a hash
    of those of its latest that were not, or 0. doing: the details of its state. outbox: bytes that the kernel did not
    take, of outbox_bytes that are held; blocked_at: since when, blocked_read: how many went out since. progress_at:
    when it last got on (the lane's clock); head_since: when the first byte of a head came that is not whole yet, or 0;
    judged: whether the application knows whose it is, so that memory may answer; waits: whether others come first.
    """

    __slots__ = (
        "blocked_at",
        "blocked_read",
        "closing",
        "doing",
        "ended",
        "fd",
        "head_since",
        "inbox",
        "judged",
        "more",
        "on_woken",
        "outbox",
        "outbox_bytes",
        "partition",
        "peer",
        "progress_at",
        "queued_bytes",
        "records",
        "section",
        "sock",
        "state",
        "unknown",
        "waits",
        "who",
        "woken",
    )

    def __init__(self, sock: socket.socket, peer: Peer, who: Identity, partition: bytes, now: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.who = who
        self.partition = partition
        self.section = NO_SECTION
        self.unknown = 0
        self.state = LaneState.READING
        self.doing: Doing | None = None
        self.inbox = b""
        self.outbox: memoryview | None = None
        self.outbox_bytes = 0
        self.queued_bytes = 0  # in the streams of HTTP/2
        self.blocked_at = 0.0
        self.blocked_read = 0
        self.records: memoryview | None = None  # encrypted, and not taken by the kernel
        self.more = False  # was read from the socket, and others got their turn before it was looked at
        self.closing = False  # after what is in the outbox
        self.ended = False  # the peer sends no more, and may still read
        self.progress_at = now
        self.head_since = 0.0
        self.judged = True
        self.waits = who.waits
        self.woken = False  # what it waits for has moved, and it has not had its turn yet
        self.on_woken: Callable[[LaneConnection], None]

    def become(self, state: LaneState, doing: Doing | None = None) -> None:
        self.state = state
        self.doing = doing

    def judge(self, request: Request) -> None:
        """The application has been asked: whose it is, is known."""
        self.judged = True
        self.waits = request.who.waits

    def end_file(self) -> None:
        """The file was sent, or will not be."""
        assert isinstance(self.doing, FileUnderWay)
        os.close(self.doing.response.handle)
        self.closing = self.doing.close
        self.become(LaneState.READING)

    def wake(self) -> None:
        """What it waits for has moved: it gets its turn soon."""
        if not self.woken:
            self.woken = True
            self.on_woken(self)

    def receive(self, size: int) -> bytes:
        """Raises BlockingIOError, OSError."""
        return self.sock.recv(size)

    def send(self, data: bytes | memoryview) -> int:
        """How much of it the kernel has taken. Raises BlockingIOError, OSError."""
        return self.sock.send(data)

    def shut(self) -> None:
        """Close for writing. Raises OSError."""
        self.sock.shutdown(socket.SHUT_WR)

    def send_file(self, handle: int, offset: int, count: int) -> int:
        """How much of a file the kernel has taken; 0 where the file ends. Raises BlockingIOError, OSError."""
        return os.sendfile(self.fd, handle, offset, count)
