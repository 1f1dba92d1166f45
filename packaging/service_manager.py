"""Plays the service manager for one run of a unit's ExecStart, where no systemd runs: a chroot, a container.

    python3 service_manager.py UNIT USER_ID --config FILE

Makes the unit's directories for the user, starts the command as that user without privileges, waits until it reports
that it is ready, asks the admin listener of FILE whether it is alive and ready, stops it as systemd would, and expects
it to end by itself. Exit code 0 if all of it went well; else a line on standard error says what did not.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

READY_S, STOP_S = 60.0, 20.0


def settings(unit: Path) -> dict[str, str]:
    lines = [line.partition("=") for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return {name: value for name, _, value in lines}


def make_directories(unit: dict[str, str], user: int) -> None:
    for base, key in (("/var/lib", "StateDirectory"), ("/run", "RuntimeDirectory")):
        if key in unit:
            path = Path(base, unit[key])
            path.mkdir(exist_ok=True, mode=int(unit.get(f"{key}Mode", "755"), 8))
            os.chown(path, user, user)


def wait_ready(channel: socket.socket, process: subprocess.Popen[bytes]) -> None:
    """Raises TimeoutError or ChildProcessError."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ChildProcessError(f"the command ended with code {process.returncode} before it was ready")
        channel.settimeout(0.2)
        try:
            message = channel.recv(4096).decode()
        except TimeoutError:
            continue
        print(f"notified: {' '.join(message.split(chr(10)))}")
        if "READY=1" in message.split("\n"):
            return
    raise TimeoutError(f"no READY=1 within {READY_S:.0f} s")


def ask(address: str, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            print(f"{path}: {answer.status} {answer.read(200).decode().strip()}")
            return int(answer.status)
    except urllib.error.HTTPError as fault:
        return fault.code


def run(unit_file: Path, user: int, config: str) -> None:
    """Raises ChildProcessError, TimeoutError, OSError or subprocess.TimeoutExpired."""
    unit = settings(unit_file)
    make_directories(unit, user)
    command = shlex.split(unit["ExecStart"])
    command[command.index("--config") + 1] = config
    admin = tomllib.loads(Path(config).read_text())["admin"]["bind"][0]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0edged-service-manager")
        environment = {"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": "@edged-service-manager"}
        if "WatchdogSec" in unit:
            environment["WATCHDOG_USEC"] = str(int(unit["WatchdogSec"]) * 1_000_000)
        process = subprocess.Popen(
            command, env=environment, user=user, group=user, extra_groups=[], umask=int(unit["UMask"], 8), cwd="/"
        )
        try:
            wait_ready(channel, process)
            for path in ("/healthz", "/readyz"):
                status = ask(admin, path)
                if status != 200:
                    raise ChildProcessError(f"{path} answered {status}, expected 200")
            process.send_signal(signal.SIGTERM)
            code = process.wait(STOP_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code != 0:
        raise ChildProcessError(f"stopped with code {code}, expected 0")


if __name__ == "__main__":
    try:
        run(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[4])
    except (ChildProcessError, TimeoutError, OSError, subprocess.TimeoutExpired) as fault:
        sys.exit(f"service_manager: {fault}")
    print("started, answered, stopped")
