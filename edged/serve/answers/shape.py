"""Views and fields: the shape in which a record's value goes out.

The order is choose, fields, truncate, rename, so that rules name paths as the dataset has them; the `fields` of a
request come after the view, and name paths as the app sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edged.feed.fieldpath import step
from edged.feed.schema import ViewRule


@dataclass(frozen=True, slots=True)
class Shape:
    """name: equal for equal shapes of one schema, part of every memo key. rule: of the view; fields: of the request."""

    name: str
    rule: ViewRule
    fields: tuple[str, ...]

    def apply(self, value: Any) -> Any:
        """A new value, or `value` itself; `value` is never changed."""
        rule = self.rule
        for path, order in rule.choose.items():
            value = replace(value, path, partial(choose, order=order))
        if rule.fields:
            value = keep(value, rule.fields)
        for path, size in rule.truncate.items():
            value = replace(value, path, partial(truncate, size=size))
        if rule.rename:
            value = rename(value, rule.rename)
        return keep(value, self.fields) if self.fields else value


def keep(value: Any, paths: Sequence[str]) -> Any:
    """Only what lies at `paths`, of which a shorter one wins over a longer one that leads below it.

    A list is gone through item by item; what is neither list nor object stays as it is.
    """
    if isinstance(value, list):
        return [keep(item, paths) for item in value if isinstance(item, dict | list)]
    if not isinstance(value, dict):
        return value
    below: dict[str, list[str]] = {}
    whole: set[str] = set()
    for path in paths:
        taken = step(value, path)
        if taken is None:
            continue
        name, rest = taken
        if rest is None:
            whole.add(name)
            below.setdefault(name, [])
        elif isinstance(value[name], dict | list):
            below.setdefault(name, []).append(rest)
    return {name: value[name] if name in whole else keep(value[name], rests) for name, rests in below.items()}


def replace(value: Any, path: str | None, change: Callable[[Any], Any]) -> Any:
    """`value` with what lies at `path` replaced by change(it); copies only the way down."""
    if isinstance(value, list):
        return [replace(item, path, change) for item in value]
    if path is None:
        return change(value)
    taken = step(value, path) if isinstance(value, dict) else None
    if taken is None:
        return value
    return {**value, taken[0]: replace(value[taken[0]], taken[1], change)}


def choose(value: Any, order: Sequence[str]) -> Any:
    """The first member of an object that `order` names and that is there; the object itself if none is."""
    if isinstance(value, dict):
        for name in order:
            if value.get(name) is not None:
                return value[name]
    return value


def truncate(value: Any, size: int) -> Any:
    """At most `size` characters, the last an ellipsis where something was cut."""
    if isinstance(value, str) and len(value) > size:
        return value[: max(0, size - 1)].rstrip() + "…" if size else ""
    return value


def rename(value: Any, names: Mapping[str, str]) -> Any:
    """What lies at each old path moves to the new name at the top; where the path is missing nothing happens."""
    if not isinstance(value, dict):
        return value
    for path, name in names.items():
        found, value = take(value, path)
        if found:
            value = {**value, name: found[0]}
    return value


def take(value: dict[str, Any], path: str) -> tuple[list[Any], dict[str, Any]]:
    """What lies at `path` (a list of one, or empty), and `value` without it; an object left empty goes too."""
    taken = step(value, path)
    if taken is None:
        return [], value
    name, rest = taken
    if rest is None:
        return [value[name]], {key: item for key, item in value.items() if key != name}
    if not isinstance(value[name], dict):
        return [], value
    found, below = take(value[name], rest)
    if found and not below:
        return found, {key: item for key, item in value.items() if key != name}
    return found, {**value, name: below}
