"""Answers of many records: batches, pages in key order, indexes and search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from edged.errors import RequestError
from edged.feed import cbor
from edged.feed.schema import CollectionSchema
from edged.http.application import Response
from edged.http.request import Request, encode, split_target
from edged.replica.indexes.terms import value_of
from edged.serve.answers.negotiate import CBOR, CBOR_SEQ, JSON, LIST_FORMATS, NDJSON, Format, choose_format
from edged.serve.answers.query import Query
from edged.serve.answers.render import encode_json, is_binary
from edged.serve.answers.respond import Inquiry, Kept, Service, respond
from edged.serve.answers.shape import Shape
from edged.serve.catalog import View

if TYPE_CHECKING:
    from edged.replica.finds import Group
    from edged.replica.layers.query import Tally

MAX_ANSWER_BYTES = 32 << 20
MAX_GROUPED = 1000  # records of one page by groups, beyond its first group
MAX_FACET_VALUES = 1000  # of one field, the most frequent


class Listed(NamedTuple):
    """A record of a list. group: (the value that it was found by,), where the list is by groups."""

    key: str
    raw: bytes
    group: tuple[Any, ...] = ()


class Page(NamedTuple):
    """following: the cursor after which the next page begins, None on the last; tally: where it was asked for."""

    items: list[Listed]
    following: str | None = None
    tally: Tally | None = None


def answer_list(inquiry: Inquiry, view: View, collection: str, query: Query, shape: Shape | None) -> Response:
    """A list as asked. Raises RequestError."""
    service = inquiry.service
    form = choose_format(inquiry.request.get(b"accept"), LIST_FORMATS)
    binary = is_binary(form)
    if query.keys is not None:
        items = batch(service, view, collection, query.keys, binary, shape)
        return respond(inquiry, wrap(items, form, view.version, None, {}), form)
    if query.facets and form not in (JSON, CBOR):
        raise RequestError(400, f"facets have no place in {form.media}; ask for {JSON.media} or {CBOR.media}")
    page = find(inquiry, view, collection, query)
    items = []
    left = MAX_ANSWER_BYTES
    for key, raw, group in page.items:
        item = service.renderer.item(view, collection, key, raw, binary, shape)
        items.append(in_group(item, key, group, binary))
        left -= len(item)
        if left < 0 and shape is not None and shape.expand:  # by itself a page has as much as it may have
            what = f"with the records that they refer to, these are over {MAX_ANSWER_BYTES} bytes"
            raise RequestError(400, f"{what}; ask for fewer (limit), for some fields, or by a view with a limit")
    links = (link(inquiry.request, page.following),) if page.following is not None else ()
    more = counted(query, page.tally)
    extra = ((b"Edged-Total", b"%d" % more["total"]),) if "total" in more else ()
    kept = Kept(keep=not query.asked.is_of_now, extra=extra)
    body = wrap(items, form, view.version, page.following, more)
    return respond(inquiry, body, form, links=links, kept=kept)


def batch(
    service: Service, view: View, collection: str, keys: Sequence[str], binary: bool, shape: Shape | None
) -> list[bytes]:
    """In the order asked for, null where missing or taken down. Raises RequestError where it would be too large."""
    try:
        return service.renderer.batch(view, collection, keys, binary, shape, MAX_ANSWER_BYTES)
    except OverflowError as fault:
        what = f"these {len(keys)} records are over {MAX_ANSWER_BYTES} bytes; ask for fewer"
        raise RequestError(400, what) from fault


def find(inquiry: Inquiry, view: View, collection: str, query: Query) -> Page:
    """The records asked for. Raises RequestError, QueryError."""
    asked = query.asked
    rules = view.schema.collections.get(collection, CollectionSchema())
    question = asked.question(rules, inquiry.now)
    tally = view.tally(collection, question, query.facets) if query.count or query.facets else None
    if query.group:
        page = groups(view.ask_by_group(collection, question, query.group, limit=query.limit))
    elif question.is_plain and not question.distinct:
        found = view.scan(collection, after=asked.after, prefix=query.prefix, limit=query.limit + 1)
        page = bounded(((Listed(key, raw), key) for key, raw in found), query.limit)
    else:
        matches = view.ask(collection, question, limit=query.limit + 1)
        page = bounded(((Listed(one.key, one.value), one.cursor(question)) for one in matches), query.limit)
    return page._replace(tally=tally)


def bounded(found: Iterable[tuple[Listed, str]], limit: int) -> Page:
    """At most `limit` records and MAX_ANSWER_BYTES (but at least one record). found: each with its cursor."""
    items: list[Listed] = []
    size, last = 0, ""
    for item, cursor in found:
        if len(items) == limit or (items and size + len(item.raw) > MAX_ANSWER_BYTES):
            return Page(items, last)
        items.append(item)
        size, last = size + len(item.raw), cursor
    return Page(items)


def groups(found: Iterable[Group]) -> Page:
    """Whole groups, until a page is full: of MAX_GROUPED records or MAX_ANSWER_BYTES."""
    items: list[Listed] = []
    size, last = 0, ""
    for value, matches, cursor in found:
        more = sum(len(match.value) for match in matches)
        if items and (len(items) + len(matches) > MAX_GROUPED or size + more > MAX_ANSWER_BYTES):
            return Page(items, last)
        items += [Listed(match.key, match.value, (value,)) for match in matches]
        size, last = size + more, cursor
    return Page(items)


def in_group(item: bytes, key: str, group: tuple[Any, ...], binary: bool) -> bytes:
    """An item that says which group it is of."""
    if not group:
        return item
    if binary:
        begin = 1 + 4 + len(cbor.encode(key))
        return b"\xa3" + item[1:begin] + b"\x65group" + cbor.encode(group[0]) + item[begin:]
    return item[:-1] + b',"group":' + encode_json(group[0]) + b"}"


def counted(query: Query, tally: Tally | None) -> dict[str, Any]:
    """The members of a list that count: total, and the facets with their most frequent values first."""
    if tally is None:
        return {}
    members: dict[str, Any] = {"total": tally.total} if query.count else {}
    if query.facets:
        members["facets"] = {name: facet(tally.facets[name]) for name in query.facets}
    return members


def facet(counts: Mapping[bytes, int]) -> dict[str, int]:
    """By value as text; the number 7 and the text "7" count together, as they do in a condition."""
    found: dict[str, int] = {}
    for term, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_FACET_VALUES]:
        value = value_of(term)
        name = value if isinstance(value, str) else encode_json(value).decode()
        found[name] = found.get(name, 0) + count
    return found


def wrap(items: list[bytes], form: Format, version: int, following: str | None, more: Mapping[str, Any]) -> bytes:
    """The list's body, put together from items that are rendered once each. more: members beside them."""
    if form is CBOR_SEQ:
        return b"".join(items)
    if form is NDJSON:
        return b"".join([item + b"\n" for item in items])
    if form is CBOR:
        members = {
            name: cbor.encode(value) for name, value in (*more.items(), ("next", following), ("version", version))
        }
        members["items"] = cbor.head(cbor.LIST, len(items)) + b"".join(items)
        names = sorted(members, key=lambda name: (len(name), name))  # as RFC 8949 section 4.2.1 has them
        return cbor.head(cbor.MAP, len(names)) + b"".join([cbor.encode(name) + members[name] for name in names])
    end = b"".join([b",%b:%b" % (encode_json(name), encode_json(value)) for name, value in more.items()])
    return b'{"items":[%b],"version":%d,"next":%b%b}' % (b",".join(items), version, encode_json(following), end)


def link(request: Request, following: str) -> bytes:
    """The next page (RFC 8288): the same target, after another cursor."""
    _, path, query = split_target(request.target)
    parts = [part for part in query.split(b"&") if part and part.partition(b"=")[0] not in (b"after", b"_")]
    text = "&".join(["after=" + encode(following), *(quote(part, safe="%/:;=,+-._~!$'()*@") for part in parts)])
    return f'<{quote(path, safe="%/:;=,+-._~!$&()*@")}?{text}>; rel="next"'.encode()
