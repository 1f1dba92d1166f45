"""A view of some of the slices alone, for who may have those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any, Protocol, TypeVar

from edged.errors import DamageError
from edged.replica.layers.layers import Layers


class Sliced(Protocol):
    """What of a View (see view.py) goes by its slices."""

    part: frozenset[str]
    parts: dict[frozenset[str], Any]
    getters: dict[str, Any]
    by_slice: Mapping[str, Layers]
    layers: list[Layers]
    broken: Mapping[str, DamageError]
    validity: Any
    collections: Mapping[str, int]
    time: int

    def at(self, time: int) -> Any:
        """The same at a time."""

    def found(self, collection: str, begin: str) -> Iterator[Any]:
        """Live records in order."""


V = TypeVar("V", bound=Sliced)


def part_of(view: V, names: frozenset[str]) -> V:
    """What of `view` lies in the slices `names`, as if there were no others. Nothing says of a record that is not there
    that it was taken down: it may have been in another slice.
    """
    found = copy(view)
    found.part, found.parts, found.getters = names, {}, {}
    found.by_slice = {name: layers for name, layers in view.by_slice.items() if name in names}
    found.layers = list(found.by_slice.values())
    found.broken = {name: fault for name, fault in view.broken.items() if name in names}
    if view.validity is not None:
        found.validity = None
        found = found.at(view.time)
    found.collections = PartCounts(found)
    return found


class PartCounts(Mapping[str, int]):
    """Records by collection, counted when somebody wants to know: a record may be in several slices."""

    def __init__(self, view: Sliced) -> None:
        self.view = view
        self.names = sorted({name for layers in view.layers for name in layers.state.counts})
        self.known: dict[str, int] = {}

    def __getitem__(self, collection: str) -> int:
        if collection not in self.names:
            raise KeyError(collection)
        if collection not in self.known:
            self.known[collection] = sum(1 for _ in self.view.found(collection, ""))
        return self.known[collection]

    def __contains__(self, collection: object) -> bool:
        return collection in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
