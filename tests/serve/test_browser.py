"""edged asked by web pages in a real Chromium: of an allowed origin, of a foreign one, and from the internet."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.serve.browser import Browser, browsing, page_origin
from tests.system.programs import Device, Origin, Running, edged, titles

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING} (Debian: chromium, chromium-driver)"),
]

FETCH = """
const answer = await fetch(args[0], args[1] || {});
return [answer.status, answer.headers.get("Edged-Version"), await answer.json()];
"""
LISTEN = """
window.seen = [];
const stream = window.stream = new EventSource(args[0]);
stream.onmessage = (event) => window.seen.push(JSON.parse(event.data));
stream.addEventListener("version", (event) => window.seen.push(["version", event.lastEventId]));
return await new Promise((tell) => { stream.onopen = () => tell("open"); stream.onerror = () => tell("refused"); });
"""
SEEN = """
while (window.seen.length < args[0]) await new Promise((go) => setTimeout(go, 5));
return window.seen;
"""
COMPRESSED = """
const name = (await (await fetch("/v1/catalog")).json()).dictionaries.titles;
await (await fetch("/v1/catalog/titles?dictionary=" + name)).arrayBuffer();
for (let limit = 20; limit < 120; limit++) {
  const answer = await fetch("/v1/catalog/titles?limit=" + limit);
  const found = [answer.headers.get("Content-Encoding"), (await answer.json()).items.length === limit];
  if (found[0] === "dcz") return found;
  await new Promise((go) => setTimeout(go, 20));
}
return "never";
"""
RECORDS = 400  # enough for a dictionary
REFUSED = "TypeError: Failed to fetch"
WITH_MANY_FIELDS = {"headers": {"Accept": "application/json", "If-None-Match": '"none"'}}


@dataclass(frozen=True, slots=True)
class Scene:
    """Origins of pages. public: allowed by edged, and taken by the browser for one on the internet."""

    allowed: str
    foreign: str
    public: str
    origin: Origin
    daemon: Running
    browser: Browser

    @property
    def record(self) -> str:
        return f"{self.daemon.apps}/v1/catalog/titles/1980/Title_00000"

    @property
    def changes(self) -> str:
        return f"{self.daemon.apps}/v1/catalog/changes?collection=titles"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    origin = Origin.make(tmp_path)
    origin.publish(titles(RECORDS))
    device = Device(tmp_path, origin)
    with ExitStack() as stack:
        url = stack.enter_context(origin.served())
        allowed, foreign, public = (stack.enter_context(page_origin()) for _ in range(3))
        config = device.configure(url)
        edged("sync", "--config", config)
        text = config.read_text().replace("[serve]\n", f'[serve]\norigins = ["{allowed}", "{public}"]\n')
        config.write_text(text)
        daemon = stack.enter_context(device.running(config))
        daemon.wait_status(lambda status: status["connected"])
        flag = f"--ip-address-space-overrides={public.removeprefix('http://')}=public"
        browser = stack.enter_context(browsing(tmp_path / "profile", flag))
        yield Scene(allowed, foreign, public, origin, daemon, browser)


def served(scene: Scene) -> int:
    """How many requests have reached the daemon."""
    return int(scene.daemon.wait_document(lambda document: True)["requests_served"])


def test_a_page_of_an_allowed_origin_reads_records_and_hears_of_a_change_as_it_is_committed(scene: Scene) -> None:
    browser = scene.browser
    browser.open(scene.allowed)
    assert browser.run(FETCH, scene.record) == [200, "1", titles(1)[0]["value"]]
    assert browser.run(FETCH, scene.record, WITH_MANY_FIELDS) == [200, "1", titles(1)[0]["value"]]  # by preflight
    assert browser.run(LISTEN, scene.changes) == "open"
    scene.origin.publish(titles(RECORDS, edited=1))
    change = {"collection": "titles", "key": "1980/Title_00000", "version": 2, "value": titles(1, edited=1)[0]["value"]}
    assert browser.run(SEEN, 2) == [change, ["version", "2"]]
    assert browser.run(FETCH, scene.record) == [200, "2", titles(1, edited=1)[0]["value"]]


def test_a_page_of_a_foreign_origin_reads_nothing(scene: Scene) -> None:
    browser = scene.browser
    browser.open(scene.foreign)
    assert browser.run(FETCH, scene.record) == REFUSED
    assert browser.run(FETCH, scene.record, WITH_MANY_FIELDS) == REFUSED
    assert browser.run(LISTEN, scene.changes) == "refused"
    assert browser.run(FETCH, scene.record.replace("127.0.0.1", "localhost")) == REFUSED
    # without CORS a page may still send, but what comes back is opaque to it
    opaque = "const answer = await fetch(args[0], {mode: 'no-cors'}); return [answer.type, await answer.text()];"
    assert browser.run(opaque, scene.record) == ["opaque", ""]


def test_a_page_from_the_internet_needs_the_users_leave_for_this_device(scene: Scene) -> None:
    """Local Network Access: until the user has agreed not one byte of a request leaves the browser."""
    browser = scene.browser
    browser.open(scene.public)
    before = served(scene)
    assert browser.run("return (await navigator.permissions.query({name: args[0]})).state", "loopback-network") != (
        "granted"
    )
    assert browser.run(FETCH, scene.record) == REFUSED
    assert browser.run(LISTEN, scene.changes) == "refused"
    assert served(scene) == before
    browser.grant("loopback-network", scene.public)
    assert browser.run(FETCH, scene.record) == [200, "1", titles(1)[0]["value"]]
    assert browser.run(FETCH, scene.record, {"targetAddressSpace": "loopback"})[0] == 200
    assert browser.run(LISTEN, scene.changes) == "open"
    browser.grant("loopback-network", scene.public, "denied")
    browser.open(scene.public)
    assert browser.run(FETCH, scene.record) == REFUSED


def test_a_browser_fetches_the_dictionary_and_reads_answers_compressed_with_it(scene: Scene) -> None:
    browser = scene.browser
    browser.open(f"{scene.daemon.apps}/v1")
    assert browser.run(COMPRESSED) == ["dcz", True]
