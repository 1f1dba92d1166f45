"""`answer`: what any lane asks. Pure but for reading the replica: the same request at the same version and time gives
the same answer.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import cbor2

from edged.errors import RequestError
from edged.http.application import Answer, InThread, Response, Stream
from edged.http.cors import METHODS
from edged.http.request import Request, decode, encode, split_target
from edged.serve.allowed import rights_of, seen_by
from edged.serve.answers.changes import answer_changes
from edged.serve.answers.dictionary import DICTIONARY, LIFE
from edged.serve.answers.lists import answer_list
from edged.serve.answers.negotiate import RECORD_FORMATS, choose_format
from edged.serve.answers.openapi import OPENAPI, OPENAPI_FORMATS
from edged.serve.answers.query import (
    CHANGES_PARAMETERS,
    DICTIONARY_PARAMETERS,
    LIST_PARAMETERS,
    NOTHING,
    RECORD_PARAMETERS,
    Query,
    parse_key,
    parse_query,
    require_collection,
)
from edged.serve.answers.render import encode_json, is_binary
from edged.serve.answers.respond import PER_MOMENT, RETRY_S, DataAge, Inquiry, Kept, Service, Since, contain, respond
from edged.serve.answers.shape import Shape, lost_fields, refuse_unseen, shape_of, shapes_of
from edged.serve.catalog import Dataset, View

if TYPE_CHECKING:
    from edged.access.rights import Rights

QUICK_PARAMETERS = frozenset({b"keys", b"after", b"prefix", b"fields", b"view", b"_"})
NO_PARAMETERS: frozenset[str] = frozenset()


def is_own(path: bytes) -> bool:
    """Whether a path is the API's; any other is the fallback's, where there is one."""
    return path == b"/v1" or path.startswith(b"/v1/") or path == b"/openapi.json"


def may_be_slow(query: bytes) -> bool:
    """Whether a request may take milliseconds (a condition, a search, a long page, old changes), so that a lane should
    answer it in a thread.
    """
    return any(pair.partition(b"=")[0] not in QUICK_PARAMETERS for pair in query.split(b"&")) if query else False


def answer(
    service: Service,
    request: Request,
    now: float,
    *,
    may_hold: bool = True,
    in_thread: bool = False,
    since: Since | None = None,
) -> Answer:
    """now: seconds since 1970 (a Clock). may_hold: False when a Held answer was waited for; since: from where that one
    counts. in_thread: whether it may take milliseconds; if not, what would is an InThread.

    Raises nothing that a request can cause: faults of a request are problem details, a broken replica is a 503.
    """
    return contain(Inquiry(service, request, now, may_hold, in_thread, since=since), find)


def find(inquiry: Inquiry) -> Answer:
    """What lies at a request's path. Raises EdgedError."""
    service, request = inquiry.service, inquiry.request
    asterisk = request.method == "OPTIONS" and request.target == b"*"  # the server as a whole
    pathless = asterisk or request.method == "CONNECT"
    authority, path, query = split_target(b"/" if pathless else request.target)
    service.hosts.check(request, authority)
    if request.method == "OPTIONS":
        return service.cors.options(request)
    if request.method not in ("GET", "HEAD"):
        methods = METHODS.decode()
        what = f"{request.method:.40} is not answered here, only {methods}"
        raise RequestError(405, what, headers=(("Allow", methods),))
    if not is_own(path):
        raise RequestError(404, f"nothing at {path[:200].decode('ascii', 'replace')}; the API is below /v1")
    if path == b"/openapi.json":
        parse_query(query, NO_PARAMETERS)
        return respond(inquiry, OPENAPI, choose_format(request.get(b"accept"), OPENAPI_FORMATS))
    segments = path.split(b"/", 4)[2:]
    if not segments:
        parse_query(query, NO_PARAMETERS)
        return answer_datasets(inquiry)
    name, rights = decode(segments[0], "dataset"), rights_of(request)
    if rights is not None:
        rights.require_dataset(name)  # before anything is looked for
        if len(segments) > 1:
            require_rights(rights, name, decode(segments[1], "collection"), len(segments))
        else:
            rights.require_description(name)
    dataset = inquiry.dataset = find_dataset(service, name)
    if segments[-1] == b"changes":  # which may be waited for: read before the view, so that no move is lost between
        inquiry.generation = service.news.signal(dataset.name).generation
    view = inquiry.view = seen_by(request, open_view(dataset))
    found = route(inquiry, view, segments[1:], query)
    return service.damage.watched(dataset.name, found) if isinstance(found, Stream) else found


