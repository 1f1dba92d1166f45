"""The query parameters of each kind of request, checked. Whatever is unknown, repeated or out of range is a 400."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from edged.errors import QueryError, RequestError, WireError
from edged.feed.limits import KEY_BYTES
from edged.feed.names import check_key
from edged.http.request import BROKEN_ESCAPE, decode, split_query
from edged.replica.layers.asked import Asked
from edged.serve.catalog import Catalog, View

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
MAX_KEYS = 500
MAX_FIELDS = 64
MAX_FIELD_CHARACTERS = 256
MAX_FACETS = 8
MAX_EXPANSIONS = 8
MAX_TEXT_CHARACTERS = 200
MAX_CURSOR_BYTES = 24 << 10  # a head has 32 KiB, and a cursor may hold a text by which is sorted
MAX_WAIT_S = 60
MAX_VERSION = (1 << 63) - 1
SINCE = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,15}))?")

DICTIONARY_PARAMETERS = frozenset({"dictionary"})
RECORD_PARAMETERS = frozenset({"fields", "view", "expand"})
# What asks by an index, or about all that was found: not with keys, nor with a prefix.
QUESTIONS = frozenset({"q", "order", "at", "from", "to", "group", "distinct", "count", "facets"})
LIST_PARAMETERS = frozenset({"keys", "after", "prefix", "limit"}) | RECORD_PARAMETERS | QUESTIONS
CHANGES_PARAMETERS = frozenset({"since", "wait", "collection", "fields", "view", "expand", "lastEventId"})


@dataclass(slots=True)
class Query:
    """What was asked for; absent parameters at their defaults. asked: conditions, order, cursor and words; since: a
    version, and a time where one was given."""

    keys: tuple[str, ...] | None = None
    prefix: str = ""
    limit: int = DEFAULT_LIMIT
    asked: Asked = field(default_factory=Asked)
    group: str = ""
    count: bool = False
    facets: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    expand: tuple[str, ...] = ()
    view: str = ""
    since: tuple[int, int | None] | None = None
    last_event_id: str = ""
    wait_s: int = 0
    collections: tuple[str, ...] = ()
    dictionary: str = ""
    given: frozenset[str] = frozenset()


NOTHING = Query()
CACHE_BUSTER = "_"  # what jQuery adds with a number, so that no cache answers


def parse_query(query: bytes, allowed: frozenset[str]) -> Query:
    """Raises RequestError 400 naming the parameter, and what it may be."""
    result = Query()
    given: set[str] = set()
    for name, value in split_query(query):
        if name == CACHE_BUSTER:
            continue
        if name.startswith("where.") and "q" in allowed:
            add_condition(result, name, value)
        elif name in given:
            raise RequestError(400, f"query parameter {name!r:.80} is given twice")
        elif name in allowed:
            PARSERS[name](result, value)
        else:
            known = ", ".join(sorted(allowed)) + (", where.FIELD" if "q" in allowed else "")
            raise RequestError(400, f"query parameter {name!r:.80} is not known here; there are {known or 'none'}")
        given.add(name)
    result.given = frozenset(given)
    check_together(result)
    return result


def add_condition(query: Query, name: str, value: bytes) -> None:
    try:
        query.asked.add(name.removeprefix("where."), decode(value, name))
    except QueryError as fault:
        raise RequestError(400, str(fault)) from fault


def check_together(query: Query) -> None:
    """Ways of asking that exclude one another."""
    questions = sorted(query.given & QUESTIONS) + (["where.FIELD"] if query.asked.where else [])
    if query.keys is not None:
        foreign = sorted(query.given & {"after", "prefix", "limit"}) + questions
        if foreign:
            raise RequestError(
                400, f"keys and {' and '.join(foreign)} do not go together; ask for keys, or by conditions"
            )
    if query.prefix and questions:
        raise RequestError(400, f"prefix and {' and '.join(questions)} do not go together; prefix is for pages by key")


def whole_number(value: bytes, name: str, least: int, most: int) -> int:
    text = decode(value, name)
    if not text.isascii() or not text.isdigit() or len(text) > 20 or not least <= int(text) <= most:
        raise RequestError(400, f"{name}={text[:80]!r}: expected a whole number from {least} to {most}")
    return int(text)


def parse_key(value: bytes, name: str) -> str:
    """A record's key. Raises RequestError 400."""
    try:
        return check_key(decode(value, name), name)
    except WireError as fault:
        raise RequestError(400, str(fault)) from fault


