"""What changed since a version: whole, as NDJSON that may be waited for, or as an event stream without end.

An event stream carries an id at the end of each version alone: who reconnects with Last-Event-ID gets every version
that it has not had whole, and nothing is lost where a connection broke in the middle of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from edged.errors import RequestError
from edged.feed import cbor
from edged.http.application import Answer, Held, Response, Stream
from edged.http.fields import Fields
from edged.http.request import Request
from edged.serve.answers.negotiate import CBOR, CBOR_SEQ, CHANGE_FORMATS, EVENTS, NDJSON, Format, choose_format
from edged.serve.answers.query import Query
from edged.serve.answers.render import Renderer, encode_json, is_binary, value_in
from edged.serve.answers.respond import CACHE_CONTROL, DataAge, Inquiry, respond
from edged.serve.answers.shape import Shape
from edged.serve.catalog import ChangedRecord, Dataset, View

WHOLE_CHANGES = 1000  # as many are answered in one body; more are streamed
WHOLE_BYTES = 8 << 20
PIECE_BYTES = 64 << 10
RETRY_MS = 1000
NOWHERE = -1  # before every version
KEEP_ALIVE = b": still here\n\n"  # a comment, which clients pass over


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which changes, and how they look. shapes: by collection; collections: empty for all."""

    renderer: Renderer
    form: Format
    collections: frozenset[str]
    shapes: dict[str, Shape]

    @property
    def key(self) -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
        """Equal for who wants the same events."""
        return self.collections, tuple((name, shape.name) for name, shape in sorted(self.shapes.items()))

    def of(self, view: View, since: int) -> Iterator[ChangedRecord]:
        for change in view.changes(since):
            if not self.collections or change.collection in self.collections:
                yield change

    def render(self, view: View, change: ChangedRecord) -> bytes:
        """One change as an object: collection, key, version, and value or deleted."""
        binary = is_binary(self.form)
        gone = change.value is None
        value = b""
        if change.value is not None:
            name, key, shape = change.collection, change.key, self.shapes.get(change.collection)
            value = value_in(self.renderer.item(view, name, key, change.value, binary, shape), key, binary)
        if binary:
            end = b"\x67deleted\xf5" if gone else b"\x65value" + value
            begin = b"\xa4\x63key" + cbor.encode(change.key) + b"\x6acollection" + cbor.encode(change.collection)
            return begin + b"\x67version" + cbor.encode(change.version) + end
        end = b'"deleted":true' if gone else b'"value":' + value
        begin = b'{"collection":%b,"key":%b,' % (encode_json(change.collection), encode_json(change.key))
        return b'%b%b,"version":%d}' % (begin, end, change.version)


def since_of(request: Request, query: Query) -> int | None:
    """The version that the client has: Last-Event-ID, which a browser sends when it reconnects, goes before
    lastEventId, which stand-ins for EventSource send, and that before `since`.

    A browser sends the same id for ever: one that is none of ours must not lock it out. Where it says nothing else, it
    is told to read everything again.
    """
    last = request.get(b"last-event-id") or query.last_event_id
    if not last:
        return query.since
    if last.isascii() and last.isdigit() and len(last) <= 19:
        return int(last)
    return NOWHERE if query.since is None else query.since


def answer_changes(
    inquiry: Inquiry, view: View, query: Query, shapes: dict[str, Shape], again: Callable[[bool], Answer]
) -> Response | Stream | Held:
    """again: answers the same request once more, and holds it again only if it is not asked for the last time. Raises
    RequestError.
    """
    service, request = inquiry.service, inquiry.request
    form = choose_format(request.get(b"accept"), CHANGE_FORMATS)
    for name in query.collections:
        if name not in view.collections:
            raise RequestError(404, f"no collection {name!r:.80} in {view.dataset!r}")
    since = since_of(request, query)
    wanted = Wanted(service.renderer, form, frozenset(query.collections), shapes)
    if form is EVENTS:
        return event_stream(inquiry, view, wanted, view.version if since is None else since)
    if since is None:
        raise RequestError(
            400, "since is missing: name the version that you have (a list's or a record's Edged-Version)"
        )
    if since == view.version and query.wait_s and inquiry.may_hold:
        return Held(service.news.signal(view.dataset), inquiry.generation, query.wait_s, again)
    return whole(inquiry, view, wanted, since)


def is_too_old(view: View, since: int) -> bool:
    """Whether the changes since then are not kept; a version that does not exist yet is from before a reset."""
    return since < view.changes_from or since > view.version


