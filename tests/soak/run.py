"""`make soak`: random faults, minute by virtual minute, on the real code; `--seed` brings one back.

python -m tests.soak.run [--seed N] [--minutes M] [--rounds R]
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio
from trio.testing import MockClock

from edged import files
from edged.clock import BUILD_TIME_S
from edged.replica.files import disk
from tests.origin.devices import Content
from tests.soak.box import Box, Switch
from tests.soak.network import CONDITIONS, Host
from tests.soak.publishing import Publishing

MINUTE_S = 60.0
BASE_S = BUILD_TIME_S + 30 * 86_400.0
CALM_EVERY = 45  # minutes, about, between two times at which all faults end
# After that: content that was refused is tried again within an hour (REFUSED_CAP_S), a poll that hangs ends within
# WAIT_S, another origin is asked, and the version takes its way.
SETTLED_S = 3600.0 + 600.0


class Broken(AssertionError):
    """What may never be seen was seen."""


@dataclass
class Soak:
    """last: the version seen before; pins: what may be its pin, as a pin that was killed may be kept or not."""

    seed: int
    directory: Path
    minute: int = 0
    last: int = 0
    story: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    settled_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.switch = Switch()

    def begin(self) -> None:
        """The feed, three hosts (one of them a relay of another) and a device. Within trio, whose clock is theirs."""

        def now() -> float:
            return BASE_S + trio.current_time()

        with self.switch.real():
            self.publishing = Publishing(self.directory / "feed", now, self.chance)
        trust = self.directory / "root.trust"
        trust.write_bytes(self.publishing.trust)
        origin = Host("https://origin", self.publishing, self.chance)
        mirror = Host("https://mirror", self.publishing, self.chance)
        relay = Host("https://relay", self.publishing, self.chance, above=origin)
        self.hosts = [relay, origin, mirror]
        self.box = Box(self.directory / "box", trust, self.hosts, self.switch, self.chance, BASE_S)

    async def run(self, minutes: int) -> None:
        self.begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.box.live)
            for self.minute in range(1, minutes + 1):
                await self.happen()
                await trio.sleep(self.chance.uniform(0.2, 1.8) * MINUTE_S)
                self.look()
                if self.chance.randrange(CALM_EVERY) == 0 or self.minute == minutes:
                    await self.calm()
            nursery.cancel_scope.cancel()

    # ---- what happens

    async def happen(self) -> None:
        for _ in range(self.chance.choice([0, 0, 1, 1, 1, 2, 3])):
            event = self.chance.choice(EVENTS)
            self.counts[event.__name__] += 1
            said = event(self)
            if said is not None and not isinstance(said, str):
                said = await said
            self.story.append(f"{self.minute}: {event.__name__} {said or ''}".strip())

    def publish(self) -> str:
        with self.switch.real():
            return self.publishing.act()

    def net(self) -> str:
        host = self.chance.choice(self.hosts)
        host.fall(self.chance.choice(["", *CONDITIONS]))
        return f"{host.name} {host.condition or 'good'}"

    def outage(self) -> None:
        for host in self.hosts:
            host.fall("lost")

    def repair(self) -> None:
        for host in self.hosts:
            host.fall("")

    def broker(self) -> str:
        """Brings the newest head, an old one, or noise."""
        heads = self.publishing.heads
        kind = self.chance.choice(["newest", "old", "noise"])
        data = {"newest": heads[-1], "old": self.chance.choice(heads), "noise": self.chance.randbytes(300)}[kind]
        self.box.control.pushed = kind != "noise"
        self.box.control.announce(data)
        return kind

    def broker_lost(self) -> None:
        self.box.control.pushed = False

    def clock(self) -> str:
        self.box.clock_off_s = self.chance.choice([0.0, 0.0, None, -86_400.0, 3 * 86_400.0, 3600.0])
        return str(self.box.clock_off_s)

    async def pin(self) -> str:
        """At a version that is not too old, or nowhere."""
        wanted = self.chance.choice([None, *sorted(self.publishing.truth)[-5:]])
        return f"{wanted} {'taken' if await self.box.pin(wanted) else 'refused'}"

    def slices(self) -> str:
        """The configuration names others; the daemon starts again."""
        self.box.slices = self.chance.choice([("core", "a"), ("core",), ("core", "a", "b"), ("core", "b")])
        self.box.stop()
        return ",".join(self.box.slices)

    def kill(self) -> None:
        self.box.kill()

    def stop(self) -> None:
        self.box.stop()

    def full(self) -> None:
        self.box.fill()

    def eio(self) -> None:
        self.box.fault()

    def heal(self) -> None:
        self.box.heal()

    # ---- what must hold

    def look(self) -> None:
        """What apps are served is what was signed for its version, without what this device knows to be taken down,
        and the version goes back to a pin alone."""
        version, found, pinned = self.box.served()
        if version < self.last and version != pinned:
            self.broken(f"version {version} is served (pinned: {pinned}), it was {self.last}")
        self.last = version
        if version:
            self.compare(version, found[""])

    def compare(self, version: int, found: Content) -> None:
        signed = self.publishing.truth.get(version)
        if signed is None:
            self.broken(f"version {version} is served, which was never published")
        names = self.box.held_slices()
        expected = {place: value for name in names for place, value in signed[name].items()}
        for place, value in found.items():
            if expected.get(place) != value:
                self.broken(f"version {version}: {place} is served, and is not what was signed")
        missing = {key for _, key in expected.keys() - found.keys()} - self.publishing.withdrawn
        if missing:
            self.broken(f"version {version}: {sorted(missing)} of {names} are not served")

    async def calm(self) -> None:
        """All faults end, and within SETTLED_S the device has all that it is to have."""
        self.repair()
        self.box.heal()
        self.broker_lost()
        self.box.clock_off_s = 0.0
        await self.choose_pin()
        with self.switch.real():
            head = self.publishing.calm()
        began = trio.current_time()
        while not self.settled(head.version):
            if trio.current_time() - began > SETTLED_S:
                self.broken(f"not at version {head.version} {SETTLED_S:g} s after the last fault: {self.box.told()}")
            await trio.sleep(5)
            self.look()
        self.settled_s.append(trio.current_time() - began)
        version, found, _ = self.box.served()
        expected = {
            place for name in self.box.slices for place in self.publishing.truth[version][name]
            if place[1] not in self.publishing.hidden
        }  # fmt: skip
        if version == head.version and set(found[""]) != expected:
            self.broken(f"version {version}: {sorted(expected ^ set(found['']))} differ after all faults ended")

    async def choose_pin(self) -> None:
        """None most often, and where other slices are wanted, whose content at the pin nobody may have any more; else
        the version that is held, from which something is taken down then."""
        here = self.last and set(self.box.held_slices()) == set(self.box.slices) and self.chance.random() < 0.4
        wanted = None
        while self.last:
            wanted = self.box.served()[0] if here else None
            if await self.box.pin(wanted) and wanted in (None, self.box.served()[0]):
                break
            await trio.sleep(1)  # it is starting, or another version was put in place before the pin was
        if wanted is not None:
            with self.switch.real():
                self.publishing.takedown_if_possible()

    def settled(self, version: int) -> bool:
        """At the live version and its newest head, or at the pin, with the slices that are configured and without what
        is taken down."""
        held, found, pinned = self.box.served()
        right = held == pinned if pinned else held == version and self.box.head() == self.publishing.heads[-1]
        shown = {key for _, key in found.get("", {})} & self.publishing.hidden
        return right and not shown and set(self.box.held_slices()) == set(self.box.slices)

    def broken(self, what: str) -> NoReturn:
        told = "\n  ".join([*self.story[-25:], self.box.told()])
        raise Broken(f"seed {self.seed}, minute {self.minute}: {what}\n  {told}")


EVENTS: list[Callable[[Soak], Any]] = [
    *[Soak.publish] * 14,
    *[Soak.net] * 6,
    *[Soak.repair, Soak.heal] * 3,
    *[Soak.kill] * 6,
    *[Soak.full, Soak.eio, Soak.stop, Soak.broker] * 2,
    *[Soak.pin] * 3,
    *[Soak.outage, Soak.broker_lost, Soak.clock, Soak.slices],
]


def soak(seed: int, minutes: int, directory: Path) -> Soak:
    """Raises Broken, or what came through."""

    async def run_sync(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    played = Soak(seed, directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # what a loss of power leaves is modelled
        patch.setattr(trio.to_thread, "run_sync", run_sync)
        patch.setattr(secrets, "token_bytes", played.chance.randbytes)  # who is chosen for a rollout
        patch.setattr("trio._core._run._r", played.chance)  # which of two tasks that can go on goes first
        patch.setattr(disk, "os", played.switch)
        patch.setattr(files, "os", played.switch)
        trio.run(played.run, minutes, clock=MockClock(autojump_threshold=0))
    return played


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86_400, help="of the first round")
    parser.add_argument("--minutes", type=int, default=1000, help="virtual minutes a round")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    logging.disable()
    total: Counter[str] = Counter()
    settled: list[float] = []
    for seed in range(args.seed, args.seed + args.rounds):
        directory = Path(tempfile.mkdtemp(prefix="edged-soak-"))
        began = time.monotonic()
        try:
            played = soak(seed, args.minutes, directory)
        except BaseException:
            print(f"seed {seed}: broken; what it left is in {directory}", file=sys.stderr)
            raise
        shutil.rmtree(directory)
        total += played.counts
        total["deaths"] += played.box.deaths
        total["versions"] += max(played.publishing.truth)
        settled += played.settled_s
        print(
            f"seed {seed}: {args.minutes} minutes in {time.monotonic() - began:.0f} s, "
            f"{max(played.publishing.truth)} versions, {played.box.deaths} deaths; after the last fault "
            f"at most {max(played.settled_s):.0f} s",
            flush=True,
        )
    print(
        f"{args.rounds * args.minutes} virtual minutes held: " + ", ".join(f"{n} {k}" for k, n in total.most_common())
    )
    settled.sort()
    print(
        f"from the last fault until all was right: median {settled[len(settled) // 2]:.0f} s, most {settled[-1]:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
