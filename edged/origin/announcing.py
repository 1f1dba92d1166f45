"""Heads to a broker as they go live: `[announce]` of feed.toml.

A head is live before it is announced. What the broker does costs no publish and no lock: the connection is made beside
the work, a head is sent as soon as it is live, and that the broker has it is waited for at the end. A broker that is
away is one line in the log.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edged.announce.broker import CONNECT_S
from edged.announce.putting import Announcer
from edged.errors import EdgedError, TransportError
from edged.origin.declared.feed import load_feed_rules

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessageInfo

logger = logging.getLogger("edged.origin")

FLUSH_S = CONNECT_S  # how long a publish waits at its end for a broker


class Announcements:
    """The heads of one operation after the other. A context manager for each: at its end what was told has been
    announced, or said not to be. Raises ConfigError at its beginning for a feed.toml that is faulty.

    keeps: the connection stays from one operation to the next, until `close`.
    """

    def __init__(self, feed_dir: Path) -> None:
        self.feed_dir = feed_dir
        self.keeps = False
        self.announcer: Announcer | None = None
        self.thread: threading.Thread | None = None
        self.fault: EdgedError | None = None
        self.waiting: dict[str, bytes] = {}  # the newest head of each dataset that could not be sent yet
        self.sent: dict[str, tuple[bytes, MQTTMessageInfo]] = {}

    def __enter__(self) -> Self:
        access = load_feed_rules(self.feed_dir).announce.access
        if self.announcer is None or self.announcer.access != access:
            self.close()
            self.announcer = None if access is None else Announcer(access)
        if self.announcer is not None and not self.announcer.is_ready:
            self.begin(self.announcer)
        return self

    def begin(self, announcer: Announcer) -> None:
        """Connect, beside the work."""
        self.thread = threading.Thread(target=self.connect, args=(announcer,), name="announce", daemon=True)
        try:
            self.thread.start()
        except RuntimeError as fault:  # the system gives none
            self.thread, self.fault = None, TransportError(f"broker {announcer.access.url}: {fault}")

    def connect(self, announcer: Announcer) -> None:
        try:
            announcer.connected()
        except EdgedError as fault:
            self.fault = fault
        if announcer is not self.announcer:  # nobody waits for it any more
            announcer.close()

    @property
    def is_connecting(self) -> bool:
        """Whether the announcer is the other thread's."""
        return self.thread is not None and self.thread.is_alive()

    def tell(self, dataset: str, head: bytes) -> None:
        """A head is live."""
        if self.announcer is None:
            return
        self.waiting[dataset] = head
        if not self.is_connecting and self.announcer.is_ready:
            try:
                self.sent[dataset] = head, self.announcer.send(dataset, head)
            except TransportError as fault:
                logger.debug("%s", fault)  # it is sent again at the end
            else:
                del self.waiting[dataset]

    def __exit__(self, *_: object) -> None:
        if self.thread is not None:
            self.thread.join(FLUSH_S)
        waiting, sent, fault = self.waiting, self.sent, self.fault
        self.waiting, self.sent, self.fault = {}, {}, None
        announcer = self.announcer
        if self.is_connecting and announcer is not None:
            self.announcer, fault = None, TransportError(f"broker {announcer.access.url}: no answer in {FLUSH_S:.0f} s")
        self.thread = None
        if announcer is None:
            return
        for dataset, (head, told) in sent.items():
            if dataset not in waiting and fault is None:
                waiting.update(self.unconfirmed(announcer, dataset, head, told))
        for dataset, head in waiting.items():
            self.announce(announcer, dataset, head, fault)
        if not self.keeps:
            self.close()

    @staticmethod
    def unconfirmed(announcer: Announcer, dataset: str, head: bytes, told: MQTTMessageInfo) -> dict[str, bytes]:
        """The head by its dataset, where the broker does not say that it has it."""
        try:
            announcer.confirm(dataset, told)
        except TransportError as fault:
            logger.debug("%s", fault)
            return {dataset: head}
        return {}

    @staticmethod
    def announce(announcer: Announcer, dataset: str, head: bytes, fault: EdgedError | None) -> None:
        """fault: why it is no use to try."""
        try:
            if fault is not None:
                raise fault
            announcer.announce(dataset, head)
        except EdgedError as found:
            logger.warning("%s; the head is live, and devices find it by their polls", found)

    def close(self) -> None:
        announcer, self.announcer = self.announcer, None
        if announcer is not None:
            announcer.close()
