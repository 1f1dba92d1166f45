"""Prepare a version, hand it out sealed, release it or take it back: each on an open workplace, all or nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from edged.errors import OriginError, ValidationError
from edged.feed import limits
from edged.feed.ahead.sealed import KEY_BYTES, TAG_BYTES, Ahead, SealedHop
from edged.feed.trust.sealing import bound_to, seal
from edged.origin.ahead import plans
from edged.origin.ahead.plans import Edit, Plan
from edged.origin.applying import Applied, Row
from edged.origin.blobs.hops import HOP_CONTENT_BYTES, HopSpan, make_hop
from edged.origin.blobs.laid import make_laid
from edged.origin.declared.validate import Permitted
from edged.origin.edition import Edition, visible_rows
from edged.origin.input import comparing
from edged.origin.input.comparing import RecordSource
from edged.origin.input.lines import Faults
from edged.origin.input.reading import InputEntry
from edged.origin.release import Workplace, releasing
from edged.origin.results import PublishResult
from edged.origin.state import HIDDEN, SliceVersion
from edged.progress import Steps, Watch, unwatched

SPREAD_S = 600  # within which devices fetch, where nothing else is said
WINDOW = 0.8  # of the time up to the release, at the most


@dataclass(frozen=True, slots=True)
class AheadOptions:
    """at: when it goes live, seconds since 1970, None for when it is told to; spread_s: within which devices fetch;

    message: kept in the log; force_change, allow_removals: as with a publish.
    """

    at: int | None = None
    spread_s: int = SPREAD_S
    message: str = ""
    force_change: bool = False
    allow_removals: bool = False


@dataclass(frozen=True, slots=True)
class AheadResult:
    """version: what it will be; base: what it builds on; slices: sealed bytes by slice; spread_s: see Ahead."""

    dataset: str
    version: int
    base: int
    at: int | None
    spread_s: int
    added: int
    changed: int
    removed: int
    slices: dict[str, int]
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """What a version comes to. digests: of the slices that it changes; hops: by slice where one starts, and its bytes;
    slices that only a snapshot leads to have none."""

    applied: Applied
    digests: dict[str, bytes]
    hops: dict[str, tuple[int, bytes]]


class TrialOver(Exception):
    """Ends the transaction in which the version was tried out."""


class KeptEdits:
    """The changes of a plan as an input."""

    edits = True

    def __init__(self, edits: Sequence[Edit]) -> None:
        self.kept = edits
        self.faults = Faults()

    def name_of(self, place: int) -> str:
        return f"change {place} of the version ahead"

    def entries(self) -> Iterator[InputEntry]:
        for place, (collection, key, value) in enumerate(self.kept):
            yield InputEntry(collection, key, value, place)


def prepare(place: Workplace, source: RecordSource, options: AheadOptions, *, watch: Watch = unwatched) -> AheadResult:
    """Prepare what `source` holds as the version that follows the live one, and have devices fetch it sealed.

    It replaces one that was prepared before. Raises EdgedError, and then nothing has changed.
    """
    what = f"prepare a version ahead of dataset {place.dataset}"
    if place.rollout is not None:
        raise OriginError(f"{what}: a rollout is under way; complete or withdraw that first (edged origin rollout)")
    if options.at is not None and options.at <= place.now:
        raise OriginError(f"{what}: the time given is over; name one to come, or publish")
    incoming = comparing.Incoming(place.state, source)
    count = incoming.gather(Steps(watch, "reading").advance)
    if not source.edits:
        if not count:
            raise ValidationError(f"{what}: the input holds no record, which would remove all; publish that instead")
        comparing.mark_missing(place.state)
    edits = list(incoming.differing())
    return hand_out(place, edits, options, source.edits or options.allow_removals, watch)


def hand_out(
    place: Workplace, edits: list[Edit], options: AheadOptions, removals: bool, watch: Watch = unwatched
) -> AheadResult:
    """Seal the hops to the version that `edits` make, under a new key, and announce them."""
    state, what = place.state, f"prepare a version ahead of dataset {place.dataset}"
    base, key = state.live, secrets.token_bytes(KEY_BYTES)
    edition = Edition(place, "publish", watch)
    permitted = Permitted(options.force_change, removals=removals, slices=options.allow_removals)
    trial = try_out(place, edition, edits, permitted)
    applied = trial.applied
    sealed = {
        name: (low, seal(key, bound_to(place.dataset, name, low, base + 1), data))
        for name, (low, data) in trial.hops.items()
    }
    spread_s = options.spread_s
    if options.at is not None:
        spread_s = min(spread_s, int((options.at - place.now) * WINDOW))
    with releasing(place, what):
        refs = {name: SealedHop(low, place.blobs.store("ahead", data)) for name, (low, data) in sealed.items()}
        ahead = Ahead(base + 1, place.now, spread_s, refs)
        plan = Plan(base, key, ahead, trial.digests, options.at, options.message)
        plans.keep(state, plan, edits)
    sizes = {name: hop.blob.size for name, hop in ahead.hops.items()}
    counts = (applied.added, applied.changed, applied.removed)
    return AheadResult(
        place.dataset, base + 1, base, options.at, spread_s, *counts, slices=sizes, hints=tuple(edition.hints)
    )


def try_out(place: Workplace, edition: Edition, edits: list[Edit], permitted: Permitted) -> Trial:
    """Make the version without its head, and let go of it. Raises EdgedError."""
    state = place.state
    place.blobs.rehearse()
    try:
        with state.transaction(edition.kind):
            applied, made = edition.prepare(lambda: changes(place, edits, edition), permitted)
            if not made:
                raise OriginError(
                    f"prepare a version ahead of dataset {place.dataset}: nothing would change; look at the input"
                )
            hops = {
                name: (before.version, data)
                for name, before in applied.touched.items()
                if (data := quick_hop(edition, name, before)) is not None
            }
            digests = {name: state.slice_at(name).digest for name in applied.touched}
            raise TrialOver
    except TrialOver:
        return Trial(applied, digests, hops)
    finally:
        place.blobs.memory = None


def quick_hop(edition: Edition, name: str, before: SliceVersion) -> bytes | None:
    """The slice's hop from `before` to the newest version, coded for the time that it takes to be applied rather than
    for its bytes, which have time to travel. None where only a snapshot will do."""
    state, now = edition.state, edition.state.slice_at(name)
    made = state.rows(
        "SELECT 1 FROM hops WHERE slice = ? AND from_version = ? AND to_version = ?",
        (name, before.version, now.version),
    )
    if next(made, None) is None:
        return None
    dictionary, span = edition.dictionary_for_hops(name).content, HopSpan(name, before, now)
    data = make_laid(state, span, dictionary)
    if data is None:  # too large to be laid down at once
        data = make_hop(state, span, dictionary, most_content=HOP_CONTENT_BYTES, bits=0)
    return data if data is not None and len(data) + TAG_BYTES <= limits.BLOB_BYTES else None


def changes(place: Workplace, edits: Iterable[Edit], edition: Edition) -> Iterator[Row]:
    """The rows of `edits`, of what is taken down only the value that `restore` brings back."""
    hidden = set(place.state.hidden())
    for collection, key, value in edits:
        if (collection, key) in hidden:
            yield collection, key, HIDDEN, value
        else:
            yield from visible_rows(place.state, [(collection, key, value)], edition.slicer)


def release(place: Workplace, *, watch: Watch = unwatched) -> PublishResult:
    """Make the version ahead live, with the key of what devices have fetched of it.

    Where a takedown came in between it is an ordinary version, without what is taken down. Raises EdgedError.
    """
    plan = standing(place, "release")
    if plan.base == place.state.live:
        place.releases = plan
    edition = Edition(place, "release", watch)
    edition.message = plan.message
    edits = list(plans.edits_of(place.state))
    permitted = Permitted(True, removals=True, slices=True)
    try:
        return edition.release(lambda: changes(place, edits, edition), permitted)
    finally:
        place.releases = None


def withdraw(place: Workplace) -> int:
    """Take the version ahead back: its key is never given away. Returns what would have been its number."""
    plan = standing(place, "withdraw")
    with releasing(place, f"withdraw the version ahead of dataset {place.dataset}"):
        plans.forget(place.state)
    return plan.ahead.version


def renew(place: Workplace) -> AheadResult | None:
    """After a takedown: hand out what is prepared anew, on top of it and under another key. None: that need not be."""
    plan = plans.held(place.state)
    if plan is None or plan.base == place.state.live or place.rollout is not None:
        return None
    edits = list(plans.edits_of(place.state))
    spread_s = plan.ahead.spread_s
    return hand_out(place, edits, AheadOptions(plan.at, spread_s, plan.message, True, True), removals=True)


def standing(place: Workplace, what: str) -> Plan:
    """The plan. Raises OriginError where there is none."""
    plan = plans.held(place.state)
    if plan is None:
        raise OriginError(
            f"{what} the version ahead of dataset {place.dataset}: none is prepared; it may be live already, or "
            "another version has superseded it (edged origin log); prepare one with: edged origin ahead"
        )
    return plan
