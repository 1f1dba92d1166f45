"""One change tried: made in a copy of the project, where the tests that run its lines are asked."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutation.changes import Change, Place
from tests.mutation.knowledge import Knowledge, digest_of, environment
from tests.mutation.plugin import FAILED, ORDER

FIRST_S, MOST_S, SPARE_S = 10.0, 60.0, 40.0
FIRST_TESTS, MOST_TESTS = 40, 400
# Asked of every line that they run, however long they take: what was published has to come out bit for bit.
DECISIVE = ("tests/feed/test_vectors.py::test_encoding_again_gives_the_published_bytes[mass]",)
MOST_BYTES = 4 << 30  # what a process of the tests may take of memory: a bound that is gone must not end the machine


class Verdict(enum.StrEnum):
    """What the tests made of a change."""

    NOTICED = "noticed"
    HUNG = "hung"
    UNNOTICED = "unnoticed"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A change in a module. `digest` is that of the module as it was."""

    path: str
    change: Change
    digest: str

    def __str__(self) -> str:
        return f"{self.path}:{self.change.place.line}: {self.change}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a candidate: who noticed it, and how many tests and seconds that took."""

    candidate: Candidate
    verdict: Verdict
    by: str
    tests: int
    seconds: float

    def to_line(self) -> str:
        return json.dumps({**asdict(self), "verdict": self.verdict.value}) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Outcome:
        told = json.loads(line)
        candidate = told.pop("candidate")
        change = candidate["change"]
        made = Change(Place(**change["place"]), change["before"], change["after"])
        told["verdict"] = Verdict(told["verdict"])
        return cls(candidate=Candidate(candidate["path"], made, candidate["digest"]), **told)


def stages(tests: list[str], seconds: dict[str, float]) -> list[list[str]]:
    """The tests to ask at first, which notice most changes, those to ask when they have noticed nothing, and those that
    decide."""
    first: list[str] = []
    then: list[str] = []
    spent = 0.0
    for test in tests:
        if not first or (len(first) < FIRST_TESTS and spent + seconds[test] <= FIRST_S):
            first.append(test)
        elif len(first) + len(then) < MOST_TESTS and spent + seconds[test] <= MOST_S:
            then.append(test)
        else:
            continue
        spent += seconds[test]
    last = [test for test in DECISIVE if test in tests and test not in (*first, *then)]
    return [stage for stage in (first, then, last) if stage]


class Bench:
    """A copy of the project in which one change at a time is made and tried."""

    def __init__(self, work: Path, knowledge: Knowledge) -> None:
        """`work` holds the copy in `bench`, and what the tests leave in `tmp`."""
        self.work, self.project, self.knowledge = work, work / "bench", knowledge
        self.tick = int(time.time()) + 10  # a modification time that no compiled file has yet

    def judge(self, candidate: Candidate) -> Outcome:
        tests = self.knowledge.tests_of(candidate.path, candidate.change)
        target = self.project / candidate.path
        source = target.read_text()
        started, asked = time.monotonic(), 0
        verdict, by = Verdict.UNNOTICED, ""
        try:
            self.write(target, candidate.change.applied(source))
            for stage in stages(tests, self.knowledge.seconds):
                asked += len(stage)
                verdict, by = self.ask(stage)
                if verdict is not Verdict.UNNOTICED:
                    break
        finally:
            self.write(target, source)
        return Outcome(candidate, verdict, by, asked, round(time.monotonic() - started, 1))

    def is_quiet(self, candidate: Candidate) -> bool:
        """Whether the tests that are asked first pass without the change. If not, that they fail says nothing."""
        first = stages(self.knowledge.tests_of(candidate.path, candidate.change), self.knowledge.seconds)[:1]
        return all(self.ask(stage)[0] is Verdict.UNNOTICED for stage in first)

    def ask(self, tests: list[str]) -> tuple[Verdict, str]:
        """What they say, and which of them (or what else) said it."""
        order, failed, tmp = self.work / "order.json", self.work / "failed", self.work / "tmp"
        order.write_text(json.dumps(tests))
        failed.unlink(missing_ok=True)
        tmp.mkdir(exist_ok=True)
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "--tb=no", "-p", "no:cacheprovider"]
        command += ["-p", "tests.mutation.plugin", f"--basetemp={tmp / 'p'}", *files]
        known = environment(self.project, **{ORDER: str(order), FAILED: str(failed)})
        limit_s = 3 * sum(self.knowledge.seconds[test] for test in tests) + SPARE_S
        process = subprocess.Popen(
            command,
            cwd=self.project,
            env=known,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with contextlib.suppress(ProcessLookupError):  # it may be over already
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return Verdict.HUNG, f"the limit of {limit_s:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody of its group is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(tmp, ignore_errors=True)
        if code == 0:
            return Verdict.UNNOTICED, ""
        return Verdict.NOTICED, failed.read_text() if failed.exists() else f"pytest ends with {code}"

    def write(self, target: Path, source: str) -> None:
        self.tick += 2
        target.write_text(source)
        os.utime(target, (self.tick, self.tick))


def candidate_in(path: str, change: Change, root: Path) -> Candidate:
    return Candidate(path, change, digest_of(root / path))
