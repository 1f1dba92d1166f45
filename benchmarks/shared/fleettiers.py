"""What stands between a fleet and its origin, and what comes through: nodes that devices ask, and tiers above them.

Nodes are edged relays, of which each asks as a relay does (edged/relay/following.py), or the caches of a CDN that make
one request of those for one URL, below a shield that does so again for all of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.shared.fleetmodel import ANEW, FETCH, POLL, PREFETCH, REQUESTS, TRUST, Fleet, Floats, Ints
from edged.sync.core.events import WAIT_S
from edged.sync.core.turns import PollTurns

DEVICES_A_NODE = 10_000
RELAYS_A_MIDDLE = 10  # below each of the relays that ask the origin


@dataclass
class Tiers:
    """Counts by second, up to `horizon`. count: devices."""

    horizon: int
    count: int
    pending: dict[int, float] = field(default_factory=dict)  # polls at the shield by URL: when they end
    known: set[int] = field(default_factory=set)  # polls and blobs that a node has asked for

    def __post_init__(self) -> None:
        self.nodes = max(1, self.count // DEVICES_A_NODE)
        self.node = np.arange(self.count) % self.nodes
        self.asked = {kind: np.zeros(self.horizon, np.int64) for kind in REQUESTS}
        self.blob_bytes = np.zeros(self.horizon, np.int64)
        # Of the nodes at the shield, and of the shield at the origin.
        self.to_shield = {kind: np.zeros(self.horizon, np.int64) for kind in REQUESTS}
        self.to_origin = {kind: np.zeros(self.horizon, np.int64) for kind in REQUESTS}
        self.fetched = np.zeros(self.horizon, np.int64)  # bytes of blobs to the shield
        self.briefly = {kind: np.zeros((self.nodes, self.horizon), bool) for kind in (TRUST, ANEW)}

    @property
    def total(self) -> Ints:
        """Requests of the devices, by second."""
        found: Ints = np.sum(list(self.asked.values()), axis=0)
        return found

    def record(self, kind: int, who: Ints, at: Floats, sizes: Any) -> None:
        seconds = np.minimum(at.astype(np.int64), self.horizon - 1)
        self.asked[kind] += np.bincount(seconds, minlength=self.horizon)
        if kind in self.briefly:  # kept for a second
            self.briefly[kind][self.node[who], seconds] = True
        elif kind in (FETCH, PREFETCH):
            self.blob_bytes += np.bincount(seconds, weights=sizes, minlength=self.horizon).astype(np.int64)
            self.fetch(kind, who, seconds, sizes)

    def fetch(self, kind: int, who: Ints, seconds: Ints, sizes: Ints) -> None:
        """Blobs are kept for ever: the first who asks a node has it fetch them. One is known by its size."""
        for size in np.unique(sizes).tolist():
            these = sizes == size
            places, first = np.unique(self.node[who[these]], return_index=True)
            for place, second in zip(places.tolist(), seconds[these][first].tolist(), strict=True):
                if self.is_new(-(size * 2048 + place + 1)):
                    self.to_shield[kind][second] += 1
                if self.is_new(-size * 2048):
                    self.to_origin[kind][second] += 1
                    self.fetched[second] += size

    def is_new(self, mark: int) -> bool:
        new = mark not in self.known
        self.known.add(mark)
        return new

    def collapse(self, fleet: Fleet, who: Ints, now: Floats, ends: Floats, wait: Ints) -> Floats:
        """When these polls end: with the first that asked for the same URL. One URL is one wait and one number."""
        urls = (fleet.numbers[who] << 10) | wait
        unique, place = np.unique(urls, return_inverse=True)
        first = np.full(len(unique), np.inf)
        np.minimum.at(first, place, now)
        over = np.empty(len(unique))
        for index, (url, at) in enumerate(zip(unique.tolist(), first.tolist(), strict=True)):
            end = self.pending.get(url, 0.0)
            if end <= at:
                end = self.pending[url] = at + (url & 1023)
                self.to_origin[POLL][min(int(at), self.horizon - 1)] += 1
            over[index] = end
        self.count_nodes(urls, over[place], self.node[who], now)
        found: Floats = np.maximum(over[place], now)
        return found

    def count_nodes(self, urls: Ints, ends: Floats, nodes: Ints, now: Floats) -> None:
        """One request of each node for each poll at the shield."""
        marks = (urls * 4096 + ends.astype(np.int64) % 4096) * 2048 + nodes
        unique, first = np.unique(marks, return_index=True)
        for mark, at in zip(unique.tolist(), now[first].tolist(), strict=True):
            if self.is_new(mark):
                self.to_shield[POLL][min(int(at), self.horizon - 1)] += 1

    def close(self) -> None:
        """Count what is kept for a second: once a node, and once for all of them."""
        for kind, asked in self.briefly.items():
            self.to_shield[kind] += asked.sum(axis=0)
            self.to_origin[kind] += asked.any(axis=0)


def relayed_polls(relays: int, news: Sequence[float], horizon: int) -> Ints:
    """Polls of so many relays at what is above them, by second."""
    chance, counts = random.Random(5), np.zeros(horizon, np.int64)
    for _ in range(relays):
        turns, at, version = PollTurns(str(chance.random())), chance.random() * WAIT_S, 1
        while at < horizon:
            counts[int(at)] += 1
            end = at + turns.ask(WAIT_S, version, at, ())
            heard = next((when for when in news if at < when <= end), None)
            if heard is None:
                turns.ended(end)
            else:
                version += 1
            at = end if heard is None else heard
    return counts
