"""Answers as HTTP/1.1 bytes: status lines, fields, chunks (RFC 9112)."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from edged.http.fields import Fields

CLOSE: Fields = ((b"Connection", b"close"),)
LAST_CHUNK = b"0\r\n\r\n"

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
