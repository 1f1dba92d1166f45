"""Dotted field paths: what `poster.w342` means, the same in indexes, slices, validators, views and `fields=`.

At each object the longest beginning of the path that is the name of a field there wins, so a name that itself holds
dots wins over going down. A list on the way stands for each of its items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

ABSENT: Final = object()  # where a path ends at an object that has no such field, or at what is no object


def step(fields: Mapping[str, Any], path: str) -> tuple[str, str | None] | None:
    """(the field of an object that `path` begins with, the path below it: None at its end), None where it has none."""
    if path in fields:
        return path, None
    end = path.rfind(".")
    while end >= 0:
        if path[:end] in fields:
            return path[:end], path[end + 1 :]
        end = path.rfind(".", 0, end)
    return None


def reach(value: Any, path: str) -> Iterator[Any]:
    """What lies at `path`: once for each item of the lists on the way, ABSENT where the way ends before.

    A list at the end of the path comes as it is; an empty one on the way yields nothing.
    """
    if isinstance(value, list):
        for item in value:
            yield from reach(item, path)
        return
    taken = step(value, path) if isinstance(value, dict) else None
    if taken is None:
        yield ABSENT
    elif taken[1] is None:
        yield value[taken[0]]
    else:
        yield from reach(value[taken[0]], taken[1])
