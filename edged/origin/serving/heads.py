"""The public heads as they are now, and waiting for the next ones: what the long poll hangs on."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import trio

from edged.errors import EdgedError
from edged.feed import limits
from edged.feed.names import NAME
from edged.feed.trust import root as trust
from edged.feedserving.app import PublicHead
from edged.feedserving.files import BLOB, COSE, open_file
from edged.files import FileStamp, read_bounded, stamp_of
from edged.http.application import Answer, Signal
from edged.http.request import Request
from edged.inotify import DirectoryWatch

logger = logging.getLogger("edged.origin")

EARLIER_MOST = 8  # heads of one version whose entity tags are remembered
LOOK_S = 0.1  # between two looks at head files while somebody waits, where the kernel does not tell of them
TOLD_LOOK_S = 1.0  # where it does


class Heads:
    """Reads heads below `public` when their files change. Their signals move by themselves while `watch` runs."""

    def __init__(self, public: Path) -> None:
        self.public = public
        self.known: dict[str, tuple[FileStamp, PublicHead]] = {}
        self.signals: dict[str, Signal] = {}
        self.wanted = trio.Event()

    def datasets(self) -> list[str]:
        names = [path.parent.name for path in self.public.glob("*/head")]
        return sorted(name for name in names if NAME.fullmatch(name))

    def current(self, dataset: str) -> PublicHead | None:
        """The head in force, None if there is no such dataset. A file that is not a rightful head is passed over. Moves
        the dataset's signal where it is another than before.
        """
        path = f"{self.public}/{dataset}/head"  # as text, which costs each poll less
        try:
            stamp = stamp_of(path, follow=False)
        except OSError:
            stamp = None
        known = self.known.get(dataset)
        if stamp is None:
            if known is not None:
                del self.known[dataset]
                self.signal(dataset).move()
            return None
        if known is not None and known[0] == stamp:
            return known[1]
        try:
            found = self.read(Path(path), dataset)
        except EdgedError as fault:
            logger.error("head of %s is not served: %s", dataset, fault)
            if known is None:
                return None
            found = known[1]
        if known is not None and known[1].news == found.news and known[1].etag != found.etag:
            found = replace(found, earlier=(*known[1].earlier, known[1].etag)[-EARLIER_MOST:])
        self.known[dataset] = (stamp, found)
        if known is not None:
            self.signal(dataset).move()  # whoever saw it first, everybody who waits hears of it
        return found

    async def newest(self, dataset: str) -> PublicHead | None:
        """`current`, which looks at a file and takes no time."""
        return self.current(dataset)

    def latest(self, dataset: str) -> PublicHead | None:
        known = self.known.get(dataset)
        return None if known is None else known[1]

    def read(self, path: Path, dataset: str) -> PublicHead:
        data = read_bounded(path, limits.HEAD_BYTES)
        head = trust.verify_head(data, self.newest_root(path.parent / "trust"), dataset).head
        return PublicHead.of(data, head)

    def newest_root(self, directory: Path) -> trust.Root:
        root = trust.read_root(read_bounded(directory / "1", limits.TRUST_BYTES), f"{directory}/1")
        while os.path.lexists(path := directory / str(root.number + 1)):
            root = trust.verify_root(read_bounded(path, limits.TRUST_BYTES), root)
        return root

    def signal(self, dataset: str) -> Signal:
        """What moves when the dataset's head does."""
        found = self.signals.get(dataset)
        if found is None:
            found = self.signals[dataset] = Signal(self.want)
        return found

    def want(self) -> None:
        self.wanted.set()

    def expect(self, dataset: str) -> bool:
        """What was not published will not come by asking."""
        return False

    def trust(self, dataset: str, number: int, request: Request) -> Answer:
        return open_file(self.public / dataset / "trust" / str(number), COSE, b"", request)

    def blob(self, dataset: str, name: str, request: Request) -> Answer:
        return open_file(self.public / dataset / "blobs" / name, BLOB, name.encode(), request)

    async def watch(self) -> None:
        """Look at the heads that somebody waits for when they change, for ever: one look for all who wait for one."""
        with DirectoryWatch(LOOK_S, TOLD_LOOK_S) as watch:
            while True:
                await self.wanted.wait()
                self.wanted = trio.Event()
                while followed := [name for name, signal in self.signals.items() if signal.followers]:
                    watch.follow([f"{self.public}/{dataset}" for dataset in followed])
                    for dataset in followed:
                        self.current(dataset)
                    await watch.wait()
                watch.follow(())
