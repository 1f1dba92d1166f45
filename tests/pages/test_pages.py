"""What is served for people: files of ours alone, under a policy that lets nothing else in."""

from __future__ import annotations

import ast
import re
from html import unescape
from importlib.resources import files
from pathlib import Path

import pytest

from edged.http.application import Response
from edged.http.request import Request
from edged.pages.page import NAMES, POLICY, page

FOLDER = files("edged.pages") / "files"
SOURCES = {name: (FOLDER / name).read_text() for name in NAMES}


def ask(path: str, **fields: str) -> Response:
    lines = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in fields.items())
    found = page(path, "box.html", Request("GET", path.encode(), lines))
    assert found is not None
    return found


def test_every_file_is_served_and_no_other() -> None:
    assert {item.name for item in FOLDER.iterdir()} == set(NAMES)
    for name in NAMES:
        found = ask(f"/pages/{name}")
        assert (found.status, found.body) == (200, SOURCES[name].encode())
    assert ask("/").body == ask("/pages/box.html").body
    for path in ("/pages/", "/pages/../__init__.py", "/pages/nope.js", "/status", "/pages/box.html/"):
        assert page(path, "box.html", Request("GET", path.encode(), ())) is None


def test_a_page_that_is_known_is_not_sent_again() -> None:
    fields = dict(ask("/").fields)
    again = ask("/", if_none_match=fields[b"ETag"].decode())
    assert (again.status, again.body) == (304, b"")
    assert dict(again.fields)[b"Content-Security-Policy"] == POLICY


def test_the_policy_lets_nothing_in_that_is_not_a_file_of_ours() -> None:
    rules = dict(rule.split(" ", 1) for rule in POLICY.decode().split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in POLICY.decode()


@pytest.mark.parametrize("name", NAMES)
def test_no_file_asks_for_what_the_policy_forbids(name: str) -> None:
    text = SOURCES[name].replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"(?:https?:)?//[a-z]", text.replace("//[", "")) or name.endswith(".js")
    assert not re.search(r"https?://", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|style=", text)
    if name.endswith(".html"):
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|<style", text)
        assert 'lang="en"' in text
        assert all(f'id="{label}"' in text for label in re.findall(r'aria-labelledby="([^"]+)"', text))
        assert all(f'id="{label}"' in text for label in re.findall(r'for="([^"]+)"', text))


LOGGED = re.compile(r"%[.\d]*[sdrf]")
WHOLLY_AN_ERROR = ("%s", "%s: %s", "read %s: %s", "read dataset %s: %s")  # whose message says what to do itself


def logged() -> set[str]:
    """The texts of all warnings and errors that the daemon and the origin log."""
    found = set()
    for path in Path(str(files("edged"))).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="logger" | "log"), attr="warning" | "error"),
                    args=[ast.Constant(value=str(text)), *_],
                ):
                    found.add(text)
    return found - set(WHOLLY_AN_ERROR)


def runbook_patterns() -> list[re.Pattern[str]]:
    """As box.js makes them of the rows."""
    rows = re.findall(r'<tr id="lines-\d+"[^>]*><th[^>]*>(.*?)</th>', SOURCES["runbook.html"])
    found = []
    for code in (unescape(code) for row in rows for code in re.findall(r"<code>(.*?)</code>", row)):
        parts = [part.strip() for part in re.split(r"…|DATASET|\bN\b", code) if part.strip()]
        if len("".join(parts)) >= (6 if re.search("[:;]", "".join(parts)) else 10):
            found.append(re.compile(".*".join(map(re.escape, parts)), re.DOTALL))
    return found


def test_the_runbook_knows_each_line_of_the_log_above_info() -> None:
    texts, patterns = logged(), runbook_patterns()
    assert len(texts) > 30
    unknown = [text for text in texts if not any(one.search(LOGGED.sub("7", text)) for one in patterns)]
    assert unknown == [], "give each a row in docs/runbook.md, then `make reference`"


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".js")])
def test_a_script_fills_places_that_its_page_has(name: str) -> None:
    html = SOURCES.get(name.replace(".js", ".html"), "")
    for place in re.findall(r'(?:fill|say|at|panel)\("([\w-]+)"', SOURCES[name]):
        assert not html or f'id="{place}"' in html, place
