"""Hosts of the feed as a device meets them: good, gone, slow, hanging, lying, frozen in time; one behind another."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from edged.errors import HashError, MissingError, TransportError
from edged.feed.blob import BlobRef
from edged.sync.transports.transport import HeadReply
from tests.soak.publishing import Publishing

CONDITIONS = ("lost", "slow", "hanging", "garbage", "cut short", "empty", "frozen", "flapping")
HANG_S = 60.0  # until a transport has had enough
LOOK_S = 1.0

Files = Callable[[str], bytes | None]


@dataclass
class Host:
    """A Transport. files: the bytes below the base URL, None where there are none; condition: "" is good."""

    name: str
    publishing: Publishing
    chance: random.Random
    condition: str = ""
    above: Host | None = None  # a relay's own origin
    kept: dict[str, bytes] = field(default_factory=dict)  # what a relay holds
    asked: int = 0
    old_head: bytes = b""

    def fall(self, condition: str) -> None:
        self.condition = condition
        if condition == "frozen":
            self.old_head = self.chance.choice(self.publishing.heads[-12:])

    async def head(self, after: int | None, wait_s: int, etag: str | None) -> HeadReply | None:
        deadline = trio.current_time() + wait_s
        while True:
            data = await self.read("head")
            if data is None:
                raise MissingError(f"{self.name}: no head")
            tag = hashlib.sha256(data).hexdigest()[:16]
            if tag != etag:
                return HeadReply(data, tag)
            if trio.current_time() + LOOK_S > deadline:
                return None
            await trio.sleep(LOOK_S)

    async def trust(self, number: int) -> bytes | None:
        return await self.read(f"trust/{number}")

    async def blob(self, ref: BlobRef, what: str) -> bytes:
        data = await self.read(f"blobs/{ref.name}")
        if data is None:
            raise MissingError(f"{self.name}: {what}: no such blob")
        if len(data) != ref.size:
            raise HashError(f"{self.name}: {what}: {len(data)} bytes, expected {ref.size}")
        return data

    async def read(self, name: str) -> bytes | None:
        self.asked += 1
        match self.condition:
            case "lost":
                raise TransportError(f"{self.name}: connection refused")
            case "hanging":
                await trio.sleep(HANG_S)
                raise TransportError(f"{self.name}: nothing came for {HANG_S:g} s")
            case "slow":
                await trio.sleep(self.chance.uniform(1, 40))
            case "flapping":
                if self.chance.random() < 0.5:
                    raise TransportError(f"{self.name}: reset")
            case "empty":
                return None
        data = self.old_head if self.condition == "frozen" and name == "head" else await self.source(name)
        if data and self.condition == "garbage" and self.chance.random() < 0.7:
            at = self.chance.randrange(len(data))
            return data[:at] + bytes([data[at] ^ 1 << self.chance.randrange(8)]) + data[at + 1 :]
        if data and self.condition == "cut short":
            return data[: self.chance.randrange(len(data))]
        return data

    async def source(self, name: str) -> bytes | None:
        """A relay asks above for what may have changed, and hands on what it holds when nobody is there."""
        if self.above is None:
            path = self.publishing.public / name
            return path.read_bytes() if path.is_file() else None
        if name.startswith("blobs/") and name in self.kept:
            return self.kept[name]
        try:
            data = await self.above.read(name)
        except TransportError:
            if name in self.kept:
                return self.kept[name]
            raise
        if data is not None and self.sound(name, data):
            self.kept[name] = data
        return data

    def sound(self, name: str, data: bytes) -> bool:
        """A relay keeps no blob that is not what its name says, and no head or root that was not signed."""
        if name.startswith("blobs/"):
            return hashlib.sha256(data).hexdigest() == name.removeprefix("blobs/")
        return data in self.publishing.heads if name == "head" else True

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
