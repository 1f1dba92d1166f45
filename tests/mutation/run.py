"""Tries a seeded sample of small changes and says which of them no test notices.

First the fast tests run once, to learn which of them run which line; then each change is made in a copy of the
project, and the tests that run its lines are asked, the nearest and quickest first. A change that makes them hang
counts as noticed, and is said. The survivors are listed at the end.
"""

from __future__ import annotations

import argparse
import enum
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import coverage

from tests.mutation.changes import Change, find_changes
from tests.mutation.contexts import CONTEXT, DURATIONS

ROOT = Path(__file__).parents[2]
ROOMS = ("feed", "sync/core", "replica", "proxy/rules", "origin", "access")
COPIED = ("edged", "tests", "config", "docs", "systemd", "packaging", "benchmarks", "pyproject.toml", "Makefile")
COPIED_TOO = ("README.md", "CHANGELOG.md", "LICENSE", ".ci")
MOST_TESTS, MOST_S, SPARE_S = 80, 60.0, 60.0
ASKED = 0.92


class Verdict(enum.Enum):
    """What the tests made of a change."""

    NOTICED = "noticed"
    HUNG = "hung"
    UNNOTICED = "unnoticed"


@dataclass(frozen=True, slots=True)
class Trial:
    """One change, and the tests that run its lines, in the order in which they are asked."""

    path: str
    change: Change
    tests: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return f"{self.path}:{self.change.place.line}: {self.change}"


class Knowledge:
    """Which tests run which line, and how long each takes, in seconds."""

    def __init__(self, data: coverage.CoverageData, durations: dict[str, float], root: Path) -> None:
        self.durations = durations
        self.by_file = {
            str(Path(name).relative_to(root)): data.contexts_by_lineno(name)
            for name in data.measured_files()
            if Path(name).is_relative_to(root)
        }

    def tests_of(self, path: str, change: Change) -> list[str]:
        lines = self.by_file.get(path, {})
        found = {
            context.rpartition("|")[2] or context.partition("|")[0]
            for line in range(change.place.line, change.place.end_line + 1)
            for context in lines.get(line, ())
        }
        room = Path(path).parts[1]
        known = [test for test in found if test in self.durations]
        return sorted(known, key=lambda test: (not test.startswith(f"tests/{room}/"), self.durations[test], test))

    def trial(self, path: str, change: Change) -> Trial:
        chosen: list[str] = []
        seconds = 0.0
        for test in self.tests_of(path, change):
            if len(chosen) == MOST_TESTS or (chosen and seconds + self.durations[test] > MOST_S):
                continue
            chosen.append(test)
            seconds += self.durations[test]
        return Trial(path, change, tuple(chosen), seconds)


def copy_project(target: Path) -> None:
    for name in (*COPIED, *COPIED_TOO):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, target / name)


def environment(project: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(project), **more}


def learn(work: Path, arguments: list[str]) -> Knowledge:
    """Run the fast tests once under coverage, each line with the tests that ran it."""
    project, durations = work / "learning", work / "durations"
    project.mkdir()
    durations.mkdir()
    copy_project(project)
    settings = project / ".coveragerc"
    settings.write_text(
        f"[run]\nsource = edged\nparallel = true\npatch = subprocess\ncontext = ${{{CONTEXT}-}}\n"
        "disable_warnings = no-data-collected\n"
    )
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest", "-q", "-n", "auto"]
    command += ["-p", "tests.mutation.contexts", *arguments]
    known = environment(project, **{DURATIONS: str(durations), CONTEXT: ""})
    done = subprocess.run(command, cwd=project, env=known, capture_output=True, text=True, check=False)
    print(done.stdout.strip().rpartition("\n")[2], flush=True)
    if done.returncode not in (0, 5):
        raise SystemExit(f"mutation: the tests fail as the code is; mend that first\n{done.stdout[-3000:]}")
    combine = [sys.executable, "-m", "coverage", "combine", "--quiet", f"--rcfile={settings}"]
    subprocess.run(combine, cwd=project, env=known, check=True, capture_output=True)
    data = coverage.CoverageData(str(project / ".coverage"))
    data.read()
    taken: dict[str, float] = {}
    for file in durations.iterdir():
        taken |= dict(json.loads(line) for line in file.read_text().splitlines())
    return Knowledge(data, taken, project)


