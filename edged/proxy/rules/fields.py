"""HTTP fields as the rules read them: lists, dates, seconds, Cache-Control (RFC 9110 section 5, RFC 9111 section 5.2).

Fields are pairs of bytes with lower-case names, in the order received. Nothing here raises on what a peer sent:
what cannot be read counts as absent, or as stale where that is the careful reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

Fields = tuple[tuple[bytes, bytes], ...]

FOREVER_S = 1 << 31  # what a number of seconds that overflows counts as (RFC 9111 section 1.2.2)
PIVOT_YEAR = 2076  # a two-digit year that would lie past it belongs to the century before (RFC 9110 section 5.6.7)

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
DIGITS = re.compile(rb"[0-9]+")
CLOCK = rb"([0-2][0-9]):([0-5][0-9]):([0-6][0-9])"
MONTHS = {
    name: number
    for number, name in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), start=1
    )
}
SHORT = rb"(?:mon|tue|wed|thu|fri|sat|sun)"
LONG = rb"(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
IMF_DATE = re.compile(SHORT + rb", ([0-3][0-9]) ([a-z]{3}) ([0-9]{4}) " + CLOCK + rb" gmt")
RFC850_DATE = re.compile(LONG + rb", ([0-3][0-9])-([a-z]{3})-([0-9]{2}) " + CLOCK + rb" gmt")
ASCTIME_DATE = re.compile(SHORT + rb" ([a-z]{3}) ([ 1-3][0-9]) " + CLOCK + rb" ([0-9]{4})")
LONGEST_DATE_BYTES = 33
DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
MONTH_NAMES = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


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


def read_seconds(value: bytes) -> int | None:
    """delta-seconds (RFC 9111 section 1.2.2), at most FOREVER_S; None where it is not digits alone."""
    if not DIGITS.fullmatch(value):
        return None
    return FOREVER_S if len(value) > 12 else min(int(value), FOREVER_S)


def read_date(value: bytes) -> int | None:
    """An HTTP-date in any of its three forms as seconds since 1970; names in any case, all else to the letter."""
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
        moment = datetime(int(year), MONTHS[month], int(day), hour, minute, min(second, 59), tzinfo=UTC)
    except (KeyError, ValueError):
        return None  # a 13th month or a 31st of June
    return int(moment.timestamp()) + (second - min(second, 59))


def write_date(seconds: float) -> bytes:
    """Seconds since 1970 as an IMF-fixdate."""
    moment = datetime.fromtimestamp(int(seconds), UTC)
    return b"%s, %02d %s %04d %02d:%02d:%02d GMT" % (
        DAYS[moment.weekday()],
        moment.day,
        MONTH_NAMES[moment.month - 1],
        moment.year,
        moment.hour,
        moment.minute,
        moment.second,
    )


def date_of(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> int | None:
    """A field that is one date; None where it is missing, repeated or malformed."""
    lines = values_of(fields, name)
    return read_date(lines[0]) if len(lines) == 1 else None


@dataclass(frozen=True, slots=True)
class Directives:
    """Cache directives by lower-case name; the first of several counts (RFC 9111 section 4.2.1)."""

    values: Mapping[bytes, bytes | None]

    def __contains__(self, name: bytes) -> bool:
        return name in self.values

    def seconds(self, name: bytes) -> int | None:
        """None where the directive is absent; 0 (stale) where its argument is no number of seconds."""
        if name not in self.values:
            return None
        return read_seconds(self.values[name] or b"") or 0

    def flag(self, name: bytes) -> bool:
        """Whether the directive is there without a list of field names."""
        return name in self.values and not self.values[name]

    def listed(self, name: bytes) -> list[bytes]:
        """The lower-case field names that a qualified directive (no-cache="a, b") lists."""
        return [member.lower() for member in split_list(self.values.get(name) or b"")]


NO_DIRECTIVES = Directives({})


def read_directives(lines: Sequence[bytes]) -> Directives:
    """Cache-Control from all its lines. A name with space before "=" keeps an argument that no number matches."""
    values: dict[bytes, bytes | None] = {}
    for line in lines:
        for member in split_list(line):
            name, equals, argument = member.partition(b"=")
            if not equals:
                values.setdefault(name.lower(), None)
                continue
            if name != name.rstrip() or argument != argument.lstrip():
                argument = b"?"  # malformed (RFC 9111 section 5.2 has no space there): as stale as can be
            elif argument[:1] == b'"' and argument[-1:] == b'"' and len(argument) > 1:
                argument = re.sub(rb"\\(.)", rb"\1", argument[1:-1])
            values.setdefault(name.rstrip().lower(), argument)
    return Directives(values)


def directives_of(fields: Iterable[tuple[bytes, bytes]], name: bytes = b"cache-control") -> Directives:
    lines = values_of(fields, name)
    return read_directives(lines) if lines else NO_DIRECTIVES
