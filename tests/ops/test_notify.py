"""sd_notify, the logs and the clock."""

from __future__ import annotations

import errno
import logging
import os
import socket
from pathlib import Path

import pytest

from edged.clock import BUILD_TIME_S, Clock
from edged.ops.logs import LineFormatter
from edged.ops.notify import Notifier


def test_systemd_hears_ready_and_the_watchdog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        notifier = Notifier.from_environment()
        assert notifier.watchdog_s == 30
        notifier.ready("serving")
        assert manager.recv(1000) == b"READY=1\nSTATUS=serving"
        notifier.alive()
        assert manager.recv(1000) == b"WATCHDOG=1"
        notifier.stopping()
        assert manager.recv(1000) == b"STOPPING=1"
    notifier.close()


def test_a_ping_takes_no_descriptor_and_whatever_fails_of_it_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(5)

        def refuse(*words: object, **more: object) -> socket.socket:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        notifier = Notifier(str(address), 0.6)
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", refuse)
            notifier.alive()
            assert manager.recv(1000) == b"WATCHDOG=1"
            late = Notifier(str(address), 0.6)  # no descriptor at the start
            late.alive()
        late.alive()  # there is one again
        assert manager.recv(1000) == b"WATCHDOG=1"
        late.close()
    for _ in range(2):
        notifier.alive()  # the manager is gone
    notifier.close()
    Notifier().alive()  # there never was one


def test_a_watchdog_meant_for_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert Notifier.from_environment().watchdog_s is None


def test_a_log_line_cannot_be_forged_by_what_is_logged() -> None:
    record = logging.LogRecord("edged", logging.WARNING, "", 0, "key %s", ("a\nb\x1b[31m",), None)
    record.fields = {"key": "x y\n", "n": 3}
    line = LineFormatter(journal=True).format(record)
    assert line == '<4>key a\\nb\\x1b[31m key="x y\\n" n=3'


def test_a_box_that_boots_in_1970_takes_time_from_the_release_and_from_what_was_signed() -> None:
    now = [0.0]
    clock = Clock(lambda: now[0])
    assert clock() == BUILD_TIME_S
    assert not clock.is_set()
    clock.seen(BUILD_TIME_S + 500)
    assert clock() == BUILD_TIME_S + 500
    now[0] = BUILD_TIME_S + 1000.0
    assert clock() == BUILD_TIME_S + 1000
    assert clock.is_set()
