"""What changed since a version: whole, as NDJSON that may be waited for, or as an event stream without end.

An event stream carries an id at the end of each version alone: who reconnects with Last-Event-ID gets every version
that it has not had whole, and nothing is lost where a connection broke in the middle of one. Where records come and go
by time, an id holds the time too: `VERSION-TIME`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import chain
from typing import NamedTuple

from edged.errors import RequestError
from edged.feed import cbor
from edged.feed.references import declared_references, referring
from edged.http.application import Answer, Held, InThread, Response, Stream
from edged.http.fields import Fields
from edged.http.request import Request
from edged.replica.layers.layers import pack_names, unpack_names
from edged.serve.allowed import scope_of, seen_by, whole_of
from edged.serve.answers.large import PIECE_BYTES, Listing, Wrapping, first_items, in_pieces
from edged.serve.answers.negotiate import CBOR, CBOR_SEQ, CHANGE_FORMATS, EVENTS, NDJSON, Format, choose_format
from edged.serve.answers.query import Query, require_collection, version_and_time
from edged.serve.answers.render import Renderer, encode_json, is_binary, value_in
from edged.serve.answers.respond import CACHE_CONTROL, DataAge, Inquiry, Since, read_from, respond
from edged.serve.answers.shape import Shape
from edged.serve.catalog import ChangedRecord, View

RETRY_MS = 1000
NOWHERE = Since(-1)  # before every version
KEEP_ALIVE = b": still here\n\n"  # a comment, which clients pass over


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which changes, and how they look. shapes: by collection; collections: empty for all."""

    renderer: Renderer
    form: Format
    collections: frozenset[str]
    shapes: dict[str, Shape]

    @property
    def key(self) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
        """Equal for who wants the same events, and written alike by every process."""
        return tuple(sorted(self.collections)), tuple((name, shape.name) for name, shape in sorted(self.shapes.items()))

    def of(self, view: View, since: Since) -> Iterator[ChangedRecord]:
        """Records that changed, and those whose references lead to one that did: they look another way now."""
        names = [name for name in view.collections if not self.collections or name in self.collections]
        for change in changes_of(view, since, names, self.shapes):
            if not self.collections or change.collection in self.collections:
                yield change

    def render(self, view: View, change: ChangedRecord, *, remember: bool = True) -> bytes:
        """One change as an object: collection, key, version, and value or deleted."""
        binary = is_binary(self.form)
        gone = change.value is None
        value = b""
        if change.value is not None:
            name, key, shape = change.collection, change.key, self.shapes.get(change.collection)
            make = self.renderer.item if remember else self.renderer.item_once
            value = value_in(make(view, name, key, change.value, binary, shape), key, binary)
        if binary:
            end = b"\x67deleted\xf5" if gone else b"\x65value" + value
            begin = b"\xa4\x63key" + cbor.encode(change.key) + b"\x6acollection" + cbor.encode(change.collection)
            return begin + b"\x67version" + cbor.encode(change.version) + end
        end = b'"deleted":true' if gone else b'"value":' + value
        begin = b'{"collection":%b,"key":%b,' % (encode_json(change.collection), encode_json(change.key))
        return b'%b%b,"version":%d}' % (begin, end, change.version)


def changes_of(
    view: View, since: Since, collections: Iterable[str], shapes: Mapping[str, Shape]
) -> Iterator[ChangedRecord]:
    """By (version, collection, key). Of `collections` the declared references are followed, one level deep, and what a
    shape expands; who asks for none that has any is given each change as it is found.
    """
    changes = view.changes(*since)
    followed = {
        name: (*declared_references(view.schema, name), *(shapes[name].expand if name in shapes else ()))
        for name in collections
    }
    if not any(followed.values()):
        yield from changes
        return
    versions: dict[str, dict[str, int]] = {}  # without the values, of which there may be many
    for change in changes:
        versions.setdefault(change.collection, {})[change.key] = change.version
    added = {
        name: referring(found, lambda name: versions.get(name, {}), view.referring, name)
        for name, found in followed.items()
        if found
    }
    for name, found in added.items():
        held = versions.setdefault(name, {})
        for key, version in found.items():
            if version > held.get(key, 0) and view.get_raw(name, key) is not None:
                held[key] = version
    names = pack_names({(name, key): version for name, held in versions.items() for key, version in held.items()})
    versions.clear()
    for version, name, key in unpack_names(names):
        yield ChangeOf(name, key, view.get_raw(name, key), version)


