"""A disk that is full: one line says so, nothing is lost, and when there is room again it goes on."""

from __future__ import annotations

import os
import random
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.cli.main import main
from edged.replica.audit import verify
from tests.system.programs import Device, Origin, titles, write_ndjson

PRINTABLE = string.ascii_letters + string.digits
SIZE_BYTES = 1 << 20
ROOMS = [0, 4096, 12 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10]  # bytes left: each step of the work fails in one


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long and is no matter of disks: modelled hops, and the rests of `edged sync`."""
    monkeypatch.setattr("edged.feed.coding.hop.CHANGES_MOST", 0)
    monkeypatch.setattr("edged.sync.shell.ONCE_REST_S", 0.01)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # readers that are not collected yet have it mapped


def leave(disk: Path, room: int) -> Path:
    """Fill a disk until so many bytes are left. Returns the file to remove for room."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        file.write(bytes(max(free - room, 0)))
    return ballast


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """A command's exit code, and what it says on standard error."""
    capsys.readouterr()
    code = main(list(map(str, words)))
    return code, capsys.readouterr().err


def records(edition: int) -> list[dict[str, Any]]:
    """Two of them have texts that no coding makes small, other ones in each edition: a hop takes some 50 kB."""
    chance = random.Random(edition)
    found = titles(40)
    for record in found[:2]:
        record["value"]["extract"] = "".join(chance.choices(PRINTABLE, k=30_000))
    return found


def publish(capsys: pytest.CaptureFixture[str], feed: Path, edition: int) -> None:
    path = write_ndjson(feed.parent / "input.ndjson", records(edition))
    assert run(capsys, "origin", "publish", feed, "--dataset", "catalog", path)[0] == 0


def made(capsys: pytest.CaptureFixture[str], tmp_path: Path, disk: Path) -> tuple[Device, Path]:
    """A device whose data directory is the disk, and its configuration."""
    origin = Origin(tmp_path / "feed")
    assert run(capsys, "origin", "init", origin.feed)[0] == 0
    publish(capsys, origin.feed, 1)
    device = Device(tmp_path, origin)
    config = device.configure(origin.public.as_uri())
    device.data_dir.symlink_to(disk)
    return device, config


def fails_in_one_line(code: int, said: str) -> bool:
    """Whether it was refused for want of room; anything else but success is a fault."""
    if code == 0:
        return False
    assert code == 1, said
    assert said.startswith("edged: "), said
    assert said.count("\n") == 1, said
    assert "No space left on device" in said or "disk is full" in said, said
    return True


def test_a_device_whose_disk_is_full_keeps_its_version_and_goes_on_when_there_is_room(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device, config = made(capsys, tmp_path, disk)
    failed = 0
    assert run(capsys, "sync", "--config", config)[0] == 0
    for version, room in enumerate(ROOMS, 2):
        publish(capsys, device.origin.feed, version)
        ballast = leave(disk, room)
        refused = fails_in_one_line(*run(capsys, "sync", "--config", config))
        failed += refused
        report = verify(disk)
        assert (report.faults, report.versions) == ([], {"catalog": version - refused})
        assert run(capsys, "get", device.data_dir, "catalog", "titles", titles()[7]["key"])[0] == 0
        ballast.unlink()
        assert run(capsys, "sync", "--config", config) == (0, "")
        assert verify(disk).versions == {"catalog": version}
    assert 2 <= failed < len(ROOMS)


def test_a_first_synchronisation_that_does_not_fit_is_made_when_it_does(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, config = made(capsys, tmp_path, disk)
    for room in (0, 4096, 12 << 10):
        ballast = leave(disk, room)
        assert fails_in_one_line(*run(capsys, "sync", "--config", config))
        ballast.unlink()
    assert run(capsys, "sync", "--config", config) == (0, "")
    assert (verify(disk).faults, verify(disk).versions) == ([], {"catalog": 1})


@pytest.mark.parametrize("action", ["publish", "changes", "takedown", "rotate-key", "rollback"])
def test_a_publisher_whose_disk_is_full_changes_nothing_and_goes_on_when_there_is_room(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    feed, dataset = disk / "feed", ["--dataset", "catalog"]
    assert run(capsys, "origin", "init", feed)[0] == 0
    state = write_ndjson(tmp_path / "state.ndjson", records(1))
    edits = write_ndjson(tmp_path / "edits.ndjson", records(2)[:1])
    assert run(capsys, "origin", "publish", feed, *dataset, state)[0] == 0
    assert run(capsys, "origin", "publish", feed, *dataset, edits, "--changes")[0] == 0
    words = {
        "publish": ["publish", feed, *dataset, write_ndjson(tmp_path / "other.ndjson", records(3))],
        "changes": ["publish", feed, *dataset, state, "--changes"],
        "takedown": ["takedown", feed, *dataset, "titles", titles()[7]["key"]],
        "rotate-key": ["rotate-key", feed],
        "rollback": ["rollback", feed, *dataset, "--to", 1],
    }[action]
    failed = 0
    for room in ROOMS:
        ballast = leave(disk, room)
        refused = fails_in_one_line(*run(capsys, "origin", *words))
        failed += refused
        ballast.unlink()
        assert run(capsys, "origin", "verify", feed)[0] == 0
        if not refused:
            break
    assert failed
    if refused:
        assert run(capsys, "origin", *words)[0] == 0
    device = Device(tmp_path, Origin(feed))
    assert run(capsys, "sync", "--config", device.configure((feed / "public/catalog").as_uri())) == (0, "")
    assert run(capsys, "origin", "publish", feed, *dataset, edits, "--changes")[0] == 0
