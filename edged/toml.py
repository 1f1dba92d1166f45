"""TOML files into typed structures, with every fault named at its line: for the configuration and `<dataset>.toml`.

tomllib keeps no positions and msgspec stops at the first fault, so lines are found in the text and fields are
converted one by one.
"""

from __future__ import annotations

import codecs
import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edged.errors import ConfigError

Key = tuple[str | int, ...]
Check = Callable[[Any, "Table", Key], "list[Fault]"]  # what types cannot say of one structure
S = TypeVar("S")

HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
ASSIGNMENT = re.compile(
    r"^\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*="
)
BYTES = 4 << 20
BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line of a file. number: in the order in which files are read; line: 1 is the first, 0 the file as a whole."""

    number: int
    path: Path
    line: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where."""

    place: Place
    text: str

    def __str__(self) -> str:
        line = f" line {self.place.line}:" if self.place.line else ""
        return f"{self.place.path}:{line} {self.text}"


@dataclass(frozen=True, slots=True)
class Table:
    """A parsed file, or several read one after the other: the values, and the place of each key path (array tables
    count from 0; the place of the empty path is the first file). homes: the section that each key belongs to."""

    values: dict[str, Any]
    places: dict[Key, Place]
    checks: Mapping[type, Check] = field(default_factory=dict)
    homes: Mapping[str, str] = field(default_factory=dict)

    def place(self, key: Key) -> Place:
        """The place of `key`, or of the nearest table around it."""
        while key and key not in self.places:
            key = key[:-1]
        return self.places[key]

    def fault(self, key: Key, text: str) -> Fault:
        name = ".".join(str(part) for part in key if not isinstance(part, int))
        return Fault(self.place(key), f"{name}: {text}" if name else text)

    def add(self, later: Table) -> None:
        """Take in a file that is read after this one: its keys replace, its array tables are added."""
        self.add_table(self.values, later.values, (), later)

    def add_table(self, mine: dict[str, Any], theirs: dict[str, Any], key: Key, later: Table) -> None:
        for name, value in theirs.items():
            at = (*key, name)
            old = mine.get(name)
            if isinstance(old, dict) and isinstance(value, dict):
                self.add_table(old, value, at, later)
            elif isinstance(old, list) and is_array_of_tables(old) and is_array_of_tables(value):
                for index, item in enumerate(value):
                    self.take_places(later, (*at, index), (*at, len(old)))
                    old.append(item)
            else:
                mine[name] = value
                for stale in [path for path in self.places if path[: len(at)] == at]:
                    del self.places[stale]
                self.take_places(later, at, at)

    def take_places(self, later: Table, theirs: Key, mine: Key) -> None:
        for path, place in later.places.items():
            if path[: len(theirs)] == theirs:
                self.places[mine + path[len(theirs) :]] = place

    def convert(self, kind: type[S], faults: list[Fault], checks: Mapping[type, Check]) -> S | None:
        """The file as a `kind`; None where faults were added. checks: by structure, run on each that is well formed."""
        before = len(faults)
        value: S = replace(self, checks=checks, homes=homes_of(kind)).convert_value(self.values, kind, (), faults)
        return value if len(faults) == before else None

    def convert_value(self, value: Any, kind: Any, key: Key, faults: list[Fault]) -> Any:
        info = bare(msgspec.inspect.type_info(kind))
        if isinstance(info, msgspec.inspect.StructType) and isinstance(value, dict):
            return self.convert_struct(value, info.cls, key, faults)
        if isinstance(info, msgspec.inspect.ListType) and isinstance(value, list):
            inner = bare(info.item_type)
            if isinstance(inner, msgspec.inspect.StructType):
                return [self.convert_struct(item, inner.cls, (*key, at), faults) for at, item in enumerate(value)]
        if isinstance(info, msgspec.inspect.DictType) and isinstance(value, dict):
            inner = bare(info.value_type)
            if isinstance(inner, msgspec.inspect.StructType):
                return {
                    name: self.convert_struct(item, inner.cls, (*key, name), faults) for name, item in value.items()
                }
            leaf = bare(inner.value_type) if isinstance(inner, msgspec.inspect.DictType) else None
            if isinstance(leaf, msgspec.inspect.StructType):
                deep = leaf.cls
                return {
                    name: {
                        under: self.convert_struct(item, deep, (*key, name, under), faults)
                        for under, item in self.table_at(entry, (*key, name), faults).items()
                    }
                    for name, entry in value.items()
                }
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as fault:
            faults.append(self.fault(key, explain(str(fault), kind, value)))
            return None

    def table_at(self, value: Any, key: Key, faults: list[Fault]) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        faults.append(self.fault(key, f"expected a table; got {shown(value)}"))
        return {}

    def convert_struct(self, value: Any, kind: Any, key: Key, faults: list[Fault]) -> Any:
        if not isinstance(value, dict):
            faults.append(self.fault(key, f"expected a table; got {shown(value)}"))
            return None
        before = len(faults)
        fields = {item.encode_name: item for item in msgspec.structs.fields(kind)}
        for name in value:
            if name not in fields:
                faults.append(self.fault((*key, name), f"unknown key; {hint_for(name, fields, self.homes)}"))
        found = {}
        for name, item in fields.items():
            if name in value:
                found[item.name] = self.convert_value(value[name], item.type, (*key, name), faults)
            elif item.required:
                faults.append(self.fault(key, f"the key {name!r} is missing; add it"))
        if len(faults) > before:
            return None
        made = kind(**found)
        faults += self.checks[kind](made, self, key) if kind in self.checks else []
        return made