def sample(seed: int, count: int, rooms: tuple[str, ...] = ROOMS) -> list[tuple[str, Change]]:
    """`count` changes, the same for the same seed, rooms and code."""
    every = [
        (str(path.relative_to(ROOT)), change)
        for room in rooms
        for path in sorted((ROOT / "edged" / room).rglob("*.py"))
        for change in find_changes(path.read_text())
    ]
    return random.Random(seed).sample(every, min(count, len(every)))


class Bench:
    """A copy of the project in which one change at a time is made and tried."""

    def __init__(self, project: Path) -> None:
        self.project = project
        project.mkdir()
        copy_project(project)
        self.tick = int(time.time()) + 10  # a modification time that no compiled file has yet

    def judge(self, trial: Trial) -> Verdict:
        if not trial.tests:
            return Verdict.UNNOTICED
        target = self.project / trial.path
        source = target.read_text()
        try:
            self.write(target, trial.change.applied(source))
            command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", *trial.tests]
            done = subprocess.run(
                command,
                cwd=self.project,
                env=environment(self.project),
                capture_output=True,
                check=False,
                timeout=3 * trial.seconds + SPARE_S,
            )
        except subprocess.TimeoutExpired:
            return Verdict.HUNG
        finally:
            self.write(target, source)
        return Verdict.NOTICED if done.returncode else Verdict.UNNOTICED

    def write(self, target: Path, source: str) -> None:
        self.tick += 2
        target.write_text(source)
        os.utime(target, (self.tick, self.tick))


def try_all(trials: list[Trial], work: Path, jobs: int) -> list[Verdict]:
    """Of each trial, in their order; progress is printed."""
    benches: queue.SimpleQueue[Bench] = queue.SimpleQueue()
    for number in range(jobs):
        benches.put(Bench(work / f"bench{number}"))
    done, lock = 0, threading.Lock()

    def attempt(trial: Trial) -> Verdict:
        nonlocal done
        bench = benches.get()
        try:
            verdict = bench.judge(trial)
        finally:
            benches.put(bench)
        with lock:
            done += 1
            if verdict is not Verdict.NOTICED:
                print(f"[{done}/{len(trials)}] {verdict.value}, {len(trial.tests)} tests: {trial}", flush=True)
            elif done % 25 == 0:
                print(f"[{done}/{len(trials)}]", flush=True)
        return verdict

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(attempt, trials))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1, help="which sample (1)")
    parser.add_argument("--count", type=int, default=300, help="how many changes (300)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once (one a processor)")
    parser.add_argument("--rooms", nargs="+", default=ROOMS, help=f"folders of edged/ ({' '.join(ROOMS)})")
    parser.add_argument("tests", nargs="*", default=[], help="tests to learn from (all fast ones)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edged-mutation-") as directory:
        work = Path(directory)
        knowledge = learn(work, options.tests)
        trials = [
            knowledge.trial(path, change) for path, change in sample(options.seed, options.count, tuple(options.rooms))
        ]
        verdicts = try_all(trials, work, options.jobs)
    unnoticed = [trial for trial, verdict in zip(trials, verdicts, strict=True) if verdict is Verdict.UNNOTICED]
    share, hung = 1 - len(unnoticed) / max(1, len(trials)), verdicts.count(Verdict.HUNG)
    print(f"\nseed {options.seed}: {len(trials) - len(unnoticed)} of {len(trials)} noticed ({hung} hung), {share:.1%}")
    for trial in unnoticed:
        print(f"  {trial}" + ("" if trial.tests else "   (no test runs it)"))
    return 0 if share >= ASKED else 1


if __name__ == "__main__":
    sys.exit(main())
