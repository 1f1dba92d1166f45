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
        assert not foreign, f"{name_of(path)} imports {sorted(foreign)}: hand bytes, times and chance in as arguments"
        opened = [f"line {call.lineno}" for name, call in calls(tree) if name in {"open", "print", "input"}]
        assert not opened, f"{name_of(path)} does I/O: {opened}: leave it to the shell around this folder"


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
    assert faults == [], "write the whole path, from edged on"


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
                    faults.append(f"{name_of(path)}:{node.lineno} {node.name} has {size} lines: which step has a name?")
    assert faults == []


def test_modules_are_public_and_packages_pass_on_no_names() -> None:
    hidden = [name_of(path) for path in MODULES if path.stem.startswith("_") and not path.stem.startswith("__")]
    assert hidden == [], "this is a program: every module is public; name it for what it decides"
    packages = [path for path in MODULES if path.stem == "__init__" and path.parent.name != "edged"]
    passing = [name_of(path) for path in packages if list(imports(parse(path)))]
    assert passing == [], "a package's __init__ is its map and nothing else: import from the module itself"


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
    assert faults == [], "decode with a format of ours, start programs by a list of words"


def test_statements_number_no_placeholders() -> None:
    """From Python 3.12 on `sqlite3` takes `?1` for a name, and warns where a sequence is given for it."""
    strings = (
        (name_of(path), node.lineno)
        for path in MODULES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"[ (=]\?\d", node.value)
    )
    assert list(strings) == [], "write ? for each, and give what stands for it once for each"


def test_no_exception_is_swallowed() -> None:
    faults = []
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ExceptHandler):
                silent = all(isinstance(step, ast.Pass | ast.Continue) for step in node.body)
                caught = "BaseException" if node.type is None else ast.unparse(node.type)
                if silent and {"Exception", "BaseException"} & set(re.findall(r"\w+", caught)):
                    faults.append(f"{name_of(path)}:{node.lineno} swallows {caught}")
    assert faults == [], "catch what is expected, and translate it; let the unexpected end the process"


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


# --- the rooms -------------------------------------------------------------------------------------------------------

# From the ground up: a package imports from itself and from those below it alone, and not from its neighbours in a
# line. The single modules of edged/ stand here by their names.
FLOORS = (
    ("errors", "polls", "progress", "units", "version"),
    ("toml", "clock", "files", "inotify", "threads"),
    ("access", "feed"),
    ("config", "http", "replica"),
    ("announce", "pages"),
    ("configfile", "feedserving"),
    ("sync", "serve", "proxy", "origin"),
    ("relay",),
    ("ops",),
    ("processes",),
    ("daemon",),
    ("demo",),
    ("cli",),
)
FACES = ("edged", "edged.__main__")  # what stands at the front door may lead anywhere
MOST_MODULES, MOST_PARAMETERS, MOST_MAP_LINES = 16, 6, 20


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def arrows() -> dict[str, dict[str, int]]:
    """Each module to the modules of edged that it imports, with the line; imports for types alone count as well."""
    names = {dotted(path) for path in MODULES}
    found: dict[str, dict[str, int]] = {}
    for path in MODULES:
        taken = found.setdefault(dotted(path), {})
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "edged":
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    taken[whole if whole in names else node.module] = node.lineno
            elif isinstance(node, ast.Import):
                taken |= {alias.name: node.lineno for alias in node.names if alias.name in names}
    return found


def floor_of(module: str) -> int:
    room = module.split(".")[1]
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_every_room_has_a_floor() -> None:
    rooms = {name.split(".")[1] for name in arrows() if name not in FACES}
    missing = rooms ^ {room for rooms in FLOORS for room in rooms}
    assert not missing, f"give {sorted(missing)} a place in FLOORS (or take it out), and in docs/design.md"


