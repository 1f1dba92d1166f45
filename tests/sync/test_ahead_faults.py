"""A version ahead on a disk that is killed, without power, full or failing at any call of its prefetch and release."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from edged import files
from edged.errors import StoreError
from edged.origin.publisher import Publisher
from edged.replica.audit import verify
from edged.replica.files import disk
from edged.sync.transports.file import FileTransport
from edged.sync.transports.transport import Traffic
from tests.replica.faults import FaultyOs, Killed
from tests.sync.driving import NOT_CONTENT, held, sync
from tests.sync.simulator import Device, Records
from tests.sync.test_ahead import after, head_of, prepare, release, sealed_files
from tests.sync.test_end_to_end import device_of, expected, titles

SAID = ("disk is full", "disk reports a fault", "disk is failing", "cannot be read", "check the medium")


@dataclass(frozen=True)
class Stages:
    """A feed's public files before a version is prepared ("published"), while it is ("prepared"), and once it is
    "released", also "lacking" the sealed blob, which then comes from a device's disk or not at all. before: the files
    of a device that holds the version before; sealed: the blob's name."""

    place: Path
    before: dict[str, bytes]
    sealed: str

    def origin(self, stage: str) -> FileTransport:
        return FileTransport((self.place / stage / "catalog").as_uri(), Traffic())

    def device(self, directory: Path) -> Device:
        device = device_of(self.place, self.origin("published").url)
        device.directory = directory
        return device

    def bytes_of(self, stage: str, name: str) -> bytes:
        return (self.place / stage / "catalog" / name).read_bytes()


def content(directory: Path) -> dict[str, bytes]:
    """The files of a device by their path."""
    root = directory / "catalog"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name not in NOT_CONTENT
    }


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    place = tmp_path_factory.mktemp("stages")
    publisher = Publisher.init(place / "feed")
    publisher.publish("catalog", titles())
    shutil.copytree(publisher.public, place / "published")
    device = device_of(place, (place / "published" / "catalog").as_uri())
    trio.run(sync, device, FileTransport(device.origin[0], Traffic()))
    prepare(publisher)
    shutil.copytree(publisher.public, place / "prepared")
    ahead = head_of(publisher).ahead
    assert ahead is not None
    sealed = ahead.hops["core"].blob.name
    release(publisher)
    shutil.copytree(publisher.public, place / "released")
    shutil.copytree(publisher.public, place / "lacking")
    (place / "lacking" / "catalog" / "blobs" / sealed).unlink()
    return Stages(place, content(device.directory), sealed)


@dataclass
class Outcome:
    """begun, done: the stages whose synchronisation began, and came to its end; errors: what was said; fetched: whether
    the sealed blob was on disk after the first."""

    begun: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    fetched: bool = False


@dataclass
class Box:
    """A device on a disk that fails as `faulty` says."""

    stages: Stages
    directory: Path
    patch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        shutil.copytree(self.stages.place / "data", self.directory)

    async def live(self, faulty: FaultyOs) -> Outcome:
        """The version is fetched ahead and then released, until that ends, fails, or the device is killed."""
        outcome, device = Outcome(), self.stages.device(self.directory)
        with self.patch.context() as patch:
            patch.setattr(disk, "os", faulty)
            patch.setattr(files, "os", faulty)
            try:
                for stage in ("prepared", "released"):
                    outcome.begun.append(stage)
                    outcome.errors += await self.synced(device, stage)
                    outcome.done.append(stage)
                    outcome.fetched |= (self.directory / "catalog" / "ahead" / self.stages.sealed).exists()
                    if outcome.errors or not outcome.fetched:
                        break
            except* Killed:
                pass
        return outcome

    async def synced(self, device: Device, stage: str) -> list[str]:
        """What the command says is wrong."""
        try:
            told = await sync(device, self.stages.origin(stage))
        except StoreError as fault:  # it could not even begin
            return [str(fault)]
        return [] if told.error is None else [str(told.error)]


Live = Callable[[Path], Box]


@pytest.fixture
def box(stages: Stages, monkeypatch: pytest.MonkeyPatch, jumping: MockClock) -> Live:
    return lambda directory: Box(stages, directory, monkeypatch)


async def calls_of(box: Live, place: Path) -> int:
    """How many calls there are."""
    one = box(place / "whole")
    faulty = FaultyOs(one.directory)
    outcome = await one.live(faulty)
    assert (outcome.done, outcome.errors) == (["prepared", "released"], [])
    assert faulty.log.count("fsync") >= 7
    return faulty.calls


