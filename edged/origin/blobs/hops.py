"""Hops: composed from the journal, coded against the slice as it was, proved by a round trip before anyone sees one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice

from edged.errors import EdgedError, OriginError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.feed.coding.arithmetic import BITS_MOST
from edged.feed.coding.changes import Change, sort_key
from edged.feed.coding.hop import pack_hop, unpack_hop
from edged.feed.digest import SetHash
from edged.feed.plan import REQUEST_BYTES
from edged.origin.blobs.dictionaries import StoreBlob, TrainedDictionary
from edged.origin.state import SliceVersion, State

HOP_CONTENT_BYTES = 48 << 20  # what a hop may touch, old and new together: both ends hold that much in memory
PLAIN_BITS = 1 << 16  # coded in the hop to the next version: every device takes it, and soon, so within a second
SKIP_SHARE = 0.5  # a skip hop that touches more of the slice than this is no cheaper than the snapshot
KEYS_HELD = 1 << 17  # of a collection: so many are kept in a list, some 80 bytes each; of more they are read anew
MOVES_MOST = 256  # records that come or go, up to which a list is mended rather than read anew
SKIP_FREE_BYTES = 4 << 20  # below this coding takes a second or two, and what comes out is often far smaller


@dataclass(frozen=True, slots=True)
class HopSpan:
    """From where to where a hop of slice `name` leads."""

    name: str
    since: SliceVersion
    now: SliceVersion


class OldSlice:
    """A slice as it was before some of its changes: the `Lookup` that a receiver at that version has.

    before: (collection, key) to the value then, None where the slice did not hold it, of every record that the
    changes touched; all others are now as they were then. digest: of the slice then.
    """

    def __init__(
        self, state: State, name: str, before: dict[tuple[str, str], bytes | None], digest: bytes | None = None
    ) -> None:
        self.state, self.name, self.values = state, name, before
        known = state.key_lists.get(name)
        self.lists = known[1] if known is not None and known[0] == digest else {}
        self.memberships = state.memberships_with(name)
        self.indexed = state.indexed()
        self.held: dict[str, list[bytes]] = {}
        for collection, key in sorted(at for at, value in before.items() if value is not None):
            self.held.setdefault(collection, []).append(key.encode())
        for keys in self.held.values():
            keys.sort()
        self.last: tuple[str, bytes, tuple[str, bytes] | None] = ("", b"", None)

    def get(self, collection: str, key: str) -> bytes | None:
        if (collection, key) in self.values:
            return self.values[collection, key]
        found = self.state.record(collection, key)
        return found[1] if found is not None and found[0] in self.memberships else None

    def remember(self, changes: Sequence[Change], digest: bytes) -> None:
        """Have the lists of keys at hand for the next hop, which begins where `changes` lead to."""
        self.state.key_lists.pop(self.name, None)
        held = [self.values[change.collection, change.key] is not None for change in changes]
        moved = [change for change, was in zip(changes, held, strict=True) if was != (change.value is not None)]
        for change in moved:
            keys = self.lists.get(change.collection)
            if keys is None or len(moved) > MOVES_MOST:
                self.lists.pop(change.collection, None)
                continue
            place = bisect_left(keys, change.key.encode(), key=str.encode)
            if change.value is None:
                del keys[place]
            else:
                keys.insert(place, change.key)
        self.state.key_lists[self.name] = digest, self.lists

    def before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        untouched = self.untouched_before(collection, key)
        touched = None
        keys = self.held.get(collection, [])
        place = bisect_left(keys, key.encode())
        if place:
            text = keys[place - 1].decode()
            touched = text, self.values[collection, text] or b""
        if untouched is None or (touched is not None and touched[0].encode() > untouched[0].encode()):
            return touched
        return untouched

    def keys(self, collection: str) -> Iterator[str]:
        """All keys that the slice held, in order: those that the changes touched merged with the others."""
        touched = (key.decode() for key in self.held.get(collection, ()))
        found = self.lists.get(collection)
        if found is None:
            untouched = self.untouched(collection)
            found = list(islice(untouched, KEYS_HELD))
            if len(found) == KEYS_HELD:
                return merge(touched, found, untouched, key=str.encode)
            found = self.lists[collection] = sorted((*touched, *found), key=str.encode)
        return iter(found)

    def untouched(self, collection: str) -> Iterator[str]:
        marks = ",".join("?" * len(self.memberships))
        rows = self.state.rows(
            f"SELECT key FROM records WHERE collection = ? AND membership IN ({marks}) ORDER BY key",  # noqa: S608
            (collection, *self.memberships),
        )
        return (key for (key,) in rows if (collection, key) not in self.values)

    def untouched_before(self, collection: str, key: str) -> tuple[str, bytes] | None:
        """The nearest record below `key` that the changes did not touch.

        Hops ask in the order of keys, so a search goes no further down than the one before it.
        """
        floor, known = b"", None
        if self.last[0] == collection and self.last[1] <= key.encode():
            floor, known = self.last[1], self.last[2]
        best: tuple[str, bytes] | None = None
        if self.indexed:
            for membership in self.memberships:
                found = self.search(collection, key, floor, "membership = ?", (membership,))
                if found is not None and (best is None or found[0].encode() > best[0].encode()):
                    best = found
        elif self.memberships:
            marks = ",".join("?" * len(self.memberships))
            best = self.search(collection, key, floor, f"membership IN ({marks})", tuple(self.memberships))
        best = best or known
        self.last = (collection, key.encode(), best)
        return best

    def search(
        self, collection: str, key: str, floor: bytes, where: str, values: tuple[int, ...]
    ) -> tuple[str, bytes] | None:
        rows = self.state.rows(
            f"SELECT key, value FROM records WHERE {where} AND collection = ? AND key < ? AND key >= ?"  # noqa: S608
            " ORDER BY key DESC",
            (*values, collection, key, floor.decode()),
        )
        return next(((found, value) for found, value in rows if (collection, found) not in self.values), None)


@dataclass(frozen=True, slots=True)
class Composed:
    """What a hop is made of. later: (collection, key) to the value that the slice held at the hop's end, None for
    none, of what has changed since."""

    changes: list[Change]
    old: OldSlice
    later: dict[tuple[str, str], bytes | None]


def compose(state: State, span: HopSpan) -> Composed | None:
    """The changes of a slice along `span` and the slice as it was, None if they are too many for a hop."""
    members = frozenset(state.memberships_with(span.name))
    versions = [
        row[0]
        for row in state.rows(
            "SELECT version FROM slices WHERE slice = ? AND version > ? AND version <= ?",
            (span.name, span.since.version, span.now.version),
        )
    ]
    marks = ",".join("?" * len(versions))
    changed = f"version IN ({marks})"
    later = changed_after(state, span.now.version, members)
    if later is None or journal_bytes(state, changed, versions) > HOP_CONTENT_BYTES:
        return None
    rows = state.rows(
        "SELECT j.collection, j.key, j.membership, j.value, min(j.version), r.membership, r.value FROM journal AS j"  # noqa: S608
        f" LEFT JOIN records AS r USING(collection, key) WHERE j.{changed} GROUP BY j.collection, j.key",
        versions,
    )
    changes: list[Change] = []
    before = dict(later)
    spent = 0
    for collection, key, old_membership, old_value, _, membership, value in rows:
        old = old_value if old_membership in members else None
        now = value if membership in members else None
        new = later.get((collection, key), now)
        before[collection, key] = old
        if old != new:
            changes.append(Change(collection, key, new))
            spent += len(old or b"") + len(new or b"")
            if spent > HOP_CONTENT_BYTES:
                return None
    return Composed(sorted(changes, key=sort_key), OldSlice(state, span.name, before, span.since.digest), later)


def changed_after(state: State, version: int, members: frozenset[int]) -> dict[tuple[str, str], bytes | None] | None:
    """What changed after `version`, with its value then where it was in a slice; None if that is too much to hold."""
    if state.newest() == version:
        return {}
    if journal_bytes(state, "version > ?", (version,)) > HOP_CONTENT_BYTES:
        return None
    rows = state.rows(
        "SELECT collection, key, membership, value, min(version) FROM journal WHERE version > ?"
        " GROUP BY collection, key",
        (version,),
    )
    return {
        (collection, key): value if membership in members else None for collection, key, membership, value, _ in rows
    }


def journal_bytes(state: State, where: str, values: Sequence[int]) -> int:
    """The bytes of the old values that the journal holds of some versions."""
    query = f"SELECT ifnull(sum(length(value)), 0) FROM journal WHERE {where}"  # noqa: S608
    return int(next(state.rows(query, values))[0])


def make_hop(
    state: State, span: HopSpan, dictionary: bytes, *, most_content: int, bits: int = BITS_MOST
) -> bytes | None:
    """A proved hop, None if it would touch more than `most_content` bytes. Raises OriginError if the proof fails."""
    composed = compose(state, span)
    if composed is None or sum(len(change.value or b"") for change in composed.changes) > most_content:
        return None
    data = pack_hop(composed.changes, composed.old, dictionary, bits)
    prove(data, composed, dictionary, span)
    composed.old.remember(composed.changes, span.now.digest)
    return data


def prove(data: bytes, composed: Composed, dictionary: bytes, span: HopSpan) -> None:
    """What a receiver at `span.since` gets from the hop has the digest that will be signed.

    The sum of the new content is taken back to the old one, so that only the newest sums need be kept.
    """
    since, old = span.since, composed.old
    what = f"prove hop of slice {span.name} from version {since.version} to {span.now.version}"
    try:
        decoded = unpack_hop(data, old, dictionary)
    except EdgedError as fault:
        raise OriginError(f"{what}: it does not decode: {fault}; nothing was published; report this fault") from fault
    running = sum_at(span, composed)
    for change in decoded:
        value = old.get(change.collection, change.key)
        if change.value is not None:
            running.remove(change.collection, change.key, change.value)
        if value is not None:
            running.add(change.collection, change.key, value)
    if decoded != composed.changes or running.digest() != since.digest:
        raise OriginError(f"{what}: old and hop do not make the new content; nothing was published; report this fault")


def sum_at(span: HopSpan, composed: Composed) -> SetHash:
    """The sum of the slice's content at the end of `span`, taken back from the newest where it is no longer kept."""
    state = composed.old.state
    running = SetHash(state.slice_at(span.name).state)
    for (collection, key), value in composed.later.items():
        found = state.record(collection, key)
        if found is not None and found[0] in composed.old.memberships and found[1] is not None:
            running.remove(collection, key, found[1])
        if value is not None:
            running.add(collection, key, value)
    return running


