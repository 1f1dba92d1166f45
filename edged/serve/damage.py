"""Damage met while answering: logged, and told to whoever can have the slice fetched again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

from edged.errors import DamageError
from edged.http.application import Stream
from edged.serve.catalog import View

logger = logging.getLogger("edged.serve")

OnDamage = Callable[[str, DamageError], None]
"""(dataset, fault); `fault.slice_name` is the slice to repair, "" where more than one slice is meant."""


class DamageReports:
    """Any thread may report, so `tell` must be callable from any thread."""

    def __init__(self, tell: OnDamage | None = None) -> None:
        self.tell = tell
        self.known: dict[tuple[str, str], object] = {}

    def report(self, dataset: str, fault: DamageError, view: View | None = None) -> None:
        """Once a slice and view: a repair brings a new view, and until then every request may meet the same damage."""
        place, mark = (dataset, fault.slice_name), str(fault) if view is None else view
        if self.known.get(place) == mark:
            return
        self.known[place] = mark
        logger.error("read dataset %s: %s", dataset, fault)
        if self.tell is not None:
            self.tell(dataset, fault)

    def watched(self, dataset: str, stream: Stream) -> Stream:
        """A stream that reports damage which it meets on its way, and ends short there: no byte of it is wrong."""
        follow = stream.follow
        return replace(
            stream,
            pieces=self.pieces(dataset, stream.pieces),
            follow=None if follow is None else lambda: self.pieces(dataset, follow()),
        )

    def pieces(self, dataset: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from pieces
        except DamageError as fault:
            self.report(dataset, fault)
            raise
