"""What a version does not have to wait for: skip hops and snapshots, made beside the publisher's lock once it is live.

The state says what is due, so nothing is lost where this is cut short: the next operation on the dataset, or `origin
serve`, makes it. It is worked out from one consistent look at the state, without the lock, so that the next edit never
waits for it; the lock is taken for the moment in which the result is put into the chain. What an edit or a takedown has
overtaken meanwhile is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

from edged.errors import BusyError, EdgedError, OriginError
from edged.feed.coding.arithmetic import BITS_MOST
from edged.feed.coding.hop import is_whole
from edged.feed.plan import REQUEST_BYTES
from edged.origin import takedowns
from edged.origin.blobs.dictionaries import dictionary_in_use
from edged.origin.blobs.hops import HopSpan, content_worth, make_hop, note_hop, path_bytes
from edged.origin.blobs.snapshots import MadeSnapshot, SnapshotMaker, is_due, newest_snapshot
from edged.origin.release import Workplace, releasing
from edged.origin.retention import Keep
from edged.origin.shelves.blobstore import BlobStore
from edged.origin.state import SliceVersion, State
from edged.origin.takedowns import RecordName
from edged.progress import Steps, Watch

HELD_BYTES = 16 << 20  # of hops that are made in one go
SMALL_PATH_BYTES = 16 << 10  # shorter hops of so much together are tried against a longer one without asking,
SMALL_PATH_CHANGES = 512  # as long as they change so many records together: each takes a millisecond to code
GAIN = 0.9  # a skip hop that may be expected to come to more of the shorter ones is not tried

Debt = tuple[str, int, int]  # slice, to version, from version: a skip hop that is owed


@dataclass(frozen=True, slots=True)
class MadeHop:
    """dictionary: SHA-256 of the blob of the one it is coded with."""

    span: HopSpan
    data: bytes
    dictionary: bytes | None


@dataclass(slots=True)
class Upkeep:
    """What was made from one look at the state. paid: what is owed no more; hidden: what was taken down then."""

    hidden: frozenset[RecordName]
    paid: list[Debt] = field(default_factory=list)
    hops: list[MadeHop] = field(default_factory=list)
    snapshot: MadeSnapshot | None = None


@contextmanager
def explained(dataset: str) -> Iterator[None]:
    """Say of a fault that the version is live nevertheless. Raises OriginError, BusyError."""
    try:
        yield
    except BusyError:
        raise
    except EdgedError as fault:
        raise OriginError(
            f"keep up dataset {dataset}: its newest version is live, but its snapshot and skip hops failed: {fault}; "
            "devices come by other ways, and the next operation on the dataset makes them"
        ) from fault


def due_snapshots(state: State, keep: Keep) -> Iterator[str]:
    row = state.version_row(state.live)
    return (name for name in (() if row is None else row.declared) if is_due(state, name, keep.versions))


def make_due(state: State, blobs: BlobStore, keep: Keep, watch: Watch) -> Upkeep | None:
    """Make what is due: the skip hops to one version, the newest first to which any is worth it; without any, one
    snapshot. None: nothing is.

    blobs: apart from the state. Raises OriginError where a proof fails.
    """
    if takedowns.unfinished(state):  # what is made now might hold what has to go
        return None
    work = Upkeep(frozenset(state.hidden()))
    debts: list[Debt] = list(
        state.rows(
            "SELECT slice, to_version, from_version FROM owed ORDER BY to_version DESC, slice, from_version DESC"
        )
    )
    if debts:
        oldest = max(keep.oldest(state.newest()), int(state.meta("journal_from") or 1))
        steps = Steps(watch, "making skip hops", len(debts))
        for _, theirs in groupby(debts, lambda debt: debt[1]):
            for _, mine in groupby(theirs, lambda debt: debt[0]):
                make_skips(state, work, list(mine), oldest)
                steps.advance()
            if work.hops:
                break
        return work
    name = next(due_snapshots(state, keep), None)
    if name is None:
        return None
    steps = Steps(watch, f"snapshot of {name}", state.slice_at(name).records)
    work.snapshot = SnapshotMaker(state, blobs.store, steps.advance).make(name)
    return work


def make_skips(state: State, work: Upkeep, debts: list[Debt], oldest: int) -> None:
    """Make the skip hops of one slice to one version, the shortest first, those that are cheaper than shorter ones."""
    bits, hopeless = BITS_MOST, False
    for name, high, low in debts:
        if sum(len(hop.data) for hop in work.hops) > HELD_BYTES:
            return
        work.paid.append((name, high, low))
        span = HopSpan(name, state.slice_at(name, at=low), state.slice_at(name, at=high))
        if hopeless or (span.since.version, span.now.version) != (low, high) or low < oldest:
            continue
        shorter = [(hop.span.since.version, high, len(hop.data)) for hop in work.hops if hop.span.name == name]
        path = path_bytes(state, span, shorter)
        if path is not None and not is_promising(state, span, path):
            continue
        dictionary = dictionary_in_use(state, name)
        data = make_hop(state, span, dictionary.content, most_content=content_worth(span.now), bits=bits)
        if data is None:
            hopeless = True  # longer ones touch more
        elif path is None or len(data) + REQUEST_BYTES < path:
            work.hops.append(MadeHop(span, data, dictionary.sha256))
        if data is not None and is_whole(data):
            bits = 0  # what is too much to be coded bit by bit is no less in longer ones


def is_promising(state: State, span: HopSpan, path: int) -> bool:
    """Whether a skip hop may be so much less than the shorter ones, `path` bytes, that it is worth the trial.

    It saves what they say of the same records again and again.
    """
    if path <= SMALL_PATH_BYTES and changes_between(state, span) <= SMALL_PATH_CHANGES:
        return True
    rows, distinct = next(
        state.rows(
            "SELECT count(*), count(DISTINCT collection || x'00' || key) FROM journal WHERE version IN"
            " (SELECT version FROM slices WHERE slice = ? AND version > ? AND version <= ?)",
            (span.name, span.since.version, span.now.version),
        )
    )
    return bool(path * distinct < GAIN * path * rows)


def changes_between(state: State, span: HopSpan) -> int:
    """Records that versions of the span changed, each counted as often as it was."""
    query = "SELECT ifnull(sum(added + changed + removed), 0) FROM versions WHERE version > ? AND version <= ?"
    return int(next(state.rows(query, (span.since.version, span.now.version)))[0])


def put_in_place(place: Workplace, work: Upkeep, blobs: BlobStore) -> bool:
    """Have the chain name what was made, under the publisher's lock. False where a takedown has overtaken it.

    blobs: with what was written for it.
    """
    state, made = place.state, work.snapshot
    if not frozenset(state.hidden()) <= work.hidden or not blobs.are_there():
        blobs.take_back()
        return False
    with releasing(place, f"put skip hops and snapshots of dataset {place.dataset} in place"):
        place.blobs.adopt(blobs)
        state.run_many("DELETE FROM owed WHERE slice = ? AND to_version = ? AND from_version = ?", work.paid)
        for hop in work.hops:
            if all(is_as_it_was(state, hop.span.name, end) for end in (hop.span.since, hop.span.now)):
                note_hop(state, hop.span, place.blobs.store("hop", hop.data), hop.dictionary)
        if made is not None and (newest_snapshot(state, made.name) or 0) < made.version <= state.live:
            made.note(state, place.now)
    if made is not None:
        place.blobs.sweep()
    return True


def is_as_it_was(state: State, name: str, item: SliceVersion) -> bool:
    """Whether a slice's version is still the one that was looked at: after a restored backup it may be another."""
    found = state.slice_at(name, at=item.version)
    return (found.version, found.digest) == (item.version, item.digest)
