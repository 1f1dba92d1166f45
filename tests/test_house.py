"""The house rules that a reader should be able to rely on, read from the source itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "edged").rglob("*.py"))
SCRIPTS = sorted(path for name in ("tests", "benchmarks", "packaging") for path in (ROOT / name).rglob("*.py"))

# Bytes, time and chance come in as arguments; so these are testable byte for byte and on any clock.
WITHOUT_IO = ("feed/*.py", "sync/machine.py", "proxy/rules*.py", "replica/pack.py")
IO = {"trio", "time", "os", "random", "secrets", "socket", "sqlite3", "asyncio", "threading", "pathlib"}
LONGEST_MODULE, LONGEST_FUNCTION = 500, 60


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


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


@pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=name_of)
def test_nothing_is_imported_relatively(path: Path) -> None:
    relative = [node.lineno for node in ast.walk(parse(path)) if isinstance(node, ast.ImportFrom) and node.level]
    assert not relative, f"{name_of(path)}: relative imports in lines {relative}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_can_be_read_in_one_go(path: Path) -> None:
    source = path.read_text()
    lines = source.count("\n")
    assert lines <= LONGEST_MODULE, f"{name_of(path)} has {lines} lines; is there a second subject in it?"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            assert size <= LONGEST_FUNCTION, f"{name_of(path)}:{node.lineno} {node.name} has {size} lines"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_public_and_none_passes_on_names_of_another(path: Path) -> None:
    assert not path.stem.startswith("_") or path.stem in {"__init__", "__main__"}, f"{name_of(path)}: underscore module"
    if path.stem == "__init__" and path.parent.name != "edged":
        assert not list(imports(parse(path))), f"{name_of(path)}: imports something, perhaps to re-export it"


@pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=name_of)
def test_no_code_is_made_from_data_and_no_shell_is_started(path: Path) -> None:
    tree = parse(path)
    unpicklers = {module for module in imports(tree) if module.split(".")[0] in {"pickle", "marshal", "shelve", "dill"}}
    assert not unpicklers, f"{name_of(path)} imports {sorted(unpicklers)}"
    for name, call in calls(tree):
        assert name not in {"eval", "exec", "compile", "os.system", "os.popen"}, f"{name_of(path)}:{call.lineno} {name}"
        shells = [word for word in call.keywords if word.arg == "shell" and ast.unparse(word.value) != "False"]
        assert not shells, f"{name_of(path)}:{call.lineno} starts a shell"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_exception_is_swallowed(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ExceptHandler):
            silent = all(isinstance(step, ast.Pass | ast.Continue) for step in node.body)
            caught = "BaseException" if node.type is None else ast.unparse(node.type)
            broad = {"Exception", "BaseException"} & set(re.findall(r"\w+", caught))
            assert not (broad and silent), f"{name_of(path)}:{node.lineno} swallows {caught}"
