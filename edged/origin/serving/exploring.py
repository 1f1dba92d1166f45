"""What the explorer asks, answered from what was published: datasets, what is declared of them, records by key.

In the shapes in which a device answers it (docs/http.md); what takes indexes (conditions, orders, search) is a device's
to answer, and so are views. All of the live version, but for what is taken down. Blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cbor2

from edged.errors import RequestError
from edged.feed.schema import Schema
from edged.origin import history
from edged.origin.publisher import Publisher
from edged.origin.serving.browsing import LOOKED_AT
from edged.origin.state import HIDDEN, State

DEVICE = "http://127.0.0.1:8484"  # where one answers unless its configuration says otherwise
PAGE, MOST = 50, 200  # records of a list
PAGE_BYTES = 2 << 20  # of their values, beyond which a page ends
PARAMETERS = ("limit", "after", "keys")


def explored(feed: Path, segments: Sequence[str], asked: Mapping[str, str]) -> Any:
    """The document at a path below /v1, by its segments. Raises EdgedError."""
    publisher = Publisher.open(feed)
    if not segments:
        return {"datasets": list(entries(publisher)), "origin": True, "device": DEVICE}
    dataset, *rest = segments
    if dataset not in publisher.datasets():
        raise RequestError(404, f"no dataset {dataset!r:.80}; there are: {', '.join(publisher.datasets()) or 'none'}")
    with publisher.reading(dataset) as state:
        if not rest:
            return described(state)
        if len(rest) == 1:
            return listed(state, rest[0], asked)
        key = "/".join(rest[1:])
        found = value_of(state, rest[0], key)
    if found is None:
        raise RequestError(404, f"no record {key!r:.200} in collection {rest[0]!r:.80}")
    return cbor2.loads(found)


def entries(publisher: Publisher) -> Iterator[dict[str, Any]]:
    for name in publisher.datasets():
        with publisher.reading(name) as state:
            row = state.version_row(state.live)
        if row is not None:
            yield {"dataset": name, "version": row.version, "as_of": row.time, "state": "published"}


def described(state: State) -> dict[str, Any]:
    """As `GET /v1/{dataset}` of a device that carries all slices."""
    row = state.version_row(state.live)
    if row is None:
        raise RequestError(404, f"nothing is published of dataset {state.dataset!r}")
    schema = Schema.from_cbor(cbor2.loads(row.schema))
    declared = schema.collections.items()
    return {
        "dataset": state.dataset,
        "version": row.version,
        "as_of": row.time,
        "state": "published",
        "slices": {
            name: {"version": item.version, "records": item.records}
            for name, item in ((name, state.slice_at(name, at=row.version)) for name in row.declared)
        },
        "collections": row.counts,
        "views": sorted(schema.views),
        "indexes": {name: list(item.index) for name, item in declared if item.index},
        "orders": {name: list(item.order) for name, item in declared if item.order},
        "intervals": {name: list(item.interval) for name, item in declared if item.interval},
        "refs": {name: dict(item.refs) for name, item in declared if item.refs},
        "text": {name: list(item.text) for name, item in declared if item.text},
    }


def listed(state: State, collection: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """Raises RequestError 400 for what a device alone answers."""
    beyond = [name for name in asked if name not in PARAMETERS]
    if beyond:
        what = f"{beyond[0]:.80}: an origin answers {', '.join(PARAMETERS)}; ask a device for conditions and views"
        raise RequestError(400, what)
    if "keys" in asked:
        keys = asked["keys"].split(",")[:MOST]
        values = [value_of(state, collection, key) for key in keys]
        items = [
            {"key": key, "value": None if value is None else cbor2.loads(value)}
            for key, value in zip(keys, values, strict=True)
        ]
        return {"items": items, "version": state.live, "next": None}
    items, following = page_of(state, collection, asked)
    return {"items": items, "version": state.live, "next": following}


def page_of(state: State, collection: str, asked: Mapping[str, str]) -> tuple[list[Any], str | None]:
    """Records in the order of their keys, and behind which key the next page begins."""
    limit, last, size = limit_of(asked), asked.get("after", ""), 0
    items: list[Any] = []
    for looked, key in enumerate(history.keys_at(state, collection, state.live, last)):
        if len(items) == limit or looked == LOOKED_AT or size > PAGE_BYTES:
            return items, last
        last = key
        value = value_of(state, collection, key)
        if value is not None:
            size += len(value)
            items.append({"key": key, "value": cbor2.loads(value)})
    return items, None


def limit_of(asked: Mapping[str, str]) -> int:
    text = asked.get("limit", str(PAGE))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST:
        raise RequestError(400, f"limit: expected a whole number from 1 to {MOST}, got {text!r:.80}")
    return int(text)


def value_of(state: State, collection: str, key: str) -> bytes | None:
    """A record's value in the live version; None where there is none, and where it is taken down."""
    now = state.record(collection, key)
    if now is not None and now[0] == HIDDEN:
        return None
    return history.visible(history.at_version(state, collection, key, state.live))
