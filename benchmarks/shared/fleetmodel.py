"""A fleet's devices, all at once: what the real machine (edged/sync/core) decides for each, in numpy.

tests/sync/test_fleet_model.py holds it equal to the machine, request by request. It knows what a fleet meets: heads
that are inlined, spread, ahead and released; an origin that is away; boots. It does not know what concerns single
devices: faults of a disk, other origins, rollouts, refusals, heads that were only signed anew.

A device sends a request at a time, and the answer comes a latency later; requests are worked off second by second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.sync.core.events import WAIT_S
from edged.sync.core.polling import BASE_S, CAP_S, CUT_S, CUTS
from edged.sync.core.prefetch import place_in_window
from edged.sync.core.trusted import ROOT_CHECK_S, ROOT_RETRY_S
from edged.sync.core.turns import STEP_S, place_at_start, place_at_turn

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

WAKE, TRUST, ANEW, POLL, FETCH, PREFETCH = range(6)  # what a device does next: rests until then, or asks for
REQUESTS = {TRUST: "root of trust", ANEW: "head at once", POLL: "held poll", FETCH: "blob", PREFETCH: "blob ahead"}
NEVER = np.inf


@dataclass(frozen=True, slots=True)
class Published:
    """A head. at: when; version: live; spread, ahead: since when (seconds of the simulation) and within how many;
    coming: the version ahead. fetches: sizes of the blobs that who holds the version before asks for, none where they
    come with the head, or, with `released`, were to be fetched ahead; first: what a newcomer asks for."""

    at: float
    version: int
    spread: tuple[float, float] | None = None
    ahead: tuple[float, float] | None = None
    coming: int = 0
    released: bool = False
    fetches: tuple[int, ...] = ()
    first: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class World:
    """What a fleet meets. heads: oldest first, the first from the beginning; outages: from when to when nobody answers;
    start_within_s: as of a device whose box was switched on."""

    heads: Sequence[Published]
    outages: Sequence[tuple[float, float]] = ()
    start_within_s: float = 0.0

    def is_down(self, at: Floats) -> Flags:
        down = np.zeros(len(at), bool)
        for since, until in self.outages:
            down |= (at >= since) & (at < until)
        return down

    def down_from(self, at: Floats) -> Floats:
        """When the first outage begins after these times."""
        starts = np.array([*sorted(since for since, _ in self.outages), NEVER])
        found: Floats = starts[np.searchsorted(starts, at, side="right")]
        return found

    def head_at(self, at: Floats) -> Ints:
        """The number of the head that is live, in `heads`."""
        found = np.searchsorted(np.array([head.at for head in self.heads]), at, side="right") - 1
        return np.maximum(found, 0)

    def next_head_at(self, at: Floats) -> Floats:
        times = np.array([*(head.at for head in self.heads), NEVER])
        found: Floats = times[np.searchsorted(times, at, side="right")]
        return found


def chances(devices: Ints, draw: Ints) -> Floats:
    """The draw-th number in [0, 1) of each of these devices: splitmix64 (Steele, Lea, Flood 2014) of both."""
    mixed = devices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + draw.astype(np.uint64) * np.uint64(1 << 40)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def names(count: int) -> list[str]:
    return [f"device-{number}" for number in range(count)]


@cache
def places(place: Callable[[str, int], float], count: int, version: int) -> Floats:
    """Of each device, by one of the functions of edged/sync/core."""
    return np.fromiter((place(name, version) for name in names(count)), np.float64, count)


# Answers to held polls: (fleet, devices, when asked, when they would end, held for how long) to when they end.
Collapse = Callable[["Fleet", Ints, Floats, Floats, Ints], Floats]
Record = Callable[[int, Ints, Floats, Any], None]


@dataclass
class Fleet:
    """begins: when each is switched on; latency: of each device's requests, seconds; held: the version of each, 0 for
    none. record: told of each request (kind, devices, times, bytes of the blobs asked for or None)."""

    world: World
    begins: Floats
    latency: Floats
    held: Ints
    record: Record
    collapse: Collapse | None = None
    numbers: Ints = field(init=False)  # of the newest answers (Edged-Poll), for `collapse`

    def __post_init__(self) -> None:
        count = self.count = len(self.begins)
        self.time, self.kind = self.begins.copy(), np.full(count, WAKE, np.int8)
        self.booting = np.ones(count, bool)
        self.draws, self.numbers = np.ones(count, np.int64), np.zeros(count, np.int64)  # one when a machine is made
        self.seen = np.where(self.held > 0, 0, -1)  # the newest head, by its number in the world
        self.kept = self.seen.copy()  # the one on disk
        self.settled, self.shown = (
            np.zeros(count, bool),
            np.zeros(count, bool),
        )  # shown: the origin in use has that head
        self.roots_due, self.retry_at = np.zeros(count), np.full(count, NEVER)
        self.failures, self.cuts = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.in_step, self.whole = np.zeros(count, bool), np.zeros(count, bool)
        self.own_part, self.not_before = np.zeros(count), np.zeros(count)
        self.prefetch_at, self.followed = np.full(count, NEVER), np.full(count, -1, np.int64)
        self.there = np.full(count, -1, np.int64)  # the version that was fetched ahead
        self.left = np.zeros(count, np.int64)  # blobs to be fetched, this one included
        self.live_at = np.full(count, NEVER)  # since when each holds what it holds

    def switch_on(self, who: Ints, at: Floats | float) -> None:
        """These are off until then: their replicas last, what they were about to do does not."""
        self.time[who], self.kind[who], self.booting[who] = at, WAKE, True
        self.settled[who] = self.shown[who] = self.in_step[who] = self.whole[who] = False
        self.roots_due[who], self.retry_at[who], self.not_before[who] = 0.0, NEVER, 0.0
        self.prefetch_at[who], self.followed[who] = NEVER, -1
        self.failures[who] = self.cuts[who] = 0
        self.draws[who] += 1
        self.seen[who] = self.kept[who]

    def run(self, until: float) -> None:
        """Everything that happens before that second."""
        second = int(self.time.min())
        while second < until:
            due = np.flatnonzero(self.time < second + 1)
            while due.size:
                self.step(due)
                due = due[self.time[due] < second + 1]
            second += 1

    def step(self, due: Ints) -> None:
        kinds = self.kind[due]
        for kind, work in (
            (WAKE, self.wake),
            (TRUST, self.trust),
            (ANEW, self.ask_anew),
            (POLL, self.poll),
            (FETCH, self.fetch),
            (PREFETCH, self.prefetch),
        ):
            who = due[kinds == kind]
            if who.size:
                work(who, self.time[who].copy())

    # ---- the machine's decisions: `who` at `now`

    def set(self, who: Ints, kind: int, at: Floats) -> None:
        self.kind[who], self.time[who] = kind, at

    def wake(self, who: Ints, now: Floats) -> None:
        booting = self.booting[who]
        first = who[booting]
        if first.size:
            self.booting[first] = False
            rest = np.zeros(len(first))
            for version in np.unique(self.held[first]):
                if version and self.world.start_within_s:
                    these = self.held[first] == version
                    rest[these] = (
                        self.world.start_within_s * places(place_at_start, self.count, int(version))[first[these]]
                    )
            waits = rest > 0
            self.set(first[waits], WAKE, now[booting][waits] + rest[waits])
            self.decide(first[~waits], now[booting][~waits])
        who, now = who[~booting], now[~booting]
        fetches = self.prefetch_at[who] <= now
        self.set(who[fetches], PREFETCH, now[fetches])
        self.decide(who[~fetches], now[~fetches])

    def decide(self, who: Ints, now: Floats) -> None:
        """Machine.poll."""
        trust = self.roots_due[who] <= now
        self.set(who[trust], TRUST, now[trust])
        who, now = who[~trust], now[~trust]
        anew = ~self.settled[who] | ~self.shown[who] | (self.retry_at[who] <= now)
        first = who[anew]
        self.whole[first] = self.in_step[first] = False
        self.set(first, ANEW, now[anew])
        who, now = who[~anew], now[~anew]
        soon = np.full(len(who), NEVER)
        for times in (self.not_before, self.retry_at, self.prefetch_at):
            at = times[who]
            soon = np.where((at > now) & (at < now + STEP_S), np.minimum(soon, at), soon)
        rests = soon < NEVER
        # As the machine has it: the difference is what is rested for.
        self.set(who[rests], WAKE, now[rests] + (soon[rests] - now[rests]))
        self.set(who[~rests], POLL, now[~rests])

    def next_poll(self, who: Ints, now: Floats) -> None:
        """Machine.next_poll: what is to be fetched ahead is followed first."""
        heads, seen = self.world.heads, self.seen[who]
        for number in np.unique(seen):
            head = heads[number]
            these = who[seen == number]
            if head.ahead is None or head.coming == 0:
                self.prefetch_at[these] = NEVER
                continue
            new = these[self.followed[these] != number]
            place = places(place_in_window, self.count, head.coming)[new]
            at = now[seen == number][self.followed[these] != number] + place * head.ahead[1]
            wanted = (self.held[new] == head.version) & (self.there[new] != head.coming)
            self.prefetch_at[new] = np.where(wanted, at, NEVER)
            self.followed[new] = number
        fetches = self.prefetch_at[who] <= now
        self.set(who[fetches], PREFETCH, now[fetches])
        self.decide(who[~fetches], now[~fetches])

    def fail(self, who: Ints, now: Floats) -> None:
        """Nobody answers: a rest, and then what is answered at once."""
        self.shown[who] = False
        self.draws[who] += 1
        ceiling = np.minimum(CAP_S, BASE_S * 2.0 ** np.minimum(self.failures[who], 32))
        least = np.where(ceiling == CAP_S, ceiling / 2, 0.0)
        self.failures[who] += 1
        self.set(who, WAKE, now + (least + chances(who, self.draws[who] - 1) * (ceiling - least)))

    def reached(self, who: Ints) -> None:
        self.failures[who] = self.cuts[who] = 0

    def own_wait(self, who: Ints) -> Ints:
        """PollTurns.own_wait_s."""
        steps, wait = WAIT_S // STEP_S, np.zeros(len(who), np.int64)
        versions = np.array([head.version for head in self.world.heads])[self.seen[who]]
        for version in np.unique(versions):
            these = versions == version
            place = places(place_at_turn, self.count, int(version))[who[these]] * steps
            turn = place.astype(np.int64)
            self.own_part[who[these]] = STEP_S * (place - turn)
            wait[these] = STEP_S * np.where(self.in_step[who[these]], steps, turn + 1)
        return wait

    # ---- requests and their answers

    def trust(self, who: Ints, now: Floats) -> None:
        self.record(TRUST, who, now, None)
        down = self.world.is_down(now)
        now = now + self.latency[who]
        self.roots_due[who] = np.where(down, now - (ROOT_CHECK_S - ROOT_RETRY_S), now) + ROOT_CHECK_S
        self.decide(who, now)

    def ask_anew(self, who: Ints, now: Floats) -> None:
        self.record(ANEW, who, now, None)
        down, head, asked = self.world.is_down(now), self.world.head_at(now), now
        now = now + self.latency[who]
        self.fail(who[down], now[down])
        up = ~down
        self.numbers[who[up]] = asked[up].astype(np.int64)
        self.consider(who[up], head[up], now[up])

    def poll(self, who: Ints, now: Floats) -> None:
        wait = self.own_wait(who)
        left = np.minimum(self.retry_at[who], self.prefetch_at[who]) - now
        whole = left >= wait
        short = np.maximum(STEP_S, np.where(whole, 0.0, left).astype(np.int64) // STEP_S * STEP_S)
        self.whole[who], self.in_step[who] = whole, False
        wait = np.where(whole, wait, short)
        self.record(POLL, who, now, wait)
        down = self.world.is_down(now)
        if down.any():
            self.fail(who[down], now[down] + self.latency[who[down]])
            who, now, wait = who[~down], now[~down], wait[~down]
        behind = self.seen[who] < self.world.head_at(now)
        ends = now + wait
        if self.collapse is not None:
            ends = np.where(behind, ends, self.collapse(self, who, now, ends, wait))
        news, breaks = np.where(behind, now, self.world.next_head_at(now)), self.world.down_from(now)
        over = np.minimum(np.minimum(news, ends), breaks)
        after = over + self.latency[who]
        self.numbers[who] = np.where(over < breaks, over, self.numbers[who]).astype(np.int64)
        hears = (news <= ends) & (news < breaks)
        self.consider(who[hears], self.world.head_at(over[hears]), after[hears])
        broken = ~hears & (breaks <= ends)
        self.break_off(who[broken], now[broken], after[broken])
        quiet = ~hears & ~broken
        self.unchanged(who[quiet], after[quiet])

    def break_off(self, who: Ints, asked: Floats, now: Floats) -> None:
        again = (now - asked >= CUT_S) & (self.cuts[who] < CUTS)
        self.cuts[who[again]] += 1
        assert not (self.cuts[who] > 1).any(), "waits that shrink are not modelled"
        self.decide(who[again], now[again])
        self.fail(who[~again], now[~again])

    def unchanged(self, who: Ints, now: Floats) -> None:
        self.reached(who)
        whole = self.whole[who]
        self.in_step[who] = whole
        self.not_before[who] = np.where(whole, now + self.own_part[who], self.not_before[who])
        self.next_poll(who, now)

    def consider(self, who: Ints, head: Ints, now: Floats) -> None:
        """Machine.consider: a head has come."""
        self.reached(who)
        same = self.seen[who] == head
        idle = same & self.settled[who] & (now < self.retry_at[who])
        self.seen[who], self.shown[who] = head, True
        self.in_step[who[idle]] = False
        self.next_poll(who[idle], now[idle])
        who, head, now, same = who[~idle], head[~idle], now[~idle], same[~idle]
        self.settled[who], self.retry_at[who] = False, NEVER
        for number in np.unique(head):
            these = head == number
            self.take(who[these], int(number), now[these], same[these])

    def take(self, who: Ints, number: int, now: Floats, same: Flags) -> None:
        """Begin what this head asks for, each at its own place where it has a spread."""
        head, held = self.world.heads[number], self.held[who]
        newcomer, behind = held == 0, held < head.version
        count = np.where(newcomer, len(head.first), np.where(behind, max(1, len(head.fetches)), 0))
        if head.released:
            count = np.where(~newcomer & behind & (self.there[who] == head.version), 0, count)
        elif not head.fetches:
            count = np.where(newcomer, count, 0)
        if head.spread is not None and head.fetches and not head.released:
            since, spread = head.spread
            delay = np.clip(since + places(place_in_window, self.count, head.version)[who] * spread - now, 0.0, spread)
            waits = ~same & behind & ~newcomer & (delay > 0)
            late = who[waits]
            self.settled[late], self.retry_at[late] = True, now[waits] + delay[waits]
            self.next_poll(late, now[waits])
            who, now, count, behind = who[~waits], now[~waits], count[~waits], behind[~waits]
        self.left[who] = count
        fetching = count > 0
        self.set(who[fetching], FETCH, now[fetching])
        self.finish(who[~fetching], now[~fetching])

    def finish(self, who: Ints, now: Floats) -> None:
        versions = np.array([head.version for head in self.world.heads])[self.seen[who]]
        moved = versions != self.held[who]
        self.held[who], self.settled[who], self.kept[who] = versions, True, self.seen[who]
        self.live_at[who[moved]] = now[moved]
        self.next_poll(who, now)

    def fetch(self, who: Ints, now: Floats) -> None:
        sizes = np.zeros(len(who), np.int64)
        for number in np.unique(self.seen[who]):
            head = self.world.heads[number]
            for newcomer, blobs in ((True, head.first), (False, head.fetches)):
                these = (self.seen[who] == number) & ((self.held[who] == 0) == newcomer)
                if these.any():
                    sizes[these] = np.array(blobs)[len(blobs) - self.left[who[these]]]
        self.record(FETCH, who, now, sizes)
        assert not self.world.is_down(now).any(), "an outage while blobs are fetched is not modelled"
        now = now + self.latency[who]
        self.left[who] -= 1
        more = self.left[who] > 0
        self.set(who[more], FETCH, now[more])
        self.finish(who[~more], now[~more])

    def prefetch(self, who: Ints, now: Floats) -> None:
        heads = self.world.heads
        coming = np.array([head.coming for head in heads])[self.seen[who]]
        size = np.array([heads[number].fetches[0] if heads[number].fetches else 0 for number in range(len(heads))])
        self.record(PREFETCH, who, now, size[np.minimum(self.seen[who] + 1, len(heads) - 1)])
        assert not self.world.is_down(now).any(), "an outage while blobs are fetched is not modelled"
        self.there[who], self.prefetch_at[who] = coming, NEVER
        self.next_poll(who, now + self.latency[who])
