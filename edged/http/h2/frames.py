"""Frames of HTTP/2 (RFC 9113 sections 4, 6 and 7): names, layouts, and what is wrong with a payload."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER = Struct(">HBBBI")  # the length in two pieces, type, flags, stream
HEADER_BYTES = 9
MAX_FRAME_BYTES = 16_384  # what we take, the least that may be offered; a peer may say that it takes more
MAX_WINDOW = (1 << 31) - 1
FIRST_WINDOW = 65_535  # of the connection and of each stream until a peer says otherwise
STREAM_BITS = (1 << 31) - 1  # the highest bit is reserved and ignored
DEBUG_BYTES = 200  # of the words in a GOAWAY

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20


class FrameType(IntEnum):
    """RFC 9113 section 6; PRIORITY_UPDATE: RFC 9218 section 7.1."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9
    PRIORITY_UPDATE = 16


class ErrorCode(IntEnum):
    """RFC 9113 section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """RFC 9113 section 6.5.2; NO_RFC7540_PRIORITIES: RFC 9218 section 2.1."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    NO_RFC7540_PRIORITIES = 9


class ConnectionFault(Exception):
    """What ends the connection: a GOAWAY with `code`, the words in it, and no frame read any more."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class StreamFault(Exception):
    """What ends one stream: a RST_STREAM with `code`; the connection goes on."""

    def __init__(self, stream_id: int, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.stream_id = stream_id
        self.code = code


# --- what a peer sends ----------------------------------------------------------------------------------------------


def require_length(kind: FrameType, payload: bytes, length: int) -> None:
    """Raises ConnectionFault for a payload of a fixed size that is not of it."""
    if len(payload) != length:
        raise ConnectionFault(
            ErrorCode.FRAME_SIZE_ERROR, f"{kind.name}: expected {length} bytes of payload, got {len(payload)}"
        )


def unpad(kind: FrameType, flags: int, payload: bytes) -> bytes:
    """A payload without its padding (RFC 9113 section 6.1). Raises ConnectionFault for more padding than payload."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"{kind.name}: padded, without the length of its padding")
    padding = payload[0]
    if padding >= len(payload):
        most = len(payload) - 1
        raise ConnectionFault(
            ErrorCode.PROTOCOL_ERROR, f"{kind.name}: expected at most {most} bytes of padding, got {padding}"
        )
    return payload[1 : len(payload) - padding]


def split_priority(payload: bytes) -> tuple[int, bytes]:
    """The stream that a HEADERS frame with PRIORITY says it depends on, and its field block (section 6.2)."""
    if len(payload) < 5:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"HEADERS: expected 5 bytes of priority, got {len(payload)}")
    return int.from_bytes(payload[:4], "big") & STREAM_BITS, payload[5:]


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Settings in order, those of unknown names too. Raises ConnectionFault (section 6.5.2)."""
    if len(payload) % 6:
        raise ConnectionFault(
            ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS: expected a multiple of 6 bytes, got {len(payload)}"
        )
    settings = []
    for at in range(0, len(payload), 6):
        name, value = int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")
        if name in (Setting.ENABLE_PUSH, Setting.NO_RFC7540_PRIORITIES) and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{Setting(name).name}: expected 0 or 1, got {value}")
        if name == Setting.INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE: expected at most {MAX_WINDOW}, got {value}"
            )
        if name == Setting.MAX_FRAME_SIZE and not MAX_FRAME_BYTES <= value < 1 << 24:
            raise ConnectionFault(
                ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE: expected {MAX_FRAME_BYTES} to 16777215, got {value}"
            )
        settings.append((name, value))
    return settings


# --- what we send ---------------------------------------------------------------------------------------------------


def frame(kind: FrameType, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame. Raises struct.error for a payload that its length cannot name, which is our bug."""
    return HEADER.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream_id) + payload


def settings_frame(settings: Iterable[tuple[Setting, int]]) -> bytes:
    payload = b"".join([name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in settings])
    return frame(FrameType.SETTINGS, 0, 0, payload)


def window_update(stream_id: int, count: int) -> bytes:
    return frame(FrameType.WINDOW_UPDATE, 0, stream_id, count.to_bytes(4, "big"))


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    return frame(FrameType.RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def goaway(last_id: int, code: ErrorCode, detail: str) -> bytes:
    words = detail.encode("ascii", "replace")[:DEBUG_BYTES]
    return frame(FrameType.GOAWAY, 0, 0, last_id.to_bytes(4, "big") + code.to_bytes(4, "big") + words)


def headers_frames(stream_id: int, block: bytes, *, ended: bool, limit: int) -> bytes:
    """A field block as HEADERS and as many CONTINUATION frames of at most `limit` bytes as it takes."""
    last = END_STREAM if ended else 0
    if len(block) <= limit:
        return frame(FrameType.HEADERS, last | END_HEADERS, stream_id, block)
    pieces = [block[at : at + limit] for at in range(0, len(block), limit)]
    parts = [frame(FrameType.HEADERS, last, stream_id, pieces[0])]
    parts += [frame(FrameType.CONTINUATION, 0, stream_id, piece) for piece in pieces[1:-1]]
    parts.append(frame(FrameType.CONTINUATION, END_HEADERS, stream_id, pieces[-1]))
    return b"".join(parts)
