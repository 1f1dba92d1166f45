"""References: fields that hold keys of other records, by which those records can be put in the place of their keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from edged.errors import QueryError
from edged.feed.fieldpath import step
from edged.feed.schema import CollectionSchema, Schema

MAX_LEVELS = 2
MAX_KEYS = 500  # of one record; those that follow stay keys
NO_RULES = CollectionSchema()


class Reference(NamedTuple):
    """A field at `path` that holds keys of `collection`. below: the references in those records that are meant too."""

    path: str
    collection: str
    below: tuple[Reference, ...] = ()


def references(schema: Schema, collection: str, paths: Iterable[str], level: int = 1) -> tuple[Reference, ...]:
    """Those that `paths` name: `items`, or `items.cast` for the references in the records that `items` holds keys of.

    Raises QueryError for one that is not declared, or leads further than MAX_LEVELS.
    """
    declared = schema.collections.get(collection, NO_RULES).refs
    below: dict[str, list[str]] = {}
    for path in paths:
        fitting = [name for name in declared if path == name or path.startswith(name + ".")]
        if not fitting:
            raise QueryError(
                f"expand={path}: {collection} declares no reference there, only at {', '.join(declared) or 'nothing'}; "
                f"declare it in collections.{collection}.refs"
            )
        name = max(fitting, key=len)
        rest = below.setdefault(name, [])
        if path != name:
            rest.append(path[len(name) + 1 :])
        if rest and level == MAX_LEVELS:
            raise QueryError(f"expand={path}: leads further than {MAX_LEVELS} levels; ask for those records themselves")
    return tuple(
        [
            Reference(name, declared[name], references(schema, declared[name], rest, level + 1))
            for name, rest in below.items()
        ]
    )


def declared_references(schema: Schema, collection: str) -> tuple[Reference, ...]:
    """All of a collection, one level deep."""
    return tuple([Reference(*pair) for pair in schema.collections.get(collection, NO_RULES).refs.items()])


def with_records(value: Any, found: Iterable[Reference], record: Callable[[Reference, str], Any]) -> Any:
    """A new value with record(reference, key) in the place of each key, through lists; at most MAX_KEYS of them."""
    left = MAX_KEYS

    def put(reference: Reference, held: Any, path: str | None) -> Any:
        nonlocal left
        if isinstance(held, list):
            return [put(reference, item, path) for item in held]
        if path is not None:
            taken = step(held, path) if isinstance(held, dict) else None
            return held if taken is None else {**held, taken[0]: put(reference, held[taken[0]], taken[1])}
        if not isinstance(held, str) or not left:
            return held
        left -= 1
        return record(reference, held)

    for reference in found:
        value = put(reference, value, reference.path)
    return value


def expanded(value: Any, found: Iterable[Reference], get: Callable[[str, str], Any]) -> Any:
    """`value` with {"key", "value"} in the place of each key. get(collection, key): a record, None where missing."""

    def record(reference: Reference, key: str) -> Any:
        there = get(reference.collection, key)
        if there is not None and reference.below:
            there = expanded(there, reference.below, get)
        return {"key": key, "value": there}

    return with_records(value, found, record)


def referring(
    found: Iterable[Reference],
    changed: Callable[[str], dict[str, int]],
    holders: Callable[[str, str, Iterable[str]], Iterator[tuple[str, str]]],
    collection: str,
) -> dict[str, int]:
    """The records of a collection whose references lead to what has changed, each with the latest version of that.

    changed(collection): keys with their versions. holders(collection, path, keys): (a key, a record that holds it).
    """
    result: dict[str, int] = {}
    for reference in found:
        moved = dict(changed(reference.collection))
        for key, version in referring(reference.below, changed, holders, reference.collection).items():
            moved[key] = max(version, moved.get(key, 0))
        for key, holder in holders(collection, reference.path, moved):
            result[holder] = max(moved[key], result.get(holder, 0))
    return result
