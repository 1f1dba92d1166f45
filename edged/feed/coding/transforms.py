"""Transforms: how a field's new value may follow from the old record, so that edits of one pattern cost little.

From a pair of old record and new value all transforms that explain it are proposed; those that explain the next
records as well are asked first (see guessing). All are whole numbers, IEEE arithmetic and ASCII: no table of Unicode
and no library may tell two machines apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from edged.feed import cbor
from edged.feed.fieldpath import ABSENT

FACTORS = (10, 100, 1000, 60, 3600, 2, 5, 1024)
TIME = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})([T ])([0-9]{2}):([0-9]{2}):([0-9]{2})", re.ASCII)
DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})", re.ASCII)
TEXT_MOST = 1024  # characters of a text that is looked at for what has become of it
LIST_MOST = 64  # items, likewise
TOKENS_MOST = 128  # words and signs of a text in which replaced pieces are looked for: the time grows by their square
PIECES_MOST = 4  # places in which a text was changed
BEGINNING_MOST = 8  # characters of a text that may stand for it
TELLING = 2  # characters of another field that have to be found in a text before it counts as made of them


class Transform(Protocol):
    """Makes a new value of another one, ABSENT where it does not apply. Equal transforms make equal values."""

    def apply(self, value: Any) -> Any: ...


def is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def same(one: Any, other: Any) -> bool:
    """Whether two values have the same canonical bytes."""
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is float:
        return bool(one == other) and math.copysign(1.0, one) == math.copysign(1.0, other)
    if kind is list or kind is dict:
        return len(one) == len(other) and same_items(one, other)
    return bool(one == other) if kind in (str, int, bool) else cbor.encode(one) == cbor.encode(other)


def same_items(one: Any, other: Any) -> bool:
    """Of two lists or two maps of the same size. Loops: they are compiled, and asked more often than anything."""
    if type(one) is list:
        for place, item in enumerate(one):  # noqa: SIM110
            if not same(item, other[place]):
                return False
        return True
    for name, item in one.items():  # noqa: SIM110
        if name not in other or not same(item, other[name]):
            return False
    return True


@dataclass(frozen=True, slots=True)
class Copied:
    """The value itself, of another field."""

    def apply(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value always. coded: its canonical bytes, by which constants are told apart."""

    coded: bytes
    value: Any = field(compare=False)

    def apply(self, value: Any) -> Any:
        return self.value


@dataclass(frozen=True, slots=True)
class Added:
    """A whole number and `step`."""

    step: int

    def apply(self, value: Any) -> Any:
        return value + self.step if type(value) is int else ABSENT


@dataclass(frozen=True, slots=True)
class Scaled:
    """A number times (`up`) or by `factor`; digits: to how many it is rounded, None for not at all, -1 to an integer;
    -2: an integer cut off to a multiple, -3: divided and cut off."""

    factor: int
    up: bool
    digits: int | None

    def apply(self, value: Any) -> Any:
        if not is_number(value):
            return ABSENT
        if self.digits in (-2, -3):
            if type(value) is not int:
                return ABSENT
            return value // self.factor * (self.factor if self.digits == -2 else 1)
        if self.up and type(value) is int:
            return value * self.factor
        if type(value) is int and abs(value) >= 1 << 53:
            return ABSENT
        scaled = float(value) * self.factor if self.up else value / self.factor
        if not math.isfinite(scaled):
            return ABSENT
        if self.digits is None:
            return scaled
        return round(scaled) if self.digits < 0 else round(scaled, self.digits)


@dataclass(frozen=True, slots=True)
class Spliced:
    """A text with pieces replaced: (what stood there, what stands there now), each where it is first found after the
    one before. The empty text stands at the beginning; for the end there is Framed."""

    pieces: tuple[tuple[str, str], ...]

    def apply(self, value: Any) -> Any:
        if type(value) is not str:
            return ABSENT
        made, at = [], 0
        for old, new in self.pieces:
            place = value.find(old, at)
            if place < 0:
                return ABSENT
            made += [value[at:place], new]
            at = place + len(old)
        return "".join(made) + value[at:]


@dataclass(frozen=True, slots=True)
class Later:
    """A time or day in a text (RFC 3339), by so many seconds."""

    seconds: int

    def apply(self, value: Any) -> Any:
        if type(value) is not str:
            return ABSENT
        moment = moment_in(value)
        if moment is None:
            return ABSENT
        try:
            then = moment + timedelta(seconds=self.seconds)
        except OverflowError:
            return ABSENT
        timed = TIME.match(value)
        size = 19 if timed else 10
        if not timed and (then.hour or then.minute or then.second):
            return ABSENT
        text = f"{then.year:04}-{then.month:02}-{then.day:02}"
        if timed:
            text += f"{timed[4]}{then.hour:02}:{then.minute:02}:{then.second:02}"
        return text + value[size:]


