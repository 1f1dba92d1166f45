"""Guesses at a field's new value, by transforms that were right for the records before in the same hop.

Both ends make the same guesses from the same pairs, so that it is only said which one is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, final

from edged.feed import cbor
from edged.feed.coding.arithmetic import ONE, SCALE, SURE, Coder
from edged.feed.coding.transforms import Constant, Copied, Transform, at, derivations, explanations, same, sources
from edged.feed.fieldpath import ABSENT

OWN, KEY = "own", "key"  # where a transform takes what it works on: the field's old value, the record's key, or a path
Source = str | tuple[str, ...]

ASKED = 4  # guesses a value that are asked about
KEPT = 16  # of one field
LESSONS = 24  # pairs of one field that were guessed wrong and are learnt from; each right guess gives one back
SOURCES = 48  # fields of a record that are looked at
PALETTE = 64  # values of one field that are known by number
SCORE = 256  # of a guess that was always right
LEAST = 8  # a guess with no more is given up
CODED_MOST = 64  # bytes of a value that is kept as a constant
COUNTED = 32  # for each time that a value came
COUNT_MOST = 1 << 13  # then all are halved: what came of late counts for more


@dataclass(slots=True)
class Guess:
    """number: of its field, never used again, for what is learnt of it; proved: whether it may be asked about;
    score: how often it was right of late."""

    source: Source
    transform: Transform
    number: int
    proved: bool
    score: int = SCORE // 2

    def make(self, record: Any, key: str, own: Any) -> Any:
        if self.source == OWN:
            value = own
        elif self.source == KEY:
            value = key
        else:
            value = at(record, self.source)  # type: ignore[arg-type]
        return ABSENT if value is ABSENT and not isinstance(self.transform, Constant) else self.transform.apply(value)


@final
class Palette:
    """Values that come again, each by the number under which it is known, coded by how often it came."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.values: list[Any] = []
        self.numbers: dict[bytes, int] = {}
        self.counts: list[int] = []

    def note(self, coded: bytes, value: Any) -> None:
        """Take note that a value came. coded: what tells it from others."""
        number = self.numbers.get(coded, -1)
        if number >= 0:
            self.counts[number] += COUNTED
            if self.counts[number] >= COUNT_MOST:
                self.counts = [count + 1 >> 1 for count in self.counts]
        elif len(self.values) < self.most:
            self.numbers[coded] = len(self.values)
            self.values.append(value)
            self.counts.append(COUNTED)

    def barred(self, values: list[Any]) -> set[int]:
        """The numbers of those that are among `values`."""
        found = {self.numbers.get(scalar_bytes(value), -1) for value in values}
        found.discard(-1)
        return found

    def code(self, coder: Coder, number: int, barred: set[int]) -> int:
        """Code which value it is, one that is not `barred`: halves of the numbers by how often those in them came."""
        counts = [0 if place in barred else count for place, count in enumerate(self.counts)]
        low, size = 0, 1 << (len(counts) - 1).bit_length()
        total = sum(counts)
        while size > 1:
            size >>= 1
            above = sum(counts[low + size : low + 2 * size])
            if above == total:
                low += size
            elif above and coder.code(number >= low + size, max(SURE, min(ONE - SURE, (above << SCALE) // total))):
                low, total = low + size, above
            else:
                total -= above
        return low


def scalar_bytes(value: Any) -> bytes:
    """The canonical bytes of a value that may be known by number; b"" for any other."""
    if value is ABSENT or type(value) in (dict, list) or (type(value) is str and len(value) > CODED_MOST):
        return b""
    coded = cbor.encode(value)
    return coded if len(coded) <= CODED_MOST else b""


class Guesser:
    """What one hop has taught of one field. palette: values that it was given."""

    def __init__(self, *, trusting: bool) -> None:
        """trusting: whether what explains one pair is asked about at the next, not only what explains two."""
        self.trusting = trusting
        self.guesses: list[Guess] = []
        self.made = 0
        self.lessons = LESSONS
        self.palette = Palette(PALETTE)

    def offers(self, record: Any, key: str, own: Any) -> Iterator[tuple[Guess, Any]]:
        """Different values that the field may have now, the likeliest first."""
        seen: list[Any] = []
        for guess in self.guesses:
            if not guess.proved:
                continue
            value = guess.make(record, key, own)
            if value is ABSENT or (own is not ABSENT and same(value, own)) or any(same(value, one) for one in seen):
                continue
            seen.append(value)
            yield guess, value
            if len(seen) == ASKED:
                return

    def judge(self, wrong: list[Guess], right: Guess | None) -> None:
        """Take note of which guesses were wrong and which was right, and put them in order again."""
        for guess in wrong:
            guess.score -= (guess.score >> 2) + 1
        if right is not None:
            self.favour(right)
            self.lessons = min(LESSONS, self.lessons + 1)
        if wrong:
            self.guesses = sorted((one for one in self.guesses if one.score > LEAST), key=lambda one: -one.score)

    def favour(self, guess: Guess) -> None:
        guess.score += (SCORE - guess.score) >> 2

    def learn(self, record: Any, key: str, own: Any, new: Any) -> bool:
        """Take in a pair that was not guessed; whether anything was learnt of it."""
        coded = scalar_bytes(new)
        if coded:
            self.palette.note(coded, new)
        if self.lessons == 0:
            return False
        self.lessons -= 1
        for guess in self.guesses:
            guess.proved = guess.proved or same(guess.make(record, key, own), new)
        known = {(guess.source, guess.transform) for guess in self.guesses}
        for source, transform in proposals(record, key, own, new):
            if (source, transform) not in known:
                self.guesses.append(Guess(source, transform, self.made, self.trusting))
                self.made += 1
        self.guesses.sort(key=lambda guess: -guess.score)
        del self.guesses[KEPT:]
        return True


def proposals(record: Any, key: str, own: Any, new: Any) -> Iterator[tuple[Source, Transform]]:
    """Transforms, each with where it takes its value, that explain a new value; the likeliest first."""
    found: list[tuple[Source, Transform]] = []
    if own is not ABSENT:
        found += [(OWN, transform) for transform in islice(explanations(own, new), 6)]
    found += [(KEY, transform) for transform in derivations(key, new)]
    for path, value in islice(sources(record), SOURCES):
        if len(found) >= KEPT:
            break
        found += [(path, transform) for transform in derivations(value, new)]
    # What takes over most of another field says most.
    found.sort(key=lambda one: not isinstance(one[1], Copied))
    coded = cbor.encode(new)
    if len(coded) <= CODED_MOST:
        found.insert(0, (OWN, Constant(coded, new)))
    yield from found[:KEPT]
