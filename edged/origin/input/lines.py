"""Input files as lines: NDJSON, plain or compressed with zstd or gzip, and whatever else is named for what it is.

Nothing is held but one line and one decompressed piece, whatever the size of the file.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from edged.errors import EdgedError, OriginError, ValidationError
from edged.feed import limits, zstd

PIECE_BYTES = 256 << 10
ZSTD_PIECE_BYTES = 512  # of input at a time: a frame of empty-looking blocks grows to 16 MB from it, not to gigabytes
LINE_BYTES = 4 * limits.VALUE_BYTES
FAULTS_KEPT = 100
GZIP_MAGIC = b"\x1f\x8b"
SKIPPABLE = tuple(bytes([0x50 + number, 0x2A, 0x4D, 0x18]) for number in range(16))  # RFC 8878 section 3.1.2
INPUT_WINDOW_BYTES = 1 << 27  # what `zstd --long` makes at its default

UNPACK = "expected NDJSON, plain or compressed with zstd or gzip: unpack it first"
AS_UTF8 = "save it as UTF-8 without a byte order mark"
# What a file begins with that is no NDJSON, what it is, and what to do.
FOREIGN = (
    (b"\xfd7zXZ\0", "xz-compressed", UNPACK),
    (b"BZh", "bzip2-compressed", UNPACK),
    (b"\x04\x22\x4d\x18", "lz4-compressed", UNPACK),
    (b"LZIP", "lzip-compressed", UNPACK),
    (b"\x1f\x9d", "compressed by compress", UNPACK),
    (b"PK\x03\x04", "a zip archive", UNPACK),
    (b"PK\x05\x06", "a zip archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!", "a rar archive", UNPACK),
    (b"PAR1", "a Parquet file", "export it as NDJSON"),
    (b"Obj\x01", "an Avro file", "export it as NDJSON"),
    (b"ARROW1", "an Arrow file", "export it as NDJSON"),
    (b"SQLite format 3\0", "an SQLite database", "export it as NDJSON"),
    (b"edged bundle\n", "a bundle of edged", "take it into a replica with: edged bundle import"),
    (b"%PDF", "a PDF document", "expected NDJSON"),
    (b"\xff\xfe\0\0", "UTF-32", AS_UTF8),
    (b"\0\0\xfe\xff", "UTF-32", AS_UTF8),
    (b"\xff\xfe", "UTF-16", AS_UTF8),
    (b"\xfe\xff", "UTF-16", AS_UTF8),
    (b"\xef\xbb\xbf", "UTF-8 with a byte order mark", AS_UTF8),
)
TAR_MAGIC = b"ustar"  # at byte 257


class InputError(ValidationError):
    """Lines that cannot be published. faults: each of them (the first 100); count: how many there are."""

    def __init__(self, message: str, faults: tuple[str, ...], count: int = 1) -> None:
        super().__init__(message)
        self.faults = faults
        more = f", of which these are the first {len(faults)}" if count > len(faults) else ""
        self.summary = f"{count} faults{more}; nothing was published: correct the input"


class Faults:
    """Gathers what is wrong with the input, to name every bad line in one run."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.count = 0

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.kept) < FAULTS_KEPT:
            self.kept.append(text)

    def raise_any(self) -> None:
        """Raise InputError if there was any."""
        if self.count:
            shown = "; ".join(self.kept[:10])
            more = f"; and {self.count - 10} more" if self.count > 10 else ""
            raise InputError(f"{shown}{more}; nothing was published: correct the input", tuple(self.kept), self.count)


def shown(name: str) -> str:
    """An input's name as it can be printed anywhere; an argument need not be UTF-8."""
    if name == "-":
        return "standard input"
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def read_lines(name: str) -> Iterator[bytes]:
    """The lines of a file (`-`: standard input), decompressed. Raises OriginError, InputError."""
    with ExitStack() as stack:
        try:
            file: BinaryIO = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
            yield from split_lines(told_apart(pieces(file, shown(name)), shown(name)), shown(name))
        except (OSError, ValueError) as fault:  # ValueError: a name that no file can have, or a closed stream
            text = getattr(fault, "strerror", None) or str(fault)
            raise OriginError(f"read {shown(name)}: {text}; nothing was published") from fault


