"""The field paths that the records of a pack have: looked for record by record, and remembered as far as was looked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any

import cbor2

from edged.replica.packs.pack import Pack

MOST_PATHS = 10_000  # of one pack; where there are more, names are data, and any path counts as there


class FieldPaths:
    """Of one collection in one pack, which never changes. Thread-safe."""

    def __init__(self, pack: Pack, collection: str) -> None:
        self.pack = pack
        span = pack.span(collection)
        self.place, self.end = span.low, span.high
        self.paths: set[str] = set()
        self.lock = Lock()

    @property
    def is_whole(self) -> bool:
        """Whether every record has been looked at."""
        return self.place >= self.end

    def has(self, path: str) -> bool:
        """As far as was looked."""
        return path in self.paths or len(self.paths) > MOST_PATHS

    def look(self, wanted: Iterable[str]) -> list[str]:
        """Those of the paths that no record has. Looks on until none is left. Raises DamageError."""
        left = list(wanted)
        with self.lock:
            while (left := [path for path in left if not self.has(path)]) and not self.is_whole:
                value = self.pack.value(self.place)
                if value is not None:
                    self.paths.update(paths_in(cbor2.loads(value), ""))
                self.place += 1
        return left


def paths_in(value: Any, before: str) -> Iterator[str]:
    """Every dotted path of a value that leads to something, through lists. before: the path to it, and a dot."""
    if isinstance(value, list):
        for item in value:
            yield from paths_in(item, before)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield before + name
            if isinstance(item, dict | list):
                yield from paths_in(item, f"{before}{name}.")
