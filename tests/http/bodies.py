"""Chunked bodies: those that are none, with the status that they are refused with, and those that are."""

from __future__ import annotations

from edged.http.head import MAX_FIELDS
from edged.http.limits import Limits

MOST_BYTES = Limits().head_bytes

BROKEN: dict[str, tuple[bytes, int]] = {
    "a size that is no number": (b"zz\r\nhello\r\n0\r\n\r\n", 400),
    "no size": (b"\r\nhello\r\n0\r\n\r\n", 400),
    "a size with a sign": (b"+3\r\nabc\r\n0\r\n\r\n", 400),
    "a size with its base": (b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    "a size of 17 digits": (b"00000000000000003\r\nabc\r\n0\r\n\r\n", 400),
    "a space before the size": (b" 3\r\nabc\r\n0\r\n\r\n", 400),
    "a space behind the size": (b"3 \r\nabc\r\n0\r\n\r\n", 400),
    "LF alone behind the size": (b"3\nabc\r\n0\r\n\r\n", 400),
    "CR alone behind the size": (b"3\rabc\r\n0\r\n\r\n", 400),
    "LF alone behind the data": (b"3\r\nabc\n0\r\n\r\n", 400),
    "more data than its size": (b"3\r\nabcd\r\n0\r\n\r\n", 400),
    "less data than its size": (b"5\r\nabc\r\n0\r\n\r\n", 400),
    "LF alone in an extension": (b"3;a\nb\r\nabc\r\n0\r\n\r\n", 400),
    "CR alone in an extension": (b"3;a=\rb\r\nabc\r\n0\r\n\r\n", 400),
    "NUL in an extension": (b"3;a=\0\r\nabc\r\n0\r\n\r\n", 400),
    "an extension without a name": (b"3;\r\nabc\r\n0\r\n\r\n", 400),
    "an extension without a value": (b"3;a=\r\nabc\r\n0\r\n\r\n", 400),
    "an extension that is left open": (b'3;a="b\r\nabc\r\n0\r\n\r\n', 400),
    "a line that is too long": (b"3;a=" + b"b" * 1020 + b"\r\nabc\r\n0\r\n\r\n", 400),
    "a line that never ends": (b"3;a=" + b"b" * 4000, 400),
    "more extensions than it is worth": ((b"1;a=" + b"b" * 1000 + b"\r\nx\r\n") * 40 + b"0\r\n\r\n", 400),
    "LF alone behind the last chunk": (b"3\r\nabc\r\n0\n\r\n", 400),
    "LF alone as the end": (b"3\r\nabc\r\n0\r\n\n", 400),
    "LF alone behind a trailer": (b"3\r\nabc\r\n0\r\nX: 1\n\r\n", 400),
    "LF alone behind trailers": (b"3\r\nabc\r\n0\r\nX: 1\r\n\n", 400),
    "LF twice behind a trailer": (b"3\r\nabc\r\n0\r\nX: 1\n\n", 400),
    "CR alone in a trailer": (b"3\r\nabc\r\n0\r\nX: 1\rY: 2\r\n\r\n", 400),
    "NUL in a trailer": (b"3\r\nabc\r\n0\r\nX: \0\r\n\r\n", 400),
    "a control character in a trailer": (b"3\r\nabc\r\n0\r\nX: \x01\r\n\r\n", 400),
    "a folded trailer": (b"3\r\nabc\r\n0\r\nX: 1\r\n y\r\n\r\n", 400),
    "a trailer folded by a tab": (b"3\r\nabc\r\n0\r\nX: 1\r\n\ty\r\n\r\n", 400),
    "trailers that begin folded": (b"3\r\nabc\r\n0\r\n X: 1\r\n\r\n", 400),
    "a space before the colon of a trailer": (b"3\r\nabc\r\n0\r\nX : 1\r\n\r\n", 400),
    "a trailer without a name": (b"3\r\nabc\r\n0\r\n: 1\r\n\r\n", 400),
    "a trailer without a colon": (b"3\r\nabc\r\n0\r\nX\r\n\r\n", 400),
    "a length in trailers": (b"3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n", 400),
    "a coding in trailers": (b"3\r\nabc\r\n0\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "a Host in trailers": (b"3\r\nabc\r\n0\r\nHost: evil.example\r\n\r\n", 400),
    "one trailer too many": (b"3\r\nabc\r\n0\r\n" + b"X: 1\r\n" * (MAX_FIELDS + 1) + b"\r\n", 431),
    "trailers that are too large": (b"3\r\nabc\r\n0\r\nX: " + b"a" * MOST_BYTES + b"\r\n\r\n", 431),
}

WHOLE = {
    "nothing": b"0\r\n\r\n",
    "three bytes": b"3\r\nabc\r\n0\r\n\r\n",
    "sizes with leading zeros": b"0000000000000003\r\nabc\r\n000\r\n\r\n",
    "sizes in either case": b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
    "extensions": b'3;a;b=c ; d = "e;\\"f"\r\nabc\r\n0;last=1\r\n\r\n',
    "a line as long as may be": b"3;a=" + b"b" * 1018 + b"\r\nabc\r\n0\r\n\r\n",
    "data that looks like an end": b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
    "trailers": b"3\r\nabc\r\n0\r\nChecksum: 1\r\nX:\r\n\r\n",
    "as many trailers as may be": b"3\r\nabc\r\n0\r\n" + b"X: 1\r\n" * MAX_FIELDS + b"\r\n",
    "trailers as large as may be": b"3\r\nabc\r\n0\r\nX: " + b"a" * (MOST_BYTES - 9) + b"\r\n\r\n",
}
