"""How the rest of the daemon reaches into a running synchronisation: pin, new slices, look now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from edged.errors import ConfigError, EdgedError
from edged.replica.audit import Finding


@dataclass(slots=True, eq=False)
class PinRequest:
    version: int | None
    done: trio.Event = field(default_factory=trio.Event)
    error: EdgedError | None = None


class Control:
    """One a dataset. slices: those to carry; may be changed while it runs."""

    def __init__(self, slices: Iterable[str]) -> None:
        self.slices = frozenset(slices)
        self.event = trio.Event()
        self.pins: list[PinRequest] = []
        self.faults: list[Finding] = []
        self.audit_wanted = trio.Event()

    def nudge(self) -> None:
        """Ask the origin again now."""
        self.event.set()

    def reconfigure(self, slices: Iterable[str]) -> None:
        """Carry these slices from now on: others are dropped, missing ones fetched."""
        self.slices = frozenset(slices)
        self.nudge()

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

        Raises ConfigError for a number that is no version, StoreError if it cannot be kept.
        """
        if version is not None and version < 1:
            raise ConfigError(f"pin at {version}: versions begin at 1; see `edged status` for the one that is held")
        request = PinRequest(version)
        self.pins.append(request)
        self.nudge()
        await request.done.wait()
        if request.error is not None:
            raise request.error