def whole(inquiry: Inquiry, view: View, wanted: Wanted, since: int) -> Response | Stream:
    """One body; where it would be large, a stream of pieces that ends."""
    if is_too_old(view, since):
        return respond(inquiry, whole_body(wanted.form, [reset(wanted.form, view)], view), wanted.form)
    changes = wanted.of(view, since)
    items: list[bytes] = []
    size = 0
    for change in islice(changes, WHOLE_CHANGES):
        items.append(wanted.render(view, change))
        size += len(items[-1])
        if size > WHOLE_BYTES:
            break
    following = next(changes, None)
    if following is None:
        return respond(inquiry, whole_body(wanted.form, items, view), wanted.form)
    items.append(wanted.render(view, following))
    pieces = pieces_of(wanted, items, changes, view)
    return Stream(200, stream_fields(inquiry, view, wanted.form), DataAge.of(view), pieces)


def whole_body(form: Format, items: list[bytes], view: View) -> bytes:
    if form is NDJSON:
        return b"".join(item + b"\n" for item in items)
    if form is CBOR_SEQ:
        return b"".join(items)
    if form is CBOR:
        count = cbor.head(cbor.LIST, len(items))
        return b"\xa2\x65items" + count + b"".join(items) + b"\x67version" + cbor.encode(view.version)
    return b'{"items":[' + b",".join(items) + b'],"version":%d}' % view.version


def pieces_of(wanted: Wanted, items: list[bytes], rest: Iterator[ChangedRecord], view: View) -> Iterator[bytes]:
    """The same bytes as `whole_body`, without holding them all. A CBOR array's length is not known: indefinite."""
    form = wanted.form
    before, between, after = b"", b"", b""
    if form is NDJSON:
        after = b"\n"
        between = b"\n"
    elif form is CBOR:
        before, after = b"\xa2\x65items\x9f", b"\xff\x67version" + cbor.encode(view.version)
    elif form is not CBOR_SEQ:
        before, between, after = b'{"items":[', b",", b'],"version":%d}' % view.version
    piece = bytearray(before + between.join(items))
    items.clear()
    for change in rest:
        piece += between + wanted.render(view, change)
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece) + after


def reset(form: Format, view: View) -> bytes:
    """The asker's version is too old (or never was): read everything again, then ask since this version."""
    if is_binary(form):
        return b"\xa2\x65reset\xf5\x67version" + cbor.encode(view.version)
    return b'{"reset":true,"version":%d}' % view.version


def stream_fields(inquiry: Inquiry, view: View, form: Format) -> Fields:
    return (
        (b"Content-Type", form.media.encode()),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Cache-Control", CACHE_CONTROL),
        (b"Edged-Version", b"%d" % view.version),
        (b"ETag", b'"%b-%d-%d"' % (form.name.encode(), view.version, view.as_of)),
        (b"Vary", inquiry.service.vary),
        *inquiry.service.cors.fields(inquiry.request),
    )


@dataclass(slots=True)
class EventsSince:
    """An event stream's place: what it has sent. Each call gives the events of what is new."""

    wanted: Wanted
    dataset: Dataset
    sent: int

    def __call__(self) -> Iterator[bytes]:
        return self.events(self.dataset.view())

    def events(self, view: View) -> Iterator[bytes]:
        if view.version == self.sent:
            return
        if is_too_old(view, self.sent):
            yield b"event: reset\nid: %d\ndata: %b\n\n" % (view.version, reset(self.wanted.form, view))
            self.sent = view.version
            return
        # a thousand listeners at the same place hear the same bytes, made once
        memo_key = (view.dataset, self.sent, view.version, self.wanted.key)
        known = self.wanted.renderer.events.get(memo_key)
        if known is not None:
            self.sent = view.version
            yield known
            return
        piece, parts = bytearray(), 1
        for change in self.wanted.of(view, self.sent):
            piece += b"data: " + self.wanted.render(view, change) + b"\n\n"
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
                parts += 1
        self.sent = view.version
        last = bytes(piece) + b'event: version\nid: %d\ndata: {"version":%d}\n\n' % (view.version, view.version)
        if parts == 1:
            self.wanted.renderer.events.put(memo_key, last)
        yield last


def event_stream(inquiry: Inquiry, view: View, wanted: Wanted, since: int) -> Stream:
    """Server-sent events: a change is a message; `version` ends each version; `reset` says to read all again."""
    assert inquiry.dataset is not None
    follower = EventsSince(wanted, inquiry.dataset, since)

    def opening() -> Iterator[bytes]:
        yield b"retry: %d\n\n" % RETRY_MS
        yield from follower.events(view)

    fields = stream_fields(inquiry, view, wanted.form)
    signal = inquiry.service.news.signal(view.dataset)
    return Stream(200, fields, DataAge.of(view), opening(), signal, follower, KEEP_ALIVE)
