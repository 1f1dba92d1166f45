"""The publisher's database of one dataset: current records, what each version changed, digests, blobs.

A version is prepared here and becomes live when the head that names it is renamed into place. Until the next opening
has seen that head, everything of the version can be undone: rows carry the version that made them, and the journal
holds what records were before.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.errors import StoreError
from edged.feed.digest import EMPTY_DIGEST, STATE_BYTES
from edged.files import discard, stamp_of

FORMAT = 3
HIDDEN = 0  # the membership of a record that was taken down: in no slice
CACHE_KIB = 32 << 10
LOG_PAGES = 4000  # of SQLite's log, 32 MB, before it is written back where versions come in a row: pages change often
FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")  # no room on the disk, for a page or for what is shared beside the log

SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value ANY) WITHOUT ROWID;
CREATE TABLE memberships(id INTEGER PRIMARY KEY, slices TEXT NOT NULL UNIQUE);
INSERT INTO memberships VALUES(0, '[]');
-- value is NULL only for a hidden record of which no value is known
CREATE TABLE records(collection TEXT NOT NULL, key TEXT NOT NULL, membership INTEGER NOT NULL, value BLOB,
    PRIMARY KEY(collection, key)) WITHOUT ROWID;
CREATE INDEX records_hidden ON records(collection, key) WHERE membership = 0;
-- what a record was before `version` changed it; membership is NULL where there was none
CREATE TABLE journal(version INTEGER NOT NULL, collection TEXT NOT NULL, key TEXT NOT NULL, membership INTEGER,
    value BLOB, PRIMARY KEY(version, collection, key)) WITHOUT ROWID;
CREATE TABLE versions(version INTEGER PRIMARY KEY, time INTEGER NOT NULL, kind TEXT NOT NULL, added INTEGER NOT NULL,
    changed INTEGER NOT NULL, removed INTEGER NOT NULL, counts TEXT NOT NULL, declared TEXT NOT NULL,
    schema BLOB NOT NULL, schema_version INTEGER NOT NULL, message TEXT NOT NULL);
-- counter numbers a slice's changes; state is the LtHash sum, NULL for versions before the live one
CREATE TABLE slices(slice TEXT NOT NULL, version INTEGER NOT NULL, counter INTEGER NOT NULL, records INTEGER NOT NULL,
    content_bytes INTEGER NOT NULL, digest BLOB NOT NULL, state BLOB, PRIMARY KEY(slice, version)) WITHOUT ROWID;
CREATE TABLE hops(slice TEXT NOT NULL, to_version INTEGER NOT NULL, from_version INTEGER NOT NULL,
    size INTEGER NOT NULL, sha256 BLOB NOT NULL, dictionary BLOB,
    PRIMARY KEY(slice, to_version, from_version)) WITHOUT ROWID;
-- skip hops that are still to be made, or to be found not worth it
CREATE TABLE owed(slice TEXT NOT NULL, to_version INTEGER NOT NULL, from_version INTEGER NOT NULL,
    PRIMARY KEY(slice, to_version, from_version)) WITHOUT ROWID;
CREATE TABLE snapshots(slice TEXT NOT NULL, version INTEGER NOT NULL, made_at INTEGER NOT NULL, dictionary BLOB,
    PRIMARY KEY(slice, version)) WITHOUT ROWID;
-- (collection, key) is the first record of the part
CREATE TABLE parts(slice TEXT NOT NULL, version INTEGER NOT NULL, place INTEGER NOT NULL, collection TEXT NOT NULL,
    key TEXT NOT NULL, size INTEGER NOT NULL, sha256 BLOB NOT NULL, content_bytes INTEGER NOT NULL,
    PRIMARY KEY(slice, version, place)) WITHOUT ROWID;
-- sha256 and size are those of the blob; content is the dictionary itself
CREATE TABLE dictionaries(sha256 BLOB PRIMARY KEY, size INTEGER NOT NULL, content BLOB NOT NULL,
    trained_bytes INTEGER NOT NULL) WITHOUT ROWID;
-- records of which a dictionary holds the value they had when it was trained
CREATE TABLE samples(dictionary BLOB NOT NULL, collection TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY(dictionary, collection, key)) WITHOUT ROWID;
-- when a hidden record was taken down; retired once no blob of the feed holds a value of it any more
CREATE TABLE takedowns(collection TEXT NOT NULL, key TEXT NOT NULL, time INTEGER NOT NULL, version INTEGER NOT NULL,
    retired INTEGER NOT NULL, PRIMARY KEY(collection, key)) WITHOUT ROWID;
-- blobs on disk; unnamed_since is NULL while the live head or chain names them
CREATE TABLE blobs(sha256 BLOB PRIMARY KEY, kind TEXT NOT NULL, size INTEGER NOT NULL, unnamed_since INTEGER)
    WITHOUT ROWID;
CREATE TABLE uniques(collection TEXT NOT NULL, field TEXT NOT NULL, value BLOB NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY(collection, field, value)) WITHOUT ROWID;
"""

