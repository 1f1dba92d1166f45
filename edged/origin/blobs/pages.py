"""Divides a slice's hops between the chain, which devices that lag fetch anew each time, and pages that never change.

Changes are numbered; those from a multiple of PAGE_CHANGES to the next have a page for the hops between them, once
enough later ones are in the chain. Longer hops stay in the chain: they lead from page to page.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edged.feed.chain import PageRef, SliceChain, encode_page
from edged.feed.head import HopRef
from edged.feed.plan import REQUEST_BYTES
from edged.origin.blobs.dictionaries import StoreBlob
from edged.origin.state import State

PAGE_CHANGES = 64
RECENT_CHANGES = 8  # at least so many are in the chain itself: what is not, most that lag do without


def paged(state: State, name: str, entry: SliceChain, store: StoreBlob) -> SliceChain:
    """`entry`, which lists all hops, with the older short ones in pages."""
    rows = state.rows("SELECT version, counter FROM slices WHERE slice = ?", (name,))
    counters: dict[int, int] = dict(rows)
    if not entry.hops:
        return entry
    newest = max(counters[hop.to_version] for hop in entry.hops)
    kept: list[HopRef] = []
    groups: dict[int, list[HopRef]] = {}
    for hop in entry.hops:
        low, high = counters[hop.from_version], counters[hop.to_version]
        number = low // PAGE_CHANGES
        end = (number + 1) * PAGE_CHANGES
        if high > end or high - low >= PAGE_CHANGES or end > newest - RECENT_CHANGES:
            kept.append(hop)
        else:
            groups.setdefault(number, []).append(hop)
    pages = [page_of(groups[number], store) for number in sorted(groups)]
    return replace(entry, hops=tuple(kept), pages=tuple(pages))


def page_of(hops: list[HopRef], store: StoreBlob) -> PageRef:
    low, high = min(hop.from_version for hop in hops), max(hop.to_version for hop in hops)
    through = cheapest(hops, low, high)
    return PageRef(low, high, through, store("page", encode_page(hops)))


def cheapest(hops: Iterable[HopRef], low: int, high: int) -> int:
    """The bytes of the cheapest way from `low` to `high`; of all hops together where they do not connect."""
    best = {low: 0}
    total = 0
    for hop in sorted(hops, key=lambda hop: (hop.to_version, hop.from_version)):
        total += hop.blob.size + REQUEST_BYTES
        if hop.from_version in best:
            cost = best[hop.from_version] + hop.blob.size + REQUEST_BYTES
            best[hop.to_version] = min(cost, best.get(hop.to_version, cost))
    return best.get(high, total)
