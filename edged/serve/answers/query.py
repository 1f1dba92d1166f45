"""The query parameters of each kind of request, checked. Whatever is unknown, repeated or out of range is a 400."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from edged.errors import RequestError, WireError
from edged.feed.limits import KEY_BYTES
from edged.feed.names import check_key
from edged.http.request import BROKEN_ESCAPE, decode, split_query

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
MAX_KEYS = 500
MAX_FIELDS = 64
MAX_FIELD_CHARACTERS = 256
MAX_CONDITIONS = 8
MAX_TEXT_CHARACTERS = 200
MAX_WAIT_S = 60

DICTIONARY_PARAMETERS = frozenset({"dictionary"})
RECORD_PARAMETERS = frozenset({"fields", "view"})
LIST_PARAMETERS = frozenset({"keys", "after", "prefix", "limit", "q", "fields", "view"})
CHANGES_PARAMETERS = frozenset({"since", "wait", "collection", "fields", "view", "lastEventId"})


@dataclass(slots=True)
class Query:
    """What was asked for; absent parameters at their defaults. where: field to value as it stands in the URL."""

    keys: tuple[str, ...] | None = None
    after: str | None = None
    prefix: str = ""
    limit: int = DEFAULT_LIMIT
    where: dict[str, str] = field(default_factory=dict)
    q: str | None = None
    fields: tuple[str, ...] = ()
    view: str = ""
    since: int | None = None
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
        if name in given:
            raise RequestError(400, f"query parameter {name!r:.80} is given twice")
        given.add(name)
        if name.startswith("where.") and "q" in allowed:
            if len(result.where) == MAX_CONDITIONS:
                raise RequestError(400, f"more than {MAX_CONDITIONS} where conditions")
            result.where[name[6:]] = decode(value, name)
        elif name in allowed:
            PARSERS[name](result, value)
        else:
            known = ", ".join(sorted(allowed)) + (", where.FIELD" if "q" in allowed else "")
            raise RequestError(400, f"query parameter {name!r:.80} is not known here; there are {known or 'none'}")
    result.given = frozenset(given)
    check_together(result)
    return result


def check_together(query: Query) -> None:
    """Ways of asking that exclude one another."""
    ways = [name for name in ("keys", "q") if name in query.given] + (["where.FIELD"] if query.where else [])
    if len(ways) > 1:
        raise RequestError(400, f"{' and '.join(ways)} do not go together; ask one of them")
    excluded = {"keys": ("after", "prefix", "limit"), "q": ("after", "prefix"), "where.FIELD": ("prefix",)}
    for way in ways:
        for name in excluded[way]:
            if name in query.given:
                raise RequestError(400, f"{way} and {name} do not go together")


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
    query.q = decode(value, "q")
    if not query.q.strip() or len(query.q) > MAX_TEXT_CHARACTERS:
        raise RequestError(400, f"q: expected 1 to {MAX_TEXT_CHARACTERS} characters")


def set_after(query: Query, value: bytes) -> None:
    query.after = parse_key(value, "after")


def set_prefix(query: Query, value: bytes) -> None:
    query.prefix = parse_key(value, "prefix") if value else ""


def set_limit(query: Query, value: bytes) -> None:
    query.limit = whole_number(value, "limit", 1, MAX_LIMIT)


def set_view(query: Query, value: bytes) -> None:
    query.view = decode(value, "view")
    if not query.view:
        raise RequestError(400, "view: expected the name of a view")


def set_since(query: Query, value: bytes) -> None:
    query.since = whole_number(value, "since", 0, (1 << 63) - 1)


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
    "fields": set_fields,
    "view": set_view,
    "since": set_since,
    "lastEventId": set_last_event_id,
    "wait": set_wait,
    "collection": set_collections,
    "dictionary": set_dictionary,
}


def readings(text: str) -> tuple[Any, ...]:
    """What a value in a URL may mean in a record: 1994 is the number or the text, "1994" (quoted) the text alone."""
    try:
        value = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return (text,)
    if isinstance(value, dict | list):
        return (text,)
    return (value,) if isinstance(value, str) else (value, text)


def refuse_constant(name: str) -> None:
    """NaN and infinities are no JSON."""
    raise ValueError(name)
