"""The pages in a real Chromium: each panel with real data, by keyboard, on a phone and across a living room."""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edged.origin.publisher import Publisher
from tests.serve.browser import Browser, browsing
from tests.system.programs import Device, Origin, Running, get, running, titles

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING} (Debian: chromium, chromium-driver)"),
]
PICTURES = os.environ.get("EDGED_PICTURES")  # a folder for what docs/ shows
TAB, ENTER = "\ue004", "\ue007"
HOSTILE = '<img src=x onerror="window.stolen=1"><script>window.stolen=1</script>'
TEXT = "const at = (id) => document.getElementById(id).innerText; return at(args[0]);"
UNTIL = """
for (let tries = 0; tries < 400; tries++) {
  const found = document.getElementById(args[0]);
  if (found && found.innerText.includes(args[1])) return found.innerText;
  await new Promise((go) => setTimeout(go, 25));
}
return "never: " + document.getElementById(args[0]).innerText;
"""
WIDER = "return document.documentElement.scrollWidth - document.documentElement.clientWidth;"
NAMELESS = """
const nodes = [...document.querySelectorAll("button, input, select, svg[role=img]")];
return nodes.filter((one) => {
  const labelled = one.getAttribute("aria-label") || one.innerText.trim() || (one.labels && one.labels.length);
  return !labelled;
}).map((one) => one.outerHTML.slice(0, 100));
"""
# What the keyboard reaches, in the order in which it stands on the page; each is given a number to be known by.
REACHED = """
const known = [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")];
const shown = known.filter((one) => !one.disabled && (one.checkVisibility() || one.className === "skip"));
return shown.map((one) => one.dataset.seen = one.id || one.textContent.trim().slice(0, 40) || one.tagName);
"""
AT = "return document.activeElement.dataset.seen || null;"
PAINTED = "return getComputedStyle(document.activeElement).outlineStyle;"
# Of Chromium's accessibility tree: what a screen reader is told to be there.
SPOKEN = ("button", "link", "textbox", "spinbutton", "combobox", "region", "image", "DisclosureTriangle", "table")


def wait(browser: Browser, place: str, words: str) -> str:
    found: str = browser.run(UNTIL, place, words)
    assert not found.startswith("never"), found
    return found


def keep_picture(browser: Browser, name: str) -> None:
    if PICTURES:
        (Path(PICTURES) / name).write_bytes(browser.picture())


def check_everywhere(browser: Browser, name: str) -> None:
    """No sideways scrolling on a phone or a television, light and dark; each control has a name and takes the focus."""
    for scheme, width, height in (("light", 390, 844), ("dark", 1920, 1080), ("light", 1280, 900)):
        browser.resize(width, height)
        browser.prefer(scheme)
        assert browser.run(WIDER) <= 0, (scheme, width)
        if width != 390:
            browser.run("window.scrollTo(0, 0);")
            keep_picture(browser, f"{name}-{scheme}.png")
    assert browser.run(NAMELESS) == []
    check_keyboard(browser)
    check_screen_reader(browser)
    assert browser.complaints() == []
    assert browser.run("return window.stolen === undefined")


def check_keyboard(browser: Browser) -> None:
    """Tab goes through all that can be used, once, from the top down, each with a ring to see; a chart's values are
    among them. What is live goes on meanwhile."""
    expected = browser.run(REACHED)
    assert len(expected) > 3
    browser.run("document.querySelector('.skip').focus();")
    reached: list[str] = [browser.run(AT)]
    while len(reached) < len(expected) + 9:
        browser.press(TAB)
        at = browser.run(AT)
        if at is None and len(reached) >= len(expected):  # round again
            break
        if at is not None:  # a box that scrolls is reached, too
            assert browser.run(PAINTED) != "none", at
            reached.append(at)
    assert reached == expected
    charts = "[...document.querySelectorAll('svg[role=img]')].map((one) => one.closest('section'))"
    assert browser.run(f"return {charts}.filter((one) => !one.querySelector('td')).length;") == 0
    for number in range(browser.run("return document.querySelectorAll('summary').length;")):
        browser.run("document.querySelectorAll('summary')[args[0]].focus();", number)
        for opened in (True, False):
            browser.press(ENTER)
            assert browser.run("return document.activeElement.parentNode.open;") is opened


