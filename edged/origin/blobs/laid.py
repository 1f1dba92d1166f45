"""Hops that take no time to be applied, for versions ahead."""

from __future__ import annotations

from edged.errors import EdgedError, OriginError
from edged.feed.ahead import laidhop
from edged.feed.digest import SetHash
from edged.origin.blobs.hops import HopSpan, compose
from edged.origin.state import State


def make_laid(state: State, span: HopSpan, dictionary: bytes) -> bytes | None:
    """A proved hop to the newest version, None where it would be too large. Raises OriginError if the proof fails."""
    composed = compose(state, span)
    if composed is None or not laidhop.fits([(one.collection, one.key, one.value) for one in composed.changes]):
        return None
    data = laidhop.pack_laid(composed.changes, composed.old, dictionary)
    what = f"prove hop of slice {span.name} from version {span.since.version} to {span.now.version}"
    try:
        laid = laidhop.laid_of(data)
        changes = [] if laid is None else laidhop.changes_with_values(laid, dictionary)
    except EdgedError as fault:
        raise OriginError(f"{what}: it does not decode: {fault}; nothing was prepared; report this fault") from fault
    running = SetHash(span.since.state)
    if laid is not None and laid.sum:
        running.merge(SetHash(laid.sum))
    else:
        for change in changes:
            old = composed.old.get(change.collection, change.key)
            if old is not None:
                running.remove(change.collection, change.key, old)
            if change.value is not None:
                running.add(change.collection, change.key, change.value)
    if changes != composed.changes or running.digest() != span.now.digest:
        raise OriginError(f"{what}: old and hop do not make the new content; nothing was prepared; report this fault")
    return data
