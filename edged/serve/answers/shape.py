"""Views, fields and expansions: the shape in which a record's value goes out.

The order is choose, fields, truncate, limit, expand, rename, so that rules name paths as the dataset has them; the
`fields` of a request come after the view, and name paths as the app sees them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from edged.errors import QueryError, RequestError
from edged.feed.fieldpath import step
from edged.feed.references import Reference, references, with_records
from edged.feed.schema import NOTHING, Schema, ViewRule, view_to_cbor
from edged.serve.answers.query import Query
from edged.serve.catalog import View

NO_RULE = ViewRule()


def no_record(reference: Reference, key: str) -> Any:
    """Where nothing is expanded."""
    return key


@dataclass(frozen=True, slots=True)
class Shape:
    """name: equal for equal shapes of one schema, part of every memo key. rule: of the view; fields: of the request;
    expand: the references in whose place records come, each with the shape of those.
    """

    name: str
    rule: ViewRule
    fields: tuple[str, ...]
    expand: Mapping[Reference, Shape | None] = field(default_factory=dict)

    def apply(self, value: Any, record: Callable[[Reference, str], Any] = no_record) -> Any:
        """A new value, or `value` itself; `value` is never changed. record(reference, key): what comes for a key."""
        rule = self.rule
        for path, order in rule.choose.items():
            value = replace(value, path, partial(choose, order=order))
        if rule.fields:
            value = keep(value, rule.fields)
        for path, size in rule.truncate.items():
            value = replace(value, path, partial(truncate, size=size))
        for path, size in rule.limit.items():
            value = shorten(value, path, size)
        if self.expand:
            value = with_records(value, self.expand, record)
        if rule.rename:
            value = rename(value, rule.rename)
        return keep(value, self.fields) if self.fields else value


def shape_of(schema: Schema, collection: str, query: Query) -> Shape | None:
    """The shape that `view`, `fields` and `expand` ask for; None for the records as they are.

    Raises RequestError 400 for a view, QueryError for a reference that is not declared.
    """
    rule = NO_RULE
    if query.view:
        rules = schema.views.get(query.view)
        if rules is None:
            there = ", ".join(sorted(schema.views)) or "none"
            raise RequestError(400, f"view {query.view!r:.80} is not declared; declared: {there}")
        rule = rules.get(collection, NO_RULE)
    if rule is NO_RULE and not query.fields and not query.expand:
        return None
    found = references(schema, collection, (*rule.expand, *query.expand)) if rule.expand or query.expand else ()
    return make_shape(schema, query.view, rule, query.fields, found)


def shapes_of(schema: Schema, collections: Iterable[str], query: Query) -> dict[str, Shape]:
    """`shape_of` of each collection that has one; a reference of `expand` need be declared in one of them alone."""
    known = {name: [path for path in query.expand if is_declared(schema, name, path)] for name in collections}
    for path in query.expand:
        if not any(path in paths for paths in known.values()):
            raise RequestError(
                400, f"expand={path:.80}: no collection declares such a reference; see refs of the dataset"
            )
    shapes = {
        name: shape_of(schema, name, dataclasses.replace(query, expand=tuple(paths))) for name, paths in known.items()
    }
    return {name: shape for name, shape in shapes.items() if shape is not None}


def is_declared(schema: Schema, collection: str, path: str) -> bool:
    try:
        return bool(references(schema, collection, (path,)))
    except QueryError:
        return False


def make_shape(
    schema: Schema, view: str, rule: ViewRule, fields: tuple[str, ...], found: Sequence[Reference]
) -> Shape | None:
    """found: the references to expand; what comes in their place is in the view's shape too."""
    if rule is NO_RULE and not fields and not found:
        return None
    expand = {}
    for reference in found:
        below = schema.views.get(view, NOTHING).get(reference.collection, NO_RULE)
        expand[reference] = make_shape(schema, view, below, (), reference.below)
    words = [
        view_to_cbor(rule),
        fields,
        [[*reference[:2], shape and shape.name] for reference, shape in expand.items()],
    ]
    return Shape(msgspec.json.encode(words).decode(), rule, fields, expand)


