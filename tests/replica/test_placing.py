"""Datasets that are kept in memory alone: nothing of them on flash, found under the same name, taken along when that
changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import edged
from edged.errors import BusyError, StoreError
from edged.replica import placing
from edged.replica.placing import is_in_memory, memory_directory, open_writer
from tests.replica.scenario import read_everything, scenario
from tests.system.programs import Device, Origin, edged_json, get, titles
from tests.system.programs import edged as command

pytestmark = pytest.mark.skipif(not is_in_memory(Path("/dev/shm")), reason="/dev/shm is no tmpfs here")


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "data"
    yield path
    shutil.rmtree(memory_directory(path), ignore_errors=True)


def on_disk(data_dir: Path) -> list[str]:
    """Names of all files below it, not behind links."""
    return [os.path.join(folder, name) for folder, _, names in os.walk(data_dir) for name in names]


def fill(data_dir: Path, *, memory: bool) -> None:
    with open_writer(data_dir, "catalog", memory=memory) as writer:
        scenario().run(writer, [])


def test_what_is_in_memory_is_read_as_anything_else_and_nothing_lies_on_disk(data_dir: Path) -> None:
    fill(data_dir, memory=True)
    assert on_disk(data_dir) == []
    assert (data_dir / "catalog").is_symlink()
    assert read_everything(data_dir) == (8, scenario().states[8])
    with open_writer(data_dir, "catalog", memory=True) as writer:  # a restart finds it
        assert writer.status().version == 8
        with pytest.raises(BusyError):
            open_writer(data_dir, "catalog", memory=True)


def test_after_a_boot_it_begins_with_nothing(data_dir: Path) -> None:
    fill(data_dir, memory=True)
    shutil.rmtree(memory_directory(data_dir))
    with pytest.raises(KeyError), edged.open(data_dir) as replica:
        replica["catalog"]["titles"]
    with open_writer(data_dir, "catalog", memory=True) as writer:
        assert writer.status().version == 0
        scenario().run(writer, [])
    assert read_everything(data_dir)[0] == 8


def test_a_replica_goes_along_into_memory_and_back(data_dir: Path) -> None:
    fill(data_dir, memory=False)
    held = read_everything(data_dir)
    for memory in (True, False, True, True, False, False):
        open_writer(data_dir, "catalog", memory=memory).close()
        assert (data_dir / "catalog").is_symlink() == memory
        assert read_everything(data_dir) == held
        assert bool(on_disk(data_dir)) != memory
    assert list(memory_directory(data_dir).iterdir()) == []


def test_a_link_into_what_is_gone_gives_way_to_a_disk(data_dir: Path) -> None:
    fill(data_dir, memory=True)
    shutil.rmtree(memory_directory(data_dir))
    with open_writer(data_dir, "catalog", memory=False) as writer:
        assert writer.status().version == 0
    assert not (data_dir / "catalog").is_symlink()


def test_where_no_directory_is_in_memory_it_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "SHARED_MEMORY", str(data_dir.parent))
    if is_in_memory(data_dir.parent):
        pytest.skip("the tests' directory is a tmpfs itself")
    with pytest.raises(StoreError, match="is a tmpfs; mount one there, or set memory = false"):
        open_writer(data_dir, "catalog", memory=True)
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/dev/shm")
    open_writer(data_dir, "catalog", memory=True).close()


@pytest.mark.parametrize("kind", ["link", "file", "open"])
def test_what_another_has_put_in_its_place_is_not_used(data_dir: Path, kind: str) -> None:
    place = memory_directory(data_dir)
    place.rmdir()
    match kind:
        case "link":
            place.symlink_to(data_dir.parent)
        case "file":
            place.write_bytes(b"")
        case _:
            place.mkdir()
            place.chmod(0o777)
    try:
        with pytest.raises(StoreError):
            open_writer(data_dir, "catalog", memory=True)
    finally:
        place.rmdir() if kind == "open" else place.unlink()


def test_a_daemon_serves_from_memory_with_all_its_processes(tmp_path: Path) -> None:
    origin = Origin.make(tmp_path)
    origin.publish(titles(5))
    device = Device(tmp_path, origin)
    config = device.configure(origin.public.as_uri(), more="memory = true")
    try:
        with device.running(config) as daemon:
            status = daemon.wait_version(1)
            assert (status["memory"], status["flash_bytes_written"]) == (True, 0)
            assert status["disk_bytes"] > 0
            origin.publish(titles(6))
            daemon.wait_version(2)
            assert get(f"{daemon.apps}/v1/catalog/titles?limit=9&count=1").json["total"] == 6
            assert [path for path in on_disk(device.data_dir) if "/catalog/" in path] == []
            found = edged_json("ls", device.data_dir, "catalog", "titles")
            assert len(found["items"] if isinstance(found, dict) else found) == 6
            assert daemon.program.stop() == 0
        command("verify", device.data_dir)
        command("sync", "--config", config)
    finally:
        shutil.rmtree(memory_directory(device.data_dir), ignore_errors=True)
