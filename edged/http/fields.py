"""HTTP fields: pairs of bytes in the order received, their lines, and the lists and dates in them (RFC 9110 section 5).

Names are lower-case in what was received. Nothing here raises on what a peer sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

Fields = tuple[tuple[bytes, bytes], ...]

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
DIGITS = re.compile(rb"[0-9]+")
# What no field's value may hold (RFC 9110 section 5.5), whoever reads it next.
BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# What says where a message ends or for whom it is comes before its body (RFC 9110 section 6.5.1).
NOT_IN_TRAILERS = frozenset({b"content-length", b"transfer-encoding", b"host"})

PIVOT_YEAR = 2076  # a two-digit year that would lie past it belongs to the century before
CLOCK = rb"([0-2][0-9]):([0-5][0-9]):([0-6][0-9])"
MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
MONTH_NUMBERS = {name.lower(): number for number, name in enumerate(MONTHS, start=1)}
DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
SHORT = rb"(?:mon|tue|wed|thu|fri|sat|sun)"
LONG = rb"(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
IMF_DATE = re.compile(SHORT + rb", ([0-3][0-9]) ([a-z]{3}) ([0-9]{4}) " + CLOCK + rb" gmt")
RFC850_DATE = re.compile(LONG + rb", ([0-3][0-9])-([a-z]{3})-([0-9]{2}) " + CLOCK + rb" gmt")
ASCTIME_DATE = re.compile(SHORT + rb" ([a-z]{3}) ([ 1-3][0-9]) " + CLOCK + rb" ([0-9]{4})")
LONGEST_DATE_BYTES = 33


def values_of(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The values of every line of a field."""
    return [value for key, value in fields if key == name]


def value_of(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """A field's lines joined by ", " (RFC 9110 section 5.2), None where there is none."""
    lines = values_of(fields, name)
    return b", ".join(lines) if lines else None


def split_list(value: bytes) -> list[bytes]:
    """The members of a comma-separated list, trimmed, without empty ones; commas in quoted strings do not count."""
    if b'"' not in value:
        return [member for member in (part.strip(b" \t") for part in value.split(b",")) if member]
    members: list[bytes] = []
    start, quoted, escaped = 0, False, False
    for place, byte in enumerate(value):
        if escaped:
            escaped = False
        elif quoted and byte == 0x5C:
            escaped = True
        elif byte == 0x22:
            quoted = not quoted
        elif byte == 0x2C and not quoted:
            members.append(value[start:place])
            start = place + 1
    members.append(value[start:])
    return [member for member in (part.strip(b" \t") for part in members) if member]


def members_of(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The members of a list field over all its lines."""
    return [member for line in values_of(fields, name) for member in split_list(line)]


def names_of(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The members of a list of field names (Vary, Connection), in lower case."""
    return [member.lower() for member in members_of(fields, name)]


# --- dates (section 5.6.7) ------------------------------------------------------------------------------------------


def read_date(value: bytes) -> int | None:
    """A date as seconds since 1970, None where it is none; names in any case, all else to the letter."""
    return parse_date(value.lower()) if len(value) <= LONGEST_DATE_BYTES else None


@lru_cache(maxsize=256)  # one Date is read several times, and is that of a whole second's answers
def parse_date(text: bytes) -> int | None:
    if match := IMF_DATE.fullmatch(text):
        day, month, year, *clock = match.groups()
    elif match := RFC850_DATE.fullmatch(text):
        day, month, short, *clock = match.groups()
        year = b"%d" % (2000 + int(short) if 2000 + int(short) <= PIVOT_YEAR else 1900 + int(short))
    elif match := ASCTIME_DATE.fullmatch(text):
        month, day, *clock, year = match.groups()
    else:
        return None
    hour, minute, second = (int(part) for part in clock)
    try:
        moment = datetime(int(year), MONTH_NUMBERS[month], int(day), hour, minute, min(second, 59), tzinfo=UTC)
    except (KeyError, ValueError):
        return None  # a 13th month or a 31st of June
    return int(moment.timestamp()) + (second - min(second, 59))  # a leap second is that of the next minute


def date_of(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> int | None:
    """A field that is one date; None where it is missing, repeated or malformed."""
    lines = values_of(fields, name)
    return read_date(lines[0]) if len(lines) == 1 else None


def write_date(seconds: float) -> bytes:
    """Seconds since 1970 as an IMF-fixdate."""
    return imf_date(int(seconds))


@lru_cache(maxsize=8)
def imf_date(second: int) -> bytes:
    moment = datetime.fromtimestamp(second, UTC)
    return b"%b, %02d %b %04d %02d:%02d:%02d GMT" % (
        DAYS[moment.weekday()],
        moment.day,
        MONTHS[moment.month - 1],
        moment.year,
        moment.hour,
        moment.minute,
        moment.second,
    )
