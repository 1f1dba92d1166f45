"""The public heads as they are now, and waiting for the next ones: what the long poll hangs on."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from edged.errors import EdgedError
from edged.feed import limits
from edged.feed.head import Head
from edged.feed.names import NAME
from edged.feed.trust import root as trust
from edged.files import FileStamp, read_bounded, stamp_of

logger = logging.getLogger("edged.origin")

POLL_S = 0.1  # how often head files are looked at while somebody waits; one look for all who wait


@dataclass(frozen=True, slots=True)
class PublicHead:
    """A head as it is served. data: the bytes; etag: with its quotes."""

    data: bytes
    etag: bytes
    document: Head

    @property
    def version(self) -> int:
        return self.document.version

    @property
    def newest_version(self) -> int:
        return self.document.newest_version

    @property
    def news(self) -> object:
        """What waiting devices must hear of: a head that was only signed anew can wait for the end of their polls."""
        return self.version, self.document.offer, self.document.takedowns


class Heads:
    """Reads heads below `public` when their files change. Start `watch` in a nursery for `newer` to work."""

    def __init__(self, public: Path) -> None:
        self.public = public
        self.known: dict[str, tuple[FileStamp, PublicHead]] = {}
        self.waiting: dict[str, int] = {}
        self.changed: dict[str, trio.Event] = {}
        self.asked = trio.Event()
        self.closed = False

    def datasets(self) -> list[str]:
        names = [path.parent.name for path in self.public.glob("*/head")]
        return sorted(name for name in names if NAME.fullmatch(name))

    def current(self, dataset: str) -> PublicHead | None:
        """The head in force, None if there is no such dataset. A file that is not a rightful head is passed over."""
        path = self.public / dataset / "head"
        try:
            stamp = stamp_of(path, follow=False)
        except OSError:
            stamp = None
        if stamp is None:
            self.known.pop(dataset, None)
            return None
        known = self.known.get(dataset)
        if known is not None and known[0] == stamp:
            return known[1]
        try:
            found = self.read(path, dataset)
        except EdgedError as fault:
            logger.error("head of %s is not served: %s", dataset, fault)
            if known is None:
                return None
            found = known[1]
        self.known[dataset] = (stamp, found)
        return found

    def read(self, path: Path, dataset: str) -> PublicHead:
        data = read_bounded(path, limits.HEAD_BYTES)
        head = trust.verify_head(data, self.newest_root(path.parent / "trust"), dataset).head
        return PublicHead(data, b'"%s"' % hashlib.sha256(data).hexdigest()[:16].encode(), head)

    def newest_root(self, directory: Path) -> trust.Root:
        root = trust.read_root(read_bounded(directory / "1", limits.TRUST_BYTES), f"{directory}/1")
        while os.path.lexists(path := directory / str(root.number + 1)):
            root = trust.verify_root(read_bounded(path, limits.TRUST_BYTES), root)
        return root

    async def newer(
        self, dataset: str, after: int, wait_s: float, is_known: Callable[[PublicHead], bool] = lambda head: True
    ) -> PublicHead | None:
        """The head as soon as it has news; whatever it is once `wait_s` are over.

        after: the newest version, offered ones included, that the device has seen; is_known: whether the device has
        this very head. News are a later version, a rollout that moves, and takedowns.
        """
        before: PublicHead | None = None
        with trio.move_on_after(wait_s):
            while not self.closed:
                found = self.current(dataset)
                if found is None or found.newest_version > after:
                    return found
                if found.news != before.news if before is not None else not is_known(found):
                    return found
                before = found
                await self.next_change(dataset)
        return self.current(dataset)

    async def next_change(self, dataset: str) -> None:
        event = self.changed.setdefault(dataset, trio.Event())
        self.waiting[dataset] = self.waiting.get(dataset, 0) + 1
        self.asked.set()
        try:
            await event.wait()
        finally:
            self.waiting[dataset] -= 1
            if not self.waiting[dataset]:
                del self.waiting[dataset]

    async def watch(self) -> None:
        """Look at the heads that somebody waits for, for ever."""
        while True:
            await self.asked.wait()
            for dataset in list(self.waiting):
                before = self.known.get(dataset)
                if self.current(dataset) is None or self.known.get(dataset) != before:
                    self.wake(dataset)
            if not self.waiting:
                self.asked = trio.Event()
            await trio.sleep(POLL_S)

    def wake(self, dataset: str) -> None:
        event = self.changed.pop(dataset, None)
        if event is not None:
            event.set()

    def close(self) -> None:
        """Answer everybody who waits, now."""
        self.closed = True
        for dataset in list(self.changed):
            self.wake(dataset)
