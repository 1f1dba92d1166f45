"""The steps of an update: frozen values in a closed union, each naming its slice, or None for the whole dataset."""

from __future__ import annotations

from dataclasses import dataclass

from edged.feed.blob import BlobRef
from edged.feed.chain import PageRef, SnapshotRef
from edged.feed.head import HopRef
from edged.sync.core.events import CarriedSlice


@dataclass(frozen=True, slots=True)
class Target:
    """What a slice must become. digest and records None: not signed for this version; every hop to it is, by name."""

    version: int
    digest: bytes | None
    records: int | None


def same(held: CarriedSlice, target: Target) -> bool:
    """Whether the content is that of the target, as far as it is signed."""
    return target.digest in (None, held.digest) and target.records in (None, held.records)


@dataclass(frozen=True, slots=True)
class DropIt:
    slice_name: str


@dataclass(frozen=True, slots=True)
class FindPinned:
    """Look up in the chain what version of the slice the pinned dataset version has."""

    slice_name: str


@dataclass(frozen=True, slots=True)
class PlanIt:
    """afresh: do not build on what is held."""

    slice_name: str
    target: Target
    afresh: bool = False


@dataclass(frozen=True, slots=True)
class TakePage:
    """Add a page of the chain to what is known of it."""

    slice_name: str
    page: PageRef


@dataclass(frozen=True, slots=True)
class BeginIt:
    slice_name: str
    snapshot: SnapshotRef


@dataclass(frozen=True, slots=True)
class TakePart:
    """on_disk: whether it lies there from an attempt before, as far as is known."""

    slice_name: str
    ref: BlobRef
    on_disk: bool = False


@dataclass(frozen=True, slots=True)
class TakeDictionary:
    """tag: of the content that a hop needs; a dictionary that turns out to be another is passed over."""

    slice_name: str
    ref: BlobRef
    tag: bytes


@dataclass(frozen=True, slots=True)
class TakeHop:
    slice_name: str
    hop: HopRef


@dataclass(frozen=True, slots=True)
class CheckIt:
    slice_name: str
    target: Target


@dataclass(frozen=True, slots=True)
class TakeSchema:
    slice_name: None = None


@dataclass(frozen=True, slots=True)
class TakeTakedowns:
    slice_name: None = None


@dataclass(frozen=True, slots=True)
class CheckAll:
    """Look at the collections as a whole."""

    slice_name: None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """touch: nothing but the head is new."""

    touch: bool
    slice_name: None = None


Step = (
    DropIt
    | FindPinned
    | PlanIt
    | TakePage
    | BeginIt
    | TakePart
    | TakeDictionary
    | TakeHop
    | CheckIt
    | TakeSchema
    | TakeTakedowns
    | CheckAll
    | Finish
)
