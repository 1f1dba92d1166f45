"""HTTP fields: pairs of bytes in the order received, their lines, and the lists in them (RFC 9110 section 5).

Names are lower-case in what was received. Nothing here raises on what a peer sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Fields = tuple[tuple[bytes, bytes], ...]

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
DIGITS = re.compile(rb"[0-9]+")
# What no field's value may hold (RFC 9110 section 5.5), whoever reads it next.
BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


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
