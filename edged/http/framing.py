"""Answers as HTTP/1.1 bytes, for the fast lane."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from edged.http.request import REASONS, Fields, Response, Shared

CLOSE: Fields = ((b"Connection", b"close"),)
LAST_CHUNK = b"0\r\n\r\n"
STATUS_LINES = {code: b"HTTP/1.1 %d %b\r\n" % (code, reason.encode()) for code, reason in REASONS.items()}


def join_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def share(fields: Fields) -> Shared:
    return Shared(fields, join_fields(fields))


def rest_of(found: Response, head_only: bool, close: bool) -> bytes:
    """What follows status line, moving and shared fields: the answer's own fields, the blank line, the body."""
    own = join_fields(found.own + CLOSE if close else found.own)
    return b"%b\r\n%b" % (own, b"" if head_only else found.body)


def chunk(data: bytes) -> bytes:
    """One chunk (RFC 9112 section 7.1); nothing for nothing, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def refusal(status: int, detail: str) -> tuple[Fields, bytes]:
    """Fields and body of the answer to a request that cannot be believed. detail: what is wrong with it."""
    title = REASONS.get(status, "Bad Request")
    body = msgspec.json.encode({"type": "about:blank", "title": title, "status": status, "detail": detail})
    return (
        (b"Content-Type", b"application/problem+json"),
        (b"Cache-Control", b"no-store"),
        (b"Content-Length", b"%d" % len(body)),
    ), body
