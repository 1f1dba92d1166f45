"""The error tree: root, group, leaf. The group says what is to be done, the exit code and the HTTP status.

Content faults (WireError, TrustError, ChainError) and transport faults (TransportError) share no parent below the
root, so that nothing which retries a broken connection can ever retry a bad signature.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

Recovery = Literal["stop", "retry", "reject", "repair", "hold"]


class EdgedError(Exception):
    """Root. `str()` is one line: what was done to which object, where, what was expected, got, and what to do.

    recovery: stop (a person must act) · retry (later, with backoff) · reject (this input, for good) ·
    repair (fetch the slice's snapshot) · hold (keep serving the last good version and say so).
    """

    recovery: ClassVar[Recovery] = "stop"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500


class ConfigError(EdgedError):
    """Configuration or usage is wrong. `faults` holds every fault, each with its line and the fix."""

    recovery: ClassVar[Recovery] = "stop"
    exit_code = 2

    def __init__(self, message: str, faults: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults or (message,)


class OriginError(EdgedError):
    """Publishing failed; the feed is as it was before."""

    recovery: ClassVar[Recovery] = "stop"
    exit_code = 1


class ValidationError(OriginError):
    """The content to publish breaks a rule of `<dataset>.toml` or of the data model."""

    recovery: ClassVar[Recovery] = "reject"
    exit_code = 3


class TransportError(EdgedError):
    """The origin could not be reached, or the answer did not arrive whole. Says nothing about the content."""

    recovery: ClassVar[Recovery] = "retry"
    exit_code = 1
    http_status = 502


class MissingError(TransportError):
    """The origin answers, and does not have the thing asked for."""


class WireError(EdgedError):
    """Bytes that do not have the form they should: malformed, over a limit, of an unknown format number."""

    recovery: ClassVar[Recovery] = "reject"
    exit_code = 3
    http_status = 502


class HashError(WireError):
    """A blob is not what its name says: wrong size or wrong SHA-256."""

    recovery: ClassVar[Recovery] = (
        "retry"  # a relay or a proxy on the way may have damaged it; the origin may still have it whole
    )


class TrustError(EdgedError):
    """A signature, key, root of trust, version or signed time is not acceptable."""

    recovery: ClassVar[Recovery] = "hold"
    exit_code = 3
    http_status = 502


class UnknownKeyError(TrustError):
    """Signed by a key that the root of trust at hand does not name; a newer root may."""


class NewerRootError(TrustError):
    """Cannot be judged by the root of trust at hand, which is outdated, lost in part, or expired; a newer one may."""


class ChainError(EdgedError):
    """The state after applying is not the one that was signed, or no path leads to the wanted version."""

    recovery: ClassVar[Recovery] = "repair"
    exit_code = 3
    http_status = 502


class StoreError(EdgedError):
    """The replica or the publisher's state on disk cannot be read or written."""

    recovery: ClassVar[Recovery] = "stop"
    exit_code = 1
    http_status = 503


class BusyError(StoreError):
    """Another process holds the lock that this operation needs."""


class DamageError(StoreError):
    """A file of the replica is not what its checksum says; only its slice is fetched again.

    slice_name: whose file it is; "" where it is not the file of one slice.
    """

    recovery: ClassVar[Recovery] = "repair"
    exit_code = 3
    slice_name = ""


class QueryError(EdgedError):
    """A question about records that cannot be answered as it is put: of a field without an index, say."""

    recovery: ClassVar[Recovery] = "reject"
    exit_code = 2
    http_status = 400


class RequestError(EdgedError):
    """A request that cannot be answered as asked; `status` becomes the problem's HTTP status."""

    recovery: ClassVar[Recovery] = "reject"

    def __init__(self, status: int, detail: str, *, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise the EdgedError or OSError that ended a nursery by itself, out of the groups that trio wraps it in."""
    try:
        yield
    except BaseExceptionGroup as group:
        errors, others = group.split((EdgedError, OSError))
        if errors is None or others is not None:
            raise
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from error.__cause__
