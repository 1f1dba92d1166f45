"""A record's bytes in the format, shape and coding asked for, made once a version and remembered."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Hashable, Sequence
from hashlib import blake2b
from threading import Lock
from typing import Any

import cbor2
import msgspec

from edged.feed import cbor, zstd
from edged.feed.references import Reference
from edged.http.memory import OBJECT_BYTES, Memo
from edged.serve.allowed import Scope, scope_of, whole_of
from edged.serve.answers.dictionary import Trained
from edged.serve.answers.negotiate import CBOR, CBOR_SEQ, CODINGS, Format
from edged.serve.answers.shape import Shape, no_record
from edged.serve.catalog import View

LEAST_CODED_BYTES = 256  # below that a coding saves nothing that loopback would notice
BODY = zstd.FrameForm(level=3)
GZIP_LEVEL = 6

EVENTS_BYTES = 1 << 20  # of event streams' latest events
EXPANDED_BYTES = 4 << 20  # of the records that one record has in the place of keys
LOOKS = 256  # looks of items that are remembered at a time
NOWHERE = 0
PAIR_BYTES = 56 + 16 + 2 * OBJECT_BYTES  # a tuple of two as a key, its text, and the value
FORMS = ("json", "cbor", "ndjson", "cbor-seq", "openapi", "problem", "dictionary")
PERSONS = {(form, coding): f"{form}+{coding}"[:16].encode() for form in FORMS for coding in CODINGS}

encode_json = msgspec.json.encode


class Renderer:
    """Items of lists with the values in them, coded bodies, and events. budget_bytes bounds all but the last."""

    def __init__(self, budget_bytes: int) -> None:
        self.items: Memo[tuple[int, str], bytes] = Memo(budget_bytes * 2 // 3, size_of_pair)
        self.bodies: Memo[tuple[str, str], bytes] = Memo(budget_bytes // 3, size_of_pair)
        self.views: dict[Scope, View] = {}  # of which the items are
        self.looks: dict[tuple[Scope, str, bool, str], int] = {}
        self.last_look = 0
        self.events: Memo[Hashable, bytes] = Memo(EVENTS_BYTES, size_of_event)
        self.lock = Lock()  # a compressor serves one thread at a time
        self.zstd = zstd.compressor(BODY)

    def look_of(self, view: View, collection: str, binary: bool, shape: Shape | None) -> int:
        """The number under which items are remembered that look so: of this view, as CBOR (`binary`) or JSON, in this
        shape. A new view of a dataset forgets all items; for one that is older than another seen, as a long stream's
        may be, it is NOWHERE.
        """
        view = whole_of(view)
        scope = scope_of(view)
        newest = self.views.get(scope)
        if newest is not view or len(self.looks) > LOOKS:
            if newest is not None and place_of(view) < place_of(newest):
                return NOWHERE
            if newest is not None or len(self.looks) > LOOKS:
                self.items.clear()
                self.looks.clear()
            self.views[scope] = view
        described = (scope, collection, binary, shape.name if shape else "")
        look = self.looks.get(described)
        if look is None:
            self.last_look += 1  # never used again, whichever thread still writes under an old one
            look = self.looks[described] = self.last_look
        return look

    def value(self, view: View, collection: str, key: str, binary: bool, shape: Shape | None) -> bytes | None:
        """One value; None where there is no such record or it is taken down."""
        look = self.look_of(view, collection, binary, shape)
        item = self.items.entries.get((look, key))
        if item is None:
            raw = view.get_raw(collection, key)
            if raw is None:
                return None
            item = self.render(view, look, key, raw, binary, shape)
        return value_in(item, key, binary)

    def item(self, view: View, collection: str, key: str, raw: bytes, binary: bool, shape: Shape | None) -> bytes:
        """A list's item, {"key", "value"}. raw: canonical CBOR, which the view has given and so verified."""
        look = self.look_of(view, collection, binary, shape)
        return self.items.entries.get((look, key)) or self.render(view, look, key, raw, binary, shape)

    def item_once(self, view: View, collection: str, key: str, raw: bytes, binary: bool, shape: Shape | None) -> bytes:
        """The same for an answer of so many that remembering each would push out what is asked more often."""
        look = self.look_of(view, collection, binary, shape)
        return self.items.entries.get((look, key)) or self.render(view, NOWHERE, key, raw, binary, shape)

    def render(self, view: View, look: int, key: str, raw: bytes, binary: bool, shape: Shape | None) -> bytes:
        """Make an item and remember it."""
        body = raw
        if not binary or shape is not None:
            value: Any = cbor2.loads(raw)
            if shape is not None:
                value = shape.apply(value, self.record_of(view, binary, shape) if shape.expand else no_record)
            body = cbor.encode(value) if binary else encode_json(value)
        item = item_of(key, body, binary)
        if look != NOWHERE:
            self.items.put((look, key), item)
        return item

    def record_of(self, view: View, binary: bool, shape: Shape) -> Callable[[Reference, str], Any]:
        """What gives the records that come in the place of keys, as items of lists: for one record.

        Those beyond EXPANDED_BYTES stay keys.
        """
        left = EXPANDED_BYTES

        def record(reference: Reference, key: str) -> Any:
            nonlocal left
            raw = view.get_raw(reference.collection, key)
            below = shape.expand[reference]
            item = item_of(key, None, binary) if raw is None else self.item(view, reference[1], key, raw, binary, below)
            if len(item) > left:
                left = 0
                return key
            left -= len(item)
            if binary:
                return cbor2.loads(item)
            return msgspec.json.decode(item) if shape.fields else msgspec.Raw(item)  # fields look into it

        return record

    def batch(
        self, view: View, collection: str, keys: Sequence[str], binary: bool, shape: Shape | None, most: int
    ) -> list[bytes]:
        """Items in the order of `keys`; null as value where there is no such record.

        Raises OverflowError where they come to more than `most` bytes.
        """
        look = self.look_of(view, collection, binary, shape)
        recall = self.items.entries.get
        found = []
        for key in keys:
            item = recall((look, key))
            if item is None:
                raw = view.get_raw(collection, key)
                item = item_of(key, None, binary) if raw is None else self.render(view, look, key, raw, binary, shape)
            found.append(item)
            most -= len(item)
            if most < 0:
                raise OverflowError
        return found

    def coded(self, body: bytes, tag: str, coding: str, trained: Trained | None = None) -> bytes:
        """`body` in a content coding. tag: the entity tag of that representation; trained: for dcz."""
        if coding == "identity":
            return body
        known = self.bodies.get((coding, tag))
        if known is None:
            if coding == "dcz":
                assert trained is not None
                known = trained.compress(body)
            elif coding == "zstd":
                with self.lock:
                    known = self.zstd.compress(body)
            else:
                known = gzip.compress(body, GZIP_LEVEL, mtime=0)
            self.bodies.put((coding, tag), known)
        return known


