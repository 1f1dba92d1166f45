"""The store as another process sees it: what lies there, and dropping some of it beside a running daemon."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edged.errors import DamageError, StoreError
from edged.proxy.store.disk import NAME
from edged.proxy.store.record import RESPONSE, decode_entry, unseal
from edged.proxy.store.store import DATABASE, PURGED

BATCH = 200


@dataclass(frozen=True, slots=True)
class Item:
    """One stored response."""

    key: bytes
    url: str
    status: int
    size: int
    lifetime_s: int
    groups: tuple[str, ...]
    private: bool
    vary: tuple[str, ...]

    def describe(self) -> dict[str, object]:
        return {
            "url": self.url,
            "status": self.status,
            "bytes": self.size,
            "fresh_s": self.lifetime_s,
            "groups": list(self.groups),
            "private": self.private,
            "vary": list(self.vary),
        }


class Inventory:
    """Opens the database beside the daemon. Raises StoreError where it cannot be read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self.database = sqlite3.connect(directory / DATABASE, timeout=10, isolation_level=None)
        except sqlite3.Error as fault:
            raise StoreError(f"open {directory / DATABASE}: {fault}; is it the proxy's directory?") from fault

    def __enter__(self) -> Inventory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.close()

    def rows(self) -> Iterator[tuple[int, bytes, bytes, str | None]]:
        """Row number, key, sealed head and file, in short reads: a long one would keep the daemon's log from ending."""
        last = 0
        query = "SELECT rowid, key, value, filename FROM Cache WHERE rowid > ? ORDER BY rowid LIMIT ?"
        while True:
            try:
                rows = self.database.execute(query, (last, BATCH)).fetchall()
            except sqlite3.Error as fault:
                raise StoreError(
                    f"read {self.directory / DATABASE}: {fault}; the daemon mends it on its next start"
                ) from fault
            if not rows:
                return
            yield from rows
            last = rows[-1][0]

    def items(self) -> Iterator[Item]:
        """Every stored response that can be read, the first stored first."""
        for _, key, value, _ in self.rows():
            item = read_item(key, value)
            if item is not None:
                yield item

    def purge(self, wanted: Callable[[Item], bool]) -> int:
        """Drop what is wanted; tell a running daemon. Returns how many. Damaged rows go too."""
        gone: list[tuple[int, str | None]] = []
        count = 0
        for row, key, value, filename in self.rows():
            if type(key) is not bytes or key[:1] != RESPONSE:
                continue
            item = read_item(key, value)
            if item is None or wanted(item):
                gone.append((row, filename))
                count += item is not None
        try:
            for start in range(0, len(gone), BATCH):
                self.database.execute("BEGIN IMMEDIATE")
                self.database.executemany(
                    "DELETE FROM Cache WHERE rowid = ?", [(row,) for row, _ in gone[start : start + BATCH]]
                )
                self.database.execute("COMMIT")
        except sqlite3.Error as fault:
            raise StoreError(f"purge {self.directory / DATABASE}: {fault}; try again") from fault
        # The files go when the daemon next opens its store, or now: their rows are gone either way.
        for _, filename in gone:
            self.remove(filename)
        self.mark()
        return count

    def remove(self, filename: str | None) -> None:

        if filename is not None and NAME.fullmatch(filename):
            (self.directory / filename).unlink(missing_ok=True)

    def mark(self) -> None:
        """Change the mark that the daemon looks at each second."""
        path = self.directory / PURGED
        path.touch(mode=0o600)
        now = time.time_ns()
        os.utime(path, ns=(now, max(now, path.stat().st_mtime_ns + 1)))


def read_item(key: bytes, value: bytes) -> Item | None:
    """The item of a row; None for rows of other kinds, and for damaged ones."""
    if type(key) is not bytes or type(value) is not bytes or key[:1] != RESPONSE:
        return None
    try:
        entry = decode_entry(unseal(value, "a row")[0], "a row").entry
    except DamageError:
        return None
    return Item(
        key=key,
        url=entry.url.decode("latin-1"),
        status=entry.status,
        size=entry.size,
        lifetime_s=entry.lifetime_s,
        groups=entry.groups,
        private=entry.private,
        vary=tuple(name.decode("latin-1") for name, _ in entry.selecting),
    )
