"""docs/examples/js in real engines: Node, and as a classic script in Chromium."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serve.browser import browsing, page_origin
from tests.system.programs import Device, Origin, Running, titles

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "docs" / "examples" / "js" / "edged.js"
TYPES = LIBRARY.with_suffix(".d.ts")
NEEDS_NODE = pytest.mark.skipif(shutil.which("node") is None, reason="not installed: node (Debian: nodejs)")
NEEDS_BROWSER = pytest.mark.skipif(
    not shutil.which("chromium") or not shutil.which("chromedriver"), reason="not installed: chromium, chromium-driver"
)
RULES = '[collections.titles]\nindex = ["year"]\norder = ["year"]\n[collections.rows]\nrefs = { items = "titles" }\n'


@contextmanager
def device(place: Path, more: str = "") -> Iterator[tuple[Origin, Running]]:
    origin = Origin.make(place)
    (origin.feed / "catalog.toml").write_text(RULES)
    origin.publish(titles())
    box = Device(place, origin)
    with origin.served() as url:
        config = box.configure(url)
        config.write_text(config.read_text().replace("[serve]", f"[serve]\n{more}"))
        with box.running(config) as daemon:
            daemon.wait_version(1)
            yield origin, daemon


def node(scenario: str, *words: str) -> list[Any]:
    """What the scenario tells, each document that it prints."""
    command = ["node", str(ROOT / "tests" / "examples" / "app.js"), str(LIBRARY), scenario, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@NEEDS_NODE
def test_an_app_reads_in_node(tmp_path: Path) -> None:
    with device(tmp_path) as (_, daemon):
        [told] = node("reads", daemon.apps)
    assert told["described"] == {"titles": 400}
    assert told["again"] == "Title 0"
    assert told["missing"] is None
    assert told["batch"] == [402, {"key": "1987/Title_00007", "value": {"title": "Title 7"}}, None, "a/b,c"]
    assert told["pages"] == [4, 4, 2]
    assert told["where"] == 3
    assert told["refused"][:2] == [True, 400]
    assert told["states"] == ["fresh"]


@NEEDS_NODE
def test_an_app_asks_in_node(tmp_path: Path) -> None:
    with device(tmp_path) as (origin, daemon):
        home = {"collection": "rows", "key": "home", "value": {"items": ["1987/Title_00007", "none"]}}
        origin.publish([*titles(), home])
        daemon.wait_version(2)
        [told] = node("asks", daemon.apps)
    assert told["any"] == [20, ["1985/Title_00365", "1983/Title_00003"]]
    assert told["facets"] == {"year": {"1981": 10, "1982": 10}}
    assert told["groups"] == [["1983/Title_00003", 1983], ["1985/Title_00005", 1985]]
    assert told["paged"] == [7, 7, 6]
    assert [item["key"] for item in told["row"]] == ["1987/Title_00007", "none"]
    assert (told["row"][0]["value"]["title"], told["row"][1]["value"]) == ("Title 7", None)
    assert told["warned"] == ["fields: no record of titles has titel"]


@NEEDS_NODE
def test_an_app_follows_in_node_and_stops(tmp_path: Path) -> None:
    with device(tmp_path) as (origin, daemon):
        command = ["node", str(ROOT / "tests" / "examples" / "app.js"), str(LIBRARY), "follows", daemon.apps]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as app:
            assert app.stdout is not None
            assert json.loads(app.stdout.readline()) == {"begun": 1}
            origin.publish(titles(edited=2))
            first = json.loads(app.stdout.readline())
            origin.publish(titles(399, edited=2))
            second = json.loads(app.stdout.readline())
            assert app.wait(30) == 0, "an app that has stopped following has nothing left to wait for"
    assert first == {"version": 2, "seen": [["1980/Title_00000", False], ["1981/Title_00001", False]]}
    assert second == {"version": 3, "seen": [["2019/Title_00399", True]]}


@NEEDS_NODE
def test_a_version_that_is_unknown_is_a_reset(tmp_path: Path) -> None:
    with device(tmp_path) as (_, daemon):
        assert node("resets", daemon.apps) == [{"reset": 1}]


@NEEDS_NODE
def test_what_was_read_is_there_while_edged_is_away(tmp_path: Path) -> None:
    with device(tmp_path) as (_, daemon):
        [first] = node("keeps", daemon.apps)
        [again] = node("keeps", daemon.apps, first["stored"])
        [damaged] = node("keeps", daemon.apps, "[[not json")
    [away] = node("keeps", daemon.apps, first["stored"])
    assert (first["title"], first["stale"], first["state"]) == ("Title 0", False, "fresh")
    assert (again["title"], again["stale"], again["state"]) == ("Title 0", False, "fresh")
    assert (damaged["title"], damaged["stale"]) == ("Title 0", False)
    assert (away["title"], away["stale"], away["state"]) == ("Title 0", True, "unreachable")


@pytest.mark.slow
@NEEDS_BROWSER
def test_an_app_reads_and_follows_in_a_browser(tmp_path: Path) -> None:
    script = LIBRARY.read_text()
    follow = """
        window.seen = [];
        const catalog = new Edged.Client(args[0]).dataset("catalog");
        window.following = catalog.follow({ since: 1, onChange: (change) => window.seen.push(change.key) });
        return [(await catalog.get("titles", "1980/Title_00000")).title, typeof Edged.Client];
    """
    wait = "while (window.seen.length < 1) await new Promise((go) => setTimeout(go, 5)); return window.seen;"
    tag = f"const tag = document.createElement('script'); tag.text = {json.dumps(script)}; document.head.append(tag);"
    with (
        page_origin() as page,
        device(tmp_path, f'origins = ["{page}"]') as (origin, daemon),
        browsing(tmp_path / "profile") as browser,
    ):
        browser.open(page)
        browser.run(tag)
        assert browser.run(follow, daemon.apps) == ["Title 0", "function"]
        origin.publish(titles(edited=1))
        assert browser.run(wait) == ["1980/Title_00000"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="not installed: npm")
def test_the_types_hold_in_typescript_and_the_code_for_engines_of_2017(tmp_path: Path) -> None:
    shutil.copy(LIBRARY, tmp_path)
    shutil.copy(TYPES, tmp_path)
    (tmp_path / "app.ts").write_text(
        'import { Client, EdgedError } from "./edged";\n'
        'const catalog = new Client("http://127.0.0.1:8484").dataset("catalog");\n'
        "export async function year(key: string): Promise<number> {\n"
        '  const title = await catalog.get<{ year: number }>("titles", key, { fields: ["year"] });\n'
        '  const page = await catalog.query("titles", { where: { year: { gte: 2020 }, genres: ["Drama"] } });\n'
        "  if (page.total === 0) throw new EdgedError();\n"
        "  return title === null ? 0 : title.year;\n"
        "}\n"
    )
    tools = ["npm", "install", "--silent", "--no-save", "--no-audit", "--no-fund", "typescript@5", "acorn@8"]
    subprocess.run(tools, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    acorn: list[str | Path] = [tmp_path / "node_modules" / ".bin" / "acorn", "--ecma2017", "--silent", LIBRARY]
    old = subprocess.run(acorn, capture_output=True, text=True, check=False, timeout=60)
    assert old.returncode == 0, old.stderr
    options = ["--strict", "--noEmit", "--target", "es2017", "--lib", "es2017,dom", "--moduleResolution", "node"]
    command: list[str | Path] = [tmp_path / "node_modules" / ".bin" / "tsc", *options, "app.ts"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
