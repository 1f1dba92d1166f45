"""Which slices a record is in: every one whose `where` it matches, else core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cbor2

from edged.feed.fieldpath import reach
from edged.origin.declared.rules import SliceRules

CORE = "core"
CORE_ONLY = (CORE,)


class Slicer:
    """`slices_of(value)` for the slices of one dataset."""

    def __init__(self, slices: Mapping[str, SliceRules]) -> None:
        self.rules = [
            (name, [(path, accepted(wanted)) for path, wanted in sorted(rule.where.items())])
            for name, rule in sorted(slices.items())
        ]

    def slices_of(self, data: bytes) -> tuple[str, ...]:
        """The names of the slices of a record with the canonical bytes `data`, sorted."""
        if not self.rules:
            return CORE_ONLY
        value = cbor2.loads(data)  # our own canonical bytes
        names = tuple(name for name, tests in self.rules if all(holds(value, path, wanted) for path, wanted in tests))
        return names or CORE_ONLY


def accepted(wanted: object) -> frozenset[tuple[type, Any]]:
    items = wanted if isinstance(wanted, list) else [wanted]
    return frozenset((type(item), item) for item in items)  # True is not 1 and "1" is not 1


def holds(value: Any, path: str, wanted: frozenset[tuple[type, Any]]) -> bool:
    """Whether the field, or an item of the list that it is, has one of the wanted values."""
    for found in reach(value, path):
        items = found if isinstance(found, list) else [found]
        if any((type(item), item) in wanted for item in items if isinstance(item, (str, int, float, bool))):
            return True
    return False
