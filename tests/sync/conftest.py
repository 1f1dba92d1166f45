"""Fixtures of the synchronisation's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio


@pytest.fixture
def jumping(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> trio.testing.MockClock:
    """A clock that jumps when everybody waits. Work in threads, which it would not wait for, is done at once."""

    async def run_sync(function: Callable[..., Any], *args: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    return autojump_clock