def bare(info: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """The type without its description."""
    return info.type if isinstance(info, msgspec.inspect.Metadata) else info


def is_array_of_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def homes_of(kind: Any) -> dict[str, str]:
    """The sections of a structure, as they are written, by the keys that only one of them has."""
    found: dict[str, str] = {}
    shared: set[str] = set()

    def visit(struct: Any, path: str) -> None:
        for item in msgspec.structs.fields(struct):
            info = bare(msgspec.inspect.type_info(item.type))
            inner = bare(info.item_type) if isinstance(info, msgspec.inspect.ListType) else info
            here = f"{path}.{item.encode_name}".lstrip(".")
            if isinstance(inner, msgspec.inspect.StructType):
                visit(inner.cls, here)
            elif path:
                shared.update({item.encode_name} & found.keys())
                found[item.encode_name] = path

    visit(kind, "")
    return {name: path for name, path in found.items() if name not in shared}


def hint_for(name: str, fields: Mapping[str, Any], homes: Mapping[str, str]) -> str:
    """What an unknown key may have been meant to be: another of its section, or one of another section."""
    if close := difflib.get_close_matches(name, fields, 1, 0.7):
        return f"did you mean {close[0]!r}?"
    if close := difflib.get_close_matches(name, homes, 1, 0.85):
        return f"did you mean {close[0]!r} of [{homes[close[0]]}]?"
    return f"expected one of: {', '.join(sorted(fields))}"


WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
TYPES = re.compile(r"`((?:str|int|float|bool|array|object|null)(?: \| [a-z]+)*)`")
CREDENTIALS = re.compile(r"//[^/\s@]*@")


def explain(text: str, kind: Any, value: Any) -> str:
    """msgspec's message in words: what was expected, what was got, without credentials."""
    text, _, path = text.partition(" - at `$")
    described = msgspec.inspect.type_info(kind)
    inside = bare(described)
    if isinstance(inside, msgspec.inspect.ListType) and path:
        described = inside.item_type
        inside = bare(described)
    if isinstance(inside, msgspec.inspect.UnionType) and isinstance(value, str):
        described = next((item for item in inside.types if isinstance(bare(item), msgspec.inspect.StrType)), described)
        inside = bare(described)
    index = re.match(r"\[(\d+)\]", path)
    got: Any = value[int(index[1])] if index and isinstance(value, list) else value
    if isinstance(inside, msgspec.inspect.LiteralType):
        text = f"Expected one of: {', '.join(map(str, inside.values))}"
    elif isinstance(got, bool | int | float | str | list | dict) and ", got `" in text:
        text = text.partition(", got `")[0]
    hint = (getattr(described, "extra", None) or {}).get("form", "")
    text = re.sub(r"matching regex '.*'$", f"of the form: {hint}" if hint else "of another form", text)
    text = TYPES.sub(lambda found: " or ".join(WORDS[name] for name in found[1].split(" | ") if name in WORDS), text)
    where = f"item {int(index[1]) + 1}: " if index else ""
    return f"{where}{text[:1].lower()}{text[1:]}; got {shown(got)}"


def shown(value: object) -> str:
    """A value as TOML has it, in one short line, without credentials."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return CREDENTIALS.sub("//…@", text)[:80]


def read_toml(path: Path, number: int = 0) -> tuple[Table | None, list[Fault]]:
    """The file's table, or None and why not. number: of the file, where several are read one after the other.

    Raises ConfigError if it cannot be read at all.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES + 1)
    except OSError as fault:
        raise ConfigError(f"read {path}: {fault.strerror}; name the file with --config, or create it") from fault
    if len(raw) > BYTES:
        raise ConfigError(f"read {path}: over {BYTES} bytes; this is not a configuration file")

    def refused(line: int, what: str) -> tuple[None, list[Fault]]:
        return None, [Fault(Place(number, path, line), what)]

    if raw.startswith(BYTE_ORDER_MARKS):
        return refused(1, "begins with a byte order mark; save the file as UTF-8 without one")
    try:
        text = raw.decode()
        values = tomllib.loads(text)
    except UnicodeDecodeError as fault:
        return refused(raw[: fault.start].count(b"\n") + 1, "not UTF-8; save the file as UTF-8")
    except tomllib.TOMLDecodeError as fault:
        at = re.search(r"at line (\d+)", str(fault))
        return refused(int(at[1]) if at else text.count("\n") + 1, f"not TOML: {fault}")
    except RecursionError:
        return refused(0, "not TOML: nested too deeply")
    places = {key: Place(number, path, line) for key, line in locate(text).items()}
    return Table(values, {(): Place(number, path, 0)} | places), []


def locate(text: str) -> dict[Key, int]:
    """The line at which each table and key stands. Lines in multi-line strings can add keys that nobody asks for."""
    lines: dict[Key, int] = {}
    counts: dict[Key, int] = {}
    here: Key = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := HEADER.match(line):
            here = resolve(dotted(header[2]), counts, header[1] == "[[")
            lines.setdefault(here, number)
        elif assignment := ASSIGNMENT.match(line):
            path = dotted(assignment[1])
            for depth in range(1, len(path) + 1):
                lines.setdefault((*here, *path[:depth]), number)
    return lines


def resolve(path: tuple[str, ...], counts: dict[Key, int], array: bool) -> Key:
    """A header's path with the index of each array table in it."""
    here: Key = ()
    for depth, part in enumerate(path):
        here = (*here, part)
        if array and depth == len(path) - 1:
            counts[here] = counts.get(here, -1) + 1
        if here in counts:
            here = (*here, counts[here])
    return here


def dotted(text: str) -> tuple[str, ...]:
    parts = re.findall(r"\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9_-]+)", text)
    return tuple(next(part for part in match if part) if any(match) else "" for match in parts)
