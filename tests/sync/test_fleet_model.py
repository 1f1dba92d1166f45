"""The model of a fleet (benchmarks/shared/fleetmodel.py) is the machine: each request of each device, to the moment."""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from benchmarks.shared import fleetmodel as model
from benchmarks.shared.fleettiers import Tiers
from edged.errors import TransportError
from edged.feed.ahead.sealed import Ahead, Released, SealedHop
from edged.feed.head import decode_head
from edged.feed.trust import cose
from edged.feed.trust.root import sign_head
from edged.feed.trust.sealing import bound_to, seal
from edged.sync.core import events
from edged.sync.core.events import WAIT_S, CarriedSlice, Effect, Event, HeldState, Instant, MachineSettings
from edged.sync.core.machine import Machine
from edged.sync.core.turns import STEP_S
from tests.sync.simulator import DICTIONARY, NOW, Feed

LATENCY_S, START_WITHIN_S, END_S = 0.0625, 60.0, 4800.0
KEY = bytes(32)
OUTAGE = (2400.0, 3300.0)
CUT_S, BACK_S = 3600.0, 3900.0  # a third of the devices loses its power, and has it again
REQUESTS: dict[type[Effect], int] = {
    events.FetchTrust: model.TRUST,
    events.FetchBlob: model.FETCH,
    events.Prefetch: model.PREFETCH,
}
Requests = list[tuple[int, int, float, int]]  # device, kind, when, seconds to be held or bytes of a blob


@dataclass
class Story:
    """What a real publisher signed, and the same in the model's words: an edit inside the head, one to be fetched
    within five minutes, one ahead of its release, and that."""

    feed: Feed = field(default_factory=Feed)
    signed: list[bytes] = field(default_factory=list)
    heads: list[model.Published] = field(default_factory=list)

    def __post_init__(self) -> None:
        feed = self.feed
        feed.publish({f"t{number}": {"n": number} for number in range(40)})
        snapshot = feed.slices["core"].snapshots[0]
        assert snapshot.dictionary is not None
        # All of it comes inlined, as a hop from nothing, and needs its dictionary.
        self.add(0.0, first=(feed.document().chain.size, snapshot.dictionary.size))
        feed.publish({"t1": {"n": "x" * 30}})
        self.add(500.0)
        feed.inline_bytes = 0
        feed.publish({"t2": {"n": "y" * 30}}, sign=False)
        feed.sign(spread=(NOW + 900, 300))
        self.add(900.0, spread=(900.0, 300.0), fetches=(feed.slices["core"].hops[-1].blob.size,))
        self.add_ahead()

    def add_ahead(self) -> None:
        feed, live = self.feed, decode_head(cose.open_sign1(self.signed[-1], "head")[1])
        version = live.version + 1
        feed.publish({"t3": {"n": "z" * 30}}, sign=False)
        hop = next(
            hop for hop in feed.slices["core"].hops if (hop.from_version, hop.to_version) == (version - 1, version)
        )
        blob = feed.store(seal(KEY, bound_to("catalog", "core", version - 1, version), feed.blobs[hop.blob.sha256]))
        hops = {"core": SealedHop(version - 1, blob)}
        coming = Ahead(version, NOW + 1500, 200, hops)
        feed.head = sign_head(replace(live, signed_at=feed.now, spread=None, ahead=coming), feed.head_key)
        self.add(1500.0, ahead=(1500.0, 200.0), coming=version)
        feed.now += 1
        feed.sign(released=Released(KEY, hops))
        self.add(2100.0, released=True, fetches=(blob.size,))

    def add(self, at: float, **fields: Any) -> None:
        self.signed.append(self.feed.head)
        version = decode_head(cose.open_sign1(self.feed.head, "head")[1]).version
        self.heads.append(model.Published(at, version, **fields))

    def number_at(self, at: float) -> int:
        return max(number for number, head in enumerate(self.heads) if head.at <= at)

    def held(self, version: int, data: bytes) -> HeldState:
        head = decode_head(cose.open_sign1(data, "head")[1])
        dictionaries = (hashlib.sha256(DICTIONARY).digest(),)
        slices = {
            name: CarriedSlice(item.version, item.digest, item.records, dictionaries)
            for name, item in head.slices.items()
        }
        return HeldState(version, data, slices=slices, schema_version=head.schema_version)


