"""The cheapest way from what a device holds of a slice to a later version of it, by bytes. No I/O.

Versions are the nodes of a graph whose edges are hops; a snapshot is an edge from nothing. Every hop leads upward, so
the shortest path (Dijkstra 1959) is found in one pass over what the chain lists.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from edged.errors import ChainError
from edged.feed.blob import BlobRef
from edged.feed.chain import PageRef, SliceChain, SnapshotRef
from edged.feed.digest import EMPTY_DIGEST
from edged.feed.head import HopRef

REQUEST_BYTES = 300  # what one more request and its answer cost besides the body
RESTART_BYTES = 8192  # what it costs to write a slice anew rather than add to it, flash wear included

WHOLE_HOP_BYTES = 256 << 10  # a larger hop from nothing would have to be decoded in one piece: a snapshot has parts

EMPTY_SNAPSHOT = SnapshotRef(0, EMPTY_DIGEST, 0, None, ())  # every slice begins empty, so no blob is needed for that


Step = SnapshotRef | HopRef | PageRef | None  # None: what is held


@dataclass(frozen=True, slots=True)
class Path:
    """First `snapshot`, if it is not None, then `hops` in this order. cost: bytes to fetch, requests counted in.

    pages: if there are any, the way leads through them: fetch them, put their hops into the chain, and plan again.
    """

    snapshot: SnapshotRef | None
    hops: tuple[HopRef, ...]
    cost: int
    pages: tuple[PageRef, ...] = ()

    @property
    def blobs(self) -> tuple[BlobRef, ...]:
        """What has to be fetched, inlined hops left out; dictionaries that only a hop needs are not known yet."""
        found: list[BlobRef] = []
        if self.snapshot is not None:
            found.extend([self.snapshot.dictionary] if self.snapshot.dictionary else [])
            found.extend(self.snapshot.parts)
        found.extend(hop.blob for hop in self.hops if hop.inline is None)
        return tuple(found)


def plan(
    chain: SliceChain,
    have: int | None,
    want: int,
    *,
    inlined: Iterable[HopRef] = (),
    staged: frozenset[bytes] = frozenset(),
    without: frozenset[bytes] = frozenset(),
) -> Path:
    """The cheapest path to slice version `want`.

    have: the slice version held, None for nothing or nothing that can be built on; inlined: hops whose bytes came with
    the head; staged: SHA-256 of blobs that are at hand already; without: SHA-256 of blobs that must not be used.
    Raises ChainError if nothing leads there.
    """

    def price(ref: BlobRef) -> int:
        return 0 if ref.sha256 in staged else ref.size + REQUEST_BYTES

    best: dict[int, tuple[int, int]] = {}  # version to (cost, steps); fewer steps win a tie
    came: dict[int, tuple[Step, int]] = {}  # by what, from which version
    queue: list[tuple[int, int, int]] = []

    def reach(version: int, cost: int, steps: int, by: Step, start: int = 0) -> None:
        if version <= want and (version not in best or (cost, steps) < best[version]):
            best[version], came[version] = (cost, steps), (by, start)
            heapq.heappush(queue, (cost, steps, version))

    if have is not None:
        reach(have, 0, 0, None)
    for snapshot in (EMPTY_SNAPSHOT, *chain.snapshots):
        refs = [*([snapshot.dictionary] if snapshot.dictionary else []), *snapshot.parts]
        if not any(ref.sha256 in without for ref in refs):
            reach(snapshot.version, RESTART_BYTES + sum(map(price, refs)), 1, snapshot)
    onward: dict[int, list[HopRef]] = {}
    for hop in (*inlined, *chain.hops):
        whole = hop.from_version == 0 and hop.blob.size > WHOLE_HOP_BYTES and chain.snapshots
        if hop.blob.sha256 not in without and not whole:
            onward.setdefault(hop.from_version, []).append(hop)
    while queue:
        cost, steps, version = heapq.heappop(queue)
        if (cost, steps) != best[version]:
            continue  # a cheaper way to this version was found after it was queued
        if version == want:
            return trace(came, want, cost)
        for hop in onward.get(version, ()):
            reach(hop.to_version, cost + (0 if hop.inline is not None else price(hop.blob)), steps + 1, hop, version)
        for page in pages_around(chain, version):
            reach(min(page.high, want), cost + page.through + price(page.blob), steps + 1, page, version)
    start = "nothing" if have is None else f"version {have}"
    raise ChainError(
        f"plan from {start} to slice version {want}: none of {len(chain.snapshots)} snapshots and {len(chain.hops)} "
        "hops leads there; the origin has to publish a snapshot"
    )


def pages_around(chain: SliceChain, version: int) -> list[PageRef]:
    """The pages with hops that may start at a slice version."""
    return [page for page in chain.pages if page.low <= version < page.high]


def trace(came: dict[int, tuple[Step, int]], want: int, cost: int) -> Path:
    hops: list[HopRef] = []
    pages: list[PageRef] = []
    version = want
    while True:
        step, start = came[version]
        if step is None or isinstance(step, SnapshotRef):
            return Path(step, tuple(reversed(hops)), cost, tuple(pages))
        if isinstance(step, HopRef):
            hops.append(step)
        else:
            pages.append(step)
        version = start


def page_at(chain: SliceChain, dataset_version: int) -> PageRef | None:
    """The page that must be fetched before `version_at` can tell; None: it can."""
    return next((page for page in chain.pages if page.low <= dataset_version < page.high), None)


def version_at(chain: SliceChain, live: int, dataset_version: int) -> int:
    """The slice's version when the dataset was at `dataset_version`: the last one that the chain knows up to then.

    live: the slice's version in the head. Raises ChainError if the chain no longer reaches back so far.
    """
    if page_at(chain, dataset_version) is not None:
        raise ChainError(f"find dataset version {dataset_version}: its page of hops was not fetched")
    known = {live, *(snapshot.version for snapshot in chain.snapshots)}
    for hop in chain.hops:
        known.update((hop.from_version, hop.to_version))
    known.update(version for page in chain.pages for version in (page.low, page.high))
    earlier = [version for version in known if version <= dataset_version]
    if not earlier:
        raise ChainError(
            f"find dataset version {dataset_version}: the oldest slice version that the origin still has is "
            f"{min(known)}; choose a later one"
        )
    return max(earlier)
