"""diskcache's Disk, hardened: bytes in, bytes out, nothing unpickled (CVE-2025-69872), no path that a row may choose.

A row's value is a sealed head, with a small body inside; a larger body is the row's file. What the row says is
believed only after the seal is checked, and a file's name only if it has the form that this class gives it.
"""

from __future__ import annotations

import os
import re
import secrets
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import diskcache

from edged.errors import DamageError
from edged.proxy.store.record import BLOCK_BYTES, seal, unseal

INLINE_BYTES = 4 << 10  # a smaller body lies in the database: a file takes a whole block anyway
FOLDERS = 64  # of one hexadecimal pair each
MODE_RAW, MODE_BINARY = 1, 2
NAME = re.compile(r"[0-3][0-9a-f]/[0-9a-f]{30}\.val")


def allocated(path: str) -> int:
    """Bytes that a file takes on the disk; 0 where it is gone."""
    try:
        return os.stat(path).st_blocks * 512
    except FileNotFoundError:
        return 0


class Spool:
    """A body on its way to the disk. `sums` grows with each block; `size` counts what was written.

    It lies under its last name from the start: a file that is renamed is seen twice by who counts at that moment.
    """

    def __init__(self, directory: Path, filename: str) -> None:
        self.filename, self.path = filename, directory / filename
        self.file: BinaryIO = self.path.open("xb", buffering=0)
        self.size = 0
        self.sums = bytearray()
        self.rest = 0  # bytes of the block under way
        self.running = 0

    def write(self, data: bytes) -> None:
        """Append. Raises OSError; the spool is then good for `discard` alone."""
        view = memoryview(data)
        while view:
            written = self.file.write(view)
            self.count(view[:written])
            view = view[written:]

    def count(self, data: memoryview) -> None:
        self.size += len(data)
        while data:
            part = data[: BLOCK_BYTES - self.rest]
            self.running = zlib.crc32(part, self.running)
            self.rest += len(part)
            data = data[len(part) :]
            if self.rest == BLOCK_BYTES:
                self.finish_block()

    def finish_block(self) -> None:
        self.sums += self.running.to_bytes(4, "big")
        self.rest = self.running = 0

    def finish(self) -> bytes:
        """Close the file. Returns the CRC-32 of every block."""
        if self.rest:
            self.finish_block()
        self.file.close()
        return bytes(self.sums)

    def discard(self) -> None:
        """Close the file and remove it. Raises OSError."""
        try:
            self.file.close()
        finally:
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Record:
    """What is stored under a key: a head, and a body inside, in a spool's file, or in the one that the key has."""

    head: bytes
    body: bytes = b""
    spool: str = ""  # a file's name
    keep: str = ""  # likewise


@dataclass(frozen=True, slots=True)
class Row:
    """What a key has: its head, its small body, or the name of its body's file."""

    head: bytes
    body: bytes
    filename: str


class BytesDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache ships no types
    """Takes `Record` and gives `Row`. `used` counts the bytes that its files take on the disk."""

    def __init__(self, directory: str, min_file_size: int = 0, pickle_protocol: int = 0) -> None:
        super().__init__(directory, min_file_size, pickle_protocol)
        self.used = 0
        self.newest = ""

    def put(self, key: Any) -> tuple[Any, bool]:
        if type(key) is not bytes:
            raise TypeError("keys of the proxy's store are bytes")
        return memoryview(key), True

    def get(self, key: Any, raw: Any) -> bytes:
        if raw != 1 or type(key) is not bytes:
            raise DamageError("read the proxy's store: a key that is not bytes; the database is rebuilt")
        return key

    def store(self, value: Any, read: bool, key: Any = None) -> tuple[int, int, str | None, Any]:
        del read, key
        if type(value) is not Record:
            raise TypeError("values of the proxy's store are records")
        sealed = memoryview(seal(value.head, value.body))
        if value.spool:
            filename, path = value.spool, self.path_of(value.spool)
            self.used += allocated(path)
        elif value.keep:
            filename, path = self.filename()
            self.link(value.keep, path)
        else:
            return 0, MODE_RAW, None, sealed
        self.newest = filename
        return os.stat(path).st_size, MODE_BINARY, filename, sealed

    def link(self, name: str, path: str) -> None:
        """Give a file a second name: diskcache removes the first one after it has written the row."""
        source = self.path_of(name)
        try:
            os.link(source, path)
        except OSError:  # a file system without hard links
            os.rename(source, path)

    def fetch(self, mode: Any, filename: Any, value: Any, read: Any) -> Row:
        del read
        if type(value) is not bytes or mode not in (MODE_RAW, MODE_BINARY):
            raise DamageError("read the proxy's store: a row that edged did not write; it is dropped and fetched anew")
        head, body = unseal(value, "a row")
        if mode == MODE_RAW:
            return Row(head, body, "")
        self.path_of(filename)
        return Row(head, b"", filename)

    def filename(self, key: Any = None, value: Any = None) -> tuple[str, str]:
        del key, value
        name = secrets.token_hex(16)
        filename = f"{int(name[:2], 16) % FOLDERS:02x}/{name[2:]}.val"
        return filename, os.path.join(self._directory, filename)

    def path_of(self, filename: Any) -> str:
        """The path of a file that a row names. Raises DamageError for a name that this class does not give."""
        if type(filename) is not str or not NAME.fullmatch(filename):
            raise DamageError("read the proxy's store: a row names a foreign file; it is dropped and fetched anew")
        return os.path.join(self._directory, filename)

    def remove(self, file_path: Any) -> None:
        try:
            path = self.path_of(file_path)
        except DamageError:
            return  # a row names a file that is not ours to remove
        taken = allocated(path) if self.names(path) == 1 else 0
        try:
            os.remove(path)
        except FileNotFoundError:
            return
        self.used -= taken

    def names(self, path: str) -> int:
        """How many names a file has: one of two goes when a row is rewritten, and frees nothing."""
        try:
            return os.stat(path).st_nlink
        except FileNotFoundError:
            return 0


def check_body(path: str, size: int, sums: bytes) -> None:
    """Read a whole body and compare every block. Raises DamageError, OSError where it is gone."""
    blocks = -(-size // BLOCK_BYTES)
    with open(path, "rb", buffering=0) as file:
        sound = os.fstat(file.fileno()).st_size == size and len(sums) == 4 * blocks
        for number in range(blocks if sound else 0):
            block = file.read(BLOCK_BYTES)
            sound = sound and zlib.crc32(block) == int.from_bytes(sums[4 * number : 4 * number + 4], "big")
    if not sound:
        raise DamageError(f"read {path}: truncated or changed; it is dropped and fetched anew")


def read_block(fd: int, number: int, size: int, sums: bytes) -> bytes:
    """Block `number` of an open body. Raises DamageError where its checksum is wrong."""
    start = number * BLOCK_BYTES
    block = os.pread(fd, min(BLOCK_BYTES, size - start), start)
    if zlib.crc32(block) != int.from_bytes(sums[4 * number : 4 * number + 4], "big"):
        raise DamageError(f"read block {number} of a stored body: truncated or changed; it is dropped")
    return block
