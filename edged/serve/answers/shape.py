"""Views and fields: the shape in which a record's value goes out.

The order is choose, fields, truncate, rename, so that rules name paths as the dataset has them; the `fields` of a
request come after the view, and name paths as the app sees them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edged.feed.schema import ViewRule

Tree = dict[str, "Tree"]  # a path's steps; an empty tree keeps all below


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
            value = replace(value, path.split("."), lambda item, order=order: choose(item, order))
        if rule.fields:
            value = keep(value, tree_of(rule.fields))
        for path, size in rule.truncate.items():
            value = replace(value, path.split("."), lambda item, size=size: truncate(item, size))
        if rule.rename:
            value = rename(value, rule.rename)
        return keep(value, tree_of(self.fields)) if self.fields else value


def tree_of(paths: Sequence[str]) -> Tree:
    """A shorter path wins over a longer one that begins with it."""
    tree: Tree = {}
    for path in sorted(paths, key=len):
        node = tree
        steps = path.split(".")
        for number, step in enumerate(steps):
            if step in node and not node[step]:
                break
            node = node.setdefault(step, {})
            if number == len(steps) - 1:
                node.clear()
    return tree


def keep(value: Any, tree: Tree) -> Any:
    """Only the paths of `tree`. A list is gone through item by item; what is neither list nor object stays as it is."""
    if isinstance(value, dict):
        return {
            name: keep(value[name], below) if below and isinstance(value[name], dict | list) else value[name]
            for name, below in tree.items()
            if name in value and (not below or isinstance(value[name], dict | list))
        }
    if isinstance(value, list):
        return [keep(item, tree) for item in value if isinstance(item, dict | list)]
    return value


def replace(value: Any, steps: Sequence[str], change: Any) -> Any:
    """`value` with what lies at the path replaced by change(it); copies only the way down."""
    if isinstance(value, list):
        return [replace(item, steps, change) for item in value]
    if not steps:
        return change(value)
    if isinstance(value, dict) and steps[0] in value:
        return {**value, steps[0]: replace(value[steps[0]], steps[1:], change)}
    return value


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
        found, value = take(value, path.split("."))
        if found:
            value = {**value, name: found[0]}
    return value


def take(value: dict[str, Any], steps: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """What lies at the path (a list of one, or empty), and `value` without it; an object left empty goes too."""
    name, rest = steps[0], steps[1:]
    if name not in value:
        return [], value
    if not rest:
        return [value[name]], {key: item for key, item in value.items() if key != name}
    if not isinstance(value[name], dict):
        return [], value
    found, below = take(value[name], rest)
    if found and not below:
        return found, {key: item for key, item in value.items() if key != name}
    return found, {**value, name: below}
