"""What is asked of a collection: conditions on declared fields, an order, and from where on."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from edged.errors import QueryError
from edged.feed.schema import CollectionSchema
from edged.replica.indexes import terms
from edged.replica.indexes.columns import ORDER

EQUAL = "="
LOWEST, HIGHEST = b"", b"\xff"
OPERATORS = ("gte", "gt", "lte", "lt")
SIMPLE_KINDS = str | int | float | bool | None


class Question(NamedTuple):
    """where: field to a value, or to a tuple of which any will do; ranges: field to operators (gte, gt, lte, lt) with
    their bounds, each of one kind; during: (begin, end) in seconds since 1970, with which an interval has a time in
    common; order: a field, rising, or falling with a "-" before it, "" for the order of keys; after: the cursor of the
    last match of the page before; distinct: a field of which each value comes but once.
    """

    where: Mapping[str, Any] = {}
    ranges: Mapping[str, Mapping[str, Any]] = {}
    during: tuple[int, int] | None = None
    order: str = ""
    after: str | None = None
    distinct: str = ""

    @property
    def order_field(self) -> str:
        return self.order.removeprefix("-")

    @property
    def falling(self) -> bool:
        return self.order.startswith("-")

    @property
    def is_plain(self) -> bool:
        """Whether no index is needed."""
        return not (self.where or self.ranges or self.during or self.order)


class Span(NamedTuple):
    """Terms of a group from `low` to before `high`."""

    low: bytes
    high: bytes


class Cursor(NamedTuple):
    """Where a page ended. term: by which the match was ordered, None where it lacks the field or goes by key."""

    term: bytes | None
    key: str


def check(question: Question, rules: CollectionSchema, collection: str, dataset: str) -> None:
    """Raises QueryError for a field that is not declared for what is asked of it, naming those that are."""
    asked = [
        *(("where", field, rules.index, "index") for field in question.where),
        *(
            (f"where.{field}.{next(iter(bounds), '')}", field, rules.order, "order")
            for field, bounds in question.ranges.items()
        ),
        *((("order", question.order_field, rules.order, "order"),) if question.order else ()),
        *((("distinct", question.distinct, rules.index, "index"),) if question.distinct else ()),
    ]
    for what, field, declared, word in asked:
        if field not in declared:
            what = f"where.{field}" if what == "where" else what if what.startswith("where.") else f"{what}={field}"
            raise QueryError(
                f"{what}: {collection} has no {word} on {field}, only on {', '.join(declared) or 'nothing'}; "
                f"declare it in {dataset}.toml"
            )
    if question.during is not None and not rules.interval:
        raise QueryError(f"at, from, to: {collection} declares no interval; declare it in {dataset}.toml")


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


def write_cursor(cursor: Cursor, *, ordered: bool) -> str:
    """As `after` takes it: the key alone in the order of keys."""
    if not ordered:
        return cursor.key
    term = "" if cursor.term is None else base64.urlsafe_b64encode(cursor.term).decode().rstrip("=")
    return f"{term}~{cursor.key}"


def read_cursor(text: str | None, *, ordered: bool) -> Cursor | None:
    """Raises QueryError for what `write_cursor` does not give."""
    if text is None:
        return None
    try:
        text.encode()
        if not ordered:
            return Cursor(None, text)
        term, sign, key = text.partition("~")
        if not sign:
            raise ValueError
        return Cursor(base64.urlsafe_b64decode(term + "=" * (-len(term) % 4)) if term else None, key)
    except (ValueError, binascii.Error) as fault:  # UnicodeEncodeError too
        raise QueryError(f"after={text!r:.80}: expected the `next` of the page before, in the same order") from fault
