"""How the files of a feed are reached: the interface beside its implementations (http.py, file.py, bundle.py).

A transport bounds, times and translates; it believes nothing. Whether a head or a root of trust is rightful and a blob
is what its name says is judged by whoever asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edged.errors import TransportError
from edged.feed.blob import BlobRef


@dataclass(slots=True)
class Traffic:
    """Bytes on the wire of all connections of one dataset, TLS and HTTP heads included."""

    received: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class HeadReply:
    """data: the signed head, unverified; etag: to be named in the next poll, an entity tag or what the transport knows
    the head by; carries: see events.HeadArrived."""

    data: bytes
    etag: str | None = None
    carries: frozenset[str] | None = None


class BusyOriginError(TransportError):
    """The origin asks to be left alone for `retry_after_s` seconds (Retry-After, RFC 9110 section 10.2.3)."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Transport(Protocol):
    """One origin of one dataset. Used by one task; one call at a time."""

    @property
    def name(self) -> str:
        """What the operator calls it: the URL, or the bundle's path."""
        ...

    async def head(self, after: int | None, wait_s: int, etag: str | None) -> HeadReply | None:
        """The head, at most limits.HEAD_BYTES; None if it is still the one that `etag` names or of version `after`.

        wait_s: how long the origin is asked to hold the request until there is another; 0: not at all.
        Raises TransportError, or WireError for too many bytes.
        """
        ...

    async def trust(self, number: int) -> bytes | None:
        """Root of trust `number`, at most limits.TRUST_BYTES; None if there is none. Raises as `head`."""
        ...

    async def blob(self, ref: BlobRef, what: str) -> bytes:
        """Exactly ref.size bytes, which may not be the blob. Raises TransportError, MissingError, HashError."""
        ...

    async def aclose(self) -> None: ...
