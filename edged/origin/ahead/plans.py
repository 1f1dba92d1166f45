"""What is prepared of a version ahead, in the publisher's state: its key, its changes, what devices fetch of it.

A plan builds on the version that was live when it was made, and is announced while that is. A publish, rollback or
rollout in between supersedes it. Takedowns do not: the key of what was handed out before one is never given away, and
the plan is made anew on top of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edged.errors import StoreError
from edged.feed import cbor
from edged.feed.ahead.sealed import Ahead
from edged.origin.state import State

META = "ahead"
CORRECTIONS = ("takedown", "restore")
Edit = tuple[str, str, bytes | None]

TABLE = """
CREATE TABLE IF NOT EXISTS ahead(collection TEXT NOT NULL, key TEXT NOT NULL, value BLOB,
    PRIMARY KEY(collection, key)) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """base: the version that it builds on; key: of its sealed hops; digests: of the slices as they will be; at: when
    it goes live, seconds since 1970, None for when it is told to; message: for the log."""

    base: int
    key: bytes
    ahead: Ahead
    digests: dict[str, bytes]
    at: int | None = None
    message: str = ""


def held(state: State) -> Plan | None:
    """The plan that is kept, superseded or not. Raises StoreError."""
    data = state.meta(META)
    if data is None:
        return None
    match cbor.decode(data, "version ahead"):
        case [int() as base, bytes() as key, ahead, dict() as digests, (int() | None) as at, str() as message]:
            return Plan(base, key, Ahead.from_cbor(ahead, base), digests, at, message)
    raise StoreError(f"read {state.path}: what it holds of a version ahead is of another kind; withdraw that version")


def active(state: State, version: int) -> Plan | None:
    """The plan that goes into a head of `version`, None where there is none for it."""
    plan = held(state)
    return plan if plan is not None and plan.base == version == state.newest() else None


def keep(state: State, plan: Plan, edits: Iterable[Edit]) -> None:
    """Within a transaction: replaces the plan there was."""
    forget(state)
    state.run(TABLE)
    item = [plan.base, plan.key, plan.ahead.to_cbor(), plan.digests, plan.at, plan.message]
    state.set_meta(META, cbor.encode(item))
    state.run_many("INSERT INTO ahead VALUES(?,?,?)", edits)


def edits_of(state: State) -> Iterator[Edit]:
    """The changes of the plan."""
    return state.rows("SELECT collection, key, value FROM ahead ORDER BY collection, key")


def forget(state: State) -> None:
    """Within a transaction: let go of the plan, its key and its changes."""
    if state.meta(META) is not None:
        state.run("DELETE FROM ahead")
        state.run("DELETE FROM meta WHERE name = ?", (META,))


def superseded_by(state: State, plan: Plan, live: int) -> int | None:
    """The first version after the plan's base that is no mere takedown, None where there is none."""
    later = [row for row in state.version_rows() if plan.base < row.version <= live]
    return next((row.version for row in later if row.kind not in CORRECTIONS), None)


def forget_superseded(state: State, live: int) -> None:
    plan = held(state)
    if plan is not None and superseded_by(state, plan, live) is not None:
        forget(state)
