"""Every page that is to be followed can be, and prints what it says; the index names every page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.walkthrough import ROOT, Block, Follower, blocks_of, pattern_of, steps_of

DOCS = ROOT / "docs"
GUIDES = sorted((DOCS / "guides").glob("*.md"))
PAGES = [DOCS / "getting-started.md", *GUIDES]
# Blocks that are not run, by their language: what needs root, a service manager or a build system for images.
READ_ONLY = {"sh": {"getting-started", "edge-node", "set-top-box", "firmware"}, "bitbake": {"firmware"}}
READ_ONLY |= {"make": {"firmware"}, "text": {"firmware"}}


def test_the_beginning_can_be_followed(tmp_path: Path) -> None:
    with Follower(tmp_path) as reader:
        assert reader.follow(PAGES[0]) > 10


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_can_be_followed(tmp_path: Path, page: Path) -> None:
    with Follower(tmp_path) as reader:
        assert reader.follow(page) > 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_run_or_known_to_be_for_reading(page: Path) -> None:
    for block in blocks_of(page):
        run = block.kind == "console" or bool(block.name)
        assert run or page.stem in READ_ONLY.get(block.kind, ()), block
        if block.kind == "sh":
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    assert any(block.kind == "console" for block in blocks_of(page))


def test_the_index_leads_to_every_page_and_links_lead_somewhere() -> None:
    index = (DOCS / "README.md").read_text()
    pages = [path.relative_to(DOCS).as_posix() for path in (*DOCS.glob("*.md"), *GUIDES) if path.name != "README.md"]
    assert [page for page in pages if f"({page})" not in index] == []
    for page in (DOCS / "README.md", *PAGES):
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
        missing = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
        assert missing == [], page


def test_what_is_printed_is_compared() -> None:
    steps = steps_of(Block("console", "", "$ one \\\n  two\na ... b\n...\n\n$ three\n"))
    assert [step.command for step in steps] == ["one two", "three"]
    pattern = pattern_of(steps[0].printed)
    assert re.fullmatch(pattern, "a x b\nmore\nlines\n\n")
    assert re.fullmatch(pattern, "a  b\n\n")
    assert not re.fullmatch(pattern, "a x c\n\n")
    assert not re.fullmatch(pattern_of(["a"]), "a\nb\n")


def test_a_command_that_fails_or_prints_something_else_is_noticed(tmp_path: Path) -> None:
    assert shutil.which("bash")
    page = tmp_path / "page.md"
    for number, block in enumerate(("$ echo a\nb\n", "$ false\n", "$ echo a\n")):
        page.write_text(f"```console\n{block}```\n")
        place = tmp_path / str(number)
        place.mkdir()
        with Follower(place) as reader, pytest.raises(AssertionError, match=r"^\$ "):
            reader.follow(page)
