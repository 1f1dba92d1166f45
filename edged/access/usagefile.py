"""The file in which use is kept: one, written whole, with a checksum; one that is damaged costs what it held alone."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cbor2
import trio

from edged.access.usage import DAY_S, HOUR_S, Count, UsageBook, Used, shown
from edged.errors import StoreError
from edged.files import read_regular, write_durable
from edged.threads import in_thread

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


class UsageKeeper:
    """The book of a running daemon, and its file below the data directory, where there is one.

    flash: by dataset, the bytes that were written to flash since the daemon began. They are put into the book and go
    into its file with it: for them alone it is written once a day, after one on which there were any, and at the end.
    """

    def __init__(self, data_dir: Path, keep_days: int, clock: Callable[[], float | None]) -> None:
        """clock: seconds since 1970, None while they are not known."""
        self.path, self.clock = data_dir / NAME, clock
        self.book = read_book(self.path, keep_days)
        self.complained = False
        self.flash: Callable[[], Mapping[str, int]] = dict
        self.flash_noted: dict[str, int] = {}
        self.flash_day: int | None = None  # the first of which what was written to flash is not in the file

    def turn(self, now_s: float | None) -> None:
        """Put down what was counted, up to `now_s`."""
        self.book.turn(now_s)
        if now_s is None:  # it is put down when the clock is right
            return
        written = dict(self.flash())
        more = sum(max(0, count - self.flash_noted.get(name, 0)) for name, count in written.items())
        self.flash_noted = written
        if more:
            self.book.note_flash(more, now_s)
            self.flash_day = int(now_s // DAY_S) if self.flash_day is None else self.flash_day

    def report(self) -> Callable[[], dict[str, Any]]:
        """What makes the document of /usage, up to now, in a thread: a year's takes a while."""
        self.turn(self.clock())
        return partial(shown, self.book.copy())

    def by_app(self) -> dict[tuple[str, str], Count]:
        """App and audience to what they were answered since the daemon began."""
        self.book.turn(self.clock())
        return self.book.by_app

    def note(self, counted: Iterable[tuple[Used, Count]]) -> None:
        """What another serving process has counted."""
        self.book.enter(counted, self.clock())

    async def run(self) -> None:
        """Put down at the end of each hour what was used in it, and write it every WRITE_EVERY_S at most."""
        while True:
            now_s = self.clock()
            await trio.sleep(WRITE_EVERY_S if now_s is None else min(HOUR_S - now_s % HOUR_S, WRITE_EVERY_S))
            now_s = self.clock()
            self.turn(None if now_s is None else now_s - 1)  # of the hour that is over
            if self.due(now_s):
                self.note_write(await in_thread(self.write, self.book.copy()))

    def close(self) -> None:
        """What was used since: nothing is counted any more."""
        self.turn(self.clock())
        if self.due(None):
            self.note_write(self.write(self.book.copy()))

    def due(self, now_s: float | None) -> bool:
        """Whether there is anything to be written, at the end where there is no now; from now on that is what comes
        later."""
        flash = self.flash_day is not None and (now_s is None or now_s // DAY_S > self.flash_day)
        changed = (self.book.changed or flash) and self.path.parent.is_dir()
        if changed:
            self.book.changed, self.flash_day = False, None
        return changed

    def write(self, book: UsageBook) -> StoreError | None:
        """In a thread, for it waits for the disk: others are answered meanwhile."""
        try:
            write_book(self.path, book)
        except StoreError as fault:
            return fault
        return None

    def note_write(self, fault: StoreError | None) -> None:
        """What could not be written is written next time, and said once."""
        if fault is not None and not self.complained:
            logger.warning("%s; use is counted on, and lost at the next start", fault)
        self.complained = fault is not None
        self.book.changed = self.book.changed or fault is not None