class RecordPlace(NamedTuple):
    """Where a record is looked for."""

    view: View
    collection: str
    key: str


def record_at(catalog: Catalog, target: bytes) -> RecordPlace | None:
    """What a target names, in origin form and without a query, if that is a record of a dataset that is there.

    Raises RequestError, StoreError.
    """
    segments = target.split(b"/", 4)
    if len(segments) != 5 or segments[1] != b"v1" or b"?" in target:
        return None
    dataset = catalog.get(decode(segments[2], "dataset"))
    if dataset is None:
        return None
    view, collection = dataset.view(), decode(segments[3], "collection")
    return RecordPlace(view, collection, parse_key(segments[4], "key")) if collection in view.collections else None


def require_collection(view: View, collection: str) -> None:
    """Raises RequestError 404."""
    if collection not in view.collections:
        there = ", ".join(sorted(view.collections)) or "none"
        raise RequestError(404, f"no collection {collection!r:.80} in {view.dataset!r}; there are: {there}")


def set_keys(query: Query, value: bytes) -> None:
    parts = value.split(b",") if value else []
    if not 1 <= len(parts) <= MAX_KEYS:
        raise RequestError(400, f"keys: expected 1 to {MAX_KEYS} keys with commas between, got {len(parts)}")
    query.keys = keys_at_once(value, len(parts)) or tuple([parse_key(part, "keys") for part in parts])


def keys_at_once(value: bytes, count: int) -> tuple[str, ...] | None:
    """The same for all keys in one go; None where one of them needs a closer look (or is wrong)."""
    value = value.replace(b",", b"\0")  # which is in no key, while an encoded comma may be
    if b"%" in value:
        if BROKEN_ESCAPE.search(value):
            return None
        value = unquote_to_bytes(value)
    parts = value.split(b"\0")
    if len(parts) != count or not all(parts) or max(map(len, parts)) > KEY_BYTES:
        return None
    try:
        return tuple(value.decode().split("\0"))
    except UnicodeDecodeError:
        return None


def set_fields(query: Query, value: bytes) -> None:
    parts = [decode(part, "fields") for part in value.split(b",")]
    if len(parts) > MAX_FIELDS or any(not all(p.split(".")) or len(p) > MAX_FIELD_CHARACTERS for p in parts):
        raise RequestError(400, f"fields: expected 1 to {MAX_FIELDS} paths such as title,poster.w342")
    query.fields = tuple(parts)


def set_collections(query: Query, value: bytes) -> None:
    query.collections = tuple(decode(part, "collection") for part in value.split(b","))


def set_text(query: Query, value: bytes) -> None:
    text = query.asked.text = decode(value, "q")
    if not text.strip() or len(text) > MAX_TEXT_CHARACTERS:
        raise RequestError(400, f"q: expected 1 to {MAX_TEXT_CHARACTERS} characters")


def set_after(query: Query, value: bytes) -> None:
    if not 1 <= len(value) <= MAX_CURSOR_BYTES:
        raise RequestError(400, f"after: expected 1 to {MAX_CURSOR_BYTES} bytes, the `next` of the page before")
    query.asked.after = decode(value, "after")


def path_of(value: bytes, name: str) -> str:
    """A field's path. Raises RequestError 400."""
    found = decode(value, name)
    if not all(found.split(".")) or len(found) > MAX_FIELD_CHARACTERS:
        raise RequestError(400, f"{name}={found[:80]!r}: expected a field such as title or poster.w342")
    return found


