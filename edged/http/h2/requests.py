"""Decoded fields to a request or to trailers, by the rules of RFC 9113 section 8: strictly, as `http.head` reads lines.

A malformed message ends its stream and nothing else (section 8.1.1).
"""

from __future__ import annotations

import re

from edged.http.fields import NOT_IN_TRAILERS
from edged.http.h2.fieldblocks import OF_CONNECTIONS, Field
from edged.http.head import RequestHead

NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # a token without capitals (section 8.2)
METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
PATH = re.compile(rb"/[!-~]*")  # a fragment is refused with an answer, by whoever answers
SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*")
AUTHORITY = re.compile(rb"[!\x22$-.0->A-~]*")  # nothing of a path, a query or a fragment, and nobody's password
PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
MOST_DIGITS = 18


class MalformedMessage(Exception):
    """A message that breaks a rule of RFC 9113 section 8; in its words, what."""


def read_request(fields: tuple[Field, ...], *, ended: bool) -> RequestHead:
    """The head of a request as one of HTTP/1.1 would say it, with `:authority` as Host (section 8.3.1), Cookie in one
    line (section 8.2.3), and method CONNECT with its authority as target. ended: no body follows.

    Raises MalformedMessage.
    """
    pseudo: dict[bytes, bytes] = {}
    regular: list[Field] = []
    lengths = expects = cookies = 0
    for name, value in fields:
        if name[:1] == b":":
            if name not in PSEUDO:
                raise MalformedMessage(f"{shown(name)}: no pseudo-field of a request")
            if regular:
                raise MalformedMessage(f"{shown(name)}: a pseudo-field behind another field")
            if name in pseudo:
                raise MalformedMessage(f"{shown(name)}: expected once")
            pseudo[name] = value
            continue
        check_field(name, value)
        if name == b"content-length":
            lengths += 1
            if not value.isdigit() or len(value) > MOST_DIGITS:
                raise MalformedMessage("content-length: expected one number of at most 18 digits")
            if ended and value.strip(b"0"):
                raise MalformedMessage("content-length: a body is announced, and the stream has ended")
        elif name == b"expect":
            expects += 1
        elif name == b"cookie":
            cookies += 1
        regular.append((name, value))
    if lengths > 1:
        raise MalformedMessage("content-length: expected once")
    if cookies > 1:
        regular = join_cookies(regular)
    method, target = read_target(pseudo)
    regular = with_host(regular, pseudo.get(b":authority"))
    return RequestHead(method, target, "2", regular, not ended, expects > 0, True)


def read_target(pseudo: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """Method and target (section 8.3.1; of CONNECT: section 8.5)."""
    method = pseudo.get(b":method", b"")
    if not METHOD.fullmatch(method):
        raise MalformedMessage(":method: expected one token")
    if method == b"CONNECT":
        authority = pseudo.get(b":authority", b"")
        if not authority or b":scheme" in pseudo or b":path" in pseudo:
            raise MalformedMessage("CONNECT: expected :authority, and neither :scheme nor :path")
        return method, authority
    if not SCHEME.fullmatch(pseudo.get(b":scheme", b"")):
        raise MalformedMessage(":scheme: expected one")
    path = pseudo.get(b":path", b"")
    if not PATH.fullmatch(path) and not (path == b"*" and method == b"OPTIONS"):
        raise MalformedMessage(f":path: expected one that begins with / and is of visible ASCII, got {shown(path)}")
    return method, path


def with_host(fields: list[Field], authority: bytes | None) -> list[Field]:
    """`fields` with Host first, from `:authority` where that is given."""
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1:
        raise MalformedMessage(f"host: expected at most one, got {len(hosts)}")
    if authority is None:
        return fields
    if not authority or not AUTHORITY.fullmatch(authority):
        raise MalformedMessage(f":authority: expected HOST or HOST:PORT, got {shown(authority)}")
    if hosts and hosts[0].lower() != authority.lower():
        raise MalformedMessage("host: another one than :authority")
    return [(b"host", authority), *(field for field in fields if field[0] != b"host")]


def check_field(name: bytes, value: bytes) -> None:
    """Raises MalformedMessage for a field that HTTP/2 does not carry (sections 8.2.1 and 8.2.2)."""
    if not NAME.fullmatch(name):
        raise MalformedMessage(f"field {shown(name)}: expected a token of lower-case letters")
    if not VALUE.fullmatch(value):
        raise MalformedMessage(f"field {shown(name)}: expected visible text without spaces around it")
    if name in OF_CONNECTIONS:
        raise MalformedMessage(f"field {shown(name)}: it speaks of a connection of HTTP/1.1")
    if name == b"te" and value.lower() != b"trailers":
        raise MalformedMessage("field te: expected trailers alone")


def join_cookies(fields: list[Field]) -> list[Field]:
    """Cookie may come in pieces, and is one line for whoever answers (section 8.2.3)."""
    joined = b"; ".join([value for name, value in fields if name == b"cookie"])
    return [*(field for field in fields if field[0] != b"cookie"), (b"cookie", joined)]


def read_trailers(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """Trailers, as strictly as a head (section 8.1). Raises MalformedMessage."""
    for name, value in fields:
        if name[:1] == b":":
            raise MalformedMessage(f"{shown(name)}: a pseudo-field in trailers")
        check_field(name, value)
        if name in NOT_IN_TRAILERS:
            raise MalformedMessage(f"{shown(name)}: expected before the body, not in trailers")
    return fields


def announced_length(head: RequestHead) -> int | None:
    """What Content-Length says; None where there is none."""
    return next((int(value) for name, value in head.fields if name == b"content-length"), None)


def shown(value: bytes) -> str:
    """What was got, short and printable."""
    return ascii(value[:40].decode("latin-1"))
