"""Sections: counted runs of bytes inside a hop or a snapshot part, each a magicless zstd frame or stored as it is.

A section begins with a varint, `content bytes * 2 + compressed`, and a compressed one goes on with the frame's length
unless it is the last.
"""

from __future__ import annotations

from edged.feed import zstd
from edged.feed.coding.octets import Octets, write_counted, write_varint


def write_section(out: bytearray, data: bytes, dictionary: bytes, level: int, *, last: bool = False) -> None:
    """Append `data` as a section, compressed where that is smaller."""
    frame = zstd.compress(data, zstd.FrameForm(level, magicless=True), dictionary)
    if len(frame) < len(data):
        write_varint(out, len(data) * 2 + 1)
        if last:
            out += frame
        else:
            write_counted(out, frame)
    else:
        write_varint(out, len(data) * 2)
        out += data


def read_section(octets: Octets, dictionary: bytes, name: str, most: int, *, last: bool = False) -> bytes:
    """The section at the cursor, of at most `most` bytes of content. Raises WireError."""
    size, compressed = divmod(octets.varint(most * 2 + 1, f"size of {name}"), 2)
    if not compressed:
        return octets.take(size)
    frame = octets.rest() if last else octets.counted(len(octets.data), f"length of {name}")
    return zstd.decompress_magicless(frame, dictionary, f"{octets.what}, {name}", size)
