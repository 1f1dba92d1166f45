"""When a device fetches: at its own place in the window that the head names, so that a fleet does not come all at once.

And what it fetches of a version before it is live. Nothing of that can be read before the release; what is not there by
then is fetched like any other version.
"""

from __future__ import annotations

from collections.abc import Callable

from edged.feed.ahead.sealed import Ahead
from edged.feed.blob import BlobRef
from edged.feed.head import Head
from edged.sync.core.events import Effect, HeldState, KeepAhead
from edged.sync.core.polling import Backoff
from edged.sync.core.turns import place_of

PAUSE_S = 3.0  # at least so long after a failure


def place_in_window(device_id: str, version: int) -> float:
    """Where a device stands in the window of a version, from 0 to 1: no two fleets' worth of it at once."""
    return place_of(f"{version} {device_id}")


def delay_s(head: Head, held: HeldState, device_id: str, time_s: float) -> float:
    """How long a device leaves a new version to those whose place in its spread comes before, in seconds.

    0 for takedowns, for who holds nothing yet, and for who has all that it needs with the head: nobody else is spared
    anything by its waiting. time_s: since 1970.
    """
    if head.spread is None or not device_id or not 0 < held.version < head.version:
        return 0.0
    taken_down = None if held.takedowns is None else BlobRef.of(held.takedowns)
    if taken_down != head.takedowns or comes_with_head(head, held):
        return 0.0
    since, spread_s = head.spread
    return min(max(since + place_in_window(device_id, head.version) * spread_s - time_s, 0.0), float(spread_s))


def comes_with_head(head: Head, held: HeldState) -> bool:
    """Whether nothing has to be fetched besides."""
    return head.schema_version == held.schema_version and all(
        name in head.slices
        and (
            head.slices[name].version == item.version
            or any(hop.inline is not None and hop.from_version == item.version for hop in head.slices[name].hops)
        )
        for name, item in held.slices.items()
    )


class Prefetcher:
    """device_id: empty where there is none, whose place is then by chance; at_once: do not wait for the place."""

    def __init__(self, device_id: str, chance: Callable[[], float], *, at_once: bool) -> None:
        self.device_id, self.chance, self.at_once = device_id, chance, at_once
        self.ahead: Ahead | None = None
        self.due_at = 0.0
        self.wanted: frozenset[BlobRef] = frozenset()
        self.there: set[BlobRef] = set()
        self.told: frozenset[bytes] | None = None
        self.backoff = Backoff(chance)

    def follow(self, head: Head, held: HeldState, now: float) -> list[Effect]:
        """See what the newest head wants to be fetched, and say what to keep of it on disk where that is new.

        now: seconds that never run backwards.
        """
        ahead = head.ahead if held.pinned is None else None
        if ahead is not None and (self.ahead is None or (ahead.version, ahead.since) != self.mark):
            place = place_in_window(self.device_id, ahead.version) if self.device_id else self.chance()
            self.due_at = now if self.at_once else now + place * ahead.spread_s
            self.backoff.succeed()
        self.ahead = ahead
        hops = dict(ahead.hops) if ahead is not None else {}
        fits = {name for name, item in held.slices.items() if item.damaged is None and not item.cut}
        self.wanted = frozenset(
            hop.blob for name, hop in hops.items() if name in fits and held.slices[name].version == hop.from_version
        )
        useful = {ref.sha256 for ref in self.wanted}
        if head.released is not None and held.version < head.version:
            useful |= {hop.blob.sha256 for hop in head.released.hops.values()}
        names = frozenset(useful)
        if names == self.told:
            return []
        self.told = names
        self.there &= self.wanted
        return [KeepAhead(names)]

    @property
    def mark(self) -> tuple[int, int] | None:
        return None if self.ahead is None else (self.ahead.version, self.ahead.since)

    @property
    def missing(self) -> list[BlobRef]:
        return sorted(self.wanted - self.there, key=lambda ref: ref.sha256)

    def due(self, now: float) -> BlobRef | None:
        """What to fetch now."""
        missing = self.missing
        return missing[0] if missing and now >= self.due_at else None

    @property
    def next_at(self) -> float | None:
        """When there is something to be fetched; None where there is nothing."""
        return self.due_at if self.missing else None

    def took(self, ref: BlobRef) -> None:
        self.there.add(ref)
        self.backoff.succeed()

    def fail(self, now: float) -> None:
        """It is tried again later; polls go on meanwhile."""
        self.due_at = now + PAUSE_S + self.backoff.fail()
