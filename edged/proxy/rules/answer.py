"""The answer that a stored response gives to a request: whole, in part, 304, 416, or its head alone."""

from __future__ import annotations

from dataclasses import dataclass

from edged.http.fields import Fields
from edged.http.ranges import ByteRange, RangeNotSatisfiable, partial_fields, wanted_range
from edged.http.validators import not_modified
from edged.proxy.rules.decisions import CacheEntry, CacheRequest
from edged.proxy.rules.directives import FOREVER_S
from edged.proxy.rules.status import CacheStatus, with_status
from edged.proxy.rules.validation import not_modified_fields


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """span: which bytes of the stored body follow; None for none."""

    status: int
    fields: Fields
    span: ByteRange | None


def answer_from(entry: CacheEntry, request: CacheRequest, now_s: float, status: CacheStatus) -> StoredAnswer:
    """Conditions, then the range (RFC 9110 section 13.2.2). Adds Age, Content-Length and Cache-Status."""
    fields = with_status(with_age(entry, now_s), status)
    if entry.status == 200:
        if not_modified(request.fields, entry.fields, entry.received_s):
            kept = not_modified_fields(fields)
            return StoredAnswer(304, (*kept, *(pair for pair in fields if pair[0] in (b"age", b"cache-status"))), None)
        partial = answer_range(entry, request, fields) if request.method == b"GET" else None
        if partial is not None:
            return partial
    if entry.status == 204:
        return StoredAnswer(204, fields, None)
    fields = (*(pair for pair in fields if pair[0] != b"content-length"), (b"content-length", b"%d" % entry.size))
    whole = ByteRange(0, entry.size - 1) if entry.size and request.method != b"HEAD" else None
    return StoredAnswer(entry.status, fields, whole)


def answer_range(entry: CacheEntry, request: CacheRequest, fields: Fields) -> StoredAnswer | None:
    """206 or 416 where the request wants one range; None for the whole."""
    try:
        span = wanted_range(request.fields, entry.fields, entry.size)
    except RangeNotSatisfiable:
        kept = tuple(pair for pair in fields if pair[0] in (b"age", b"cache-status", b"date"))
        unmet = ((b"content-range", b"bytes */%d" % entry.size), (b"content-length", b"0"))
        return StoredAnswer(416, (*kept, *unmet), None)
    if span is None:
        return None
    return StoredAnswer(206, partial_fields(fields, span, entry.size), span)


def with_age(entry: CacheEntry, now_s: float) -> Fields:
    age_s = min(int(entry.age_s(now_s)), FOREVER_S)
    return (*(pair for pair in entry.fields if pair[0] != b"age"), (b"age", b"%d" % age_s))


def hit_status(entry: CacheEntry, now_s: float, *, detail: str = "") -> CacheStatus:
    """Cache-Status of an answer from the store. An unknown age has no ttl."""
    ttl = None if entry.received_s is None else entry.whole_ttl_s(now_s)
    return CacheStatus(hit=True, ttl_s=ttl, detail=detail)
