"""Further serving processes: whatever fails about one of them, the daemon runs on and it is started again."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from edged.errors import DamageError
from edged.http.meter import Meter
from edged.processes import workers
from edged.processes.workers import Workers

REPORT = json.dumps({"meter": Meter(remembered=2).document(), "memory_bytes": 1000})
Opened = Callable[..., Any]


def starting(monkeypatch: pytest.MonkeyPatch, *programs: str | OSError) -> list[int]:
    """Each start runs the next of these Python programs or fails so; the last one for ever. Returns their count."""
    started: list[int] = []
    real = trio.lowlevel.open_process

    async def opened(command: list[str], **more: Any) -> trio.Process:
        program = programs[min(len(started), len(programs) - 1)]
        started.append(1)
        if isinstance(program, OSError):
            raise program
        return await real([sys.executable, "-c", program], **more)

    monkeypatch.setattr(trio.lowlevel, "open_process", opened)
    monkeypatch.setattr(workers, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(workers, "STOP_S", 0.05)
    return started


def saying(*lines: str) -> str:
    """A worker that reports this, and ends with its input."""
    return f"import sys; print({chr(10).join(lines)!r}, flush=True); sys.stdin.read()"


async def until(good: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not good():  # noqa: ASYNC110 - nothing else tells of it
            await trio.sleep(0.001)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENOENT])
async def test_one_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    started = starting(monkeypatch, OSError(number, os.strerror(number)), "", saying(REPORT))
    kept = Workers(Path("none"), 1)
    async with trio.open_nursery() as nursery:
        await nursery.start(kept.run)
        await until(lambda: kept.meter.remembered == 2)
        nursery.cancel_scope.cancel()
    assert len(started) == 3


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Traceback (most recent call last):",
        "\xff\x00",
        "[]",
        "7",
        "null",
        '{"meter": {}}',
        '{"meter": null, "memory_bytes": 1}',
        '{"meter": {"fast_answers": []}, "memory_bytes": 1}',
        '{"damage": 1}',
        '{"damage": ["catalog"]}',
        '{"damage": ["unknown", "core", "x"]}',
        "[" * 30_000,
        "x" * 100_000,
    ],
)
async def test_a_line_that_is_no_report_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, line: str
) -> None:
    def damaged(dataset: str, fault: DamageError) -> None:
        del fault
        raise KeyError(dataset)

    starting(monkeypatch, saying(line, REPORT))
    kept = Workers(Path("none"), 1, damaged)
    with caplog.at_level(logging.WARNING):
        async with trio.open_nursery() as nursery:
            await nursery.start(kept.run)
            await until(lambda: kept.memory_bytes == 1000)
            nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == ["serving process reports what cannot be read"]


async def test_what_ended_processes_have_answered_stays_counted_and_their_memory_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = {"meter": Meter(remembered=5, streams=3, memo_bytes=9).document(), "memory_bytes": 7}
    started = starting(monkeypatch, f"print({json.dumps(first)!r})", saying(REPORT))
    kept = Workers(Path("none"), 2)
    async with trio.open_nursery() as nursery:
        await nursery.start(kept.run)
        await until(lambda: kept.memory_bytes == 2000)
        assert kept.meter == Meter(remembered=5 + 2 + 2)
        nursery.cancel_scope.cancel()
    assert len(started) == 3


async def test_damage_that_one_has_met_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str, str]] = []
    starting(monkeypatch, saying(json.dumps({"damage": ["catalog", "core", "a bad byte"]}), REPORT))
    kept = Workers(Path("none"), 1, lambda dataset, fault: told.append((dataset, fault.slice_name, str(fault))))
    async with trio.open_nursery() as nursery:
        await nursery.start(kept.run)
        await until(lambda: bool(told))
        nursery.cancel_scope.cancel()
    assert told == [("catalog", "core", "a bad byte")]


async def test_one_that_ends_at_once_for_ever_is_started_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock
    pauses: list[float] = []

    async def fails(self: Workers) -> trio.Process:
        pauses.append(trio.current_time())
        raise OSError(errno.EAGAIN, "no process left")

    monkeypatch.setattr(Workers, "start", fails)
    kept = Workers(Path("none"), 1)
    with trio.move_on_after(200):
        await kept.run()
    between = [round(later - earlier, 3) for earlier, later in pairwise(pauses)]
    assert between[:7] == [1, 2, 4, 8, 16, 30, 30]


async def test_a_worker_that_cannot_be_heard_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    started = starting(monkeypatch, saying(REPORT))
    real = trio.lowlevel.FdStream.receive_some
    failing = [True]

    async def breaks(self: trio.lowlevel.FdStream, most: int | None = None) -> bytes:
        if failing:
            failing.clear()
            raise trio.BrokenResourceError("Input/output error")
        return bytes(await real(self, most))

    monkeypatch.setattr(trio.lowlevel.FdStream, "receive_some", breaks)
    kept = Workers(Path("none"), 1)
    async with trio.open_nursery() as nursery:
        await nursery.start(kept.run)
        await until(lambda: kept.memory_bytes == 1000)
        nursery.cancel_scope.cancel()
    assert len(started) == 2