def check_screen_reader(browser: Browser) -> None:
    """Each control, panel and picture has a name in the accessibility tree; panels are landmarks by their headings."""
    browser.ask("POST", "/goog/cdp/execute", {"cmd": "Accessibility.enable", "params": {}})
    tree = browser.ask("POST", "/goog/cdp/execute", {"cmd": "Accessibility.getFullAXTree", "params": {}})
    told = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree["nodes"]
        if not node["ignored"] and node["role"]["value"] in SPOKEN
    ]
    assert [role for role, name in told if not name.strip() and role != "table"] == []
    headings = browser.run(
        "return [...document.querySelectorAll('section > h2')].map((one) => one.textContent.trim());"
    )
    assert headings
    assert [name for role, name in told if role == "region"] == headings


@contextmanager
def box(tmp_path: Path, more: str = "", count: int = 40) -> Iterator[tuple[Origin, Running]]:
    origin = Origin.make(tmp_path)
    (origin.feed / "catalog.toml").write_text('[collections.titles]\nindex = ["year"]\ntext = ["title"]\n')
    records = titles(count)
    records[0]["value"]["title"] = HOSTILE
    origin.publish(records)
    device = Device(tmp_path, origin)
    config = device.configure(origin.public.as_uri())
    config.write_text(config.read_text().replace("[admin]", f"{more}[admin]"))
    with device.running(config) as daemon:
        daemon.wait_version(1)
        yield origin, daemon


def test_the_dashboard_of_a_box(tmp_path: Path) -> None:
    with box(tmp_path, count=2000) as (origin, daemon), browsing(tmp_path / "profile") as browser:
        browser.open(f"{daemon.admin}/")
        assert "fresh" in wait(browser, "datasets", "catalog")
        for _ in range(30):
            get(f"{daemon.apps}/v1/catalog/titles?limit=1")
        get(f"{daemon.apps}/v1/catalog")
        origin.publish(titles(2001))
        daemon.wait_version(2)
        wait(browser, "datasets", "2")
        assert "updates took" in wait(browser, "updates", "catalog")
        assert "requests a second" in wait(browser, "requests", "since the start")
        assert "half under" in wait(browser, "latency", "Latency by minute")
        assert "from memory" in wait(browser, "shares", "%")
        assert "catalog" in wait(browser, "flash", "On disk")
        assert "clear text" in wait(browser, "certificates", "None")
        browser.open(f"{daemon.admin}/")  # which asks for use now
        wait(browser, "growth", "20")
        wait(browser, "flash", "Bytes by day")
        wait(browser, "audience", "internal")
        # by keyboard: to the form, a version, Enter; the browser asks first
        browser.run("window.confirm = () => true; document.getElementById('pin-version').focus();")
        browser.press("1", ENTER)
        wait(browser, "pin-said", "held at version 1")
        wait(browser, "datasets", "pinned at 1")
        browser.run("document.getElementById('unpin').focus();")
        browser.press(ENTER)
        wait(browser, "pin-said", "follows its origin")
        check_everywhere(browser, "dashboard")


def test_an_error_is_shown_with_what_to_do(tmp_path: Path) -> None:
    with box(tmp_path) as (origin, daemon), browsing(tmp_path / "profile") as browser:
        browser.open(f"{daemon.admin}/")
        wait(browser, "errors", "None since the start")
        head = origin.public / "head"
        head.write_bytes(HOSTILE.encode())
        os.utime(head)
        daemon.wait_status(lambda status: bool(status["last_error"]))
        wait(browser, "errors", "head")
        assert browser.run("return document.querySelectorAll('#errors img').length") == 0
        lines = {
            "catalog: origin https://x.example is lost: no route": "lines-1",
            "catalog: stale: the newest head was signed 2 h ago; it is served on": "lines-2",
            "ask https://s.example: refused; what is stored is served until it is back": None,
            "something that nobody has heard of": "lines",
        }
        script = (
            "const { sectionOf } = await import('/pages/box.js'); return args[0].map((one) => sectionOf(one, 'lines'));"
        )
        for (text, expected), section in zip(lines.items(), browser.run(script, list(lines)), strict=True):
            assert section == expected or (expected is None and section.startswith("lines-")), (text, section)
        # What to do is a page of the daemon's own, and the keyboard leads there.
        browser.run("document.querySelector('#errors a').focus();")
        seen = browser.run(
            "await new Promise((go) => setTimeout(go, 2500)); return document.activeElement.textContent;"
        )
        assert seen == "Runbook"  # the page is live, and the focus stays
        browser.press(ENTER)
        wait(browser, "WireError", "Bytes that do not have the form")
        assert browser.run("return document.querySelector(':target').id") == "WireError"
        assert browser.complaints() == []
        browser.open(f"{daemon.admin}/")
        wait(browser, "errors", "head")
        assert daemon.program.stop() == 0
        wait(browser, "live", "does not answer")


