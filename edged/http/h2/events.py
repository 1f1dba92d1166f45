"""What an HTTP/2 connection tells whoever answers: a closed union of events."""

from __future__ import annotations

from dataclasses import dataclass

from edged.http.h2.frames import ErrorCode
from edged.http.h2.remembered import AnswerPlace
from edged.http.head import RequestHead


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A request's head. asked: where its answer is remembered, if it may be; ended: no body comes."""

    stream_id: int
    head: RequestHead
    ended: bool
    asked: AnswerPlace | None


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """A request that is well formed and too large: it is answered with `status`, and its body is not taken."""

    stream_id: int
    status: int
    detail: str


@dataclass(frozen=True, slots=True)
class BodyReceived:
    """A piece of a body. Who has taken it says so by `H2Connection.consume`: until then the peer may send less."""

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class BodyEnded:
    """trailers: as strictly read as a head; none of them is a pseudo-field."""

    stream_id: int
    trailers: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer wants no more of a stream, or has broken a rule on it: nothing more can be sent there."""

    stream_id: int
    code: ErrorCode


@dataclass(frozen=True, slots=True)
class Drained:
    """All that was given for a stream has been taken by the connection: there is room for more."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """Nothing more is read. What is in `output` (a GOAWAY) may still be sent; every open stream was reset before."""

    code: ErrorCode
    detail: str


Event = RequestReceived | RequestRefused | BodyReceived | BodyEnded | StreamReset | Drained | ConnectionEnded
