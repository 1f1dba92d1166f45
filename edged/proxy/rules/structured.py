"""Structured field dictionaries (RFC 9651), as strictly as targeted cache control asks for (RFC 9213 section 2.1)."""

from __future__ import annotations

import re

from edged.proxy.rules.directives import FOREVER_S, Directives

KEY = re.compile(rb"[a-z*][a-z0-9_\-.*]*")
INTEGER = re.compile(rb"-?[0-9]{1,15}(?![0-9.])")
DECIMAL = re.compile(rb"-?[0-9]{1,12}\.[0-9]{1,3}(?![0-9.])")
STRING = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])*)"')
TOKEN = re.compile(rb"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
BINARY = re.compile(rb":([A-Za-z0-9+/]*={0,2}):")
BOOLEAN = re.compile(rb"\?([01])")
SPACE = re.compile(rb"[ \t]*")

Bare = int | float | bytes | bool | str
FIELD_BYTES = 8 << 10  # a longer dictionary is ignored
SECONDS = (b"max-age", b"s-maxage", b"stale-while-revalidate", b"stale-if-error")


class Malformed(Exception):
    """Not a structured field; the whole field is ignored (RFC 9651 section 4.2)."""


class FieldCursor:
    """A cursor over one field value."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        match = pattern.match(self.data, self.at)
        if match is not None:
            self.at = match.end()
        return match

    def peek(self) -> bytes:
        return self.data[self.at : self.at + 1]

    def skip(self, byte: bytes) -> bool:
        if self.peek() == byte:
            self.at += 1
            return True
        return False

    def key(self) -> bytes:
        match = self.take(KEY)
        if match is None:
            raise Malformed(f"no key at {self.at}")
        return match[0]

    def bare(self) -> Bare:
        """An item without parameters; text as str, tokens and binaries as bytes."""
        if match := self.take(DECIMAL):
            return float(match[0])
        if match := self.take(INTEGER):
            return int(match[0])
        if match := self.take(STRING):
            return re.sub(rb"\\(.)", rb"\1", match[1]).decode("ascii")
        if match := self.take(BINARY):
            return match[1]
        if match := self.take(BOOLEAN):
            return match[1] == b"1"
        if match := self.take(TOKEN):
            return match[0]
        raise Malformed(f"no item at {self.at}")

    def parameters(self) -> None:
        """Parameters are checked and dropped: no directive of ours has any."""
        while self.skip(b";"):
            while self.skip(b" "):
                pass
            self.key()
            if self.skip(b"="):
                self.bare()

    def inner_list(self) -> list[Bare]:
        items: list[Bare] = []
        while True:
            while self.skip(b" "):
                pass
            if self.skip(b")"):
                return items
            items.append(self.bare())
            self.parameters()
            if self.peek() not in (b" ", b")"):
                raise Malformed(f"no space after an item at {self.at}")


def read_dictionary(data: bytes) -> dict[bytes, Bare | list[Bare]]:
    """A dictionary's members without their parameters; the last of several equal keys counts. Raises Malformed."""
    if len(data) > FIELD_BYTES:
        raise Malformed("longer than is read")
    reader = FieldCursor(data.strip(b" "))
    members: dict[bytes, Bare | list[Bare]] = {}
    while reader.at < len(reader.data):
        key = reader.key()
        value: Bare | list[Bare] = True
        if reader.skip(b"="):
            value = reader.inner_list() if reader.skip(b"(") else reader.bare()
        reader.parameters()
        members.pop(key, None)
        members[key] = value
        reader.take(SPACE)
        if reader.at == len(reader.data):
            break
        if not reader.skip(b","):
            raise Malformed(f"no comma at {reader.at}")
        reader.take(SPACE)
        if reader.at == len(reader.data):
            raise Malformed("a comma at the end")
    return members


def read_list(data: bytes) -> list[Bare]:
    """A list of items without their parameters (Cache-Groups, RFC 9875). Raises Malformed."""
    if len(data) > FIELD_BYTES:
        raise Malformed("longer than is read")
    reader = FieldCursor(data.strip(b" "))
    items: list[Bare] = []
    while reader.at < len(reader.data):
        items.append(reader.bare())
        reader.parameters()
        reader.take(SPACE)
        if reader.at == len(reader.data):
            break
        if not reader.skip(b","):
            raise Malformed(f"no comma at {reader.at}")
        reader.take(SPACE)
        if reader.at == len(reader.data):
            raise Malformed("a comma at the end")
    return items


def read_targeted(lines: list[bytes]) -> Directives | None:
    """Cache directives of a targeted field; None where it is absent, empty or malformed and the next one counts."""
    if not lines:
        return None
    try:
        members = read_dictionary(b", ".join(lines))
    except Malformed:
        return None
    values: dict[bytes, bytes | None] = {}
    for name, value in members.items():
        if name in SECONDS:
            if type(value) is not int:
                return None  # the wrong type makes the field as bad as one that cannot be read
            values[name] = b"%d" % min(value, FOREVER_S)
        elif value is True:
            values[name] = None
        elif type(value) is str:
            values[name] = value.encode("ascii")
        elif type(value) is bytes:
            values[name] = value
    return Directives(values) if members else None
