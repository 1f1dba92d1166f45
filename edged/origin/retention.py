"""What may be deleted, and when: never what the live head or its chain names, nor anything within its grace period."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from edged.feed.chain import Chain
from edged.feed.head import Head
from edged.origin.blobs.pages import PAGE_CHANGES
from edged.origin.declared.rules import Retention, duration_s
from edged.origin.shelves.shelf import Shelf
from edged.origin.state import State


@dataclass(frozen=True, slots=True)
class Keep:
    """versions: how many back are retained; the others in seconds after a blob was last named."""

    versions: int
    grace_s: int
    chains_s: int

    @classmethod
    def of(cls, rules: Retention) -> Keep:
        return cls(rules.versions, duration_s(rules.grace), min(duration_s(rules.chains), duration_s(rules.grace)))

    def oldest(self, live: int) -> int:
        """The oldest version that devices may come from and that can be rolled back to."""
        return max(1, live - self.versions)


def named_blobs(head: Head, chains: Iterable[Chain]) -> Iterator[bytes]:
    """SHA-256 of every blob that a device may be led to by this head."""
    yield from (ref.sha256 for ref in head.blobs())
    yield from chain_blobs(chains)


def chain_blobs(chains: Iterable[Chain]) -> Iterator[bytes]:
    """SHA-256 of every blob that chains name."""
    for chain in chains:
        yield from (ref.sha256 for ref in chain.blobs())


def mark_unnamed(state: State, head: Head, chains: Iterable[Chain], now: int) -> None:
    """Note which blobs the live head and its chains no longer lead to, and since when."""
    named = set(named_blobs(head, chains))
    rows = list(state.rows("SELECT sha256, unnamed_since FROM blobs"))
    state.run_many(
        "UPDATE blobs SET unnamed_since = ? WHERE sha256 = ?",
        [(now, sha256) for sha256, since in rows if since is None and sha256 not in named],
    )
    state.run_many(
        "UPDATE blobs SET unnamed_since = NULL WHERE sha256 = ?",
        [(sha256,) for sha256, since in rows if since is not None and sha256 in named],
    )


def collect(state: State, shelf: Shelf, keep: Keep, now: int) -> int:
    """Delete blobs whose grace is over; returns how many. A file that stays is found by the sweep.

    After a takedown there is no grace for what may hold content.
    """
    content_s = 0 if state.meta("takedown_unfinished") else keep.grace_s
    rows = list(
        state.rows(
            "SELECT sha256 FROM blobs WHERE unnamed_since <="
            " CASE WHEN kind = 'chain' THEN ? WHEN kind IN ('part', 'hop', 'dictionary', 'ahead') THEN ? ELSE ? END",
            (now - keep.chains_s, now - content_s, now - keep.grace_s),
        )
    )
    state.run_many("DELETE FROM blobs WHERE sha256 = ?", rows)
    shelf.delete([sha256.hex() for (sha256,) in rows])
    return len(rows)


def forget(state: State, chains: Sequence[Chain], keep: Keep, live: int) -> None:
    """Drop the rows of what the live chains no longer list and of versions that are no longer retained."""
    oldest = keep.oldest(live)
    state.run("DELETE FROM journal WHERE version <= ?", (oldest,))
    state.set_meta("journal_from", max(oldest, int(state.meta("journal_from") or 1)))
    state.run("DELETE FROM versions WHERE version < ?", (oldest,))
    for name in state.slice_names():
        entries = [chain.slices[name] for chain in chains if name in chain.slices]
        listed = [snapshot.version for entry in entries for snapshot in entry.snapshots]
        first = min(listed, default=0) if entries else oldest
        bottom = bottom_of(state, name, oldest, first)
        state.run("DELETE FROM snapshots WHERE slice = ? AND version < ?", (name, first))
        state.run("DELETE FROM parts WHERE slice = ? AND version < ?", (name, first))
        for table in ("hops", "owed"):
            state.run(f"DELETE FROM {table} WHERE slice = ? AND from_version < ?", (name, bottom))  # noqa: S608
        state.run("DELETE FROM slices WHERE slice = ? AND version < ?", (name, bottom))
        forget_sums(state, name, live)
    state.run(
        "DELETE FROM takedowns WHERE (collection, key) NOT IN"
        " (SELECT collection, key FROM records WHERE membership = 0)"
    )
    state.run(
        "DELETE FROM dictionaries WHERE sha256 NOT IN (SELECT dictionary FROM snapshots WHERE dictionary NOT NULL)"
        " AND sha256 NOT IN (SELECT dictionary FROM hops WHERE dictionary NOT NULL)"
    )
    state.run("DELETE FROM samples WHERE dictionary NOT IN (SELECT sha256 FROM dictionaries)")


def bottom_of(state: State, name: str, oldest: int, first_snapshot: int) -> int:
    """The oldest slice version that hops may start at: what it was at the oldest retained version, or its snapshot;
    and further back to where a page of the chain begins, so that pages go as a whole."""
    item = state.slice_at(name, at=min(oldest, first_snapshot or oldest))
    begin = state.slice_at_change(name, item.counter - item.counter % PAGE_CHANGES)
    return item.version if begin is None else begin.version


def forget_sums(state: State, name: str, live: int) -> None:
    """Drop LtHash sums (2 kB each) but those of the live version and later ones: from them all others can be proved."""
    at = state.slice_at(name, at=live).version
    state.run("UPDATE slices SET state = NULL WHERE slice = ? AND version < ?", (name, at))
