"""A feed in an object store: devices read it there, and here heads are kept fresh and versions ahead released."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import trio

from edged.errors import EdgedError
from edged.feed.names import NAME
from edged.feedserving.app import PublicHead
from edged.files import FileStamp, stamp_of
from edged.origin.publisher import Clock
from edged.origin.release import verify_under_any
from edged.origin.serving.keeping import keep_all
from edged.origin.shelves.shelf import Shelves
from edged.origin.signing.roots import load_roots
from edged.threads import in_thread

logger = logging.getLogger("edged.origin")

ASK_S = 300.0  # a head is asked for again after that long; and whenever something was published here
Stamps = tuple[FileStamp | None, ...]


class StoredHeads:
    """Asks the store for a head when the publisher's own state has changed: each publish changes that, and a request a
    second would cost money."""

    def __init__(self, feed_dir: Path, shelves: Shelves, elapsed: Callable[[], float] = time.monotonic) -> None:
        self.private, self.shelves, self.elapsed = feed_dir / "private", shelves, elapsed
        self.known: dict[str, tuple[Stamps, float, PublicHead | None]] = {}
        self.asking = trio.Lock()

    def datasets(self) -> list[str]:
        return sorted(path.stem for path in (self.private / "state").glob("*.db") if NAME.fullmatch(path.stem))

    async def newest(self, dataset: str) -> PublicHead | None:
        """Where the store cannot be asked, what it had before."""
        async with self.asking:
            return await self.look(dataset)

    async def look(self, dataset: str) -> PublicHead | None:
        base = self.private / "state" / f"{dataset}.db"
        try:
            stamps: Stamps = tuple(map(stamp_of, (base, Path(f"{base}-wal"), self.private / "trust")))
        except OSError as fault:
            logger.error("the state of %s cannot be looked at: %s", dataset, fault.strerror)
            stamps = ()
        held, asked_at, found = self.known.get(dataset, ((), 0.0, None))
        now = self.elapsed()
        if not stamps or held != stamps or now - asked_at >= ASK_S:
            try:
                found = await in_thread(self.read, dataset)
            except EdgedError as fault:
                logger.error("the head of %s in %s: %s", dataset, self.shelves.where, fault)
                stamps = held  # it is asked for again at the next look
            self.known[dataset] = stamps, now, found
        return found

    def read(self, dataset: str) -> PublicHead | None:
        data = self.shelves.of(dataset).head()
        if data is None:
            return None
        return PublicHead.of(data, verify_under_any(load_roots(self.private), data, dataset).head)


async def keep_stored(
    feed_dir: Path,
    shelves: Shelves,
    *,
    clock: Clock = time.time,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """For ever: what `serve_feed` does beside answering. Raises EdgedError where FEED_DIR is no feed."""
    await in_thread(load_roots, feed_dir / "private")
    task_status.started()
    await keep_all(feed_dir, StoredHeads(feed_dir, shelves), clock)
