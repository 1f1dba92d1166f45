"""Takedowns: what they keep out of later versions, and what must leave the feed with them.

A record that is taken down is hidden: in no slice, whatever is published or rolled back to, until `restore`. Its head
goes out at once, so that devices stop showing it. Then everything on the host that holds a value of it is made anew
without it and deleted without grace: snapshot parts, hops that brought a value, dictionaries with a sample of one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from edged.errors import EdgedError
from edged.feed import limits
from edged.feed.coding.snapshot import decode_part
from edged.origin.blobs.renewal import Spoilt, gaps_in
from edged.origin.blobs.snapshots import border_key, parts_of
from edged.origin.input.comparing import SAME
from edged.origin.shelves.blobstore import BlobStore
from edged.origin.state import HIDDEN, State

RecordName = tuple[str, str]  # collection, key

IN_SCRATCH = (
    "EXISTS (SELECT 1 FROM main.records AS old WHERE old.membership = ? AND"
    " old.collection = scratch.incoming.collection AND old.key = scratch.incoming.key)"
)


@dataclass(frozen=True, slots=True)
class Takedown:
    """since: seconds since 1970; version: the one that began it."""

    collection: str
    key: str
    since: int
    version: int


def listed(state: State) -> list[Takedown]:
    """What is taken down now, in order."""
    rows = state.rows(
        "SELECT t.collection, t.key, t.time, t.version FROM takedowns AS t JOIN records AS r USING(collection, key)"
        " WHERE r.membership = ? ORDER BY t.collection, t.key",
        (HIDDEN,),
    )
    return [Takedown(*row) for row in rows]


def note(state: State, names: Collection[RecordName], version: int, now: int) -> None:
    """Remember when each of `names` that is not hidden yet was taken down, and that the feed still holds it."""
    hidden = set(state.hidden())
    state.run_many(
        "INSERT OR REPLACE INTO takedowns VALUES(?,?,?,?,0)",
        [(*name, now, version) for name in names if name not in hidden],
    )


def unfinished(state: State) -> list[RecordName]:
    """Records that are hidden while blobs on the host may still hold values of them."""
    return list(
        state.rows(
            "SELECT t.collection, t.key FROM takedowns AS t JOIN records AS r USING(collection, key)"
            " WHERE r.membership = ? AND NOT t.retired ORDER BY t.collection, t.key",
            (HIDDEN,),
        )
    )


def hold_back(state: State) -> None:
    """Keep the input's new values of hidden records for `restore`, and out of what is published."""
    if not state.hidden():
        return
    rows = state.rows(
        f"SELECT value, collection, key FROM scratch.incoming WHERE state <> ? AND {IN_SCRATCH}",  # noqa: S608
        (SAME, HIDDEN),
    )
    state.run_many("UPDATE main.records SET value = ? WHERE collection = ? AND key = ?", list(rows))
    state.run(f"DELETE FROM scratch.incoming WHERE {IN_SCRATCH}", (HIDDEN,))  # noqa: S608


class Search:
    """Looks for values of `names` in what the state says is on the host."""

    def __init__(self, state: State, blobs: BlobStore, names: Collection[RecordName]) -> None:
        self.state, self.blobs, self.names = state, blobs, sorted(set(names))
        self.known_from = int(state.meta("journal_from") or 1)  # what records were before is not remembered

    def spoilt(self, slice_name: str) -> Spoilt:
        """Everything of a slice that may hold a value; what cannot be told counts as holding one."""
        members = frozenset(self.state.memberships_with(slice_name))
        histories = [list(self.history(name, members)) for name in self.names]
        rows = self.state.rows("SELECT to_version, from_version FROM hops WHERE slice = ?", (slice_name,))
        hops = [
            (high, low) for high, low in list(rows) if any(self.brings(history, low, high) for history in histories)
        ]
        return Spoilt(
            snapshots=self.snapshots(slice_name),
            hops=hops,
            dictionaries=self.dictionaries(slice_name),
            gaps=gaps_in(self.state, slice_name, hops),
        )

    def history(self, name: RecordName, members: frozenset[int]) -> Iterator[tuple[int, bool]]:
        """(version, whether the slice held the record from then on), newest first, down to what is remembered."""
        rows = self.state.rows(
            "SELECT version, membership FROM journal WHERE collection = ? AND key = ? ORDER BY version DESC", name
        )
        now = self.state.record(*name)
        held = now is not None and now[0] in members
        for version, membership in rows:
            yield version, held
            held = membership in members
        yield self.known_from, held

    def brings(self, history: list[tuple[int, bool]], low: int, high: int) -> bool:
        """Whether a hop from version `low` to `high` holds the record's value at `high`."""
        if high < self.known_from:
            return True
        changed, held = next((version, held) for version, held in history if version <= high)
        return held and (low < changed or low < self.known_from)

    def snapshots(self, slice_name: str) -> list[int]:
        rows = list(
            self.state.rows(
                "SELECT s.version, d.content FROM snapshots AS s LEFT JOIN dictionaries AS d ON d.sha256 = s.dictionary"
                " WHERE s.slice = ?",
                (slice_name,),
            )
        )
        return [version for version, content in rows if self.snapshot_holds(slice_name, version, content or b"")]

    def snapshot_holds(self, slice_name: str, version: int, dictionary: bytes) -> bool:
        parts = parts_of(self.state, slice_name, version)
        starts = [border_key(part.first) for part in parts]
        wanted: dict[int, set[RecordName]] = {}
        for name in self.names:
            wanted.setdefault(bisect_right(starts, border_key(name)) - 1, set()).add(name)
        for number, names in wanted.items():
            if number < 0:
                continue  # before the first record of the slice
            try:
                data = self.blobs.read(parts[number].blob)
                records = decode_part(data, dictionary, max_bytes=limits.PART_BYTES)
                if any(record[:2] in names for record in records):
                    return True
            except EdgedError:
                return True  # a part that cannot be read says nothing in its favour
        return False

    def dictionaries(self, slice_name: str) -> list[bytes]:
        """Dictionaries that the slice's snapshots or hops name and that have a sample of one of the records."""
        used = list(
            self.state.rows(
                "SELECT dictionary FROM snapshots WHERE slice = ? AND dictionary NOT NULL"
                " UNION SELECT dictionary FROM hops WHERE slice = ? AND dictionary NOT NULL",
                (slice_name, slice_name),
            )
        )
        query = "SELECT 1 FROM samples WHERE dictionary = ? AND collection = ? AND key = ?"
        return [
            sha256
            for (sha256,) in used
            if any(next(self.state.rows(query, (sha256, *name)), None) for name in self.names)
        ]


def finish(state: State, names: Collection[RecordName]) -> None:
    """No chain will name a blob with a value of `names` any more; `meta` says to delete such blobs without grace."""
    state.run_many("UPDATE takedowns SET retired = 1 WHERE collection = ? AND key = ?", names)
    state.set_meta("takedown_unfinished", 1)
