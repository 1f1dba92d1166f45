"""Heads to a broker as they go live: `[announce]` of feed.toml.

A head is live before it is announced. What the broker does costs no publish and no lock: the connection is made beside
the work, and a broker that is away is one line in the log.
"""

from __future__ import annotations

import logging
import queue
import threading
from pathlib import Path
from typing import Self

from edged.announce.broker import CONNECT_S, BrokerAccess
from edged.announce.putting import Announcer
from edged.errors import EdgedError
from edged.origin.declared.feed import load_feed_rules

logger = logging.getLogger("edged.origin")

FLUSH_S = CONNECT_S  # how long a publish waits at its end for a broker


class Announcements:
    """The heads of one operation. A context manager: at its end what was told has been announced, or said not to be."""

    def __init__(self, access: BrokerAccess | None) -> None:
        self.access = access
        self.heads: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None

    @classmethod
    def of(cls, feed_dir: Path) -> Self:
        """Raises ConfigError for a feed.toml that is faulty."""
        return cls(load_feed_rules(feed_dir).announce.access)

    def __enter__(self) -> Self:
        if self.access is not None:
            thread = threading.Thread(target=self.work, args=(self.access,), name="announce", daemon=True)
            try:
                thread.start()
            except RuntimeError as fault:  # the system gives none
                logger.warning("heads are not announced: %s; devices find them by their polls", fault)
            else:
                self.thread = thread
        return self

    def __exit__(self, *_: object) -> None:
        if self.thread is not None:
            self.heads.put(None)
            self.thread.join(FLUSH_S)

    def tell(self, dataset: str, head: bytes) -> None:
        """A head is live."""
        if self.thread is not None:
            self.heads.put((dataset, head))

    def work(self, access: BrokerAccess) -> None:
        with Announcer(access) as announcer:
            try:
                announcer.connected()  # beside the publish, whose head then finds the connection made
            except EdgedError as fault:
                logger.debug("%s", fault)  # said below if there is a head to announce
            while (item := self.heads.get()) is not None:
                try:
                    announcer.announce(*item)
                except EdgedError as fault:
                    logger.warning("%s; the head is live, and devices find it by their polls", fault)
