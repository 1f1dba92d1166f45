"""Sockets that systemd hands over are used for the addresses of the configuration, and for nothing else."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edged.ops.activation import bind_with, canonical, inherited_sockets, warn_of_others
from tests.system.programs import Program, get

# What systemd does between fork and exec: the sockets at 3 and after, and the variables with our own number.
ACTIVATE = """
import fcntl, os, sys
numbers = [int(number) for number in sys.argv[1].split(",")]
moved = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in numbers]
for place, number in enumerate(moved, 3):
    os.dup2(number, place, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(moved)))
os.execv(sys.executable, [sys.executable, "-m", "edged", "run", "--config", sys.argv[2]])
"""


def test_apps_that_connect_before_the_daemon_runs_are_answered(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix, socket.socket() as other:
        tcp.bind(("127.0.0.1", 0))
        unix.bind(path)
        other.bind(("127.0.0.1", 0))
        for sock in (tcp, unix, other):
            sock.listen()
        port = tcp.getsockname()[1]
        config = tmp_path / "edged.toml"
        config.write_text(
            f'[daemon]\ndata_dir = "{tmp_path}/data"\n[serve]\nbind = ["localhost:{port}", "unix:{path}"]\n'
            '[admin]\nbind = ["127.0.0.1:0"]\n'
        )
        early = socket.create_connection(("127.0.0.1", port), timeout=60)
        early.sendall(b"GET /v1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        numbers = ",".join(str(sock.fileno()) for sock in (tcp, unix, other))
        process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, numbers, str(config)],
            pass_fds=[sock.fileno() for sock in (tcp, unix, other)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        program = Program(process)
        try:
            program.wait_for(f"the socket unit listens on 127.0.0.1:{other.getsockname()[1]}, which no bind")
            assert early.recv(12) == b"HTTP/1.1 200"
            early.close()
            assert get(f"http://127.0.0.1:{port}/v1").status == 200
            with socket.socket(socket.AF_UNIX) as app:
                app.settimeout(60)
                app.connect(path)
                app.sendall(b"GET /v1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert app.recv(12) == b"HTTP/1.1 200"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert Path(path).is_socket()  # it is the manager's, and stays
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.mark.parametrize(
    "environment", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": "", "LISTEN_FDS": "x"}]
)
def test_sockets_that_are_meant_for_another_process_are_left_alone(environment: dict[str, str]) -> None:
    assert inherited_sockets(environment) == {}
    assert environment == {}


def test_a_count_that_is_none_is_passed_over() -> None:
    assert inherited_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "-1"}) == {}


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:8484", "127.0.0.1:8484"),
        ("localhost:8484", "127.0.0.1:8484"),
        ("[0:0::1]:1", "[::1]:1"),
        ("unix:/run/./edged.sock", "unix:/run/edged.sock"),
    ],
)
def test_addresses_are_compared_as_the_kernel_tells_them(address: str, told: str) -> None:
    assert canonical(address) == told
    assert bind_with({told: "fd://3"}, [address, "127.0.0.1:9"]) == ["fd://3", "127.0.0.1:9"]


def test_a_socket_that_nobody_answers_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_others({"127.0.0.1:1": "fd://3", "127.0.0.1:2": "fd://4"}, ["localhost:1"])
    assert [record.args for record in caplog.records] == [("127.0.0.1:2",)]
