"""What follows one dataset on this device: its subscription, and what the work is done with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import TypeVar

import trio

from edged.clock import Clock
from edged.errors import EdgedError, RequestError
from edged.feed.head import decode_head
from edged.feed.trust import cose
from edged.replica.writer import HeldVersion
from edged.sync.control import Control
from edged.sync.core.wear import WearBudget
from edged.sync.status import DatasetStatus
from edged.sync.store import Writer
from edged.sync.subscription import Subscription
from edged.threads import in_thread

T = TypeVar("T")
log = logging.getLogger("edged.sync")


@dataclass(slots=True, eq=False)
class Replication:
    """A subscription at work. wear: what merging may write; on_version: called when there may be a new one to read;
    start_within_s: where something is held, for the first request (boots.py).

    lane: the writer is not made for two threads at once.
    """

    subscription: Subscription
    writer: Writer
    status: DatasetStatus
    clock: Clock
    control: Control = field(default_factory=Control)
    wear: WearBudget = field(default_factory=lambda: WearBudget(0, 0.0))
    on_version: Callable[[], object] = lambda: None
    start_within_s: float = 0.0
    lane: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))

    async def write(self, function: Callable[[], T]) -> T:
        """Blocking work on the replica, in a thread; never left half done by a cancellation."""

        def work() -> T:
            self.status.writing_since_s = monotonic()
            try:
                return function()
            finally:
                self.status.writing_since_s = None

        return await in_thread(work, limiter=self.lane)

    async def pin(self, version: int | None) -> None:
        """Keep the pin on disk at once, whatever is under way; see Control.pin.

        Raises RequestError for a version that is not known of (most likely it is mistyped), StoreError if the pin
        cannot be kept.
        """
        status = self.status
        if version is not None and status.newest and version > status.newest:
            raise RequestError(
                409,
                f"pin {status.dataset} at {version}: no such version yet, the newest one known is {status.newest}; "
                "pin at one up to that",
            )
        await self.write(partial(self.writer.pin, version))
        self.note_pin(version)

    def note_pin(self, version: int | None) -> None:
        if version != self.status.pinned:
            words = "follows the live version again" if version is None else f"pinned at version {version}"
            log.info("%s: %s", self.status.dataset, words)
        self.status.pinned = version

    def note_held(self, held: HeldVersion) -> None:
        """What the replica holds, for the status and for the clock that may be 1970."""
        status = self.status
        status.version = held.version
        self.note_pin(held.pinned)
        status.flash_bytes_written = held.flash_bytes_written
        if status.flash_bytes_at_start is None:
            status.flash_bytes_at_start = held.flash_bytes_written
        status.slices = {name: item.version for name, item in held.slices.items()}
        status.as_of = held.last_signed_at
        if held.head is not None:
            head = decode_head(cose.open_sign1(held.head, "head as kept")[1])  # verified before it was kept
            status.fresh_s, status.expires_s = head.fresh_s, head.expires_s
            status.newest = max(status.newest, head.newest_version)
            offered = None if head.offer is None else head.offer.version
            if offered is not None and offered != status.offered:
                log.info("%s: version %d is offered to a share of the devices", status.dataset, offered)
            status.offered = offered
        self.clock.seen(held.last_signed_at)
        status.changed()


def one_line(error: EdgedError) -> str:
    return " ".join(str(error).split())
