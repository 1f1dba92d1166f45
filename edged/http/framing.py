"""HTTP/1.1 bytes (RFC 9112): status lines, fields and chunks as they go out, and chunked bodies as they come.

A body is read strictly: this is the one judge of where it ends. Refused are a bare LF or CR in any line, space where
the grammar has none, sizes of more than 16 digits, more of chunk extensions than a body is worth (section 7.1.1), and
trailers that no head might have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum, auto
from http import HTTPStatus

from edged.http.fields import TOKEN, Fields
from edged.http.head import HeadError, head_end, read_trailers, shown

CLOSE: Fields = ((b"Connection", b"close"),)
LAST_CHUNK = b"0\r\n\r\n"
QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
EXTENSION = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (TOKEN.pattern, TOKEN.pattern, QUOTED)
LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:" + EXTENSION + rb")*)\r\n")
LINE_BYTES = 1024  # of a chunk's first line

# By RFC 9110 section 15, where older Pythons have the words of RFC 7231.
NEWER_REASONS = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
REASONS = {int(status): status.phrase for status in HTTPStatus} | NEWER_REASONS
STATUS_LINES = {code: b"HTTP/1.1 %d %b\r\n" % (code, reason.encode()) for code, reason in REASONS.items()}


def reason_of(status: int) -> str:
    """The reason phrase; that of the class for a status that has none (section 15)."""
    return REASONS.get(status) or REASONS.get(status // 100 * 100) or "Error"


def status_line(status: int) -> bytes:
    """The line with its end; without a reason for a status that is not registered."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def join_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def chunk(data: bytes) -> bytes:
    """One chunk (RFC 9112 section 7.1); nothing for nothing, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class ChunkPhase(IntEnum):
    """What comes next."""

    LINE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    ENDED = auto()


class ChunkedBody:
    """One body, in any pieces. most_bytes: of its trailers, and of its extensions beyond the bytes that they came with.

    pending: of a line or of trailers that are not whole yet; left: of the chunk; spare: of extensions that may come.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.phase = ChunkPhase.LINE
        self.pending = b""
        self.left = 0
        self.spare = most_bytes

    @property
    def ended(self) -> bool:
        return self.phase is ChunkPhase.ENDED

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What of the body is in `data`, and what follows behind its end. Raises HeadError 400 or 431."""
        data, self.pending = self.pending + data, b""
        pieces: list[bytes] = []
        at, before = 0, -1
        while at != before and not self.ended:
            before = at
            if self.phase is ChunkPhase.DATA:
                piece = data[at : at + self.left]
                pieces.append(piece)
                at += len(piece)
                self.left -= len(piece)
                self.spare += len(piece)
                if not self.left:
                    self.phase = ChunkPhase.DATA_END
            elif self.phase is ChunkPhase.DATA_END:
                at = self.end_data(data, at)
            elif self.phase is ChunkPhase.LINE:
                at = self.read_line(data, at)
            else:
                at = self.end_trailers(data, at)
        if self.ended:
            return b"".join(pieces), data[at:]
        self.pending = data[at:]
        return b"".join(pieces), b""

    def end_data(self, data: bytes, at: int) -> int:
        end = data[at : at + 2]
        if not b"\r\n".startswith(end):
            raise HeadError(400, f"chunk: expected CR LF behind its data, got {shown(end)}")
        if len(end) < 2:
            return at
        self.phase = ChunkPhase.LINE
        return at + 2

    def read_line(self, data: bytes, at: int) -> int:
        """The size and what extends it, which means nothing to us."""
        end = data.find(b"\n", at, at + LINE_BYTES)
        if end < 0:
            if len(data) - at >= LINE_BYTES:
                raise HeadError(400, f"chunk: expected a first line of at most {LINE_BYTES} bytes, got more")
            return at
        line = LINE.fullmatch(data, at, end + 1)
        if line is None:
            wanted = "expected a size in hexadecimal digits, extensions if any, and CR LF"
            raise HeadError(400, f"chunk: {wanted}; got {shown(data[at : end + 1])}")
        self.spare -= len(line[2])
        if self.spare < 0:
            raise HeadError(400, f"chunk: expected no more than {self.most_bytes} bytes of extensions above the body's")
        self.left = int(line[1], 16)
        if self.left:
            self.phase = ChunkPhase.DATA
            return end + 1
        self.phase = ChunkPhase.TRAILERS
        return end - 1  # its line end is the one that a section without lines begins with

    def end_trailers(self, data: bytes, at: int) -> int:
        section = data[at:]
        end = head_end(section, self.most_bytes, "trailers")
        if end < 0:
            return at
        read_trailers(section[:end])
        self.phase = ChunkPhase.ENDED
        return at + end