def refuse_unseen(schema: Schema, collection: str, query: Query) -> None:
    """Raise RequestError 403 for a condition, an order or a search by what a view leaves out: who gets nothing but the
    view would learn of it.
    """
    rule = schema.views.get(query.view, NOTHING).get(collection, NO_RULE)
    rules = schema.collections.get(collection)
    if not rule.fields or rules is None:
        return
    asked = query.asked
    by = [*asked.where, asked.order.removeprefix("-"), query.group, asked.distinct, *query.facets]
    by += [*rules.text, rules.rank] if asked.text else []
    by += list(rules.interval) if asked.has_interval else []
    for path in by:
        if path and not any(leads(seen, path) for seen in rule.fields):
            raise RequestError(403, f"this app's view has no field {path!r:.80}, by which it may not ask either")


def lost_fields(
    view: View, collection: str, shape: Shape | None, fields: Sequence[str], *, look: bool
) -> list[str] | None:
    """Those of `fields` that no record of a collection has in a shape; None where it takes a look to know (`look`)."""
    lost: list[str] = []
    asked: dict[str, list[str]] = {}
    for path in fields:
        inner = inner_of(shape, path) if shape is not None else None
        if inner is not None:  # of the records that come in the place of keys
            found = lost_fields(view, inner[0].collection, inner[1], inner[2], look=look)
            if found is None:
                return None
            lost += [path] if found else []
        else:
            asked[path] = raw_paths(shape.rule, path) if shape is not None else [path]
    every = sorted({raw for raws in asked.values() for raw in raws if raw})
    missing = view.lacking(collection, every, look=look) if every else []
    if missing is None:
        return None
    return lost + [path for path, raws in asked.items() if all(raw in missing for raw in raws)]


def inner_of(shape: Shape, path: str) -> tuple[Reference, Shape | None, list[str]] | None:
    """(reference, shape of its records, path in them) where a path leads into what is expanded."""
    for reference, below in shape.expand.items():
        for name in (
            reference.path,
            *([shape.rule.rename[reference.path]] if reference.path in shape.rule.rename else []),
        ):
            if path.startswith(name + "."):
                rest = path[len(name) + 1 :]
                return reference, below, [rest.removeprefix("value.")] if rest.startswith("value.") else []
    return None


def raw_paths(rule: ViewRule, path: str) -> list[str]:
    """Where in a record lies what an app finds at a path, if it is there; "" for what may always be."""
    found = [old + path[len(new) :] for old, new in rule.rename.items() if leads(new, path)]
    found += [] if any(leads(old, path) for old in rule.rename) else [path]
    if rule.fields:
        found = [one for one in found if any(leads(name, one) or leads(one, name) for name in rule.fields)]
    return ["" if any(one != name and leads(name, one) for name in rule.choose) else one for one in found]


def leads(path: str, below: str) -> bool:
    """Whether a path is another one, or its beginning."""
    return below == path or below.startswith(path + ".")


def keep(value: Any, paths: Sequence[str]) -> Any:
    """Only what lies at `paths`, of which a shorter one wins over a longer one that leads below it.

    A list is gone through item by item; what is neither list nor object stays as it is. Null stays where a path leads
    below it, so that `items.value.title` tells of a record that is not there.
    """
    if isinstance(value, list):
        return [keep(item, paths) for item in value if isinstance(item, dict | list)]
    if not isinstance(value, dict):
        return value
    if not any("." in path for path in paths):
        return {path: value[path] for path in paths if path in value}
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
        elif value[name] is None or isinstance(value[name], dict | list):
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


def shorten(value: Any, path: str | None, size: int) -> Any:
    """`value` with at most `size` items of each list at `path`; copies only the way down."""
    if path is None:
        return value[:size] if isinstance(value, list) else value
    if isinstance(value, list):
        return [shorten(item, path, size) for item in value]
    taken = step(value, path) if isinstance(value, dict) else None
    return value if taken is None else {**value, taken[0]: shorten(value[taken[0]], taken[1], size)}


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