@dataclass
class Box:
    """A device's real machine, its disk, and what it was doing."""

    number: int
    story: Story
    held: HeldState
    draws: int = 0
    power: int = 0  # how often it was switched on
    there: set[bytes] = field(default_factory=set)
    measured: str = "core"

    def switch_on(self) -> None:
        self.power += 1
        settings = MachineSettings(
            "catalog", self.story.feed.roots[0], frozenset({"core"}), NOW, device_id=f"device-{self.number}",
            start_within_s=START_WITHIN_S,
        )  # fmt: skip
        self.machine = Machine(settings, self.chance)

    def chance(self) -> float:
        self.draws += 1
        return float(model.chances(np.array([self.number]), np.array([self.draws - 1]))[0])

    def at_once(self, effect: Effect) -> Event | None:
        """What the disk answers; None where it is not asked."""
        match effect:
            case events.Load():
                return events.HeldLoaded(self.held)
            case events.CheckStaged():
                return events.PartsStaged(frozenset())
            case events.Stage():
                return events.StageDone()
            case events.Measure(name):
                item = decode_head(cose.open_sign1(self.story.signed[self.newest], "head")[1]).slices[name]
                return events.Measured(item.digest, item.records)
            case events.Commit(version=version, head=head):
                self.held = self.story.held(version, head)
                return events.Committed()
            case events.Touch(head=head):
                self.held = replace(self.held, head=head)
                return events.Committed()
            case events.FetchBlob(ref=ref) | events.Prefetch(ref=ref) if ref.sha256 in self.there:
                data = self.story.feed.blobs[ref.sha256]
                return events.BlobArrived(ref, data) if isinstance(effect, events.FetchBlob) else events.Prefetched(ref)
        return None

    @property
    def newest(self) -> int:
        assert self.machine.newest is not None
        return self.story.signed.index(self.machine.newest.data)


class Driver:
    """Real machines and one origin, which nothing stands before, in a time of their own."""

    def __init__(self, story: Story, held: list[int]) -> None:
        self.story, self.requests = story, Requests()
        self.queue: list[tuple[float, int, Box, int, Event | None]] = []
        self.boxes = [
            Box(number, story, story.held(1, story.signed[0]) if version else HeldState())
            for number, version in enumerate(held)
        ]
        self.order = 0

    def later(self, at: float, box: Box, event: Event | None, power: int) -> None:
        self.order += 1
        heapq.heappush(self.queue, (at, self.order, box, power, event))

    def run(self, until: float) -> None:
        while self.queue and self.queue[0][0] < until:
            now, _, box, power, event = heapq.heappop(self.queue)
            if event is None:
                box.switch_on()
                self.tell(box, events.Started(), now)
            elif power == box.power:
                self.tell(box, event, now)

    def tell(self, box: Box, event: Event, now: float) -> None:
        while True:
            effect = box.machine.handle(event, Instant(NOW + now, now))[-1]
            answer = box.at_once(effect)
            if answer is None:
                return self.later(*self.ask(box, effect, now), box.power)
            event = answer

    def ask(self, box: Box, effect: Effect, now: float) -> tuple[float, Box, Event]:
        """When the origin answers, and what."""
        if isinstance(effect, events.Rest):
            return now + effect.seconds, box, events.Woken()
        down = OUTAGE[0] <= now < OUTAGE[1]
        after, story = now + LATENCY_S, self.story
        if isinstance(effect, events.Poll):
            kind, number = (model.POLL, effect.wait_s) if effect.wait_s else (model.ANEW, 0)
        else:
            kind, number = REQUESTS[type(effect)], getattr(getattr(effect, "ref", None), "size", 0)
        self.requests.append((box.number, kind, now, number))
        if down:
            return after, box, events.Failed(TransportError("connect: refused"))
        match effect:
            case events.FetchTrust(number=asked):
                return after, box, events.TrustMissing(asked)
            case events.FetchBlob(ref=ref):
                return after, box, events.BlobArrived(ref, story.feed.blobs[ref.sha256])
            case events.Prefetch(ref=ref):
                box.there.add(ref.sha256)
                return after, box, events.Prefetched(ref)
            case events.Poll(etag=etag, wait_s=wait_s):
                return self.poll(box, etag, wait_s, now)
        raise AssertionError(f"{effect}: what is that?")

    def poll(self, box: Box, etag: str | None, wait_s: int, now: float) -> tuple[float, Box, Event]:
        live = self.story.number_at(now)
        if wait_s and etag == f"{live}":
            news = min((head.at for head in self.story.heads if head.at > now), default=END_S * 2)
            over = min(news, now + wait_s)
            if now < OUTAGE[0] < over:
                return OUTAGE[0] + LATENCY_S, box, events.Failed(TransportError("read: reset by peer"))
            if over < news:
                return over + LATENCY_S, box, events.HeadUnchanged()
            now, live = news, self.story.number_at(news)
        return now + LATENCY_S, box, events.HeadArrived(self.story.signed[live], f"{live}")