class ChangeOf(NamedTuple):
    """A change of a record, or of one that it refers to. value: CBOR bytes, None where it was removed."""

    collection: str
    key: str
    value: bytes | None
    version: int


def since_of(request: Request, query: Query) -> Since | None:
    """What the client has: Last-Event-ID, which a browser sends when it reconnects, goes before
    lastEventId, which stand-ins for EventSource send, and that before `since`.

    A browser sends the same id for ever: one that is none of ours must not lock it out. Where it says nothing else, it
    is told to read everything again.
    """
    last = request.get(b"last-event-id") or query.last_event_id
    given = version_and_time(last) if last else None
    if given is None and query.since is None:
        return NOWHERE if last else None
    return Since(*(given or query.since or NOWHERE))


def answer_changes(
    inquiry: Inquiry, view: View, query: Query, shapes: dict[str, Shape], again: Callable[[Since, bool], Answer]
) -> Response | InThread | Stream | Held:
    """again: answers the same request once more, counting from what it was held at, and holds it again only if it is
    not asked for the last time. Raises RequestError.
    """
    service, request = inquiry.service, inquiry.request
    form = choose_format(request.get(b"accept"), CHANGE_FORMATS)
    for name in query.collections:
        require_collection(view, name)
    since = inquiry.since or since_of(request, query)
    # Who sees a part of the collections has asked for these: what is remembered of changes goes by their names.
    names = frozenset(query.collections or (view.collections if view is not whole_of(view) else ()))
    wanted = Wanted(service.renderer, form, names, shapes)
    if form is EVENTS:
        return event_stream(inquiry, view, wanted, Since(view.version, view.time) if since is None else since)
    if since is None:
        raise RequestError(
            400, "since is missing: name the version that you have (a list's or a record's Edged-Version)"
        )
    if query.wait_s and inquiry.may_hold and since.version == view.version:
        held = since if since.time is not None else Since(view.version, view.time)
        if not view.time or next(wanted.of(view, held), None) is None:
            return Held(service.news.signal(view.dataset), inquiry.generation, query.wait_s, partial(again, held))
    return whole(inquiry, view, wanted, since)


def whole(inquiry: Inquiry, view: View, wanted: Wanted, since: Since) -> Response | InThread:
    """One body; where it would be large, in pieces."""
    listing = listing_of(wanted, view, since)
    items = first_items(listing) if view.tells(*since) else [reset(wanted.form, view)]
    if items is None:
        return in_pieces(inquiry, listing_of(wanted, view, since, remember=False), wanted.form)
    return respond(inquiry, listing.whole(items), wanted.form)


def listing_of(wanted: Wanted, view: View, since: Since, *, remember: bool = True) -> Listing:
    """The changes as the items of a body. With the records that they refer to they look as those do, which may come and
    go by time.
    """
    render = partial(wanted.render, view, remember=remember)

    def items() -> Iterator[bytes]:
        return map(render, wanted.of(view, since))

    def sources() -> Iterator[bytes]:
        return map(source_of, wanted.of(view, since))

    expands = any(shape.expand for shape in wanted.shapes.values())
    wrapping = partial(wrap, wanted.form, view)
    return Listing(wrapping, items, items if expands else sources, look=repr(wanted.key))


def source_of(change: ChangedRecord) -> bytes:
    """What a change's looks depend on."""
    found = blake2b(b"%d %b\0%b\0" % (change.version, change.collection.encode(), change.key.encode()), digest_size=32)
    found.update(b"deleted" if change.value is None else b"=" + change.value)
    return found.digest()


