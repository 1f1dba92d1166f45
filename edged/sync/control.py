"""How the rest of the daemon reaches into a running synchronisation: pin, damage that was found, ask now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import trio

from edged.errors import ConfigError, RequestError
from edged.replica.audit import Finding


class Control:
    """One a dataset.

    nudged: what waits for the origin is to be cut short; repinned: so is an update; keep_pin: set by the task;
    announced: a broker has brought `announcement`; pushed: whether it would bring the next head too; doubted: whether
    it is connected, and has brought what is forged since the last rightful head.
    """

    def __init__(self) -> None:
        self.nudged, self.repinned = trio.Event(), trio.Event()
        self.faults: list[Finding] = []
        self.announced = trio.Event()
        self.announcement: bytes | None = None
        self.pushed = self.doubted = False
        self.audit_wanted = trio.Event()
        self.keep_pin: Callable[[int | None], Awaitable[None]] | None = None

    def nudge(self) -> None:
        """Ask the origin again now."""
        self.nudged.set()

    def announce(self, head: bytes) -> None:
        """A broker has brought this; it has not been judged. One that was not looked at yet is let go for it."""
        self.announcement = head
        self.announced.set()

    def take_announcement(self) -> bytes | None:
        found, self.announcement, self.announced = self.announcement, None, trio.Event()
        return found

    def doubt(self) -> None:
        """A broker that is connected may not bring the next head."""
        self.pushed, self.doubted = False, True

    def believe(self) -> None:
        """It has brought a rightful one."""
        self.pushed, self.doubted = self.pushed or self.doubted, False

    def taken(self) -> None:
        """What was asked for is being looked after."""
        self.nudged, self.repinned = trio.Event(), trio.Event()

    def damaged(self, slice_name: str, reason: str) -> None:
        """Whoever reads found a slice damaged: it is fetched anew from its snapshot. "": what belongs to no slice."""
        self.found([Finding("", slice_name, "", reason)])

    def found(self, faults: Iterable[Finding]) -> None:
        """What an audit or a reader has found: it is made anew."""
        self.faults.extend(faults)
        self.nudge()

    def audit(self) -> None:
        """Look over everything on disk now."""
        self.audit_wanted.set()

    async def pin(self, version: int | None) -> None:
        """Hold the dataset at `version`, or let it follow again (None); returns when that is kept on disk.

        That is at once, also while an update is under way, which then gives way. Raises ConfigError for a number that
        is no version, RequestError for one that is not known or while the dataset is starting, StoreError if it cannot
        be kept.
        """
        if version is not None and version < 1:
            raise ConfigError(f"pin at {version}: versions begin at 1; see `edged status` for the one that is held")
        if self.keep_pin is None:
            raise RequestError(503, "pin: what is held is not known yet; try again in a moment")
        await self.keep_pin(version)
        self.repinned.set()
        self.nudge()
