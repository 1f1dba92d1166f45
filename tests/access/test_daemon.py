"""Apps in a running daemon: by uid on its socket, by token on TCP, changed by SIGHUP, told of by `edged status`."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edged.cli.control import describe
from tests.system.programs import Device, Origin, edged, get, titles

TOKEN = "launcher-token-00001"


class ByPath(http.client.HTTPConnection):
    """To a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


def status_of(connection: http.client.HTTPConnection, target: str, token: str = "") -> int:
    connection.request("GET", target, headers={"Authorization": f"Bearer {token}"} if token else {})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def until(good: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not good():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def apps(*entries: str) -> str:
    return "".join(f"[[apps]]\n{entry}\n" for entry in entries)


@pytest.mark.parametrize("workers", [1, 2])
def test_apps_are_told_apart_and_read_anew(tmp_path: Path, workers: int) -> None:
    origin = Origin.make(tmp_path)
    origin.publish(titles(3))
    device = Device(tmp_path, origin)
    config = device.configure(origin.public.as_uri())
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "edged.d").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    binds = json.dumps([f"127.0.0.1:{port}", f"unix:{tmp_path}/apps.sock"])
    (tmp_path / "edged.d" / "serve.toml").write_text(f"[serve]\nbind = {binds}\nworkers = {workers}\n")
    rights = tmp_path / "edged.d" / "apps.toml"
    mine = f'name = "me"\nuid = {os.getuid()}\nallow = ["catalog"]'
    launcher = f'name = "launcher"\naudience = "partner"\ntoken_file = "{tmp_path}/token"\nallow = ["catalog/titles"]'
    rights.write_text(apps(mine, launcher))
    target = "/v1/catalog/titles?limit=2"
    with ExitStack() as stack, device.running(config) as daemon:
        daemon.wait_version(1)
        place = urlsplit(daemon.apps).netloc
        by_path = stack.enter_context(closing(ByPath(tmp_path / "apps.sock")))
        by_tcp = [stack.enter_context(closing(http.client.HTTPConnection(place, timeout=30))) for _ in range(8)]
        assert (status_of(by_path, "/v1/catalog"), status_of(by_path, target)) == (200, 403)
        for connection in by_tcp:  # by the kernel's choice to either process
            asked = [("", 401), (TOKEN, 200), ("other-token-00000001", 401), (TOKEN, 200)]
            assert [(token, status_of(connection, target, token)) for token, _ in asked] == asked
            assert status_of(connection, "/v1/catalog", TOKEN) == 403
        if workers == 1:
            status = get(f"{daemon.admin}/status").json
            counted = status["access"]["launcher"]
            assert (counted["audience"], counted["refused"]) == ("partner", 8)
            assert "launcher  partner" in describe(status, time.time())
        rights.write_text(apps(mine.replace('"catalog"', '"catalog/*"'), launcher.replace("catalog/titles", "catalog")))
        daemon.program.process.send_signal(signal.SIGHUP)
        daemon.program.wait_for("configuration read anew: apps")
        until(lambda: all(status_of(connection, target, TOKEN) == 403 for connection in by_tcp))
        assert status_of(by_path, target) == 200
        assert all(status_of(connection, "/v1/catalog", TOKEN) == 200 for connection in by_tcp)
        (tmp_path / "token").write_text("launcher-token-00002")  # the same configuration, another token
        daemon.program.process.send_signal(signal.SIGHUP)
        until(lambda: all(status_of(connection, "/v1/catalog", TOKEN) == 401 for connection in by_tcp))
        rights.write_text('[[apps]]\nname = "x"\n')
        daemon.program.process.send_signal(signal.SIGHUP)
        daemon.program.wait_for("configuration not taken: .*nothing tells who it is")
        assert status_of(by_path, target) == 200
        assert daemon.program.stop() == 0


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        (['name = "a"\nallow = ["catalog"]'], "apps.name: nothing tells who it is"),
        (['name = "anonymous"\nuid = 5'], '"anonymous" is everybody else'),
        (['name = "a"\nuid = 5', 'name = "a"\nuid = 6'], "app 'a' has the same name"),
        (['name = "a"\nuid = 5', 'name = "b"\nuid = 5'], "app 'a' has the same uid"),
        ([f'name = "{name}"\ntoken_sha256 = "{sha256(b"x").hexdigest()}"' for name in "ab"], "the same token_sha256"),
        (['name = "a"\nuid = 5\nallow = ["nope/titles"]'], "no [[datasets]] has name 'nope'"),
        (['name = "a"\nuid = 5\nallow = ["proxy:/api"]'], "no [[proxy.routes]] has prefix '/api'"),
        (['name = "a"\nuid = 5\nallow = ["catalog/ti tles"]'], "allow"),
        (['name = "a"\nuid = 5\nslices = ["core", "elsewhere"]'], "'elsewhere': no [[datasets]] carries that slice"),
        (['name = "a"\nuid = 5\nrate = "often"'], '"200/s"'),
        (['name = "a"\nuid = 5\nconnections = "0%"'], '"25%"'),
        (['name = "a"\nuid = 5\nconnections = "101%"'], '"25%"'),
        (['name = "a"\ntoken_sha256 = "abc"'], "64 hexadecimal digits"),
        (['name = "a"\ntoken_file = "/nowhere/token"'], "read the token /nowhere/token"),
        (['name = "a"\nuid = 5\naudience = "friends"'], "audience"),
    ],
)
def test_a_fault_in_apps_is_named(tmp_path: Path, entries: list[str], told: str) -> None:
    (tmp_path / "trust").write_bytes(b"")
    config = tmp_path / "edged.toml"
    dataset = f'[[datasets]]\nname = "catalog"\norigin = ["file:///x"]\ntrust = "{tmp_path}/trust"\n'
    config.write_text(dataset + apps(*entries))
    found = edged("check", "--config", config, code=2)
    assert told in found.stdout + found.stderr


def test_commands_beside_the_service_need_no_credential_and_the_daemon_does(tmp_path: Path) -> None:
    config = tmp_path / "edged.toml"
    config.write_text(f'[daemon]\ndata_dir = "{tmp_path}/data"\n' + apps('name = "a"\ntoken_file = "credential:a"'))
    edged("check", "--config", config)
    assert "LoadCredential" in edged("run", "--config", config, code=2).stderr


def test_a_short_token_is_refused_and_a_credential_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "edged.toml"
    config.write_text(apps('name = "a"\ntoken_file = "credential:launcher"'))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "launcher").write_text("short")
    assert "expected 16 to" in edged("check", "--config", config, code=2).stdout
    (tmp_path / "launcher").write_text(TOKEN)
    edged("check", "--config", config)
