"""What is served for people: files of ours alone, under a policy that lets nothing else in."""

from __future__ import annotations

import re
from importlib.resources import files

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


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".js")])
def test_a_script_fills_places_that_its_page_has(name: str) -> None:
    html = SOURCES.get(name.replace(".js", ".html"), "")
    for place in re.findall(r'(?:fill|say|at|panel)\("([\w-]+)"', SOURCES[name]):
        assert not html or f'id="{place}"' in html, place
