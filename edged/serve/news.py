"""Telling those who wait that a dataset has a new version."""

from __future__ import annotations

import logging
import os

import trio

from edged.errors import DamageError, StoreError
from edged.http.application import Signal
from edged.inotify import DirectoryWatch
from edged.serve.catalog import Catalog, View
from edged.serve.damage import OnDamage

logger = logging.getLogger("edged.serve")

LOOK_S = 0.05  # between looks while somebody waits, where the kernel does not tell of commits
TOLD_LOOK_S = 0.5  # where it does: records come and go by time, too
IDLE_S = 60.0  # between looks while nobody waits: pages and what is merged away are let go of, faults are tried again


class News:
    """Whoever commits in this process calls `look`; of commits of other processes the kernel tells, but only while
    somebody waits: an idle device is woken once in IDLE_S.

    on_damage: told of damage that keeps a dataset from following; data_dir: what the datasets lie in; moved: the signal
    of all datasets together.
    """

    def __init__(self, catalog: Catalog, on_damage: OnDamage | None = None, data_dir: str = "") -> None:
        self.catalog = catalog
        self.on_damage = on_damage
        self.data_dir = data_dir
        self.views: dict[str, View] = {}
        self.faults: dict[str, str] = {}
        self.wanted = trio.Event()
        self.moved = Signal(self.want)
        self.signals: dict[str, Signal] = {}
        self.look()

    @property
    def generation(self) -> int:
        """How often a view has moved."""
        return self.moved.generation

    def signal(self, dataset: str) -> Signal:
        """What moves when one dataset does."""
        found = self.signals.get(dataset)
        if found is None:
            found = self.signals[dataset] = Signal(self.want)
        return found

    def want(self) -> None:
        self.wanted.set()

    def look(self) -> bool:
        """Wake those who wait if a view has moved: to a new version, or by a newer head of the same one (it changes
        how old the data is). Returns whether it had. A replica that cannot be read has not moved.
        """
        views = self.views
        try:  # asked before each batch of requests, and nearly always nothing has
            for name, dataset in self.catalog.items():
                if dataset.view() is not views.get(name) or dataset.fault is not None:
                    return self.look_closely()
        except StoreError:
            return self.look_closely()
        return self.look_closely() if self.faults or len(views) != len(self.catalog) else False

    def look_closely(self) -> bool:
        """`look` where something is new, or wrong."""
        moved = []
        for name, dataset in self.catalog.items():
            try:
                view = dataset.view()
            except StoreError as fault:
                self.complain(name, fault)
                continue
            if dataset.fault is not None or self.faults:
                self.complain(name, dataset.fault)
            if view is not self.views.get(name):
                self.views[name] = view
                moved.append(name)
        for name in moved:
            self.signal(name).move()
        gone = self.views.keys() - self.catalog.keys()
        for name in gone:
            del self.views[name]  # what was remembered of it is no longer answered
        if moved or gone:
            self.moved.move()
        return bool(moved or gone)

    def complain(self, name: str, fault: StoreError | None) -> None:
        """Once for each fault: it is met at every look."""
        if fault is None:
            self.faults.pop(name, None)
        elif self.faults.get(name) != str(fault):
            self.faults[name] = str(fault)
            logger.error("read dataset %s: %s; what was read before is still answered from memory", name, fault)
            if self.on_damage is not None and isinstance(fault, DamageError):
                self.on_damage(name, fault)

    async def wait(self, generation: int) -> None:
        """Until any dataset has a newer view than when `generation` was read."""
        await self.moved.wait(generation)

    def is_followed(self) -> bool:
        return bool(self.moved.followers) or any(signal.followers for signal in self.signals.values())

    async def run(self) -> None:
        with DirectoryWatch(LOOK_S, TOLD_LOOK_S) as watch:
            while True:
                with trio.move_on_after(IDLE_S) as rest:
                    await self.wanted.wait()
                self.look()
                if rest.cancelled_caught:
                    for dataset in self.catalog.values():
                        dataset.relax()
                while self.is_followed():
                    watch.follow([os.path.join(self.data_dir, name) for name in self.catalog])
                    self.look()
                    await watch.wait()
                watch.follow(())
                self.wanted = trio.Event()
