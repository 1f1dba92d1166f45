"""Byte ranges served from a stored whole (RFC 9110 section 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edged.proxy.rules.fields import Fields, date_of, read_date, value_of, values_of
from edged.proxy.rules.validation import strong_equal

RANGE = re.compile(rb"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*")


@dataclass(frozen=True, slots=True)
class Span:
    """first and last byte, inclusive."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


class Unsatisfiable(Exception):
    """No byte of the range exists: 416."""


def wanted_span(request: Fields, stored: Fields, size: int) -> Span | None:
    """The one range that a request wants of a stored body of `size` bytes; None where the whole is to be sent.

    Several ranges, other units and malformed ones are answered with the whole (section 14.2); If-Range must match
    strongly. Raises Unsatisfiable.
    """
    lines = values_of(request, b"range")
    match = RANGE.fullmatch(lines[0]) if len(lines) == 1 else None
    if match is None or not if_range_holds(request, stored):
        return None
    first, last = match.groups()
    if not first:
        count = int(last) if last else 0
        if not last:
            return None
        if count == 0 or size == 0:
            raise Unsatisfiable
        return Span(max(0, size - count), size - 1)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise Unsatisfiable
    return Span(int(first), min(int(last), size - 1) if last else size - 1)


def if_range_holds(request: Fields, stored: Fields) -> bool:
    """RFC 9110 section 13.1.5: an entity tag compared strongly, or exactly the date of Last-Modified."""
    asked = value_of(request, b"if-range")
    if asked is None:
        return True
    if asked[:1] == b'"' or asked[:2] == b"W/":
        return strong_equal(asked, value_of(stored, b"etag") or b"")
    since = read_date(asked)
    return since is not None and since == date_of(stored, b"last-modified")


def partial_fields(fields: Fields, span: Span, size: int) -> Fields:
    """The stored fields as those of a 206."""
    kept = tuple(pair for pair in fields if pair[0] not in (b"content-length", b"content-range"))
    return (
        *kept,
        (b"content-range", b"bytes %d-%d/%d" % (span.first, span.last, size)),
        (b"content-length", b"%d" % span.size),
    )
