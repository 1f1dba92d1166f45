"""Conditions on declared fields over the layers of a slice, by their indexes."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from edged.feed.schema import Schema
from edged.replica.indexes import terms
from edged.replica.indexes.freshindex import FreshEntry
from edged.replica.indexes.index import Index, holds
from edged.replica.layers.layers import BASE_RANK, Found, Layers
from edged.replica.packs.pack import Pack

Choice = tuple[str, tuple[bytes, ...]]  # a group, and the terms of which an entry must hold one
MANY = 2048  # places from which sets are quicker than bisecting


class Asked(NamedTuple):
    """The live records of a collection that meet all `choices`, from key `begin` on."""

    schema: Schema
    collection: str
    choices: Sequence[Choice]
    begin: str


def choices_of(conditions: Mapping[str, Any]) -> list[Choice]:
    return [("=" + name, terms.wanted_terms(value)) for name, value in conditions.items()]


def where(layers: Layers, asked: Asked) -> Iterator[Found]:
    """The records of a slice that are asked for, in key order."""
    streams = [fresh_matches(layers, asked)]
    for rank, pack in enumerate(layers.middle, 1):
        streams.append(pack_matches(layers, asked, pack, rank))
    if asked.collection in layers.chains:
        streams.append(base_matches(layers, asked))
    return heapq.merge(*streams)


def fresh_matches(layers: Layers, asked: Asked) -> Iterator[Found]:
    if not layers.overlay.get(asked.collection):
        return
    index = layers.fresh_index(asked.schema)
    numbers = [
        set().union(*(index.places(asked.collection, group, item) for item in wanted))
        for group, wanted in asked.choices
    ]
    entries = layers.overlay[asked.collection]
    for entry in sorted((index.entries[number] for number in set.intersection(*numbers)), key=key_of):
        if entry.key >= asked.begin and entries.get(entry.key) == (entry.pack, entry.place):
            yield entry.key, 0, entry.pack, entry.place


def key_of(entry: FreshEntry) -> str:
    return entry.key


def base_matches(layers: Layers, asked: Asked) -> Iterator[Found]:
    chain = layers.chains[asked.collection]
    number = max(bisect_left(chain.firsts, asked.begin) - 1, 0)
    for pack in chain.packs[number:]:
        yield from pack_matches(layers, asked, pack, BASE_RANK)


def pack_matches(layers: Layers, asked: Asked, pack: Pack, rank: int) -> Iterator[Found]:
    """The entries of one pack that meet all conditions and that no newer layer replaces."""
    index = layers.index(pack, asked.schema)
    if index is None or asked.collection not in pack.meta.spans:
        return
    low = pack.bisect(asked.collection, asked.begin.encode()) if asked.begin else 0
    for place in matching_places(index, asked.collection, asked.choices, low):
        key = pack.key(place).decode()
        if not layers.is_replaced(asked.collection, key, rank):
            yield key, rank, pack, place


def matching_places(index: Index, collection: str, choices: Sequence[Choice], low: int) -> Iterator[int]:
    """Places from `low` on that hold a wanted term of every group, rising."""
    runs = [one_run(index, collection, group, wanted) for group, wanted in choices]
    runs.sort(key=len)
    least, others = runs[0], runs[1:]
    if others and len(least) > MANY:
        least, others = sorted(set(least).intersection(*others)), []
    for at in range(bisect_left(least, low), len(least)):
        place = least[at]
        if all(holds(run, place) for run in others):
            yield place


def one_run(index: Index, collection: str, group: str, wanted: Sequence[bytes]) -> Sequence[int]:
    runs = [run for run in (index.places(collection, group, item) for item in wanted) if len(run)]
    return runs[0] if len(runs) == 1 else sorted(set().union(*runs))
