"""Texts that stand beside the coded bits of a hop of many changes: bit by bit is for the first few.

They are gathered by field, in the order in which fields come first, and compressed together.
"""

from __future__ import annotations

from collections.abc import Sequence

from edged.errors import WireError
from edged.feed.coding.octets import Octets, write_counted

ASIDE_LEAST_BYTES = 6  # of a text that is written aside
TRIED_BYTES = 64  # of a field's texts are coded bit by bit before it is judged
DENSE_BITS = 3.7  # a byte: what zstd comes to as well
ASIDE_AFTER_BYTES = 2048  # of texts, which are coded bit by bit


class Aside:
    """Texts that stand beside the coded bits, by field in the order in which fields come first."""

    def __init__(self, columns: Sequence[bytes] | None = None) -> None:
        """columns: those to be read, None to write."""
        self.given = None if columns is None else list(columns)
        self.columns: dict[str, bytearray] = {}
        self.ends: dict[str, int] = {}
        self.left = ASIDE_AFTER_BYTES
        self.costs: dict[str, tuple[int, int]] = {}

    def wants(self, text: bytes, path: str) -> bool:
        """Whether a text is better written aside: bit by bit is for the first few, and where it makes short."""
        count, cost = self.costs.get(path, (0, 0))
        if len(text) < ASIDE_LEAST_BYTES or (
            self.left >= len(text) and (count < TRIED_BYTES or cost * 8 < count * DENSE_BITS)
        ):
            self.left -= len(text)
            return False
        return True

    def paid(self, path: str, count: int, cost: int) -> None:
        """Take note that so many bytes of a field's text have come to `cost` coded bytes."""
        total, spent = self.costs.get(path, (0, 0))
        self.costs[path] = total + count, spent + cost

    def text(self, new: bytes, size: int, path: str) -> bytes:
        column = self.columns.get(path)
        if column is None:
            if self.given is not None and len(self.columns) >= len(self.given):
                raise WireError(f"decode hop: no text stands aside for {path:.200}")
            column = self.columns[path] = (
                bytearray() if self.given is None else bytearray(self.given[len(self.columns)])
            )
            self.ends[path] = 0
        if self.given is None:
            column += new
            return new
        start = self.ends[path]
        self.ends[path] = start + size
        if start + size > len(column):
            raise WireError(f"decode hop: {size} bytes of text aside, {len(column) - start} are left at {path:.200}")
        return bytes(column[start : start + size])

    def pack(self) -> bytes:
        """What goes into the hop's section: the columns, each counted."""
        out = bytearray()
        for column in self.columns.values():
            write_counted(out, bytes(column))
        return bytes(out)

    def finish(self) -> None:
        """Raise WireError if texts are left over."""
        if self.given is not None and (
            len(self.columns) != len(self.given) or any(self.ends[path] != len(c) for path, c in self.columns.items())
        ):
            raise WireError("decode hop: texts aside are left over; fetch it again")


def unpack_texts(data: bytes) -> list[bytes]:
    """The columns of `Aside.pack()`. Raises WireError."""
    octets = Octets(data, "hop, texts aside")
    found = []
    while octets.at < len(data):
        found.append(octets.counted(len(data), "size of a field's texts"))
    return found