def by_machines(story: Story, held: list[int], cut: list[int]) -> tuple[Requests, list[int]]:
    driver = Driver(story, held)
    for box in driver.boxes:
        driver.later(10.0, box, None, 0)
    driver.run(CUT_S)
    for number in cut:
        driver.boxes[number].power += 1  # nothing that was under way comes to anything
        driver.later(BACK_S, driver.boxes[number], None, 0)
    driver.run(END_S)
    return driver.requests, [box.held.version for box in driver.boxes]


def by_model(story: Story, held: list[int], cut: list[int]) -> tuple[Requests, list[int]]:
    requests = Requests()

    def record(kind: int, who: model.Ints, at: model.Floats, sizes: Any) -> None:
        numbers = np.zeros(len(who), np.int64) if sizes is None else sizes
        requests.extend(zip(who.tolist(), [kind] * len(who), at.tolist(), numbers.tolist(), strict=True))

    world, count = model.World(story.heads, [OUTAGE], START_WITHIN_S), len(held)
    versions = np.array(held, np.int64)
    fleet = model.Fleet(world, np.full(count, 10.0), np.full(count, LATENCY_S), versions, record)
    fleet.run(CUT_S)
    fleet.switch_on(np.array(cut, np.int64), BACK_S)
    fleet.run(END_S)
    return requests, fleet.held.tolist()


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_each_request_of_each_device_is_made_when_the_real_machine_makes_it(count: int) -> None:
    story = Story()
    held = [0 if number % 10 == 9 else 1 for number in range(count)]
    cut = list(range(0, count, 3))
    (mine, versions), (theirs, wanted) = by_model(story, held, cut), by_machines(story, held, cut)
    assert versions == wanted == [story.heads[-1].version] * count
    assert len(mine) == len(theirs) > 20 * count
    for one, other in zip(sorted(mine), sorted(theirs), strict=True):
        assert (one[0], one[1], one[3]) == (other[0], other[1], other[3])
        assert one[2] == pytest.approx(other[2], abs=1e-4)
    assert {kind for _, kind, _, _ in theirs} == set(model.REQUESTS)


def test_a_cache_makes_as_many_requests_of_a_fleets_polls_as_there_are_turns() -> None:
    news, count, turns = 600, 1500, WAIT_S // STEP_S
    world = model.World([model.Published(0.0, 1), model.Published(news, 2)])
    tiers = Tiers(news + 480, count)
    begins = np.random.default_rng(3).random(count) * WAIT_S
    ones = np.ones(count, np.int64)
    fleet = model.Fleet(world, begins, np.full(count, LATENCY_S), ones, tiers.record, tiers.collapse)
    fleet.run(tiers.horizon)
    polls, passed = tiers.asked[model.POLL], tiers.to_origin[model.POLL]
    assert polls[news] > 0.95 * count  # the others were resting, and make requests of their own
    assert passed[news] == turns
    assert polls[news + 10 : news + 250].sum() > 0.95 * count
    assert passed[news + 10 : news + 250].sum() < 2 * turns
    assert (fleet.held == 2).all()