class HopMaker:
    """Makes the hops that lead to the newest version of each touched slice.

    oldest: the dataset version from which on the journal can tell what records were.
    """

    def __init__(
        self,
        state: State,
        oldest: int,
        dictionary_of: Callable[[str], TrainedDictionary],
        store: StoreBlob,
    ) -> None:
        self.state, self.oldest, self.dictionary_of, self.store = state, oldest, dictionary_of, store

    def make_plain(self, name: str, before: SliceVersion, snapshot_bytes: int) -> bool:
        """Write the hop from `before`. False where there is none and only a snapshot will do."""
        now = self.state.slice_at(name)
        if not before.counter:
            return False
        dictionary, span = self.dictionary_of(name), HopSpan(name, before, now)
        data = make_hop(self.state, span, dictionary.content, most_content=HOP_CONTENT_BYTES, bits=PLAIN_BITS)
        if data is None or len(data) > min(limits.BLOB_BYTES, snapshot_bytes + REQUEST_BYTES):
            return False
        self.keep(span, data, dictionary.sha256)
        return True

    def owe_skips(self, name: str) -> None:
        """Note the skip hops that are due to the slice's newest change, from 2, 4 and so on changes back."""
        now = self.state.slice_at(name)
        step = 2
        while now.counter % step == 0 and now.counter > step:
            since = self.state.slice_at_change(name, now.counter - step)
            if since is None or since.version < self.oldest:
                return
            self.state.run("INSERT OR IGNORE INTO owed VALUES(?,?,?)", (name, now.version, since.version))
            step *= 2

    def make_direct(self, name: str, change: int) -> None:
        """Write the hop to the newest version from the slice after its change number `change`, where it is worth it."""
        now, since = self.state.slice_at(name), self.state.slice_at_change(name, change)
        if since is None or since.version < self.oldest or since.counter == now.counter:
            return
        span, dictionary = HopSpan(name, since, now), self.dictionary_of(name)
        data = make_hop(self.state, span, dictionary.content, most_content=content_worth(now))
        if data is not None:
            self.keep(span, data, dictionary.sha256)

    def keep(self, span: HopSpan, data: bytes, dictionary: bytes | None) -> None:
        note_hop(self.state, span, self.store("hop", data), dictionary)


