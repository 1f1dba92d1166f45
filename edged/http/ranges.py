"""Byte ranges of a whole that is there (RFC 9110 section 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edged.http.fields import Fields, values_of
from edged.http.validators import if_range_holds

RANGE = re.compile(rb"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """first and last byte, inclusive."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


class RangeNotSatisfiable(Exception):
    """No byte of the range exists: 416."""


def wanted_range(request: Fields, stored: Fields, size: int) -> ByteRange | None:
    """The one range that a GET wants of a body of `size` bytes; None where the whole is to be sent.

    Several ranges, other units and malformed ones are answered with the whole (section 14.2), and so is a range whose
    If-Range does not hold. Raises RangeNotSatisfiable.
    """
    lines = values_of(request, b"range")
    match = RANGE.fullmatch(lines[0]) if len(lines) == 1 else None
    if match is None or not if_range_holds(request, stored):
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        if int(last) == 0 or size == 0:
            raise RangeNotSatisfiable
        return ByteRange(max(0, size - int(last)), size - 1)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise RangeNotSatisfiable
    return ByteRange(int(first), min(int(last), size - 1) if last else size - 1)


def content_range(wanted: ByteRange | None, size: int) -> tuple[bytes, bytes]:
    """Content-Range of a 206, or of a 416 (None)."""
    place = b"*" if wanted is None else b"%d-%d" % (wanted.first, wanted.last)
    return b"content-range", b"bytes %b/%d" % (place, size)


def partial_fields(fields: Fields, wanted: ByteRange, size: int) -> Fields:
    """The fields of a 200 as those of a 206."""
    kept = tuple(pair for pair in fields if pair[0] not in (b"content-length", b"content-range"))
    return (*kept, content_range(wanted, size), (b"content-length", b"%d" % wanted.size))
