"""`edged doctor`: a healthy device has nothing wrong, and each ailment is named with its mend."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edged.cli.doctor import Check, of_clock, of_disk, of_limits, parted
from edged.clock import BUILD_TIME_S
from edged.config import Config
from tests.system.programs import Device, Origin, edged, running, titles


@pytest.fixture
def device(tmp_path: Path) -> Device:
    origin = Origin.make(tmp_path)
    origin.publish(titles(5))
    return Device(tmp_path, origin)


def wrong(config: Path, *, code: int = 1) -> list[dict[str, str]]:
    done = edged("doctor", "--config", config, "--json", code=code)
    return [check for check in json.loads(done.stdout)["checks"] if check["mend"]]


def test_a_device_that_is_well(device: Device) -> None:
    with device.origin.served() as url:
        config = device.configure(url)
        assert wrong(config, code=0) == []
        edged("sync", "--config", config)
        lines = edged("doctor", "--config", config).stdout.splitlines()
    assert any(line.startswith(f"ok     origin {url}: version 1, signed ") for line in lines)
    assert any("replica catalog: version 1, 5 records" in line for line in lines)
    assert lines[-1] == f"all {len(lines) - 1} are well"


Harm = Callable[[Device], Path]


def other_trust(device: Device) -> Path:
    edged("origin", "init", device.place / "other")
    config = device.configure(device.origin.public.as_uri())
    config.write_text(config.read_text().replace(f"{device.origin.feed}/root", f"{device.place}/other/root"))
    return config


def no_trust(device: Device) -> Path:
    config = device.configure(device.origin.public.as_uri())
    config.write_text(config.read_text().replace("root.trust", "none.trust"))
    return config


def no_origin(device: Device) -> Path:
    return device.configure("http://127.0.0.1:1/catalog")


def no_feed(device: Device) -> Path:
    (device.origin.public / "head").write_text("<html>please log in</html>")
    return device.configure(device.origin.public.as_uri())


def other_name(device: Device) -> Path:
    config = device.configure(device.origin.public.as_uri())
    config.write_text(config.read_text().replace('name = "catalog"', 'name = "films"'))
    return config


def no_socket_directory(device: Device) -> Path:
    config = device.configure(device.origin.public.as_uri())
    config.write_text(
        config.read_text().replace('[serve]\nbind = ["', f'[serve]\nbind = ["unix:{device.place}/none/s", "')
    )
    return config


def open_to_all(device: Device) -> Path:
    device.data_dir.mkdir()
    device.data_dir.chmod(0o777)
    return device.configure(device.origin.public.as_uri())


@pytest.mark.parametrize(
    ("harm", "what", "mend"),
    [
        (other_trust, "origin ", "compare the trust file with the publisher's"),
        (no_trust, "trust catalog", "edged origin init"),
        (no_origin, "origin http://127.0.0.1:1/catalog", "look at network"),
        (no_feed, "origin ", "no feed of edged"),
        (other_name, "origin ", "[[datasets]] name"),
        (no_socket_directory, "permissions", "create "),
        (open_to_all, "permissions", "chmod o-w"),
    ],
)
def test_an_ailment_is_named_with_its_mend(device: Device, harm: Harm, what: str, mend: str) -> None:
    found = wrong(harm(device))
    assert [check for check in found if check["what"].startswith(what) and mend in check["mend"]], found
    assert not any("Errno" in check["found"] or "Traceback" in check["found"] for check in found)


def test_a_faulty_configuration_is_told_and_nothing_is_guessed(device: Device, tmp_path: Path) -> None:
    config = device.configure(device.origin.public.as_uri())
    config.write_text(config.read_text() + '[proxy]\nquota = "7"\n')
    assert [check["what"] for check in wrong(config)] == ["configuration"]
    (missing,) = wrong(tmp_path / "none.toml")
    assert missing["found"].startswith("read ")
    assert missing["mend"] == "name the file with --config, or create it"
    assert edged("doctor", "--config", tmp_path / "none.toml", code=1).stdout.endswith("1 of 2 is wrong\n")


def test_a_running_daemon_is_seen(device: Device) -> None:
    config = device.configure(device.origin.public.as_uri())
    text = config.read_text().replace('[admin]\nbind = ["127.0.0.1:0"]', f'[admin]\nbind = ["unix:{device.place}/a"]')
    config.write_text(text)
    with running("run", "--config", config) as program:
        program.wait_for("serving operators")
        assert "daemon: runs, at unix:" in edged("doctor", "--config", config).stdout
        assert program.stop() == 0


@pytest.mark.parametrize(("now_s", "is_wrong"), [(BUILD_TIME_S - 1, True), (BUILD_TIME_S, False)])
def test_the_clock(now_s: float, is_wrong: bool) -> None:
    assert bool(of_clock(now_s).mend) == is_wrong


@pytest.mark.parametrize(("soft", "is_wrong"), [(4095, True), (4096, False), (resource.RLIM_INFINITY, False)])
def test_the_limits(monkeypatch: pytest.MonkeyPatch, soft: int, is_wrong: bool) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, soft))
    assert bool(of_limits(Config()).mend) == is_wrong


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"f_bavail": (64 << 20) // 4096 - 1}, "make room"),
        ({"f_bavail": (64 << 20) // 4096}, ""),
        ({"f_favail": 999}, "remove small files"),
        ({"f_favail": 1000}, ""),
        ({"f_flag": os.ST_RDONLY}, "remount"),
    ],
)
def test_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fields: dict[str, int], said: str) -> None:
    usual: dict[str, Any] = {
        "f_bavail": 1 << 30,
        "f_frsize": 4096,
        "f_files": 1 << 20,
        "f_favail": 1 << 20,
        "f_flag": 0,
    }
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(**{**usual, **fields}))
    mends = "".join(check.mend for check in of_disk(tmp_path / "data"))
    assert said in mends
    assert bool(mends) == bool(said)


def test_a_message_is_parted_into_what_is_wrong_and_the_mend() -> None:
    assert Check("x", *parted("a: b; c; do d")) == Check("x", "a: b; c", "do d")
    assert parted("only this")[0] == "only this"
