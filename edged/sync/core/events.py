"""What the machine is told (events), what it asks for (effects) and what is then under way (phases).

Events and effects are frozen values in two closed unions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from edged.errors import EdgedError
from edged.feed.blob import BlobRef
from edged.feed.schema import Schema

WAIT_S = 240  # how long the origin is asked to hold a poll
SEED = -1  # the origin number of the seed bundle; 0 and up are those of the configuration, in their order


@dataclass(frozen=True, slots=True)
class Instant:
    """clock_s: seconds since 1970 UTC as the system says, right or not; elapsed_s: seconds that never run backwards."""

    clock_s: float
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class CarriedSlice:
    """A slice on disk. dictionaries: the SHA-256 of each that the replica holds for it; damaged: why its files cannot
    be used, None if they can; cut: whether it lacks a record that was taken down and that its version has."""

    version: int
    digest: bytes
    records: int
    dictionaries: tuple[bytes, ...] = ()
    damaged: str | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class HeldState:
    """What the replica holds. version: 0 for nothing; head, roots, takedowns: the bytes as kept; pinned: or None."""

    version: int = 0
    head: bytes | None = None
    roots: bytes | None = None
    slices: Mapping[str, CarriedSlice] = field(default_factory=dict)
    schema_version: int = 0
    takedowns: bytes | None = None
    pinned: int | None = None


@dataclass(frozen=True, slots=True)
class MachineSettings:
    """trust_file: the root of trust as installed; origins: how many; seed: whether there is a seed bundle;
    built_at: when this release was made, seconds since 1970; poll_s: between polls of a host that cannot hold them;
    device_id: decides which rollouts are for this device; empty: none are;
    require: collections that must hold a record, or the version is refused;
    start_within_s: who holds something asks for the first time at its own place in so many seconds;
    thorough: whether all origins are asked before it is said that there is nothing newer."""

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
    start_within_s: float = 0.0
    thorough: bool = False


# ---- what happened


@dataclass(frozen=True, slots=True)
class Started:
    """Once, at first."""


@dataclass(frozen=True, slots=True)
class HeldLoaded:
    held: HeldState


@dataclass(frozen=True, slots=True)
class HeadArrived:
    """carries: the only slices that this source has blobs of (a bundle); None for all."""

    data: bytes
    etag: str | None = None
    carries: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class HeadAnnounced:
    """A broker has brought a head that may follow the newest one, while an origin was waited for."""

    data: bytes


@dataclass(frozen=True, slots=True)
class HeadUnchanged:
    """The origin has no other head than the one that the poll named."""


@dataclass(frozen=True, slots=True)
class TrustArrived:
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class TrustMissing:
    number: int


@dataclass(frozen=True, slots=True)
class BlobArrived:
    ref: BlobRef
    data: bytes


@dataclass(frozen=True, slots=True)
class Prefetched:
    """A blob of a version ahead lies on disk."""

    ref: BlobRef


@dataclass(frozen=True, slots=True)
class PartsStaged:
    """Which parts are on disk already, or have been taken from there (SHA-256 each)."""

    parts: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class StageDone:
    """A Stage effect is done."""


@dataclass(frozen=True, slots=True)
class Measured:
    digest: bytes
    records: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A Commit or Touch effect is done."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The effect that was under way, or one listed with it, raised `error`."""

    error: EdgedError


@dataclass(frozen=True, slots=True)
class Woken:
    """The rest is over."""


@dataclass(frozen=True, slots=True)
class Nudged:
    """The pin changed, or someone wants a poll now."""


Event = (
    Started
    | HeldLoaded
    | HeadArrived
    | HeadAnnounced
    | HeadUnchanged
    | TrustArrived
    | TrustMissing
    | BlobArrived
    | Prefetched
    | PartsStaged
    | StageDone
    | Measured
    | Committed
    | Failed
    | Woken
    | Nudged
)


# ---- what to do; of the effects in one list the last is answered by an event, and the first that fails by Failed


@dataclass(frozen=True, slots=True)
class Load:
    """Read what the replica holds."""


@dataclass(frozen=True, slots=True)
class Poll:
    """Ask for the head. after, wait_s: hold the request until there is a newer version; wait_s 0: answer at once."""

    origin: int
    after: int | None
    wait_s: int
    etag: str | None


@dataclass(frozen=True, slots=True)
class FetchTrust:
    origin: int
    number: int


