"""A request of no particular HTTP version, and the parts of its target: percent-decoded once and strictly."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from edged.access.identity import LOCAL, Identity, Peer
from edged.errors import RequestError
from edged.http.fields import Fields

NOBODY = Peer(False, "")

BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
ABSOLUTE = re.compile(rb"https?://([^/?#]*)(/[^?]*)?(\?.*)?", re.IGNORECASE)


class Request:
    """target: as on the wire (origin-form or absolute-form); fields: with lower-case names; version "1.0", "1.1" or
    "2"; peer: the other end of the connection; who: whom the application takes it for; body: whether one follows.
    """

    __slots__ = ("body", "fields", "method", "peer", "target", "values", "version", "who")

    def __init__(
        self,
        method: str,
        target: bytes,
        fields: Fields,
        version: str = "1.1",
        peer: Peer = NOBODY,
        who: Identity = LOCAL,
    ) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.version = version
        self.peer = peer
        self.who = who
        self.body = False
        self.values = dict(fields)
        if len(self.values) != len(fields):  # several lines of one name are a list (RFC 9110 section 5.2)
            joined: dict[bytes, list[bytes]] = {}
            for name, value in fields:
                joined.setdefault(name, []).append(value)
            self.values = {name: b", ".join(several) for name, several in joined.items()}

    def get(self, name: bytes) -> str | None:
        """A field's value; None where it is absent."""
        value = self.values.get(name)
        return None if value is None else value.decode("latin-1")


def split_target(target: bytes) -> tuple[str | None, bytes, bytes]:
    """The authority of an absolute-form target (None in origin-form), the path and the query, still encoded.

    Raises RequestError 400 for any other form, and for a fragment, which is never sent (RFC 9112 section 3.2).
    """
    if b"#" in target:
        raise RequestError(400, f"request target {target[:80]!r}: expected no fragment; write # as %23")
    if is_origin_form(target):
        path, _, query = target.partition(b"?")
        return None, path, query
    match = ABSOLUTE.fullmatch(target)
    if match is None:
        raise RequestError(400, f"request target {target[:80]!r}: expected a path beginning with /")
    return match[1].decode("ascii", "replace"), match[2] or b"/", (match[3] or b"?")[1:]


def is_origin_form(target: bytes) -> bool:
    """Whether a target is a path, with or without a query (RFC 9112 section 3.2.1)."""
    return target[:1] == b"/"


def decode(text: bytes, what: str) -> str:
    """Percent-decoded UTF-8 (RFC 3986 section 2.1). Raises RequestError 400 naming `what`."""
    if b"%" in text:
        if BROKEN_ESCAPE.search(text):
            raise RequestError(400, f"{what}: a % that two hexadecimal digits do not follow; write it as %25")
        text = unquote_to_bytes(text)
    try:
        return text.decode()
    except UnicodeDecodeError as fault:
        raise RequestError(400, f"{what}: not UTF-8 after percent-decoding") from fault


def split_query(query: bytes) -> list[tuple[str, bytes]]:
    """Parameters in order: the name decoded, the value still encoded but with `+` already a space.

    A literal plus is %2B, as browsers write it.
    """
    parameters = []
    for pair in query.split(b"&"):
        if pair:
            name, _, value = pair.replace(b"+", b"%20").partition(b"=")
            parameters.append((decode(name, "query parameter name"), value))
    return parameters


def encode(text: str) -> str:
    """`text` percent-encoded for a path segment or a query value; keys keep their slashes readable."""
    return quote(text, safe="/~-._")