def test_no_arrow_leads_back_up() -> None:
    faults = [
        f"{source}:{line} imports {target}: move what it takes down to a lower floor, or hand it in as an argument"
        for source, targets in arrows().items()
        if source not in FACES
        for target, line in targets.items()
        if target != "edged" and source.split(".")[1] != target.split(".")[1] and floor_of(source) <= floor_of(target)
    ]
    assert faults == []


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in order:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], order[target])
        if low[node] == order[node]:
            ring = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(ring) > 1:
                found.append(sorted(ring))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {source: set(targets) - {"edged"} for source, targets in arrows().items()}
    rings = circles(graph)
    assert rings == [], "cut one arrow of each: take what both need into a module of its own, or hand it in"


def test_no_folders_import_each_other_in_a_circle() -> None:
    folders = {dotted(path).rpartition(".")[0] for path in MODULES if path.stem != "__init__"} - {"edged"}
    graph: dict[str, set[str]] = {}
    for source, targets in arrows().items():
        home = source.rpartition(".")[0]
        for target in targets:
            other = target.rpartition(".")[0]
            # a module that stands beside a folder may use it and be used by it: only rooms side by side must not
            if (
                home in folders
                and other in folders
                and home != other
                and not (home + ".").startswith(other + ".")
                and not (other + ".").startswith(home + ".")
            ):
                graph.setdefault(home, set()).add(other)
    rings = circles(graph)
    assert rings == [], "folders that import each other are one room with a wall through it: move what ties them"


def test_folders_are_small_enough_to_be_taken_in_at_a_glance() -> None:
    count: dict[str, int] = {}
    for path in MODULES:
        if path.stem != "__init__":
            count[str(path.parent.relative_to(ROOT))] = count.get(str(path.parent.relative_to(ROOT)), 0) + 1
    faults = [
        f"{name} has {number} modules: which of them are a room of their own?"
        for name, number in count.items()
        if number > MOST_MODULES
    ]
    assert faults == []


def test_a_class_name_means_one_thing() -> None:
    # A protocol and what implements it may share a name: that is what tells that they belong together.
    classes: dict[str, list[tuple[str, bool]]] = {}
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ClassDef):
                protocol = any(ast.unparse(base).partition("[")[0] == "Protocol" for base in node.bases)
                classes.setdefault(node.name, []).append((f"{name_of(path)}:{node.lineno}", protocol))
    faults = [
        f"{name}: {', '.join(where for where, _ in places)}: name the rarer one for what it alone is"
        for name, places in sorted(classes.items())
        if sum(not protocol for _, protocol in places) > 1 or sum(protocol for _, protocol in places) > 1
    ]
    assert faults == []


def test_functions_take_few_parameters() -> None:
    faults = []
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = sum(argument.arg not in ("self", "cls") for argument in every)
                if count > MOST_PARAMETERS:
                    what = "what travels together has a name: make it a dataclass"
                    faults.append(f"{name_of(path)}:{node.lineno} {node.name} takes {count} parameters; {what}")
    assert faults == []


def test_every_package_says_what_it_is_for() -> None:
    faults = []
    for path in MODULES:
        if path.stem == "__init__":
            words = ast.get_docstring(parse(path)) or ""
            if not words:
                faults.append(f"{name_of(path)} has no docstring: it is the map of the package")
            elif len(words.splitlines()) > MOST_MAP_LINES:
                faults.append(f"{name_of(path)}: its docstring is over {MOST_MAP_LINES} lines; a map fits a glance")
    assert faults == []


def test_every_module_says_what_it_is_for() -> None:
    faults = [name_of(path) for path in MODULES if path.stem != "__main__" and not ast.get_docstring(parse(path))]
    assert faults == [], "begin each with one sentence: what is decided here"


def test_every_benchmark_says_how_it_is_run() -> None:
    """By its options alone, the same of all: `--data DIR` is where the real lists lie."""
    faults = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        read = {ast.unparse(node) for node in ast.walk(parse(path)) if isinstance(node, ast.Attribute)}
        if "parser.add_argument" not in read or "sys.argv" in read:
            faults.append(f"{name_of(path)} reads its arguments by hand: leave them to argparse, for --help")
        usage = ast.get_docstring(parse(path)) or ""
        if re.search(r"\[--data (?!DIR\])", usage):
            faults.append(f"{name_of(path)}: its docstring gives --data other than a DIR")
    assert faults == []
