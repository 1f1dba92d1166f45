"""Conditions and text search over the layers of a slice, by their indexes."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import cbor2

from edged.feed.schema import CollectionSchema, Schema
from edged.replica import terms
from edged.replica.index import FIRST_WORD, OTHERS, TITLE, Index, holds
from edged.replica.layers import BASE_RANK, Found, Layers
from edged.replica.pack import Pack

Choice = tuple[str, tuple[bytes, ...]]  # a group, and the terms of which an entry must hold one
MANY = 2048  # places from which sets are quicker than bisecting
TIERS = 5
OUTSIDE_TITLES = 3  # the first tier for which all text fields count


def choices_of(conditions: Mapping[str, Any]) -> list[Choice]:
    return [("=" + name, terms.wanted_terms(value)) for name, value in conditions.items()]


def meets(record: Any, choices: Sequence[Choice]) -> bool:
    """Whether a record itself meets all conditions."""
    return all(terms.record_terms(record, group[1:]).intersection(wanted) for group, wanted in choices)


def where(layers: Layers, schema: Schema, collection: str, choices: Sequence[Choice], begin: str) -> Iterator[Found]:
    """The live records of a slice that meet all conditions, from key `begin` on, in key order."""
    streams = [fresh_matches(layers, schema, collection, choices, begin)]
    for rank, pack in enumerate(layers.middle, 1):
        streams.append(pack_matches(layers, schema, collection, choices, begin, pack, rank))
    if collection in layers.chains:
        streams.append(base_matches(layers, schema, collection, choices, begin))
    return heapq.merge(*streams)


def fresh_matches(
    layers: Layers, schema: Schema, collection: str, choices: Sequence[Choice], begin: str
) -> Iterator[Found]:
    if not layers.overlay.get(collection):
        return
    index = layers.fresh_index(schema)
    found: set[str] | None = None
    for group, wanted in choices:
        keys = set().union(*(index.places(collection, group, item) for item in wanted))
        found = keys if found is None else found & keys
    entries = layers.overlay[collection]
    for key in sorted(found or ()):
        entry = entries.get(key)
        if key >= begin and entry is not None:
            value = entry[0].value(entry[1])
            if value is not None and meets(cbor2.loads(value), choices):
                yield key, 0, *entry


def base_matches(
    layers: Layers, schema: Schema, collection: str, choices: Sequence[Choice], begin: str
) -> Iterator[Found]:
    chain = layers.chains[collection]
    number = max(bisect_left(chain.firsts, begin) - 1, 0)
    for pack in chain.packs[number:]:
        yield from pack_matches(layers, schema, collection, choices, begin, pack, BASE_RANK)


def pack_matches(
    layers: Layers, schema: Schema, collection: str, choices: Sequence[Choice], begin: str, pack: Pack, rank: int
) -> Iterator[Found]:
    """The entries of one pack that meet all conditions and that no newer layer replaces."""
    index = layers.index(pack, schema)
    if index is None or collection not in pack.meta.spans:
        return
    low = pack.bisect(collection, begin.encode()) if begin else 0
    for place in matching_places(index, collection, choices, low):
        key = pack.key(place).decode()
        if not layers.is_replaced(collection, key, rank):
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


def search(
    layers: Layers, schema: Schema, collection: str, asked: Sequence[str], most: int
) -> Iterator[tuple[int, Found]]:
    """At least the best `most` of the (tier, record) of a slice that hold every word of `asked`, tier by tier."""
    words = [word.encode() for word in asked]
    sources: list[tuple[int, Pack, Index]] = []
    for rank, pack in (*enumerate(layers.middle, 1), *((BASE_RANK, pack) for pack in layers.base)):
        index = layers.index(pack, schema)
        if index is not None and collection in pack.meta.spans:
            sources.append((rank, pack, index))
    fresh = fresh_search(layers, schema, collection, asked, (TITLE,))
    tiers = [tiers_of(index, collection, words) for _, _, index in sources]
    sent = 0
    for tier in range(TIERS):
        if tier == OUTSIDE_TITLES:  # only now, as it takes looking at many more records
            fresh = fresh_search(layers, schema, collection, asked, (TITLE, OTHERS))
        for number, found in fresh:
            if number == tier:
                yield tier, found
                sent += 1
        for (rank, pack, _), of_pack in zip(sources, tiers, strict=True):
            for found in islice(newest_of(layers, collection, pack, rank, sorted(next(of_pack))), most):
                yield tier, found
                sent += 1
        if sent >= most:
            return


def newest_of(layers: Layers, collection: str, pack: Pack, rank: int, places: Sequence[int]) -> Iterator[Found]:
    """The entries at `places` that no newer layer replaces."""
    for place in places:
        key = pack.key(place).decode()
        if not layers.is_replaced(collection, key, rank):
            yield key, rank, pack, place


def tiers_of(index: Index, collection: str, words: Sequence[bytes]) -> Iterator[set[int]]:
    """The places of each tier in turn, without those of the tiers before.

    0: the title begins with the first word typed and holds the others · 1: it holds all words · 2: words that begin
    so · 3: the text fields together hold all words · 4: words that begin so.
    """
    title = common(index, collection, (TITLE,), words, whole=False)
    begins = set(index.places_from(collection, FIRST_WORD, words[0]))
    if len(words) > 1:
        begins.intersection_update(index.places(collection, FIRST_WORD, words[0]))
    done = title & begins
    yield done
    for fields, whole in (((TITLE,), True), ((TITLE,), False), ((TITLE, OTHERS), True), ((TITLE, OTHERS), False)):
        known = fields == (TITLE,) and not whole
        found = (title if known else common(index, collection, fields, words, whole=whole)) - done
        done = done | found
        yield found


def common(index: Index, collection: str, fields: Sequence[str], words: Sequence[bytes], *, whole: bool) -> set[int]:
    """Places that hold every word, or a word that begins with it, in one of the fields."""
    look = index.places if whole else index.places_from
    # A list is gone through several times as fast as the postings themselves, and short words have many.
    runs = [[listed(look(collection, field, word)) for field in fields] for word in words]
    runs.sort(key=lambda run: sum(map(len, run)))
    found: set[int] = set().union(*runs[0])
    for run in runs[1:]:
        if not found:
            break
        found = found.intersection(run[0]) if len(run) == 1 else found.intersection(run[0]) | found.intersection(run[1])
    return found


def listed(run: Sequence[int]) -> Sequence[int]:
    return run.tolist() if isinstance(run, memoryview) else run


def fresh_search(
    layers: Layers, schema: Schema, collection: str, asked: Sequence[str], groups: Sequence[str]
) -> list[tuple[int, Found]]:
    """(tier, record) of the fresh packs with all words in `groups`, looked up record by record."""
    entries = layers.overlay.get(collection)
    if not entries:
        return []
    index = layers.fresh_index(schema)
    found: set[str] | None = None
    for word in asked:
        keys = set().union(*(index.places_from(collection, group, word.encode()) for group in groups))
        found = keys if found is None else found & keys
    fields = schema.collections.get(collection, CollectionSchema()).text
    ranked: list[tuple[int, Found]] = []
    for key in sorted(found or ()):
        entry = entries.get(key)
        value = entry[0].value(entry[1]) if entry is not None else None
        if entry is not None and value is not None:
            record = cbor2.loads(value)
            tier = tier_of(asked, [terms.record_words(record, name) for name in fields])
            if tier is not None:
                ranked.append((tier, (key, 0, *entry)))
    return ranked


def tier_of(asked: Sequence[str], held: Sequence[Sequence[str]]) -> int | None:
    """The tier of a record by the words of its text fields, None where a word is missing."""
    title, everything = held[0], [word for field in held for word in field]
    in_title = all(any(other.startswith(word) for other in title) for word in asked)
    if in_title and (title[0] == asked[0] or (len(asked) == 1 and title[0].startswith(asked[0]))):
        return 0
    if all(word in title for word in asked):
        return 1
    if in_title:
        return 2
    if all(word in everything for word in asked):
        return 3
    return 4 if all(any(other.startswith(word) for other in everything) for word in asked) else None
