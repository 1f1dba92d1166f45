"""A memory of bytes, bounded in bytes. The oldest entries go first; those asked for meanwhile get another turn."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

SLOT_BYTES = 80  # what a place in the dictionary costs at most, its index and spare room counted
OBJECT_BYTES = 48  # what a bytes object costs beside its bytes, the allocator's rounding counted
BATCH_SHIFT = 6  # a 64th of the budget is freed at once
VISITED_BYTES = 4096  # of the budget for each visited entry that is known as one: a hundredth of it is for these


class Memo(Generic[K, V]):
    """At most `budget_bytes` of entries. Any thread may use it; `entries` is there for looking things up.

    size_of: what a key and a value take, in bytes, always the same for the same pair; the place that they take here is
    added. A plain dictionary keeps the order of insertion, and a third of the room that an OrderedDict needs.

    Where a scan passes through, the hot ones stay: whoever looks in `entries` adds the hash of the key that it found to
    `visited` (by `visit`), and `make_room` passes such an entry over once. What nobody tells of goes by age alone.
    """

    def __init__(self, budget_bytes: int, size_of: Callable[[K, V], int]) -> None:
        self.budget_bytes = budget_bytes
        self.size_of = size_of
        self.used_bytes = 0
        self.lock = Lock()
        self.entries: dict[K, V] = {}
        self.visited: set[int] = set()
        self.most_visited = budget_bytes // VISITED_BYTES

    def get(self, key: K) -> V | None:
        return self.entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember `value`. Nothing larger than an eighth of the budget stays, so that one huge answer does not push
        out everything else.
        """
        size = self.size_of(key, value) + SLOT_BYTES
        if size > self.budget_bytes >> 3:
            return
        with self.lock:
            before = self.entries.pop(key, None)  # so that what is new stands last
            if before is not None:
                self.used_bytes -= self.size_of(key, before) + SLOT_BYTES
            self.entries[key] = value
            self.used_bytes += size
            if self.used_bytes > self.budget_bytes:
                self.make_room()

    def visit(self, key: K) -> None:
        """An entry was asked for. With too many of them told of, it begins anew: the hot ones are soon back."""
        visited = self.visited
        if len(visited) >= self.most_visited:
            visited.clear()
        visited.add(hash(key))

    def make_room(self) -> None:
        """Forget the oldest, many at once: whoever looks for the oldest passes over the places of those before it."""
        floor = self.budget_bytes - (self.budget_bytes >> BATCH_SHIFT)
        visited, entries = self.visited, self.entries
        while self.used_bytes > floor:  # a second time where all that are left were visited
            used, old, hot = self.used_bytes, [], []
            for key, value in entries.items():
                if used <= floor:
                    break
                if visited and hash(key) in visited:
                    visited.discard(hash(key))
                    hot.append(key)
                else:
                    used -= self.size_of(key, value) + SLOT_BYTES
                    old.append(key)
            for key in old:
                del entries[key]
            for key in hot:
                entries[key] = entries.pop(key)
            self.used_bytes = used

    def drop(self, key: K) -> None:
        """Forget one entry, if it is there."""
        with self.lock:
            value = self.entries.pop(key, None)
            if value is not None:
                self.used_bytes -= self.size_of(key, value) + SLOT_BYTES

    def clear(self) -> None:
        with self.lock:
            self.entries.clear()
            self.used_bytes = 0


def size_of_bytes(key: bytes, value: bytes) -> int:
    """What a key and a value of bytes take."""
    return len(key) + len(value) + 2 * OBJECT_BYTES
