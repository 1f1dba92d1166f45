"""What was lately: minutes of latency from what serving counts, and the log's warnings, bounded."""

from __future__ import annotations

import logging

import pytest

from edged.http.meter import MAKING_S, Meter
from edged.ops import recent
from edged.ops.recent import LINES, RecentTimes, quantile


def test_a_minute_is_of_what_was_answered_in_it_alone() -> None:
    meter, now = Meter(), [60.0]
    found = RecentTimes(lambda: meter, lambda: now[0])
    found.look()
    for _ in range(99):
        meter.note_making(0.0002)
        meter.fast_answers[200] += 1
    meter.note_making(2.0)
    meter.fast_answers[200] += 1
    now[0] = 120.0
    found.look()
    meter.fast_answers[200] += 5  # from memory
    found.look()
    now[0] = 130.0
    meter.fast_answers[404] += 1
    quiet, busy, remembered, under_way = found.document()["minutes"]
    assert (under_way["time"], under_way["requests"]) == (130, 1)
    assert (quiet["requests"], quiet["p50_s"], quiet["p99_s"]) == (0, None, None)
    assert (busy["time"], busy["requests"]) == (120, 100)
    assert 0.0001 < busy["p50_s"] <= busy["p99_s"] <= 0.0003
    assert (remembered["requests"], remembered["p50_s"]) == (5, None)


def test_a_process_that_ended_with_its_counts_makes_nothing_negative() -> None:
    meters = [Meter(), Meter()]
    meters[0].note_making(0.5)
    meters[0].fast_answers[200] = 10
    found = RecentTimes(lambda: meters[0], lambda: 0.0)
    found.look()
    meters.pop(0)
    found.look()
    assert found.document()["minutes"][1] == {"time": 0, "requests": 0, "p50_s": None, "p99_s": None}


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ({}, 0.5, None),
        ({0: 10}, 0.5, MAKING_S[0] / 2),
        ({4: 50, 6: 50}, 0.5, MAKING_S[4]),
        ({4: 50, 6: 50}, 1.0, MAKING_S[6]),
        ({len(MAKING_S): 3}, 0.99, MAKING_S[-1]),
    ],
)
def test_a_share_lies_where_its_class_has_it(counts: dict[int, int], share: float, expected: float | None) -> None:
    assert quantile(counts, share) == (None if expected is None else pytest.approx(expected))


def test_each_warning_is_kept_once_with_how_often_it_came() -> None:
    found, logger = RecentTimes(Meter, lambda: 0.0), logging.getLogger("edged.somewhere")
    with found:
        logger.info("nothing to see")
        for _ in range(3):
            logger.warning("the %s is full", "disk")
        logger.error("worse")
        logger.warning("the %s is full", "disk")
    logger.error("heard by nobody here")
    lines = found.document()["lines"]
    assert [(line["text"], line["level"], line["count"]) for line in lines] == [
        ("the disk is full", "warning", 4),
        ("worse", "error", 1),
    ]
    assert lines[0]["first"] <= lines[0]["time"]


def test_a_flood_of_warnings_takes_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "LINE_CHARACTERS", 20)
    found, logger = RecentTimes(Meter, lambda: 0.0), logging.getLogger("edged.somewhere")
    with found:
        for number in range(LINES + 40):
            logger.warning("%d %s", number, "x" * 5000)
    lines = found.document()["lines"]
    assert len(lines) == LINES
    assert all(len(line["text"]) <= 20 for line in lines)
    assert lines[0]["text"].startswith(f"{LINES + 39} ")
