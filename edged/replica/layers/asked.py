"""A question as it is put: in text, by a URL or a command line, or by keyword arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import ceil, floor, isinf
from typing import TYPE_CHECKING, Any

from edged.errors import QueryError
from edged.feed.schema import CollectionSchema
from edged.replica.indexes.terms import LONG_AGO, time_of
from edged.replica.layers.question import OPERATORS, SIMPLE_KINDS, Question

if TYPE_CHECKING:
    from datetime import datetime

    Time = int | float | datetime

MAX_FIELDS = 8  # with conditions
MAX_VALUES = 500  # of all conditions together
NOW = "now"
NUMBER = re.compile(r"-?[0-9]{1,19}(\.[0-9]{1,9})?")
FRACTION = re.compile(r"\.\d*[1-9]")
LOST_PLUS = re.compile(r" (\d\d:\d\d)$")  # of an offset, by a form that means a space by it


@dataclass(slots=True)
class Asked:
    """where: FIELD, or FIELD.gte and so on, to its values; at, begin, end: times, "" where not given; the rest as in
    Question.
    """

    where: dict[str, list[str]] = field(default_factory=dict)
    at: str = ""
    begin: str = ""
    end: str = ""
    order: str = ""
    after: str | None = None
    distinct: str = ""
    text: str = ""

    def add(self, name: str, value: str) -> None:
        """A condition of `where`. Raises QueryError beyond the bounds."""
        if name not in self.where and len(self.where) == MAX_FIELDS:
            raise QueryError(f"more than {MAX_FIELDS} where conditions; ask for fewer")
        if sum(map(len, self.where.values())) == MAX_VALUES:
            raise QueryError(f"more than {MAX_VALUES} values of where conditions; ask for fewer")
        self.where.setdefault(name, []).append(value)

    @property
    def has_interval(self) -> bool:
        return bool(self.at or self.begin or self.end)

    @property
    def is_of_now(self) -> bool:
        """Whether the answer depends on when it is asked for."""
        times = (self.at, self.begin, self.end, *(text for values in self.where.values() for text in values))
        return NOW in times

    def question(self, rules: CollectionSchema, now: float) -> Question:
        """now: seconds since 1970. Raises QueryError."""
        where: dict[str, Any] = {}
        ranges: dict[str, dict[str, Any]] = {}
        for name, values in self.where.items():
            path, _, operator = name.rpartition(".")
            if not path or operator not in OPERATORS or name in rules.index:
                where[name] = tuple([reading for text in values for reading in readings(text)])
            elif len(values) > 1:
                raise QueryError(f"where.{name} is given {len(values)} times; give one bound")
            elif values[0] == NOW and path in rules.times:
                ranges.setdefault(path, {})[operator] = int(now)
            else:
                ranges.setdefault(path, {})[operator] = readings(values[0])
        during = self.during(now) if self.has_interval else None
        return Question(where, ranges, during, self.order, self.after, self.distinct, self.text)

    def during(self, now: float) -> tuple[int, int]:
        """Raises QueryError."""
        if self.at:
            if self.begin or self.end:
                raise QueryError(
                    "at does not go together with from and to; ask for a time, or for what lies between two"
                )
            at = seconds("at", self.at, now)
            return at, at + 1
        begin = seconds("from", self.begin, now) if self.begin else -LONG_AGO
        end = seconds("to", self.end, now) if self.end else LONG_AGO
        end += bool(FRACTION.search(self.end))  # what begins with that very second is before it
        if end <= begin:
            raise QueryError(
                f"from={self.begin:.40} to={self.end:.40}: nothing lies between; let from be the earlier one"
            )
        return begin, end


def by_keywords(conditions: Mapping[str, Any]) -> Question:
    """`year=1994` is a condition, `year__gte=1990` a bound. Raises QueryError for a value that no index holds."""
    where: dict[str, Any] = {}
    ranges: dict[str, dict[str, Any]] = {}
    for name, value in conditions.items():
        path, _, operator = name.rpartition("__")
        if path and operator in OPERATORS:
            ranges.setdefault(path, {})[operator] = value.timestamp() if hasattr(value, "timestamp") else value
        else:
            where[name] = any_of(name, value)
    return Question(where, ranges)


def any_of(name: str, value: Any) -> Any:
    """A value, or a tuple of which any will do. Raises QueryError."""
    several = isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)
    wanted = tuple(value) if several else (value,)
    for one in wanted:
        if not isinstance(one, SIMPLE_KINDS):
            raise QueryError(
                f"where.{name}: {one!r:.80} is no value of an index; give a text, a number, True, False or None, "
                "or several of them in a tuple"
            )
    return wanted if several else value


def interval_of(at: Time | None, between: tuple[Time, Time] | None) -> tuple[int, int] | None:
    """In whole seconds since 1970, the end after the last. Raises QueryError."""
    if between is None:
        return None if at is None else (whole("at", at), whole("at", at) + 1)
    if at is not None:
        raise QueryError("at does not go together with between; ask for a time, or for what lies between two")
    if not isinstance(between, tuple | list) or len(between) != 2:
        raise QueryError(f"between={between!r:.80}: expected two times, the earlier one first")
    begin, end = whole("between", between[0]), whole("between", between[1], up=True)
    if end <= begin:
        raise QueryError(f"between={between!r:.80}: nothing lies between; let the earlier one be first")
    return begin, end


def whole(name: str, time: Time, *, up: bool = False) -> int:
    """In whole seconds since 1970. up: the next one where there is a fraction. Raises QueryError."""
    number = time.timestamp() if hasattr(time, "timestamp") else time
    if isinstance(number, bool) or not isinstance(number, int | float) or not -LONG_AGO < number < LONG_AGO:
        raise QueryError(f"{name}={time!r:.80}: expected seconds since 1970, or a datetime")
    return ceil(number) if up else floor(number)


def seconds(name: str, text: str, now: float) -> int:
    """A time in whole seconds since 1970. Raises QueryError."""
    if text == NOW:
        return int(now)
    if NUMBER.fullmatch(text):
        found = time_of(float(text) if "." in text else int(text))
    else:
        found = time_of(LOST_PLUS.sub(r"+\1", text))
    if found is None:
        raise QueryError(
            f"{name}={text!r:.80}: expected seconds since 1970, a time such as 2026-11-26T20:15:00Z, or now"
        )
    return found


def readings(text: str) -> tuple[Any, ...]:
    """What a value may mean in a record: 1994 is the number or the text, "1994" (quoted) the text alone."""
    try:
        value = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return (text,)
    if isinstance(value, dict | list) or (isinstance(value, float) and isinf(value)):  # which 1e400 is read as
        return (text,)
    return (value,) if isinstance(value, str) else (value, text)


def refuse_constant(name: str) -> None:
    """NaN and infinities are no JSON."""
    raise ValueError(name)
