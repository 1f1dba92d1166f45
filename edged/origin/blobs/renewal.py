"""Blobs that must not be named any more, and what takes their place: a new snapshot, hops past the gap.

A takedown spoils what holds a value of its record; a blob that is lost or damaged spoils what needs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from edged.origin.blobs.dictionaries import StoreBlob, dictionary_in_use
from edged.origin.blobs.hops import HopMaker
from edged.origin.blobs.snapshots import SnapshotMaker
from edged.origin.state import State
from edged.progress import Steps, Watch

BYPASSES = 8  # hops past a gap in the plain ones, for devices from before it; those from before more take the snapshot


@dataclass(slots=True)
class Spoilt:
    """What of one slice must go.

    snapshots: their versions; parts: SHA-256 of those that cannot be taken over; hops: (to, from);
    dictionaries: SHA-256 of their blobs; gaps: numbers of the slice's changes that no plain hop leads over then.
    """

    snapshots: list[int] = field(default_factory=list)
    parts: frozenset[bytes] = frozenset()
    hops: list[tuple[int, int]] = field(default_factory=list)
    dictionaries: list[bytes] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)


def gaps_in(state: State, name: str, hops: Iterable[tuple[int, int]]) -> list[int]:
    """The numbers of the slice's changes whose plain hop is among `hops`."""
    rows = state.rows("SELECT version, counter FROM slices WHERE slice = ?", (name,))
    counters: dict[int, int] = dict(rows)
    return [counters[high] for high, low in hops if counters.get(high, 0) - counters.get(low, 0) == 1]


class Renewal:
    """Puts others in the place of what is spoilt, inside the caller's transaction."""

    def __init__(self, state: State, store: StoreBlob, now: int, watch: Watch) -> None:
        self.state, self.store, self.now, self.watch = state, store, now, watch

    def snapshot(self, name: str, spoilt: Spoilt) -> int | None:
        """Make the slice's snapshot anew where one is spoilt, while its other parts can still be taken over.

        Returns the version of the one that was made.
        """
        if not spoilt.snapshots and not spoilt.dictionaries:
            return None
        steps = Steps(self.watch, f"snapshot of {name}", self.state.slice_at(name).records)
        retrain = dictionary_in_use(self.state, name).sha256 in spoilt.dictionaries
        maker = SnapshotMaker(self.state, self.store, steps.advance)
        made = maker.make(name, retrain=retrain, without=spoilt.parts)
        made.note(self.state, self.now)
        return made.version

    def strike(self, name: str, spoilt: Spoilt, *, kept_snapshot: int | None) -> None:
        """Forget what is spoilt, so that no chain names it. kept_snapshot: the one that was just made without it."""
        self.state.run_many(
            "DELETE FROM hops WHERE slice = ? AND to_version = ? AND from_version = ?",
            [(name, *hop) for hop in spoilt.hops],
        )
        old = [(name, version) for version in spoilt.snapshots if version != kept_snapshot]
        for sha256 in spoilt.dictionaries:
            query = "SELECT version FROM snapshots WHERE slice = ? AND dictionary = ? AND version IS NOT ?"
            old += [(name, row[0]) for row in list(self.state.rows(query, (name, sha256, kept_snapshot)))]
            # Devices that hold it can still decode these hops; others take the snapshot.
            self.state.run("UPDATE hops SET dictionary = NULL WHERE slice = ? AND dictionary = ?", (name, sha256))
        for table in ("snapshots", "parts"):
            self.state.run_many(f"DELETE FROM {table} WHERE slice = ? AND version = ?", old)  # noqa: S608

    def bypass(self, name: str, spoilt: Spoilt, hops: HopMaker) -> None:
        """Hops from just before the newest gaps to the newest version."""
        for change in sorted(spoilt.gaps, reverse=True)[:BYPASSES]:
            hops.make_direct(name, change - 1)
