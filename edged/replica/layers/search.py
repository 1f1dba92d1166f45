"""Text search over the layers of a slice: the best first, by tier and title, looking at no more records than needed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterator, Sequence
from functools import cache
from typing import Protocol

import cbor2

from edged.feed.schema import CollectionSchema, Schema
from edged.replica.indexes.freshindex import FreshIndex
from edged.replica.indexes.index import ALL, FIRST_WORD, OTHERS, RANKED, TITLE, Index, title_of
from edged.replica.layers.layers import BASE_RANK, Layers, Place
from edged.replica.layers.lookup import Hides
from edged.replica.packs.pack import Pack

Hit = tuple[str, str, bytes]  # folded title, key, value
Ranked = tuple[int, Hit]  # the tier before it
Run = Callable[[str, bytes, bool], Sequence[int]]  # of a group and a word, whole or the beginning of one


class Words(Protocol):
    """What an index knows of words. Numbers are its own: ranks in a pack, entries of the fresh packs."""

    def places(self, collection: str, group: str, wanted: bytes, /) -> Sequence[int]: ...
    def places_from(self, collection: str, group: str, beginning: bytes, /) -> Sequence[int]: ...


class FreshSource:
    """The fresh packs. Only an entry that is the newest of its key counts."""

    def __init__(self, index: FreshIndex, newest: dict[str, Place]) -> None:
        self.words: Words = index
        self.entries = index.entries
        self.newest = newest

    def hits(self, numbers: set[int], hides: Hides, admitted: Container[int] | None) -> Iterator[Hit]:
        left = numbers if admitted is None else [number for number in numbers if number in admitted]
        entries = map(self.entries.__getitem__, left)
        newest = [entry for entry in entries if self.newest.get(entry.key) == (entry.pack, entry.place)]
        for entry in sorted(newest, key=lambda entry: (entry.title, entry.key)):
            value = None if hides(entry.key, entry.pack, entry.place) else entry.pack.value(entry.place)
            if value is not None:
                yield entry.title, entry.key, value


class PackSource:
    """A base or middle pack. rank: of its layer; newer ones replace its entries."""

    def __init__(
        self, layers: Layers, collection: str, pack: Pack, rank: int, index: Index, rules: CollectionSchema
    ) -> None:
        self.words: Words = index
        self.places = index.places(collection, RANKED, ALL)
        self.layers, self.collection, self.pack, self.rank, self.rules = layers, collection, pack, rank, rules

    def hits(self, numbers: set[int], hides: Hides, admitted: Container[int] | None) -> Iterator[Hit]:
        for number in sorted(numbers):
            place = self.places[number]
            if admitted is not None and place not in admitted:
                continue
            key = self.pack.key(place).decode()
            if not hides(key, self.pack, place) and not self.layers.is_replaced(self.collection, key, self.rank):
                value = self.pack.value(place)
                if value is not None:
                    yield title_of(cbor2.loads(value), self.rules), key, value


def sources_of(layers: Layers, schema: Schema, collection: str) -> Iterator[FreshSource | PackSource]:
    rules = schema.collections[collection]
    if layers.overlay.get(collection):
        yield FreshSource(layers.fresh_index(schema), layers.overlay[collection])
    for rank, pack in (*enumerate(layers.middle, 1), *((BASE_RANK, pack) for pack in layers.base)):
        index = layers.index(pack, schema)
        if index is not None and collection in pack.meta.spans:
            yield PackSource(layers, collection, pack, rank, index, rules)


def search(
    layers: Layers,
    schema: Schema,
    collection: str,
    asked: Sequence[str],
    hides: Hides,
    admitted: Sequence[Container[int]] | None = None,
) -> Iterator[Ranked]:
    """The records of a slice that hold every word of `asked`, the best first; each is looked for when it is asked for.

    admitted: of each source the numbers that other conditions leave: places, or entries of the fresh packs. The
    collection has text fields. Raises DamageError.
    """
    if not asked:
        return
    sources = list(sources_of(layers, schema, collection))
    tiers = [tiers_of(source.words, collection, asked) for source in sources]
    left = [None] * len(sources) if admitted is None else admitted
    for tier, numbers in enumerate(zip(*tiers, strict=True)):
        found = zip(sources, numbers, left, strict=True)
        streams = [source.hits(of_it, hides, admits) for source, of_it, admits in found if of_it]
        for hit in heapq.merge(*streams):
            yield tier, hit


def tiers_of(index: Words, collection: str, asked: Sequence[str]) -> Iterator[set[int]]:
    """The numbers of each tier in turn, without those of the tiers before; each is worked out when it is asked for.

    0: the title begins with the first word typed and holds the others · 1: it holds all words · 2: words that begin
    so · 3: the text fields together hold all words · 4: words that begin so.
    """

    if not asked:
        return
    words = [word.encode() for word in asked]

    @cache
    def run(group: str, word: bytes, whole: bool) -> Sequence[int]:
        found = (index.places if whole else index.places_from)(collection, group, word)
        return (
            found.tolist() if isinstance(found, memoryview) else found
        )  # a list is gone through several times as fast

    done = set(run(FIRST_WORD, words[0], len(words) > 1))
    if len(words) > 1:
        done = common(run, (TITLE,), words[1:], False, within=done)
    yield done
    for groups in ((TITLE,), (TITLE, OTHERS)):
        for whole in (True, False):
            found = common(run, groups, words, whole) - done
            done = done | found
            yield found


def common(
    run: Run, groups: Sequence[str], words: Sequence[bytes], whole: bool, *, within: set[int] | None = None
) -> set[int]:
    """Numbers that hold every word, or a word that begins with it, in one of the groups. within: all that count."""
    runs = [[run(group, word, whole) for group in groups] for word in dict.fromkeys(words)]
    runs.sort(key=lambda several: sum(map(len, several)))
    found = within
    for several in runs:
        if found is None:
            found = set().union(*several)
        elif found:
            found = set().union(*map(found.intersection, several))
    return found or set()
