"""Words that one typing error turns into what was typed: a letter wrong, missing, too much, or two exchanged.

The words of an index are sorted, so those with one beginning are one run, as in a tree of letters. Such a tree is gone
down along what was typed; at each letter the error is tried and the rest is looked up. Kept are the first letters
alone, in which most of the time went.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

LEAST_LETTERS = 5  # in shorter words an error leaves too little to go by
HIGHEST = "\U0010ffff".encode()
BLOCK_BITS = 8  # an error stays in its script: of letters whose code points have all higher bits in common


class Lexicon(Protocol):
    """Sorted words in UTF-8, numbered from `first` to before `end`."""

    first: int
    end: int

    def word(self, number: int, /) -> bytes: ...
    def lower(self, wanted: bytes, low: int, high: int, /) -> int:
        """The first number from `low` to before `high` whose word is at least `wanted`; `high` where there is none."""

    def first_letters(self) -> Sequence[Branch]:
        """Of all words, in order."""


class Branch(NamedTuple):
    """Words `low` to before `high` have `letter` next."""

    letter: str
    low: int
    high: int


class WordList:
    """A Lexicon of a sorted list."""

    def __init__(self, words: Sequence[bytes]) -> None:
        self.words, self.first, self.end = words, 0, len(words)
        self.branches = first_letters(self)

    def first_letters(self) -> Sequence[Branch]:
        return self.branches

    def word(self, number: int, /) -> bytes:
        return self.words[number]

    def lower(self, wanted: bytes, low: int, high: int, /) -> int:
        return bisect_left(self.words, wanted, low, high)


def may_be_misspelt(word: str) -> bool:
    return len(word) >= LEAST_LETTERS and word.isalpha()


class NearRun(NamedTuple):
    """Words `low` to before `high` begin with a word one typing error away. whole: the first of them is that word."""

    low: int
    high: int
    whole: bool


def near(lexicon: Lexicon, typed: str) -> list[NearRun]:
    """The runs of words that are, or begin with, a word one typing error away from `typed`; some of them overlap."""
    found: list[NearRun] = []

    def look(text: str, low: int, high: int) -> None:
        wanted = text.encode("utf-8", "surrogatepass")
        start = lexicon.lower(wanted, low, high)
        first = lexicon.word(start) if start < high else b""
        if first.startswith(wanted):
            found.append(NearRun(start, lexicon.lower(wanted + HIGHEST, start, high), first == wanted))

    low, high = lexicon.first, lexicon.end
    for at in range(len(typed)):
        done, rest = typed[:at], typed[at:]
        look(done + rest[1:], low, high)
        if rest[:1] != rest[1:2]:
            look(done + rest[1:2] + rest[:1] + rest[2:], low, high)
        for letter, first, last in letters(lexicon, done, rest[0], low, high) if at else in_block(lexicon, rest[0]):
            if letter != rest[0]:
                look(done + letter + rest[1:], first, last)
            look(done + letter + rest, first, last)
        beginning = typed[: at + 1].encode()
        low = lexicon.lower(beginning, low, high)
        high = lexicon.lower(beginning + HIGHEST, low, high)
        if low == high:
            break
    for number in range(low, high):  # a letter is missing at the end
        if len(lexicon.word(number).decode("utf-8", "surrogatepass")) == len(typed) + 1:
            found.append(NearRun(number, number + 1, True))
    return found


def first_letters(lexicon: Lexicon) -> list[Branch]:
    """Found by going through them."""
    return list(branches(lexicon, "", 0, lexicon.first, lexicon.end))


def in_block(lexicon: Lexicon, like: str) -> Iterator[Branch]:
    """The first letters of the same block of letters as `like`."""
    return (branch for branch in lexicon.first_letters() if ord(branch.letter) >> BLOCK_BITS == ord(like) >> BLOCK_BITS)


def letters(lexicon: Lexicon, done: str, like: str, low: int, high: int) -> Iterator[Branch]:
    """Of each letter that comes after the beginning `done` in words `low` to `high`, of the same block as `like`."""
    block = ord(like) >> BLOCK_BITS << BLOCK_BITS
    for branch in branches(lexicon, done, block, low, high):
        if ord(branch.letter) >= block + (1 << BLOCK_BITS):
            return
        yield branch


def branches(lexicon: Lexicon, done: str, least: int, low: int, high: int) -> Iterator[Branch]:
    """Of each letter, from the code point `least` on, that comes after `done` in words `low` to `high`."""
    low = lexicon.lower((done + chr(least)).encode("utf-8", "surrogatepass"), low, high)
    while low < high:
        letter = lexicon.word(low).decode("utf-8", "surrogatepass")[len(done)]
        last = lexicon.lower((done + letter).encode("utf-8", "surrogatepass") + HIGHEST, low, high)
        yield Branch(letter, low, last)
        low = last
