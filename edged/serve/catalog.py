"""What serving reads from: a catalog of datasets, and one consistent version of each. edged/replica implements it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from edged.errors import StoreError
from edged.feed.schema import Schema

Clock = Callable[[], float]
"""Seconds since 1970 that never fall behind the build, nor behind the last signed time seen (a box boots in 1970)."""


class SliceInfo(Protocol):
    """A slice that this device carries."""

    @property
    def version(self) -> int: ...
    @property
    def records(self) -> int: ...


class ChangedRecord(Protocol):
    """A record's newest change. value: canonical CBOR; None where it was removed."""

    @property
    def collection(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def version(self) -> int: ...


class View(Protocol):
    """One version of a dataset: whatever is read from it belongs together. Times in seconds since 1970."""

    @property
    def dataset(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def as_of(self) -> int: ...
    @property
    def fresh_s(self) -> int: ...
    @property
    def expires_s(self) -> int: ...
    @property
    def schema(self) -> Schema: ...
    @property
    def slices(self) -> Mapping[str, SliceInfo]: ...
    @property
    def collections(self) -> Mapping[str, int]: ...
    @property
    def changes_from(self) -> int: ...
    def dictionary(self, collection: str) -> tuple[bytes, bytes]: ...
    def get_raw(self, collection: str, key: str) -> bytes | None: ...
    def is_taken_down(self, collection: str, key: str) -> bool: ...
    def get_many_raw(self, collection: str, keys: Sequence[str]) -> list[bytes | None]: ...
    def scan(
        self, collection: str, *, after: str | None = None, prefix: str = "", limit: int | None = None
    ) -> Iterator[tuple[str, bytes]]: ...
    def where(
        self,
        collection: str,
        conditions: Mapping[str, Any],
        *,
        after: str | None = None,
        limit: int | None = None,
    ) -> Iterator[tuple[str, bytes]]: ...
    def search(self, collection: str, text: str, *, limit: int = 50) -> list[tuple[str, bytes]]: ...
    def changes(self, since: int) -> Iterator[ChangedRecord]: ...


class Dataset(Protocol):
    """A dataset that follows new versions. version is 0 until something was synced.

    fault: why the newest version on disk is not the one that is read; None where it is.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def fault(self) -> StoreError | None: ...
    def view(self) -> View: ...


Catalog = Mapping[str, Dataset]
