"""A request's head by RFC 9112, strictly: the one judge of where a request ends, for both lanes.

What is lenient anywhere is refused here before any other parser sees it: a bare LF or CR, NUL, folded lines, space
before a colon, several Content-Length lines, Content-Length beside Transfer-Encoding, a coding other than chunked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import httptools

REQUEST_LINE = re.compile(rb"(?:\r\n)*([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/([0-9]\.[0-9])\r\n")
FIELD_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
MAX_FIELDS = 128


class HeadError(Exception):
    """A head that is refused; the connection is closed after `status` was answered."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(slots=True)
class Head:
    """method and target as sent; version "1.0" or "1.1"; fields with lower-case names; body: one is announced."""

    method: bytes
    target: bytes
    version: str
    fields: list[tuple[bytes, bytes]]
    body: bool
    expects: bool
    keep_alive: bool


class Collector:
    """Callbacks of httptools."""

    __slots__ = ("fields", "target")

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, piece: bytes) -> None:
        self.target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))  # RFC 9112 section 5.1; httptools leaves what trails


def head_end(buffer: bytes | bytearray, limit: int) -> int:
    """Where the head at the start of `buffer` ends (after its blank line), or -1 if it is not there yet.

    Raises HeadError for what no later byte can mend: bare CR or LF, NUL (RFC 9112 section 2.2), a head over `limit`.
    """
    end = buffer.find(b"\r\n\r\n")
    whole = end >= 0
    stop = end + 4 if whole else len(buffer)
    if stop > limit:
        raise HeadError(431, f"the head is over {limit} bytes")
    lines = buffer.count(b"\r\n", 0, stop)
    returns = buffer.count(b"\r", 0, stop)
    if buffer.count(b"\n", 0, stop) != lines:
        raise HeadError(400, "a line ends in LF without CR")
    if returns != lines and (whole or returns != lines + 1 or buffer[stop - 1] != 13):
        raise HeadError(400, "a CR without LF")
    if buffer.find(b"\0", 0, stop) >= 0:
        raise HeadError(400, "a NUL byte in the head")
    return stop if whole else -1


def read_head(head: bytes) -> Head:
    """Parse a whole head as `head_end` has measured it. Raises HeadError with 400, 431 or 505."""
    line = REQUEST_LINE.match(head)
    if line is None:
        raise HeadError(400, "the request line is not METHOD SP target SP HTTP/1.1")
    if line[3] not in (b"1.1", b"1.0"):
        raise HeadError(505, f"HTTP/{line[3].decode()}")
    if b"\r\n " in head or b"\r\n\t" in head:
        raise HeadError(400, "a folded line")
    collector = Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # we never switch: the request counts as what it says without Upgrade (RFC 9110 section 7.8)
    except httptools.HttpParserError as fault:
        raise HeadError(400, f"not HTTP/1.1: {fault}") from fault
    if collector.target != line[2] or parser.get_http_version() != line[3].decode():
        raise HeadError(400, "two readers of the request line disagree")
    return judge(line[1], line[2], line[3].decode(), collector.fields)


def judge(method: bytes, target: bytes, version: str, fields: list[tuple[bytes, bytes]]) -> Head:
    """Framing (RFC 9112 section 6.3), Host (section 3.2) and Connection (section 9.3) of a head."""
    if len(fields) > MAX_FIELDS:
        raise HeadError(431, f"more than {MAX_FIELDS} fields")
    lengths = hosts = 0
    coded = expects = body = False
    keep_alive = version == "1.1"
    for name, value in fields:
        if not FIELD_NAME.fullmatch(name) or BAD_VALUE.search(value):
            raise HeadError(400, "a field that is not token: visible text")
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths += 1
            if not value.isdigit() or len(value) > 18:
                raise HeadError(400, "Content-Length is not one number")
            body = body or value.strip(b"0") != b""
        elif name == b"transfer-encoding":
            if coded or value.lower() != b"chunked":
                raise HeadError(400, "Transfer-Encoding is not exactly chunked")
            coded = True
        elif name == b"expect":
            expects = True
        elif name == b"connection":
            keep_alive = keep_alive and b"close" not in [token.strip() for token in value.lower().split(b",")]
    if lengths > 1 or (lengths and coded):
        raise HeadError(400, "several lengths: Content-Length repeated, or beside Transfer-Encoding")
    if coded and version == "1.0":
        raise HeadError(400, "Transfer-Encoding in HTTP/1.0")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise HeadError(400, "exactly one Host is needed")
    return Head(method, target, version, fields, body or coded, expects, keep_alive)
