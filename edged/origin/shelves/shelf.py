"""What a place for public files has to do: `head`, `trust/<n>` and `blobs/<name>` of each dataset."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from edged.feed.blob import BlobRef


class Shelf(Protocol):
    """The public files of one dataset, for the length of one operation. Everything raises StoreError.

    where: to tell people. is_final: whether a write that failed has not happened, and will not.
    """

    where: str
    is_final: bool

    def make(self) -> None:
        """Have the place for files."""

    def head(self) -> bytes | None:
        """The head that devices see, None if there is none."""

    def stage_head(self, data: bytes) -> None:
        """Bring the next head as near as can be without devices seeing it."""

    def swap_head(self) -> None:
        """Have devices see the staged head instead of the one that `head` last returned."""

    def unstage_head(self) -> None:
        """Forget the staged head."""

    def settle_head(self) -> None:
        """Make the swap durable."""

    def root(self, number: int) -> bytes | None:
        """A root of trust, None if there is none of that number."""

    def put_root(self, number: int, data: bytes) -> None:
        """Publish a root of trust."""

    def holds(self, ref: BlobRef) -> bool:
        """Whether the blob is there and whole; not where that cannot be told."""

    def read(self, ref: BlobRef) -> bytes:
        """A blob's bytes, checked. Raises HashError too."""

    def write(self, ref: BlobRef, data: bytes) -> None:
        """Put a blob there."""

    def settle_blobs(self) -> None:
        """Make what was written durable, before any head names it."""

    def names(self) -> set[str]:
        """What lies among the blobs."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete blobs as far as it goes; what stays is found by `sweep`."""

    def sweep(self, known: Collection[str], older_s: float) -> None:
        """Delete what is not `known` among the blobs and older than that: left by publishers that were killed."""

    def remove_head(self) -> None:
        """Take the head away."""

    def remove(self) -> None:
        """Take everything away."""


class Shelves(Protocol):
    """The public files of a feed. where: to tell people."""

    where: str

    def make(self) -> None:
        """Have the place for datasets."""

    def datasets(self) -> list[str]:
        """Those that have a head."""

    def of(self, dataset: str) -> Shelf:
        """The shelf of a dataset, there or not."""
