"""A record's bytes in the format, shape and coding asked for, made once and remembered.

The memory is keyed by the record's own canonical bytes: an edit elsewhere in the dataset does not touch it, and a new
version renders only what has changed.
"""

from __future__ import annotations

import gzip
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from threading import Lock
from typing import Any

import cbor2
import msgspec
import zstandard

from edged.serve.memo import Memo
from edged.serve.negotiate import CBOR, CBOR_SEQ, CODINGS, Format
from edged.serve.shape import Shape
from edged.serve.source import View

LEAST_CODED_BYTES = 256  # below that a coding saves nothing that loopback would notice
ZSTD_LEVEL = 3
GZIP_LEVEL = 6

EVENTS_BYTES = 1 << 20  # of event streams' latest events
GROUPS = 256  # looks of items that are remembered at a time
FORMS = ("json", "cbor", "ndjson", "cbor-seq", "openapi", "problem")
PERSONS = {(form, coding): f"{form}+{coding}"[:16].encode() for form in FORMS for coding in CODINGS}

encode_json = msgspec.json.encode


class Renderer:
    """Values, coded bodies, items of lists, and events. budget_bytes bounds all but the last."""

    def __init__(self, budget_bytes: int) -> None:
        self.values: Memo[tuple[bool, str, bytes], bytes] = Memo(budget_bytes // 3)
        self.bodies: Memo[tuple[str, str], bytes] = Memo(budget_bytes // 3)
        self.items: Memo[tuple[int, str], bytes] = Memo(budget_bytes // 3)
        self.views: dict[str, View] = {}  # of which the items are
        self.groups: dict[tuple[str, str, bool, str], int] = {}
        self.last_group = 0
        self.events: Memo[Hashable, bytes] = Memo(EVENTS_BYTES)
        self.lock = Lock()  # a compressor serves one thread at a time
        self.zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=True)

    def value(self, raw: bytes, binary: bool, shape: Shape | None) -> bytes:
        """One value as CBOR (`binary`) or JSON. raw: canonical CBOR from the replica, which has verified it."""
        if binary and shape is None:
            return raw
        memo_key = (binary, shape.name if shape else "", raw)
        known = self.values.get(memo_key)
        if known is not None:
            return known
        value: Any = cbor2.loads(raw)
        if shape is not None:
            value = shape.apply(value)
        body = cbor2.dumps(value, canonical=True) if binary else encode_json(value)
        self.values.put(memo_key, body, len(raw) + len(body))
        return body

    def batch(
        self, view: View, collection: str, keys: Sequence[str], binary: bool, shape: Shape | None, most: int
    ) -> list[bytes]:
        """A list's items, {"key", "value"}, of this view, in the order of `keys`; null as value where there is no such
        record. Raises OverflowError where they come to more than `most` bytes.
        """
        group = self.group_of(view, collection, binary, shape)
        entries = self.items.entries
        known = [entries.get((group, key)) for key in keys]
        if None not in known:
            found = [entry[0] for entry in known if entry is not None]
            if sum(map(len, found)) > most:
                raise OverflowError
            return found
        found = []
        for key, entry in zip(keys, known, strict=True):
            item = entry[0] if entry is not None else self.item(view, group, collection, key, binary, shape)
            found.append(item)
            most -= len(item)
            if most < 0:
                raise OverflowError
        return found

    def item(self, view: View, group: int, collection: str, key: str, binary: bool, shape: Shape | None) -> bytes:
        """One item. It is remembered when its value was: who is asked for once alone takes one place, not two."""
        raw = None if view.is_taken_down(collection, key) else view.get_raw(collection, key)
        before = self.values.added
        found = self.pair(key, raw, binary, shape)
        if self.values.added == before:
            self.items.put((group, key), found, len(found) + len(key))
        return found

    def group_of(self, view: View, collection: str, binary: bool, shape: Shape | None) -> int:
        """The number under which items of this look are remembered; a new view of a dataset forgets all items."""
        if self.views.get(view.dataset) is not view or len(self.groups) > GROUPS:
            self.items.clear()
            self.groups.clear()
            self.views[view.dataset] = view
        look = (view.dataset, collection, binary, shape.name if shape else "")
        group = self.groups.get(look)
        if group is None:
            self.last_group += 1  # never used again, whichever thread still writes under an old one
            group = self.groups[look] = self.last_group
        return group

    def pair(self, key: str, raw: bytes | None, binary: bool, shape: Shape | None) -> bytes:
        """The same of a value at hand."""
        if binary:
            return (
                b"\xa2\x63key"
                + cbor_text(key)
                + b"\x65value"
                + (b"\xf6" if raw is None else self.value(raw, True, shape))
            )
        body = b"null" if raw is None else self.value(raw, False, shape)
        return b'{"key":%b,"value":%b}' % (encode_json(key), body)

    def coded(self, body: bytes, tag: str, coding: str) -> bytes:
        """`body` in a content coding. tag: the entity tag of that representation."""
        if coding == "identity":
            return body
        known = self.bodies.get((coding, tag))
        if known is None:
            if coding == "zstd":
                with self.lock:
                    known = self.zstd.compress(body)
            else:
                known = gzip.compress(body, GZIP_LEVEL, mtime=0)
            self.bodies.put((coding, tag), known, len(known) + len(tag))
        return known


def entity_tag(body: bytes, form: str, coding: str) -> str:
    """A strong tag: equal only for equal bodies in the same format and coding."""
    return f'"{blake2b(body, digest_size=10, person=PERSONS[form, coding]).hexdigest()}"'


def is_binary(form: Format) -> bool:
    return form is CBOR or form is CBOR_SEQ


def cbor_text(text: str) -> bytes:
    return cbor2.dumps(text)


def cbor_head(major: int, count: int) -> bytes:
    """The initial bytes of a definite-length CBOR array (major 4) or map (major 5) of less than 2^32 members."""
    if count < 24:
        return bytes((major << 5 | count,))
    if count < 1 << 8:
        return bytes((major << 5 | 24, count))
    if count < 1 << 16:
        return bytes((major << 5 | 25,)) + count.to_bytes(2, "big")
    return bytes((major << 5 | 26,)) + count.to_bytes(4, "big")
