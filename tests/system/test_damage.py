"""Flash that decays where no app reads: what `edged verify` finds, `edged sync` and a running daemon mend."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import edged as library
from edged.configfile import load
from edged.daemon import Daemon
from edged.errors import RequestError, StoreError
from edged.replica.files.disk import PACKS, explained
from edged.replica.files.manifest import PackRef, file_name
from edged.replica.writer import Writer
from tests.system.programs import DEADLINE_S, Device, Origin, Program, Running, edged, edged_json, get, titles

INDEX = '[collections.titles]\nindex = ["year"]\ntext = ["title"]\n'


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """One with an index, which holds a version."""
    origin = Origin.make(tmp_path)
    (origin.feed / "catalog.toml").write_text(INDEX)
    origin.publish(titles(300))
    made = Device(tmp_path, origin)
    edged("sync", "--config", made.configure(origin.public.as_uri()))
    return made


def base(device: Device) -> PackRef:
    with library.open(device.data_dir) as replica:
        return replica["catalog"].view().manifest.slices["core"].base[0]


def pack_file(device: Device) -> Path:
    return device.data_dir / "catalog" / PACKS / file_name(base(device).number)


def index_file(device: Device) -> Path:
    index = base(device).index
    assert index is not None
    return device.data_dir / "catalog" / PACKS / file_name(index.number)


def flip(path: Path, place: float | int) -> None:
    """One bit, in the file that a daemon has mapped; place: a byte's number or a share of the file."""
    with open(path, "r+b") as file:
        at = place if isinstance(place, int) else int(os.path.getsize(path) * place)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()  # not truncated where a daemon has it mapped, which no program survives
    path.write_bytes(data[: len(data) // 2])


def values_of(path: Path) -> None:
    flip(path, 0.4)


PACK_AND_INDEX: list[tuple[Callable[[Device], Path], Callable[[Path], None], bool]] = [
    (pack_file, values_of, True),
    (index_file, values_of, False),
    (index_file, cut, False),
    (index_file, Path.unlink, False),
]
KINDS = pytest.mark.parametrize(
    ("file", "harm", "fetched"), PACK_AND_INDEX, ids=["pack", "index", "index cut", "index deleted"]
)


@KINDS
def test_sync_mends_what_verify_has_found(
    device: Device, file: Callable[[Device], Path], harm: Callable[[Path], None], fetched: bool
) -> None:
    harm(file(device))
    refused = edged("verify", device.data_dir, code=3)
    assert "edged sync" in refused.stderr
    assert file(device).name in refused.stdout
    config = device.place / "edged.toml"
    status = edged_json("sync", "--config", config)["datasets"]["catalog"]
    assert status["repairs"] == 1
    assert status["snapshots_applied"] == fetched  # an index is made anew from its pack, without the network
    assert status["last_error"] is None
    edged("verify", device.data_dir)
    with library.open(device.data_dir) as replica:
        assert len(list(replica["catalog"]["titles"].where(year=1985))) == 8
    assert edged_json("sync", "--config", config)["datasets"]["catalog"]["repairs"] == 0


def wait_whole(device: Device, daemon: Running) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while (done := edged("verify", device.data_dir, code=None)).returncode:
        assert time.monotonic() < deadline, (done.stdout, daemon.program.lines)


@KINDS
def test_a_daemon_mends_what_it_finds_at_its_start_and_when_told_to_look(
    device: Device, file: Callable[[Device], Path], harm: Callable[[Path], None], fetched: bool
) -> None:
    config = device.place / "edged.toml"
    harm(file(device))
    with device.running(config) as daemon:
        status = daemon.wait_status(lambda status: status["repairs"] == 1)
        assert status["snapshots_applied"] == fetched
        wait_whole(device, daemon)
        daemon.wait_status(lambda status: status["connected"] and status["last_error"] is None)
        harm(file(device))
        edged("verify", device.data_dir, code=3)
        daemon.program.process.send_signal(signal.SIGHUP)
        daemon.wait_status(lambda status: status["repairs"] == 2)
        wait_whole(device, daemon)
        metrics = get(f"{daemon.admin}/metrics").body.decode()
        assert 'edged_sync_repairs_total{dataset="catalog"} 2' in metrics
        assert daemon.record("1985/Title_00005").status == 200
        assert daemon.program.stop() == 0


def zero(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(bytes(32))  # the header; what follows may be a pack


MANIFEST_HARMS = pytest.mark.parametrize(
    "harm", [lambda path: flip(path, 5), zero, Path.unlink], ids=["flip", "zero", "deleted"]
)


@MANIFEST_HARMS
@pytest.mark.parametrize("versions", [1, 2])
def test_a_daemon_goes_on_serving_while_the_live_manifest_is_damaged_and_writes_it_again(
    tmp_path: Path, harm: Callable[[Path], None], versions: int
) -> None:
    origin = Origin.make(tmp_path)
    records = titles(60)
    origin.publish(records)
    device = Device(tmp_path, origin)
    config = device.configure(origin.public.as_uri())
    with device.running(config) as daemon:
        daemon.wait_version(1)
        if versions == 2:
            records = titles(60, edited=3)
            origin.publish(records)
            daemon.wait_version(2)
        harm(device.data_dir / "catalog" / "manifest")
        # No app has asked before, and each of these answers is made, not remembered.
        for number, record in enumerate(records):
            answer = daemon.record(record["key"], X_Number=str(number))
            assert (answer.status, answer.headers["edged-version"]) == (200, str(versions)), daemon.program.lines
            assert answer.json == record["value"]
        daemon.program.process.send_signal(signal.SIGHUP)
        status = daemon.wait_status(lambda status: status["repairs"] >= 1)
        assert status["snapshots_applied"] == 1  # written again from memory
        wait_whole(device, daemon)
        with library.open(device.data_dir) as replica:
            assert replica["catalog"].version == versions
        origin.publish(titles(60, edited=9))
        daemon.wait_version(versions + 1)
        wait_whole(device, daemon)
        assert daemon.program.stop() == 0


@MANIFEST_HARMS
def test_a_daemon_that_starts_with_a_damaged_manifest_fetches_again(
    device: Device, harm: Callable[[Path], None]
) -> None:
    harm(device.data_dir / "catalog" / "manifest")
    (device.data_dir / "catalog" / "manifest.1").unlink(missing_ok=True)
    with device.running(device.place / "edged.toml") as daemon:
        daemon.wait_version(1)
        assert daemon.record("1985/Title_00005").status == 200
        wait_whole(device, daemon)


def test_verify_says_what_is_missing_and_where_replicas_are(device: Device, tmp_path: Path) -> None:
    (device.data_dir / "catalog" / "manifest").unlink()
    (device.data_dir / "catalog" / "manifest.1").unlink(missing_ok=True)
    lost = edged("verify", device.data_dir, code=3)
    assert "catalog/manifest: missing" in lost.stderr
    edged("sync", "--config", device.place / "edged.toml")
    assert edged("verify", device.data_dir).stdout.startswith("whole: catalog 1; ")
    (tmp_path / "bare").mkdir()
    assert edged("verify", tmp_path / "bare").stdout.startswith("nothing to verify: there is no dataset below")
    for words in (["verify", tmp_path / "none"], ["get", tmp_path / "none", "catalog", "titles", "x"]):
        said = edged(*words, code=1).stderr
        assert "there is no such directory; edged keeps replicas in /var/lib/edged" in said
        assert said.count("\n") == 1


def test_a_pin_at_a_version_that_does_not_exist_is_refused_with_the_newest_one(device: Device, tmp_path: Path) -> None:
    with device.running(tmp_path / "edged.toml") as daemon:
        daemon.wait_status(lambda status: status["connected"])
        address = daemon.admin.removeprefix("http://")
        config = tmp_path / "ask.toml"
        config.write_text(f'[admin]\nbind = ["{address}"]\n')
        refused = edged("pin", "catalog", "9999", "--config", config, code=1)
        assert "no such version yet, the newest one known is 1" in refused.stderr
        assert daemon.status()["pinned"] is None
        edged("pin", "catalog", "1", "--config", config)
        assert daemon.status()["pinned"] == 1


async def test_a_disk_that_is_read_only_at_the_start_is_served_from_and_synced_once_it_can_be(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.origin.publish(titles(300, edited=5))
    opened = Writer.open
    read_only = True

    def refuse(data_dir: str | os.PathLike[str], dataset: str) -> Writer:
        if read_only:
            with explained("open", data_dir):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(data_dir, dataset)

    monkeypatch.setattr(Writer, "open", refuse)
    monkeypatch.setattr("edged.daemon.REOPEN_S", 0.02)
    daemon = Daemon(load(tmp_path / "edged.toml"))
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            running = Running(Program(None), daemon.app_urls[0], daemon.admin_urls[0], "catalog")  # type: ignore[arg-type]
            status = await trio.to_thread.run_sync(running.status)
            assert (status["version"], status["state"]) == (1, "fresh")
            assert "read-only" in status["last_error"]
            assert (await trio.to_thread.run_sync(get, f"{daemon.admin_urls[0]}/readyz")).status == 200
            assert (await trio.to_thread.run_sync(running.record, "1985/Title_00005")).status == 200
            with pytest.raises(RequestError, match="read-only"):
                await daemon.pin("catalog", 1)
            read_only = False
            await daemon.wait_for("catalog", 2)
            while daemon.stations["catalog"].status.last_error is not None:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.01)
            daemon.stop()


def test_a_disk_that_is_read_only_and_holds_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = Origin.make(tmp_path)
    origin.publish(titles(5))
    config = load(Device(tmp_path, origin).configure(origin.public.as_uri()))

    def refuse(data_dir: str | os.PathLike[str], dataset: str) -> Writer:
        with explained("open", data_dir):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Writer, "open", refuse)
    with pytest.raises(StoreError, match="read-only"):
        trio.run(Daemon(config).run)
