"""Every page that is to be followed can be, and prints what it says; the index names every page."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.cli.main import build_parser, refuse_unknown, with_standard_input
from tests.docs.walkthrough import ROOT, Block, Follower, blocks_of, pattern_of, steps_of

DOCS = ROOT / "docs"
GUIDES = sorted((DOCS / "guides").glob("*.md"))
PAGES = [DOCS / "getting-started.md", *GUIDES]
SHELLS = [
    page
    for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
    if any(block.kind in ("sh", "console") for block in blocks_of(page))
]
# Blocks that are not run, by their language: what needs root, a service manager, a package index or a build system for
# images. Of `sh` the shell looks at the form.
READ_ONLY = {"sh": {"getting-started", "edge-node", "set-top-box", "firmware"}, "bitbake": {"firmware"}}
READ_ONLY |= {"make": {"firmware"}}


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
    assert any(block.kind == "console" for block in blocks_of(page))


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each `edged …` that stands where a command may."""
    text = re.sub(r"(?m)(?:^|[ \t]+)# .*$", "", text.replace("\\\n", " "))
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>()\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    found: list[str] | None = None
    before = "\n"
    for word in [*lexer, "\n"]:
        if set(word) <= set("|&;<>()\n"):
            if found is not None:
                yield found
            found = None
        elif found is not None:
            found.append(word)
        elif word == "edged" and (before in ("--", "$as_origin") or set(before) <= set("|&;(\n")):
            found = []
        before = word


@pytest.mark.parametrize("page", SHELLS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_that_a_page_shows_is_one(page: Path) -> None:
    for block in blocks_of(page):
        if block.kind not in ("sh", "console"):
            continue
        text = block.text
        if block.kind == "console":
            text = "".join(f"{step.command}\n" for step in steps_of(block))
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        for words in filter(None, commands_in(text)):
            given = with_standard_input(words)
            parser = build_parser(given)
            refuse_unknown(parser, given)
            parser.parse_args(given)


def test_commands_are_found_where_they_stand() -> None:
    text = "sudo -u edged x  # edged no\n$as_origin edged a 'b c' | edged d - &\n(edged e \\\n  --f) && edged g > h\n"
    assert list(commands_in(text)) == [["a", "b c"], ["d", "-"], ["e", "--f"], ["g"]]


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
