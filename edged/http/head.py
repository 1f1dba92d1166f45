"""A request's head and trailers by RFC 9112, strictly: the one judge of where a head ends, for both lanes.

What is lenient anywhere is refused here before any other parser sees it: a bare LF or CR, NUL, folded lines, space
before a colon, several Content-Length lines, Content-Length beside Transfer-Encoding, a coding other than chunked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import httptools

from edged.http.fields import BAD_VALUE, NOT_IN_TRAILERS, TOKEN, Fields

REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!\x22$-~]+) HTTP/([0-9]\.[0-9])\r\n")
EMPTY_LINES = re.compile(rb"(?:\r\n)*")
MAX_FIELDS = 128
GOT_BYTES = 40  # of a value that is refused, in the words that say so


class HeadError(Exception):
    """A head that is refused; the connection is closed after `status` was answered."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(slots=True)
class RequestHead:
    """method and target as sent; version "1.0" or "1.1"; fields with lower-case names; body: one is announced."""

    method: bytes
    target: bytes
    version: str
    fields: Sequence[tuple[bytes, bytes]]
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


def empty_lines_end(buffer: bytes) -> int:
    """Where the empty lines before a request end, which are passed over (RFC 9112 section 2.2)."""
    match = EMPTY_LINES.match(buffer)
    return 0 if match is None else match.end()


def head_end(buffer: bytes | bytearray, limit: int, what: str = "head") -> int:
    """Where the head at the start of `buffer` ends (after its blank line), or -1 if it is not there yet. what: of which
    lines it is, in the words of a refusal.

    Raises HeadError for what no later byte can mend: bare CR or LF, NUL (RFC 9112 section 2.2), a head over `limit`.
    """
    end = buffer.find(b"\r\n\r\n")
    whole = end >= 0
    stop = end + 4 if whole else len(buffer)
    if stop > limit:
        raise HeadError(431, f"{what}: expected at most {limit} bytes, got more")
    lines = buffer.count(b"\r\n", 0, stop)
    returns = buffer.count(b"\r", 0, stop)
    if buffer.count(b"\n", 0, stop) != lines:
        raise HeadError(400, f"{what}: expected CR LF after each line, got LF alone")
    if returns != lines and (whole or returns != lines + 1 or buffer[stop - 1] != 13):
        raise HeadError(400, f"{what}: expected CR LF after each line, got CR alone")
    if buffer.find(b"\0", 0, stop) >= 0:
        raise HeadError(400, f"{what}: expected text, got a NUL byte")
    return stop if whole else -1


def read_head(head: bytes) -> RequestHead:
    """Parse a whole head as `head_end` has measured it. Raises HeadError with 400, 431 or 505."""
    line = REQUEST_LINE.match(head)
    if line is None:
        got = shown(head.partition(b"\r\n")[0])
        wanted = "expected METHOD SP target SP HTTP/1.1, the target of visible ASCII without a fragment"
        raise HeadError(400, f"request line: {wanted}; got {got}")
    if line[3][:2] != b"1.":
        raise HeadError(505, f"request line: expected HTTP/1.1 or HTTP/1.0, got HTTP/{line[3].decode()}")
    version = "1.0" if line[3] == b"1.0" else "1.1"  # a later minor version is answered as ours (RFC 9110 section 2.5)
    if b"\r\n " in head or b"\r\n\t" in head:
        raise HeadError(400, "head: a field folded over two lines; send it on one")
    collector = Collector()
    parser = httptools.HttpRequestParser(collector)
    # llhttp takes only methods that it knows, we take any token (RFC 9110 section 9.1): it reads the rest.
    known = line[1] if line[1] == b"CONNECT" and line[2][:1] != b"/" else b"GET"
    try:
        parser.feed_data(b"%b %b HTTP/%b\r\n%b" % (known, line[2], version.encode(), head[line.end() :]))
    except httptools.HttpParserUpgrade:
        pass  # we never switch: the request counts as what it says without Upgrade (RFC 9110 section 7.8)
    except httptools.HttpParserError as fault:
        raise HeadError(400, f"head: not HTTP/1.1: {fault}") from fault
    if collector.target != line[2] or parser.get_http_version() != version:
        raise HeadError(400, "request line: two readers of it disagree")
    return judge(line[1], line[2], version, collector.fields)


def read_trailers(section: bytes) -> Fields:
    """The fields behind a chunked body, as strictly as those of a head. section: their lines between two line ends, as
    `head_end` has measured it. Raises HeadError with 400 or 431.
    """
    lines = [line for line in section.split(b"\r\n") if line]
    if len(lines) > MAX_FIELDS:
        raise HeadError(431, f"trailers: expected at most {MAX_FIELDS} fields, got {len(lines)}")
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if not colon or not TOKEN.fullmatch(name) or BAD_VALUE.search(value):
            raise HeadError(400, f"trailers: expected a token, a colon and visible text, got {shown(line)}")
        if name in NOT_IN_TRAILERS:
            raise HeadError(400, f"trailers: {shown(name)} belongs into the head, which is read before the body")
        fields.append((name, value))
    return tuple(fields)


def judge(method: bytes, target: bytes, version: str, fields: list[tuple[bytes, bytes]]) -> RequestHead:
    """Framing (RFC 9112 section 6.3), Host (section 3.2) and Connection (section 9.3) of a head."""
    if len(fields) > MAX_FIELDS:
        raise HeadError(431, f"head: expected at most {MAX_FIELDS} fields, got {len(fields)}")
    lengths = hosts = 0
    coded = expects = body = False
    keep_alive = version == "1.1"
    for name, value in fields:
        if not TOKEN.fullmatch(name) or BAD_VALUE.search(value):
            raise HeadError(400, f"field {shown(name)}: expected a token, a colon and visible text")
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths += 1
            if not value.isdigit() or len(value) > 18:
                raise HeadError(400, f"Content-Length: expected one number of at most 18 digits, got {shown(value)}")
            body = body or value.strip(b"0") != b""
        elif name == b"transfer-encoding":
            if coded or value.lower() != b"chunked":
                raise HeadError(400, f"Transfer-Encoding: expected exactly one chunked, got {shown(value)}")
            coded = True
        elif name == b"expect":
            expects = True
        elif name == b"connection":
            keep_alive = keep_alive and b"close" not in [token.strip() for token in value.lower().split(b",")]
    if lengths > 1 or (lengths and coded):
        raise HeadError(400, "Content-Length: expected once and not beside Transfer-Encoding; send one of them")
    if coded and version == "1.0":
        raise HeadError(400, "Transfer-Encoding: expected in HTTP/1.1 alone, got HTTP/1.0")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise HeadError(400, f"Host: expected exactly one, got {hosts}")
    return RequestHead(method, target, version, fields, body or coded, expects, keep_alive)


def shown(value: bytes) -> str:
    """What was got, short and printable."""
    return ascii(value[:GOT_BYTES].decode("latin-1"))
