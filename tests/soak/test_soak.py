"""Whatever happens, what is served was signed, does not go back, and is right again soon after the last fault."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.conftest import FUZZ_SEED
from tests.soak import run


@pytest.mark.parametrize("seed", [1, 2])
def test_an_hour_of_faults(tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    assert run.soak(seed, 60, tmp_path).settled_s


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(2))
def test_ten_hours_of_faults(tmp_path: Path, round_: int, caplog: pytest.LogCaptureFixture) -> None:
    """Others each day: `make soak` has more of them."""
    caplog.set_level(logging.CRITICAL)
    played = run.soak(2 * FUZZ_SEED + round_, 600, tmp_path)
    assert played.box.deaths > 5
    assert max(played.publishing.truth) > 40
