"""Cache-Status (RFC 9211): what this cache did with a request, on every answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edged.http.fields import Fields, value_of
from edged.proxy.rules.structured import Malformed, read_list

NAME = b"edged"

Forward = Literal["bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"]


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """hit, or why it was forwarded. ttl_s: freshness left, negative once stale. detail: a token of ours. upstream_s:
    how long the upstream took, which is said by Server-Timing; None where that is not to be said."""

    hit: bool = False
    forward: Forward | None = None
    status: int | None = None
    ttl_s: int | None = None
    stored: bool = False
    collapsed: bool = False
    detail: str = ""
    upstream_s: float | None = None

    def encode(self) -> bytes:
        parts = [NAME]
        if self.hit:
            parts.append(b"hit")
        if self.forward is not None:
            parts.append(b"fwd=" + self.forward.encode())
        if self.status is not None:
            parts.append(b"fwd-status=%d" % self.status)
        if self.ttl_s is not None:
            parts.append(b"ttl=%d" % self.ttl_s)
        if self.stored:
            parts.append(b"stored")
        if self.collapsed:
            parts.append(b"collapsed")
        if self.detail:
            parts.append(b"detail=" + self.detail.encode())
        return b"; ".join(parts)


def is_members(value: bytes) -> bool:
    """Whether a value is a list of caches, each a token or a string (section 2)."""
    try:
        members = read_list(value)
    except Malformed:
        return False
    return bool(members) and all(isinstance(member, bytes | str) for member in members)


def with_status(fields: Fields, status: CacheStatus) -> Fields:
    """The fields with our member after those of the caches nearer to the origin (section 2). What they say that is no
    list is dropped: it would take ours with it, for a field is read whole or not at all (RFC 9651 section 4.2).
    """
    before = value_of(fields, b"cache-status")
    value = status.encode() if before is None or not is_members(before) else before + b", " + status.encode()
    kept = tuple(pair for pair in fields if pair[0] != b"cache-status")
    if status.upstream_s is None:
        return (*kept, (b"cache-status", value))
    return (*kept, (b"cache-status", value), (b"server-timing", b"upstream;dur=%.3f" % (status.upstream_s * 1000)))