def moment_in(text: str) -> datetime | None:
    """The time or day with which a text begins."""
    found = TIME.match(text) or DATE.match(text)
    if found is None:
        return None
    try:
        return datetime(*(int(part) for part in found.groups() if part.isdigit()))  # type: ignore[arg-type]  # a zone, if any, stands after it
    except ValueError:
        return None


PLAIN, LOWER, UPPER, HYPHENS, UNDERSCORES, UNDERSCORED = range(6)  # how a text is folded
SEPARATORS = re.compile(rb"[^0-9a-z\x80-\xff]+")


def folded(value: Any, fold: int) -> str | None:
    """A scalar's text in another spelling; only ASCII is changed. None for what has none."""
    if type(value) is str:
        text = value[:TEXT_MOST]
    elif type(value) is int or type(value) is float:
        text = repr(value)
    else:
        return None
    if fold == PLAIN:
        return text
    if fold == UNDERSCORED:
        return text.replace(" ", "_")
    data = text.encode()
    if fold == UPPER:
        return data.upper().decode()
    data = data.lower()
    if fold != LOWER:
        data = SEPARATORS.sub(b"-" if fold == HYPHENS else b"_", data).strip(b"-_")
    return data.decode()


@dataclass(frozen=True, slots=True)
class Framed:
    """A scalar's text, folded, between two texts; size: only so many characters of it, 0 for all."""

    before: str
    fold: int
    after: str
    size: int = 0

    def apply(self, value: Any) -> Any:
        text = folded(value, self.fold)
        if text is None:
            return ABSENT
        return self.before + (text[: self.size] if self.size else text) + self.after


@dataclass(frozen=True, slots=True)
class Whole:
    """The whole number that a text spells, or the number of items of a list."""

    def apply(self, value: Any) -> Any:
        if type(value) is list:
            return len(value)
        if type(value) is str and value.isascii() and value.isdigit() and len(value) < 16:
            return int(value)
        return ABSENT


@dataclass(frozen=True, slots=True)
class Reordered:
    """A list's items in another order: where each was."""

    order: tuple[int, ...]

    def apply(self, value: Any) -> Any:
        if type(value) is not list or len(value) != len(self.order):
            return ABSENT
        return [value[place] for place in self.order]


@dataclass(frozen=True, slots=True)
class Turned:
    """A list with so many items of its end put before its beginning; 0: sorted (texts by code points, whole numbers by
    value, others by canonical bytes), -1: reversed."""

    count: int

    def apply(self, value: Any) -> Any:
        if type(value) is not list or not value:
            return ABSENT
        if self.count == 0:
            plain = any(all(type(item) is kind for item in value) for kind in (str, int))
            return sorted(value) if plain else sorted(value, key=cbor.encode)
        if self.count < 0:
            return value[::-1]
        count = self.count % len(value)
        return value[len(value) - count :] + value[: len(value) - count]


@dataclass(frozen=True, slots=True)
class Extended:
    """A list with items (their canonical bytes) put before and after it, and without some."""

    before: tuple[bytes, ...]
    after: tuple[bytes, ...]
    without: tuple[bytes, ...]

    def apply(self, value: Any) -> Any:
        if type(value) is not list or len(value) > LIST_MOST:
            return ABSENT
        kept = [item for item in value if cbor.encode(item) not in self.without] if self.without else value
        if self.without and len(kept) == len(value):
            return ABSENT
        front, back = ([cbor.decode(item, "item") for item in items] for items in (self.before, self.after))
        return [*front, *kept, *back]


# --- what explains a pair --------------------------------------------------------------------------------------------


def explanations(old: Any, new: Any) -> Iterator[Transform]:
    """What may have made `new` of the same field's old value; some may not apply after all."""
    if is_number(old) and is_number(new):
        if type(old) is int and type(new) is int:
            yield Added(new - old)
        yield from scalings(old, new)
    elif type(old) is str and type(new) is str and max(len(old), len(new)) <= TEXT_MOST:
        one, other = moment_in(old), moment_in(new)
        if one is not None and other is not None and one != other:
            yield Later(round((other - one).total_seconds()))
        pieces = spliced(old, new)
        if pieces:
            yield Spliced(pieces)
            if len(pieces) > 1:
                yield from (Spliced((piece,)) for piece in pieces)
    elif type(old) is list and type(new) is list and max(len(old), len(new)) <= LIST_MOST:
        yield from orders(old, new)