def holds(device: Device) -> tuple[int, Records]:
    """The version, and its records, which are those of one version."""
    version = 1 if (records := held(device)) == expected(titles()) else 2
    assert records == (after() if version == 2 else expected(titles()))
    assert verify(device.directory).faults == []
    return version, records


def nothing_is_readable(stages: Stages, device: Device) -> None:
    """All that lies there is what lay there, the head as it is public, or the sealed blob (or a part of it)."""
    sealed = stages.bytes_of("prepared", f"blobs/{stages.sealed}")
    for name, data in content(device.directory).items():
        if name.startswith("ahead/"):
            assert sealed.startswith(data.rstrip(b"\0")) or not data.strip(b"\0") or is_torn(sealed, data), name
        elif stages.before.get(name) != data:
            assert name == "head" or Path(name).name.startswith(files.TEMPORARY), name


def is_torn(whole: bytes, data: bytes) -> bool:
    """Whether pages of it are there and others are zeros."""
    return all(mine in (theirs, 0) for mine, theirs in zip(data, whole, strict=False)) and len(data) <= len(whole)


async def survives(stages: Stages, device: Device, outcome: Outcome) -> None:
    """The device starts again: it is whole, nothing can be read before the release, and then what was fetched is live
    with no byte but the head's."""
    version, _ = holds(device)
    hidden = "released" not in outcome.begun
    if hidden:
        assert version == 1
        nothing_is_readable(stages, device)
    if "released" in outcome.done and not outcome.errors:
        assert version == 2
    if version == 1 and not outcome.fetched:
        told = await sync(device, stages.origin("prepared"))
        assert (told.version, told.error) == (1, None)
        if hidden:
            nothing_is_readable(stages, device)
    if version == 1:
        assert [path.name for path in sealed_files(device)] == [stages.sealed]
    origin = stages.origin("lacking")
    told = await sync(device, origin)
    assert (told.version, told.error) == (2, None)
    assert origin.traffic.received == len(stages.bytes_of("released", "head"))
    assert holds(device)[0] == 2
    assert sealed_files(device) == []


async def die_at(box: Live, stages: Stages, place: Path, at: int) -> None:
    one = box(place / "disk")
    faulty = FaultyOs(one.directory, at=at, chance=random.Random(at))
    outcome = await one.live(faulty)
    assert faulty.dead
    assert outcome.fetched == ("prepared" in outcome.done)
    faulty.after_power_loss(place / "lost")
    for directory in (one.directory, place / "lost"):
        await survives(stages, stages.device(directory), outcome)
    shutil.rmtree(place)


async def fail_at(box: Live, stages: Stages, place: Path, mode: str, at: int) -> None:
    """A fault that the device survives; it goes on when that is over."""
    one = box(place / "disk")
    outcome = await one.live(FaultyOs(one.directory, mode=mode, at=at))
    assert outcome.done == outcome.begun
    assert all(any(words in error for words in SAID) for error in outcome.errors), outcome.errors
    await survives(stages, stages.device(one.directory), outcome)
    shutil.rmtree(place)


async def test_killed_or_without_power_at_seeded_calls(box: Live, stages: Stages, tmp_path: Path) -> None:
    count = await calls_of(box, tmp_path)
    for at in sorted(random.Random(5).sample(range(1, count + 1), 5)):
        await die_at(box, stages, tmp_path / str(at), at)


@pytest.mark.slow
async def test_killed_or_without_power_at_every_call(box: Live, stages: Stages, tmp_path: Path) -> None:
    for at in range(1, await calls_of(box, tmp_path) + 1):
        await die_at(box, stages, tmp_path / str(at), at)


@pytest.mark.parametrize("mode", ["full", "eio"])
async def test_full_or_failing_disk_at_seeded_calls(box: Live, stages: Stages, tmp_path: Path, mode: str) -> None:
    count = await calls_of(box, tmp_path)
    for at in sorted(random.Random(6).sample(range(1, count + 1), 4)):
        await fail_at(box, stages, tmp_path / str(at), mode, at)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "eio"])
async def test_full_or_failing_disk_at_every_call(box: Live, stages: Stages, tmp_path: Path, mode: str) -> None:
    for at in range(1, await calls_of(box, tmp_path) + 1):
        await fail_at(box, stages, tmp_path / str(at), mode, at)
