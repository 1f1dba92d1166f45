"""A feed in a directory: a mounted share, a USB stick, an origin on the same machine. `file:///path`."""

from __future__ import annotations

import errno
from pathlib import Path
from urllib.parse import unquote, urlsplit

import trio

from edged.errors import HashError, MissingError, TransportError, WireError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.files import read_regular, stamp_of, told
from edged.inotify import DirectoryWatch
from edged.sync.transports.transport import HeadReply, Traffic
from edged.threads import in_thread

LOOK_S = 0.5  # between looks at the head while a poll is held, where the kernel tells of no changes
TOLD_LOOK_S = 30.0  # where it does: a network's file system hears nothing of what other hosts change


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
        with DirectoryWatch(LOOK_S, TOLD_LOOK_S) as watch:
            while True:
                watch.follow([str(self.root)])
                mark = await in_thread(mark_of, path, abandon_on_cancel=True)
                if mark is None:
                    raise MissingError(
                        f"read {path}: no such file; is this the feed's directory, and was it published?"
                    )
                if mark != etag:
                    return HeadReply(await self.read(path, limits.HEAD_BYTES, "head"), mark)
                if trio.current_time() + LOOK_S > deadline:
                    return None
                await watch.wait()

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
        data = await in_thread(read_file, path, max_bytes, what, abandon_on_cancel=True)
        self.traffic.received += len(data)
        return data

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def mark_of(path: Path) -> str | None:
    """What changes when a file is replaced; None where there is none."""
    try:
        stamp = stamp_of(path)
    except OSError as fault:
        raise TransportError(told("look at", path, fault)) from fault
    return None if stamp is None else f'"{stamp}"'


def read_file(path: Path, max_bytes: int, what: str) -> bytes:
    """A regular file of at most `max_bytes`. Raises MissingError, TransportError, or WireError if it is larger."""
    try:
        return read_regular(path, max_bytes, follow=True)
    except FileNotFoundError as fault:
        raise MissingError(f"read {path} ({what}): no such file") from fault
    except OSError as fault:
        if fault.errno == errno.EFBIG:
            raise WireError(f"read {path} ({what}): larger than {max_bytes} bytes; not what it should be") from fault
        raise TransportError(f"read {path} ({what}): {fault.strerror}; check the medium and the permissions") from fault
