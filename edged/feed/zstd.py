"""zstd frames (RFC 8878) from strangers, decompressed within limits.

python-zstandard ignores `max_output_size` where the frame declares its size, and ignores data after the frame, so
the header is read first and the end is checked.
"""

from __future__ import annotations

import zstandard

from edged.errors import WireError
from edged.feed import limits


def compress(data: bytes, level: int = 19) -> bytes:
    """One frame that declares its content size, without checksum (what we name by hash needs none)."""
    return zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False).compress(data)


def decompress(data: bytes, what: str, max_bytes: int) -> bytes:
    """The content of exactly one frame of at most `max_bytes`. Raises WireError naming `what`."""
    try:
        frame = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError as fault:
        raise WireError(f"decompress {what}: not a zstd frame: {fault}") from fault
    if frame.content_size > max_bytes:  # covers "unknown", which is the largest 64-bit number
        raise WireError(
            f"decompress {what}: the frame declares {frame.content_size} bytes, at most {max_bytes} are allowed"
        )
    if frame.window_size > max(limits.WINDOW_BYTES, 1024):
        raise WireError(f"decompress {what}: the frame wants a window of {frame.window_size} bytes")
    if frame.dict_id:
        raise WireError(f"decompress {what}: the frame wants dictionary {frame.dict_id}, none is used here")
    engine = zstandard.ZstdDecompressor(max_window_size=limits.WINDOW_BYTES).decompressobj()
    try:
        content = engine.decompress(data)
    except zstandard.ZstdError as fault:
        raise WireError(f"decompress {what}: damaged zstd frame: {fault}") from fault
    if not engine.eof or engine.unused_data:
        raise WireError(f"decompress {what}: the zstd frame is cut short, or data follows it")
    if len(content) != frame.content_size:
        raise WireError(f"decompress {what}: declared {frame.content_size} bytes, held {len(content)}")
    return content
