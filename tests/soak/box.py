"""A device: the real synchronisation over a disk that fails, without power now and then, with a clock that is wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

import edged
from edged.clock import Clock
from edged.errors import EdgedError
from edged.replica.writer import Writer
from edged.sync.control import Control
from edged.sync.replication import Replication
from edged.sync.status import DatasetStatus
from edged.sync.subscription import Subscription
from edged.sync.task import run
from edged.sync.transports.origins import Origins
from tests.origin.devices import Content
from tests.replica.faults import FaultyOs, Killed
from tests.soak.network import Host
from tests.soak.publishing import DATASET

RESTART_S = 5.0
NOT_OPENED_S = 30.0


class Switch:
    """Stands in for the `os` module: the box's disk is the faulty one, everybody else's is not."""

    def __init__(self) -> None:
        self.disk: FaultyOs | None = None
        self.off = False

    def __getattr__(self, name: str) -> Any:
        return getattr(os if self.off or self.disk is None else self.disk, name)

    @contextmanager
    def real(self) -> Iterator[None]:
        before, self.off = self.off, True
        try:
            yield
        finally:
            self.off = before


@dataclass
class Box:
    """clock_off_s: how wrong its clock is, None for 1970. pinned: what was asked for last, and whether that is sure."""

    directory: Path
    trust: Path
    hosts: list[Host]
    switch: Switch
    chance: random.Random
    base_s: float  # of the right clock, at virtual time 0
    slices: tuple[str, ...] = ("core", "a")
    clock_off_s: float | None = 0.0
    lives: int = 0
    deaths: int = 0
    control: Control = field(default_factory=Control)
    status: DatasetStatus = field(default_factory=lambda: DatasetStatus(DATASET))
    nursery: trio.Nursery | None = None  # of the process that runs
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def __post_init__(self) -> None:
        self.data_dir.mkdir(parents=True)
        self.switch.disk = FaultyOs(self.data_dir, chance=self.chance)

    @property
    def data_dir(self) -> Path:
        return self.directory / str(self.lives)

    @property
    def disk(self) -> FaultyOs:
        assert self.switch.disk is not None
        return self.switch.disk

    def clock_s(self) -> float:
        if self.clock_off_s is None:
            return trio.current_time()
        return self.base_s + trio.current_time() + self.clock_off_s

    async def live(self) -> None:
        """For ever: start, run until killed or stopped, start again."""
        while True:
            self.scope = trio.CancelScope()
            try:
                with self.scope:
                    await self.run_once()
            except* Killed:
                self.deaths += 1
                self.rise()
            await trio.sleep(RESTART_S)

    async def run_once(self) -> None:
        self.control, self.status = Control(), DatasetStatus(DATASET)
        subscription = Subscription(
            DATASET, tuple(host.name for host in self.hosts), str(self.trust), self.slices, poll_s=30, device_id="soak"
        )
        try:
            with Writer.open(self.data_dir, DATASET) as writer:
                replication = Replication(subscription, writer, self.status, Clock(self.clock_s), self.control)
                async with trio.open_nursery() as self.nursery:
                    await run(replication, Origins(self.hosts))
        except EdgedError as fault:  # the disk is full or failing at the start; systemd starts it again
            self.status.last_error = str(fault)
            await trio.sleep(NOT_OPENED_S)
        finally:
            self.nursery = None

    def rise(self) -> None:
        """After a kill the machine goes on with the same disk; after a loss of power with one that may have been."""
        if self.chance.random() < 0.5:
            lost = self.directory / str(self.lives + 1)
            self.disk.after_power_loss(lost)
            self.lives += 1
            if self.chance.random() < 0.3:
                self.clock_off_s = None  # no battery
        self.switch.disk = FaultyOs(self.data_dir, chance=self.chance)

    # ---- what befalls it

    def kill(self) -> None:
        """At one of the next calls that change the disk."""
        self.disk.mode, self.disk.at = "kill", self.disk.calls + self.chance.randrange(1, 16)

    def fill(self) -> None:
        self.disk.mode, self.disk.at = "full", self.disk.calls + self.chance.randrange(1, 20)

    def fault(self) -> None:
        self.disk.mode, self.disk.at = "eio", self.disk.calls + self.chance.randrange(1, 20)

    def heal(self) -> None:
        self.disk.at = 0

    def stop(self) -> None:
        """By systemd: it starts again."""
        self.scope.cancel()

    async def pin(self, version: int | None) -> bool:
        """Whether it was taken, by the process that runs; one that is killed meanwhile may have kept it or not."""
        taken, done = False, trio.Event()

        async def work() -> None:
            nonlocal taken
            try:
                await self.control.pin(version)
                taken = True
            except EdgedError:
                pass
            finally:
                done.set()

        if self.nursery is not None:
            self.nursery.start_soon(work)
            await done.wait()
        return taken

    # ---- what apps see

    def served(self) -> tuple[int, Mapping[str, Content], int | None]:
        """The version that a program on the device finds, its slices' records, and what it is pinned at on disk."""
        with self.switch.real():
            folder = self.data_dir / DATASET
            if not any((folder / name).exists() for name in ("manifest", "manifest.1")):
                return 0, {}, None
            with edged.open(self.data_dir) as replica:
                view = replica[DATASET].view()
                found = {(name, key): value for name in view.collections for key, value in view.scan(name)}
                return view.version, {"": found}, view.manifest.pinned

    def held_slices(self) -> list[str]:
        with self.switch.real(), edged.open(self.data_dir) as replica:
            return sorted(replica[DATASET].view().slices)

    def head(self) -> bytes:
        with self.switch.real(), edged.open(self.data_dir) as replica:
            return replica[DATASET].view().head

    def told(self) -> str:
        status = self.status
        return f"held {status.version}, newest {status.newest}, pinned {status.pinned}, last_error {status.last_error}"
