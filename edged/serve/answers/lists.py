"""Answers of many records: batches, pages in key order, indexes and search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from edged.errors import RequestError
from edged.feed import cbor
from edged.feed.schema import CollectionSchema
from edged.http.application import InThread, Response
from edged.http.request import Request, encode, split_target
from edged.replica.finds import Match
from edged.replica.indexes.terms import by_text
from edged.serve.answers.large import WHOLE_BYTES, Listing, Wrapping, first_items, in_pieces
from edged.serve.answers.negotiate import CBOR, CBOR_SEQ, JSON, LIST_FORMATS, NDJSON, Format, choose_format
from edged.serve.answers.query import Query
from edged.serve.answers.render import Renderer, encode_json, is_binary, item_of
from edged.serve.answers.respond import Inquiry, Kept, respond
from edged.serve.answers.shape import Shape
from edged.serve.catalog import View

if TYPE_CHECKING:
    from edged.replica.finds import Group
    from edged.replica.layers.query import Tally
    from edged.replica.layers.question import Question

MAX_ANSWER_BYTES = 32 << 20
MAX_GROUPED = 1000  # records of one page by groups, beyond its first group
MAX_FACET_VALUES = 1000  # of one field, the most frequent


class Listed(NamedTuple):
    """A record of a list. raw: its value, None where it is to be read again, for there are too many to hold; group:
    (the value that it was found by,), where the list is by groups.
    """

    key: str
    raw: bytes | None
    group: tuple[Any, ...] = ()


class Page(NamedTuple):
    """following: the cursor after which the next page begins, None on the last; size: of all values, in bytes; tally:
    where it was asked for.
    """

    items: list[Listed]
    size: int
    following: str | None = None
    tally: Tally | None = None


def answer_list(
    inquiry: Inquiry, view: View, collection: str, query: Query, shape: Shape | None
) -> Response | InThread:
    """A list as asked. Raises RequestError."""
    form = choose_format(inquiry.request.get(b"accept"), LIST_FORMATS)
    asked = ItemRendering(inquiry.service.renderer, view, collection, is_binary(form), shape)
    if query.keys is not None:
        return answer_batch(inquiry, asked, query.keys, form)
    if query.facets and form not in (JSON, CBOR):
        raise RequestError(400, f"facets have no place in {form.media}; ask for {JSON.media} or {CBOR.media}")
    page = find(inquiry, view, collection, query)
    links = (link(inquiry.request, page.following),) if page.following is not None else ()
    more = {**noticed(inquiry), **counted(query, page.tally)}
    extra = ((b"Edged-Total", b"%d" % more["total"]),) if "total" in more else ()
    kept = Kept(keep=not query.asked.is_of_now, extra=extra)
    around = partial(wrap, form, view.version, page.following, more)
    items = partial(asked.items, page.items, remember=page.size <= WHOLE_BYTES)
    what = "with the records that they refer to, these"
    wanted = "ask for fewer (limit), for some fields, or by a view with a limit"
    expands = shape is not None and shape.expand  # by itself a page has as much as it may have
    listing = Listing(around, items, partial(bounded_items, items, what, wanted) if expands else items)
    found = first_items(listing) if page.size <= WHOLE_BYTES else None
    if found is None:
        return in_pieces(inquiry, listing, form, links=links, kept=kept)
    return respond(inquiry, listing.whole(found), form, links=links, kept=kept)


@dataclass(frozen=True, slots=True)
class ItemRendering:
    """Of what the items of a list are, and how they look."""

    renderer: Renderer
    view: View
    collection: str
    binary: bool
    shape: Shape | None

    def items(self, listed: Sequence[Listed], *, remember: bool) -> Iterator[bytes]:
        return map(partial(self.item, self.renderer.item if remember else self.renderer.item_once), listed)

    def item(self, make: Callable[..., bytes], listed: Listed) -> bytes:
        raw = listed.raw if listed.raw is not None else self.view.get_raw(self.collection, listed.key)
        item = make(self.view, self.collection, listed.key, raw, self.binary, self.shape)
        return in_group(item, listed.key, listed.group, self.binary)

    def batch(self, keys: Sequence[str]) -> Iterator[bytes]:
        """In the order asked for, null where missing or taken down."""
        return map(self.found, keys)

    def found(self, key: str) -> bytes:
        raw = self.view.get_raw(self.collection, key)
        if raw is None:
            return item_of(key, None, self.binary)
        return self.renderer.item_once(self.view, self.collection, key, raw, self.binary, self.shape)


def answer_batch(inquiry: Inquiry, asked: ItemRendering, keys: Sequence[str], form: Format) -> Response | InThread:
    around = partial(wrap, form, asked.view.version, None, noticed(inquiry))
    items = partial(asked.batch, keys)
    listing = Listing(around, items, partial(bounded_items, items, f"these {len(keys)} records", "ask for fewer"))
    try:
        found = asked.renderer.batch(asked.view, asked.collection, keys, asked.binary, asked.shape, WHOLE_BYTES)
    except OverflowError:
        return in_pieces(inquiry, listing, form)
    return respond(inquiry, listing.whole(found), form)


def bounded_items(items: Callable[[], Iterator[bytes]], what: str, wanted: str) -> Iterator[bytes]:
    """Raises RequestError 400 where they come to more than MAX_ANSWER_BYTES."""
    left = MAX_ANSWER_BYTES
    for item in items():
        left -= len(item)
        if left < 0:
            raise RequestError(400, f"{what} are over {MAX_ANSWER_BYTES} bytes; {wanted}")
        yield item


def find(inquiry: Inquiry, view: View, collection: str, query: Query) -> Page:
    """The records asked for. Raises RequestError, QueryError."""
    asked = query.asked
    rules = view.schema.collections.get(collection, CollectionSchema())
    question = asked.question(rules, inquiry.now)
    tally = view.tally(collection, question, query.facets) if query.count or query.facets else None
    if query.group:
        page = groups(view.ask_by_group(collection, question, query.group, limit=query.limit))
    elif question.is_plain and not question.distinct:
        pairs = view.scan(collection, after=asked.after, prefix=query.prefix, limit=query.limit + 1)
        page = bounded((Match(*pair) for pair in pairs), query.limit, question)
    else:
        page = bounded(view.ask(collection, question, limit=query.limit + 1), query.limit, question)
    return page._replace(tally=tally)


def bounded(found: Iterable[Match], limit: int, question: Question) -> Page:
    """At most `limit` records and MAX_ANSWER_BYTES (but at least one record)."""
    items: list[Listed] = []
    size, last = 0, None
    for match in found:
        if last is not None and (len(items) == limit or size + len(match.value) > MAX_ANSWER_BYTES):
            return Page(items, size, last.cursor(question))
        items.append(Listed(match.key, match.value))
        size, last = size + len(match.value), match
        if size > WHOLE_BYTES:
            let_go(items)
    return Page(items, size)


def groups(found: Iterable[Group]) -> Page:
    """Whole groups, until a page is full: of MAX_GROUPED records or MAX_ANSWER_BYTES."""
    items: list[Listed] = []
    size, last = 0, ""
    for value, matches, cursor in found:
        more = sum(len(match.value) for match in matches)
        if items and (len(items) + len(matches) > MAX_GROUPED or size + more > MAX_ANSWER_BYTES):
            return Page(items, size, last)
        size, last = size + more, cursor
        items += [Listed(match.key, match.value, (value,)) for match in matches]
        if size > WHOLE_BYTES:
            let_go(items)
    return Page(items, size)


def let_go(items: list[Listed]) -> None:
    """Hold no values any more: those of the last ones, the others were let go of before."""
    for place in range(len(items) - 1, -1, -1):
        if items[place].raw is None:
            break
        items[place] = items[place]._replace(raw=None)


def in_group(item: bytes, key: str, group: tuple[Any, ...], binary: bool) -> bytes:
    """An item that says which group it is of."""
    if not group:
        return item
    if binary:
        begin = 1 + 4 + len(cbor.encode(key))
        return b"\xa3" + item[1:begin] + b"\x65group" + cbor.encode(group[0]) + item[begin:]
    return item[:-1] + b',"group":' + encode_json(group[0]) + b"}"


def noticed(inquiry: Inquiry) -> dict[str, Any]:
    """The member of a list that warns."""
    return {"warnings": [inquiry.warning]} if inquiry.warning else {}


def counted(query: Query, tally: Tally | None) -> dict[str, Any]:
    """The members of a list that count: total, and the facets with their most frequent values first."""
    if tally is None:
        return {}
    members: dict[str, Any] = {"total": tally.total} if query.count else {}
    if query.facets:
        members["facets"] = {name: by_text(tally.facets[name], MAX_FACET_VALUES) for name in query.facets}
    return members


def wrap(form: Format, version: int, following: str | None, more: Mapping[str, Any], count: int) -> Wrapping:
    """What is around and between `count` items. more: members of a list beside them."""
    if form is CBOR_SEQ:
        return Wrapping(b"", b"", b"")
    if form is NDJSON:
        return Wrapping(b"", b"\n", b"\n" if count else b"")
    if form is CBOR:
        members = {name: cbor.encode(value) for name, value in more.items()}
        members |= {"next": cbor.encode(following), "version": cbor.encode(version)}
        members["items"] = cbor.head(cbor.LIST, count)
        names = sorted(members, key=lambda name: (len(name), name))  # as RFC 8949 section 4.2.1 has them
        parts = [cbor.encode(name) + members[name] for name in names]
        at = names.index("items") + 1
        return Wrapping(cbor.head(cbor.MAP, len(names)) + b"".join(parts[:at]), b"", b"".join(parts[at:]))
    end = b"".join([b",%b:%b" % (encode_json(name), encode_json(value)) for name, value in more.items()])
    return Wrapping(b'{"items":[', b",", b'],"version":%d,"next":%b%b}' % (version, encode_json(following), end))


def link(request: Request, following: str) -> bytes:
    """The next page (RFC 8288): the same target, after another cursor."""
    _, path, query = split_target(request.target)
    parts = [part for part in query.split(b"&") if part and part.partition(b"=")[0] not in (b"after", b"_")]
    text = "&".join(["after=" + encode(following), *(quote(part, safe="%/:;=,+-._~!$'()*@") for part in parts)])
    return f'<{quote(path, safe="%/:;=,+-._~!$&()*@")}?{text}>; rel="next"'.encode()
