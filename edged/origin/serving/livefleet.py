"""The fleet as it polls: what devices say that they hold, counted while it is served, in bounded room.

Where more clients ask than are remembered, a sample of them is: those whose address hashes low, ever fewer; what is
shown is multiplied up. Nothing is kept of an address but its hash, with a key that ends with the process.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from edged.http.request import Request
from edged.origin.fleet import Fleet, PublishedVersion, Sighting
from edged.origin.serving.published import document
from edged.polls import REASONS, ToldState, read_told

MOST_CLIENTS = 20_000  # of one dataset; some 600 bytes each
MOST_ARRIVALS = 12  # of versions that a client came to, the last
GONE_S = 3600.0  # who has not polled for so long is not counted any more
FULL = 1 << 64
SHORT = 8  # digits of a client's hash that are shown


class LiveFleet:
    """clock: seconds since 1970."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.key = secrets.token_bytes(16)
        self.fleets: dict[str, Fleet] = {}
        self.limits: dict[str, int] = {}  # hashes below it are in the sample

    def see(self, dataset: str, request: Request) -> None:
        """A poll. Whatever its fields say costs a look."""
        told = held_of(request.get(b"user-agent") or "")
        if told is None:
            return
        fleet = self.fleets.setdefault(dataset, Fleet(dataset))
        number = int.from_bytes(
            blake2b(request.peer.address.encode(), digest_size=8, key=self.key, usedforsecurity=False).digest(), "big"
        )
        if number >= self.limits.setdefault(dataset, FULL):
            fleet.polls += 1
            return
        client = f"{number:016x}"
        fleet.add(Sighting(dataset, self.clock(), client, *told))
        arrivals = fleet.arrivals.get(client)
        if arrivals is not None and len(arrivals) > MOST_ARRIVALS:
            del arrivals[: len(arrivals) - MOST_ARRIVALS]
        if len(fleet.last) > MOST_CLIENTS:
            self.make_room(dataset, fleet)

    def make_room(self, dataset: str, fleet: Fleet) -> None:
        """Let go of who has gone; where that is not enough, of half of them."""
        oldest = self.clock() - GONE_S
        gone = [client for client, seen in fleet.last.items() if seen.at < oldest]
        if len(gone) < MOST_CLIENTS // 10:
            self.limits[dataset] //= 2
            gone = [client for client in fleet.last if int(client, 16) >= self.limits[dataset]]
        for client in gone:
            del fleet.last[client]
            fleet.arrivals.pop(client, None)

    def clients(self, dataset: str) -> int:
        """About how many are remembered of a dataset, without a look at each."""
        fleet = self.fleets.get(dataset)
        return 0 if fleet is None else round(len(fleet.last) * FULL / self.limits.get(dataset, FULL))

    def refusing(self, dataset: str) -> dict[str, int]:
        """How many clients, polled within the last hour, say why they stay at what they hold: by each of REASONS."""
        fleet, share = self.fleets.get(dataset), self.limits.get(dataset, FULL) / FULL
        last = {} if fleet is None else fleet.last.copy()
        oldest = self.clock() - GONE_S
        counts = Counter(seen.reason for seen in last.values() if seen.reason and seen.at >= oldest)
        return {reason: round(counts[reason] / share) for reason in REASONS}

    def report(self, dataset: str, known: Mapping[int, PublishedVersion]) -> dict[str, Any]:
        """The document of a dataset, as `edged origin fleet --json` has it; sample: the share of clients that is
        remembered, by which numbers of clients were multiplied up."""
        fleet, share = self.fleets.get(dataset), self.limits.get(dataset, FULL) / FULL
        last = {} if fleet is None else fleet.last.copy()  # in one step: polls come meanwhile, in another thread
        if fleet is None or not last:
            lists: dict[str, Any] = {name: [] for name in ("versions", "strange", "spreads", "refusals", "stuck")}
            return {"polls": 0, "clients": 0, "newest": max(known, default=0), "sample": 1.0} | lists
        oldest = self.clock() - GONE_S
        arrivals = fleet.arrivals.copy()
        present = Fleet(dataset, fleet.polls, {name: seen for name, seen in last.items() if seen.at >= oldest})
        present.last = present.last or last
        present.arrivals = {name: list(arrivals[name]) for name in present.last if name in arrivals}
        found = document(present.report(known))
        for entry in (found, *found["versions"], *found["strange"], *found["refusals"], *found["stuck"]):
            entry["clients"] = round(entry["clients"] / share)
        for entry in found["stuck"]:
            entry["names"] = [name[:SHORT] for name in entry["names"]]
        return found | {"sample": share}


@lru_cache(maxsize=256)
def held_of(user_agent: str) -> ToldState | None:
    """What a poll says of its device."""
    return read_told(user_agent[:200])