def scalings(old: Any, new: Any) -> Iterator[Transform]:
    for factor in FACTORS:
        for up in (True, False):
            # Rounding moves a number by one half at most; cutting off makes a multiple of it or less than it.
            exact = old * factor if up else old / factor
            if not abs(exact - new) <= 1 and (up or new != old // factor * factor):
                continue
            for digits in (None, -1, 0, 1, 2, 3) if type(new) is float or type(old) is float else (-1, -2, -3, None):
                if digits in (-2, -3) and up:
                    continue
                made = Scaled(factor, up, digits)
                if same(made.apply(old), new):
                    yield made
                    break


def spliced(old: str, new: str) -> tuple[tuple[str, str], ...]:
    """The pieces of `old` that were replaced, each with so much before it that it is found again; empty if too many."""
    pieces: list[tuple[str, str]] = []
    end = 0
    before, after = tokens(old), tokens(new)
    if max(len(before), len(after)) > TOKENS_MOST:
        return ()
    for i1, i2, j1, j2 in replaced(before, after):
        was, now = "".join(before[i1:i2]), "".join(after[j1:j2])
        start = sum(map(len, before[:i1]))
        while old.find(was, end) != start or not was:  # take in what stands before it, to tell it from others like it
            if start <= end:
                return ()
            start -= 1
            was, now = old[start] + was, old[start] + now
        pieces.append((was, now))
        end = start + len(was)
        if len(pieces) > PIECES_MOST:
            return ()
    return tuple(pieces)


def replaced(old: Sequence[Any], new: Sequence[Any]) -> Iterator[tuple[int, int, int, int]]:
    """(from, to) in `old` and in `new` of what stands between the runs that both share: the longest of all, of several
    the first in `old`, then in `new`; and so again before it and after it. (difflib may come to differ with Python.)"""
    waiting = [(0, len(old), 0, len(new))]
    while waiting:
        low, high, below, above = waiting.pop()
        size = best = place = 0
        ending: dict[int, int] = {}
        for i in range(low, high):
            longer: dict[int, int] = {}
            for j in range(below, above):
                if old[i] == new[j]:
                    longer[j] = run = ending.get(j - 1, 0) + 1
                    if run > size:
                        size, best, place = run, i - run + 1, j - run + 1
            ending = longer
        if size:
            waiting.append((best + size, high, place + size, above))
            waiting.append((low, best, below, place))
        elif high > low or above > below:
            yield low, high, below, above


def tokens(text: str) -> list[str]:
    return re.findall(r"[0-9A-Za-z\u0080-\U0010ffff]+|[^0-9A-Za-z\u0080-\U0010ffff]", text)


def orders(old: list[Any], new: list[Any]) -> Iterator[Transform]:
    was, now = [cbor.encode(item) for item in old], [cbor.encode(item) for item in new]
    if sorted(was) == sorted(now):
        for count in (0, -1, *range(1, min(len(old), 9))):
            if same(Turned(count).apply(old), new):
                yield Turned(count)
        if len(set(was)) == len(was):
            yield Reordered(tuple(was.index(item) for item in now))
        return
    kept = [item for item in was if item in now]
    gone = tuple(item for item in was if item not in now)
    if len(gone) <= PIECES_MOST:
        for place in range(len(now) - len(kept) + 1):
            if now[place : place + len(kept)] == kept:
                yield Extended(tuple(now[:place]), tuple(now[place + len(kept) :]), gone)
                break


def derivations(other: Any, new: Any) -> Iterator[Transform]:
    """What may have made `new` of another field's value."""
    if type(other) in (list, dict) and len(other) > LIST_MOST:
        return
    if (
        type(other) is type(new)
        and same(other, new)
        and (type(new) not in (bool, int) or new > 1)
        and new not in ("", [], {})
    ):
        yield Copied()
    if is_number(new):
        if same(Whole().apply(other), new):
            yield Whole()
        if is_number(other) and other != 0 and new != 0:
            yield from scalings(other, new)
    elif type(new) is str and len(new) <= TEXT_MOST:
        for fold in (PLAIN, LOWER, UPPER, HYPHENS, UNDERSCORES, UNDERSCORED):
            text = folded(other, fold)
            if text is None or len(text) < TELLING:
                break
            place = new.find(text)
            if place >= 0 and text != new[:0]:
                if fold or text != new:
                    yield Framed(new[:place], fold, new[place + len(text) :])
                break
            if len(new) <= BEGINNING_MOST and text.startswith(new) and new:
                yield Framed("", fold, "", len(new))
                break


def sources(record: Any, depth: int = 3) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The fields of a record, those of the objects in it too, by path."""
    if type(record) is dict:
        for name, value in record.items():
            yield (name,), value
            if depth > 1 and type(value) is dict:
                yield from (((name, *path), item) for path, item in sources(value, depth - 1))


def at(record: Any, path: tuple[str, ...]) -> Any:
    """What a record holds at a path of `sources`."""
    for name in path:
        if type(record) is not dict or name not in record:
            return ABSENT
        record = record[name]
    return record