def set_order(query: Query, value: bytes) -> None:
    path_of(value.removeprefix(b"-"), "order")
    query.asked.order = decode(value, "order")


def set_at(query: Query, value: bytes) -> None:
    query.asked.at = time_in(value, "at")


def set_from(query: Query, value: bytes) -> None:
    query.asked.begin = time_in(value, "from")


def set_to(query: Query, value: bytes) -> None:
    query.asked.end = time_in(value, "to")


def time_in(value: bytes, name: str) -> str:
    """A time, which is understood later. Raises RequestError 400."""
    if not value:
        raise RequestError(400, f"{name}: expected seconds since 1970, a time such as 2026-11-26T20:15:00Z, or now")
    return decode(value, name)


def set_group(query: Query, value: bytes) -> None:
    query.group = path_of(value, "group")


def set_distinct(query: Query, value: bytes) -> None:
    query.asked.distinct = path_of(value, "distinct")


def set_count(query: Query, value: bytes) -> None:
    query.count = whole_number(value, "count", 0, 1) == 1


def set_expand(query: Query, value: bytes) -> None:
    parts = value.split(b",")
    if len(parts) > MAX_EXPANSIONS:
        raise RequestError(400, f"expand: expected 1 to {MAX_EXPANSIONS} paths with commas between, got {len(parts)}")
    query.expand = tuple(path_of(part, "expand") for part in parts)


def set_facets(query: Query, value: bytes) -> None:
    parts = value.split(b",")
    if len(parts) > MAX_FACETS:
        raise RequestError(400, f"facets: expected 1 to {MAX_FACETS} fields with commas between, got {len(parts)}")
    query.facets = tuple(dict.fromkeys(path_of(part, "facets") for part in parts))


def set_prefix(query: Query, value: bytes) -> None:
    query.prefix = parse_key(value, "prefix") if value else ""


def set_limit(query: Query, value: bytes) -> None:
    query.limit = whole_number(value, "limit", 1, MAX_LIMIT)


def set_view(query: Query, value: bytes) -> None:
    query.view = decode(value, "view")
    if not query.view:
        raise RequestError(400, "view: expected the name of a view")


def set_since(query: Query, value: bytes) -> None:
    query.since = version_and_time(decode(value, "since"))
    if query.since is None:
        what = f"a whole number from 0 to {MAX_VERSION}, or VERSION-TIME as the id of an event may have it"
        raise RequestError(400, f"since={value[:80].decode('ascii', 'replace')!r}: expected {what}")


def version_and_time(text: str) -> tuple[int, int | None] | None:
    """What `since` and the id of an event say, None where it is none of ours."""
    found = SINCE.fullmatch(text)
    if found is None or int(found[1]) > MAX_VERSION:
        return None
    return int(found[1]), None if found[2] is None else int(found[2])


def set_last_event_id(query: Query, value: bytes) -> None:
    query.last_event_id = decode(value, "lastEventId")


def set_wait(query: Query, value: bytes) -> None:
    query.wait_s = whole_number(value, "wait", 0, MAX_WAIT_S)


def set_dictionary(query: Query, value: bytes) -> None:
    query.dictionary = decode(value, "dictionary")


PARSERS = {
    "keys": set_keys,
    "after": set_after,
    "prefix": set_prefix,
    "limit": set_limit,
    "q": set_text,
    "order": set_order,
    "at": set_at,
    "from": set_from,
    "to": set_to,
    "group": set_group,
    "distinct": set_distinct,
    "count": set_count,
    "facets": set_facets,
    "expand": set_expand,
    "fields": set_fields,
    "view": set_view,
    "since": set_since,
    "lastEventId": set_last_event_id,
    "wait": set_wait,
    "collection": set_collections,
    "dictionary": set_dictionary,
}
