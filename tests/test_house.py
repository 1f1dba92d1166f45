"""The house rules that a reader should be able to rely on, read from the source itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "edged").rglob("*.py"))
SCRIPTS = sorted(path for name in ("tests", "benchmarks", "packaging") for path in (ROOT / name).rglob("*.py"))

# Bytes, time and chance come in as arguments; so these are testable byte for byte and on any clock.
WITHOUT_IO = ("feed/**/*.py", "sync/core/*.py", "proxy/rules/*.py", "replica/packs/*.py", "http/h2/*.py")
IO = {"trio", "time", "os", "random", "secrets", "socket", "sqlite3", "asyncio", "threading", "pathlib"}
LONGEST_MODULE, LONGEST_FUNCTION = 500, 60


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("pattern", WITHOUT_IO)
def test_the_core_does_no_io_and_reads_no_clock(pattern: str) -> None:
    for path in (ROOT / "edged").glob(pattern):
        tree = parse(path)
        foreign = {module for module in imports(tree) if module.split(".")[0] in IO}
        assert not foreign, f"{name_of(path)} imports {sorted(foreign)}"
        opened = [f"line {call.lineno}" for name, call in calls(tree) if name in {"open", "print", "input"}]
        assert not opened, f"{name_of(path)} does I/O: {opened}"


def test_the_rule_on_io_looks_at_something() -> None:
    # A pattern that matches nothing would pass for ever.
    assert len(list((ROOT / "edged").glob(WITHOUT_IO[0]))) >= 10


def test_nothing_is_imported_relatively() -> None:
    faults = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES + SCRIPTS
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert faults == []


def test_modules_and_functions_can_be_read_in_one_go() -> None:
    faults = []
    for path in MODULES:
        lines = path.read_text().count("\n")
        if lines > LONGEST_MODULE:
            faults.append(f"{name_of(path)} has {lines} lines; is there a second subject in it?")
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > LONGEST_FUNCTION:
                    faults.append(f"{name_of(path)}:{node.lineno} {node.name} has {size} lines")
    assert faults == []


def test_modules_are_public_and_packages_pass_on_no_names() -> None:
    hidden = [name_of(path) for path in MODULES if path.stem.startswith("_") and not path.stem.startswith("__")]
    assert hidden == []
    packages = [path for path in MODULES if path.stem == "__init__" and path.parent.name != "edged"]
    assert [name_of(path) for path in packages if list(imports(parse(path)))] == []


def test_no_code_is_made_from_data_and_no_shell_is_started() -> None:
    faults = []
    for path in MODULES + SCRIPTS:
        tree = parse(path)
        unpicklers = {"pickle", "marshal", "shelve", "dill"} & {module.split(".")[0] for module in imports(tree)}
        faults += [f"{name_of(path)} imports {module}" for module in sorted(unpicklers)]
        for name, call in calls(tree):
            shell = any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in call.keywords)
            # A test may run the examples of a document, which is our own code.
            made = name in {"eval", "exec", "compile"} and path in MODULES
            if shell or made or name in {"os.system", "os.popen"}:
                faults.append(f"{name_of(path)}:{call.lineno} {name}")
    assert faults == []


def test_no_exception_is_swallowed() -> None:
    faults = []
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ExceptHandler):
                silent = all(isinstance(step, ast.Pass | ast.Continue) for step in node.body)
                caught = "BaseException" if node.type is None else ast.unparse(node.type)
                if silent and {"Exception", "BaseException"} & set(re.findall(r"\w+", caught)):
                    faults.append(f"{name_of(path)}:{node.lineno} swallows {caught}")
    assert faults == []


def test_an_app_that_embeds_edged_does_not_load_the_daemon(tmp_path: Path) -> None:
    # Apps on a box of 512 MB read replicas in their own process: the network stack must stay out of it.
    program = (
        "import sys, edged\n"
        "with edged.open(sys.argv[1]) as replica:\n"
        "    names = list(replica)\n"
        "heavy = {'trio', 'hypercorn', 'cryptography', 'httpx2', 'asyncio', 'ssl', 'rich', 'msgspec'}\n"
        "print(names, sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == "[] []", done.stdout + done.stderr
