"""Runs http-cache-tests against edged's proxy and compares the outcome with `expected.json`.

    python -m tests.proxy.conformance.run [--suite DIR] [--update] [--json FILE]

The suite is what --suite or HTTP_CACHE_TESTS names: a checkout of its repository, or an installed package. Without
either it is installed from npm into a temporary directory. Exit code 1: a test that used to pass does not.
A test counts by the suite's own rule: only if those that it depends on pass. Browser-only tests are never run; tests
for targeted fields, which the suite marks for CDNs, are counted apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PACKAGE = "http-cache-tests@0.4.5"
DEADLINE_S = 300
Outcome = dict[str, Any]


def find_suite(named: str | None, scratch: Path) -> Path:
    """The directory that holds the suite's tests/."""
    named = named or os.environ.get("HTTP_CACHE_TESTS")
    if named:
        root = Path(named).resolve()
        candidates = [root, root / "node_modules" / "http-cache-tests"]
    else:
        command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(scratch), PACKAGE]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        candidates = [scratch / "node_modules" / "http-cache-tests"]
    for candidate in candidates:
        if (candidate / "tests" / "index.mjs").is_file():
            return candidate
    raise SystemExit(f"no http-cache-tests in {candidates[0]}")


def engine(suite: Path, name: str) -> Path:
    """A script of the suite: newer releases keep them in test-engine/."""
    newer = suite / "test-engine" / name
    return newer if newer.is_file() else suite / name


@contextmanager
def started(command: list[str], *, env: dict[str, str], cwd: Path, ready: str) -> Iterator[str]:
    """A child until the block ends. Yields the rest of its first line that begins with `ready`."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=cwd, text=True) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith(ready):
                    # What it prints later is of no interest, but must not fill the pipe.
                    threading.Thread(target=child.stdout.read, daemon=True).start()
                    yield line[len(ready) :].strip().rstrip("/")
                    break
            else:
                raise SystemExit(f"{command[0]} ended before it was ready")
        finally:
            assert child.stdin is not None
            child.stdin.close()
            child.terminate()
            child.wait(timeout=10)


def run_suite(suite: Path, scratch: Path) -> Outcome:
    """The suite's results: test id to true, or to [kind, message]."""
    env = {**os.environ, "npm_config_protocol": "http", "npm_config_port": "0", "npm_config_id": ""}
    env |= {"npm_config_pidfile": str(scratch / "origin.pid"), "npm_package_config_id": ""}
    origin = ["node", "--no-warnings", "--import", str(HERE / "loopback.mjs"), str(engine(suite, "server/server.mjs"))]
    with started(origin, env=env, cwd=suite, ready="Listening on ") as upstream:
        command = [sys.executable, "-m", "tests.proxy.conformance.proxy", upstream, str(scratch / "cache")]
        with started(command, env=env, cwd=ROOT, ready="") as base:
            client = ["node", "--no-warnings", str(engine(suite, "cli.mjs"))]
            done = subprocess.run(
                client,
                env={**env, "npm_config_base": base},
                cwd=suite,
                stdout=subprocess.PIPE,
                text=True,
                timeout=DEADLINE_S,
                check=True,
            )
    results: Outcome = json.loads(done.stdout[done.stdout.index("{") :])
    return results


def read_tests(suite: Path) -> dict[str, Outcome]:
    command = ["node", "--no-warnings", str(HERE / "export.mjs"), str(suite)]
    suites = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {test["id"]: test for part in suites for test in part["tests"] if not test.get("browser_only")}


def passes(name: str, tests: dict[str, Outcome], results: Outcome) -> bool:
    """Whether a test counts as passed: it, and everything that it depends on."""
    return results.get(name) is True and all(
        passes(other, tests, results) for other in tests[name].get("depends_on", ())
    )


def score(tests: dict[str, Outcome], results: Outcome) -> dict[str, list[str]]:
    """The ids that fail, by kind; "cdn-" before the kind for those marked for CDNs."""
    failing: dict[str, list[str]] = {}
    for name, test in tests.items():
        kind = ("cdn-" if test.get("cdn_only") else "") + test.get("kind", "required")
        failing.setdefault(kind, [])
        if not passes(name, tests, results):
            failing[kind].append(name)
    return failing


def report(tests: dict[str, Outcome], results: Outcome, failing: dict[str, list[str]]) -> None:
    for kind in sorted(failing):
        prefix, _, bare = kind.rpartition("-")
        total = sum(
            test.get("kind", "required") == bare and bool(test.get("cdn_only")) == bool(prefix)
            for test in tests.values()
        )
        print(f"{kind:13} {total - len(failing[kind])} of {total}")
        if bare != "check":
            for name in failing[kind]:
                print(f"    {name}: {results.get(name)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", help="a checkout or an installed package of http-cache-tests")
    parser.add_argument("--update", action="store_true", help="write the outcome to expected.json")
    parser.add_argument("--json", type=Path, help="write the raw results to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        suite = find_suite(args.suite, scratch)
        tests = read_tests(suite)
        results = run_suite(suite, scratch)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    failing = score(tests, results)
    report(tests, results, failing)
    # Two editions carry the same version number; they differ in what they ask for.
    edition = "targeted" if any(name.startswith("cdn-") for name in tests) else "registry"
    expected_file = HERE / "expected.json"
    expected = json.loads(expected_file.read_text()) if expected_file.exists() else {}
    if args.update:
        expected[edition] = {kind: sorted(names) for kind, names in sorted(failing.items())}
        expected_file.write_text(json.dumps(expected, indent=1) + "\n")
        return 0
    known = {name for names in expected.get(edition, {}).values() for name in names}
    worse = sorted(name for names in failing.values() for name in names if name not in known)
    better = sorted(known - {name for names in failing.values() for name in names})
    for name in worse:
        print(f"regression: {name}: {results.get(name)}")
    for name in better:
        print(f"now passes: {name}; run with --update")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
