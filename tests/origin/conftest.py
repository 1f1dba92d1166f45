"""A feed with a clock that stands still until a test moves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.origin.publisher import Publisher
from tests.origin.s3store import KEY_ID, SECRET, S3Store, serving


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


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an object store."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)


@pytest.fixture
def store() -> Iterator[S3Store]:
    with serving(S3Store()) as store:
        yield store
