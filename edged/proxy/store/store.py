"""The store on flash: diskcache with a quota that holds, checks on every value, and a database that may break.

Everything here blocks; the proxy runs it in a thread of its own (`worker.py`). A read writes nothing. What is stored
may be lost at any time without harm: on damage the value goes, on a broken database all of it.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import diskcache

from edged.errors import DamageError, StoreError
from edged.proxy.store.disk import FOLDERS, INLINE_BYTES, BytesDisk, Record, Row, Spool, allocated, check_body

T = TypeVar("T")

DATABASE = "cache.db"
PAGE_BYTES = 4096
PURGED = "purged"  # its modification tells a running daemon that another process has purged
BATCH = 64  # rows evicted at once
VACUUM_PAGES = 64
MEASURE_EVERY = 512  # files written between two looks at the folders themselves
SETTINGS: dict[str, Any] = {
    "eviction_policy": "none",  # with any other a read writes, or a write evicts behind our back
    "cull_limit": 0,
    "statistics": 0,
    "tag_index": 0,
    "size_limit": 1 << 62,
    "sqlite_auto_vacuum": 2,  # incremental: a full one rewrites pages at every commit
    "sqlite_cache_size": 512,
    "sqlite_mmap_size": 0,
    "sqlite_synchronous": 1,
    "sqlite_journal_mode": "wal",
    "sqlite_wal_autocheckpoint": 128,
    "sqlite_journal_size_limit": 128 * PAGE_BYTES,
    "disk_min_file_size": 0,
    "disk_pickle_protocol": 0,
}
PLAIN = re.compile(r"[a-z-]*")
KNOWN_SETTINGS = frozenset(SETTINGS) | {"count", "size", "hits", "misses"}


@dataclass(frozen=True, slots=True)
class Found:
    """A record read back whole. path: of its body's file, "" where the body lies inside."""

    head: bytes
    body: bytes
    path: str
    filename: str


def corrupt(fault: sqlite3.Error) -> bool:
    """Whether a database is broken, and not merely busy, full or read-only."""
    code = getattr(fault, "sqlite_errorcode", None)
    if code is None:
        return type(fault) is sqlite3.DatabaseError
    return (code & 0xFF) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


class OwnCache(diskcache.Cache):  # type: ignore[misc]  # diskcache ships no types
    """Leaves no connection open where it cannot be made."""

    def __init__(self, directory: Path) -> None:
        try:
            super().__init__(str(directory), timeout=5, disk=BytesDisk, **SETTINGS)
        except BaseException:
            if hasattr(self, "_local"):
                self.close()
            raise


