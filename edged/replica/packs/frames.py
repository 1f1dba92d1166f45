"""Values as zstd frames: without magic number, with content size and checksum, and with the slice's dictionary.

The checksum (XXH64, RFC 8878 section 3.1.1) is verified inside the decompressor at every read. The magic number, the
same four bytes in each frame, stays off the disk.
"""

from __future__ import annotations

import threading

from edged.feed import zstd
from edged.feed.zstd import MAGIC

SNAPSHOT_LEVEL = (
    15  # 36,516 films: 2.0 s and 7.4 MB; level 19 takes 5.1 s for 0.2 % less, level 12 0.8 s for 1.8 % more
)
HOP_LEVEL = 19
TYPICAL_VALUE_BYTES = 600  # what the match finder is tuned for


class Decompressor(threading.local):
    """One decompressor a thread, since it lets other threads run while it works."""

    def __init__(self, prepared: zstd.Dictionary | None) -> None:
        engine = zstd.decompressor(prepared)
        self.decompress = engine.decompress


class Frames:
    """Compresses and decompresses with one dictionary (b"" for none). Decompressing is thread-safe."""

    def __init__(self, dictionary: bytes) -> None:
        self.dictionary = dictionary
        self.prepared = zstd.prepared(dictionary)
        self.local = Decompressor(self.prepared)
        self.engines: dict[int, zstd.Compressor] = {}

    def compress(self, value: bytes, level: int = SNAPSHOT_LEVEL) -> bytes:
        """The frame to store. Not thread-safe."""
        engine = self.engines.get(level)
        if engine is None:
            form = zstd.FrameForm(level, checksum=True, typical_bytes=TYPICAL_VALUE_BYTES)
            engine = self.engines[level] = zstd.compressor(form, self.prepared)
        return engine.compress(value)[len(MAGIC) :]

    def decompress(self, frame: bytes) -> bytes:
        """The value. Raises DamagedFrame (and MemoryError, where a damaged size asks for too much)."""
        return self.local.decompress(MAGIC + frame)
