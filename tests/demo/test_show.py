"""`edged demo` as a person meets it: on a terminal of 80 by 24, with lines to paste, and nothing left behind."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.system.programs import DEADLINE_S, edged, get, running

PORTS = ("--port", "0", "--admin-port", "0")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demonstration puts its feed and its replica."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_it_shows_what_an_edit_takes_and_ends_by_itself(temporary: Path) -> None:
    with running("demo", "--seconds", "1", "--records", "50", *PORTS, "--json") as program:
        opened = json.loads(program.wait_for(r"\{.*urls.*\}")[0])
        edit = json.loads(program.wait_for(r"\{.*wire_bytes.*\}")[0])
        assert program.process.wait(DEADLINE_S) == 0
    assert 0 < edit["wire_bytes"] < opened["full_download_bytes"]
    assert edit["latency_s"] > 0
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("records", ["1", "8"])  # the eighth title belongs to one region, which the device lacks
def test_the_lines_to_paste_name_what_is_there(records: str) -> None:
    with running("demo", "--records", records, *PORTS) as program:
        api = program.wait_for(r"paste +api=(\S+)")[1]
        program.wait_for("Ctrl-C")
        lines = [shlex.split(line) for line in program.lines if "curl" in line]
        assert len(lines) == 4
        for words in lines[:3]:
            answer = get(words[-1].replace("$api", api))
            assert answer.status == 200, words
            assert answer.json.get("items", ["the record itself"]), words
        program.process.send_signal(signal.SIGINT)
        assert program.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("which", ["--port", "--admin-port"])
def test_a_port_that_is_taken_is_said_before_anything_is_made(temporary: Path, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        other = {"--port": "--admin-port", "--admin-port": "--port"}[which]
        refused = edged("demo", which, number, other, "0", "--records", "1000000", code=2)
    assert refused.stderr.startswith(f"edged: listen on 127.0.0.1:{number}: ")
    assert list(temporary.iterdir()) == []
    assert "two" in edged("demo", "--port", "8484", "--admin-port", "8484", code=2).stderr


@pytest.mark.parametrize("words", [["--seconds", "0"], ["--seconds", "nan"], ["--records", "0"], ["--port", "65536"]])
def test_a_number_that_makes_no_sense_is_wrong_usage(words: list[str]) -> None:
    assert "expected" in edged("demo", *words, code=2).stderr


def on_terminal(program: subprocess.Popen[bytes], screen: int, pattern: str) -> str:
    """What the program has written to its terminal when `pattern` is there."""
    text, deadline = "", time.monotonic() + DEADLINE_S
    while not re.search(pattern, text, re.DOTALL):
        assert time.monotonic() < deadline, text
        assert program.poll() is None, text
        text += os.read(screen, 65536).decode()
    return text


def test_it_fits_a_terminal_of_80_by_24_and_cleans_up_when_that_is_closed(temporary: Path) -> None:
    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    program = subprocess.Popen(
        [sys.executable, "-m", "edged", "demo", "--records", "1200", *PORTS],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
        start_new_session=True,
    )
    os.close(terminal)
    try:
        text = on_terminal(program, screen, r"origin .*requests served.*requests served")
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
        shown = text[text.rindex("origin ") :].replace("\r\n", "\n").split("requests served")[1]
        whole = text[text.rindex("origin   ") :].replace("\r", "").split("requests served")[0]
        assert max(map(len, whole.split("\n"))) <= 80
        assert whole.count("\n") < 24
        assert shown.count("\n") < 24
        os.close(screen)
        program.send_signal(signal.SIGHUP)
        assert program.wait(DEADLINE_S) == 0
    finally:
        if program.poll() is None:
            program.kill()
        program.wait()
    assert list(temporary.iterdir()) == []
