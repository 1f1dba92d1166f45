"""Problem documents (RFC 9457): the one form of every error that edged answers, whoever answers."""

from __future__ import annotations

import msgspec

from edged.http.fields import Fields
from edged.http.framing import reason_of

MEDIA = b"application/problem+json"
NO_STORE = b"no-store"


def problem_body(status: int, detail: str) -> bytes:
    """The document. detail: what is wrong with this very request, and what to do."""
    return msgspec.json.encode({"type": "about:blank", "title": reason_of(status), "status": status, "detail": detail})


def problem_fields(body: bytes, cache: bytes = NO_STORE) -> Fields:
    """The fields of a document's answer. cache: its Cache-Control."""
    return ((b"Content-Type", MEDIA), (b"Cache-Control", cache), (b"Content-Length", b"%d" % len(body)))


def make_problem(status: int, detail: str, cache: bytes = NO_STORE) -> tuple[Fields, bytes]:
    """Fields and body of an error."""
    body = problem_body(status, detail)
    return problem_fields(body, cache), body
