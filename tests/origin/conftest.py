"""A feed with a clock that stands still until a test moves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.origin.publisher import Publisher


class Clock:
    """Seconds since 1970."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def publisher(tmp_path: Path, clock: Clock) -> Publisher:
    return Publisher.init(tmp_path / "feed", clock=clock)
