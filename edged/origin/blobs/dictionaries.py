"""Dictionaries: when a slice's is trained anew, and which one its hops and snapshots are coded with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edged.feed.blob import BlobRef
from edged.feed.coding.snapshot import pack_dictionary, train_dictionary
from edged.origin.state import SliceVersion, State

GROWTH = 4  # trained anew once the slice has grown by this factor

StoreBlob = Callable[[str, bytes], BlobRef]  # (kind, bytes) to the blob, written durably


@dataclass(frozen=True, slots=True)
class TrainedDictionary:
    """sha256: of the blob, None where there is no dictionary; content: what records are coded with."""

    sha256: bytes | None = None
    content: bytes = b""


def dictionary_in_use(state: State, name: str) -> TrainedDictionary:
    """What the slice's hops are coded with now: the dictionary of its newest snapshot."""
    row = next(
        state.rows("SELECT dictionary FROM snapshots WHERE slice = ? ORDER BY version DESC LIMIT 1", (name,)), None
    )
    if row is None or row[0] is None:
        return TrainedDictionary()
    content = next(state.rows("SELECT content FROM dictionaries WHERE sha256 = ?", (row[0],)))[0]
    return TrainedDictionary(row[0], content)


def dictionary_for_snapshot(
    state: State, name: str, item: SliceVersion, store: StoreBlob, records: Iterable[tuple[str, str, bytes]]
) -> TrainedDictionary:
    """The one in use, or one trained on `records` where the slice has outgrown it."""
    held = dictionary_in_use(state, name)
    if held.sha256 is not None:
        trained = next(state.rows("SELECT trained_bytes FROM dictionaries WHERE sha256 = ?", (held.sha256,)))[0]
        if item.content_bytes < GROWTH * trained:
            return held
    content = train_dictionary(records)
    if not content:
        return TrainedDictionary()
    ref = store("dictionary", pack_dictionary(content))
    state.run("INSERT OR IGNORE INTO dictionaries VALUES(?,?,?,?)", (ref.sha256, ref.size, content, item.content_bytes))
    return TrainedDictionary(ref.sha256, content)


def dictionary_ref(state: State, sha256: bytes) -> BlobRef:
    """The dictionary's blob."""
    return BlobRef(sha256, next(state.rows("SELECT size FROM dictionaries WHERE sha256 = ?", (sha256,)))[0])
