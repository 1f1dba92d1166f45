"""What the machine is told (events) and what it asks for (effects): frozen values in two closed unions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edged.errors import EdgedError
from edged.feed.blob import BlobRef
from edged.feed.schema import Schema

SEED = -1  # the origin number of the seed bundle; 0 and up are those of the configuration, in their order


@dataclass(frozen=True, slots=True)
class Instant:
    """clock_s: seconds since 1970 UTC as the system says, right or not; elapsed_s: seconds that never run backwards."""

    clock_s: float
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class HeldSlice:
    """A slice on disk. dictionaries: the SHA-256 of each that the replica holds for it; damaged: why its files cannot
    be used, None if they can."""

    version: int
    digest: bytes
    records: int
    dictionaries: tuple[bytes, ...] = ()
    damaged: str | None = None


@dataclass(frozen=True, slots=True)
class HeldState:
    """What the replica holds. version: 0 for nothing; head, roots, takedowns: the bytes as kept; pinned: or None."""

    version: int = 0
    head: bytes | None = None
    roots: bytes | None = None
    slices: Mapping[str, HeldSlice] = field(default_factory=dict)
    schema_version: int = 0
    takedowns: bytes | None = None
    pinned: int | None = None


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
class PartsStaged:
    """Which parts are on disk already, or have been taken from there (SHA-256 each)."""

    parts: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Staged:
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
    """The pin or the configuration changed, or someone wants a poll now. slices: those now configured."""

    slices: frozenset[str]


Event = (
    Started
    | HeldLoaded
    | HeadArrived
    | HeadUnchanged
    | TrustArrived
    | TrustMissing
    | BlobArrived
    | PartsStaged
    | Staged
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


# ---- news


@dataclass(frozen=True, slots=True)
class Updated:
    """A version was committed.

    kinds: by slice "snapshot", "hops", "snapshot+hops" or "dropped"; hops, snapshots: how many of each were applied.
    """

    version: int
    before: int
    kinds: Mapping[str, str]
    hops: int
    snapshots: int


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
