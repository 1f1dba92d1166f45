"""Records by collection over all slices: each counted once, those taken down not at all, by what a version changed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from edged.replica.layers.layers import Layers

Name = tuple[str, str]  # collection, key


def is_live(layers: Sequence[Layers], hidden: Container[Name], name: Name) -> bool:
    """Whether a record is shown: held by a slice and not taken down."""
    if name in hidden:
        return False
    places = (one.locate(*name) for one in layers)
    return any(place is not None and place[0].frame(place[1]) for place in places)


def count_all(layers: Sequence[Layers], hidden: Iterable[Name]) -> dict[str, int]:
    """From the keys of all slices but the largest, which alone is counted by what it says of itself."""
    if not layers:
        return {}
    largest, *others = sorted(layers, key=lambda one: one.state.records, reverse=True)
    counts = dict(largest.state.counts)
    for number, one in enumerate(others, 1):
        before = [largest, *others[: number - 1]]
        for collection in one.state.counts:
            new = sum(1 for found in one.scan(collection) if not is_live(before, (), (collection, found[0])))
            counts[collection] = counts.get(collection, 0) + new
    for name in hidden:
        if is_live(layers, (), name):
            counts[name[0]] -= 1
    return {collection: count for collection, count in counts.items() if count}


def count_changes(
    counts: Mapping[str, int],
    touched: Iterable[Name],
    before: tuple[Sequence[Layers], Container[Name]],
    after: tuple[Sequence[Layers], Container[Name]],
) -> dict[str, int]:
    """`counts` of the version before, brought up to date. touched: records that may have come or gone.

    before, after: the slices and what was taken down.
    """
    updated = dict(counts)
    for name in touched:
        step = is_live(*after, name) - is_live(*before, name)
        if step:
            updated[name[0]] = updated.get(name[0], 0) + step
    return {collection: count for collection, count in updated.items() if count}
