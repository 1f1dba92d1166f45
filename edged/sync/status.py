"""What is known of one dataset's synchronisation; it feeds /status, the metrics and `edged status`."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import trio

from edged.clock import freshness
from edged.progress import Watch, unwatched
from edged.sync.transports.transport import Traffic

UPDATES, ERRORS = 50, 20  # of the last, in memory alone
ERROR_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class LastUpdate:
    """The newest committed update. kinds: by slice, see events.Updated; bytes on the wire; seconds from its head on;
    full_bytes: what all of it would have taken, 0 where that is not known."""

    version: int
    before: int
    kinds: Mapping[str, str]
    bytes_received: int
    bytes_sent: int
    seconds: float
    full_bytes: int = 0

    def document(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "before": self.before,
            "kinds": dict(self.kinds),
            "bytes_received": self.bytes_received,
            "bytes_sent": self.bytes_sent,
            "seconds": round(self.seconds, 3),
            "full_bytes": self.full_bytes,
        }


@dataclass(frozen=True, slots=True)
class NotedError:
    """An error, its class, "" where that is not known, and when it was last met, in seconds since 1970."""

    text: str
    time: float
    kind: str = ""


@dataclass(slots=True)
class BrokerStatus:
    """connected: whether it would bring a new head; heads: messages that came; last_error: None when all is well."""

    connected: bool = False
    heads: int = 0
    last_error: str | None = None


@dataclass(slots=True)
class DatasetStatus:
    """Written by the sync task alone, read by anyone in the process. Bytes and counts are since the process began.

    as_of: signed_at of the head in force (0: none); flash_bytes_written: of the replica, over all processes;
    connected: whether the origin answered when last asked; origin: the one in use; last_error: None when all is well;
    writing_since_s: monotonic time at which the writer's work under way began, None: none is;
    offered: the version that a rollout offers to some devices, held when this is one of them; newest: the greatest
    version number known of; broker: that announces heads, where one does; lost: whether the origin that answered before
    does not any more; updates, errors: the last ones, oldest first, with their times; last_success_s: when all was well
    after an origin was asked, since 1970; steps_done, steps: how
    far an update under way has come, a part of a snapshot or a hop being one (0, 0: none is); watch: told of these two;
    full_bytes: what the newest snapshots that were seen take, 0: none was.
    """

    dataset: str
    traffic: Traffic = field(default_factory=Traffic)
    version: int = 0
    as_of: int = 0
    fresh_s: int = 0
    expires_s: int = 0
    slices: dict[str, int] = field(default_factory=dict)
    pinned: int | None = None
    newest: int = 0
    offered: int | None = None
    snapshots_applied: int = 0
    hops_applied: int = 0
    repairs: int = 0
    flash_bytes_written: int = 0
    writing_since_s: float | None = None
    last_error: str | None = None
    last_update: LastUpdate | None = None
    updates: deque[tuple[float, LastUpdate]] = field(default_factory=lambda: deque(maxlen=UPDATES))
    errors: deque[NotedError] = field(default_factory=lambda: deque(maxlen=ERRORS))
    flash_bytes_at_start: int | None = None
    last_success_s: float = 0.0
    connected: bool = False
    lost: bool = False
    origin: str = ""
    broker: BrokerStatus | None = None
    steps_done: int = 0
    steps: int = 0
    full_bytes: int = 0
    watch: Watch = unwatched
    news: trio.Event = field(default_factory=trio.Event)

    def note_steps(self, left: int) -> None:
        """How many steps of an update are left, 0 when it is over; more may turn up on the way."""
        self.steps_done = self.steps_done + max(self.steps - self.steps_done - left, 0) if left else 0
        self.steps = self.steps_done + left
        self.watch(self.dataset, self.steps_done, self.steps)

    def note_update(self, update: LastUpdate, now_s: float) -> None:
        self.last_update = update
        self.updates.append((now_s, update))

    def note_error(self, text: str, now_s: float, kind: str = "") -> None:
        """One that goes on is one, met last now."""
        if self.errors and self.errors[-1].text == text:
            self.errors.pop()
        self.errors.append(NotedError(text[:ERROR_CHARACTERS], now_s, kind))

    def changed(self) -> None:
        """Wake those who wait for what is held to change."""
        self.news.set()
        self.news = trio.Event()

    async def wait_changed(self) -> None:
        await self.news.wait()

    def ends_s(self, now_s: float) -> tuple[float, float]:
        """In how many seconds what is held turns stale and expires; negative for what is over."""
        return self.as_of + self.fresh_s - now_s, self.as_of + self.expires_s - now_s

    @property
    def bytes_received(self) -> int:
        return self.traffic.received

    @property
    def bytes_sent(self) -> int:
        return self.traffic.sent

    @property
    def flash_bytes_since_start(self) -> int:
        return 0 if self.flash_bytes_at_start is None else self.flash_bytes_written - self.flash_bytes_at_start

    def state(self, now_s: float) -> str:
        """`fresh`, `stale` or `expired` at `now_s` (seconds since 1970, of clock.py); `empty` before a version."""
        if self.version == 0:
            return "empty"
        return freshness(now_s - self.as_of, self.fresh_s, self.expires_s)

    def document(self, now_s: float) -> dict[str, Any]:
        """The dataset's member of /status."""
        return {
            "version": self.version,
            "state": self.state(now_s),
            "as_of": self.as_of,
            "slices": dict(self.slices),
            "pinned": self.pinned,
            "offered": self.offered,
            "origin": self.origin,
            "connected": self.connected,
            "last_success": int(self.last_success_s),
            "bytes_received": self.bytes_received,
            "bytes_sent": self.bytes_sent,
            "snapshots_applied": self.snapshots_applied,
            "hops_applied": self.hops_applied,
            "repairs": self.repairs,
            "flash_bytes_written": self.flash_bytes_written,
            "flash_bytes_since_start": self.flash_bytes_since_start,
            "full_bytes": self.full_bytes,
            "updates": [{"time": int(time), **update.document()} for time, update in self.updates],
            "errors": [{"time": int(error.time), "text": error.text, "kind": error.kind} for error in self.errors],
            "steps_done": self.steps_done,
            "steps": self.steps,
            "last_update": None if self.last_update is None else self.last_update.document(),
            "broker": None if self.broker is None else asdict(self.broker),
            "last_error": self.last_error,
        }
