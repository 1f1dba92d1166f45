"""Values as zstd frames: without magic number, with content size and checksum, and with the slice's dictionary.

The checksum (XXH64, RFC 8878 section 3.1.1) is verified inside the decompressor at every read. The magic number, the
same four bytes in each frame, stays off the disk.
"""

from __future__ import annotations

import threading

import zstandard

from edged.feed import limits

MAGIC = b"\x28\xb5\x2f\xfd"
SNAPSHOT_LEVEL = (
    15  # 36,516 films: 2.0 s and 7.4 MB; level 19 takes 5.1 s for 0.2 % less, level 12 0.8 s for 1.8 % more
)
HOP_LEVEL = 19
TYPICAL_VALUE_BYTES = 600  # what the match finder is tuned for

DamagedFrame = zstandard.ZstdError


class Decompressor(threading.local):
    """One decompressor a thread, since it lets other threads run while it works."""

    def __init__(self, prepared: zstandard.ZstdCompressionDict | None) -> None:
        engine = zstandard.ZstdDecompressor(dict_data=prepared, max_window_size=limits.WINDOW_BYTES)
        self.decompress = engine.decompress


class Frames:
    """Compresses and decompresses with one dictionary (b"" for none). Decompressing is thread-safe."""

    def __init__(self, dictionary: bytes) -> None:
        self.dictionary = dictionary
        self.prepared = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
        self.local = Decompressor(self.prepared)
        self.engines: dict[int, zstandard.ZstdCompressor] = {}

    def compress(self, value: bytes, level: int = SNAPSHOT_LEVEL) -> bytes:
        """The frame to store. Not thread-safe."""
        engine = self.engines.get(level)
        if engine is None:
            parameters = zstandard.ZstdCompressionParameters.from_level(
                level,
                source_size=TYPICAL_VALUE_BYTES,
                dict_size=len(self.dictionary),
                write_content_size=True,
                write_checksum=True,
                write_dict_id=False,
            )
            engine = zstandard.ZstdCompressor(compression_params=parameters, dict_data=self.prepared)
            self.engines[level] = engine
        return engine.compress(value)[len(MAGIC) :]

    def decompress(self, frame: bytes) -> bytes:
        """The value. Raises DamagedFrame (and MemoryError, where a damaged size asks for too much)."""
        return self.local.decompress(MAGIC + frame)
