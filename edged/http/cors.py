"""CORS (Fetch standard, section 3.2): which web pages may read the answers, and preflights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edged.errors import RequestError
from edged.http.application import Response
from edged.http.fields import Fields
from edged.http.request import Request

METHODS = b"GET, HEAD, OPTIONS"
PREFLIGHT_S = b"600"


@dataclass(frozen=True, slots=True)
class CorsRule:
    """origins: web origins that may read, exact; exposed, accepted: lists of the fields that their pages may read of an
    answer, and send.
    """

    origins: frozenset[bytes]
    exposed: bytes = b""
    accepted: bytes = b""

    @classmethod
    def of(cls, origins: Iterable[str], exposed: bytes = b"", accepted: bytes = b"") -> CorsRule:
        return cls(frozenset(origin.encode() for origin in origins), exposed, accepted)

    def fields(self, request: Request) -> Fields:
        """What lets a page of an allowed origin read the answer; nothing for any other."""
        origin = self.allowed_origin(request) if self.origins else None
        if origin is None:
            return ()
        return ((b"Access-Control-Allow-Origin", origin), (b"Access-Control-Expose-Headers", self.exposed))

    def allowed_origin(self, request: Request) -> bytes | None:
        """The Origin of a request where it is one of ours; of several none is."""
        if not self.origins:
            return None
        values = [value for name, value in request.fields if name == b"origin"]
        return values[0] if len(values) == 1 and values[0] in self.origins else None

    def admits_page(self, request: Request) -> bool:
        """Whether what asks for a WebSocket, which CORS does not hold for, is no web page, or one of an allowed
        origin, or one that this very listener served.
        """
        origins = [value.lower() for name, value in request.fields if name == b"origin"]
        if not origins:
            return True
        own = b"://" + (request.get(b"host") or "").lower().encode("latin-1")
        return len(origins) == 1 and (origins[0] in self.origins or origins[0].endswith(own))

    def options(self, request: Request) -> Response:
        """OPTIONS: a preflight of an allowed origin, or what the resource allows. Raises RequestError 403."""
        if request.get(b"access-control-request-method") is None:
            return Response(204, ((b"Allow", METHODS), (b"Cache-Control", b"no-store")))
        origin = self.allowed_origin(request)
        if origin is None:
            raise RequestError(403, "this web origin may not ask; add it to `origins` if it should")
        fields: list[tuple[bytes, bytes]] = [
            (b"Access-Control-Allow-Origin", origin),
            (b"Access-Control-Allow-Methods", METHODS),
            (b"Access-Control-Allow-Headers", self.accepted),
            (b"Access-Control-Max-Age", PREFLIGHT_S),
            (b"Vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
        ]
        if request.get(b"access-control-request-private-network") == "true":
            fields.append((b"Access-Control-Allow-Private-Network", b"true"))
        return Response(204, tuple(fields))
