"""Text search over the layers of a slice: the best first, by tier and title, looking at no more records than needed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterator, Sequence
from functools import cache, partial
from typing import NamedTuple, Protocol

import cbor2

from edged.feed.schema import CollectionSchema, Schema
from edged.replica.indexes.freshindex import FreshIndex
from edged.replica.indexes.index import ALL, FIRST_WORD, OTHERS, RANKED, TITLE, Index, Standing, standing_of
from edged.replica.indexes.spelling import LEAST_LETTERS, NearRun, may_be_misspelt
from edged.replica.layers.layers import BASE_RANK, Layers, Place
from edged.replica.layers.lookup import Hides
from edged.replica.layers.question import Misspelt
from edged.replica.packs.pack import Pack

Hit = tuple[Standing, str, bytes]  # standing, key, value
Ranked = tuple[int, Hit]  # the tier before it
Run = Callable[[str, str, bool], Sequence[int]]  # of a group and a word, whole or the beginning of one
TIERS = (((TITLE,), True), ((TITLE,), False), ((TITLE, OTHERS), True), ((TITLE, OTHERS), False))
NEAR_TIERS = (((TITLE,), True), ((TITLE,), False), ((TITLE, OTHERS), False))
LEAST_PART = 2  # letters of each of two words that were typed as one
MOST_MISSPELT = 3  # words, of which each is looked for in every index


class Wording(NamedTuple):
    """What was typed. misspelt: None as long as something holds the words as they are."""

    words: Sequence[str]
    misspelt: Misspelt | None


class Words(Protocol):
    """What an index knows of words. Numbers are its own: ranks in a pack, entries of the fresh packs."""

    def places(self, collection: str, group: str, wanted: bytes, /) -> Sequence[int]: ...
    def places_from(self, collection: str, group: str, beginning: bytes, /) -> Sequence[int]: ...
    def near(self, collection: str, group: str, typed: str, /) -> Sequence[NearRun]: ...
    def near_words(self, collection: str, group: str, typed: str, /) -> Sequence[str]:
        """The words themselves."""

    def places_among(self, collection: str, group: str, low: int, high: int, /) -> Sequence[int]:
        """Of the terms `low` to before `high`, as `near` numbers them."""


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
        for entry in sorted(newest, key=lambda entry: (entry.standing, entry.key)):
            value = None if hides(entry.key, entry.pack, entry.place) else entry.pack.value(entry.place)
            if value is not None:
                yield entry.standing, entry.key, value


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
                    yield standing_of(cbor2.loads(value), self.rules), key, value


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
    asked: Wording,
    hides: Hides,
    admitted: Sequence[Container[int]] | None = None,
) -> Iterator[Ranked]:
    """The records of a slice that hold every word asked for, the best first; each is looked for when it is asked for.

    admitted: of each source the numbers that other conditions leave: places, or entries of the fresh packs. The
    collection has text fields. Raises DamageError.
    """
    if not asked.words:
        return
    sources = list(sources_of(layers, schema, collection))
    tiers = [tiers_of(source.words, collection, asked) for source in sources]
    left = [None] * len(sources) if admitted is None else admitted
    for tier, numbers in enumerate(zip(*tiers, strict=True)):
        found = zip(sources, numbers, left, strict=True)
        streams = [source.hits(of_it, hides, admits) for source, of_it, admits in found if of_it]
        for hit in heapq.merge(*streams):
            yield tier, hit


def tiers_of(index: Words, collection: str, asked: Wording) -> Iterator[set[int]]:
    """The numbers of each tier in turn, without those of the tiers before; each is worked out when it is asked for.

    0: the title begins with the first word typed and holds the others · 1: it begins with one that begins so · 2: it
    holds all words · 3: words that begin so · 4: the text fields together hold all words · 5: words that begin so ·
    6: the title holds two of the words written as one. Where some are misspelt: 0, 2, 3 and 5, with the words that one
    typing error makes of them, or two that were typed as one.
    """
    words, misspelt = asked
    if not words:
        return
    run = cache(partial(plain_run, index, collection))
    if misspelt is not None:
        run = cache(forgiving(index, collection, misspelt.words, run))
    done = common(run, (TITLE,), words[1:], False, within=set(run(FIRST_WORD, words[0], True)))
    yield done
    if misspelt is None:
        longer = set() if len(words) > 1 else set(run(FIRST_WORD, words[0], False)) - done
        done = done | longer
        yield longer
    for groups, whole in TIERS if misspelt is None else NEAR_TIERS[: 2 if misspelt.titles else 3]:
        found = common(run, groups, words, whole) - done
        done = done | found
        yield found
    if misspelt is None:
        joined = [phrase for phrase in joined_phrases(words) if all(len(run(TITLE, word, False)) for word in phrase)]
        yield set().union(*(common(run, (TITLE,), phrase, False) for phrase in joined)) - done


def misspelt_in(sources: Sequence[tuple[Words, str]], words: Sequence[str]) -> Misspelt | None:
    """What is misspelt, if nothing holds the words as they were typed. sources: each with its collection."""
    if any(any(map(len, tiers_of(*source, Wording(words, None)))) for source in sources):
        return None
    held = {word for word in words for source in sources if any(knows(*source, word))}
    wrong = frozenset(sorted(set(words) - held or set(words))[:MOST_MISSPELT])
    in_titles = Wording(words, Misspelt(wrong, True))
    return Misspelt(wrong, any(any(map(len, tiers_of(*source, in_titles))) for source in sources))


def knows(index: Words, collection: str, word: str) -> Iterator[bool]:
    return (len(index.places_from(collection, group, word.encode())) > 0 for group in (TITLE, OTHERS))


def joined_phrases(asked: Sequence[str]) -> Iterator[list[str]]:
    """`asked` with two of its words written as one, if that gives one that says something."""
    for number in range(len(asked) - 1):
        joined = asked[number] + asked[number + 1]
        if len(joined) >= LEAST_LETTERS and joined.isalpha():
            yield [*asked[:number], joined, *asked[number + 2 :]]


def plain_run(index: Words, collection: str, group: str, word: str, whole: bool) -> Sequence[int]:
    found = (index.places if whole else index.places_from)(collection, group, word.encode())
    return found.tolist() if isinstance(found, memoryview) else found  # a list is gone through several times as fast


def forgiving(index: Words, collection: str, misspelt: Container[str], plain: Run) -> Run:
    """As `plain`, and for a misspelt word numbers of what one typing error or a missing space makes of it."""

    def run(group: str, word: str, whole: bool) -> Sequence[int]:
        found = plain(group, word, whole)
        if word not in misspelt:
            return found
        numbers = set(found)
        if group == FIRST_WORD:
            for right in index.near_words(collection, TITLE, word) if may_be_misspelt(word) else ():
                numbers.update(plain(FIRST_WORD, right, True))
            return sorted(numbers)
        for low, high, is_word in index.near(collection, group, word) if may_be_misspelt(word) else ():
            if is_word or not whole:
                numbers.update(index.places_among(collection, group, low, low + 1 if whole else high))
        for cut in range(LEAST_PART, len(word) - LEAST_PART + 1) if group == TITLE else ():
            first = plain(TITLE, word[:cut], True)
            if len(first):
                numbers.update(set(first).intersection(plain(TITLE, word[cut:], whole)))
        return sorted(numbers)

    return run


def common(
    run: Run, groups: Sequence[str], words: Sequence[str], whole: bool, *, within: set[int] | None = None
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
