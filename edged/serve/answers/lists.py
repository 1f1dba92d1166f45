"""Answers of many records: batches, pages in key order, indexes and search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

from edged.errors import RequestError
from edged.feed import cbor
from edged.http.application import Response
from edged.http.request import encode
from edged.serve.answers.negotiate import CBOR, CBOR_SEQ, LIST_FORMATS, NDJSON, Format, choose_format
from edged.serve.answers.query import Query, readings
from edged.serve.answers.render import encode_json, is_binary
from edged.serve.answers.respond import Inquiry, Service, respond
from edged.serve.answers.shape import Shape
from edged.serve.catalog import View

MAX_ANSWER_BYTES = 32 << 20

Found = list[tuple[str, bytes]]


def answer_list(inquiry: Inquiry, view: View, collection: str, query: Query, shape: Shape | None) -> Response:
    """A list as asked. Raises RequestError."""
    service = inquiry.service
    form = choose_format(inquiry.request.get(b"accept"), LIST_FORMATS)
    binary, following = is_binary(form), None
    if query.keys is not None:
        items = batch(service, view, collection, query.keys, binary, shape)
    else:
        found, following = find(view, collection, query)
        item = service.renderer.item
        items = [item(view, collection, key, raw, binary, shape) for key, raw in found]
    path = f"/v1/{encode(view.dataset)}/{encode(collection)}"
    links = (link(path, query, following),) if following is not None else ()
    return respond(inquiry, wrap(items, form, view.version, following), form, links=links)


def batch(
    service: Service, view: View, collection: str, keys: Sequence[str], binary: bool, shape: Shape | None
) -> list[bytes]:
    """In the order asked for, null where missing or taken down. Raises RequestError where it would be too large."""
    try:
        return service.renderer.batch(view, collection, keys, binary, shape, MAX_ANSWER_BYTES)
    except OverflowError as fault:
        what = f"these {len(keys)} records are over {MAX_ANSWER_BYTES} bytes; ask for fewer"
        raise RequestError(400, what) from fault


def find(view: View, collection: str, query: Query) -> tuple[Found, str | None]:
    """The records asked for, and the key after which the next page begins (None on the last)."""
    if query.q is not None:
        if not view.schema.collections.get(collection) or not view.schema.collections[collection].text:
            raise RequestError(400, f"collection {collection!r} declares no text fields to search; see [collections]")
        found = view.search(collection, query.q, limit=query.limit)
        return bounded(iter(found), query.limit)[0], None
    if query.where:
        return bounded(where(view, collection, query), query.limit)
    return bounded(view.scan(collection, after=query.after, prefix=query.prefix, limit=query.limit + 1), query.limit)


def bounded(found: Iterator[tuple[str, bytes]], limit: int) -> tuple[Found, str | None]:
    """At most `limit` records and MAX_ANSWER_BYTES (but at least one record), and where the next page begins."""
    items: Found = []
    size = 0
    for key, value in found:
        if len(items) == limit or (items and size + len(value) > MAX_ANSWER_BYTES):
            return items, items[-1][0]
        items.append((key, value))
        size += len(value)
    return items, None


def where(view: View, collection: str, query: Query) -> Iterator[tuple[str, bytes]]:
    """Records that fulfil every condition, in key order. Raises RequestError 400 for a field without an index."""
    schema = view.schema.collections.get(collection)
    declared = schema.index if schema is not None else ()
    for name in query.where:
        if name not in declared:
            names = ", ".join(declared) or "none"
            raise RequestError(400, f"where.{name}: no index is declared on it in {collection!r}; declared: {names}")
    meanings = {name: readings(text) for name, text in query.where.items()}
    return view.where(collection, meanings, after=query.after, limit=query.limit + 1)


def wrap(items: list[bytes], form: Format, version: int, following: str | None) -> bytes:
    """The list's body, put together from items that are rendered once each."""
    if form is CBOR:
        end = b"\xf6" if following is None else cbor.encode(following)
        count = cbor.head(cbor.LIST, len(items))
        return b"\xa3\x64next" + end + b"\x65items" + count + b"".join(items) + b"\x67version" + cbor.encode(version)
    if form is CBOR_SEQ:
        return b"".join(items)
    if form is NDJSON:
        return b"".join([item + b"\n" for item in items])
    return b'{"items":[%b],"version":%d,"next":%b}' % (b",".join(items), version, encode_json(following))


def link(path: str, query: Query, following: str) -> bytes:
    """The next page (RFC 8288), with the same conditions."""
    parameters: list[tuple[str, str]] = [("after", following), ("limit", str(query.limit))]
    if query.prefix:
        parameters.append(("prefix", query.prefix))
    parameters += [(f"where.{name}", value) for name, value in query.where.items()]
    if query.view:
        parameters.append(("view", query.view))
    text = urlencode(parameters, safe="/")
    if query.fields:
        text += "&fields=" + ",".join(encode(name) for name in query.fields)
    return f'<{path}?{text}>; rel="next"'.encode()