def wrap(form: Format, view: View, count: int) -> Wrapping:
    """What is around and between `count` changes."""
    if form is NDJSON:
        return Wrapping(b"", b"\n", b"\n" if count else b"")
    if form is CBOR_SEQ:
        return Wrapping(b"", b"", b"")
    if form is CBOR:
        opened = opening(view) + b"\x65items" + cbor.head(cbor.LIST, count)
        return Wrapping(opened, b"", b"\x67version" + cbor.encode(view.version))
    return Wrapping(b'{"items":[', b",", b"]," + moment(view) + b"}")


def moment(view: View) -> bytes:
    """Version, and time where records come and go by it, as members of a JSON object."""
    return b'"version":%d,"time":%d' % (view.version, view.time) if view.time else b'"version":%d' % view.version


def opening(view: View) -> bytes:
    """The begin of a CBOR map of two members besides the time, where records come and go by it."""
    return b"\xa3\x64time" + cbor.encode(view.time) if view.time else b"\xa2"


def reset(form: Format, view: View) -> bytes:
    """The asker's version is too old (or never was): read everything again, then ask since this version."""
    if is_binary(form):
        return opening(view) + b"\x65reset\xf5\x67version" + cbor.encode(view.version)
    return b'{"reset":true,' + moment(view) + b"}"


def stream_fields(inquiry: Inquiry, view: View, form: Format) -> Fields:
    return (
        (b"Content-Type", form.media.encode()),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Cache-Control", CACHE_CONTROL),
        *read_from(view),
        (b"ETag", b'"%b-%d-%d-%d"' % (form.name.encode(), view.version, view.as_of, view.time)),
        (b"Vary", inquiry.service.vary),
        *inquiry.service.cors.fields(inquiry.request),
    )


@dataclass(slots=True)
class EventsSince:
    """An event stream's place: what it has sent. Each call gives the events of what is new."""

    wanted: Wanted
    see: Callable[[], View]
    sent: Since

    def __call__(self) -> Iterator[bytes]:
        return self.events(self.see())

    def events(self, view: View) -> Iterator[bytes]:
        now = Since(view.version, view.time)
        if self.sent == now:
            return
        if not view.tells(*self.sent):
            yield b"event: reset\nid: %b\ndata: %b\n\n" % (event_id(view), reset(self.wanted.form, view))
            self.sent = now
            return
        # a thousand listeners at the same place hear the same bytes, made once
        memo_key = (scope_of(view), self.sent, now, self.wanted.key)
        known = self.wanted.renderer.events.get(memo_key)
        if known is not None:
            self.sent = now
            yield known
            return
        changes = self.wanted.of(view, self.sent)
        if view.version == self.sent.version:  # time alone has passed, and may have changed nothing
            first = next(changes, None)
            if first is None:
                self.sent = now
                return
            changes = chain((first,), changes)
        piece, parts = bytearray(), 1
        for change in changes:
            piece += b"data: " + self.wanted.render(view, change) + b"\n\n"
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
                parts += 1
        self.sent = now
        last = bytes(piece) + b"event: version\nid: %b\ndata: {%b}\n\n" % (event_id(view), moment(view))
        if parts == 1:
            self.wanted.renderer.events.put(memo_key, last)
        yield last


def event_id(view: View) -> bytes:
    return b"%d-%d" % (view.version, view.time) if view.time else b"%d" % view.version


def event_stream(inquiry: Inquiry, view: View, wanted: Wanted, since: Since) -> Stream:
    """Server-sent events: a change is a message; `version` ends each version; `reset` says to read all again."""
    assert inquiry.dataset is not None
    dataset, request = inquiry.dataset, inquiry.request
    follower = EventsSince(wanted, lambda: seen_by(request, dataset.view()), since)

    def beginning() -> Iterator[bytes]:
        yield b"retry: %d\n\n" % RETRY_MS
        yield from follower.events(view)

    fields = stream_fields(inquiry, view, wanted.form)
    signal = inquiry.service.news.signal(view.dataset)
    return Stream(200, fields, DataAge.of(view), beginning(), signal, follower, KEEP_ALIVE)
