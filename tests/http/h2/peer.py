"""A client of raw frames for one H2Connection, in one process and without a socket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edged.http.h2 import frames
from edged.http.h2.connection import H2Connection, H2Limits
from edged.http.h2.control import H2Phase
from edged.http.h2.events import ConnectionEnded, Event, RequestReceived
from edged.http.h2.fieldblocks import BlockDecoder, encode_field, encode_status
from edged.http.h2.frames import END_HEADERS, END_STREAM, HEADER, HEADER_BYTES, PREFACE, ErrorCode, FrameType
from edged.http.h2.remembered import RememberedFrames
from edged.http.memory import Memo, size_of_bytes

Pairs = Sequence[tuple[bytes, bytes]]

GET: Pairs = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/v1"), (b":authority", b"localhost"))
POST: Pairs = ((b":method", b"POST"), *GET[1:])
OK = encode_status(200)


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of a RST_STREAM or a GOAWAY."""
        return int.from_bytes(self.payload[-4:] if self.kind == FrameType.RST_STREAM else self.payload[4:8], "big")


def parse(data: bytes) -> list[Frame]:
    found, at = [], 0
    while at < len(data):
        high, low, kind, flags, stream_id = HEADER.unpack_from(data, at)
        end = at + HEADER_BYTES + (high << 8 | low)
        assert end <= len(data), "a frame that breaks off"
        found.append(Frame(kind, flags, stream_id, data[at + HEADER_BYTES : end]))
        at = end
    return found


def block(fields: Pairs) -> bytes:
    return b"".join(encode_field(name, value) for name, value in fields)


def headers(stream_id: int, fields: Pairs = GET, flags: int = END_STREAM | END_HEADERS) -> bytes:
    return frames.frame(FrameType.HEADERS, flags, stream_id, block(fields))


def data(stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    return frames.frame(FrameType.DATA, flags, stream_id, payload)


def raw(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Any frame, also of a type that there is none of."""
    return HEADER.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream_id) + payload


class Peer:
    """now: the clock; events: all so far; sent: every frame that has come back so far."""

    def __init__(self, *, begun: bool = True, streams: int = 100, head_bytes: int = 32 << 10) -> None:
        self.now = 0.0
        self.memory = RememberedFrames(Memo(1 << 20, size_of_bytes))
        self.memory.renew(1, 1.0)
        self.decoder = BlockDecoder(1 << 18, head_bytes, 128)
        self.connection = H2Connection(self.decoder, self.memory, H2Limits(streams, head_bytes), b"mark", self.now)
        self.events: list[Event] = []
        self.sent: list[Frame] = []
        if begun:
            self.send(PREFACE, frames.settings_frame(()))
            assert [frame.kind for frame in self.sent] == [
                FrameType.SETTINGS,
                FrameType.WINDOW_UPDATE,
                FrameType.SETTINGS,
            ]
            self.sent.clear()

    def send(self, *data: bytes) -> list[Frame]:
        """What comes back for it."""
        self.connection.receive(b"".join(data), self.now)
        while True:
            self.events += self.connection.take_events()
            if not self.connection.has_more():
                break
            self.connection.receive(b"", self.now)
        return self.take()

    def take(self) -> list[Frame]:
        found = parse(self.connection.take_output())
        self.events += self.connection.take_events()
        self.sent += found
        return found

    def answer(self, stream_id: int, body: bytes = b"", head: bytes = OK) -> list[Frame]:
        self.connection.answer(stream_id, head, body)
        return self.take()

    def requests(self) -> list[RequestReceived]:
        return [event for event in self.events if isinstance(event, RequestReceived)]

    def ended(self) -> ErrorCode | None:
        """The code that the connection has ended with; a GOAWAY has said it too."""
        codes = [event.code for event in self.events if isinstance(event, ConnectionEnded)]
        if not codes:
            return None
        assert self.connection.phase is H2Phase.ENDED
        assert [frame.code for frame in self.sent if frame.kind == FrameType.GOAWAY][-1] == codes[0]
        return codes[0]

    def reset(self, stream_id: int) -> ErrorCode | None:
        codes = [f.code for f in self.sent if f.kind == FrameType.RST_STREAM and f.stream_id == stream_id]
        return ErrorCode(codes[0]) if codes else None
