"""Values as zstd frames: without magic number, with content size and checksum, and with the slice's dictionary.

The checksum (XXH64, RFC 8878 section 3.1.1) is verified inside the decompressor at every read. The magic number, the
same four bytes in each frame, stays off the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edged.feed import zstd
from edged.feed.zstd import MAGIC

SNAPSHOT_LEVEL = (
    15  # 36,516 films: 2.0 s and 7.4 MB; level 19 takes 5.1 s for 0.2 % less, level 12 0.8 s for 1.8 % more
)
HOP_LEVEL = 19
MASS_LEVEL = 12  # of hops that bring thousands of records, which devices apply at once
TYPICAL_VALUE_BYTES = 600  # what the match finder is tuned for


class Engine(Protocol):
    """What decompresses: one at a time, or one for each thread in turn."""

    @property
    def decompress(self) -> Callable[[bytes], bytes]: ...


MakeEngine = Callable[[], Engine]


class Frames:
    """Compresses and decompresses with one dictionary (b"" for none).

    share: makes of an engine for one thread what all threads may use; without it decompressing is for one thread.
    """

    def __init__(self, dictionary: bytes, share: Callable[[MakeEngine], Engine] | None = None) -> None:
        self.dictionary = dictionary
        self.prepared = zstd.prepared(dictionary)
        self.engine: Engine = share(self.make_engine) if share is not None else self.make_engine()
        self.engines: dict[int, zstd.Compressor] = {}

    def make_engine(self) -> Engine:
        engine: Engine = zstd.decompressor(self.prepared)
        return engine

    def compress(self, value: bytes, level: int = SNAPSHOT_LEVEL) -> bytes:
        """The frame to store. Not thread-safe."""
        engine = self.engines.get(level)
        if engine is None:
            form = zstd.FrameForm(level, checksum=True, typical_bytes=TYPICAL_VALUE_BYTES)
            engine = self.engines[level] = zstd.compressor(form, self.prepared)
        return engine.compress(value)[len(MAGIC) :]

    def decompress(self, frame: bytes) -> bytes:
        """The value. Raises DamagedFrame (and MemoryError, where a damaged size asks for too much)."""
        return self.engine.decompress(MAGIC + frame)
