"""Input: NDJSON files, plain, zstd or gzip, line by line into records, every bad line named.

Nothing is held but one line and one decompressed piece, whatever the size of the file.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from edged.errors import EdgedError, OriginError, ValidationError, WireError
from edged.feed import cbor, limits, zstd
from edged.feed.names import check_collection, check_key

PIECE_BYTES = 256 << 10
ZSTD_PIECE_BYTES = 512  # of input at a time: a frame of empty-looking blocks grows to 16 MB from it, not to gigabytes
LINE_BYTES = 4 * limits.VALUE_BYTES
FAULTS_KEPT = 100
GZIP_MAGIC = b"\x1f\x8b"
INPUT_WINDOW_BYTES = 1 << 27  # what `zstd --long` makes at its default
PLACE_LINES = 1 << 40  # a place is input number * PLACE_LINES + line number


@dataclass(frozen=True, slots=True)
class InputEntry:
    """One record or edit. value: canonical bytes, None deletes; place: where it was read."""

    collection: str
    key: str
    value: bytes | None
    place: int


class InputError(ValidationError):
    """Lines that cannot be published. `faults` names each (the first 100)."""

    def __init__(self, message: str, faults: tuple[str, ...]) -> None:
        super().__init__(message)
        self.faults = faults


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
            raise InputError(f"{shown}{more}; nothing was published: correct the input", tuple(self.kept))


class EditLine(msgspec.Struct, forbid_unknown_fields=True):
    """`{"collection": C, "key": K, "value": {...}}` or `{"collection": C, "key": K, "deleted": true}`."""

    collection: str
    key: str
    value: Any = msgspec.UNSET
    deleted: bool = False


class Inputs:
    """The input files of one publish. `entries()` yields what they hold; `place` numbers are named by `name_of`."""

    def __init__(
        self, names: Sequence[str], *, collection: str | None = None, key_field: str | None = None, edits: bool = False
    ) -> None:
        self.names = list(names)
        self.edits = edits
        self.faults = Faults()
        self.parse: Callable[[bytes, int, str], InputEntry] = self.parse_line
        if collection is not None and key_field is not None:
            self.collection, self.key_field = check_collection(collection), key_field
            self.parse = self.parse_plain
        self.lines_decoder = msgspec.json.Decoder(EditLine)
        self.plain_decoder = msgspec.json.Decoder(dict[str, Any])

    def name_of(self, place: int) -> str:
        number, line = divmod(place, PLACE_LINES)
        name = self.names[number]
        return f"{'standard input' if name == '-' else name}:{line}"

    def entries(self) -> Iterator[InputEntry]:
        """Every record or edit in the order of the input. Bad lines go to `faults`. Raises OriginError, InputError."""
        for number, name in enumerate(self.names):
            for line_number, line in enumerate(read_lines(name), 1):
                if not line or line.isspace():
                    continue
                place = number * PLACE_LINES + line_number
                try:
                    yield self.parse(line, place, name)
                except (msgspec.DecodeError, WireError, ValidationError, RecursionError) as fault:
                    self.faults.add(f"{self.name_of(place)}: {fault}; got {excerpt(line)}")

    def parse_line(self, line: bytes, place: int, name: str) -> InputEntry:
        item = self.lines_decoder.decode(line)
        collection, key = check_collection(item.collection), check_key(item.key)
        if item.deleted:
            if not self.edits:
                raise ValidationError("`deleted` is an edit; expected a record, or give --changes")
            if item.value is not msgspec.UNSET:
                raise ValidationError("expected either `value` or `deleted`, got both")
            return InputEntry(collection, key, None, place)
        if item.value is msgspec.UNSET:
            raise ValidationError("expected `value`" + (" or `deleted`" if self.edits else ""))
        return InputEntry(collection, key, cbor.encode_record(item.value, f"{collection}/{key}"), place)

    def parse_plain(self, line: bytes, place: int, name: str) -> InputEntry:
        item = self.plain_decoder.decode(line)
        found = item.get(self.key_field)
        if isinstance(found, int) and not isinstance(found, bool):
            found = str(found)
        key = check_key(found, f"key field {self.key_field!r}")
        if self.edits and item.get("deleted") is True and set(item) == {self.key_field, "deleted"}:
            return InputEntry(self.collection, key, None, place)
        return InputEntry(self.collection, key, cbor.encode_record(item, f"{self.collection}/{key}"), place)


class Values:
    """Records that a program hands over: (collection, key, value); with `edits` a value of None removes the record."""

    def __init__(self, records: Iterable[tuple[str, str, Any]], *, edits: bool = False) -> None:
        self.records = records
        self.edits = edits
        self.faults = Faults()

    def name_of(self, place: int) -> str:
        return f"record {place}"

    def entries(self) -> Iterator[InputEntry]:
        for place, (collection, key, value) in enumerate(self.records, 1):
            try:
                check_collection(collection)
                check_key(key)
                removed = self.edits and value is None
                data = None if removed else cbor.encode_record(value, f"{collection}/{key}")
                yield InputEntry(collection, key, data, place)
            except WireError as fault:
                self.faults.add(f"record {place}: {fault}")


def excerpt(line: bytes) -> str:
    text = line[:60].decode(errors="replace").strip()
    return repr(text + ("…" if len(line) > 60 else ""))


def read_lines(name: str) -> Iterator[bytes]:
    """The lines of a file (`-`: standard input), decompressed. Raises OriginError, InputError."""
    with ExitStack() as stack:
        if name == "-":
            file: BinaryIO = sys.stdin.buffer
        else:
            try:
                file = stack.enter_context(Path(name).open("rb"))
            except OSError as fault:
                raise OriginError(f"read {name}: {fault.strerror}; nothing was published") from fault
        try:
            yield from split_lines(pieces(file, name), name)
        except OSError as fault:
            raise OriginError(f"read {name}: {fault.strerror or fault}; nothing was published") from fault


def split_lines(source: Iterable[bytes], name: str) -> Iterator[bytes]:
    rest = b""
    for piece in source:
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        yield from lines
        if len(rest) > LINE_BYTES:
            raise refused(f"{name}: a line of more than {LINE_BYTES} bytes; expected one record a line")
    if rest:
        yield rest


def refused(text: str) -> EdgedError:
    return InputError(f"{text}; nothing was published", (text,))


def pieces(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The decompressed content, a piece at a time. What it is coded with is told by its first bytes."""
    start = file.read(PIECE_BYTES)
    if start.startswith(zstd.MAGIC):
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
