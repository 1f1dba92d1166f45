"""Threads that the system does not give: what runs in the background waits for one, and can be cancelled."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from edged.threads import NameLookup, in_thread


class Scarce:
    """In place of `trio.to_thread.run_sync`: refuses the first `refusals` calls as `threading` does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refusals: float) -> None:
        self.refusals, self.tries, self.run = refusals, 0, trio.to_thread.run_sync
        monkeypatch.setattr(trio.to_thread, "run_sync", self)

    async def __call__(self, function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        self.tries += 1
        if self.tries <= self.refusals:
            raise RuntimeError("can't start new thread")
        return await self.run(function, *arguments, **more)


async def test_work_waits_until_a_thread_is_to_be_had(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    scarce = Scarce(monkeypatch, 5)
    assert await in_thread(divmod, 7, 2) == (3, 1)
    assert scarce.tries == 6
    assert caplog.text.count("gives no thread") == 1


async def test_what_the_work_itself_raises_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        raise RuntimeError("a fault of ours")

    scarce = Scarce(monkeypatch, 0)
    with pytest.raises(RuntimeError, match="of ours"):
        await in_thread(work)
    assert scarce.tries == 1


async def test_waiting_ends_at_the_deadline_of_who_waits(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    scarce = Scarce(monkeypatch, math.inf)
    with pytest.raises(trio.TooSlowError), trio.fail_after(60):
        await in_thread(divmod, 7, 2)
    assert 30 < scarce.tries < 50  # at most two seconds apart, not without a pause


async def test_names_are_looked_up_as_ever_and_wait_likewise(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    trio.socket.set_custom_hostname_resolver(NameLookup())
    scarce = Scarce(monkeypatch, 2)
    found = await trio.socket.getaddrinfo("localhost", 80, family=socket.AF_INET, type=socket.SOCK_STREAM)
    assert [item[4] for item in found] == [("127.0.0.1", 80)]
    assert await trio.socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    assert scarce.tries >= 3
