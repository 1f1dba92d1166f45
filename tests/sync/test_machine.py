"""The machine by itself: its table, its document, and chaos."""

from __future__ import annotations

import random
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import trio

from edged.errors import HashError, MissingError, StoreError, TransportError
from edged.replica.files.disk import Disk
from edged.sync.core import events
from edged.sync.core.events import PHASE_OF, Instant, MachineSettings, Phase
from edged.sync.core.machine import TRANSITIONS, Machine
from edged.sync.core.polling import PUSHED_S, Backoff
from tests.sync.driving import held, running, sync
from tests.sync.simulator import NOW, Device, Feed, Origin, flip

DOCUMENT = Path(__file__).parents[2] / "docs" / "sync.md"
FILMS: dict[str, object | None] = {f"t{number:03}": {"title": f"Film {number}"} for number in range(40)}


def machine() -> Machine:
    return Machine(MachineSettings("catalog", Feed().roots[0], frozenset({"core"}), NOW), lambda: 0.5)


def test_every_phase_can_be_entered_and_left() -> None:
    assert {phase for phase, _ in TRANSITIONS} == set(Phase)
    assert set(PHASE_OF.values()) == set(Phase) - {Phase.NEW}
    answered = {event for _, event in TRANSITIONS}
    assert answered == set(get_args(events.Event))


async def test_after_a_head_that_a_broker_brought_the_origin_is_asked_without_conditions(
    tmp_path: Path, jumping: Any
) -> None:
    """It has not shown it, and could not be asked for anything newer in words that it knows."""
    feed = Feed()
    feed.publish(FILMS)
    device, origin = Device.of(tmp_path, feed), Origin(feed)
    async with running(device, origin) as sync_task:
        await sync_task.until(feed.version)
        sync_task.control.pushed = True
        feed.publish({"t001": None})
        sync_task.control.announce(feed.head)
        await sync_task.until(feed.version)
        asked = len(origin.polls)
        await trio.sleep(2 * PUSHED_S)
        assert origin.polls[asked][1] is None
        sync_task.control.pushed = False
        await trio.sleep(2 * PUSHED_S)
        assert origin.polls[-1][2] > 0


async def test_a_broker_that_brings_what_is_forged_is_not_waited_for(tmp_path: Path, jumping: Any) -> None:
    feed = Feed()
    feed.publish(FILMS)
    device, origin = Device.of(tmp_path, feed), Origin(feed)
    async with running(device, origin) as sync_task:
        await sync_task.until(feed.version)
        sync_task.control.pushed = True
        sync_task.control.nudge()
        await trio.sleep(1)
        sync_task.control.announce(flip(feed.head, -1))
        feed.publish({"t001": None})
        asked = len(origin.polls)
        await sync_task.until(feed.version, within_s=2 * device.poll_s)  # by the poll that it takes up again
        assert len(origin.polls) > asked
        assert not sync_task.control.pushed
        feed.publish({"t002": None})
        sync_task.control.announce(feed.head)
        await sync_task.until(feed.version)
        assert sync_task.control.pushed


async def test_a_broker_is_believed_again_when_it_brings_the_newest_head(tmp_path: Path, jumping: Any) -> None:
    """A poll was quicker than it, or its publisher has put the head back in its place."""
    feed = Feed()
    feed.publish(FILMS)
    older = feed.head
    device, origin = Device.of(tmp_path, feed), Origin(feed)
    async with running(device, origin) as sync_task:
        await sync_task.until(feed.version)
        feed.publish({"t001": None})
        sync_task.control.nudge()
        await sync_task.until(feed.version)
        sync_task.control.pushed = True
        sync_task.control.nudge()
        await trio.sleep(1)
        for stale in (flip(feed.head, -1), older):
            sync_task.control.announce(stale)
            await trio.sleep(1)
            assert not sync_task.control.pushed
        sync_task.control.announce(feed.head)
        await trio.sleep(1)
        assert sync_task.control.pushed


async def test_a_head_that_a_broker_brings_ends_the_update_to_the_one_before(tmp_path: Path, jumping: Any) -> None:
    """Half of that is staged by then, and no part of it is built upon."""
    feed = Feed(slices=("core", "kids"))
    feed.inline_bytes = 0
    for name in ("core", "kids"):
        feed.publish(FILMS, name)
    device, origin = Device.of(tmp_path, feed, slices=("core", "kids")), Origin(feed)
    async with running(device, origin) as sync_task:
        await sync_task.until(feed.version)
        feed.publish({"t001": None}, sign=False)
        feed.publish({"t001": None}, "kids")
        came = origin.requests["blob"]

        def losing(kind: str, name: str, data: bytes | None) -> bytes | None:
            if kind == "blob" and origin.requests["blob"] > came + 1:
                raise TransportError("connection lost")
            return data

        origin.fault = losing
        sync_task.control.nudge()
        await sync_task.until_error("connection lost")
        origin.fault = None
        feed.publish({"t002": None}, sign=False)
        feed.publish({"t002": None}, "kids")
        sync_task.control.announce(feed.head)
        await sync_task.until(feed.version)
        assert sync_task.status.last_error is None


