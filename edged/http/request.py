"""A request and its answers, of no particular HTTP version. Field names of a request are lower-case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from edged.http.dates import write_date
from edged.http.fields import Fields
from edged.http.framing import join_fields
from edged.serve.catalog import View

State = Literal["fresh", "stale", "expired"]


class Request:
    """target: as on the wire (origin-form or absolute-form); version "1.0", "1.1" or "2"; unix: by Unix socket."""

    __slots__ = ("fields", "method", "target", "unix", "values", "version")

    def __init__(self, method: str, target: bytes, fields: Fields, version: str = "1.1", unix: bool = False) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.version = version
        self.unix = unix
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


@dataclass(frozen=True, slots=True)
class Timed:
    """When the data of an answer was signed, and for how long it counts as what. Seconds."""

    as_of: int
    fresh_s: int
    expires_s: int

    @classmethod
    def of(cls, view: View) -> Timed:
        return cls(view.as_of, view.fresh_s, view.expires_s)

    def age_s(self, now: float) -> int:
        return max(0, int(now) - self.as_of)

    def state(self, now: float) -> State:
        age = self.age_s(now)
        return "fresh" if age <= self.fresh_s else "stale" if age <= self.expires_s else "expired"

    def fields(self, now: float) -> Fields:
        """The fields that change while the data does not."""
        return ((b"Edged-State", self.state(now).encode()), (b"Age", b"%d" % self.age_s(now)))


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """Fields that many answers have alike, and the same as HTTP/1.1 lines. Compared by identity."""

    fields: Fields
    lines: bytes

    @classmethod
    def of(cls, fields: Fields) -> Shared:
        return cls(fields, join_fields(fields))


NOTHING_SHARED = Shared((), b"")


@dataclass(slots=True)
class Response:
    """A whole answer. own: fields of this one, beside those of `shared`; body: what GET gets (HEAD gets its length);
    keep: a lane may remember it for this version.
    """

    status: int
    own: Fields
    body: bytes = b""
    timed: Timed | None = None
    keep: bool = False
    shared: Shared = NOTHING_SHARED

    @property
    def fields(self) -> Fields:
        return self.shared.fields + self.own


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer in pieces: `pieces` until it is exhausted; then, if `follow` is there, follow(now) at each new version
    of `dataset` or after `beat_s` without one, for as long as the client stays.
    """

    status: int
    fields: Fields
    timed: Timed
    pieces: Iterator[bytes]
    dataset: str
    follow: Callable[[], Iterator[bytes]] | None = None
    beat: bytes = b""
    beat_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Held:
    """No answer yet: ask again once `dataset` has left `version`, or after `wait_s`, and then take what comes."""

    dataset: str
    version: int
    wait_s: float


Answer = Response | Stream | Held


def moving_fields(timed: Timed | None, now: float) -> Fields:
    """What both lanes put first: the fields that depend on the time alone."""
    date = (b"Date", write_date(now))
    return (date,) if timed is None else (date, *timed.fields(now))