# How far inputs without end are published, by the version that holds it: position is JSON. Later than FORMAT 3, so it
# is made where it is missing.
INPUTS = """
CREATE TABLE IF NOT EXISTS inputs(name TEXT NOT NULL, version INTEGER NOT NULL, position TEXT NOT NULL,
    PRIMARY KEY(name, version)) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class SliceVersion:
    """A slice at one of its versions. content_bytes: of keys and values together, not compressed."""

    version: int = 0
    counter: int = 0
    records: int = 0
    content_bytes: int = 0
    digest: bytes = EMPTY_DIGEST
    state: bytes = bytes(STATE_BYTES)


@dataclass(frozen=True, slots=True)
class VersionRow:
    """What is kept of a version. counts: visible records by collection; declared: the slices named in the head."""

    version: int
    time: int
    kind: str
    added: int
    changed: int
    removed: int
    counts: dict[str, int]
    declared: tuple[str, ...]
    schema: bytes
    schema_version: int
    message: str = ""


class State:
    """An open database. All methods raise StoreError (through `guarded`) where SQLite fails."""

    def __init__(self, path: Path, dataset: str, *, read_only: bool = False) -> None:
        self.path, self.dataset, self.read_only = path, dataset, read_only
        self.scratch = path.with_suffix(".scratch")
        if not read_only:
            discard([self.scratch])  # of a publish that was killed
        self.membership_ids: dict[tuple[str, ...], int] = {}
        self.membership_slices: dict[int, tuple[str, ...]] = {}
        # slice to the digest of a content, and the keys of that by collection: hops name records by their places
        self.key_lists: dict[str, tuple[bytes, dict[str, list[str]]]] = {}
        with guarded(f"open {path}"):
            self.db = sqlite3.connect(path, isolation_level=None)
            try:
                if read_only:
                    self.db.execute("PRAGMA query_only = ON")
                    self.db.execute("BEGIN")  # one consistent state, whatever is published meanwhile
                else:
                    self.configure()
            except BaseException:
                self.db.close()
                raise
        if not read_only:
            path.chmod(0o600)
        self.inode = path.stat().st_ino

    def configure(self) -> None:
        self.db.execute("PRAGMA page_size = 8192")
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self.db.execute("PRAGMA trusted_schema = OFF")
        if not self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            marks = f"INSERT INTO meta VALUES('format', {FORMAT}), ('live', 0);"
            self.db.executescript(f"BEGIN IMMEDIATE;{SCHEMA}{marks}COMMIT;")
        found = self.meta("format")
        if found != FORMAT:
            raise StoreError(
                f"open {self.path}: format {found!r}, this edged reads {FORMAT}; use the edged that wrote it"
            )
        self.db.execute(INPUTS)

    def close(self) -> None:
        self.db.close()
        if not self.read_only:
            discard([self.scratch])

    def rest(self) -> None:
        """End an operation, to be used for another one later, between which other processes may change the database."""
        self.membership_ids.clear()
        self.membership_slices.clear()
        if any(row[1] == "scratch" for row in self.db.execute("PRAGMA database_list")):
            self.db.execute("DETACH DATABASE scratch")
        discard([self.scratch])

    def is_replaced(self) -> bool:
        """Whether another file has its name: it was dropped, or put back from a backup."""
        found = stamp_of(self.path)
        return found is None or found.inode != self.inode

    @contextmanager
    def transaction(self, what: str) -> Iterator[None]:
        """All of the block or nothing of it. Raises StoreError."""
        with guarded(what):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                self.membership_ids.clear()
                self.membership_slices.clear()
                raise

    # -- small values -------------------------------------------------------------------------------------------------

    def meta(self, name: str) -> Any:
        row = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def set_meta(self, name: str, value: Any) -> None:
        self.db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (name, value))

    @property
    def live(self) -> int:
        """The version that the head names; 0 before the first."""
        return int(self.meta("live"))

    def newest(self) -> int:
        """The newest version prepared; above `live` only if a publish was cut short."""
        return int(self.db.execute("SELECT ifnull(max(version), 0) FROM versions").fetchone()[0])

    def version_row(self, version: int) -> VersionRow | None:
        row = self.db.execute("SELECT * FROM versions WHERE version = ?", (version,)).fetchone()
        return None if row is None else version_of(row)

    def version_rows(self) -> list[VersionRow]:
        """Every version that is remembered, oldest first."""
        return [version_of(row) for row in self.db.execute("SELECT * FROM versions ORDER BY version")]

    def add_version(self, row: VersionRow) -> None:
        counts, declared = json.dumps(row.counts), json.dumps(row.declared)
        self.db.execute(
            "INSERT INTO versions VALUES(?,?,?,?,?,?,?,?,?,?,?)",
            (
                row.version, row.time, row.kind, row.added, row.changed, row.removed,
                counts, declared, row.schema, row.schema_version, row.message,
            ),
        )  # fmt: skip

    # -- memberships --------------------------------------------------------------------------------------------------

    def membership_of(self, slices: tuple[str, ...]) -> int:
        """The number that stands for this set of slices (sorted names)."""
        found = self.membership_ids.get(slices)
        if found is None:
            text = json.dumps(slices)
            self.db.execute("INSERT OR IGNORE INTO memberships(slices) VALUES(?)", (text,))
            found = int(self.db.execute("SELECT id FROM memberships WHERE slices = ?", (text,)).fetchone()[0])
            if found > 1:
                # Only a dataset of several slices needs to find the records of one of them.
                self.db.execute(
                    "CREATE INDEX IF NOT EXISTS records_by_membership ON records(membership, collection, key)"
                )
            self.membership_ids[slices] = found
        return found

    def slices_in(self, membership: int | None) -> tuple[str, ...]:
        """The slices that a membership number stands for; none for a record that is not there."""
        if membership is None:
            return ()
        if membership not in self.membership_slices:
            self.membership_slices = {
                number: tuple(json.loads(text)) for number, text in self.db.execute("SELECT * FROM memberships")
            }
        return self.membership_slices[membership]

    def memberships_with(self, name: str) -> list[int]:
        rows = self.db.execute("SELECT id, slices FROM memberships").fetchall()
        return [number for number, slices in rows if name in json.loads(slices)]

    def indexed(self) -> bool:
        return bool(self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'records_by_membership'").fetchone())

    # -- records and slices -------------------------------------------------------------------------------------------

    def record(self, collection: str, key: str) -> tuple[int, bytes | None] | None:
        """(membership, value) of a record now, None where there is none."""
        row = self.db.execute(
            "SELECT membership, value FROM records WHERE collection = ? AND key = ?", (collection, key)
        ).fetchone()
        return None if row is None else (row[0], row[1])

    def hidden(self) -> list[tuple[str, str]]:
        """What is taken down, in order."""
        return list(
            self.db.execute("SELECT collection, key FROM records WHERE membership = 0 ORDER BY collection, key")
        )

    def slice_at(self, name: str, *, at: int | None = None) -> SliceVersion:
        """The slice's newest state, or the newest up to dataset version `at`; the empty one before its first."""
        row = self.db.execute(
            "SELECT version, counter, records, content_bytes, digest, state FROM slices"
            " WHERE slice = ? AND version <= ? ORDER BY version DESC LIMIT 1",
            (name, (1 << 62) if at is None else at),
        ).fetchone()
        return SliceVersion() if row is None else SliceVersion(*row)

    def slice_at_change(self, name: str, counter: int) -> SliceVersion | None:
        """The slice after its change number `counter`, None if that is no longer remembered."""
        row = self.db.execute(
            "SELECT version, counter, records, content_bytes, digest, state FROM slices"
            " WHERE slice = ? AND version <= ? AND counter = ?",
            (name, 1 << 62, counter),
        ).fetchone()
        return None if row is None else SliceVersion(*row)

    def slice_names(self) -> list[str]:
        return [row[0] for row in self.db.execute("SELECT DISTINCT slice FROM slices ORDER BY slice")]

    def add_slice_version(self, name: str, item: SliceVersion) -> None:
        self.db.execute(
            "INSERT INTO slices VALUES(?,?,?,?,?,?,?)",
            (name, item.version, item.counter, item.records, item.content_bytes, item.digest, item.state),
        )

    def rows(self, query: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        return iter(self.db.execute(query, values))

    def run(self, query: str, values: Sequence[Any] = ()) -> int:
        """The number of rows changed."""
        return self.db.execute(query, values).rowcount

    def run_many(self, query: str, values: Iterable[Sequence[Any]]) -> None:
        self.db.executemany(query, values)

    # -- undo ---------------------------------------------------------------------------------------------------------

    def undo_after(self, version: int) -> None:
        """Forget every version above `version`, which no head ever named."""
        if version == 0:
            for table in ("records", "journal", "uniques"):
                self.db.execute(f"DELETE FROM {table}")  # noqa: S608
        self.db.execute(
            "DELETE FROM records WHERE (collection, key) IN (SELECT collection, key FROM journal WHERE version > ?)",
            (version,),
        )
        self.db.execute(
            "INSERT INTO records SELECT collection, key, membership, value FROM"
            " (SELECT collection, key, membership, value, min(version) FROM journal WHERE version > ?"
            " GROUP BY collection, key) WHERE membership IS NOT NULL",
            (version,),
        )
        for table in ("journal", "versions", "slices", "snapshots", "parts", "inputs"):
            self.db.execute(f"DELETE FROM {table} WHERE version > ?", (version,))  # noqa: S608
        for table in ("hops", "owed"):
            self.db.execute(f"DELETE FROM {table} WHERE to_version > ?", (version,))  # noqa: S608
        self.db.execute("DELETE FROM uniques")
        self.set_meta("unique_rules", None)  # gathered anew by the next publish that has such rules


class OpenStates:
    """Opens databases for operations. lasting: they stay open from one to the next, for many in a row."""

    def __init__(self) -> None:
        self.lasting = False
        self.resting: dict[Path, State] = {}

    def take(self, path: Path, dataset: str) -> State:
        """Raises StoreError."""
        found = self.resting.pop(path, None)
        if found is not None and not found.is_replaced():
            return found
        if found is not None:
            found.close()
        made = State(path, dataset)
        if self.lasting:
            made.run(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        return made

    def give_back(self, state: State, *, is_live: bool) -> None:
        if self.lasting and is_live and not state.db.in_transaction:
            state.rest()
            self.resting[state.path] = state
        else:
            state.close()

    def close(self) -> None:
        for state in self.resting.values():
            state.close()
        self.resting.clear()


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turn the faults of SQLite and of the system into StoreError."""
    try:
        yield
    except sqlite3.Error as fault:
        full = getattr(fault, "sqlite_errorname", "") in FULL
        reason = (
            f"{os.strerror(errno.ENOSPC)}; the feed is as it was: free some"
            if full
            else (f"{fault}; the feed is as it was: free space or restore private/state")
        )
        raise StoreError(f"{what}: {reason}") from fault
    except OSError as fault:
        where = f" {fault.filename}" if fault.filename else ""
        raise StoreError(f"{what}:{where} {fault.strerror or fault}; the feed is as it was") from fault


def version_of(row: tuple[Any, ...]) -> VersionRow:
    counts, declared = json.loads(row[6]), tuple(json.loads(row[7]))
    return VersionRow(row[0], row[1], row[2], row[3], row[4], row[5], counts, declared, row[8], row[9], row[10])