def require_rights(rights: Rights, dataset: str, collection: str, segments: int) -> None:
    """Raises RequestError 403 unless the app may have what a path is of."""
    if collection == "changes" and segments == 2:
        rights.require_some(dataset)
    else:
        rights.require_collection(dataset, collection)


def find_dataset(service: Service, name: str) -> Dataset:
    dataset = service.catalog.get(name)
    if dataset is None:
        there = ", ".join(sorted(service.catalog)) or "none"
        raise RequestError(404, f"no dataset {name!r:.80}; there are: {there}")
    return dataset


def open_view(dataset: Dataset) -> View:
    """Raises RequestError 503 until the first synchronisation is through."""
    if not dataset.version:
        what = f"dataset {dataset.name!r} has not been synchronised yet; ask again soon"
        raise RequestError(503, what, headers=(("Retry-After", RETRY_S.decode()),))
    return dataset.view()


def route(inquiry: Inquiry, view: View, segments: list[bytes], query: bytes) -> Answer:
    """Below /v1/{dataset}."""
    if not segments:
        parse_query(query, NO_PARAMETERS)
        return answer_dataset(inquiry, view)
    collection = decode(segments[0], "collection")
    if len(segments) == 2:
        parsed = in_view(inquiry, parse_query(query, RECORD_PARAMETERS) if query else NOTHING)
        require_collection(view, collection)
        inquiry.collection = collection
        shape = shape_of(view.schema, collection, parsed)
        key = parse_key(segments[1], "key")
        return in_time(inquiry, collection, shape, parsed.view) or answer_record(inquiry, view, collection, key, shape)
    if collection == "changes":
        parsed = in_view(inquiry, parse_query(query, CHANGES_PARAMETERS))
        for name in parsed.collections:
            require_allowed(inquiry.request, view.dataset, name)
        shapes = shapes_of(view.schema, view.collections, parsed)
        return answer_changes(inquiry, view, parsed, shapes, partial(ask_again, inquiry.service, inquiry.request))
    if asks_dictionary(query):
        parsed = parse_query(query, DICTIONARY_PARAMETERS)
        require_collection(view, collection)
        return answer_dictionary(inquiry, view, collection, parsed.dictionary)
    parsed = in_view(inquiry, parse_query(query, LIST_PARAMETERS))
    require_collection(view, collection)
    inquiry.collection = collection
    if inquiry.request.who.app is not None and inquiry.request.who.app.view:
        refuse_unseen(view.schema, collection, parsed)
    shape = shape_of(view.schema, collection, parsed)
    return in_time(inquiry, collection, shape, parsed.view) or answer_list(inquiry, view, collection, parsed, shape)


def in_view(inquiry: Inquiry, query: Query) -> Query:
    """The query in the view that is the only shape of the asking app. Raises RequestError 403 for another."""
    app = inquiry.request.who.app
    if app is None or not app.view:
        return query
    if query.view not in ("", app.view):
        raise RequestError(403, f"this app gets view {app.view!r} alone; leave `view` out")
    return replace(query, view=app.view)


def require_allowed(request: Request, dataset: str, collection: str) -> None:
    rights = rights_of(request)
    if rights is not None:
        rights.require_collection(dataset, collection)


def in_time(inquiry: Inquiry, collection: str, shape: Shape | None, name: str) -> InThread | None:
    """The same request in a thread, where its shape takes time and this is none. Warns of fields that are nowhere.

    name: of the view that was asked for, "" for none.
    """
    service, slow = inquiry.service, shape is not None and bool(shape.expand)
    if shape is not None and shape.fields and inquiry.view is not None:
        fields = lost_fields(inquiry.view, collection, shape, shape.fields, look=inquiry.in_thread)
        slow = slow or fields is None
        if fields:
            names = ", ".join(encode(path) for path in fields)  # as a field's value may not have every letter
            within = f" in view {encode(name)}" if name else ""
            inquiry.warning = f"fields: no record of {collection}{within} has {names}"
    if not slow or inquiry.in_thread:
        return None
    return InThread(partial(answer, service, inquiry.request, inquiry.now, in_thread=True), service.slow)


def ask_again(service: Service, request: Request, since: Since, last: bool) -> Answer:
    """A request that was held."""
    return answer(service, request, service.clock(), may_hold=not last, since=since)


