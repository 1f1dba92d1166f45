"""The file `time` of a data directory: how far trusted time had come, so that a restart without a clock shows nothing
again that had ended before it.

It is written seldom, as flash wears out; after a loss of power what has ended in the last WRITE_EVERY_S may be there
until the clock is set or the origin has told of a newer signature.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from edged.files import StrPath, write_durable

if TYPE_CHECKING:
    from pathlib import Path

NAME = "time"
WRITE_EVERY_S = 600.0
FORM = struct.Struct("<QI")  # whole seconds since 1970, their CRC-32


def read_used_time(path: StrPath) -> int:
    """Seconds since 1970 in the file at `path`, 0 where there is none or it is damaged."""
    try:
        with open(path, "rb") as file:
            data = file.read(FORM.size + 1)
    except OSError:  # no reason to show nothing: the signed times and the clock are there too
        return 0
    if len(data) != FORM.size or zlib.crc32(data[:8]) != FORM.unpack(data)[1]:
        return 0
    found: int = FORM.unpack(data)[0]
    return found


def write_used_time(path: Path, used_s: float) -> None:
    """Raises StoreError."""
    seconds = struct.pack("<Q", int(used_s))
    write_durable(path, seconds + struct.pack("<I", zlib.crc32(seconds)))
