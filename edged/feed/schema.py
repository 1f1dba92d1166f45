"""The schema: what `<dataset>.toml` declares that a device must know: indexes, text fields and views."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from edged.errors import WireError
from edged.feed.names import check_collection, check_name

NOTHING: Mapping[str, Any] = MappingProxyType({})


class CollectionSchema(NamedTuple):
    """index: fields that `where.FIELD=` may ask for; text: fields that `q=` searches, most important first;
    min_count: records that the collection has at least, over all slices; order: fields with an ordered index, for
    ranges and sorting; interval: the fields with begin and end of what `at` and `from` and `to` ask for, or none;
    valid: the fields with begin and end of the time in which a record is there at all, or none; rank: the field by
    which of two equally good finds of a search the greater comes first, or ""; refs: fields that hold keys, to the
    collection whose keys they are."""

    index: tuple[str, ...] = ()  # type: ignore[assignment]  # hides tuple.index, which means nothing here
    text: tuple[str, ...] = ()
    min_count: int = 0
    order: tuple[str, ...] = ()
    interval: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    rank: str = ""
    refs: Mapping[str, str] = NOTHING

    @property
    def times(self) -> tuple[str, ...]:
        """The fields in which a text of RFC 3339 counts as a time."""
        return self.interval + self.valid


class ViewRule(NamedTuple):
    """What a view does to the records of one collection.

    fields: dotted paths kept, all if empty; truncate: path to greatest number of characters; rename: old path to new
    top-level name; choose: path of an object to the preference list of its members, the first present replacing it
    (an image variant, a language with fallback); expand: paths of keys in whose place the records come; limit: path of
    a list to the greatest number of its items.
    """

    fields: tuple[str, ...] = ()
    truncate: Mapping[str, int] = NOTHING
    rename: Mapping[str, str] = NOTHING
    choose: Mapping[str, tuple[str, ...]] = NOTHING
    expand: tuple[str, ...] = ()
    limit: Mapping[str, int] = NOTHING


class Schema(NamedTuple):
    """collections by name; views by name, then by collection."""

    collections: Mapping[str, CollectionSchema] = NOTHING
    views: Mapping[str, Mapping[str, ViewRule]] = NOTHING

    def to_cbor(self) -> dict[str, Any]:
        return {
            "collections": {name: collection_to_cbor(item) for name, item in self.collections.items()},
            "views": {
                view: {name: view_to_cbor(rule) for name, rule in rules.items()} for view, rules in self.views.items()
            },
        }

    @classmethod
    def from_cbor(cls, item: object) -> Schema:
        """Raises WireError. Members that this release does not know are passed over: an older device still works."""
        match item:
            case {"collections": dict() as collections, "views": dict() as views}:
                return cls(
                    {check_collection(name): collection_from_cbor(entry) for name, entry in collections.items()},
                    {check_name(view, "view"): rules_from_cbor(rules) for view, rules in views.items()},
                )
        raise WireError("decode schema: expected collections and views")


def collection_to_cbor(item: CollectionSchema) -> dict[str, Any]:
    document: dict[str, Any] = {"index": list(item.index), "text": list(item.text)}
    document |= {"min_count": item.min_count} if item.min_count else {}
    document |= {"order": list(item.order)} if item.order else {}
    document |= {"interval": list(item.interval)} if item.interval else {}
    document |= {"valid": list(item.valid)} if item.valid else {}
    document |= {"rank": item.rank} if item.rank else {}
    return document | ({"refs": dict(item.refs)} if item.refs else {})


def view_to_cbor(rule: ViewRule) -> dict[str, Any]:
    document: dict[str, Any] = {
        "fields": list(rule.fields),
        "truncate": dict(rule.truncate),
        "rename": dict(rule.rename),
        "choose": {path: list(order) for path, order in rule.choose.items()},
    }
    document |= {"expand": list(rule.expand)} if rule.expand else {}
    return document | ({"limit": dict(rule.limit)} if rule.limit else {})


def collection_from_cbor(item: object) -> CollectionSchema:
    match item:
        case {"index": list() as index, "text": list() as text, **more}:
            least = more.get("min_count", 0)
            if not isinstance(least, int) or least < 0:
                raise WireError(f"decode schema: min_count {least!r:.40} is not a number of records")
            interval, valid = (texts(more.get(name, []), name) for name in ("interval", "valid"))
            for name, fields in (("interval", interval), ("valid", valid)):
                if len(fields) not in (0, 2):
                    raise WireError(f"decode schema: {name} names {len(fields)} fields, expected begin and end")
            rank = more.get("rank", "")
            if not isinstance(rank, str):
                raise WireError(f"decode schema: rank {rank!r:.40} is not a field")
            order = texts(more.get("order", []), "order")
            refs = text_to_text(more.get("refs", {}), "refs")
            return CollectionSchema(
                texts(index, "index"), texts(text, "text"), least, order, interval, valid, rank, refs
            )
    raise WireError("decode schema: a collection is not {index, text}")


def rules_from_cbor(item: object) -> dict[str, ViewRule]:
    if not isinstance(item, dict):
        raise WireError("decode schema: a view is not a map of collections")
    return {check_collection(name): rule_from_cbor(entry) for name, entry in item.items()}


def rule_from_cbor(item: object) -> ViewRule:
    match item:
        case {
            "fields": list() as fields,
            "truncate": dict() as truncate,
            "rename": dict() as rename,
            "choose": dict() as choose,
            **more,
        }:
            return ViewRule(
                texts(fields, "fields"),
                sizes(truncate, "truncate"),
                text_to_text(rename, "rename"),
                {
                    path: texts(order, "choose")
                    for path, order in zip(texts(list(choose), "choose"), choose.values(), strict=True)
                },
                texts(more.get("expand", []), "expand"),
                sizes(more.get("limit", {}), "limit"),
            )
    raise WireError("decode schema: a view's rule is not {fields, truncate, rename, choose}")


def texts(items: object, what: str) -> tuple[str, ...]:
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise WireError(f"decode schema: {what} is not a list of texts")
    return tuple(items)


def text_to_text(item: object, what: str) -> dict[str, str]:
    if not isinstance(item, dict):
        raise WireError(f"decode schema: {what} is not a map of texts")
    return dict(zip(texts(list(item), what), texts(list(item.values()), what), strict=True))


def sizes(item: object, what: str) -> dict[str, int]:
    if not isinstance(item, dict) or not all(isinstance(size, int) and size >= 0 for size in item.values()):
        raise WireError(f"decode schema: {what} holds something that is not a number")
    return dict(zip(texts(list(item), what), item.values(), strict=True))
