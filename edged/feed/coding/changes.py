"""What a hop says, whatever its form: records set or removed, against a version of the slice that both ends hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

Entry = tuple[str, str, bytes | None]  # collection, key, value; None deletes: a change as the codings handle it


class Lookup(Protocol):
    """The receiver's, and at publishing the publisher's, view of version A of the slice."""

    def get(self, collection: str, key: str) -> bytes | None:
        """The record's value bytes, None where there is no such record."""
        ...

    def before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        """The record of `collection` with the greatest key below `key`, in the order of their UTF-8 bytes."""
        ...

    def keys(self, collection: str) -> Iterator[str]:
        """The keys of all records of `collection`, in the order of their UTF-8 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """One record set to `value` (deterministic CBOR), or deleted where `value` is None."""

    collection: str
    key: str
    value: bytes | None


def sort_key(change: Change) -> tuple[bytes, bytes]:
    """The order of changes: by collection, then by key, as UTF-8 bytes."""
    return change.collection.encode(), change.key.encode()