def test_the_explorer(tmp_path: Path) -> None:
    with box(tmp_path, "explorer = true\n", 10_000) as (_, daemon), browsing(tmp_path / "profile") as browser:
        browser.open(f"{daemon.apps}/")
        assert "10,000" in wait(browser, "datasets", "titles")
        browser.run("document.querySelector('#datasets button').focus();")
        browser.press(ENTER)
        assert "integer" in wait(browser, "fields", "year")
        wait(browser, "declared", "where.year=VALUE")
        first = wait(browser, "records", "<img src=x onerror=")
        browser.run("document.querySelector('#records .row button:last-child').click();")
        assert wait(browser, "records", "1980/Title_02000") != first
        browser.run("document.getElementById('target').focus();")
        browser.press(ENTER)
        assert "<img src=x onerror=" in wait(browser, "answer", "200")
        code: Any = browser.run(TEXT, "code")
        assert all(word in code for word in ("curl '", "await fetch(", "urllib.request"))
        browser.run("window.copied = ''; navigator.clipboard.writeText = async (text) => { window.copied = text; };")
        browser.run("document.getElementById('copy-curl').click();")
        wait(browser, "copied", "copied for curl")
        assert browser.run("return window.copied").startswith("curl 'http://127.0.0.1")
        check_everywhere(browser, "explorer")


def test_the_dashboard_of_an_origin(tmp_path: Path) -> None:
    publisher = Publisher.init(tmp_path / "feed")
    publisher.publish("catalog", [("titles", f"t{number:05}", {"n": number, "title": "x"}) for number in range(10_000)])
    publisher.publish_changes("catalog", [("titles", "t00001", {"n": 1, "title": HOSTILE})])
    words = ("origin", "serve", tmp_path / "feed", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0")
    with running(*words) as program, browsing(tmp_path / "profile") as browser:
        feed = program.wait_for(r"serving .* at (http://127\.0\.0\.1:\d+)")[1]
        browser.open(program.wait_for(r"for operators at (http://127\.0\.0\.1:\d+)")[1])
        wait(browser, "datasets", "catalog")
        with publisher.reading("catalog") as state:
            digest = state.slice_at("core", at=1).digest[:4].hex()
        request = urllib.request.Request(f"{feed}/catalog/head", headers={"User-Agent": f"edged/0.1.0 (1 {digest})"})
        urllib.request.urlopen(request).close()
        wait(browser, "history", "publish")
        wait(browser, "fleet", "100.0%")
        wait(browser, "stuck", "No device says that it refuses a version")
        request = urllib.request.Request(
            f"{feed}/catalog/head", headers={"User-Agent": f"edged/0.1.0 (1 {digest} disk)"}
        )
        urllib.request.urlopen(request).close()
        wait(browser, "stuck", "its disk cannot be read or written")
        assert "not yet" in wait(browser, "spread", "Published")
        browser.run("document.getElementById('high').focus();")
        browser.press(ENTER)
        wait(browser, "diff", "changed")
        assert "<script>" in wait(browser, "diff", "<img src=x onerror=")
        assert "title" in wait(browser, "costs", "titles")
        browser.run("document.getElementById('version').focus();")
        browser.press(ENTER)
        first = wait(browser, "records", "t00001")
        browser.run("document.querySelector('#records .row button:last-child').click();")
        assert wait(browser, "records", "t00050") != first
        check_everywhere(browser, "origin")
        # For who writes apps: the same explorer, of what is published, with code for a device.
        browser.run(
            "[...document.querySelectorAll('header a')].find((one) => one.textContent.includes('apps')).click();"
        )
        assert "10,000" in wait(browser, "datasets", "titles")
        browser.run("document.querySelector('#datasets button').focus();")
        browser.press(ENTER)
        wait(browser, "fields", "integer")
        wait(browser, "records", "<img src=x onerror=")
        wait(browser, "code", "http://127.0.0.1:8484/v1/catalog/titles")
        browser.run("document.getElementById('target').focus();")
        browser.press(ENTER)
        wait(browser, "answer", "200")
        assert not browser.run("return document.getElementById('token').checkVisibility();")
        check_everywhere(browser, "origin-explorer")
        assert program.stop() == 0
