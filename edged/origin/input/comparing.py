"""What of the input differs from the state, found with bounded memory: the input goes through a scratch database.

Few edits do without. The scratch lies beside the state, is never synced, and is deleted with the publish. Of a record
that is as it was only the key is kept there, to know afterwards which records are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, Protocol

from edged.origin.input.lines import Faults
from edged.origin.input.reading import InputEntry
from edged.origin.state import State, guarded

SAME, SET, GONE = 0, 1, 2
BATCH = 512
FEW, FEW_BYTES = 4096, 8 << 20  # edits that are held in memory, and the values that they set together

SCRATCH = """
CREATE TABLE scratch.incoming(collection TEXT NOT NULL, key TEXT NOT NULL, state INTEGER NOT NULL, value BLOB,
    place INTEGER NOT NULL, PRIMARY KEY(collection, key)) WITHOUT ROWID
"""


class RecordSource(Protocol):
    """Where records come from: reading.Inputs or reading.Values."""

    faults: Faults
    edits: bool

    def name_of(self, place: int) -> str: ...

    def entries(self) -> Iterator[InputEntry]: ...


def attach_scratch(state: State) -> None:
    """A database `scratch` attached to the state's connection, until that is closed. Raises StoreError."""
    with guarded(f"create {state.scratch}"):
        state.db.execute("ATTACH DATABASE ? AS scratch", (str(state.scratch),))
        state.scratch.chmod(0o600)
        state.db.execute("PRAGMA scratch.journal_mode = OFF")
        state.db.execute("PRAGMA scratch.synchronous = OFF")
        state.db.execute("PRAGMA scratch.cache_size = -16384")
        state.db.execute(SCRATCH)


class Incoming:
    """The input of one publish. To be made outside of a transaction. Raises StoreError, OriginError, InputError."""

    def __init__(self, state: State, source: RecordSource) -> None:
        self.state, self.source = state, source
        self.entries = source.entries()
        self.few: list[InputEntry] = []
        size = 0
        self.is_scratched = not source.edits or bool(state.hidden())
        while not self.is_scratched and (entry := next(self.entries, None)) is not None:
            self.few.append(entry)
            size += len(entry.value or b"")
            self.is_scratched = len(self.few) > FEW or size > FEW_BYTES
        if self.is_scratched:
            attach_scratch(state)

    def gather(self, advance: Callable[[int], None]) -> int:
        """Read the whole source. Returns the number of entries. Raises InputError naming bad lines.

        Of several edits of one record the last counts. In a whole state a record that occurs twice is refused, unless
        both are the same.
        """
        if not self.is_scratched:
            advance(len(self.few))
            self.source.faults.raise_any()
            return len(self.few)
        state, source = self.state, self.source
        how = "REPLACE" if source.edits else "IGNORE"
        total = 0
        entries = chain(self.few, self.entries)
        while batch := list(islice(entries, BATCH)):
            total += len(batch)
            rows = [(item.collection, item.key, *kind_of(state, item), item.place) for item in batch]
            before = state.db.total_changes
            state.run_many(f"INSERT OR {how} INTO scratch.incoming VALUES(?,?,?,?,?)", rows)
            if not source.edits and state.db.total_changes - before != len(rows):
                refuse_twice(state, source, rows)
            advance(len(batch))
        source.faults.raise_any()
        return total

    def differing(self) -> Iterator[tuple[str, str, bytes | None]]:
        """(collection, key, new value or None) of every entry that changes the state, in order; of few edits all."""
        if self.is_scratched:
            return self.state.rows(
                "SELECT collection, key, value FROM scratch.incoming WHERE state <> ? ORDER BY collection, key", (SAME,)
            )
        last = {(item.collection, item.key): item.value for item in self.few}
        return ((*name, last[name]) for name in sorted(last, key=lambda name: (name[0].encode(), name[1].encode())))


def kind_of(state: State, item: InputEntry) -> tuple[int, bytes | None]:
    """Whether an entry changes the state, and to what."""
    found = state.record(item.collection, item.key)
    if item.value is None:
        return (SAME if found is None else GONE), None
    if found is not None and found[1] == item.value:
        return SAME, None
    return SET, item.value


def refuse_twice(state: State, source: RecordSource, rows: Iterable[tuple[Any, ...]]) -> None:
    """Name those of `rows` of which another entry, with another content, came before."""
    for collection, key, kind, value, place in rows:
        first = next(
            state.rows(
                "SELECT state, value, place FROM scratch.incoming WHERE collection = ? AND key = ?", (collection, key)
            )
        )
        if first[2] != place and first[:2] != (kind, value):
            source.faults.add(
                f"{source.name_of(place)}: {collection}/{key} is there twice with different contents, first at "
                f"{source.name_of(first[2])}; expected each record once"
            )


def mark_missing(state: State) -> None:
    """For a whole new state: what is not in the scratch is gone."""
    state.run(
        "INSERT INTO scratch.incoming SELECT collection, key, ?, NULL, 0 FROM main.records AS old WHERE value NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM scratch.incoming AS new WHERE new.collection = old.collection"
        " AND new.key = old.key)",
        (GONE,),
    )
