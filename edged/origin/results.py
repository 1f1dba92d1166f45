"""What an operation made: the figures that commands print and programs read."""

from __future__ import annotations

from dataclasses import dataclass, field

from edged.origin.blobs.snapshots import snapshot_bytes
from edged.origin.state import State


@dataclass(frozen=True, slots=True)
class SliceResult:
    """hop_bytes: of the hop from the version before, None if there is none; snapshot_bytes: of the newest snapshot,
    which was made at `snapshot_version`."""

    version: int
    records: int
    hop_bytes: int | None
    snapshot_bytes: int
    snapshot_version: int


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What an operation made live. unchanged: the version is the one before, only its head was signed anew.

    permille: the share of devices that the version is offered to; None: all; hints: what may be a slip; rehearsed:
    nothing was written, this is what would have come of it.
    """

    dataset: str
    version: int
    unchanged: bool
    added: int = 0
    changed: int = 0
    removed: int = 0
    head_bytes: int = 0
    permille: int | None = None
    slices: dict[str, SliceResult] = field(default_factory=dict)
    hints: tuple[str, ...] = ()
    rehearsed: bool = False

    @property
    def hop_bytes(self) -> int:
        """What a device with all slices fetches to come from the version before."""
        return sum(item.hop_bytes or 0 for item in self.slices.values() if item.version == self.version)

    @property
    def snapshot_bytes(self) -> int:
        return sum(item.snapshot_bytes for item in self.slices.values())


def slice_result(state: State, name: str, version: int) -> SliceResult:
    """The slice as it was at dataset version `version`; the oldest snapshot where those up to then are gone."""
    item = state.slice_at(name, at=version)
    hop = next(
        state.rows(
            "SELECT size FROM hops WHERE slice = ? AND to_version = ? ORDER BY from_version DESC LIMIT 1",
            (name, item.version),
        ),
        None,
    )
    last = next(
        state.rows(
            "SELECT version FROM snapshots WHERE slice = ? ORDER BY version > ?, abs(version - ?) LIMIT 1",
            (name, version, version),
        ),
        None,
    )
    size = snapshot_bytes(state, name, last[0]) if last else 0
    return SliceResult(item.version, item.records, hop and hop[0], size, last[0] if last else 0)
