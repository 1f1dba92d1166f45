"""Sections: counted runs of bytes inside a hop or a snapshot part, each a magicless zstd frame or stored as it is.

A section begins with a varint, `content bytes * 2 + compressed`, and a compressed one goes on with the frame's length
unless it is the last. What a frame says of itself is not believed: the content's size is bounded before anything is
allocated, the window and the dictionary id are checked, and the frame has to end exactly where the section does.
"""

from __future__ import annotations

from functools import lru_cache

import zstandard

from edged.errors import WireError
from edged.feed import limits
from edged.feed.coding.octets import Octets, write_counted, write_varint

MAGICLESS = zstandard.FORMAT_ZSTD1_MAGICLESS
RLE_BLOCK = 1
SLACK_BYTES = 1024  # the least window there is: RFC 8878 section 3.1.1.1.2


@lru_cache(maxsize=4)
def prepared(dictionary: bytes) -> zstandard.ZstdCompressionDict:
    """`dictionary` as zstd takes it: with entropy tables if it has its magic number, else as raw content."""
    return zstandard.ZstdCompressionDict(dictionary)


def compress(data: bytes, dictionary: bytes, level: int) -> bytes:
    """One magicless frame that declares its content size, with neither checksum nor dictionary id."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(data),
        dict_size=len(dictionary),
        format=MAGICLESS,
        write_content_size=True,
        write_checksum=False,
        write_dict_id=False,
    )
    engine = zstandard.ZstdCompressor(
        compression_params=parameters, dict_data=prepared(dictionary) if dictionary else None
    )
    return engine.compress(data)


def frame_end(frame: bytes) -> int:
    """Where the magicless frame that begins `frame` ends, found by walking its blocks (RFC 8878 section 3.1.1).

    Returns more than len(frame) if the frame is cut short.
    """
    if not frame:
        return 1
    flags = frame[0]
    single = flags >> 5 & 1
    at = 1 + (1 - single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
    while at + 3 <= len(frame):
        block = int.from_bytes(frame[at : at + 3], "little")
        at += 3 + (1 if block >> 1 & 3 == RLE_BLOCK else block >> 3)
        if block & 1:
            return at + (4 if flags & 4 else 0)
    return len(frame) + 1


def decompress(frame: bytes, dictionary: bytes, what: str, size: int) -> bytes:
    """The content of exactly one magicless frame of exactly `size` bytes. Raises WireError naming `what`.

    The caller has bounded `size`; no more than that is ever produced.
    """
    if frame_end(frame) != len(frame):
        raise WireError(f"decompress {what}: the frame is cut short, or data follows it; fetch it again")
    try:
        declared = zstandard.get_frame_parameters(frame, format=MAGICLESS)
        if declared.content_size != size:
            raise WireError(f"decompress {what}: expected {size} bytes, the frame declares {declared.content_size}")
        if declared.window_size > max(limits.WINDOW_BYTES, SLACK_BYTES) or declared.dict_id:
            raise WireError(f"decompress {what}: window of {declared.window_size} bytes or a dictionary id")
        engine = zstandard.ZstdDecompressor(
            dict_data=prepared(dictionary) if dictionary else None,
            max_window_size=limits.WINDOW_BYTES,
            format=MAGICLESS,
        )
        with engine.stream_reader(frame) as reader:
            content = reader.read(size)
            excess = reader.read(1)
    except zstandard.ZstdError as fault:
        raise WireError(f"decompress {what}: damaged zstd frame: {fault}; fetch it again") from fault
    if len(content) != size or excess:
        raise WireError(f"decompress {what}: expected {size} bytes, the frame holds another number")
    return content


def write_section(out: bytearray, data: bytes, dictionary: bytes, level: int, *, last: bool = False) -> None:
    """Append `data` as a section, compressed where that is smaller."""
    frame = compress(data, dictionary, level)
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
    return decompress(frame, dictionary, f"{octets.what}, {name}", size)
