"""A feed in a directory: a mounted share, a USB stick, an origin on the same machine. `file:///path`."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

import trio

from edged.errors import HashError, MissingError, TransportError, WireError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.sync.transports.transport import HeadReply, Traffic

LOOK_S = 0.5  # between looks at the head while a poll is held


class FileTransport:
    """url: `file:///path` of the directory that holds head, trust/ and blobs/."""

    def __init__(self, url: str, traffic: Traffic) -> None:
        parts = urlsplit(url)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise TransportError(f"origin {url}: expected file:///path")
        self.url, self.root, self.traffic = url, Path(unquote(parts.path)), traffic

    @property
    def name(self) -> str:
        return self.url

    async def head(self, after: int | None, wait_s: int, etag: str | None) -> HeadReply | None:
        path = self.root / "head"
        deadline = trio.current_time() + wait_s
        while True:
            mark = await trio.to_thread.run_sync(mark_of, path, abandon_on_cancel=True)
            if mark is None:
                raise MissingError(f"read {path}: no such file; is this the feed's directory, and was it published?")
            if mark != etag:
                return HeadReply(await self.read(path, limits.HEAD_BYTES, "head"), mark)
            if trio.current_time() + LOOK_S > deadline:
                return None
            await trio.sleep(LOOK_S)

    async def trust(self, number: int) -> bytes | None:
        try:
            return await self.read(self.root / "trust" / str(number), limits.TRUST_BYTES, f"root of trust {number}")
        except MissingError:
            return None

    async def blob(self, ref: BlobRef, what: str) -> bytes:
        try:
            data = await self.read(self.root / "blobs" / ref.name, ref.size, what)
        except WireError as fault:
            raise HashError(str(fault)) from fault
        if len(data) != ref.size:
            raise HashError(f"read {self.root / 'blobs' / ref.name} ({what}): {len(data)} bytes, expected {ref.size}")
        return data

    async def read(self, path: Path, max_bytes: int, what: str) -> bytes:
        data = await trio.to_thread.run_sync(read_file, path, max_bytes, what, abandon_on_cancel=True)
        self.traffic.received += len(data)
        return data

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def mark_of(path: Path) -> str | None:
    """What changes when a file is replaced; None where there is none."""
    try:
        info = path.stat()
    except FileNotFoundError:
        return None
    except OSError as fault:
        raise TransportError(f"look at {path}: {fault.strerror}") from fault
    return f'"{info.st_ino:x}-{info.st_mtime_ns:x}-{info.st_size:x}"'


def read_file(path: Path, max_bytes: int, what: str) -> bytes:
    """A regular file of at most `max_bytes`. Raises MissingError, TransportError, or WireError if it is larger."""
    try:
        # O_NONBLOCK: opening a named pipe that someone put there must not hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise TransportError(f"read {path} ({what}): not a regular file")
            data = file.read(max_bytes + 1)
    except FileNotFoundError as fault:
        raise MissingError(f"read {path} ({what}): no such file") from fault
    except OSError as fault:
        raise TransportError(f"read {path} ({what}): {fault.strerror}; check the medium and the permissions") from fault
    if len(data) > max_bytes:
        raise WireError(f"read {path} ({what}): larger than {max_bytes} bytes; not what it should be")
    return data
