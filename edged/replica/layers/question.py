"""What is asked of a collection: conditions on declared fields, words, an order, and from where on."""

from __future__ import annotations

import base64
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from edged.errors import QueryError
from edged.feed.schema import CollectionSchema
from edged.replica.indexes import terms
from edged.replica.indexes.columns import ORDER

EQUAL = "="
LOWEST, HIGHEST = b"", b"\xff"
OPERATORS = ("gte", "gt", "lte", "lt")
SIMPLE_KINDS = str | int | float | bool | None
KINDS = {b"a": "null", b"b": "true or false", b"n": "numbers", b"s": "texts"}  # by the first byte of an order term


class Misspelt(NamedTuple):
    """words: of which each may have a typing error, or lack a space; titles: whether they are to be in the title."""

    words: frozenset[str]
    titles: bool


class Question(NamedTuple):
    """where: field to a value, or to a tuple of which any will do; ranges: field to operators (gte, gt, lte, lt) with
    their bounds, of which a tuple is one of several readings; during: (begin, end) in seconds since 1970, with which an
    interval has a time in common; order: a field, rising, or falling with a "-" before it, "" for the order of keys, or
    the best first where there is a text; after: the cursor of the last match of the page before; distinct: a field of
    which each value comes but once; text: words that the text fields hold; misspelt: which of them, as is looked
    up where nothing holds them as they were typed.
    """

    where: Mapping[str, Any] = {}
    ranges: Mapping[str, Mapping[str, Any]] = {}
    during: tuple[int, int] | None = None
    order: str = ""
    after: str | None = None
    distinct: str = ""
    text: str = ""
    misspelt: Misspelt | None = None

    @property
    def order_field(self) -> str:
        return self.order.removeprefix("-")

    @property
    def falling(self) -> bool:
        return self.order.startswith("-")

    @property
    def is_plain(self) -> bool:
        """Whether no index is needed."""
        return not (self.where or self.ranges or self.during or self.order or self.text)

    @property
    def is_ranked(self) -> bool:
        """Whether the best come first."""
        return bool(self.text) and not self.order


class Span(NamedTuple):
    """Terms of a group from `low` to before `high`."""

    low: bytes
    high: bytes


class Cursor(NamedTuple):
    """Where a page ended. term: by which the match was ordered, None where it lacks the field or goes by key;
    position: how many came before it, of the best first.
    """

    term: bytes | None
    key: str
    position: int = 0


class Declared(NamedTuple):
    """What is declared of a collection."""

    rules: CollectionSchema
    collection: str
    dataset: str

    def require(self, asked: str, field: str, kind: Literal["index", "order"]) -> None:
        """Raises QueryError for a field that is not declared for what is asked of it, naming those that are."""
        there = self.rules.index if kind == "index" else self.rules.order
        if field not in there:
            raise QueryError(
                f"{asked}: {self.collection} has no {kind} on {field}, only on {', '.join(there) or 'nothing'}; "
                f"declare it in {self.dataset}.toml"
            )


def check(question: Question, declared: Declared) -> Question:
    """The question with the times of its ranges in seconds, where the field is one of times.

    Raises QueryError for what is not declared.
    """
    rules, collection, dataset = declared
    for field in question.where:
        declared.require(f"where.{field}", field, "index")
    for field, bounds in question.ranges.items():
        declared.require(f"where.{field}.{next(iter(bounds), '')}", field, "order")
    if question.order:
        declared.require(f"order={question.order}", question.order_field, "order")
    if question.distinct:
        declared.require(f"distinct={question.distinct}", question.distinct, "index")
    if question.during is not None and not rules.interval:
        raise QueryError(f"at, from, to: {collection} declares no interval; declare it in {dataset}.toml")
    if question.text and not rules.text:
        raise QueryError(f"q: {collection} has no text fields; declare them in {dataset}.toml")
    times = {
        field: {operator: in_seconds(bound) for operator, bound in bounds.items()}
        for field, bounds in question.ranges.items()
        if field in rules.times
    }
    return question._replace(ranges={**question.ranges, **times}) if times else question


def in_seconds(bound: Any) -> Any:
    """A bound of a field of times, or each of its readings."""
    if isinstance(bound, tuple):
        return tuple(map(in_seconds, bound))
    return terms.as_time(bound)


def settled(question: Question, kinds: Callable[[str], Container[bytes]]) -> Question:
    """The question with one bound for each that has several readings: the first of a kind that the field's index holds.

    kinds: the first bytes of the terms that the index of a field holds. Raises QueryError where no reading is of one.
    """
    ranges: dict[str, dict[str, Any]] = {}
    for field, bounds in question.ranges.items():
        held = kinds(field)
        ranges[field] = {}
        for operator, bound in bounds.items():
            readings = bound if isinstance(bound, tuple) else (bound,)
            fitting = [one for one in readings if (kind_of(one) or b"") in held]
            there = [name for kind, name in KINDS.items() if kind in held]
            if there and not fitting and all(kind_of(one) is not None for one in readings):
                asked = readings[-1]
                raise QueryError(
                    f"where.{field}.{operator}={asked!r:.80}: {field} holds {' and '.join(there)}; ask for one of those"
                )
            ranges[field][operator] = (fitting or readings)[0]
    return question._replace(ranges=ranges)


