"""A real Chromium, driven by chromedriver over plain HTTP (W3C WebDriver), and origins that serve it a page."""

from __future__ import annotations

import http.client
import http.server
import json
import re
import subprocess
import threading
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
SCRIPT_MS = 20_000
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAGE = b"<!doctype html><meta charset=utf-8><title>An app</title>"


class PageHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def page_origin() -> Iterator[str]:
    """An origin of its own on loopback, with one empty page."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), PageHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True, slots=True)
class Browser:
    """One WebDriver session."""

    port: int
    session: str = ""

    def ask(self, method: str, path: str, document: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, f"/session{self.session}{path}", json.dumps(document or {}))
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        assert not (isinstance(value, dict) and "error" in value), value
        return value

    def open(self, url: str) -> None:
        self.ask("POST", "/url", {"url": url})

    def run(self, body: str, *args: Any) -> Any:
        """The value that `body`, an async function's, returns in the page; `args` are its arguments."""
        script = (
            "const done = arguments[arguments.length - 1]; const args = Array.from(arguments).slice(0, -1);"
            f"(async () => {{ {body} }})().then(done, (fault) => done(String(fault)));"
        )
        return self.ask("POST", "/execute/async", {"script": script, "args": list(args)})

    def complaints(self) -> list[str]:
        """What the console has said since it was last asked, warnings and errors."""
        entries = self.ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def resize(self, width: int, height: int) -> None:
        """The page's own size, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.ask("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})

    def prefer(self, scheme: str) -> None:
        """light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}})

    def press(self, *keys: str) -> None:
        """Keys one after the other, as from a keyboard; WebDriver's code points for those without a letter."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def picture(self) -> bytes:
        """What is in view, as PNG."""
        parameters = {"format": "png", "captureBeyondViewport": False}
        found = self.ask("POST", "/goog/cdp/execute", {"cmd": "Page.captureScreenshot", "params": parameters})
        return b64decode(found["data"])

    def grant(self, name: str, origin: str, setting: str = "granted") -> None:
        """What a user's answer to a permission's question would be."""
        parameters = {"permission": {"name": name}, "setting": setting, "origin": origin}
        self.ask("POST", "/goog/cdp/execute", {"cmd": "Browser.setPermission", "params": parameters})


@contextmanager
def browsing(profile: Path, *flags: str) -> Iterator[Browser]:
    """A fresh browser until the block ends."""
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        plain = Browser(port_of(driver))
        options: Sequence[str] = [*QUIET, *flags, f"--user-data-dir={profile}"]
        always = {"goog:chromeOptions": {"args": options}, "timeouts": {"script": SCRIPT_MS}}
        wanted = {"alwaysMatch": {**always, "goog:loggingPrefs": {"browser": "ALL"}}}
        found = plain.ask("POST", "", {"capabilities": wanted})
        browser = Browser(plain.port, f"/{found['sessionId']}")
        try:
            yield browser
        finally:
            browser.ask("DELETE", "")
    finally:
        driver.terminate()
        driver.wait(PATIENCE_S)
        assert driver.stdout is not None
        driver.stdout.close()


def port_of(driver: subprocess.Popen[str]) -> int:
    assert driver.stdout is not None
    for line in driver.stdout:
        if found := re.search(r"successfully on port (\d+)", line):
            return int(found[1])
    raise AssertionError("chromedriver ended")
