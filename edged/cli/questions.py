"""What `edged ls` and `search` ask of a collection, by the words of docs/http.md, and how the answer is printed."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

import cbor2

from edged.cli.output import emit, table, write_lines
from edged.errors import QueryError
from edged.ops.logs import one_line
from edged.replica.finds import Match
from edged.replica.indexes.terms import by_text
from edged.replica.layers.asked import Asked
from edged.replica.layers.query import Tally
from edged.replica.view import View

Item = dict[str, Any]


def add_questions(parser: argparse.ArgumentParser) -> None:
    """Options for conditions on declared fields, orders and counts."""
    where = "a condition; again for any of several values; FIELD.gte=, .gt=, .lte=, .lt= for a range"
    order = "sort by a field with a declared order; --order=-FIELD for the greatest first"
    at = "what the declared interval holds then: seconds since 1970, RFC 3339, or now"
    add = parser.add_argument
    add("--where", action="append", default=[], metavar="FIELD=VALUE", help=where)
    add("--order", default="", metavar="FIELD", help=order)
    add("--at", default="", metavar="TIME", help=at)
    add("--from", dest="begin", default="", metavar="TIME", help="what has a time in common with those from TIME on")
    add("--to", dest="end", default="", metavar="TIME", help="what has a time in common with those before TIME")
    add(
        "--group",
        default="",
        metavar="FIELD",
        help="by the values of a field with an index; --limit counts within each",
    )
    add("--distinct", default="", metavar="FIELD", help="of each value of a field with an index the first record only")
    add("--count", action="store_true", help="print how many records there are instead")
    add("--facets", default="", metavar="FIELDS", help="print how many records have each value of these fields instead")
    add("--values", action="store_true", help="print the values too, a record a line")
    add("--expand", default="", metavar="PATHS", help="print the values, with records in the place of the keys there")


def is_question(args: argparse.Namespace) -> bool:
    """Whether more is asked than for keys in their order."""
    words: str = getattr(args, "text", "")
    return bool(
        args.where or args.order or args.at or args.begin or args.end or args.group or args.distinct
        or args.count or args.facets or words
    )  # fmt: skip


def asked_by(args: argparse.Namespace) -> Asked:
    """Raises QueryError."""
    asked = Asked(
        at=args.at, begin=args.begin, end=args.end, order=args.order, distinct=args.distinct,
        text=getattr(args, "text", ""),
    )  # fmt: skip
    for condition in args.where:
        name, sign, value = condition.partition("=")
        if not sign or not name:
            raise QueryError(f"--where {condition!r:.80}: expected FIELD=VALUE, as in year=1994 or year.gte=1990")
        asked.add(name, value)
    return asked


def require_collection(args: argparse.Namespace) -> None:
    """Raises QueryError where something is asked that only a collection answers, and none is named."""
    if args.collection is None and (is_question(args) or args.prefix or args.values or args.expand):
        raise QueryError("prefixes, conditions, orders, counts and values are of a collection; name one")


def answer_question(args: argparse.Namespace, view: View) -> int:
    """Print what a collection answers."""
    now = max(time.time(), view.as_of)  # where the clock is not set
    question = asked_by(args).question(view.rules(args.collection), now)
    if args.count or args.facets:
        names = tuple(name for name in args.facets.split(",") if name)
        print_counts(args, view.tally(args.collection, question, names))
        return 0
    items: Iterator[Item]
    if args.group:
        groups = view.ask_by_group(args.collection, question, args.group, limit=args.limit or 50)
        items = (item for group in groups for item in items_of(args, view, iter(group.matches), {"group": group.value}))
    else:
        items = items_of(args, view, view.ask(args.collection, question, limit=args.limit), {})
    print_items(args, items)
    return 0


def items_of(args: argparse.Namespace, view: View, found: Iterator[Match], more: Item) -> Iterator[Item]:
    """Each record as an item of a list, with its value where that is asked for."""
    references = view.references(args.collection, args.expand)
    for match in found:
        item = {"key": match.key, **more}
        if args.values or references:
            value = cbor2.loads(match.value)
            item["value"] = view.expanded(value, references) if references else value
        yield item


def print_items(args: argparse.Namespace, items: Iterator[Item]) -> None:
    first, words = next(items, None), str(getattr(args, "text", ""))
    if first is None and not args.json and words:
        print("nothing found")
        return
    items = chain([] if first is None else [first], items)
    if args.json:
        emit(args, [item if len(item) > 1 else item["key"] for item in items], "")
    elif args.values or args.expand:
        write_lines(json.dumps(item, ensure_ascii=False) for item in items)
    elif args.group:
        write_lines(f"{one_line(text_of(item['group']))}\t{one_line(item['key'])}" for item in items)
    else:
        write_lines(one_line(item["key"]) for item in items)


def print_counts(args: argparse.Namespace, found: Tally) -> None:
    facets = {name: by_text(counts) for name, counts in found.facets.items()}
    data: dict[str, Any] = {"total": found.total} | ({"facets": facets} if facets else {})
    rows = [(name, value, str(count)) for name, counts in facets.items() for value, count in counts.items()]
    lines = [table(rows, ("field", "value", "records"))] if facets else []
    emit(args, data, "\n".join([*lines, f"{found.total} records"]))


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
