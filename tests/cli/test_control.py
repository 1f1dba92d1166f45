"""`edged status` and its relatives: which address is asked, and what is said where nobody answers well."""

from __future__ import annotations

import argparse
import socket
import threading
from pathlib import Path

import pytest

from edged.cli import control
from edged.cli.control import admin_address, ask, describe
from edged.errors import ConfigError, TransportError
from tests.system.programs import edged, running


def test_without_a_configuration_the_default_address_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "edged.toml"
    monkeypatch.setattr(control, "DEFAULT_PATH", path)
    assert admin_address(None) == "127.0.0.1:8485"
    path.write_text('[admin]\nbind = ["127.0.0.1:7"]\n')
    assert admin_address(None) == "127.0.0.1:7"
    with pytest.raises(ConfigError, match="No such file"):
        admin_address(tmp_path / "other.toml")


def asked(place: Path, bind: str) -> argparse.Namespace:
    path = place / "edged.toml"
    path.write_text(f'[admin]\nbind = ["{bind}"]\n')
    return argparse.Namespace(config=path, json=False)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "is another program there?"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "is another program there?"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", "GET /status at 127.0.0.1:"),
        (b"", "is another program there?|is `edged run` running"),
        (None, "no answer within"),
    ],
)
def test_whoever_answers_there_is_told_from_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, said: str
) -> None:
    monkeypatch.setattr(control, "DEADLINE_S", 0.2)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def speak() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                if answer is None:
                    done.wait(30)
                else:
                    peer.sendall(answer)

        done = threading.Event()
        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(TransportError, match=said):
            ask(asked(tmp_path, f"127.0.0.1:{server.getsockname()[1]}"), "GET", "/status")
        done.set()
        thread.join()


def test_nobody_there_is_said_without_numbers_of_the_kernel(tmp_path: Path) -> None:
    done = edged("status", "--config", asked(tmp_path, f"unix:{tmp_path}/none").config, code=1)
    assert done.stderr == (
        f"edged: ask the daemon at unix:{tmp_path}/none: No such file or directory; "
        "is `edged run` running, with this configuration?\n"
    )


def test_the_status_of_a_daemon_that_proxies(tmp_path: Path) -> None:
    config = tmp_path / "edged.toml"
    config.write_text(
        f'[daemon]\ndata_dir = "{tmp_path}/data"\n[serve]\nbind = ["127.0.0.1:0"]\n[admin]\n'
        f'bind = ["unix:{tmp_path}/admin"]\n[[proxy.routes]]\nprefix = "/api"\nupstream = "http://127.0.0.1:1"\n'
    )
    with running("run", "--config", config) as program:
        program.wait_for("serving operators")
        lines = edged("status", "--config", config).stdout.splitlines()
        assert lines[0] == "no dataset is configured"
        assert lines[1].startswith("proxy: idle, ")
        assert " requests served, " in lines[2]
        assert program.stop() == 0


def test_the_age_of_what_is_served_is_told_in_words() -> None:
    item = {
        "version": 3,
        "state": "stale",
        "pinned": None,
        "as_of": 1_790_000_000,
        "bytes_received": 1,
        "snapshots_applied": 0,
        "hops_applied": 0,
        "flash_bytes_written": 0,
        "last_error": "the origin does not answer",
    }
    data = {
        "datasets": {"catalog": item, "new": {**item, "as_of": 0, "last_error": None}},
        "proxy": None,
        "version": "1",
        "apps": ["http://127.0.0.1:1"],
        "requests_served": 0,
        "memory_bytes": 1,
    }
    text = describe(data, 1_790_000_000 + 3 * 86_400 + 7200.0)
    assert "3 days 2 hours ago" in text
    assert "never" in text
    assert "catalog: the origin does not answer" in text
