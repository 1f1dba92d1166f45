"""The last look at a version before it is committed: whether it has what apps cannot do without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edged.errors import TrustError
from edged.feed.schema import Schema


class ContentError(TrustError):
    """A signed version would break apps. The one before it is served on, and the next one is tried."""


def check_content(
    dataset: str, version: int, counts: Mapping[str, int], schema: Schema, require: Iterable[str], *, whole: bool
) -> None:
    """Raises ContentError unless each collection of `require` has a record and, where the device carries the `whole`
    dataset, each has as many as the schema says. counts: records by collection."""
    faults = [f"{name} has no record (`require` in the configuration)" for name in require if not counts.get(name)]
    if whole:
        faults += [
            f"{name} has {counts.get(name, 0)} records, the schema says at least {item.min_count}"
            for name, item in schema.collections.items()
            if counts.get(name, 0) < item.min_count
        ]
    if faults:
        raise ContentError(
            f"version {version} of {dataset}: collection {'; '.join(faults)}; the version before it is served on; "
            "publish a version that has them, or a rollback"
        )
