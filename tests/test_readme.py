"""The commands of the README, run as they stand, one after the other, in an empty directory."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.programs import DEADLINE_S, Program

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty directory in which the sources' documents lie where the README says."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    return tmp_path


class Reader:
    """Does what a person would do who pastes the lines; what serves goes on in the background."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.ports = {number: free_port() for number in ("8080", "8484", "8485")}
        self.serving: list[Program] = []

    def adapted(self, text: str) -> str:
        """With ports that nobody else has."""
        for number, other in self.ports.items():
            text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{other}")
        return text

    def paste(self, line: str) -> str:
        words = shlex.split(self.adapted(line), comments=True)
        if words[0] == "edged":
            words = [sys.executable, "-m", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if words[3:5] == ["origin", "serve"] or words[3:4] == ["run"]:
            process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.place, env=environment
            )
            self.serving.append(Program(process))
            self.serving[-1].wait_for("serving (operators|feed)")
            return ""
        done = subprocess.run(
            words, cwd=self.place, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    def close(self) -> None:
        for program in self.serving:
            program.stop()
            assert program.process.stdout is not None
            program.process.stdout.close()


@pytest.fixture
def reader(place: Path) -> Iterator[Reader]:
    made = Reader(place)
    yield made
    made.close()


def test_the_readme_can_be_followed_from_the_first_line_to_the_last(reader: Reader) -> None:
    lines = [
        line for block in blocks("sh") for line in block.splitlines() if line.startswith(("edged ", "cp ", "curl "))
    ]
    (configuration,) = blocks("toml")
    admin = f'[admin]\nbind = ["127.0.0.1:{reader.ports["8485"]}"]\n'
    (reader.place / "edged.toml").write_text(reader.adapted(configuration) + admin)
    answers: dict[str, str] = {}
    for line in lines:
        if "event-stream" in line:
            continue  # it never ends by itself
        answers[line] = reader.paste(line)
        if line.startswith("edged run"):
            admin_port = reader.ports["8485"]
            while not json.loads(reader.paste(f"curl -s http://127.0.0.1:{admin_port}/status"))["datasets"]["catalog"][
                "version"
            ]:
                pass
    record = next(answers[line] for line in answers if line.endswith("titles/1994%2FPulp_Fiction"))
    assert json.loads(record)["title"] == "Pulp Fiction"
    listed = next(json.loads(text) for line, text in answers.items() if "prefix=1994/" in line)
    assert len(listed["items"]) == 3
    newest = next(json.loads(text) for line, text in answers.items() if "order=-year" in line)
    assert [item["value"]["year"] for item in newest["items"]] == [2019, 2001, 2001]
    assert newest["total"] == 8
    home = next(json.loads(text) for line, text in answers.items() if "view=tv" in line)
    shown = [[item["value"] for item in row["value"]["items"]] for row in home["items"]]
    assert shown[0][0] == {"title": "Pulp Fiction", "year": 1994}
    assert [len(items) for items in shown] == [3, 3]
    (program,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=reader.place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert "Pulp Fiction" in done.stdout
    assert "1994/Léon" in done.stdout


def test_every_page_that_the_readme_names_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
    assert missing == []
