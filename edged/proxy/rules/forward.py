"""Requests and answers on their way through: what is passed on, what is not (RFC 9110 sections 7.6 and 7.7)."""

from __future__ import annotations

import re

from edged.proxy.rules.fields import DIGITS, TOKEN, Fields, members_of, values_of
from edged.proxy.rules.validation import without_hop_by_hop

TARGET = re.compile(rb"/[!-~]*")
BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
DOT_SEGMENT = re.compile(rb"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
TARGET_BYTES = 8 << 10
LENGTH_DIGITS = 18
# Written by us and by nobody before us.
OURS = frozenset((b"host", b"expect", b"content-length", b"via"))


class Refused(Exception):
    """A request that is not forwarded: status and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class BadFraming(Exception):
    """Where an upstream's answer ends is not certain."""


def check_target(target: bytes) -> None:
    """Raise Refused for what could mean one thing here and another upstream: dot segments, backslashes, fragments."""
    if len(target) > TARGET_BYTES:
        raise Refused(414, f"the target is over {TARGET_BYTES} bytes")
    path = target.partition(b"?")[0]
    if not TARGET.fullmatch(target) or b"#" in target or b"\\" in path:
        raise Refused(400, "the target is not a path of visible ASCII")
    if DOT_SEGMENT.search(path):
        raise Refused(400, "the path has dot segments; send it resolved")


def under_prefix(path: bytes, prefix: bytes) -> bool:
    """Whether a path lies under a route's prefix, by whole segments."""
    if prefix == b"/":
        return True
    prefix = prefix.rstrip(b"/")
    return path == prefix or path.startswith(prefix + b"/")


def check_fields(fields: Fields) -> None:
    """Raise Refused for fields that another parser might read differently."""
    lengths = 0
    for name, value in fields:
        if not TOKEN.fullmatch(name) or BAD_VALUE.search(value):
            raise Refused(400, "a field is not a token and visible text")
        if name == b"content-length":
            lengths += 1
            if not DIGITS.fullmatch(value) or len(value) > LENGTH_DIGITS:
                raise Refused(400, "Content-Length is not one number")
    if lengths > 1:
        raise Refused(400, "Content-Length is repeated")
    if lengths and any(name == b"transfer-encoding" for name, _ in fields):
        raise Refused(400, "Content-Length beside Transfer-Encoding")


def upstream_fields(request: Fields, *, host: bytes, via: bytes, credentials: frozenset[bytes], body: bool) -> Fields:
    """The fields of the request that goes upstream.

    credentials: names of fields that were meant for edged alone. body: whether one follows; its Content-Length is
    kept, and without one it goes out in chunks. Raises Refused with 508 where the request has passed here before.
    """
    if any(member.split(b" ")[-1] == via for member in members_of(request, b"via")):
        raise Refused(508, "the request has come back to this cache; a route's upstream is edged itself")
    kept = [pair for pair in without_hop_by_hop(request) if pair[0] not in OURS and pair[0] not in credentials]
    passed = b", ".join([*values_of(request, b"via"), b"1.1 " + via])
    fields = [(b"host", host), *kept, (b"via", passed)]
    if body:
        length = values_of(request, b"content-length")
        fields.append((b"content-length", length[0]) if length else (b"transfer-encoding", b"chunked"))
    return tuple(fields)


def check_framing(version: bytes, fields: Fields) -> None:
    """Raise BadFraming for an upstream's answer whose end two parsers might find in two places (RFC 9112 sections 6.1
    and 6.3): it may be an attempt at response splitting. version: of HTTP, as `HTTP/1.1`.
    """
    lengths = values_of(fields, b"content-length")
    coded = any(name == b"transfer-encoding" for name, _ in fields)
    if coded and lengths:
        raise BadFraming("it has Content-Length beside Transfer-Encoding; expected one of them")
    if coded and version != b"HTTP/1.1":
        raise BadFraming(f"it has Transfer-Encoding in {version.decode('ascii', 'replace')}; HTTP/1.1 alone knows it")
    if len(lengths) > 1 or (lengths and not (DIGITS.fullmatch(lengths[0]) and len(lengths[0]) <= LENGTH_DIGITS)):
        raise BadFraming(f"its Content-Length is {b', '.join(lengths)[:80]!r}; expected one number")


def answer_fields(status: int, fields: Fields) -> Fields:
    """The fields of an upstream's answer that are passed on. Those that no parser should see are dropped, and so is
    Content-Length where it must not be (RFC 9110 section 8.6)."""
    kept = without_hop_by_hop(fields)
    if status < 200 or status == 204:
        kept = tuple(pair for pair in kept if pair[0] != b"content-length")
    if not BAD_VALUE.search(b"".join([value for _, value in kept])) and all(TOKEN.fullmatch(name) for name, _ in kept):
        return kept
    return tuple((name, value) for name, value in kept if TOKEN.fullmatch(name) and not BAD_VALUE.search(value))
