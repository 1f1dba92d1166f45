"""A page of docs/, followed from the first block to the last in an empty directory.

A block `console` is run: lines with `$ ` are commands, and what stands below one is what it prints, in which `...`
stands for anything. A command that ends with ` &` goes on, once it has printed what stands below. A block with a name
behind its language (`toml edged.toml`) is a file of that name. Blocks of other kinds are for reading.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.system.programs import DEADLINE_S, Program

ROOT = Path(__file__).parents[2]
PORTS = ("8080", "8081", "8484", "8485", "8487", "8488", "8494", "8495")  # of 127.0.0.1, as pages have them
BLOCK = re.compile(r"^```(\w*)(?: ([^\n]+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    kind: str
    name: str
    text: str


@dataclass
class Step:
    """A command and the lines that it prints."""

    command: str
    printed: list[str] = field(default_factory=list)


def blocks_of(page: Path) -> list[Block]:
    return [Block(kind, name or "", text) for kind, name, text in BLOCK.findall(page.read_text())]


def steps_of(block: Block) -> list[Step]:
    found: list[Step] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:]))
        elif found and found[-1].command.endswith("\\"):
            found[-1].command = found[-1].command[:-1] + line.strip()
        else:
            assert found, f"a console block begins with a command: {line!r}"
            found[-1].printed.append(line)
    return found


def pattern_of(lines: list[str]) -> str:
    """Of what is printed, blanks at line ends apart: `...` is anything, alone on a line any number of them."""
    found = []
    for line in lines:
        if line.strip() == "...":
            found.append(r"(?:[^\n]*\n)*")
        else:
            parts = (re.escape(part) for part in line.rstrip().split("..."))
            found.append(r"[^\n]*".join(parts) + r"[ \t]*\n")
    return "".join(found)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Follower:
    """Does what a person would who pastes the lines."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.ports = {number: free_port() for number in PORTS}
        self.programs: list[Program] = []
        (place / "docs").symlink_to(ROOT / "docs")
        tools = place / ".tools"
        tools.mkdir()
        for name, words in (("edged", f'"{sys.executable}" -m edged'), ("python", f'"{sys.executable}"')):
            (tools / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            (tools / name).chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "110",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs:
            if program.process.poll() is None:
                program.stop()
            assert program.process.stdout is not None
            program.process.stdout.close()

    def adapted(self, text: str) -> str:
        """With ports that nobody else has."""
        for number, other in self.ports.items():
            text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{other}")
        return text

    def follow(self, page: Path) -> int:
        """Returns how many commands were run."""
        count = 0
        for block in blocks_of(page):
            if block.kind == "console":
                for step in steps_of(block):
                    self.run(step)
                    count += 1
            elif block.name:
                path = self.place / block.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.adapted(block.text))
        return count

    def run(self, step: Step) -> None:
        if step.command.endswith(" &"):
            self.begin(step)
            return
        done = subprocess.run(
            ["bash", "-euc", self.adapted(step.command)],
            cwd=self.place,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        printed = done.stdout if not done.stdout or done.stdout.endswith("\n") else done.stdout + "\n"
        expected = pattern_of([self.adapted(line) for line in step.printed])
        assert done.returncode == 0, f"$ {step.command}\nexit code {done.returncode}\n{printed}"
        assert re.fullmatch(expected, printed), f"$ {step.command}\nexpected:\n{expected}\nprinted:\n{printed}"

    def begin(self, step: Step) -> None:
        process = subprocess.Popen(
            ["bash", "-euc", "exec " + self.adapted(step.command.removesuffix(" &"))],
            cwd=self.place,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        program = Program(process)
        self.programs.append(program)
        for line in step.printed:
            if line.strip() != "...":
                program.wait_for(pattern_of([self.adapted(line)]).removesuffix(r"\n") + "$")
