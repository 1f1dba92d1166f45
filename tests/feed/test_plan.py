"""The planner: never dearer than the cheapest of all paths, and always a path."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ChainError
from edged.feed.blob import BlobRef
from edged.feed.chain import PageRef, SliceChain, SnapshotRef
from edged.feed.head import HopRef
from edged.feed.plan import EMPTY_SNAPSHOT, REQUEST_BYTES, RESTART_BYTES, Path, plan, version_at


def blob(name: str, size: int) -> BlobRef:
    return BlobRef(hashlib.sha256(name.encode()).digest(), size)


def hop(low: int, high: int, size: int, *, inline: bool = False) -> HopRef:
    return HopRef(low, high, blob(f"{low}-{high}-{size}", size), bytes(size) if inline else None)


def snapshot(version: int, *sizes: int) -> SnapshotRef:
    parts = tuple(blob(f"{version}.{place}", size) for place, size in enumerate(sizes))
    return SnapshotRef(version, bytes(16), 1, None, parts)


def walk(path: Path, have: int | None) -> int | None:
    """The version at which `path` ends. Fails if it is not a path."""
    at = have if path.snapshot is None else path.snapshot.version
    for item in path.hops:
        assert item.from_version == at
        at = item.to_version
    return at


def all_costs(chain: SliceChain, have: int | None, want: int, staged: frozenset[bytes]) -> Iterator[int]:
    """The cost of every path there is."""

    def price(ref: BlobRef) -> int:
        return 0 if ref.sha256 in staged else ref.size + REQUEST_BYTES

    def onward(version: int, cost: int) -> Iterator[int]:
        if version == want:
            yield cost
        for item in chain.hops:
            if item.from_version == version and item.to_version <= want:
                yield from onward(item.to_version, cost + price(item.blob))

    if have is not None and have <= want:
        yield from onward(have, 0)
    for item in (EMPTY_SNAPSHOT, *chain.snapshots):
        if item.version <= want:
            yield from onward(item.version, RESTART_BYTES + sum(map(price, item.parts)))


VERSIONS = st.integers(0, 8)


@st.composite
def chains(draw: st.DrawFn) -> SliceChain:
    pairs = draw(
        st.lists(st.tuples(VERSIONS, VERSIONS).filter(lambda pair: pair[0] < pair[1]), max_size=14, unique=True)
    )
    hops = tuple(hop(low, high, draw(st.integers(1, 40_000))) for low, high in pairs)
    versions = draw(st.lists(st.integers(1, 8), max_size=2, unique=True))
    sizes = st.lists(st.integers(1, 30_000), max_size=3)
    return SliceChain(tuple(snapshot(version, *draw(sizes)) for version in versions), hops)


@given(chains(), st.none() | VERSIONS, VERSIONS, st.integers(0, 3))
def test_path_is_valid_and_never_dearer_than_any_other(
    chain: SliceChain, have: int | None, want: int, residue: int
) -> None:
    refs = [item.blob for item in chain.hops] + [part for item in chain.snapshots for part in item.parts]
    staged = frozenset(ref.sha256 for ref in refs if ref.sha256[0] % 4 == residue)
    costs = list(all_costs(chain, have, want, staged))
    if not costs:
        with pytest.raises(ChainError, match="none of"):
            plan(chain, have, want, staged=staged)
        return
    path = plan(chain, have, want, staged=staged)
    assert walk(path, have) == want
    assert path.cost == min(costs)
    fetched = sum(ref.size + REQUEST_BYTES for ref in path.blobs if ref.sha256 not in staged)
    assert path.cost == fetched + (RESTART_BYTES if path.snapshot is not None else 0)


def skip_list(newest: int, size: int) -> SliceChain:
    """Hops as the publisher makes them: to v from v - 2^k for each 2^k that divides v, growing with what they span."""
    hops = []
    for version in range(1, newest + 1):
        step = 1
        while version % step == 0 and step <= version:
            hops.append(hop(version - step, version, int(size * step**0.8) + (5_000_000 if version == step else 0)))
            step *= 2
    return SliceChain((snapshot(1, 5_000_000),), tuple(hops))


@pytest.mark.parametrize("have", [1, 23, 24, 500, 999])
def test_a_thousand_versions_behind_takes_at_most_twenty_blobs(have: int) -> None:
    path = plan(skip_list(1000, 400), have, 1000)
    assert path.snapshot is None
    assert len(path.blobs) <= 20
    assert walk(path, have) == 1000


def test_snapshot_when_hops_are_dearer() -> None:
    chain = SliceChain((snapshot(9, 1000),), (hop(1, 10, 50_000), hop(9, 10, 10)))
    path = plan(chain, 1, 10)
    assert path.snapshot == chain.snapshots[0]
    assert path.hops == (chain.hops[1],)


def test_inlined_hop_costs_nothing() -> None:
    inlined = hop(4, 5, 100, inline=True)
    path = plan(SliceChain((), (hop(3, 4, 10), hop(3, 5, 200))), 3, 5, inlined=[inlined])
    assert path.hops == (hop(3, 4, 10), inlined)
    assert path.cost == 10 + REQUEST_BYTES
    assert [ref.size for ref in path.blobs] == [10]


def test_parts_that_lie_staged_cost_nothing() -> None:
    first = snapshot(5, 100_000, 100_000)
    chain = SliceChain((first,), (hop(1, 5, 150_000),))
    assert plan(chain, 1, 5).snapshot is None
    staged = frozenset(part.sha256 for part in first.parts[:1])
    assert plan(chain, 1, 5, staged=staged).snapshot == first


@pytest.mark.parametrize("dearer", [-1, 1])
def test_a_page_costs_itself_a_request_and_the_way_through_it(dearer: int) -> None:
    """Beside it stands a hop over the same stretch that costs a byte less or more in all."""
    page = PageRef(1, 5, 700, blob("page", 50))
    direct = hop(1, 5, 700 + 50 + dearer)
    path = plan(SliceChain((), (direct, hop(5, 6, 10)), (), (page,)), 1, 6)
    assert path.cost == 700 + min(50, 50 + dearer) + 10 + 2 * REQUEST_BYTES
    assert (path.pages, path.hops[:-1]) == (((page,), ()) if dearer > 0 else ((), (direct,)))
    staged = frozenset([page.blob.sha256])
    assert plan(SliceChain((), (direct,), (), (page,)), 1, 5, staged=staged).cost == 700


@pytest.mark.parametrize(("have", "helps"), [(0, False), (1, True), (4, True), (5, False)])
def test_a_page_helps_from_its_lowest_version_up_to_before_its_highest(have: int, helps: bool) -> None:
    page = PageRef(1, 5, 700, blob("page", 50))
    path = plan(SliceChain((snapshot(6, 1 << 20),), (hop(5, 6, 10),), (), (page,)), have, 6)
    assert (path.pages == (page,)) is helps


def test_what_is_distrusted_is_avoided() -> None:
    chain = SliceChain((snapshot(5, 100_000),), (hop(1, 5, 10), hop(1, 3, 50), hop(3, 5, 50)))
    direct, low, _ = chain.hops
    assert plan(chain, 1, 5).hops == (direct,)
    assert len(plan(chain, 1, 5, without=frozenset([direct.blob.sha256])).hops) == 2
    avoided = frozenset([direct.blob.sha256, low.blob.sha256])
    assert plan(chain, 1, 5, without=avoided).snapshot == chain.snapshots[0]
    with pytest.raises(ChainError, match="from version 1 to slice version 5"):
        plan(chain, 1, 5, without=avoided | {chain.snapshots[0].parts[0].sha256})


def test_a_whole_slice_in_one_hop_is_not_taken_where_there_is_a_snapshot() -> None:
    """A hop is decoded in one piece; a snapshot part by part, within the memory of a box."""
    whole = hop(0, 5, 2_000_000)
    assert plan(SliceChain((snapshot(5, 3_000_000),), (whole,)), None, 5).snapshot == snapshot(5, 3_000_000)
    assert plan(SliceChain((), (whole,)), None, 5).hops == (whole,)


def test_nothing_to_do() -> None:
    assert plan(SliceChain(()), 5, 5) == Path(None, (), 0)
    assert plan(SliceChain(()), None, 0) == Path(EMPTY_SNAPSHOT, (), RESTART_BYTES)


def test_no_way_back() -> None:
    with pytest.raises(ChainError, match="has to publish a snapshot"):
        plan(SliceChain((snapshot(5, 1),), (hop(3, 5, 1),)), 5, 4)


def test_version_at_a_dataset_version() -> None:
    chain = SliceChain((snapshot(3, 1),), (hop(3, 7, 1), hop(7, 9, 1)))
    assert [version_at(chain, 9, asked) for asked in (3, 6, 7, 8, 9, 40)] == [3, 3, 7, 7, 9, 9]
    with pytest.raises(ChainError, match="oldest slice version that the origin still has is 3"):
        version_at(chain, 9, 2)
