"""The file in which use is kept: one, written whole, with a checksum; one that is damaged costs what it held alone."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cbor2
import trio

from edged.access.usage import HOUR_S, Count, UsageBook, Used, shown
from edged.errors import StoreError
from edged.files import read_regular, write_durable

logger = logging.getLogger("edged.access")

MAGIC = b"edged usage 1\n"
FILE_BYTES = 2 << 20
PLAIN_BYTES = 64 << 20
WRITE_EVERY_S = 900.0
NAME = ".usage"  # below the data directory; no dataset's name begins with a dot


def encode_book(book: UsageBook) -> bytes:
    """At most FILE_BYTES: where it would be more, the oldest go."""
    while True:
        body = zlib.compress(cbor2.dumps(book.document()), 6)
        data = MAGIC + zlib.crc32(body).to_bytes(4, "big") + body
        if len(data) <= FILE_BYTES or not (book.hours or book.days):
            return data
        for rows in (book.hours, book.days):
            for number in sorted(rows)[: len(rows) // 4 + 1]:
                del rows[number]


def decode_book(data: bytes, keep_days: int) -> UsageBook:
    """Raises ValueError for what is damaged."""
    begin = len(MAGIC) + 4
    body = data[begin:]
    if not data.startswith(MAGIC) or zlib.crc32(body).to_bytes(4, "big") != data[len(MAGIC) : begin]:
        raise ValueError("not a file of use, or damaged")
    unpacking = zlib.decompressobj()
    try:
        plain = unpacking.decompress(body, PLAIN_BYTES)
        if not unpacking.eof:
            raise ValueError("larger than it may be")
        document: Any = cbor2.loads(plain)
        book = UsageBook(keep_days)
        book.load(document)
    except (zlib.error, cbor2.CBORError, TypeError, KeyError, IndexError, RecursionError) as fault:
        raise ValueError(f"cannot be decoded: {fault}") from fault
    return book


def read_book(path: Path, keep_days: int) -> UsageBook:
    """What was kept; nothing where there is no file, or it is damaged, which is said in the log."""
    try:
        return decode_book(read_regular(path, FILE_BYTES), keep_days)
    except FileNotFoundError:
        return UsageBook(keep_days)
    except (OSError, ValueError) as fault:
        logger.warning("read %s: %s; use is counted from now on", path, fault)
        return UsageBook(keep_days)


def write_book(path: Path, book: UsageBook) -> None:
    """Raises StoreError."""
    write_durable(path, encode_book(book), 0o600)
    book.changed = False


class UsageKeeper:
    """The book of a running daemon, and its file below the data directory, where there is one."""

    def __init__(self, data_dir: Path, keep_days: int, clock: Callable[[], float]) -> None:
        self.path, self.clock = data_dir / NAME, clock
        self.book = read_book(self.path, keep_days)
        self.complained = False

    def document(self) -> dict[str, Any]:
        """The document of /usage, up to now."""
        self.book.turn(self.clock())
        return shown(self.book)

    def note(self, counted: Iterable[tuple[Used, Count]]) -> None:
        """What another serving process has counted."""
        self.book.enter(counted, self.clock())

    async def run(self) -> None:
        """Put down at the end of each hour what was used in it, and write it every WRITE_EVERY_S at most."""
        while True:
            await trio.sleep(min(HOUR_S - self.clock() % HOUR_S, WRITE_EVERY_S))
            self.book.turn(self.clock() - 1)  # of the hour that is over
            self.write()

    def close(self) -> None:
        """What was used since: nothing is counted any more."""
        self.book.turn(self.clock())
        self.write()

    def write(self) -> None:
        """What has changed. A fault is said once."""
        if not self.book.changed or not self.path.parent.is_dir():
            return
        try:
            write_book(self.path, self.book)
        except StoreError as fault:
            if not self.complained:
                logger.warning("%s; use is counted on, and lost at the next start", fault)
            self.complained = True
        else:
            self.complained = False
