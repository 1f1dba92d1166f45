"""A pytest plugin: coverage's data tells which test ran which line, in processes that the tests start too."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

DURATIONS = "EDGED_MUTATION_DURATIONS"  # a directory; each process of pytest appends to a file of its own
CONTEXT = "EDGED_MUTATION_TEST"  # read by the configuration that `run.py` writes for coverage


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    current = coverage.Coverage.current()
    if current is not None:
        current.switch_context(item.nodeid)
    os.environ[CONTEXT] = item.nodeid
    try:
        yield
    finally:
        if current is not None:
            current.switch_context("")
        os.environ[CONTEXT] = ""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    directory = os.environ.get(DURATIONS)
    if directory and report.when == "call" and "PYTEST_XDIST_WORKER" in os.environ:
        with (Path(directory) / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps([report.nodeid, report.duration]) + "\n")
