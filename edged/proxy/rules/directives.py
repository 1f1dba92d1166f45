"""Cache directives of a request or an answer, and their seconds (RFC 9111 section 5.2).

Nothing here raises on what a peer sent: what cannot be read counts as absent, or as stale where that is the careful
reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edged.http.fields import DIGITS, split_list, values_of

FOREVER_S = 1 << 31  # what a number of seconds that overflows counts as (RFC 9111 section 1.2.2)


def read_seconds(value: bytes) -> int | None:
    """delta-seconds (RFC 9111 section 1.2.2), at most FOREVER_S; None where it is not digits alone."""
    if not DIGITS.fullmatch(value):
        return None
    return FOREVER_S if len(value) > 12 else min(int(value), FOREVER_S)


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
