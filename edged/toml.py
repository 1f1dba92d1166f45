"""TOML files into typed structures, with every fault named at its line: for the configuration and `<dataset>.toml`.

tomllib keeps no positions and msgspec stops at the first fault, so lines are found in the text and fields are
converted one by one.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at which line (1 is the first; 0: the file as a whole)."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


@dataclass(frozen=True, slots=True)
class Table:
    """A parsed file: its values and the line of each key path (array tables count from 0)."""

    values: dict[str, Any]
    lines: dict[Key, int]
    checks: Mapping[type, Check] = field(default_factory=dict)

    def line(self, key: Key) -> int:
        """The line of `key`, or of the nearest table around it."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 0)

    def fault(self, key: Key, text: str) -> Fault:
        name = ".".join(str(part) for part in key if not isinstance(part, int))
        return Fault(self.line(key), f"{name}: {text}" if name else text)

    def convert(self, kind: type[S], faults: list[Fault], checks: Mapping[type, Check]) -> S | None:
        """The file as a `kind`; None where faults were added. checks: by structure, run on each that is well formed."""
        before = len(faults)
        value: S = replace(self, checks=checks).convert_value(self.values, kind, (), faults)
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
        faults.append(self.fault(key, f"expected a table, got {value!r:.60}"))
        return {}

    def convert_struct(self, value: Any, kind: Any, key: Key, faults: list[Fault]) -> Any:
        if not isinstance(value, dict):
            faults.append(self.fault(key, f"expected a table, got {value!r:.60}"))
            return None
        before = len(faults)
        fields = {item.encode_name: item for item in msgspec.structs.fields(kind)}
        for name in value:
            if name not in fields:
                close = difflib.get_close_matches(name, fields, 1, 0.6)
                hint = f"did you mean {close[0]!r}?" if close else f"expected one of: {', '.join(sorted(fields))}"
                faults.append(self.fault((*key, name), f"unknown key; {hint}"))
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


def explain(text: str, kind: Any, value: Any) -> str:
    """msgspec's message with what was expected in words and what was got."""
    described = msgspec.inspect.type_info(kind)
    inside = bare(described)
    if isinstance(inside, msgspec.inspect.ListType) and isinstance(value, list) and value:
        described = inside.item_type
    hint = (getattr(described, "extra", None) or {}).get("form", "")
    text = re.sub(r"matching regex '.*?'(?= - |$)", f"of the form: {hint}" if hint else "of another form", text)
    return f"{text}; got {value!r:.80}"


def read_toml(path: Path) -> tuple[Table | None, list[Fault]]:
    """The file's table, or None and why not. Raises ConfigError if it cannot be read at all."""
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES + 1)
    except OSError as fault:
        raise ConfigError(f"read {path}: {fault.strerror}; name the file with --config, or create it") from fault
    if len(raw) > BYTES:
        raise ConfigError(f"read {path}: over {BYTES} bytes; this is not a configuration file")
    try:
        text = raw.decode()
        values = tomllib.loads(text)
    except UnicodeDecodeError as fault:
        return None, [Fault(raw[: fault.start].count(b"\n") + 1, "not UTF-8; save the file as UTF-8")]
    except tomllib.TOMLDecodeError as fault:
        at = re.search(r"at line (\d+)", str(fault))
        return None, [Fault(int(at[1]) if at else text.count("\n") + 1, f"not TOML: {fault}")]
    except RecursionError:
        return None, [Fault(0, "not TOML: nested too deeply")]
    return Table(values, locate(text)), []


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