def entity_tag(body: bytes, form: str, coding: str, trained: Trained | None = None) -> str:
    """A strong tag: equal only for equal bodies in the same format and coding, for dcz with the same dictionary."""
    salt = trained.sha256[: blake2b.SALT_SIZE] if trained is not None and coding == "dcz" else b""
    return f'"{blake2b(body, digest_size=10, salt=salt, person=PERSONS[form, coding]).hexdigest()}"'


def place_of(view: View) -> tuple[int, int, int]:
    """By which one view of a dataset is known to be older than another."""
    return view.version, view.as_of, view.time


def item_of(key: str, value: bytes | None, binary: bool) -> bytes:
    """An item of a list: {"key", "value"}."""
    if binary:
        return b"\xa2\x63key%b\x65value%b" % (cbor.encode(key), b"\xf6" if value is None else value)
    return b'{"key":%b,"value":%b}' % (encode_json(key), b"null" if value is None else value)


def value_in(item: bytes, key: str, binary: bool) -> bytes:
    """The value in what `item_of` has made."""
    return item[len(cbor.encode(key)) + 11 :] if binary else item[len(encode_json(key)) + 16 : -1]


def size_of_pair(key: tuple[int, str] | tuple[str, str], value: bytes) -> int:
    """What a remembered value or coded body takes, its key included."""
    return PAIR_BYTES + len(key[1]) + len(value)


def size_of_event(key: Hashable, value: bytes) -> int:
    """What remembered events take; their key is a few small objects."""
    return len(value) + 4 * PAIR_BYTES


def is_binary(form: Format) -> bool:
    return form is CBOR or form is CBOR_SEQ