class Store:
    """Records under keys, in a directory that takes at most `quota_bytes` on the disk.

    rebuilds: how often the database was found broken. Raises StoreError where the directory cannot be used at all.
    """

    def __init__(self, directory: Path, quota_bytes: int, recently_used: Callable[[bytes], bool] | None = None) -> None:
        self.directory, self.quota_bytes = directory, quota_bytes
        self.recently_used = recently_used or (lambda key: False)
        self.rebuilds = self.evictions = self.occupied_bytes = 0
        self.spooled: dict[Path, int] = {}
        self.folder_bytes = 0
        self.until_measure = 0
        # Room that no file may take: the log of a transaction, the next checkpoint, folders that grow.
        self.margin_bytes = min(4 << 20, quota_bytes // 6)
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.open()
        except BaseException as fault:
            if hasattr(self, "cache"):
                self.close()
            if not isinstance(fault, OSError):
                raise
            raise StoreError(
                f"open the proxy's store in {directory}: {fault.strerror}; make it writable or set another data_dir"
            ) from fault

    # --- opening, and what may be wrong with what is found -----------------------------------------------------------

    def open(self) -> None:
        try:
            self.inspect()
            self.cache = OwnCache(self.directory)
            self.sweep()
        except (sqlite3.Error, DamageError, ValueError, TypeError, KeyError) as fault:
            if isinstance(fault, sqlite3.Error) and not corrupt(fault):
                raise StoreError(
                    f"open the proxy's store in {self.directory}: {fault}; does another edged use it, is the disk full?"
                ) from fault
            self.rebuild()

    def inspect(self) -> None:
        """Refuse a database whose settings are not ours: diskcache runs them as pragmas. Raises DamageError."""
        path = self.directory / DATABASE
        if not path.exists():
            return
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as database:
            rows = database.execute("SELECT key, value FROM Settings").fetchall()
        for key, value in rows:
            plain = isinstance(value, int) or (isinstance(value, str) and PLAIN.fullmatch(value))
            if key not in KNOWN_SETTINGS or not plain:
                raise DamageError(f"open {path}: setting {key!r} is not one that edged writes; it is rebuilt")

    def rebuild(self) -> None:
        """Begin anew, with nothing."""
        self.rebuilds += 1
        if hasattr(self, "cache"):
            self.cache.close()
        for child in self.directory.iterdir():
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink(missing_ok=True)
        self.spooled.clear()
        self.cache = OwnCache(self.directory)
        self.sweep()

    def sweep(self) -> None:
        """Remove what a kill has left behind: files without a row. Count the others."""
        with closing(sqlite3.connect(f"file:{self.directory / DATABASE}?mode=ro", uri=True, timeout=5)) as database:
            known = {name for (name,) in database.execute("SELECT filename FROM Cache WHERE filename IS NOT NULL")}
        used = 0
        for number in range(FOLDERS):
            folder = self.directory / f"{number:02x}"
            folder.mkdir(exist_ok=True, mode=0o700)
            with os.scandir(folder) as files:
                for file in files:
                    if f"{folder.name}/{file.name}" in known:
                        used += file.stat(follow_symlinks=False).st_blocks * 512
                    else:
                        os.unlink(file.path)
        self.disk.used = used
        self.measure_folders()

    def recount(self) -> None:
        """Count the files anew: another process has removed some."""
        used = 0
        for number in range(FOLDERS):
            with os.scandir(self.directory / f"{number:02x}") as files:
                used += sum(allocated(file.path) for file in files)
        self.disk.used = used
        self.measure_folders()

    @property
    def disk(self) -> BytesDisk:
        disk: BytesDisk = self.cache.disk
        return disk

    def close(self) -> None:
        self.cache.close()

    # --- room --------------------------------------------------------------------------------------------------------

    def measure_folders(self) -> None:
        folders = [str(self.directory)]
        folders += [str(self.directory / f"{number:02x}") for number in range(FOLDERS)]
        self.folder_bytes = sum(allocated(folder) for folder in folders)
        self.until_measure = MEASURE_EVERY

    def used_bytes(self) -> int:
        """Bytes that the directory takes on the disk, as du counts them."""
        database = str(self.directory / DATABASE)
        files = sum(allocated(database + suffix) for suffix in ("", "-wal", "-shm"))
        self.occupied_bytes = files + self.folder_bytes + self.disk.used + sum(self.spooled.values())
        return self.occupied_bytes

    def make_room(self, need_bytes: int, *, inside: bool = False) -> bool:
        """Evict until `need_bytes` more fit: of a file, or inside the database, where free pages count as room.

        Returns False where they cannot.
        """
        if need_bytes > self.quota_bytes - self.margin_bytes:
            return False
        while True:
            free = self.free_pages()
            need = max(0, need_bytes - free * PAGE_BYTES) if inside else need_bytes
            short = self.used_bytes() + need + self.margin_bytes - self.quota_bytes
            if short <= 0:
                return True
            if free > VACUUM_PAGES and not inside:
                self.vacuum()
            elif not self.evict(short):
                if not free:
                    return False
                self.vacuum()

    def evict(self, short_bytes: int) -> bool:
        """Remove some of the rows that were stored first; those used since are passed over while there are others.

        Returns False where nothing is left.
        """
        oldest: list[bytes] = []
        for key in self.cache:
            oldest.append(key)
            if len(oldest) == 4 * BATCH:
                break
        if not oldest:
            return False
        idle = [key for key in oldest if not self.recently_used(key)]
        before = self.disk.used
        with self.cache.transact():
            for key in (idle or oldest)[:BATCH]:
                self.evictions += self.cache.delete(key)
                if before - self.disk.used >= short_bytes:
                    break
        self.empty_log()
        return True

    def free_pages(self) -> int:
        count: int = self.connection().execute("PRAGMA freelist_count").fetchone()[0]
        return count

    def vacuum(self) -> None:
        """Give some free pages of the database back to the disk. A few at a time: they pass through the log."""
        self.connection().execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
        self.connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def empty_log(self) -> None:
        """Empty the write-ahead log where a large transaction has made it grow."""
        if allocated(str(self.directory / DATABASE) + "-wal") > self.margin_bytes // 4:
            self.connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = self.cache._con  # the one of this thread; diskcache has no public name for it
        return connection

    # --- records -----------------------------------------------------------------------------------------------------

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """A broken database is rebuilt; a full disk or a busy database costs the one operation."""
        try:
            yield
        except sqlite3.Error as fault:
            if corrupt(fault):
                self.rebuild()
            raise StoreError(f"use the proxy's store in {self.directory}: {fault}") from fault
        except diskcache.Timeout as fault:
            raise StoreError(f"use the proxy's store in {self.directory}: another process holds it") from fault
        except OSError as fault:
            where = fault.filename or self.directory
            raise StoreError(f"use the proxy's store in {where}: {fault.strerror or fault}") from fault

    def get(self, key: bytes) -> Found | None:
        """A record, its checksum checked; a damaged one is dropped and counts as absent. Writes nothing otherwise."""
        with self.guarded():
            try:
                row: Row | None = self.cache.get(key)
            except DamageError:
                self.cache.delete(key)
                return None
            if row is None:
                return None
            path = self.disk.path_of(row.filename) if row.filename else ""
            return Found(row.head, row.body, path, row.filename)

    def verify(self, key: bytes, found: Found, size: int, sums: bytes) -> bool:
        """Check the whole body of a record. A damaged one is dropped with its record."""
        with self.guarded():
            try:
                if found.path:
                    check_body(found.path, size, sums)
                elif len(found.body) != size:
                    raise DamageError("a body of the wrong length")
            except (DamageError, FileNotFoundError):  # a disk that does not read now is no reason to delete
                self.cache.delete(key)
                return False
            return True

    def put(self, key: bytes, head: bytes, body: bytes = b"", spool: Spool | None = None) -> bool:
        """Store a record, atomically. A spool is taken over. Returns False where there is no room for it."""
        try:
            with self.guarded():
                if len(body) > self.quota_bytes - self.margin_bytes:
                    return False
                if len(body) > INLINE_BYTES and spool is None:
                    spool = self.spool(body)
                need = (0 if spool is not None else len(body)) + len(head) + 4 * PAGE_BYTES
                if spool is not None:
                    spool.finish()
                if not self.make_room(need, inside=True):
                    return False
                if spool is None:
                    self.write(key, Record(head, body))
                else:
                    del self.spooled[spool.path]  # it counts among the files from here on
                    self.write(key, Record(head, spool=spool.filename))
                    spool = None
                self.empty_log()
                self.count_file()
                return True
        finally:
            if spool is not None:
                self.drop(spool)

    def write(self, key: bytes, record: Record) -> None:
        """Replace the row, so that a row's number tells its age; a file that got no row goes again."""
        self.disk.newest = ""
        try:
            with self.cache.transact():
                if not record.keep:
                    self.cache.delete(key)
                self.cache.set(key, record)
        except BaseException:
            if self.disk.newest:
                self.disk.remove(self.disk.newest)
            raise

    def count_file(self) -> None:
        self.until_measure -= 1
        if self.until_measure <= 0:
            self.measure_folders()

    def rewrite(self, key: bytes, head: bytes) -> bool:
        """A new head for a record that keeps its body (after a 304). Returns False where it has gone."""
        with self.guarded():
            row: Row | None = self.cache.get(key)
            if row is None or not self.make_room(len(head) + 4 * PAGE_BYTES, inside=True):
                return False
            self.write(key, Record(head, row.body, keep=row.filename))
            return True

    def delete(self, keys: list[bytes]) -> int:
        """Remove records. Returns how many there were."""
        with self.guarded():
            gone = 0
            for start in range(0, len(keys), BATCH):
                with self.cache.transact():
                    gone += sum(bool(self.cache.delete(key)) for key in keys[start : start + BATCH])
            return gone

    def list_keys(self) -> list[bytes]:
        """Every key, the first stored first."""
        with self.guarded():
            return list(self.cache)

    # --- bodies on their way -----------------------------------------------------------------------------------------

    def spool(self, body: bytes = b"") -> Spool:
        """A new spool, holding `body`. Raises StoreError, also where there is no room."""
        with self.guarded():
            filename, path = self.disk.filename()
            os.makedirs(os.path.dirname(path), exist_ok=True)
            spool = Spool(self.directory, filename)
            self.spooled[spool.path] = 0
            self.append(spool, body)
            return spool

    def append(self, spool: Spool, data: bytes) -> None:
        """Write to a spool within the quota. Raises StoreError; the spool is then discarded."""
        try:
            with self.guarded():
                if data and not self.make_room(len(data) + PAGE_BYTES):
                    raise StoreError(f"store a response in {self.directory}: it does not fit into the quota")
                spool.write(data)
            self.spooled[spool.path] = -(-spool.size // PAGE_BYTES) * PAGE_BYTES
        except BaseException:
            self.drop(spool)
            raise

    def drop(self, spool: Spool) -> None:
        """Give a body up. A file that cannot be removed now goes when the store is next opened."""
        self.spooled.pop(spool.path, None)
        with self.guarded():
            spool.discard()
