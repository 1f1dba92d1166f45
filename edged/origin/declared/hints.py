"""What a publish says that may be a slip: a dataset or collection that is new, a declared field that no record has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import cbor2
import msgspec

from edged.feed.fieldpath import ABSENT, reach
from edged.origin.declared.rules import CollectionRules, Rules
from edged.origin.state import HIDDEN, State


def new_names(dataset: str, before: Mapping[str, int] | None, after: Mapping[str, int]) -> list[str]:
    """Names that were not there before. before, after: records by collection; None: there was no dataset."""
    if before is None:
        return [f"{dataset} is a new dataset, of {', '.join(sorted(after)) or 'no records'}"]
    return [
        f"collection {name} is new in {dataset}: {count} record{'s' if count > 1 else ''}"
        for name, count in sorted(after.items())
        if name not in before
    ]


def fields_of_nothing(state: State, rules: Rules) -> list[str]:
    """Declared fields that no visible record has; goes through records until each has been seen."""
    hints = []
    for name, declared in sorted(rules.collections.items()):
        wanted = set(declared_fields(declared))
        where = "WHERE collection = ? AND membership <> ?"
        missing = without_any(state, where, (name, HIDDEN), wanted)
        hints += [f"collections.{name}: no record has the field {path!r}" for path in sorted(missing)]
    for name, rule in sorted(rules.slices.items()):
        missing = without_any(state, "WHERE membership <> ?", (HIDDEN,), set(rule.where))
        hints += [f"slices.{name}: no record has the field {path!r}" for path in sorted(missing)]
    return hints


def references_to_nothing(rules: Rules, counts: Mapping[str, int]) -> list[str]:
    """Declared references to a collection that is not there. counts: records by collection."""
    return [
        f"collections.{name}.refs: {path!r} holds keys of {target}, which has no records"
        for name, declared in sorted(rules.collections.items())
        for path, target in sorted(declared.refs.items())
        if not counts.get(target)
    ]


def declared_fields(declared: CollectionRules) -> Iterator[str]:
    """Every field path in a collection's rules, whatever it is declared for."""
    for item in msgspec.structs.asdict(declared).values():
        if isinstance(item, list | dict):
            yield from item
        elif item:
            yield item


def without_any(state: State, where: str, values: tuple[object, ...], wanted: set[str]) -> set[str]:
    """Those of `wanted` that none of the records has."""
    missing = set(wanted)
    for (data,) in state.rows(f"SELECT value FROM records {where}", values) if missing else ():  # noqa: S608
        value = cbor2.loads(data)
        missing -= {path for path in missing if any(item is not ABSENT for item in reach(value, path))}
        if not missing:
            break
    return missing
