"""The proof of what was laid down without being looked at, made once it is live.

A laid hop says what it adds to the slice's sum, and the sum that comes of it has the digest that was signed: what is
held and what was published belong together. That its frames hold the records of that sum the publisher has proved, and
signed for; it is proved again here, where it is in nobody's way.
"""

from __future__ import annotations

from dataclasses import dataclass

from edged.errors import DamageError, WireError
from edged.feed import cbor
from edged.feed.ahead.laidhop import ADDED, CHANGED, REMOVED, Laid
from edged.feed.digest import SetHash
from edged.feed.zstd import DamagedFrame
from edged.replica.files.manifest import SliceState
from edged.replica.layers.layers import Layers


@dataclass(frozen=True, slots=True)
class Unproved:
    """A slice, its layers before the hop, its state after it, and what the hop says. dictionary: the SHA-256 of that of
    its frames."""

    slice_name: str
    before: Layers
    after: SliceState
    laid: Laid
    dictionary: bytes

    def prove(self) -> str | None:
        """What is wrong with it, None if nothing."""
        try:
            found = summed(self.before, self.laid, self.dictionary)
        except (DamageError, WireError) as fault:
            return str(fault)
        return None if found.digest() == SetHash(self.after.state).digest() else "its records have another digest"


def summed(before: Layers, laid: Laid, dictionary: bytes) -> SetHash:
    """The slice's sum after the hop, from each record's value before and its value in the hop.

    Raises WireError where a change is not what the hop says of it, DamageError where what is held cannot be read.
    """
    running, frames = SetHash(before.state.state), before.pool.frames_of(dictionary)
    for collection, key, frame, kind in laid.changes:
        what = f"laid hop: {collection}/{key}"
        old = before.get(collection, key)
        try:
            value = frames.decompress(frame) if frame else None
        except DamagedFrame as fault:
            raise WireError(f"{what}: its value does not decompress: {fault}") from fault
        if kind != (REMOVED if value is None else ADDED if old is None else CHANGED):
            raise WireError(f"{what}: said to be changed, new or removed, and is not")
        if old is not None:
            running.remove(collection, key, old)
        if value is not None:
            cbor.decode(value, what)
            running.add(collection, key, value)
    return running
