"""Waiting until files change: told by the kernel (inotify) where it can, by looking where it cannot."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import struct
from collections.abc import Collection
from types import TracebackType

import trio

logger = logging.getLogger("edged")

# <sys/inotify.h>
CLOSE_WRITE, MOVED_TO, DELETE, MOVE_SELF, IGNORED = 0x8, 0x80, 0x200, 0x800, 0x8000
EVENTS = CLOSE_WRITE | MOVED_TO | DELETE | MOVE_SELF
EVENT = struct.Struct("iIII")  # watch, what happened, cookie, bytes of the name that follows
READ_BYTES = 64 << 10


class DirectoryWatch:
    """Waits until a file of some directories is written, renamed or removed.

    look_s: between looks where the kernel does not tell: it has no inotify, all watches are taken, a directory is not
    there yet. most_s: between looks where it does, for a network's file system hears nothing of other hosts.
    """

    def __init__(self, look_s: float, most_s: float) -> None:
        self.look_s, self.most_s = look_s, most_s
        self.watches: dict[str, int] = {}
        self.told = True  # whether the kernel tells of all that is followed
        self.libc = ctypes.CDLL(None, use_errno=True)
        try:
            self.handle: int = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError:  # a C library without it
            self.handle = -1
        if self.handle < 0:
            logger.info("no inotify here (%s): files are looked at every %g s", reason(), look_s)

    def __enter__(self) -> DirectoryWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def follow(self, directories: Collection[str]) -> None:
        """Watch these and no others. To be called before the files are looked at: then nothing is missed between."""
        if self.handle < 0:
            self.told = not directories
            return
        for directory in self.watches.keys() - set(directories):
            self.libc.inotify_rm_watch(self.handle, self.watches.pop(directory))
        for directory in directories:
            if directory not in self.watches:
                number = self.libc.inotify_add_watch(self.handle, os.fsencode(directory), EVENTS)
                if number >= 0:
                    self.watches[directory] = number
                elif ctypes.get_errno() != errno.ENOENT:
                    logger.debug("%s is not watched: %s", directory, reason())
        self.told = len(self.watches) == len(set(directories))

    async def wait(self) -> None:
        """Until something happened in a directory since it is followed, or it is time to look."""
        with trio.move_on_after(self.most_s if self.told else self.look_s):
            if self.handle < 0:
                await trio.sleep_forever()
            await trio.lowlevel.wait_readable(self.handle)
            self.drain()

    def drain(self) -> None:
        """Take in what has happened, and forget the directories that are no longer where they were."""
        try:
            data = os.read(self.handle, READ_BYTES)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            number, what, _, size = EVENT.unpack_from(data, at)
            at += EVENT.size + size
            if what & (IGNORED | MOVE_SELF):
                for directory in [name for name, watch in self.watches.items() if watch == number]:
                    del self.watches[directory]
                if what & MOVE_SELF:
                    self.libc.inotify_rm_watch(self.handle, number)


def reason() -> str:
    """Why the last call of the C library failed."""
    return os.strerror(ctypes.get_errno()) if ctypes.get_errno() else "none in the C library"