@dataclass(frozen=True, slots=True)
class FetchBlob:
    origin: int
    ref: BlobRef
    what: str


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Have a blob of a version ahead on disk, where FetchBlob finds it."""

    origin: int
    ref: BlobRef
    what: str


@dataclass(frozen=True, slots=True)
class KeepAhead:
    """Not answered: of the blobs of versions ahead only these (SHA-256) are of use from now on."""

    names: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class SaveRoots:
    """Not answered: keep these, in the form of feed/roots.py."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CheckStaged:
    """Which parts of the slice's snapshots lie on disk from an attempt before."""

    slice_name: str


@dataclass(frozen=True, slots=True)
class TakeStaged:
    """Take a part of the snapshot begun from there, if it is there and whole."""

    slice_name: str
    ref: BlobRef


@dataclass(frozen=True, slots=True)
class BeginSnapshot:
    slice_name: str
    version: int
    dictionary: bytes | None


@dataclass(frozen=True, slots=True)
class AddPart:
    slice_name: str
    ref: BlobRef
    data: bytes


@dataclass(frozen=True, slots=True)
class AddDictionary:
    slice_name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ApplyHop:
    slice_name: str
    to_version: int
    data: bytes


@dataclass(frozen=True, slots=True)
class DropSlice:
    slice_name: str


@dataclass(frozen=True, slots=True)
class SetSchema:
    schema: Schema
    schema_version: int


@dataclass(frozen=True, slots=True)
class SetTakedowns:
    data: bytes | None
    entries: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class CheckContent:
    """Fails with content.ContentError if apps could not live with what is staged. whole: all slices are carried."""

    dataset: str
    version: int
    require: tuple[str, ...]
    whole: bool


Action = BeginSnapshot | AddPart | AddDictionary | ApplyHop | DropSlice | SetSchema | SetTakedowns | CheckContent


@dataclass(frozen=True, slots=True)
class Stage:
    """Do this beside the live state; nothing shows before Commit."""

    action: Action


@dataclass(frozen=True, slots=True)
class Measure:
    """The digest and number of records of a staged slice."""

    slice_name: str


@dataclass(frozen=True, slots=True)
class Commit:
    """Make the staged state the live one. as_of: signed_at of the head in force."""

    version: int
    head: bytes
    as_of: int
    fresh_s: int
    expires_s: int


@dataclass(frozen=True, slots=True)
class Touch:
    """The same content, vouched for anew."""

    head: bytes
    as_of: int
    fresh_s: int
    expires_s: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """Not answered: let go of what is staged; whole snapshot parts may be kept for the next attempt."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Do nothing for so long, or until nudged."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Tell:
    """Not answered: for whoever watches."""

    news: News


Effect = (
    Load
    | Poll
    | FetchTrust
    | FetchBlob
    | Prefetch
    | KeepAhead
    | SaveRoots
    | CheckStaged
    | TakeStaged
    | Stage
    | Measure
    | Commit
    | Touch
    | Abandon
    | Rest
    | Tell
)


# ---- what is under way


class Phase(Enum):
    """What is under way."""

    NEW = auto()
    LOADING = auto()
    TRUST = auto()
    POLLING = auto()
    FETCHING = auto()
    PREFETCHING = auto()
    APPLYING = auto()
    COMMITTING = auto()
    RESTING = auto()


PHASE_OF: dict[type[Effect], Phase] = {
    Load: Phase.LOADING,
    FetchTrust: Phase.TRUST,
    Poll: Phase.POLLING,
    FetchBlob: Phase.FETCHING,
    Prefetch: Phase.PREFETCHING,
    CheckStaged: Phase.APPLYING,
    TakeStaged: Phase.APPLYING,
    Stage: Phase.APPLYING,
    Measure: Phase.APPLYING,
    Commit: Phase.COMMITTING,
    Touch: Phase.COMMITTING,
    Rest: Phase.RESTING,
}


# ---- news


@dataclass(frozen=True, slots=True)
class Updated:
    """A version was committed.

    kinds: by slice "snapshot", "hops", "snapshot+hops" or "dropped"; hops, snapshots: how many of each were applied;
    full_bytes: what the newest snapshots of these slices take, 0 where that was not seen, as the chain was not fetched.
    """

    version: int
    before: int
    kinds: Mapping[str, str]
    hops: int
    snapshots: int
    full_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """Nothing is left to do until there is a newer head. signed_at: of the newest head seen.

    fault: what stands in the way of having what that head says, or of believing that it is the newest; None: nothing.
    """

    origin: int
    version: int
    signed_at: int
    fault: EdgedError | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something was refused or did not arrive; what is held goes on being served. final: this round is over for it."""

    error: EdgedError
    final: bool = False


@dataclass(frozen=True, slots=True)
class Repairing:
    """A slice is taken from its snapshot because of `error`."""

    slice_name: str
    error: EdgedError


News = Updated | Settled | Trouble | Repairing
