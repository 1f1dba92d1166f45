"""Pages of the chain: what lags little does not pay for what lies far back, and pages stay as they are."""

from __future__ import annotations

import random

import pytest

from edged.errors import WireError
from edged.feed import cbor, limits, zstd
from edged.feed.blob import BlobRef
from edged.feed.chain import PageRef, SliceChain, decode_page, encode_page
from edged.feed.head import HopRef
from edged.feed.plan import plan
from edged.origin.blobs.pages import PAGE_CHANGES, RECENT_CHANGES
from edged.origin.publisher import Publisher
from tests.origin.devices import Device

VERSIONS = 3 * PAGE_CHANGES + 20


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Publisher, dict[int, Device]]:
    """A feed of many versions, and devices that stayed at some of them."""
    publisher = Publisher.init(tmp_path_factory.mktemp("pages") / "feed")
    chance = random.Random(1)
    state = {f"t{number}": {"n": number, "text": f"film number {number}"} for number in range(200)}
    publisher.publish("catalog", [("titles", key, value) for key, value in state.items()])
    left: dict[int, Device] = {}
    for version in range(2, VERSIONS + 1):
        key = f"t{chance.randrange(200)}"
        publisher.publish_changes("catalog", [("titles", key, {**state[key], "n": 1000 + version})])
        if version in (3, 31, 33, 40, 64, 100, VERSIONS - 40, VERSIONS - 3):
            left[version] = Device(publisher.path, "catalog")
            left[version].sync()
    return publisher, left


def test_every_version_comes_to_the_live_one_by_few_blobs(feed: tuple[Publisher, dict[int, Device]]) -> None:
    _, left = feed
    for version, device in left.items():
        device.fetched.clear()
        snapshots = device.snapshots
        assert device.sync().version == VERSIONS
        pages = {page.blob for page in device.chain(device.head()).slices["core"].pages}
        assert len(pages & set(device.fetched)) <= (version < VERSIONS - RECENT_CHANGES)
        assert len(device.fetched) <= 12
        assert device.snapshots == snapshots


def test_the_chain_holds_the_newest_hops_and_pages_the_rest(feed: tuple[Publisher, dict[int, Device]]) -> None:
    publisher, _ = feed
    device = Device(publisher.path, "catalog")
    entry = device.chain(device.head()).slices["core"]
    assert len(entry.pages) >= 3
    assert {hop.to_version for hop in entry.hops} >= set(range(VERSIONS - RECENT_CHANGES + 1, VERSIONS + 1))
    whole = entry
    for page in entry.pages:
        whole = whole.with_page(page, decode_page(device.blob(page.blob), page))
    assert whole.pages == ()
    assert {hop.to_version for hop in whole.hops} == set(range(2, VERSIONS + 1))
    for have in range(1, VERSIONS):
        best, found = plan(whole, have, VERSIONS), entry
        while (path := plan(found, have, VERSIONS)).pages:
            for page in path.pages:
                found = found.with_page(page, decode_page(device.blob(page.blob), page))
        assert path.cost <= best.cost * 1.1 + 600


def test_pages_are_the_same_in_the_next_version(feed: tuple[Publisher, dict[int, Device]]) -> None:
    publisher, _ = feed
    device = Device(publisher.path, "catalog")
    before = device.chain(device.head()).slices["core"].pages
    publisher.publish_changes("catalog", [("titles", "t1", {"n": 0})])
    after = device.chain(device.head()).slices["core"].pages
    assert after[: len(before)] == before
    publisher.rollback("catalog", VERSIONS)


HOP = HopRef(4, 6, BlobRef(bytes(32), 10))


@pytest.mark.parametrize(
    "data",
    [
        zstd.compress(cbor.encode({1: 1, 2: []})),
        zstd.compress(cbor.encode({1: 2, 2: 5})),
        zstd.compress(cbor.encode([])),
        zstd.compress(bytes(limits.PAGE_BYTES + 1)),
        encode_page([HOP]) + b"x",
        encode_page([HopRef(3, 6, HOP.blob)]),
        encode_page([HopRef(4, 9, HOP.blob)]),
        b"",
    ],
)
def test_malformed_page(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_page(data, PageRef(4, 8, 0, BlobRef.of(data)))
    good = encode_page([HOP])
    assert decode_page(good, PageRef(4, 8, 0, BlobRef.of(good))) == (HOP,)


def test_a_page_whose_hops_lead_nowhere_is_left_for_another_way() -> None:
    ref = PageRef(4, 8, 0, BlobRef(bytes(32), 10))
    direct = HopRef(5, 8, BlobRef(bytes(32), 9_000))
    chain = SliceChain((), (direct,), (), (ref,))
    assert plan(chain, 5, 8).pages == (ref,)
    assert plan(chain.with_page(ref, (HOP,)), 5, 8).hops == (direct,)


def test_a_page_is_cut_off_exactly_when_enough_later_changes_are_in_the_chain(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.origin.blobs.pages.PAGE_CHANGES", 4)
    monkeypatch.setattr("edged.origin.blobs.pages.RECENT_CHANGES", 2)
    monkeypatch.setattr("edged.origin.retention.PAGE_CHANGES", 4)
    publisher.publish("catalog", [("titles", f"t{number}", {"n": number}) for number in range(50)])
    device, counts = Device(publisher.path, "catalog"), {}
    for version in range(2, 13):
        publisher.publish_changes("catalog", [("titles", "t1", {"n": version * 100})])
        entry = device.chain(device.head()).slices["core"]
        counts[version] = [(page.low, page.high) for page in entry.pages]
        device.sync()
    assert counts[5] == []
    assert counts[6] == counts[9] == [(1, 4)]
    assert counts[10] == [(1, 4), (4, 8)]
    # A hop as long as a page leads from page to page, and stays in the chain.
    assert (4, 8) in {(hop.from_version, hop.to_version) for hop in entry.hops}
