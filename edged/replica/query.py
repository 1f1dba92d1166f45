"""Conditions and text search over a view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import cbor2

from edged.replica import terms

if TYPE_CHECKING:
    from edged.replica.view import View


def where(view: View, collection: str, conditions: Mapping[str, Any], after: str | None) -> Iterator[tuple[str, bytes]]:
    """(key, value) in key order of the records that meet all conditions."""
    wanted = [(name, set(terms.wanted_terms(value))) for name, value in conditions.items()]
    for key, value in view.scan(collection, after=after):
        record = cbor2.loads(value)
        if all(choice & terms.record_terms(record, name) for name, choice in wanted):
            yield key, value


def search(view: View, collection: str, text: str, limit: int) -> list[tuple[str, bytes]]:
    """The best `limit` (key, value) that hold every word of `text`."""
    asked = terms.words(text)
    fields = view.rules(collection).text
    ranked: list[tuple[int, str, bytes]] = []
    for key, value in view.scan(collection) if asked else ():
        record = cbor2.loads(value)
        held = [terms.record_words(record, name) for name in fields]
        rank = rank_of(asked, held)
        if rank is not None:
            ranked.append((rank, key, value))
    ranked.sort(key=lambda item: item[:2])
    return [(key, value) for _, key, value in ranked[:limit]]


def rank_of(asked: list[str], held: list[list[str]]) -> int | None:
    """0 to 4, the best first; None where a word is missing. held: the words of each text field, the first a title."""
    title, everything = held[0], [word for field in held for word in field]
    if starts(title, asked):
        return 0
    if all(word in title for word in asked):
        return 1
    if all(any(other.startswith(word) for other in title) for word in asked):
        return 2
    if all(word in everything for word in asked):
        return 3
    return 4 if all(any(other.startswith(word) for other in everything) for word in asked) else None


def starts(title: list[str], asked: list[str]) -> bool:
    """Whether the title begins with what was typed, the last word possibly cut short."""
    count = len(asked)
    return title[: count - 1] == asked[:-1] and len(title) >= count and title[count - 1].startswith(asked[-1])