def answer_record(inquiry: Inquiry, view: View, collection: str, key: str, shape: Shape | None) -> Response:
    """One record's value alone. Raises RequestError 404 or 410."""
    form = choose_format(inquiry.request.get(b"accept"), RECORD_FORMATS)
    content = 0
    if shape is not None:
        body = inquiry.service.renderer.value(view, collection, key, is_binary(form), shape)
    else:  # remembered whole by whoever asks, so that it need not be in a second memory
        body = raw = view.get_raw(collection, key)
        if raw is not None:
            content = hash(raw)
            body = raw if is_binary(form) else encode_json(cbor2.loads(raw))
    if body is None:
        what = f"record {key!r:.200}"
        if view.is_taken_down(collection, key):
            raise RequestError(410, f"{what} of collection {collection!r} was taken down by its publisher")
        raise RequestError(404, f"no {what} in collection {collection!r} of {view.dataset!r}")
    return respond(inquiry, body, form, content=content)


def answer_dataset(inquiry: Inquiry, view: View) -> Response | InThread:
    """What a dataset is: `state` depends on the time, so the answer is never kept. Some slices have to be counted."""
    service = inquiry.service
    if view.part and not inquiry.in_thread:
        return InThread(partial(answer, service, inquiry.request, inquiry.now, in_thread=True), service.slow)
    document = {
        "dataset": view.dataset,
        "version": view.version,
        "as_of": view.as_of,
        "state": inquiry.service.age_of(view).state(inquiry.now),
        "fresh_s": view.fresh_s,
        "expires_s": view.expires_s,
        "changes_from": view.changes_from,
        "slices": {name: {"version": part.version, "records": part.records} for name, part in view.slices.items()},
        "collections": dict(view.collections),
        "views": sorted(view.schema.views),
        "indexes": {name: list(item.index) for name, item in view.schema.collections.items() if item.index},
        "orders": {name: list(item.order) for name, item in view.schema.collections.items() if item.order},
        "intervals": {name: list(item.interval) for name, item in view.schema.collections.items() if item.interval},
        "refs": {name: dict(item.refs) for name, item in view.schema.collections.items() if item.refs},
        "text": {name: list(item.text) for name, item in view.schema.collections.items() if item.text},
        "dictionaries": inquiry.service.dictionaries.named(view),
    }
    if view.time:
        document |= {"time": view.time, "next_change": view.next_change}
    form = choose_format(inquiry.request.get(b"accept"), RECORD_FORMATS)
    return respond(inquiry, encode_document(document, is_binary(form)), form, kept=PER_MOMENT)


def asks_dictionary(query: bytes) -> bool:
    return b"dictionary=" in query and any(pair.startswith(b"dictionary=") for pair in query.split(b"&"))


def answer_dictionary(inquiry: Inquiry, view: View, collection: str, name: str) -> Response:
    """The dictionary of a collection's answers (RFC 9842 section 2.1). Raises RequestError 404, DamageError."""
    form = choose_format(inquiry.request.get(b"accept"), (DICTIONARY,))
    trained = inquiry.service.dictionaries.of(view, collection)
    if trained is None or trained.sha256.hex() != name:
        what = f"no dictionary {name!r:.80} of collection {collection!r} now; the dataset names the present one"
        raise RequestError(404, what)
    return respond(inquiry, trained.data, form, kept=Kept(LIFE, extra=((b"Use-As-Dictionary", trained.match),)))


def answer_datasets(inquiry: Inquiry) -> Response:
    """Every dataset of this device, whether synchronised yet or not (version 0)."""
    entries = []
    rights = rights_of(inquiry.request)
    for name, dataset in sorted(inquiry.service.catalog.items()):
        if rights is not None and not rights.knows(name):
            continue
        entry = {"dataset": name, "version": dataset.version, "state": "absent", "as_of": 0}
        if dataset.version:
            view = dataset.view()
            entry.update(version=view.version, state=DataAge.of(view).state(inquiry.now), as_of=view.as_of)
        entries.append(entry)
    form = choose_format(inquiry.request.get(b"accept"), RECORD_FORMATS)
    return respond(inquiry, encode_document({"datasets": entries}, is_binary(form)), form, kept=PER_MOMENT)


def encode_document(document: object, binary: bool) -> bytes:
    """A document of ours as canonical CBOR or as JSON."""
    return cbor2.dumps(document, canonical=True) if binary else encode_json(document)
