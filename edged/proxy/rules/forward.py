"""Requests and answers on their way through: what is passed on, what is not (RFC 9110 sections 7.6 and 7.7)."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from edged.http.fields import BAD_VALUE, DIGITS, TOKEN, Fields, members_of, values_of
from edged.proxy.rules.validation import without_hop_by_hop

TARGET = re.compile(rb"/[!-~]*")
SEPARATOR = re.compile(rb"[/\\]")
OVERLONG = ((b"\xc0\xae", b"."), (b"\xc0\xaf", b"/"), (b"\xc1\x9c", b"\\"))
PLACES = frozenset((b"location", b"content-location"))
HOST = re.compile(rb"(?:[0-9A-Za-z._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
MOST_DECODINGS = 4
TARGET_BYTES = 8 << 10
LENGTH_DIGITS = 18
BODY_METHODS = frozenset((b"POST", b"PUT", b"PATCH"))
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
    """Raise Refused for what could mean one thing here and another upstream: dot segments in any writing that some
    server resolves, backslashes, fragments."""
    if len(target) > TARGET_BYTES:
        raise Refused(414, f"the target is over {TARGET_BYTES} bytes")
    path = target.partition(b"?")[0]
    if not TARGET.fullmatch(target) or b"#" in target or b"\\" in path:
        raise Refused(400, "the target is not a path of visible ASCII")
    if b"." not in path and b"%" not in path:
        return
    for _ in range(MOST_DECODINGS):
        if any(is_dots(segment) for segment in SEPARATOR.split(path)):
            raise Refused(400, "the path has dot segments, plain or encoded; send it resolved")
        decoded = unquote_to_bytes(path)
        if decoded == path:
            return
        path = decoded
    raise Refused(400, f"the path is percent-encoded over {MOST_DECODINGS} times; send it encoded once")


def is_dots(segment: bytes) -> bool:
    """Whether a server may take a segment for "." or "..": some drop what follows a semicolon, space at the end, or
    read a byte of overlong UTF-8."""
    for overlong, plain in OVERLONG:
        segment = segment.replace(overlong, plain)
    return any(part.partition(b";")[0].strip(b" \t\r\n\0") in (b".", b"..") for part in SEPARATOR.split(segment))


def check_host(host: bytes) -> bytes:
    """A Host that may go upstream and into a key. Raises Refused for what is no host (RFC 3986 section 3.2.2)."""
    if not HOST.fullmatch(host):
        raise Refused(400, f"Host {host[:80].decode('latin-1')!r} is not a name or an address with a port")
    return host


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


def upstream_fields(request: Fields, *, method: bytes, host: bytes, via: bytes, body: bool) -> Fields:
    """The fields of the request that goes upstream.

    body: whether one follows; its Content-Length is kept, and without one it goes out in chunks. A method that means
    something by its body says that there is none (RFC 9110 section 8.6). Raises Refused with 508 where the request has
    passed here before.
    """
    if any(member.split(b" ")[-1] == via for member in members_of(request, b"via")):
        raise Refused(508, "the request has come back to this cache; a route's upstream is edged itself")
    kept = [pair for pair in without_hop_by_hop(request) if pair[0] not in OURS]
    passed = b", ".join([*values_of(request, b"via"), b"1.1 " + via])
    fields = [(b"host", host), *kept, (b"via", passed)]
    length = values_of(request, b"content-length")
    if body:
        fields.append((b"content-length", length[0]) if length else (b"transfer-encoding", b"chunked"))
    elif method in BODY_METHODS or (length and method not in (b"GET", b"HEAD")):
        fields.append((b"content-length", b"0"))
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


def mapped_back(fields: Fields, origins: tuple[bytes, ...], base: bytes, prefix: bytes) -> Fields:
    """The fields of an answer with Location and Content-Location as the app knows the places they name.

    origins: how the upstream may name itself. base: the path before every target there, taken off; prefix: what a
    route has taken off, put back. Other places are left as they are.
    """
    return tuple(
        (name, mapped_place(value, origins, base, prefix) if name in PLACES else value) for name, value in fields
    )


def mapped_place(place: bytes, origins: tuple[bytes, ...], base: bytes, prefix: bytes) -> bytes:
    path = place
    for origin in origins:
        if place.lower().startswith(origin) and place[len(origin) : len(origin) + 1] in (b"", b"/", b"?", b"#"):
            path = place[len(origin) :]
            path = path if path[:1] == b"/" else b"/" + path
    if path[:1] != b"/" or path[:2] == b"//":
        return place
    if base and not under_prefix(re.split(rb"[?#]", path, maxsplit=1)[0], base):
        return place
    path = path[len(base) :]
    return prefix + (path if path[:1] == b"/" else b"/" + path)
