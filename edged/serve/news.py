"""Telling those who wait that a dataset has a new version."""

from __future__ import annotations

import trio

from edged.serve.source import Catalog, View

POLL_S = 0.05


class News:
    """Whoever commits in this process calls `look`; for commits of other processes the shared version counter is read
    every POLL_S, but only while somebody waits: an idle device is not woken.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.views = self.read()
        self.changed = trio.Event()
        self.wanted = trio.Event()
        self.waiting = 0
        self.generation = 0  # how often a view has moved

    def read(self) -> list[View]:
        return [dataset.view() for dataset in self.catalog.values()]

    def look(self) -> bool:
        """Wake those who wait if a view has moved: to a new version, or by a newer head of the same one (it changes
        how old the data is). Returns whether it had.
        """
        for dataset, view in zip(self.catalog.values(), self.views, strict=True):
            if dataset.view() is not view:
                break
        else:
            return False
        self.views = self.read()
        self.generation += 1
        self.changed.set()
        self.changed = trio.Event()
        return True

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
