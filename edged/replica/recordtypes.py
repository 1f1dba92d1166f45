"""The types of a collection's records, found by looking at every one of them: as TypeScript and as JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

MOST_FIELDS = 100  # of one object; where there are more, its names are data, and it is a map
IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
WORDS = re.compile(r"[A-Za-z0-9]+")
SCALARS = ("null", "boolean", "integer", "number", "string")
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Seen:
    """What was seen at one place. kinds: names of JSON Schema, but for objects and lists; objects, fields: how many
    objects there were, and what was seen in their fields; named: in any field, once there were too many names; items:
    in lists.
    """

    __slots__ = ("count", "fields", "items", "kinds", "named", "objects")

    def __init__(self) -> None:
        self.count, self.objects = 0, 0
        self.kinds: set[str] = set()
        self.fields: dict[str, Seen] = {}
        self.named: Seen | None = None
        self.items: Seen | None = None

    def add(self, value: Any) -> None:
        """One more value."""
        self.count += 1
        if isinstance(value, dict):
            self.objects += 1
            self.add_fields(value)
        elif isinstance(value, list):
            self.items = self.items or Seen()
            for item in value:
                self.items.add(item)
        else:
            self.kinds.add(kind_of(value))

    def add_fields(self, value: Mapping[str, Any]) -> None:
        for name, item in value.items():
            if self.named is not None:
                self.named.add(item)
            elif name in self.fields or len(self.fields) < MOST_FIELDS:
                self.fields.setdefault(name, Seen()).add(item)
            else:
                self.named = Seen()
                for seen in self.fields.values():
                    self.named.merge(seen)
                self.fields.clear()
                self.named.add(item)

    def merge(self, other: Seen) -> None:
        """As if what `other` has seen had been seen here."""
        self.count += other.count
        self.objects += other.objects
        self.kinds |= other.kinds
        if other.items is not None:
            self.items = self.items or Seen()
            self.items.merge(other.items)
        if other.named is not None and self.named is None:
            self.named = Seen()
            for seen in self.fields.values():
                self.named.merge(seen)
            self.fields.clear()
        if self.named is not None:
            for seen in (*other.fields.values(), *([other.named] if other.named is not None else [])):
                self.named.merge(seen)
            return
        for name, seen in other.fields.items():
            self.fields.setdefault(name, Seen()).merge(seen)

    def required(self) -> list[str]:
        """The fields of every object."""
        return sorted(name for name, seen in self.fields.items() if seen.count == self.objects)


def kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    return "integer" if isinstance(value, int) or value.is_integer() else "number"


def type_names(collections: Iterable[str]) -> dict[str, str]:
    """A name of a type for each collection, of letters and digits, no two alike."""
    names: dict[str, str] = {}
    for collection in collections:
        name = "".join(word[:1].upper() + word[1:] for word in WORDS.findall(collection))
        name = name if name[:1].isalpha() else f"T{name}"
        taken, number = set(names.values()), 2
        while name in taken:
            name, number = f"{name.rstrip('0123456789')}{number}", number + 1
        names[collection] = name
    return names


def typescript(dataset: str, version: int, seen: Mapping[str, Seen], refs: Mapping[str, Mapping[str, str]]) -> str:
    """A module with an interface for each collection, and one that has them by name. refs: fields that hold keys."""
    names = type_names(seen)
    parts = [f"// What the records of {dataset} hold, as of version {version}. Made by `edged types`."]
    for collection, found in seen.items():
        comment = f"/** A record of {collection}, of {found.count}. */"
        references = refs.get(collection, {})
        if found.objects == found.count and found.named is None:
            parts.append(f"{comment}\nexport interface {names[collection]} {fields_of(found, '', references)}")
        else:
            parts.append(f"{comment}\nexport type {names[collection]} = {typescript_of(found, '', references)};")
    members = "".join(f"  {quoted(collection)}: {name};\n" for collection, name in names.items())
    parts.append(f"/** The type of a record by its collection. */\nexport interface Collections {{\n{members}}}")
    return "\n\n".join(parts) + "\n"


def typescript_of(seen: Seen, indent: str, refs: Mapping[str, str]) -> str:
    kinds = {"number" if kind == "integer" else kind for kind in seen.kinds}
    words = [kind for kind in SCALARS if kind in kinds and kind != "null"]
    if seen.objects:
        words.append(fields_of(seen, indent, refs))
    if seen.items is not None:
        inner = typescript_of(seen.items, indent, refs) if seen.items.count else "unknown"
        words.append(f"({inner})[]" if " | " in outer_of(inner) else f"{inner}[]")
    return " | ".join([*words, *(["null"] if "null" in kinds else [])])


def outer_of(text: str) -> str:
    """A type without what stands in its braces."""
    depth, kept = 0, []
    for sign in text:
        depth -= sign == "}"
        if not depth:
            kept.append(sign)
        depth += sign == "{"
    return "".join(kept)


def fields_of(seen: Seen, indent: str, refs: Mapping[str, str]) -> str:
    """An object's type. refs: paths from here that hold keys."""
    if seen.named is not None:
        return f"{{ [name: string]: {typescript_of(seen.named, indent, {})} }}"
    if not seen.fields:
        return "{}"
    required, lines = set(seen.required()), []
    for name, found in sorted(seen.fields.items()):
        below = {path[len(name) + 1 :]: to for path, to in refs.items() if path.startswith(name + ".")}
        comment = f"  // {'keys' if found.items is not None else 'key'} of {refs[name]}" if name in refs else ""
        sign = "" if name in required else "?"
        lines.append(f"{indent}  {quoted(name)}{sign}: {typescript_of(found, indent + '  ', below)};{comment}\n")
    return f"{{\n{''.join(lines)}{indent}}}"


def quoted(name: str) -> str:
    return name if IDENTIFIER.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def json_schema(dataset: str, version: int, seen: Mapping[str, Seen]) -> dict[str, Any]:
    """A schema of {collection: {key: record}}, with a definition for each collection's records."""
    names = type_names(seen)
    return {
        "$schema": DIALECT,
        "title": dataset,
        "description": f"What the records of {dataset} hold, as of version {version}.",
        "type": "object",
        "properties": {
            collection: {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{name}"}}
            for collection, name in names.items()
        },
        "$defs": {names[collection]: schema_of(found) for collection, found in seen.items()},
    }


def schema_of(seen: Seen) -> dict[str, Any]:
    """The schema of one place. Fields that were not seen are allowed: a later version may bring them."""
    kinds = seen.kinds - ({"integer"} if "number" in seen.kinds else set())  # which a number is too
    types = [kind for kind in SCALARS if kind in kinds]
    found: dict[str, Any] = {}
    if seen.objects:
        types.append("object")
        if seen.named is not None:
            found["additionalProperties"] = schema_of(seen.named)
        elif seen.fields:
            found["properties"] = {name: schema_of(below) for name, below in sorted(seen.fields.items())}
        if required := seen.required():
            found["required"] = required
    if seen.items is not None:
        types.append("array")
        if seen.items.count:
            found["items"] = schema_of(seen.items)
    return {"type": types[0] if len(types) == 1 else types, **found} if types else {}
