"""The log costs no request: whoever reads it may stop, go away, or never have been there."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edged.cli.control import UnixConnection
from edged.ops.logs import LineFormatter, LineHandler
from tests.system.programs import DEADLINE_S

LINE = "x" * 200


def handler_of(descriptor: int) -> LineHandler:
    handler = LineHandler(descriptor)
    handler.setFormatter(LineFormatter(journal=True))
    return handler


def say(handler: LineHandler, text: str) -> None:
    handler.handle(logging.LogRecord("edged", logging.INFO, "", 0, text, None, None))


def test_a_reader_that_has_stopped_costs_lines_and_is_told_how_many() -> None:
    out, into = os.pipe()
    handler = handler_of(into)
    room = fcntl.fcntl(into, fcntl.F_GETPIPE_SZ)
    for _ in range(room // 100):
        say(handler, LINE)
    lost = handler.lost
    assert room // 250 < lost < room // 100
    while handler.write("") is False:
        os.read(out, room)
    os.read(out, room)
    say(handler, "there is room again")
    assert os.read(out, 1 << 16).decode() == f"<4>{lost} lines could not be written\n<6>there is room again\n"
    assert handler.lost == 0
    os.close(out)
    os.close(into)


def test_a_reader_that_has_gone_and_a_disk_that_is_full_cost_lines() -> None:
    out, into = os.pipe()
    os.close(out)
    handler = handler_of(into)
    say(handler, LINE)
    say(handler, LINE)
    assert handler.lost == 2
    os.close(into)
    say(handler, LINE)  # not even a descriptor
    assert handler.lost == 3
    with open("/dev/full", "w") as full:
        handler = handler_of(full.fileno())
        say(handler, LINE)
        assert handler.lost == 1


def test_a_long_line_is_written_whole(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        say(handler_of(file.fileno()), LINE * 1000 + "\udcff")
    assert (tmp_path / "log").read_text() == "<6>" + LINE * 1000 + "\\udcff\n"


def test_a_mistake_in_a_line_is_no_fault_of_the_caller(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        handler_of(file.fileno()).handle(logging.LogRecord("edged", logging.INFO, "", 0, "%d", ("x",), None))
    assert "TypeError" in capsys.readouterr().err


def ask_status(address: Path) -> bytes:
    connection = UnixConnection(str(address))
    connection.timeout = DEADLINE_S
    connection.request("GET", "/status")
    body = connection.getresponse().read()
    connection.close()
    return body


def wait_for(address: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not address.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["closed", "gone", "stopped"])
def test_a_daemon_lives_whatever_becomes_of_its_standard_streams(tmp_path: Path, kind: str) -> None:
    """Closed from the start, closed by the reader, or full. Nor do signals end it that are not for it."""
    config = tmp_path / "edged.toml"
    address = tmp_path / "status.sock"
    config.write_text(
        f'[daemon]\ndata_dir = "{tmp_path}/data"\nlog_level = "debug"\n[serve]\nbind = ["127.0.0.1:0"]\n'
        f'[admin]\nbind = ["unix:{address}"]\n'
    )
    out, into = os.pipe()
    if kind == "stopped":
        os.write(into, b"-" * fcntl.fcntl(into, fcntl.F_GETPIPE_SZ))
    command = [sys.executable, "-m", "edged", "run", "--config", str(config), *(["--json"] if kind == "gone" else [])]
    if kind == "closed":
        command = ["sh", "-c", 'exec "$0" "$@" 0<&- 1>&- 2>&-', *command]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=into, stderr=into)
    os.close(into)
    if kind != "stopped":
        os.close(out)
    try:
        wait_for(address, process)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGPIPE, signal.SIGHUP):
            process.send_signal(number)
        assert b'"datasets"' in ask_status(address)
        standard = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]
        if kind == "closed":
            assert set(standard) == {os.devnull}
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
        if kind == "stopped":
            os.close(out)
