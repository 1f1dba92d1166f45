"""Faults below the replica: a stand-in for the `os` module that kills, fails, and loses what was not made durable."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COUNTED = ("open", "write", "pwrite", "fsync", "replace", "link", "unlink")
WRITING = ("open", "write", "pwrite", "fsync", "replace", "link")
PAGE = 4096


class Killed(BaseException):
    """The process is gone: from here on no call reaches the disk."""


@dataclass
class Inode:
    """A file's content as written, and as it is certain to be after a power loss (None: no one knows)."""

    data: bytes = b""
    synced: bytes | None = None


@dataclass
class FaultyOs:
    """Counts the calls that change the disk below `root`, and does at one of them what it is told.

    mode: "kill" (before the call, or in the midst of a write), "full" (this and all later writing calls fail with
    ENOSPC) or "eio" (this call alone fails). at: the call, from 1 on; 0 for none.
    """

    root: Path
    mode: str = "kill"
    at: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    calls: int = 0
    dead: bool = False
    resting: bool = False  # lets everything pass, uncounted
    log: list[str] = field(default_factory=list)
    handles: dict[int, str] = field(default_factory=dict)
    current: dict[str, Inode] = field(default_factory=dict)
    durable: dict[str, Inode] = field(default_factory=dict)
    pending: dict[str, list[dict[str, Inode | None]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """What is there already is durable."""
        inodes: dict[int, Inode] = {}
        for path in self.root.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                self.durable[str(path)] = inodes.setdefault(path.stat().st_ino, Inode(data, data))
        self.current.update(self.durable)

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self.guarded(name, real) if name in COUNTED else real

    def guarded(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.dead:
                raise Killed
            if self.resting:
                return real(*arguments, **options)
            self.calls += 1
            self.log.append(name)
            if self.at and self.calls >= self.at:
                self.strike(name, arguments)
            result = real(*arguments, **options)
            self.note(name, arguments, result)
            return result

        return call

    def strike(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.mode == "kill":
            self.dead = True
            if name == "write":  # torn
                part = bytes(arguments[1])[: self.chance.randint(0, len(arguments[1]))]
                os.write(arguments[0], part)
                self.note(name, (arguments[0], part), len(part))
            raise Killed
        if self.mode == "full" and name in WRITING and not self.harmless(name, arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.mode == "eio" and self.calls == self.at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def harmless(self, name: str, arguments: tuple[Any, ...]) -> bool:
        """Reading needs no space."""
        return name == "open" and not arguments[1] & os.O_CREAT

    def note(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        """Keep the model of what would survive a power loss."""
        match name:
            case "open":
                path = str(arguments[0])
                self.handles[result] = path
                if arguments[1] & os.O_CREAT and path not in self.current:
                    self.current[path] = inode = Inode()
                    self.change({path: inode})
                if arguments[1] & os.O_TRUNC:
                    self.current[path].data = b""
            case "write":
                inode = self.current[self.handles[arguments[0]]]
                inode.data += bytes(arguments[1])[:result]
            case "pwrite":
                self.current[self.handles[arguments[0]]].data = bytes(arguments[1])
            case "fsync":
                path = self.handles[arguments[0]]
                if path in self.current:
                    self.current[path].synced = self.current[path].data
                else:
                    for changes in self.pending.pop(path, []):
                        self.apply(self.durable, changes)
            case "replace":
                source, target = str(arguments[0]), str(arguments[1])
                if self.current.get(source) is not self.current.get(target):
                    self.change({target: self.current[source], source: None})
            case "link":
                self.change({str(arguments[1]): self.current[str(arguments[0])]})
            case "unlink":
                self.change({str(arguments[0]): None})

    def change(self, changes: dict[str, Inode | None]) -> None:
        """Names that change together, not durable until their directory is synced."""
        self.apply(self.current, changes)
        self.pending.setdefault(str(Path(next(iter(changes))).parent), []).append(changes)

    @staticmethod
    def apply(names: dict[str, Inode], changes: dict[str, Inode | None]) -> None:
        for path, inode in changes.items():
            if inode is None:
                names.pop(path, None)
            else:
                names[path] = inode

    def after_power_loss(self, target: Path) -> None:
        """Write to `target` one of the states in which a disk may be found: unsynced names and content at random."""
        names = dict(self.durable)
        for waiting in self.pending.values():
            for changes in waiting:
                if self.chance.random() < 0.5:
                    self.apply(names, changes)
        for place in ("packs", "staging", "ahead"):
            (target / "catalog" / place).mkdir(parents=True, exist_ok=True)
        for path, inode in names.items():
            copy = target / Path(path).relative_to(self.root)
            copy.write_bytes(self.content(inode))

    def content(self, inode: Inode) -> bytes:
        if inode.synced is not None and inode.synced == inode.data:
            return inode.data
        whole = inode.data
        pages = [whole[start : start + PAGE] for start in range(0, len(whole), PAGE)]
        match self.chance.randrange(5):
            case 0:
                return inode.synced or b""
            case 1:
                return whole
            case 2:
                return whole[: self.chance.randint(0, len(whole))]
            case 3:
                return b"".join(page if self.chance.random() < 0.5 else bytes(len(page)) for page in pages)
            case _:
                return bytes(len(whole))
