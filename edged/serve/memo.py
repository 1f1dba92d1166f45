"""A memory of bytes, bounded in bytes; the oldest entry goes first, so that a hit costs one look and no bookkeeping."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_BYTES = 300  # what an entry costs beside its bytes: objects, the dictionary's slot and links


class Memo(Generic[K, V]):
    """At most `budget_bytes` of entries, as their owner sizes them. Any thread may use it."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self.added = 0  # how often something was remembered
        self.lock = Lock()
        self.entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        entry = self.entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: K, value: V, size_bytes: int) -> None:
        """Remember `value`; size_bytes: of key and value together. Nothing larger than an eighth of the budget stays,
        so that one huge answer does not push out everything else.
        """
        size = size_bytes + ENTRY_BYTES
        if size > self.budget_bytes >> 3:
            return
        with self.lock:
            before = self.entries.pop(key, None)
            if before is not None:
                self.used_bytes -= before[1]
            self.entries[key] = (value, size)
            self.added += 1
            self.used_bytes += size
            while self.used_bytes > self.budget_bytes:
                self.used_bytes -= self.entries.popitem(last=False)[1][1]

    def clear(self) -> None:
        with self.lock:
            self.entries.clear()
            self.used_bytes = 0
