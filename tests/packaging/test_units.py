"""The systemd units: valid, locked down, and in agreement with the paths that the rest of the project names."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edged.config import DaemonConfig, ServeConfig
from edged.configfile import DEFAULT_PATH

UNITS = Path(__file__).parent.parent.parent / "systemd"
NAMES = ("edged.service", "edged-origin.service", "edged-relay.service")
SOCKET = "edged.socket"
HIGHEST_EXPOSURE = 1.2
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def settings(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        match = re.fullmatch(r"([A-Za-z]+)=(.*)", line)
        if match:
            found.setdefault(match[1], []).append(match[2])
    return found


def analyze(*words: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *words, "--no-pager"], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_exposure_is_low(name: str) -> None:
    report = analyze("security", "--offline=true", str(UNITS / name))
    overall = re.search(rf"Overall exposure level for {name}: ([0-9.]+)", report)
    assert overall is not None, report
    assert float(overall[1]) <= HIGHEST_EXPOSURE, report


@needs_systemd
@pytest.mark.parametrize("name", [*NAMES, SOCKET])
def test_systemd_accepts_every_line(name: str, tmp_path: Path) -> None:
    # The program need not be installed here, so that of the copy is one that is.
    copy = tmp_path / name
    for unit in {name, "edged.service"}:  # a socket unit wants its service
        text = (UNITS / unit).read_text().replace("ExecStart=/usr/bin/edged", "ExecStart=/bin/true")
        (tmp_path / unit).write_text(text)
    about_it = [line for line in analyze("verify", str(copy)).splitlines() if name in line]
    assert about_it == []


def test_the_daemons_unit_names_the_directories_of_the_configuration() -> None:
    unit = settings("edged.service")
    assert unit["ExecStart"] == [f"/usr/bin/edged run --config {DEFAULT_PATH}"]
    assert DaemonConfig().data_dir == f"/var/lib/{unit['StateDirectory'][0]}"
    sockets = [bind for bind in ServeConfig().bind if bind.startswith("unix:")]
    assert sockets
    assert all(bind.startswith(f"unix:/run/{unit['RuntimeDirectory'][0]}/") for bind in sockets)
    assert int(unit["LimitNOFILE"][0]) >= 4 * ServeConfig().max_connections


def test_secrets_come_from_a_directory_without_which_the_service_starts_all_the_same() -> None:
    unit = settings("edged.service")
    loaded = dict(item.split(":", 1) for item in unit["LoadCredential"])
    given = dict(item.split(":", 1) for item in unit["SetCredential"])
    # A credential that is absent fails the start, unless one of the same name is set (systemd.exec(5)); 252 knows no
    # ImportCredential=.
    assert loaded == {"edged": "/etc/edged/credentials"}
    assert given.keys() == loaded.keys()
    assert "ImportCredential" not in unit


def test_the_origins_dashboard_is_on_loopback_alone() -> None:
    (command,) = settings("edged-origin.service")["ExecStart"]
    words = command.split()
    addresses = [words[words.index(option) + 1] for option in ("--bind", "--admin-bind")]
    assert [address.rpartition(":")[0] for address in addresses] == ["127.0.0.1"] * 2
    assert len(set(addresses)) == 2


def test_the_relays_unit_bears_ten_thousand_devices_and_shares_nothing_with_the_daemon() -> None:
    relay, daemon = settings("edged-relay.service"), settings("edged.service")
    assert int(relay["LimitNOFILE"][0]) >= 2 * 60_000  # a connection, and a blob being sent
    for name in ("StateDirectory", "RuntimeDirectory", "ExecStart"):
        assert relay[name] != daemon[name]
    assert relay["Type"] == ["notify"]


def test_the_socket_unit_listens_where_the_configuration_says_by_default() -> None:
    unit = settings(SOCKET)
    assert [item if item[0] != "/" else f"unix:{item}" for item in unit["ListenStream"]] == ServeConfig().bind
    assert unit["SocketMode"] == [ServeConfig().socket_mode]
    assert settings("edged.service")["RuntimeDirectoryPreserve"] == ["yes"]


def test_the_daemon_is_watched_and_started_again_unless_its_configuration_is_wrong() -> None:
    unit = settings("edged.service")
    assert unit["Type"] == ["notify"]
    assert int(unit["WatchdogSec"][0]) > 0
    assert unit["Restart"] == ["on-failure"]
    assert unit["RestartPreventExitStatus"] == ["2"]
    assert unit["StartLimitIntervalSec"] == ["0"]
