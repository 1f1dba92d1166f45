"""A bundle as an origin: the seed in a firmware image, or a file that someone carried to the device."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import trio

from edged.errors import MissingError, TransportError, WireError
from edged.feed.blob import BlobRef
from edged.feed.bundle import Layout, read_layout
from edged.sync.transports.transport import HeadReply, Traffic
from edged.threads import in_thread


class BundleTransport:
    """path: the bundle; it is opened at the first request."""

    def __init__(self, path: Path, traffic: Traffic) -> None:
        self.path, self.traffic = path, traffic
        self.file: BinaryIO | None = None
        self.layout: Layout | None = None

    @property
    def name(self) -> str:
        return str(self.path)

    async def head(self, after: int | None, wait_s: int, etag: str | None) -> HeadReply | None:
        layout = await in_thread(self.open)
        if etag == "bundle":
            return None
        return HeadReply(layout.bundle.head, "bundle", layout.bundle.slices)

    async def trust(self, number: int) -> bytes | None:
        layout = await in_thread(self.open)
        return layout.bundle.roots.get(number)

    async def blob(self, ref: BlobRef, what: str) -> bytes:
        return await in_thread(self.read, ref, what)

    async def aclose(self) -> None:
        file, self.file, self.layout = self.file, None, None
        if file is not None:
            file.close()
        await trio.lowlevel.checkpoint()

    def open(self) -> Layout:
        """Raises MissingError, TransportError, or WireError if it is not a whole bundle."""
        if self.layout is not None:
            return self.layout
        try:
            file = open(self.path, "rb")  # noqa: SIM115 - kept open until aclose()
        except FileNotFoundError as fault:
            raise MissingError(f"open bundle {self.path}: no such file") from fault
        except OSError as fault:
            raise TransportError(f"open bundle {self.path}: {fault.strerror}") from fault
        try:
            layout = read_layout(file)
            size = file.seek(0, 2)
            if size != layout.total_bytes:
                raise WireError(
                    f"bundle {self.path}: expected {layout.total_bytes} bytes, got {size}; it is cut short, or data "
                    "follows it; copy it again"
                )
        except BaseException:
            file.close()
            raise
        self.file, self.layout = file, layout
        return layout

    def read(self, ref: BlobRef, what: str) -> bytes:
        layout = self.open()
        assert self.file is not None
        try:
            data = layout.read_blob(self.file, ref, what)
        except OSError as fault:
            raise TransportError(f"read {what} from bundle {self.path}: {fault.strerror}") from fault
        self.traffic.received += len(data)
        return data