def note_hop(state: State, span: HopSpan, ref: BlobRef, dictionary: bytes | None) -> None:
    """Tell the state of a hop whose blob is written. dictionary: SHA-256 of the blob of the one it is coded with."""
    state.run(
        "INSERT OR REPLACE INTO hops VALUES(?,?,?,?,?,?)",
        (span.name, span.now.version, span.since.version, ref.size, ref.sha256, dictionary),
    )


def content_worth(now: SliceVersion) -> int:
    """How much a hop past several versions may touch before the snapshot is the cheaper way."""
    return max(int(now.content_bytes * SKIP_SHARE), SKIP_FREE_BYTES)


def path_bytes(state: State, span: HopSpan, others: Iterable[tuple[int, int, int]] = ()) -> int | None:
    """What the shorter hops along `span` cost, requests included; None if they do not lead there.

    others: hops that the state does not know yet: from version, to version, bytes.
    """
    best = {span.since.version: 0}
    rows = state.rows(
        "SELECT from_version, to_version, size FROM hops WHERE slice = ? AND from_version >= ? AND to_version <= ?",
        (span.name, span.since.version, span.now.version),
    )
    for low, high, size in sorted((*rows, *others), key=lambda hop: (hop[1], hop[0])):
        if low in best:
            cost = best[low] + size + REQUEST_BYTES
            best[high] = min(cost, best.get(high, cost))
    return best.get(span.now.version)