def test_what_cannot_follow_is_nothing_to_wait_for() -> None:
    feed, now = Feed(), Instant(NOW, 0.0)
    feed.publish(FILMS)
    assert machine().may_follow(feed.head, now) is False  # what is held is not known yet


def test_what_is_not_in_the_table_is_a_bug_and_raises() -> None:
    for phase, event in product(Phase, get_args(events.Event)):
        if (phase, event) not in TRANSITIONS:
            subject = machine()
            subject.phase = phase
            with pytest.raises(AssertionError, match="no such transition"):
                subject.handle(object.__new__(event), Instant(NOW, 0.0))


def diagram() -> str:
    """The table of transitions as a Mermaid diagram."""
    lines = ["stateDiagram-v2", "    [*] --> NEW"]
    for phase in Phase:
        names = [event.__name__ for place, event in TRANSITIONS if place is phase]
        lines.append(f"    {phase.name}: {phase.name.lower()}<br/>{' · '.join(names)}")
    lines += [f"    {one.name} --> {other.name}" for one, other in sorted(FOLLOWERS, key=str)]
    return "\n".join(lines)


# Which phase may follow which; the chaos below sees no other.
FOLLOWERS = {
    (Phase.NEW, Phase.LOADING),
    (Phase.LOADING, Phase.TRUST),
    (Phase.LOADING, Phase.POLLING),
    (Phase.LOADING, Phase.RESTING),
    (Phase.TRUST, Phase.TRUST),
    (Phase.TRUST, Phase.POLLING),
    (Phase.TRUST, Phase.FETCHING),
    (Phase.TRUST, Phase.APPLYING),
    (Phase.TRUST, Phase.COMMITTING),
    (Phase.TRUST, Phase.RESTING),
    (Phase.POLLING, Phase.POLLING),
    (Phase.POLLING, Phase.LOADING),
    (Phase.POLLING, Phase.TRUST),
    (Phase.POLLING, Phase.FETCHING),
    (Phase.POLLING, Phase.APPLYING),
    (Phase.POLLING, Phase.COMMITTING),
    (Phase.POLLING, Phase.RESTING),
    (Phase.FETCHING, Phase.FETCHING),
    (Phase.FETCHING, Phase.APPLYING),
    (Phase.FETCHING, Phase.POLLING),
    (Phase.FETCHING, Phase.LOADING),
    (Phase.FETCHING, Phase.RESTING),
    (Phase.LOADING, Phase.PREFETCHING),
    (Phase.TRUST, Phase.PREFETCHING),
    (Phase.POLLING, Phase.PREFETCHING),
    (Phase.RESTING, Phase.PREFETCHING),
    (Phase.FETCHING, Phase.PREFETCHING),
    (Phase.APPLYING, Phase.PREFETCHING),
    (Phase.PREFETCHING, Phase.PREFETCHING),
    (Phase.PREFETCHING, Phase.POLLING),
    (Phase.PREFETCHING, Phase.RESTING),
    (Phase.PREFETCHING, Phase.LOADING),
    (Phase.APPLYING, Phase.APPLYING),
    (Phase.APPLYING, Phase.FETCHING),
    (Phase.APPLYING, Phase.COMMITTING),
    (Phase.APPLYING, Phase.POLLING),
    (Phase.APPLYING, Phase.RESTING),
    (Phase.COMMITTING, Phase.LOADING),
    (Phase.COMMITTING, Phase.RESTING),
    (Phase.RESTING, Phase.POLLING),
    (Phase.RESTING, Phase.TRUST),
    (Phase.RESTING, Phase.FETCHING),
    (Phase.RESTING, Phase.APPLYING),
    (Phase.RESTING, Phase.COMMITTING),
    (Phase.RESTING, Phase.LOADING),
}


def test_the_document_shows_the_table() -> None:
    assert diagram() in DOCUMENT.read_text()


