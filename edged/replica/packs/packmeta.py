"""The section `meta` of a pack: what it says of itself. Specification: docs/replica.md."""

from __future__ import annotations

from typing import Any, NamedTuple

from edged.errors import DamageError, WireError
from edged.feed import cbor
from edged.feed.names import check_name

FORMAT = 1


class CollectionSpan(NamedTuple):
    """A collection's entries in a pack: places `low` to `high`, `deleted` of them being tombstones."""

    low: int
    high: int
    deleted: int


class Meta(NamedTuple):
    """What a pack says of itself. versions: lowest and highest; state: the LtHash sum, of a snapshot's part only.

    remotes: files that entries point into, each with the SHA-256 of the dictionary (b"" for none) of its frames.
    """

    slice_name: str
    dictionary: bytes
    entries: int
    spans: dict[str, CollectionSpan]
    versions: tuple[int, int]
    state: bytes = b""
    remotes: tuple[tuple[int, bytes], ...] = ()

    def spans_deleted(self) -> int:
        """How many entries are tombstones."""
        return sum(span.deleted for span in self.spans.values())

    def to_cbor(self) -> dict[int, Any]:
        return {
            1: self.slice_name,
            2: self.dictionary,
            3: self.entries,
            4: [[name, span.low, span.high, span.deleted] for name, span in self.spans.items()],
            5: list(self.versions),
            6: self.state,
            7: [list(remote) for remote in self.remotes],
        }

    @classmethod
    def from_cbor(cls, item: object, where: str) -> Meta:
        match item:
            case {
                1: str() as slice_name,
                2: bytes() as dictionary,
                3: int() as count,
                4: list() as spans,
                5: [int() as low, int() as high],
                6: bytes() as state,
                7: list() as remotes,
            }:
                return cls(
                    check_name(slice_name, "slice"),
                    dictionary,
                    count,
                    {name: CollectionSpan(first, last, deleted) for name, first, last, deleted in spans},
                    (low, high),
                    state,
                    tuple((number, sha256) for number, sha256 in remotes),
                )
        raise DamageError(f"open pack {where}: its description is not of format {FORMAT}; fetch the slice again")


EMPTY_SPAN = CollectionSpan(0, 0, 0)
UNREAD = Meta("", b"", 0, {}, (0, 0))


def read_meta(data: bytes, file: str) -> Meta:
    try:
        return Meta.from_cbor(cbor.decode(data, f"pack {file}", depth=6), file)
    except (WireError, ValueError, TypeError) as fault:
        raise DamageError(f"read {file}: its description cannot be decoded: {fault}; fetch its slice again") from fault
