"""How far something long has come, told to whoever watches: the same for a publish, a synchronisation and an audit."""

from __future__ import annotations

from collections.abc import Callable

Watch = Callable[[str, int, int], None]  # what is being done, in words; steps done; steps in all, 0: not known


def unwatched(what: str, done: int, total: int) -> None:
    """For when nobody watches."""
    del what, done, total


class Steps:
    """The steps of one thing, counted for whoever watches. total: how many there are, 0: not known."""

    def __init__(self, watch: Watch, what: str, total: int = 0) -> None:
        self.watch, self.what, self.total = watch, what, total
        self.done = 0
        watch(what, 0, total)

    def advance(self, count: int = 1) -> None:
        self.done += count
        self.watch(self.what, self.done, self.total)