def test_backoff_is_jittered_capped_and_forgets() -> None:
    backoff = Backoff(lambda: 0.5, base_s=1.0, cap_s=60.0)
    assert [backoff.fail() for _ in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 45.0, 45.0]
    assert backoff.fail(at_least_s=100.0) == 145.0
    backoff.succeed()
    assert backoff.fail() == 0.5
    for _ in range(5000):
        assert 0 <= backoff.fail() <= 60


class Chaos:
    """Faults of every kind by chance, until healed."""

    def __init__(self, feed: Feed, chance: random.Random) -> None:
        self.feed, self.chance = feed, chance
        self.heads: list[bytes] = []

    def __call__(self, kind: str, name: str, data: bytes | None) -> bytes | None:
        if kind == "head" and data is not None:
            self.heads.append(data)
        if data is None or self.chance.random() < 0.6:
            return data
        match self.chance.randrange(6):
            case 0:
                raise TransportError("cut")
            case 1:
                raise HashError("short") if kind == "blob" else MissingError("gone")
            case 2:
                return None
            case 3:
                return flip(data, self.chance.randrange(len(data)))
            case 4:
                return data[: self.chance.randrange(len(data))]
            case _:
                return self.chance.choice(self.heads) if kind == "head" else data + b"x"


@pytest.mark.parametrize("seed", range(4))
async def test_chaos_ends_where_the_publisher_is(
    tmp_path: Path, seed: int, jumping: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults of network, origin and disk, new versions, new keys and pins meanwhile: never a wrong state, and at the
    end the right one."""
    chance = random.Random(seed)
    feed = Feed(slices=("core", "kids"))
    feed.inline_bytes, feed.part_records = 60, 8
    feed.publish(FILMS)
    feed.publish(FILMS, "kids")
    device = Device.of(tmp_path, feed, slices=("core", "kids"))
    origins = [Origin(feed, "memory:a"), Origin(feed, "memory:b")]
    for origin in origins:
        origin.fault = Chaos(feed, chance)
    real, seen = Disk.write, set()
    failing_disk = True

    def write(disk: Disk, name: str, data: bytes) -> None:
        if failing_disk and chance.random() < 0.05:
            raise StoreError(f"write {name}: No space left on device")
        real(disk, name, data)

    handle = Machine.handle

    def watched(subject: Machine, event: events.Event, now: Instant) -> list[events.Effect]:
        before = subject.phase
        effects = handle(subject, event, now)
        seen.add((before, subject.phase))
        return effects

    monkeypatch.setattr(Machine, "handle", watched)
    async with running(device, *origins) as sync_task:
        monkeypatch.setattr(Disk, "write", write)
        for round_ in range(60):
            await trio.sleep(chance.expovariate(1 / 200))
            names = chance.sample(sorted(FILMS), 3)
            feed.publish({name: {"title": name, "round": round_} for name in names}, chance.choice(["core", "kids"]))
            if chance.random() < 0.1:
                feed.rotate(heads=f"head {round_}")
                feed.resign()
            if chance.random() < 0.1:
                feed.snapshot("core")
                feed.sign()
            if chance.random() < 0.2:
                sync_task.control.nudge()
            if chance.random() < 0.2:
                with suppress(StoreError):
                    await sync_task.control.pin(chance.choice([None, max(sync_task.status.version, 1)]))
            for origin in origins:
                origin.announce()
        for origin in origins:
            origin.fault = None
        failing_disk = False
        await sync_task.control.pin(None)
        await sync_task.until(feed.version, within_s=4000)
        await trio.sleep(4000)
        assert sync_task.status.last_error is None
    assert held(device) == feed.slices["core"].records
    assert held(device, "kids") == feed.slices["kids"].records
    assert seen <= FOLLOWERS


class PowerLossError(BaseException):
    """Everything stops here."""


@pytest.mark.parametrize("operation", ["write", "link", "sync"])
async def test_power_lost_at_each_step_of_an_update(
    tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step is the last, the version before or the one after is there at the next start, and sync goes on."""
    feed = Feed()
    feed.part_records, feed.inline_bytes = 10, 0
    feed.publish(FILMS)
    device = Device.of(tmp_path, feed)
    real = getattr(Disk, operation)
    for step in range(1, 60):
        feed.publish({"t001": {"title": f"Edit {step}"}})
        states = [held(device), feed.slices["core"].records]
        left = step

        def lost(disk: Disk, *args: Any) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise PowerLossError
            real(disk, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Disk, operation, lost)
            with suppress(PowerLossError):
                await sync(device, Origin(feed))
        assert held(device) in states
        assert (await sync(device, Origin(feed))).error is None
        assert held(device) == states[1]
        if left > 0:
            return  # that many steps there are not
    raise AssertionError("an update of more than sixty steps")
