"""Telling those who wait that a dataset has a new version."""

from __future__ import annotations

import logging

import trio

from edged.errors import DamageError, StoreError
from edged.serve.catalog import Catalog, View
from edged.serve.damage import OnDamage

logger = logging.getLogger("edged.serve")

POLL_S = 0.05


class News:
    """Whoever commits in this process calls `look`; for commits of other processes the shared version counter is read
    every POLL_S, but only while somebody waits: an idle device is not woken.

    on_damage: told of damage that keeps a dataset from following.
    """

    def __init__(self, catalog: Catalog, on_damage: OnDamage | None = None) -> None:
        self.catalog = catalog
        self.on_damage = on_damage
        self.views: dict[str, View] = {}
        self.faults: dict[str, str] = {}
        self.changed = trio.Event()
        self.wanted = trio.Event()
        self.waiting = 0
        self.generation = 0  # how often a view has moved
        self.look()

    def look(self) -> bool:
        """Wake those who wait if a view has moved: to a new version, or by a newer head of the same one (it changes
        how old the data is). Returns whether it had. A replica that cannot be read has not moved.
        """
        moved = False
        for name, dataset in self.catalog.items():
            try:
                view = dataset.view()
            except StoreError as fault:
                self.complain(name, fault)
                continue
            self.complain(name, dataset.fault)
            if view is not self.views.get(name):
                self.views[name] = view
                moved = True
        if moved:
            self.generation += 1
            self.changed.set()
            self.changed = trio.Event()
        return moved

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
        if self.generation != generation:
            return
        self.waiting += 1
        self.wanted.set()
        try:
            await self.changed.wait()
        finally:
            self.waiting -= 1

    async def run(self) -> None:
        while True:
            await self.wanted.wait()
            while self.waiting:
                self.look()
                await trio.sleep(POLL_S)
            self.wanted = trio.Event()
