"""The phases of the machine, which of them each effect leads to, and what a machine is made with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from edged.sync.core import events
from edged.sync.core.events import Effect

WAIT_S = 240  # how long the origin is asked to hold a poll


class Phase(Enum):
    """What is under way."""

    NEW = auto()
    LOADING = auto()
    TRUST = auto()
    POLLING = auto()
    FETCHING = auto()
    APPLYING = auto()
    COMMITTING = auto()
    RESTING = auto()


PHASE_OF: dict[type[Effect], Phase] = {
    events.Load: Phase.LOADING,
    events.FetchTrust: Phase.TRUST,
    events.Poll: Phase.POLLING,
    events.FetchBlob: Phase.FETCHING,
    events.CheckStaged: Phase.APPLYING,
    events.TakeStaged: Phase.APPLYING,
    events.Stage: Phase.APPLYING,
    events.Measure: Phase.APPLYING,
    events.Commit: Phase.COMMITTING,
    events.Touch: Phase.COMMITTING,
    events.Rest: Phase.RESTING,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """trust_file: the root of trust as installed; origins: how many; seed: whether there is a seed bundle;
    built_at: when this release was made, seconds since 1970; poll_s: between polls of a host that cannot hold them;
    device_id: decides which rollouts are for this device; empty: none are;
    require: collections that must hold a record, or the version is refused."""

    dataset: str
    trust_file: bytes
    slices: frozenset[str]
    built_at: int
    origins: int = 1
    seed: bool = False
    poll_s: float = 30.0
    wait_s: int = WAIT_S
    device_id: str = ""
    require: tuple[str, ...] = ()
