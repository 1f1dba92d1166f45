"""The peer's frames that are no request: windows, settings, pings, cancelled streams; and floods of them.

What costs us and asks for nothing is allowed by rate, never by a connection's whole life. A flood of such frames
(CVE-2019-9511 to 9518), of streams opened to be cancelled (CVE-2023-44487) or made to fail (CVE-2025-8671) and of
CONTINUATION frames (CVE-2024-27316) ends its own connection. Whoever takes answers earns more: clients measure round
trips and open windows in step with what they get.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

from edged.http.h2 import frames
from edged.http.h2.answering import AnsweringSide
from edged.http.h2.events import StreamReset
from edged.http.h2.fieldblocks import TABLE_BYTES
from edged.http.h2.frames import (
    ACK,
    MAX_WINDOW,
    STREAM_BITS,
    ConnectionFault,
    ErrorCode,
    FrameType,
    Setting,
    StreamFault,
)
from edged.http.h2.streams import StreamStep

CONTROL_BURST, CONTROL_PER_S = 500, 50.0  # PING, SETTINGS, WINDOW_UPDATE, PRIORITY, empty DATA, frames of unknown type
CONTROL_EARNED = 4  # for each answer
RESET_BURST, RESET_PER_S = 1000, 33.0  # streams that a peer cancels, or makes us reset
RESET_EARNED = 1
CONTINUATIONS = 32  # frames in one field block
MOST_SETTINGS = 16  # in one frame
CODES = frozenset(ErrorCode)
NO_TABLE = b"\x20"  # a table size update to nothing


@dataclass(slots=True)
class Allowance:
    """left: what may be taken at `at` (seconds of any clock); earned: how much of what was earned is counted in it."""

    burst: int
    per_s: float
    left: float
    at: float
    earned: int = 0

    @classmethod
    def full(cls, burst: int, per_s: float, now: float) -> Allowance:
        return cls(burst, per_s, burst, now)

    def take(self, now: float, earned: int) -> bool:
        """Whether there is one more. earned: in the connection's whole life so far."""
        grown = self.left + (now - self.at) * self.per_s + (earned - self.earned)
        self.left = min(float(self.burst), grown) - 1
        self.at = now
        self.earned = earned
        return self.left >= 0


class H2Phase(IntEnum):
    """SETTINGS: the preface has come, and the peer's SETTINGS must be next; BLOCK: within a field block; DRAINING: we
    have said GOAWAY, streams that are open go on.
    """

    PREFACE = auto()
    SETTINGS = auto()
    OPEN = auto()
    BLOCK = auto()
    DRAINING = auto()
    ENDED = auto()


class ControlFrames(AnsweringSide):
    """now: of the bytes at hand, in seconds of any clock."""

    def __init__(self, now: float) -> None:
        super().__init__()
        self.now = now
        self.phase = H2Phase.PREFACE
        self.control = Allowance.full(CONTROL_BURST, CONTROL_PER_S, now)
        self.resets = Allowance.full(RESET_BURST, RESET_PER_S, now)

    def spend_control(self, what: str) -> None:
        if not self.control.take(self.now, CONTROL_EARNED * (self.answered + self.flow.data_frames)):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too many of them: {what}")

    def spend_reset(self, what: str) -> None:
        if not self.resets.take(self.now, RESET_EARNED * self.answered):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too many of them: {what}")

    def require_opened(self, kind: FrameType, stream_id: int) -> None:
        """Raises ConnectionFault for no stream, or one that the peer has not opened (section 5.1)."""
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{kind.name}: expected a stream, got 0")
        if stream_id > self.last_id or not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{kind.name}: stream {stream_id} is idle")

    def on_rst_stream(self, _flags: int, stream_id: int, payload: bytes) -> None:
        frames.require_length(FrameType.RST_STREAM, payload, 4)
        self.require_opened(FrameType.RST_STREAM, stream_id)
        stream = self.streams.get(stream_id)
        if stream is None:
            self.spend_control("RST_STREAM on streams that are over")
            return
        self.spend_reset("streams opened and cancelled")
        stream.step(StreamStep.RESET)
        self.discard(stream)
        code = int.from_bytes(payload, "big")
        known = ErrorCode(code) if code in CODES else ErrorCode.INTERNAL_ERROR  # section 7
        self.events.append(StreamReset(stream_id, known))

    def on_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """The scheme of RFC 7540, which nobody follows any more: read, so as to be passed over."""
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY: expected a stream, got 0")
        frames.require_length(FrameType.PRIORITY, payload, 5)
        self.spend_control("PRIORITY")
        if frames.split_priority(payload)[0] == stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY: a stream that depends on itself")

    def on_priority_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """RFC 9218 section 7.1."""
        self.spend_control("PRIORITY_UPDATE")
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"PRIORITY_UPDATE: expected stream 0, got {stream_id}")
        if len(payload) < 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY_UPDATE: shorter than a stream's number")
        which = int.from_bytes(payload[:4], "big") & STREAM_BITS
        if not which & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"PRIORITY_UPDATE: of stream {which}")
        stream = self.streams.get(which)
        if stream is not None:
            stream.prioritise(payload[4:])

    def on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"SETTINGS: expected stream 0, got {stream_id}")
        self.spend_control("SETTINGS")
        if flags & ACK:
            frames.require_length(FrameType.SETTINGS, payload, 0)
            return
        settings = frames.read_settings(payload)
        if len(settings) > MOST_SETTINGS:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"SETTINGS: expected at most {MOST_SETTINGS} of them")
        for name, value in settings:
            if name == Setting.INITIAL_WINDOW_SIZE and not self.flow.rewindow(value, self.streams):
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE: a stream's window too wide")
            if name == Setting.HEADER_TABLE_SIZE and value < TABLE_BYTES:
                self.resize = NO_TABLE  # its table shrinks; ours enters nothing in it (RFC 7541 section 4.2)
        self.flow.put(frames.frame(FrameType.SETTINGS, ACK, 0))
        if self.phase is H2Phase.SETTINGS:
            self.phase = H2Phase.OPEN

    def on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        frames.require_length(FrameType.PING, payload, 8)
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"PING: expected stream 0, got {stream_id}")
        self.spend_control("PING")
        if not flags & ACK:
            self.flow.put(frames.frame(FrameType.PING, ACK, 0, payload))

    def on_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """The peer opens no more streams; what it has asked is answered."""
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"GOAWAY: expected stream 0, got {stream_id}")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY: expected 8 bytes or more")
        self.spend_control("GOAWAY")

    def on_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        frames.require_length(FrameType.WINDOW_UPDATE, payload, 4)
        if stream_id:
            self.require_opened(FrameType.WINDOW_UPDATE, stream_id)
        self.spend_control("WINDOW_UPDATE")
        by = int.from_bytes(payload, "big") & STREAM_BITS
        if not stream_id:
            if not by or not self.flow.widen(by):
                code = ErrorCode.FLOW_CONTROL_ERROR if by else ErrorCode.PROTOCOL_ERROR
                raise ConnectionFault(code, f"WINDOW_UPDATE: by {by}, to more than {MAX_WINDOW}")
            return
        stream = self.streams.get(stream_id)
        if not by:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE: by nothing")
        if stream is not None:
            stream.window += by
            if stream.window > MAX_WINDOW:
                raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "WINDOW_UPDATE: a window too wide")
