"""A plugin for the processes of pytest that `make mutation` starts: tells them what to run, and what came of it.

Learning: coverage's contexts tell which test ran which line, in processes that a test starts too. Trying: the tests
that are named, and no others, in the order in which they are named; the first that fails is told.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

CONTEXT = "EDGED_MUTATION_TEST"  # read by the configuration that `knowledge.py` writes for coverage
SETTINGS = "EDGED_MUTATION_COVERAGE"  # that configuration; processes that tests start follow it as well
PASSED = "EDGED_MUTATION_PASSED"  # a file: a line of JSON for each test that passed, with its seconds
ORDER = "EDGED_MUTATION_ORDER"  # a file of JSON: the tests to run, first to last
FAILED = "EDGED_MUTATION_FAILED"  # a file that names the test that failed


def pytest_configure() -> None:
    if SETTINGS in os.environ:
        os.environ["COVERAGE_PROCESS_START"] = os.environ[SETTINGS]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if ORDER in os.environ:
        by_name = {item.nodeid: item for item in items}
        wanted = json.loads(Path(os.environ[ORDER]).read_text())
        items[:] = [by_name[name] for name in wanted if name in by_name]


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
    if report.when == "call" and report.passed and PASSED in os.environ:
        with Path(os.environ[PASSED]).open("a") as file:
            file.write(json.dumps([report.nodeid, report.duration]) + "\n")
    tell(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    tell(report)  # a file of tests may compute with what is changed while it is read


def tell(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.failed and FAILED in os.environ:
        Path(os.environ[FAILED]).write_text(report.nodeid)
