"""Binary arithmetic coding, in whole numbers only, so that every machine decodes alike.

A coder is given a bit and the probability (of 65,536) that it is 1. Encoder and decoder share that one method: an
encoder records the bit it is given, a decoder ignores it and returns the one that was recorded. So a model is written
once and serves both directions, and the two cannot drift apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, final

from edged.errors import WireError

if TYPE_CHECKING:  # machine words where this is compiled, plain integers where it is not
    from mypy_extensions import i64

BITS_MOST = 1 << 18  # coded in one hop: some four seconds of work on a desktop machine, whatever the bytes say
SCALE: Final = 16  # bits of a probability
ONE: Final = 1 << SCALE  # certainty
TOP: Final = (1 << 32) - 1
FORESEEN_LEAST = 8  # records after which the room for the others is judged
FAR = 2  # times the room left: what needs more is given up
SURE = 24  # the nearest to certainty that a probability comes, of ONE
LOGIT_SCALE = 256  # a logit of 1.0
LOGIT_MOST: Final = 2047


def exponentials(count: int) -> list[int]:
    """exp(n / LOGIT_SCALE) * 2**64 for n in range(count), by integers: a libm may round otherwise elsewhere."""
    one = 1 << 64
    step, term, number = one, one, 1
    while term:
        term = term // LOGIT_SCALE // number
        step += term
        number += 1
    found = [one]
    while len(found) < count:
        found.append(found[-1] * step >> 64)
    return found


def squash_table() -> list[int]:
    """Probability of ONE for each logit from -LOGIT_MOST to LOGIT_MOST."""
    rising = [min(ONE - SURE, ONE * e // (e + (1 << 64))) for e in exponentials(LOGIT_MOST + 1)]
    return [ONE - p for p in rising[:0:-1]] + rising


SQUASH: Final = squash_table()
STRETCH: Final = [min(bisect_left(SQUASH, (n << 4) + 8), 2 * LOGIT_MOST) - LOGIT_MOST for n in range(ONE >> 4)]


class TooLong(WireError):
    """More bits than may be coded bit by bit; for the encoder, another form is due."""


class Coder(ABC):
    """Codes bits, each with the probability that it is 1. allow: so many more may be coded (or fewer);
    size: bytes written so far, 0 where nothing is written."""

    @abstractmethod
    def code(self, bit: i64, probability: i64) -> i64: ...

    @abstractmethod
    def allow(self, bits: i64) -> None: ...

    @abstractmethod
    def size(self) -> int: ...


@final
class NullCoder(Coder):
    """Codes nothing: lets a model learn from what both sides know."""

    def code(self, bit: i64, probability: i64) -> i64:
        return bit

    def allow(self, bits: i64) -> None:
        return

    def size(self) -> int:
        return 0


@final
class ArithmeticEncoder(Coder):
    """Encodes bits. `low` and `high` span what the bytes to come may still say."""

    low: i64
    high: i64
    most: i64
    left: i64

    def __init__(self, most: i64) -> None:
        self.low, self.high = 0, TOP
        self.out = bytearray()
        self.most = self.left = most
        self.taken: list[int] = []  # bits, after each of the records so far

    def allow(self, bits: i64) -> None:
        self.most += bits
        self.left += bits

    def size(self) -> int:
        return len(self.out)

    def foresee(self, done: int, total: int) -> None:
        """Raise TooLong as soon as `done` records of `total` show that there is far from enough room for all.

        By what the later half of them took, for the first show patterns that make the others short.
        """
        self.taken.append(self.most - self.left)
        half = len(self.taken) // 2
        rest = (self.taken[-1] - self.taken[half]) * (total - done)
        if done >= FORESEEN_LEAST and rest > FAR * self.left * (len(self.taken) - 1 - half):
            raise TooLong(f"encode hop: some {rest // (len(self.taken) - 1 - half)} bits more than {self.most}")

    def code(self, bit: i64, probability: i64) -> i64:
        self.left -= 1
        if self.left < 0:
            raise TooLong(f"encode hop: more than {self.most} coded bits")
        middle = self.low + ((self.high - self.low) * probability >> SCALE)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while not (self.low ^ self.high) >> 24:
            self.out.append(self.high >> 24)
            self.low = self.low << 8 & TOP
            self.high = self.high << 8 & TOP | 0xFF
        return bit

    def finish(self) -> bytes:
        return bytes(self.out) + closing(self.low, self.high)


def closing(low: int, high: int) -> bytes:
    """The fewest bytes that, with zeros after them, lie from low to high."""
    for size in range(4):
        room = 32 - 8 * size
        value = -(-low >> room) << room
        if low <= value <= high:
            return (value >> room).to_bytes(size, "big")
    return low.to_bytes(4, "big")


@final
class ArithmeticDecoder(Coder):
    """Decodes bits from exactly `data`, which is taken to go on with zeros."""

    low: i64
    high: i64
    at: i64
    most: i64
    left: i64
    value: i64

    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.what = data, what
        self.low, self.high = 0, TOP
        self.at = 4
        self.most = self.left = BITS_MOST
        self.value = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def allow(self, bits: i64) -> None:
        self.most += bits
        self.left += bits

    def size(self) -> int:
        return 0

    def code(self, bit: i64, probability: i64) -> i64:
        self.left -= 1
        if self.left < 0:
            raise TooLong(f"decode {self.what}: more than {self.most} coded bits; take the snapshot")
        middle = self.low + ((self.high - self.low) * probability >> SCALE)
        if self.value <= middle:
            bit, self.high = 1, middle
        else:
            bit, self.low = 0, middle + 1
        while not (self.low ^ self.high) >> 24:
            self.take()
            self.low = self.low << 8 & TOP
            self.high = self.high << 8 & TOP | 0xFF
        return bit

    def take(self) -> None:
        """One more byte into `value`."""
        size = len(self.data)
        if self.at >= size + 4:
            raise WireError(f"decode {self.what}: cut short at byte {size}; fetch it again")
        octet = self.data[self.at] if self.at < size else 0
        self.at += 1
        self.value = self.value << 8 & TOP | octet

    def finish(self) -> None:
        """Raise WireError unless the data ends exactly as an encoder would have ended it."""
        if self.data[self.at - 4 :] != closing(self.low, self.high):
            raise WireError(f"decode {self.what}: does not end where its content does; fetch it again")