def kind_of(bound: Any) -> bytes | None:
    """By the first byte of its terms; None for what is no bound."""
    term = terms.order_term(bound) if isinstance(bound, SIMPLE_KINDS) else None
    return None if term is None else term[:1]


def span_between(field: str, bounds: Mapping[str, Any]) -> Span:
    """The terms within bounds. Raises QueryError for bounds that are no scalars, or of two kinds."""
    low, high = LOWEST, HIGHEST
    kinds = set()
    for operator, value in bounds.items():
        bound = terms.order_term(value) if isinstance(value, SIMPLE_KINDS) else None
        if operator not in OPERATORS or bound is None:
            raise QueryError(f"where.{field}.{operator}: {value!r:.80} is no bound; give a number or a text")
        kinds.add(bound[:1])
        past = bound + b"\0"  # the first bytes after this very term
        if operator in ("gte", "gt"):
            low = max(low, bound if operator == "gte" else past)
            high = min(high, terms.kind_end(bound))
        else:
            high = min(high, past if operator == "lte" else bound)
            low = max(low, bound[:1])
    if len(kinds) > 1:
        raise QueryError(f"where.{field}: the bounds of a range are of two kinds; give two numbers or two texts")
    return Span(low, max(low, high))


def groups_of(question: Question) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    """The group and the terms of each condition of equality."""
    for name, value in question.where.items():
        yield EQUAL + name, terms.wanted_terms(value)


def spans_of(question: Question) -> Iterator[tuple[str, Span]]:
    """The field and the terms of each range."""
    for name, bounds in question.ranges.items():
        yield name, span_between(name, bounds)


def order_group(field: str) -> str:
    return ORDER + field


def write_cursor(cursor: Cursor, question: Question) -> str:
    """As `after` takes it: the key alone in the order of keys."""
    if question.is_ranked:
        return f"{cursor.position}~{cursor.key}"
    return f"{write_term(cursor.term)}~{cursor.key}" if question.order else cursor.key


def read_cursor(question: Question) -> Cursor | None:
    """What `write_cursor` has written. Raises QueryError for anything else."""
    text = question.after
    if text is None:
        return None
    try:
        text.encode()
        if not (question.is_ranked or question.order):
            return Cursor(None, text)
        begin, sign, key = text.partition("~")
        if not sign:
            raise ValueError
        if not question.is_ranked:
            term = read_term(begin)
            if term is not None and term[:1] not in KINDS:  # as of a cursor that is another question's
                raise ValueError
            return Cursor(term, key)
        if not (begin.isascii() and begin.isdigit() and len(begin) < 10):
            raise ValueError
        return Cursor(None, key, int(begin))
    except ValueError as fault:  # UnicodeEncodeError and binascii.Error too
        raise wrong_cursor(text) from fault


def wrong_cursor(text: str) -> QueryError:
    return QueryError(f"after={text!r:.80}: expected the `next` of the page before, asked in the same way")


def from_group(values: Sequence[Any], after: str | None) -> Iterator[tuple[Any, str]]:
    """(value, cursor) of those of the groups' values that come after a cursor. Raises QueryError for no cursor."""
    cursors = [write_term(terms.term(value)) + "~" for value in values]
    if after is None:
        yield from zip(values, cursors, strict=True)
    elif after in cursors:
        begin = cursors.index(after) + 1
        yield from zip(values[begin:], cursors[begin:], strict=True)
    else:  # of a value that no record has any more
        try:
            term = read_term(after[:-1]) or b""
            gone = terms.value_of(term)
            if not after.endswith("~") or terms.term(gone) != term:
                raise ValueError
        except ValueError as fault:
            raise wrong_cursor(after) from fault
        for value, cursor in zip(values, cursors, strict=True):
            if (terms.order_term(value) or b"") > (terms.order_term(gone) or b""):
                yield value, cursor


def write_term(term: bytes | None) -> str:
    return "" if term is None else base64.urlsafe_b64encode(term).decode().rstrip("=")


def read_term(text: str) -> bytes | None:
    """What `write_term` has written. Raises ValueError for anything else."""
    if not text:
        return None
    found = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    if write_term(found) != text:  # which b64decode is lenient about
        raise ValueError
    return found


def is_past(place: Cursor, cursor: Cursor, question: Question) -> bool:
    """Whether a match at `place` comes after `cursor`, in the order of keys or in a declared one."""
    if place.term == cursor.term:
        return place.key > cursor.key
    if place.term is None or cursor.term is None:
        return place.term is None
    return place.term < cursor.term if question.falling else place.term > cursor.term