def split_lines(source: Iterable[bytes], name: str) -> Iterator[bytes]:
    rest, count = b"", 0
    for piece in source:
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        count += len(lines)
        yield from lines
        if len(rest) > LINE_BYTES:
            raise refused(f"{name}:{count + 1}: a line of more than {LINE_BYTES} bytes; expected one record a line")
    if rest:
        yield rest


def told_apart(source: Iterable[bytes], name: str) -> Iterator[bytes]:
    """The same pieces. Raises InputError where they begin with what is plainly something else than NDJSON."""
    first = True
    for piece in source:
        if first and (found := foreign(piece)) is not None:
            raise refused(f"{name}:1: is {found}")
        first = False
        yield piece


def foreign(start: bytes) -> str | None:
    """What a file that begins so is, and what to do about it; None for what may be NDJSON."""
    for magic, what, advice in FOREIGN:
        if start.startswith(magic):
            return f"{what}; {advice}"
    if start[257:262] == TAR_MAGIC:
        return f"a tar archive; {UNPACK}"
    if b"\0" in start[:4]:
        return f"UTF-16 or no text at all; {AS_UTF8}"
    line = start.split(b"\n", 1)[0].strip()
    text = start.lstrip()
    if text[:1] == b"[":
        return "a JSON array; expected one object a line, as `jq -c '.[]'` makes them"
    if text[:1] == b"<":
        return "HTML or XML; expected NDJSON: one JSON object a line"
    if line == b"{":
        return "one JSON document over several lines; expected one object a line, as `jq -c .` makes them"
    if text[:1] not in (b"{", b"") and any(mark in line for mark in (b",", b";", b"\t")):
        return "CSV or the like; expected NDJSON: one JSON object a line"
    return None


def refused(text: str) -> EdgedError:
    return InputError(f"{text}; nothing was published", (text,))


def pieces(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The decompressed content, a piece at a time. What it is coded with is told by its first bytes."""
    start = file.read(PIECE_BYTES)
    if start.startswith((zstd.MAGIC, *SKIPPABLE)):
        yield from zstd_pieces(start, file, name)
    elif start.startswith(GZIP_MAGIC):
        yield from gzip_pieces(start, file, name)
    else:
        while start:
            yield start
            start = file.read(PIECE_BYTES)


def zstd_pieces(start: bytes, file: BinaryIO, name: str) -> Iterator[bytes]:
    engine = None
    while start:
        at = 0
        while at < len(start):
            if engine is None:
                engine = zstd.decompressor(window=INPUT_WINDOW_BYTES).decompressobj()
            try:
                piece = engine.decompress(start[at : at + ZSTD_PIECE_BYTES])
            except zstd.DamagedFrame as fault:
                raise refused(f"{name}: damaged zstd frame: {fault}") from fault
            at += ZSTD_PIECE_BYTES
            if engine.eof:
                at = min(at, len(start)) - len(engine.unused_data)
                engine = None
            if piece:
                yield piece
        start = file.read(PIECE_BYTES)
    if engine is not None:
        raise refused(f"{name}: the zstd frame is cut short")


class Joined:
    """`start` and then what is left in `file`, for reading by gzip, which wants a file."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self.start, self.file = start, file

    def read(self, size: int = -1) -> bytes:
        if self.start:
            found, self.start = self.start[:size], self.start[size:]
            return found
        return self.file.read(size)


def gzip_pieces(start: bytes, file: BinaryIO, name: str) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=Joined(start, file)) as reader:  # type: ignore[call-overload]
            while piece := reader.read(PIECE_BYTES):
                yield piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
        raise refused(f"{name}: damaged gzip stream: {fault}") from fault
