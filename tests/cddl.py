"""A checker for the part of CDDL (RFC 8610) that docs/feed.md uses, so that the document can be held to the vectors.

Types are values, names, choices, ranges, arrays, maps, tags and the controls .size, .le, .ge, .regexp and .cbor; an
array's repeated entry takes as many items as it can; in a map a literal key takes its member before a general one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cbor2

from edged.feed import cbor

TOKEN = re.compile(
    r'(?:\s|;[^\n]*)*("(?:[^"\\]|\\.)*"|#6\.\d+|=>|\.\.|\.[a-z]+|-?\d+|[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*|[][{}(),:=/?*])'
)
PRELUDE: dict[str, Callable[[Any], bool]] = {
    "any": lambda item: True,
    "null": lambda item: item is None,
    "bool": lambda item: isinstance(item, bool),
    "int": lambda item: type(item) is int,
    "uint": lambda item: type(item) is int and item >= 0,
    "float": lambda item: isinstance(item, float),
    "tstr": lambda item: isinstance(item, str),
    "bstr": lambda item: isinstance(item, bytes),
}
Check = Callable[[Any], bool]


@dataclass
class Entry:
    """One entry of an array or a map: how often, under which key (a map's), of which type."""

    least: int
    most: float
    key: Any  # ("literal", value), ("type", check) or None
    check: Check


class Cddl:
    """The rules of a text. `matches(rule, data)` says whether the CBOR item in `data` is of that rule."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        at, text = 0, text.rstrip()
        text = re.sub(r"\s*;[^\n]*\Z", "", text)
        while at < len(text):
            token = TOKEN.match(text, at)
            if token is None:
                raise ValueError(f"CDDL: cannot read {text[at : at + 40]!r}")
            self.tokens.append(token[1])
            at = token.end()
        self.at = 0
        self.rules: dict[str, Check] = {}
        self.used: set[str] = set()
        while self.at < len(self.tokens):
            name = self.take()
            self.expect("=")
            self.rules[name] = self.type()
        unknown = self.used - set(self.rules) - set(PRELUDE)
        if unknown:
            raise ValueError(f"CDDL: no rule for {sorted(unknown)}")

    def matches(self, rule: str, data: bytes) -> bool:
        return self.rules[rule](decode(data))

    # --- reading ---

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, token: str) -> None:
        found = self.take()
        if found != token:
            raise ValueError(f"CDDL: expected {token!r}, got {found!r} after {self.tokens[self.at - 6 : self.at - 1]}")

    def type(self) -> Check:
        choices = [self.controlled()]
        while self.peek() == "/":
            self.take()
            choices.append(self.controlled())
        return lambda item: any(choice(item) for choice in choices)

    def controlled(self) -> Check:
        base = self.plain()
        if not re.fullmatch(r"\.[a-z]+", self.peek()):
            return base
        control = self.take()
        if control == ".cbor":
            inner = self.plain()
            return lambda item: base(item) and inner(decode(item))
        if control == ".regexp":
            pattern = re.compile(literal(self.take()))
            return lambda item: base(item) and pattern.fullmatch(item) is not None
        low, high = self.bounds()
        if control == ".size":
            return lambda item: base(item) and low <= len(item) <= high
        if control == ".le":
            return lambda item: base(item) and item <= high
        if control == ".ge":
            return lambda item: base(item) and item >= low
        raise ValueError(f"CDDL: control {control} is not known here")

    def bounds(self) -> tuple[int, int]:
        """A number, or a range in parentheses."""
        if self.peek() != "(":
            number = int(self.take())
            return number, number
        self.take()
        low = int(self.take())
        self.expect("..")
        high = int(self.take())
        self.expect(")")
        return low, high

    def plain(self) -> Check:
        token = self.take()
        if token == "[":
            return array(self.group("]"))
        if token == "{":
            return mapping(self.group("}"))
        if token.startswith("#6."):
            self.expect("(")
            inner, number = self.type(), int(token[3:])
            self.expect(")")
            return lambda item: isinstance(item, cbor2.CBORTag) and item.tag == number and inner(item.value)
        if token[0] in '"-0123456789':
            value = literal(token)
            return lambda item: type(item) is type(value) and item == value
        self.used.add(token)
        return lambda item: (self.rules.get(token) or PRELUDE[token])(item)

    def group(self, end: str) -> list[Entry]:
        entries = []
        while self.peek() != end:
            least, most = self.occurrence()
            key: Any = None
            if self.peek(1) == ":":
                self.take()  # a name for the reader
                self.take()
            elif self.peek(1) == "=>":
                token = self.peek()
                key = ("literal", literal(token)) if token[0] in '"-0123456789' else ("type", None)
                check = self.plain()
                key = key if key[0] == "literal" else ("type", check)
                self.take()
            entries.append(Entry(least, most, key, self.type()))
            if self.peek() == ",":
                self.take()
        self.take()
        return entries

    def occurrence(self) -> tuple[int, float]:
        if self.peek() == "?":
            self.take()
            return 0, 1
        if self.peek() == "*" or (self.peek().isdigit() and self.peek(1) == "*"):
            least = 0 if self.peek() == "*" else int(self.take())
            self.take()
            most = int(self.take()) if self.peek().isdigit() and self.peek(1) != "=>" else float("inf")
            return least, most
        return 1, 1


def literal(token: str) -> Any:
    return token[1:-1].replace("\\\\", "\\") if token[0] == '"' else int(token)


def decode(data: bytes) -> Any:
    item = cbor2.loads(data)
    assert data.startswith((b"\xd2", b"\xd8\x62")) or cbor.encode(item) == data
    return item


def array(entries: list[Entry]) -> Check:
    def check(item: Any) -> bool:
        if not isinstance(item, list | tuple):  # within a tag cbor2 makes tuples
            return False
        at = 0
        for entry in entries:
            count = 0
            while at < len(item) and count < entry.most and entry.check(item[at]):
                at, count = at + 1, count + 1
            if count < entry.least:
                return False
        return at == len(item)

    return check


def mapping(entries: list[Entry]) -> Check:
    def check(item: Any) -> bool:
        if not isinstance(item, Mapping):
            return False
        rest = dict(item)
        for entry in entries:
            if entry.key[0] == "literal":
                if entry.key[1] not in rest:
                    if entry.least:
                        return False
                elif not entry.check(rest.pop(entry.key[1])):
                    return False
        general = [entry for entry in entries if entry.key[0] == "type"]
        return all(any(entry.key[1](key) and entry.check(value) for entry in general) for key, value in rest.items())

    return check
