"""Dictionaries: when a slice's is trained anew, and which one its hops and snapshots are coded with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edged.feed.blob import BlobRef
from edged.feed.coding.knowledge import samples
from edged.feed.coding.snapshot import pack_dictionary, train_dictionary
from edged.origin.state import SliceVersion, State

GROWTH = 4  # trained anew once the slice has grown by this factor

Record = tuple[str, str, bytes]  # collection, key, value
StoreBlob = Callable[[str, bytes], BlobRef]  # (kind, bytes) to the blob, written durably


@dataclass(frozen=True, slots=True)
class Training:
    """size: of the blob; trained_bytes: of the content that it was trained for; samples: the (collection, key) of the
    records of which it holds the value."""

    size: int
    trained_bytes: int
    samples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TrainedDictionary:
    """sha256: of the blob, None where there is no dictionary; content: what records are coded with.

    fresh: what the state is to be told of one that was just trained.
    """

    sha256: bytes | None = None
    content: bytes = b""
    fresh: Training | None = None


def dictionary_in_use(state: State, name: str) -> TrainedDictionary:
    """What the slice's hops are coded with now: the dictionary of its newest snapshot."""
    row = next(
        state.rows("SELECT dictionary FROM snapshots WHERE slice = ? ORDER BY version DESC LIMIT 1", (name,)), None
    )
    if row is None or row[0] is None:
        return TrainedDictionary()
    content = next(state.rows("SELECT content FROM dictionaries WHERE sha256 = ?", (row[0],)))[0]
    return TrainedDictionary(row[0], content)


def is_outgrown(state: State, held: TrainedDictionary, item: SliceVersion) -> bool:
    """Whether a slice that is now as `item` says needs a new dictionary in place of `held`."""
    if held.sha256 is None:
        return True
    trained = next(state.rows("SELECT trained_bytes FROM dictionaries WHERE sha256 = ?", (held.sha256,)))[0]
    return bool(item.content_bytes >= GROWTH * trained)


def train(item: SliceVersion, store: StoreBlob, records: Callable[[], Iterable[Record]]) -> TrainedDictionary:
    """A dictionary trained on a slice's `records`, and of which of them it holds samples."""
    content = train_dictionary(records())
    if not content:
        return TrainedDictionary()
    ref = store("dictionary", pack_dictionary(content))
    held = samples_in(content)
    sampled = tuple((collection, key) for collection, key, value in records() if value in held)
    return TrainedDictionary(ref.sha256, content, Training(ref.size, item.content_bytes, sampled))


def note_training(state: State, dictionary: TrainedDictionary) -> None:
    """Tell the state of a dictionary that was just trained."""
    sha256, fresh = dictionary.sha256, dictionary.fresh
    if sha256 is None or fresh is None:
        return
    row = (sha256, fresh.size, dictionary.content, fresh.trained_bytes)
    state.run("INSERT OR IGNORE INTO dictionaries VALUES(?,?,?,?)", row)
    state.run_many("INSERT OR IGNORE INTO samples VALUES(?,?,?)", ((sha256, *name) for name in fresh.samples))


def samples_in(content: bytes) -> frozenset[bytes]:
    """The records' values that a trained dictionary holds."""
    return frozenset(value for _, value in samples(content))


def dictionary_ref(state: State, sha256: bytes) -> BlobRef:
    """The dictionary's blob."""
    return BlobRef(sha256, next(state.rows("SELECT size FROM dictionaries WHERE sha256 = ?", (sha256,)))[0])
