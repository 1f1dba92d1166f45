"""What a browser is allowed: the Host allowlist against DNS rebinding, and CORS for the configured origins alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edged.errors import RequestError
from edged.http.fields import Fields
from edged.http.request import Request, Response

METHODS = b"GET, HEAD, OPTIONS"
EXPOSED = b"ETag, Link, Age, Edged-Version, Edged-State, Retry-After, Cache-Status"
ASKABLE = b"Accept, Authorization, If-None-Match, Last-Event-ID"
PREFLIGHT_S = b"600"


@dataclass(frozen=True, slots=True)
class Web:
    """hosts: Host values that are answered, lower-case, with a port only where just that one is meant; origins: web
    origins allowed to read, exact.
    """

    hosts: frozenset[str]
    origins: frozenset[bytes]

    @classmethod
    def of(cls, hosts: Collection[str], origins: Collection[str]) -> Web:
        return cls(frozenset(host.lower() for host in hosts), frozenset(origin.encode() for origin in origins))

    @property
    def vary(self) -> bytes:
        return b"Accept, Accept-Encoding, Origin" if self.origins else b"Accept, Accept-Encoding"

    def check_host(self, request: Request, authority: str | None) -> None:
        """Raises RequestError 421. authority: of an absolute-form target, which goes before Host (RFC 9112 3.2.2).

        A Unix socket is exempt: no name leads a browser there. So is HTTP/1.0 without Host, which no browser speaks.
        """
        if request.unix:
            return
        host = request.get(b"host") if authority is None else authority
        if host is None and request.version == "1.0":
            return
        if host is None or not self.knows(host.lower()):
            raise RequestError(421, f"Host {host!r:.200} is not answered here; add it to `hosts` if it should be")

    def admits(self, request: Request) -> bool:
        """Whether a request in origin form passes `check_host`."""
        try:
            self.check_host(request, None)
        except RequestError:
            return False
        return True

    def knows(self, host: str) -> bool:
        if host in self.hosts:
            return True
        name, colon, port = host.rpartition(":")
        if colon and (not port or (port.isascii() and port.isdigit())):
            host = name  # a port may be empty (RFC 3986 section 3.2.3)
        return host.removesuffix(".") in self.hosts

    def admits_page(self, request: Request) -> bool:
        """Whether what asks is no web page, or one of an allowed origin, or one that this very listener served."""
        origins = [value.lower() for name, value in request.fields if name == b"origin"]
        if not origins:
            return True
        own = b"://" + (request.get(b"host") or "").lower().encode("latin-1")
        return len(origins) == 1 and (origins[0] in self.origins or origins[0].endswith(own))

    def cors(self, request: Request) -> Fields:
        """The fields that let a page of an allowed origin read the answer; none for any other."""
        origin = self.allowed_origin(request)
        if origin is None:
            return ()
        return ((b"Access-Control-Allow-Origin", origin), (b"Access-Control-Expose-Headers", EXPOSED))

    def allowed_origin(self, request: Request) -> bytes | None:
        if not self.origins:
            return None
        values = [value for name, value in request.fields if name == b"origin"]
        return values[0] if len(values) == 1 and values[0] in self.origins else None

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
            (b"Access-Control-Allow-Headers", ASKABLE),
            (b"Access-Control-Max-Age", PREFLIGHT_S),
            (b"Vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
        ]
        if request.get(b"access-control-request-private-network") == "true":
            fields.append((b"Access-Control-Allow-Private-Network", b"true"))
        return Response(204, tuple(fields))
