"""Tries a seeded sample of small changes and says which of them no test notices.

First each file of tests runs once, to learn which tests run which line (kept in build/mutation, learned again where
something has changed); then each change is made in a copy of the project, and the tests that run its lines are asked,
the nearest and quickest first. A change that makes them hang counts as noticed, and is said. What became of each is
written to a journal at once, so that a run that was ended goes on with --resume. The survivors are listed at the end;
those that were looked at stand in survivors.toml with the reason why they are left.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.mutation.changes import find_changes
from tests.mutation.knowledge import ROOT, copy_project, learn
from tests.mutation.trials import Bench, Candidate, Outcome, Verdict, candidate_in

ROOMS = ("feed", "sync/core", "replica", "proxy/rules", "origin", "access")
TESTS = (
    "tests/feed", "tests/sync", "tests/replica", "tests/proxy", "tests/origin", "tests/access", "tests/announce",
    "tests/cli/test_replica_commands.py",  # of replica/recordtypes
)  # fmt: skip
KEPT = ROOT / "build" / "mutation"
SURVIVORS = Path(__file__).with_name("survivors.toml")
ASKED = 0.92
EVERY = 25  # changes between two looks at whether the tests still pass without any


def sample(seed: int, count: int, rooms: tuple[str, ...] = ROOMS, root: Path = ROOT) -> list[Candidate]:
    """`count` changes. Each has its place by its own words, so that other code can change and the rest stay chosen."""
    placed: list[tuple[bytes, Candidate]] = []
    for room in rooms:
        for path in sorted((root / "edged" / room).rglob("*.py")):
            name, source = str(path.relative_to(root)), path.read_text()
            lines = source.splitlines()
            met: collections.Counter[tuple[str, ...]] = collections.Counter()
            for change in find_changes(source):
                words = (name, lines[change.place.line - 1].strip(), change.before, change.after)
                met[words] += 1
                rank = hashlib.sha256("\0".join((str(seed), *words, str(met[words]))).encode()).digest()
                placed.append((rank, candidate_in(name, change, root)))
    return [candidate for _, candidate in sorted(placed, key=lambda pair: pair[0])[:count]]


def known_survivors() -> list[dict[str, str]]:
    """Of each: path, line (as it stands there), before, after, and why it is left."""
    return list(tomllib.loads(SURVIVORS.read_text()).get("survivor", []))


def reason(candidate: Candidate) -> str | None:
    """Why a survivor is left; None for one that nobody has looked at."""
    line = (ROOT / candidate.path).read_text().splitlines()[candidate.change.place.line - 1].strip()
    told = {
        "path": candidate.path,
        "line": line,
        "before": candidate.change.before,
        "after": candidate.change.after,
    }
    return next((entry["why"] for entry in known_survivors() if told.items() <= entry.items()), None)


def read_journal(journal: Path) -> dict[Candidate, Outcome]:
    """What is known of each; of one that was tried twice, what came of it the last time."""
    if not journal.exists():
        return {}
    outcomes = (Outcome.from_line(line) for line in journal.read_text().splitlines())
    return {outcome.candidate: outcome for outcome in outcomes}


def try_all(candidates: list[Candidate], bench: Bench, journal: Path, known: dict[Candidate, Outcome]) -> None:
    """Each that is not in `known`, into it and the journal; progress is printed."""
    left = [candidate for candidate in candidates if candidate not in known]
    for number, candidate in enumerate(left):
        if number % EVERY == 0 and not bench.is_quiet(candidate):
            raise SystemExit(f"mutation: the tests of {candidate.path} fail without a change; mend that first")
        outcome = known[candidate] = bench.judge(candidate)
        with journal.open("a") as file:
            file.write(outcome.to_line())
        tried = [known[one] for one in candidates if one in known]
        noticed = sum(one.verdict is not Verdict.UNNOTICED for one in tried)
        print(f"[{len(tried)}/{len(candidates)}] {noticed / len(tried):.1%} noticed; {told(outcome)}", flush=True)


def told(outcome: Outcome) -> str:
    by = f" by {outcome.by}" if outcome.by else f", {outcome.tests} tests"
    return f"{outcome.verdict}{by} in {outcome.seconds:.0f} s: {outcome.candidate}"


def report(seed: int, outcomes: list[Outcome]) -> float:
    """The share that was noticed, printed with all that was not."""
    unnoticed = [outcome for outcome in outcomes if outcome.verdict is Verdict.UNNOTICED]
    hung = [outcome for outcome in outcomes if outcome.verdict is Verdict.HUNG]
    share = 1 - len(unnoticed) / max(1, len(outcomes))
    noticed = len(outcomes) - len(unnoticed)
    print(f"\nseed {seed}: {noticed} of {len(outcomes)} noticed, {share:.1%} ({len(hung)} by the limit of time)")
    for outcome in hung:
        print(f"  hung: {outcome.candidate}")
    for outcome in unnoticed:
        why = reason(outcome.candidate) or ("not looked at yet" if outcome.tests else "no test runs it")
        print(f"  unnoticed: {outcome.candidate}\n    {why}")
    return share


def files_of(given: list[str]) -> list[str]:
    found = (
        [path] if path.is_file() else sorted(path.rglob("test_*.py"))
        for path in (ROOT / name for name in (given or TESTS))
    )
    return [str(path.relative_to(ROOT)) for paths in found for path in paths]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1, help="which sample (1)")
    parser.add_argument("--count", type=int, default=300, help="how many changes (300)")
    parser.add_argument("--rooms", nargs="+", default=ROOMS, help=f"folders of edged/ ({' '.join(ROOMS)})")
    parser.add_argument("--only", default="", help="of the sample what lies in this folder of edged/")
    parser.add_argument("--resume", action="store_true", help="go on where the last run of this seed was ended")
    parser.add_argument("--again", action="store_true", help="with --resume: ask once more what went unnoticed")
    parser.add_argument("tests", nargs="*", default=[], help=f"whom to ask ({' '.join(TESTS)})")
    options = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    journal = KEPT / f"journal-{options.seed}.jsonl"
    if not options.resume:
        journal.unlink(missing_ok=True)
    known = read_journal(journal)
    if options.again:
        known = {name: outcome for name, outcome in known.items() if outcome.verdict is not Verdict.UNNOTICED}
    rooms = tuple(options.rooms)
    with tempfile.TemporaryDirectory(prefix="edged-mut-") as directory:
        work = Path(directory)
        (work / "tmp").mkdir()
        knowledge = learn(KEPT / "tests", work, rooms, files_of(options.tests))
        copy_project(work / "bench")
        candidates = [
            candidate
            for candidate in sample(options.seed, options.count, rooms)
            if candidate.path.startswith(f"edged/{options.only}")
        ]
        try_all(candidates, Bench(work, knowledge), journal, known)
    return 0 if report(options.seed, [known[candidate] for candidate in candidates]) >= ASKED else 1


if __name__ == "__main__":
    sys.exit(main())
