"""Answers of many records: batches, pages in key order, indexes and search."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any
from urllib.parse import urlencode

import cbor2

from edged.errors import RequestError
from edged.serve.message import Request, Response
from edged.serve.negotiate import JSON, LIST_FORMATS, NDJSON, Format, choose_format
from edged.serve.query import Query, readings
from edged.serve.render import cbor_head, cbor_text, encode_json, is_binary
from edged.serve.service import Service, respond
from edged.serve.shape import Shape
from edged.serve.source import View
from edged.serve.target import encode

MAX_ANSWER_BYTES = 32 << 20

Items = list[tuple[str, bytes | None]]


def answer_list(
    service: Service, request: Request, view: View, collection: str, query: Query, shape: Shape | None, path: str
) -> Response:
    """A list as asked. Raises RequestError."""
    form = choose_format(request.get(b"accept"), LIST_FORMATS)
    items, following = find(view, collection, query)
    body = render_items(service, items, form, shape, view.version, following)
    extra = ((b"Link", link(path, query, following)),) if following is not None else ()
    return respond(service, request, body, form, view, extra=extra)


def find(view: View, collection: str, query: Query) -> tuple[Items, str | None]:
    """The records asked for, and the key after which the next page begins (None on the last)."""
    if query.keys is not None:
        return batch(view, collection, query.keys), None
    if query.q is not None:
        if not view.schema.collections.get(collection) or not view.schema.collections[collection].text:
            raise RequestError(400, f"collection {collection!r} declares no text fields to search; see [collections]")
        found = view.search(collection, query.q, limit=query.limit)
        return bounded(iter(found), query.limit)[0], None
    if query.where:
        return bounded(where(view, collection, query), query.limit)
    return bounded(view.scan(collection, after=query.after, prefix=query.prefix, limit=query.limit + 1), query.limit)


def batch(view: View, collection: str, keys: Sequence[str]) -> Items:
    """In the order asked for, None where missing or taken down."""
    values = view.get_many_raw(collection, keys)
    if sum(len(value) for value in values if value is not None) > MAX_ANSWER_BYTES:
        raise RequestError(400, f"these {len(keys)} records are over {MAX_ANSWER_BYTES} bytes; ask for fewer at once")
    return [
        (key, None if value is None or view.is_taken_down(collection, key) else value)
        for key, value in zip(keys, values, strict=True)
    ]


def bounded(found: Iterator[tuple[str, bytes]], limit: int) -> tuple[Items, str | None]:
    """At most `limit` records and MAX_ANSWER_BYTES (but at least one record), and where the next page begins."""
    items: Items = []
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
    meanings: Iterable[Mapping[str, Any]] = (
        dict(zip(query.where, choice, strict=True)) for choice in product(*map(readings, query.where.values()))
    )
    several = [iter(view.where(collection, meaning, after=query.after, limit=query.limit + 1)) for meaning in meanings]
    return several[0] if len(several) == 1 else islice(without_repeats(several), query.limit + 1)


def without_repeats(several: list[Iterator[tuple[str, bytes]]]) -> Iterator[tuple[str, bytes]]:
    last = None
    for key, value in heapq.merge(*several, key=byte_order):
        if key != last:
            yield key, value
        last = key


def byte_order(item: tuple[str, bytes]) -> bytes:
    return item[0].encode()


def render_items(
    service: Service, items: Items, form: Format, shape: Shape | None, version: int, following: str | None
) -> bytes:
    """The list's body, put together from values that are rendered once each."""
    binary = is_binary(form)
    null = b"\xf6" if binary else b"null"
    value = service.renderer.value
    values = [null if raw is None else value(raw, binary, shape) for _, raw in items]
    if binary:
        pairs = [
            b"\xa2\x63key" + cbor_text(key) + b"\x65value" + body for (key, _), body in zip(items, values, strict=True)
        ]
        if form.name == "cbor-seq":
            return b"".join(pairs)
        end = b"\xf6" if following is None else cbor_text(following)
        count = cbor_head(4, len(pairs))
        return b"\xa3\x64next" + end + b"\x65items" + count + b"".join(pairs) + b"\x67version" + cbor2.dumps(version)
    lines = [
        b'{"key":' + encode_json(key) + b',"value":' + body + b"}" for (key, _), body in zip(items, values, strict=True)
    ]
    if form is NDJSON:
        return b"".join(line + b"\n" for line in lines)
    assert form is JSON
    return b'{"items":[' + b",".join(lines) + b'],"version":%d,"next":%b}' % (version, encode_json(following))


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
