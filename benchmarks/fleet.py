"""When a fleet comes: a million devices through a publish, an outage, a power cut, a boot and a release.

    python -m benchmarks.fleet [--devices N] [--titles N] [--plot DIR] [--polls]

Devices are the model that a test holds equal to the real machine, request by request (shared/fleetmodel.py). What a
feed weighs is measured: a made-up one is published and asked for on this machine. They ask nodes of 10,000 devices
each, which are edged relays in two tiers, or the caches of a CDN below a shield. --polls: only what a cache makes of
the polls of 100,000 devices, by how long these have them held.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.shared import fleetplots, fleetpolls
from benchmarks.shared.fleetfeed import SPREAD_S, Weights, weights
from benchmarks.shared.fleetmodel import ANEW, FETCH, POLL, PREFETCH, TRUST, Fleet, Floats, Published, World
from benchmarks.shared.fleettiers import RELAYS_A_MIDDLE, Tiers, relayed_polls
from edged.sync.boots import START_WITHIN_S
from edged.sync.core.events import WAIT_S

EVENT_S = 600.0  # when it happens: by then all are under way, each at a time of its own
ANSWERED_S = 5.0  # within which the last of those who wait has the news, and polls again
OUTAGE_S, POWER_CUT_S, REGION = 3600.0, 1800.0, 5  # one of so many
RELEASE_S = 1000.0  # after a version ahead was announced
OFF_SHARE, OFF_S = 0.002, 60.0  # of the devices come back so long before the release, and have not fetched it
MEDIAN_LATENCY_S, LATENCY_SIGMA = 0.06, 0.8  # of a request, log-normal by device; an assumption
BAD_SHARE, BAD_S = 0.01, 3.0  # of the devices lose packets: so much longer; an assumption
LINK_BYTES_S = 1_000_000  # of a device that fetches; an assumption
NODE_ANSWERS_S = 0.5  # a relay's 9,800 polls are answered within that (benchmarks/polls.py)


@dataclass(frozen=True, slots=True)
class Scenario:
    """after: how long is watched from the event on; since, within: from when, after the event, and for how long they
    come, which peak and mean are of; what: happens to a fleet at the event."""

    name: str
    after: float
    since: float
    within: float
    world: World
    what: Callable[[Fleet], None] = lambda fleet: None

    @property
    def news(self) -> list[float]:
        return [head.at for head in self.world.heads[1:]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """relayed, cached: below relays, and below caches; live_after: seconds from the last head to each device."""

    scenario: Scenario
    relayed: Tiers
    cached: Tiers
    live_after: Floats

    @property
    def window(self) -> slice:
        since = int(EVENT_S + self.scenario.since)
        return slice(since, since + int(self.scenario.within))

    def ratio(self, tiers: Tiers) -> float:
        found = tiers.total[self.window]
        return float(found.max() / found.mean())


def scenarios(weight: Weights) -> list[Scenario]:
    first = Published(0.0, 1)
    patch = Published(EVENT_S, 2, spread=(EVENT_S, SPREAD_S), fetches=(weight.chain, weight.hop))
    coming = Published(EVENT_S, 1, ahead=(EVENT_S, SPREAD_S), coming=2)
    release = Published(EVENT_S + RELEASE_S, 2, released=True, fetches=(weight.sealed,))
    outage = World([first], [(EVENT_S, EVENT_S + OUTAGE_S)])

    def switch_on(part: int) -> Callable[[Fleet], None]:
        def boot(fleet: Fleet) -> None:
            fleet.world = replace(fleet.world, start_within_s=START_WITHIN_S)
            fleet.switch_on(np.arange(0, fleet.count, part), EVENT_S + POWER_CUT_S)

        return boot

    def late(fleet: Fleet) -> None:
        fleet.switch_on(np.arange(0, fleet.count, int(1 / OFF_SHARE)), EVENT_S + RELEASE_S - OFF_S)

    span = POWER_CUT_S + 600.0
    return [
        Scenario("no news for half an hour", 1800.0, 0.0, 1800.0, World([first])),
        Scenario("an edit in the head", 600.0, ANSWERED_S, 595.0, World([first, Published(EVENT_S, 2)])),
        Scenario("a publish, fetched", 700.0, ANSWERED_S, SPREAD_S, World([first, patch])),
        Scenario("an hour's outage", OUTAGE_S + 600, OUTAGE_S, 300.0, outage),
        Scenario("a region's power cut", span, POWER_CUT_S, START_WITHIN_S, World([first]), switch_on(REGION)),
        Scenario("a common boot", span, POWER_CUT_S, START_WITHIN_S, World([first]), switch_on(1)),
        Scenario("ahead, and its release", 1200.0, ANSWERED_S, SPREAD_S, World([first, coming, release]), late),
    ]


def latencies(count: int) -> Floats:
    chance = np.random.default_rng(7)
    found: Floats = MEDIAN_LATENCY_S * np.exp(LATENCY_SIGMA * chance.standard_normal(count))
    return found + BAD_S * (chance.random(count) < BAD_SHARE)


def run(scenario: Scenario, count: int, collapsing: bool) -> tuple[Tiers, Fleet]:
    horizon = int(EVENT_S + scenario.after)
    tiers = Tiers(horizon, count)
    begins = np.random.default_rng(11).random(count) * WAIT_S
    collapse = tiers.collapse if collapsing else None
    fleet = Fleet(scenario.world, begins, latencies(count), np.ones(count, np.int64), tiers.record, collapse)
    fleet.run(EVENT_S)
    scenario.what(fleet)
    fleet.run(horizon)
    tiers.close()
    return tiers, fleet


def simulated(scenario: Scenario, count: int) -> Outcome:
    relayed, fleet = run(scenario, count, collapsing=False)
    last = scenario.world.heads[-1]
    fetches = last.released * sum(last.fetches) / LINK_BYTES_S * (fleet.there != last.version)
    chance = np.random.default_rng(13)
    tiers_s = 2 * (MEDIAN_LATENCY_S + NODE_ANSWERS_S)  # down to the nodes: two tiers of relays
    live_after = fleet.live_at - last.at + tiers_s + chance.random(count) * NODE_ANSWERS_S + fetches
    return Outcome(scenario, relayed, run(scenario, count, collapsing=True)[0], live_after)


# ---- what it comes to


def devices_bytes(outcome: Outcome, weight: Weights) -> int:
    """That the devices receive from the event on, HTTP included."""
    spoken, since, asked = weight.spoken, int(EVENT_S), outcome.relayed.asked
    counts = {kind: int(found[since:].sum()) for kind, found in asked.items()}
    news = sum(spoken.news.received - spoken.quiet.received + size for size in news_bytes(outcome.scenario, weight))
    return int(
        outcome.relayed.count * news
        + counts[POLL] * spoken.quiet.received
        + counts[ANEW] * (spoken.anew.received + weight.edit)
        + counts[TRUST] * spoken.root.received
        + (counts[FETCH] + counts[PREFETCH]) * spoken.blob.received
        + outcome.relayed.blob_bytes[since:].sum()
    )


def news_bytes(scenario: Scenario, weight: Weights) -> list[int]:
    """Of the heads that come."""
    sizes = {True: weight.release, False: weight.edit}
    return [
        weight.coming if head.coming else weight.patch if head.spread else sizes[head.released]
        for head in scenario.world.heads[1:]
    ]


@dataclass(frozen=True, slots=True)
class Above:
    """From the event on. nodes: what the nodes ask of the tier between; origin, peak, received: what it is asked, in a
    second at the most, and the bytes that it sends."""

    nodes: int
    origin: int
    peak: int
    received: int


def above_relays(outcome: Outcome, weight: Weights) -> Above:
    scenario, tiers, since = outcome.scenario, outcome.relayed, int(EVENT_S)
    below = (tiers.nodes, max(1, tiers.nodes // RELAYS_A_MIDDLE))
    polls = [relayed_polls(relays, scenario.news, tiers.horizon)[since:] for relays in below]
    blobs = {size for head in scenario.world.heads[1:] for size in head.fetches}
    heard = sum(size + weight.spoken.news.received for size in news_bytes(scenario, weight))
    fetched = sum(blobs) + len(blobs) * weight.spoken.blob.received
    received = below[1] * (heard + fetched) + int(polls[1].sum()) * weight.spoken.quiet.received
    nodes, origin = (int(found.sum()) + relays * len(blobs) for found, relays in zip(polls, below, strict=True))
    return Above(nodes, origin, int(polls[1].max()), received)


def above_caches(outcome: Outcome, weight: Weights) -> Above:
    tiers, since, spoken = outcome.cached, int(EVENT_S), weight.spoken
    asked = {kind: found[since:] for kind, found in tiers.to_origin.items()}
    head = max([weight.edit, *news_bytes(outcome.scenario, weight)])
    received = (
        int(asked[POLL].sum()) * (spoken.news.received + head)  # at the most: as if each brought news
        + int(asked[ANEW].sum()) * (spoken.anew.received + head)
        + int(asked[TRUST].sum()) * spoken.root.received
        + int((asked[FETCH] + asked[PREFETCH]).sum()) * spoken.blob.received
        + int(tiers.fetched[since:].sum())
    )
    total = np.sum(list(asked.values()), axis=0)
    nodes = sum(int(found[since:].sum()) for found in tiers.to_shield.values())
    return Above(nodes, int(total.sum()), int(total.max()), received)


def show_devices(outcome: Outcome, weight: Weights) -> None:
    tiers, count = outcome.relayed, outcome.relayed.count
    window, since = tiers.total[outcome.window], int(EVENT_S)
    renewed = int(tiers.asked[POLL][since : since + int(ANSWERED_S)].sum()) if outcome.scenario.news else 0
    print(
        f"{outcome.scenario.name:26} {outcome.ratio(tiers):5.2f} {outcome.ratio(outcome.cached):6.2f} {len(window):6} "
        f"{window.max():8} {window.sum() / count:8.2f} {renewed:10} {devices_bytes(outcome, weight) / 1e9:10.2f}"
    )


def show_above(outcome: Outcome, weight: Weights) -> None:
    asked = outcome.relayed.total[int(EVENT_S) :].sum()
    found = [f"{outcome.scenario.name:26}"]
    for above in (above_relays(outcome, weight), above_caches(outcome, weight)):
        share = asked / max(1, above.origin)
        found.append(f"{share:10.0f} {above.nodes:8} {above.origin:7} {above.peak:5} {above.received / 1e6:7.2f} ")
    print(" ".join(found))


def show_release(outcome: Outcome, weight: Weights) -> None:
    times = np.sort(outcome.live_after)
    parts = [float(times[int(len(times) * share) - 1]) for share in (0.5, 0.99, 0.999)]
    within = float((outcome.live_after <= 60).mean())
    received, sent = weight.spoken.news.received + weight.release, weight.spoken.news.sent
    print(f"\na release of {weight.sealed} bytes fetched ahead: live on 50, 99, 99.9 % after", end=" ")
    print(", ".join(f"{part:.1f}" for part in parts), f"s; within 60 s on {100 * within:.3f} %")
    print(f"a device receives {received} bytes for it, and sends {sent} with its next poll")


def draw(folder: Path, outcomes: list[Outcome]) -> None:
    series = []
    for outcome in outcomes:
        counts, window = outcome.relayed.total, outcome.window
        since = max(int(EVENT_S), window.start - 120)
        series.append((outcome.scenario.name, counts[since : window.stop + 300], 1.6 * float(counts[window].max())))
    fleetplots.draw_requests(folder / "fleet-requests.png", series)
    fleetplots.draw_release(folder / "fleet-release.png", outcomes[-1].live_after)


def show_polls() -> None:
    print("polls of 100,000 devices at one cache  peak:mean  origin: in 240 s  most a second")
    for name, way in fleetpolls.ways(100_000).items():
        count = way()
        print(f"{name:38} {count.ratio:9.2f} {count.per_wait:17.0f} {max(count.passed.values()):14}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1_000_000)
    parser.add_argument("--titles", type=int, default=15_000, help="of the feed that is weighed")
    parser.add_argument("--plot", type=Path, help="a folder for PNG files")
    parser.add_argument("--polls", action="store_true", help="only the polls at a cache")
    args = parser.parse_args()
    if args.polls:
        return show_polls()
    weight = weights(args.titles)
    print(f"{weight}\n")
    began, outcomes = time.monotonic(), []
    for scenario in scenarios(weight):
        outcomes.append(simulated(scenario, args.devices))
        print(f"# {scenario.name}: {time.monotonic() - began:.0f} s", flush=True)
    print(f"\n{'peak : mean of the devices':26} relay  cache      s     peak requests    renewed GB to them")
    for outcome in outcomes:
        show_devices(outcome, weight)
    columns = "fewer    nodes  origin  peak      MB "
    print(f"\n{'above relays, caches':26}      {columns}      {columns}")
    for outcome in outcomes:
        show_above(outcome, weight)
    show_release(outcomes[-1], weight)
    if args.plot is not None:
        draw(args.plot, outcomes)
    return None


if __name__ == "__main__":
    main()
