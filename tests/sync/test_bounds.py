"""The bounds of what synchronisation decides, each on both sides: exactly at it, and one beyond."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from edged.errors import ChainError, StoreError, TrustError, WireError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.feed.head import Head, HopRef, Offer, SliceHead
from edged.feed.plan import REQUEST_BYTES
from edged.feed.schema import CollectionSchema, Schema
from edged.feed.trust import root as trust
from edged.feed.trust.cose import KeyId
from edged.feed.trust.root import VerifiedHead, verify_head
from edged.replica.files.disk import Disk
from edged.sync.core import judge
from edged.sync.core.events import CarriedSlice, HeldState
from edged.sync.core.judge import ContentError, SeenHead, TrustedTime, check_content, expired_fault
from edged.sync.core.polling import (
    AT_ONCE_S,
    BUSY_DISK_S,
    CUT_S,
    CUTS,
    LEAST_WAIT_S,
    PROBE_S,
    REFUSED_S,
    STALE_SURVEY_S,
    SURVEY_S,
    Backoff,
    Rotation,
)
from edged.sync.core.steps import PlanIt, TakeHop
from edged.sync.core.trusted import ROOT_CHECK_S
from edged.sync.core.turns import STEP_S
from edged.sync.core.update import CHAIN_WORTH, REPAIRS, Update
from tests.sync.driving import first_sync, running
from tests.sync.simulator import NOW, Device, Feed

FILMS: dict[str, object | None] = {f"t{number:03}": {"title": f"Film {number}"} for number in range(10)}
EDIT: dict[str, object | None] = {"t001": {"title": "Film 1, restored"}}


@pytest.fixture
def feed() -> Feed:
    feed = Feed()
    feed.publish(FILMS)
    feed.publish(EDIT)
    return feed


def verified(feed: Feed, **fields: object) -> VerifiedHead:
    return verify_head(feed.sign(**fields), trust.read_root(feed.roots[0], "root"), feed.dataset)


# ---- judging


@pytest.mark.parametrize(("ahead_s", "taken"), [(limits.FUTURE_S, True), (limits.FUTURE_S + 1, False)])
def test_how_far_ahead_a_head_may_be_signed(feed: Feed, ahead_s: int, taken: bool) -> None:
    head = verified(feed, signed_at=NOW + ahead_s)
    clock = TrustedTime(NOW, NOW - 1000)
    if taken:
        judge.judge(head, None, clock)
    else:
        with pytest.raises(TrustError, match="in the future"):
            judge.judge(head, None, clock)


@pytest.mark.parametrize(("behind_s", "is_set"), [(limits.FUTURE_S, True), (limits.FUTURE_S + 1, False)])
def test_how_far_a_clock_may_lag_that_is_set(behind_s: int, is_set: bool) -> None:
    assert TrustedTime(NOW - behind_s, NOW).is_set is is_set


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, None),
        ({"signed_at": NOW + 2}, None),
        ({"signed_at": NOW + 1}, "before the head seen last"),
        ({"version": 1, "schema_version": 0, "slices": {}}, "rollback"),
        ({"schema_version": 1}, "is not the content that was signed"),
    ],
)
def test_what_may_follow_a_head(feed: Feed, fields: dict[str, object], words: str | None) -> None:
    seen = SeenHead.of(verified(feed))
    assert seen.head.signed_at == NOW + 2
    clock = TrustedTime(NOW + 100, NOW)
    if words is None:
        judge.judge(verified(feed, **fields), seen, clock)
        return
    with pytest.raises(TrustError, match=words):
        judge.judge(verified(feed, **fields), seen, clock)


@pytest.mark.parametrize(("version", "taken"), [(3, False), (4, True), (5, True)])
def test_an_offer_that_was_seen_binds_the_next_one(feed: Feed, version: int, taken: bool) -> None:
    def offering(number: int) -> VerifiedHead:
        head = feed.document()
        return verified(feed, offer=Offer(bytes(8), 10, number, head.slices, head.chain, head.schema_version))

    seen, clock = SeenHead.of(offering(4)), TrustedTime(NOW + 100, NOW)
    if taken:
        judge.judge(offering(version), seen, clock)
    else:
        with pytest.raises(TrustError, match="rollback, version 4 has been seen"):
            judge.judge(offering(version), seen, clock)


@pytest.mark.parametrize(("age_s", "expired"), [(86_400, False), (86_401, True)])
def test_when_a_head_has_run_out(feed: Feed, age_s: int, expired: bool) -> None:
    head = verified(feed).head
    assert (expired_fault(head, TrustedTime(head.signed_at + age_s, 0)) is not None) is expired


@pytest.mark.parametrize(("count", "taken"), [(3, True), (2, False)])
def test_how_few_records_a_collection_may_have(count: int, taken: bool) -> None:
    schema = Schema({"titles": CollectionSchema(min_count=3)})
    check_content("catalog", 2, {"titles": count - 3}, schema, [], whole=False)
    if taken:
        check_content("catalog", 2, {"titles": count}, schema, ["titles"], whole=True)
    else:
        with pytest.raises(ContentError, match="titles has 2 records, the schema says at least 3"):
            check_content("catalog", 2, {"titles": count}, schema, ["titles"], whole=True)


@pytest.mark.parametrize(("number", "binds"), [(1, True), (2, False)])
def test_only_a_newer_root_lets_a_head_bind_no_longer(feed: Feed, number: int, binds: bool) -> None:
    from edged.sync.core.trusted import Trusted

    held = HeldState(2, feed.sign(), None)
    known = Trusted(feed.dataset, feed.roots[0], held)
    assert known.newest_head is not None
    stranger = replace(known.root, number=number, heads=Feed.role([feed.root_keys[0]]))
    known.roots = replace(known.roots, newest=stranger)
    assert known.revokes(known.newest_head) is not binds


# ---- polling


def rotation(origins: int = 3, surveyed_at: float = 0.0) -> Rotation:
    return Rotation(origins, 240, surveyed_at)


@pytest.mark.parametrize(("waited_s", "cut"), [(CUT_S, True), (CUT_S - 0.01, False)])
def test_how_long_a_poll_lives_that_was_cut_and_not_refused(waited_s: float, cut: bool) -> None:
    subject = rotation()
    subject.ask(240, 1000.0, conditional=True)
    assert subject.cut(1000.0 + waited_s) is cut
    assert subject.wait_s == 240  # by a restart, perhaps
    assert subject.cut(1000.0 + waited_s) is cut
    assert subject.wait_s == (LEAST_WAIT_S if cut else 240)


def test_cuts_in_a_row_are_counted_and_an_answer_forgets_them() -> None:
    subject = rotation()
    subject.ask(240, 0.0, conditional=True)
    assert [subject.cut(100.0) for _ in range(CUTS + 1)] == [True] * CUTS + [False]
    assert subject.wait_s == 80
    subject.reached()
    assert subject.cut(100.0)
    subject.ask(0, 0.0, conditional=True)
    assert not subject.cut(100.0)  # it was not held at all


@pytest.mark.parametrize(("after_s", "holds"), [(AT_ONCE_S, True), (AT_ONCE_S - 0.01, False)])
def test_who_answers_at_once_does_not_hold_polls(after_s: float, holds: bool) -> None:
    subject = rotation()
    subject.wait_s = 100
    subject.ask(100, 50.0, conditional=True)
    subject.unchanged(50.0 + after_s)
    assert subject.held_wait_s(50.0 + after_s) == (101 if holds else 0)
    if not holds:
        assert subject.held_wait_s(50.0 + after_s + PROBE_S - 0.01) == 0
        assert subject.held_wait_s(50.0 + after_s + PROBE_S) == 100


def test_the_wait_grows_no_longer_than_it_is_meant_to_be() -> None:
    subject = rotation()
    subject.ask(240, 0.0, conditional=True)
    subject.unchanged(240.0)
    assert subject.wait_s == 240


@pytest.mark.parametrize(
    ("since_s", "stale", "urgent", "origins", "due"),
    [
        (SURVEY_S, False, False, 2, True),
        (SURVEY_S - 0.01, False, False, 2, False),
        (STALE_SURVEY_S, True, False, 2, True),
        (STALE_SURVEY_S - 0.01, True, False, 2, False),
        (STALE_SURVEY_S, False, False, 2, False),
        (0.0, False, True, 2, True),
        (SURVEY_S, True, True, 1, False),
    ],
)
def test_when_the_other_origins_are_asked(since_s: float, stale: bool, urgent: bool, origins: int, due: bool) -> None:
    subject = rotation(origins, surveyed_at=100.0)
    assert subject.survey_due(100.0 + since_s, stale=stale, urgent=urgent) is due


def test_a_survey_asks_each_of_the_others_once_and_ends_where_the_newest_head_is() -> None:
    subject = rotation()
    subject.go_to(1, 0.0)
    subject.showed("a", new=True)
    subject.begin_survey(5.0)
    assert subject.held_wait_s(5.0) == 0
    assert (subject.next_of_survey(5.0), subject.current) == (True, 2)
    subject.showed("b", new=True)
    assert subject.etags == {2: "b"}
    assert (subject.next_of_survey(6.0), subject.current) == (True, 0)
    assert (subject.next_of_survey(7.0), subject.current) == (False, 2)
    assert (subject.next_of_survey(8.0), subject.surveyed_at) == (False, 5.0)


def test_origins_are_tried_in_their_order_and_the_last_to_fail_is_told_as_such() -> None:
    subject = rotation()
    tried = [(subject.go_on(0.0), subject.current) for _ in range(6)]
    assert tried == [(False, 1), (False, 2), (True, 0)] * 2


@pytest.mark.parametrize(("chance", "waits"), [(0.0, [5.0, 5.0, 7.0, 7.0]), (0.5, [5.5, 6.0, 8.0, 8.0])])
def test_backoff_adds_to_what_was_asked_for(chance: float, waits: list[float]) -> None:
    subject = Backoff(lambda: chance, base_s=1.0, cap_s=4.0)
    assert [subject.fail(5.0) for _ in range(4)] == waits


# ---- pauses


async def test_the_pause_after_a_refusal(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    """At least a minute and at most two the first time; longer each time, up to an hour and a minute."""
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish({"t002": {"title": "Film 2"}}, sign=False)
    feed.slices["core"].hops.clear()
    feed.sign()
    origin.polls.clear()
    async with running(device, origin):
        await trio.sleep(30 * 3600)
    asked = [at for at, after, _, _ in origin.polls if after is None]
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    slack_s = STEP_S + 1
    assert REFUSED_S <= pauses[0] <= 2 * REFUSED_S + slack_s
    assert all(REFUSED_S <= pause <= 3600 + REFUSED_S + slack_s for pause in pauses)
    assert max(pauses) > 1800


async def test_the_pause_on_a_full_disk(
    tmp_path: Path, feed: Feed, jumping: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    feed.publish({"t002": {"title": "Film 2"}})
    tried: list[float] = []

    def full(disk: Disk, name: str, data: bytes) -> None:
        tried.append(trio.current_time())
        raise StoreError(f"write {name}: No space left on device")

    monkeypatch.setattr(Disk, "write", full)
    async with running(device, origin):
        await trio.sleep(3600)
    assert len(tried) > 5
    assert all(later - earlier >= BUSY_DISK_S for earlier, later in itertools.pairwise(tried))


async def test_how_often_a_new_root_is_looked_for(tmp_path: Path, feed: Feed, jumping: Any) -> None:
    device = Device.of(tmp_path, feed)
    origin = await first_sync(device, feed)
    async with running(device, origin):
        await trio.sleep(ROOT_CHECK_S - 10)
        assert origin.requests["trust"] == 1
        await trio.sleep(300)
        assert origin.requests["trust"] == 2
        await trio.sleep(3 * ROOT_CHECK_S)
        assert origin.requests["trust"] == 5


# ---- updates


def head_with_hop(size: int, chain_bytes: int) -> Head:
    hop = HopRef(1, 2, BlobRef(bytes(32), size))
    return Head(
        dataset="catalog",
        version=2,
        signed_at=NOW,
        fresh_s=60,
        expires_s=60,
        root=1,
        schema_version=0,
        chain=BlobRef(bytes(32), chain_bytes),
        slices={"core": SliceHead(2, bytes(16), 5, (hop,))},
    )


def update_of(head: Head, held_version: int = 1) -> Update:
    held = HeldState(held_version, b"", None, {"core": CarriedSlice(held_version, bytes(31) + b"x", 5)})
    return Update(VerifiedHead(head, KeyId(b""), 1, b""), held, frozenset({"core"}))


@pytest.mark.parametrize(("more", "direct"), [(0, True), (1, False)])
def test_how_large_a_hop_may_be_that_is_taken_without_looking_for_another_way(more: int, direct: bool) -> None:
    size = CHAIN_WORTH * (1000 + REQUEST_BYTES) + more
    first = update_of(head_with_hop(size, 1000)).steps[0]
    assert isinstance(first, TakeHop if direct else PlanIt)


def test_a_hop_from_another_version_than_the_one_held_is_not_taken() -> None:
    assert isinstance(update_of(head_with_hop(10, 1000), held_version=0).steps[0], PlanIt)


def test_a_slice_is_repaired_so_often_and_no_more() -> None:
    update = update_of(head_with_hop(10, 1000))
    for _ in range(REPAIRS):
        assert update.repair(WireError("broken")) == "core"
        step = update.steps[0]
        assert isinstance(step, PlanIt)
        assert step.afresh
    with pytest.raises(ChainError, match="neither hops nor snapshot give what was signed"):
        update.repair(WireError("broken"))
