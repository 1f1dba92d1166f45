"""What a view gives: slices, records that changed, matches of questions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from edged.errors import QueryError

if TYPE_CHECKING:
    from edged.replica.layers import search
    from edged.replica.layers.question import Question


class SliceInfo(NamedTuple):
    """version: at which the slice's content last changed; records: live ones; damaged: why it cannot be read."""

    version: int
    records: int
    packs: int
    disk_bytes: int
    damaged: str | None


class ChangedRecord(NamedTuple):
    """A record as it is now; value: CBOR bytes, None where it is not there; version: that of its last change, of one
    that came or went by time the view's."""

    collection: str
    key: str
    value: bytes | None
    version: int


class Match(NamedTuple):
    """A record that answers a question. term: by which it is ordered, None where it lacks the field or goes by key;
    position: how many came before it, of the best first.
    """

    key: str
    value: bytes
    term: bytes | None = None
    position: int = 0

    def cursor(self, question: Question) -> str:
        """From where the next page of a question goes on."""
        from edged.replica.layers.question import Cursor, write_cursor  # here, so that gets and lists do not load it

        return write_cursor(Cursor(self.term, self.key, self.position), question)


class Group(NamedTuple):
    """The matches that hold one value of an indexed field. cursor: from where the next page goes on, of groups."""

    value: Any
    matches: list[Match]
    cursor: str


def numbered(found: Iterator[search.Ranked]) -> Iterator[Match]:
    """Each record once, with how many came before it; slices may share some."""
    seen: set[str] = set()
    for _, (_, key, value) in found:
        if key not in seen:
            seen.add(key)
            yield Match(key, value, position=len(seen) - 1)


def begin_of(after: str | None, prefix: str) -> str:
    """The key from which a scan has to begin. Raises QueryError for text that cannot begin a key."""
    begin = max(after or "", prefix)
    try:
        begin.encode()
    except UnicodeEncodeError as fault:
        raise QueryError("after or prefix holds an unpaired surrogate") from fault
    return begin
