"""The budget of bytes a day defers merging and nothing else."""

from __future__ import annotations

from edged.sync.core.wear import DAY_S, WearBudget


def test_it_fills_evenly_and_holds_one_day() -> None:
    budget = WearBudget(1000, now=50)
    assert budget.allowed(50) == 1000
    budget.spend(1000)
    assert budget.allowed(50) == 0
    assert budget.allowed(50 + DAY_S / 2) == 500
    assert budget.allowed(50 + 10 * DAY_S) == 1000


def test_hops_may_overdraw_and_merging_then_waits() -> None:
    budget = WearBudget(1000, now=0)
    budget.spend(1500)
    assert budget.allowed(DAY_S / 2) == 0
    assert budget.allowed(DAY_S) == 500
    assert budget.allowed(DAY_S / 2) == 500  # a clock that goes back gives nothing


def test_no_limit() -> None:
    budget = WearBudget(0, now=0)
    budget.spend(1 << 40)
    assert budget.allowed(1) is None
