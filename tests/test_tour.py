"""docs/tour.md: every file that it names is there, and every name stands in its file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOUR = (ROOT / "docs/tour.md").read_text()
INDEX = re.findall(r"^\| (.+?) \| `([\w/]+\.py)` \| `(\w+)` \|$", TOUR, re.MULTILINE)


def names_in(path: Path) -> set[str]:
    """What a module defines, methods too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def test_every_file_that_the_tour_names_is_there() -> None:
    files = set(re.findall(r"`([\w/]+\.py)`", TOUR))
    assert len(files) > 80
    assert [name for name in sorted(files) if not (ROOT / "edged" / name).is_file()] == []


def test_every_folder_that_the_tour_says_does_no_io_is_there() -> None:
    folders = re.findall(r"`([\w/]+)/\*\*`", TOUR)
    assert len(folders) >= 4
    assert [name for name in folders if not (ROOT / "edged" / name).is_dir()] == []


@pytest.mark.parametrize(("what", "file", "name"), INDEX)
def test_what_is_asked_for_stands_where_the_index_says(what: str, file: str, name: str) -> None:
    assert name in names_in(ROOT / "edged" / file), f"where is {what}? no longer {name} in {file}: mend docs/tour.md"


def test_the_index_answers_forty_questions_and_each_once() -> None:
    assert len(INDEX) >= 40
    assert len({what for what, _, _ in INDEX}) == len(INDEX)
    assert TOUR.partition("## Where is")[2].count("\n| ") - 1 == len(INDEX), "a row of the index has another form"
