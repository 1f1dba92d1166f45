"""The runbook says of everything that an operator can meet what it means and what to do, and of nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from edged.ops import gauges, origin
from edged.polls import REASONS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/runbook.md").read_text()
TREES = [ast.parse(path.read_text()) for path in sorted((ROOT / "edged").rglob("*.py"))]
# What ends a form of a hop that is too long, so that the publisher takes another; nobody is ever told.
INTERNAL = {"TooLong"}
# What is called with a status for an answer of edged's own, and the statuses that are classes' own.
ANSWERED_BY = {"RequestError", "CrowdedError", "HeadError", "Refused", "RequestRefused", "StoredAnswer"}
ANSWERED_BY |= {"problem", "make_problem", "give_up", "refuse", "send_refusal"}
# What /status says besides `state`: named so in these files.
SAID_BY = ("sync/status.py", "ops/shown.py", "proxy/gateway.py", "relay/relay.py")


def entries(section: str) -> dict[str, str]:
    """The small headings of a section, each with what stands below it."""
    found = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, section
    _, *parts = re.split(r"^### (.+)\n", found[1], flags=re.MULTILINE)
    assert len(set(parts[::2])) == len(parts[::2])
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_entry_says_what_to_do_and_is_there_once() -> None:
    headings = re.findall(r"^### (.+)$", TEXT, re.MULTILINE)
    assert len(headings) == len({heading.lower() for heading in headings}) > 60
    assert all(re.fullmatch(r"\w+", heading) for heading in headings)  # which is its address, too
    for section in ("Alerts", "States", "Why a device stays", "Errors", "Answers to apps"):
        for heading, text in entries(section).items():
            assert re.search(r"\w.*\n\*\*Do\*\*: \w|\w.*\n\*\*Do\*\*: [*`]", text, re.DOTALL), heading


def test_every_alert_has_its_entry() -> None:
    alerts = re.findall(r"alert: (\w+)", (ROOT / "config/prometheus-alerts.yml").read_text())
    assert sorted(entries("Alerts")) == sorted(alerts)


def test_every_kind_of_error_has_its_entry() -> None:
    bases = {
        node.name: {ast.unparse(base).split(".")[-1] for base in node.bases}
        for tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    kinds, before = {"EdgedError"}, 0
    while len(kinds) > before:
        before = len(kinds)
        kinds |= {name for name, above in bases.items() if above & kinds}
    assert kinds > INTERNAL
    assert set(entries("Errors")) == kinds - INTERNAL


def statuses() -> Iterator[int]:
    """Of every problem document that edged makes."""
    for tree in TREES:
        for node in ast.walk(tree):
            values: list[ast.expr] = []
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in ANSWERED_BY:
                    values = node.args[:3]
                case ast.AnnAssign(target=ast.Name(id="http_status"), value=ast.expr() as value):
                    values = [value]
                case ast.Assign(targets=[ast.Name(id="http_status")]):
                    values = [node.value]
                case ast.Return(value=ast.Tuple(elts=elements)):  # a status and its detail
                    values = elements[:1]
            for value in values:
                if isinstance(value, ast.Constant) and isinstance(value.value, int) and 400 <= value.value < 600:
                    yield value.value


def test_every_status_of_a_problem_has_its_entry() -> None:
    found = set(statuses())
    assert len(found) > 15
    assert set(entries("Answers to apps")) == {str(status) for status in found}


def test_every_state_and_reason_has_its_entry() -> None:
    found, reasons = entries("States"), entries("Why a device stays")
    states = {*gauges.STATES, *origin.STATES, "absent", "published"}
    assert states <= set(found)
    said = "".join((ROOT / "edged" / path).read_text() for path in SAID_BY)
    assert [name for name in found if name not in states and f'"{name}"' not in said] == []
    assert set(REASONS) <= {*found, *reasons}
    assert set(reasons) <= set(REASONS)


@pytest.mark.parametrize("name", ["EdgedStale", "stale", "chain", "TrustError", "503"])
def test_the_daemons_own_page_can_be_led_to_each(name: str) -> None:
    page = (files("edged.pages") / "files/runbook.html").read_text()
    assert page.count(f'<article id="{name}" tabindex="-1"><h3>{name}</h3>') == 1
    assert page.count("<article") == page.count("</article>") == TEXT.count("\n### ")
    ids = re.findall(r'id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_references_within_the_runbook_lead_to_entries() -> None:
    headings = set(re.findall(r"^### (.+)$", TEXT, re.MULTILINE))
    named = set(re.findall(r"\b(?:Edged[A-Z]\w+|[A-Z][a-z]+(?:[A-Z][a-z]+)*Error)\b", TEXT))
    assert named - headings == set()
