"""Which test runs which line of the rooms, and how long it takes: recorded once, kept below build/mutation.

One file of tests is learned at a time, in a copy of the project, and again only when it or a source that it runs has
changed. Of all tests that run a line, those come first that take little time and spend it in the same module.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import coverage

from tests.mutation.changes import Change
from tests.mutation.plugin import CONTEXT, PASSED, SETTINGS

ROOT = Path(__file__).parents[2]
COPIED = ("edged", "tests", "config", "docs", "systemd", "packaging", "benchmarks", "pyproject.toml", "Makefile")
COPIED_TOO = ("README.md", "CHANGELOG.md", "LICENSE", ".ci")
LEARNING_S = 900.0  # for one file of tests, on a machine that does other things as well


def copy_project(target: Path) -> None:
    target.mkdir()
    for name in (*COPIED, *COPIED_TOO):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, target / name)


def environment(project: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(project), "TMPDIR": str(project.parent / "tmp"), **more}


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""


class Knowledge:
    """What was learned of each test: {"seconds", "lines": {path: [lines]}}."""

    def __init__(self, tests: dict[str, Any]) -> None:
        self.seconds: dict[str, float] = {name: test["seconds"] for name, test in tests.items()}
        self.share: dict[tuple[str, str], float] = {}  # how much of what a test runs lies in a module
        self.by_line: dict[tuple[str, int], list[str]] = defaultdict(list)
        for name, test in tests.items():
            total = sum(map(len, test["lines"].values()))
            for path, lines in test["lines"].items():
                self.share[name, path] = len(lines) / total
                for line in lines:
                    self.by_line[path, line].append(name)

    def tests_of(self, path: str, change: Change) -> list[str]:
        """The tests that run a line of a change, the cheapest and nearest first. What runs while its module is read, in
        no test, is a matter of all that run anything of the module."""
        lines = range(change.place.line, change.place.end_line + 1)
        found = {name for line in lines for name in self.by_line.get((path, line), ())}
        found = found or {name for name, other in self.share if other == path}
        return sorted(found, key=lambda name: ((0.05 + self.seconds[name]) / self.share.get((name, path), 1.0), name))


def learn(kept: Path, work: Path, rooms: tuple[str, ...], files: list[str]) -> Knowledge:
    """Of all tests in `files` (paths below the project); what is known already comes from `kept`."""
    kept.mkdir(parents=True, exist_ok=True)
    project = work / "learning"
    tests: dict[str, Any] = {}
    for number, file in enumerate(files):
        record = kept / (file.replace("/", ".") + ".json")
        known = json.loads(record.read_text()) if record.exists() else None
        if known is None or not is_fresh(known, file):
            if not project.exists():
                copy_project(project)
            print(f"learning [{number + 1}/{len(files)}] {file}", flush=True)
            known = learn_file(project, file, rooms)
            record.write_text(json.dumps(known))
        tests |= known["tests"]
    shutil.rmtree(project, ignore_errors=True)
    return Knowledge(tests)


def is_fresh(known: dict[str, Any], file: str) -> bool:
    return all(digest_of(ROOT / path) == digest for path, digest in {**known["sources"], file: known["digest"]}.items())


def learn_file(project: Path, file: str, rooms: tuple[str, ...]) -> dict[str, Any]:
    """Run one file of tests. What fails or is left out here can tell nothing about a change, and is not asked."""
    data_file, passed, settings = project / ".coverage", project / "passed.jsonl", project / ".coveragerc"
    settings.write_text(
        f"[run]\nsource = edged\nparallel = true\ndata_file = {data_file}\ncontext = ${{{CONTEXT}-}}\n"
        "sigterm = true\ndisable_warnings = no-data-collected\n"
    )
    for left in (passed, *project.glob(".coverage.*"), data_file):
        left.unlink(missing_ok=True)
    passed.touch()
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest", "-q", "-n", "0"]
    command += ["-p", "no:cacheprovider", "-p", "tests.mutation.plugin", file]
    known = environment(project, **{PASSED: str(passed), SETTINGS: str(settings), CONTEXT: ""})
    try:
        done = subprocess.run(
            command, cwd=project, env=known, capture_output=True, text=True, check=False, timeout=LEARNING_S
        )
    except subprocess.TimeoutExpired:
        print(f"  not done within {LEARNING_S:.0f} s; its tests are not asked", flush=True)
        return {"digest": digest_of(ROOT / file), "sources": {}, "tests": {}}
    if done.returncode not in (0, 5):
        print(f"  fails as the code is: {done.stdout.strip().rpartition(chr(10))[2]}", flush=True)
    seconds: dict[str, float] = dict(json.loads(line) for line in passed.read_text().splitlines())
    combine = [sys.executable, "-m", "coverage", "combine", "--quiet", f"--rcfile={settings}"]
    if seconds:
        subprocess.run(combine, cwd=project, env=known, check=True, capture_output=True)
    data = coverage.CoverageData(str(data_file))
    data.read()
    lines = lines_of(data, project, rooms, seconds)
    ran = {path for test in lines.values() for path in test}
    return {
        "digest": digest_of(ROOT / file),
        "sources": {path: digest_of(ROOT / path) for path in sorted(ran)},
        "tests": {name: {"seconds": took, "lines": lines[name]} for name, took in seconds.items()},
    }


def lines_of(
    data: coverage.CoverageData, project: Path, rooms: tuple[str, ...], seconds: dict[str, float]
) -> dict[str, dict[str, list[int]]]:
    """Of each test, the lines that it ran by module of the rooms."""
    found: dict[str, dict[str, list[int]]] = {name: {} for name in seconds}
    for file in data.measured_files():
        path = str(Path(file).relative_to(project)) if Path(file).is_relative_to(project) else ""
        if not path.startswith(tuple(f"edged/{room}/" for room in rooms)):
            continue
        by_test: dict[str, list[int]] = defaultdict(list)
        for line, contexts in data.contexts_by_lineno(file).items():
            # Of a process that a test started, the context stands before the bar; pytest's own has none.
            for name in {known for one in contexts if (known := named(one, seconds)) is not None}:
                by_test[name].append(line)
        for name, run in by_test.items():
            found[name][path] = sorted(run)
    return found


def named(context: str, seconds: dict[str, float]) -> str | None:
    forms = (context, context.partition("|")[0], context.rpartition("|")[0], context.rpartition("|")[2])
    return next((form for form in forms if form in seconds), None)
