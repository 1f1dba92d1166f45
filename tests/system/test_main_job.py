"""The main job through the real programs: publish, serve the feed, sync, answer apps; and what must not break it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import cbor2
import pytest

import edged as library
from tests.system.programs import RECORDS, Device, Origin, edged, edged_json, get, running, titles


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feed with one version, to be copied."""
    place = tmp_path_factory.mktemp("published")
    Origin.make(place).publish(titles())
    return place


@pytest.fixture
def origin(published: Path, tmp_path: Path) -> Origin:
    shutil.copytree(published / "feed", tmp_path / "feed", symlinks=True)
    return Origin(tmp_path / "feed")


@pytest.fixture
def device(origin: Origin, tmp_path: Path) -> Device:
    return Device(tmp_path, origin)


@pytest.fixture(scope="module")
def two_behind(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feed and a device two versions behind it, to be copied. The changes are large: the head alone does not carry
    the device the whole way.
    """
    place = tmp_path_factory.mktemp("two-behind")
    shutil.copytree(published / "feed", place / "feed", symlinks=True)
    origin = Origin(place / "feed")
    edged("sync", "--config", Device(place, origin).configure(origin.public.as_uri()))
    origin.publish(titles(600))
    origin.publish(titles(900))
    return place


def blob_bytes(origin: Origin) -> int:
    return sum(path.stat().st_size for path in (origin.public / "blobs").iterdir())


def test_a_published_film_is_served_as_json_and_cbor_and_an_edit_comes_as_a_hop(origin: Origin, device: Device) -> None:
    film = titles()[3]
    with origin.served() as url, device.running(device.configure(url)) as daemon:
        before = daemon.wait_version(1)
        assert get(f"{daemon.admin}/readyz").status == 200
        as_json = daemon.record(film["key"])
        assert as_json.json == film["value"]
        assert as_json.headers["edged-version"] == "1"
        assert as_json.headers["edged-state"] == "fresh"
        as_cbor = daemon.record(film["key"], Accept="application/cbor")
        assert as_cbor.body == cbor2.dumps(film["value"], canonical=True)
        listed = get(f"{daemon.apps}/v1/catalog/titles?prefix=1983/&limit=2").json
        assert [item["key"] for item in listed["items"]] == ["1983/Title_00003", "1983/Title_00043"]

        snapshot_bytes = before["bytes_received"]
        published_at = time.monotonic()
        result = origin.publish(titles(edited=2))
        assert result["version"] == 2
        daemon.wait_version(2)
        assert time.monotonic() - published_at < 2 + 1.5  # `publish` itself starts a process
        after = daemon.wait_status(lambda status: status["hops_applied"] == 1)  # told after it is served
        assert after["snapshots_applied"] == 1
        assert after["bytes_received"] - snapshot_bytes < 1500
        assert daemon.record(titles()[1]["key"]).json["rating"] == 7.5
        assert daemon.record(film["key"]).json == film["value"]
        assert daemon.program.stop() == 0


def test_the_commands_and_the_library_read_the_same_replica(origin: Origin, device: Device) -> None:
    config = device.configure(origin.public.as_uri())
    synced = edged_json("sync", "--config", config)
    assert synced["datasets"]["catalog"]["version"] == 1
    film = titles()[7]
    assert edged_json("get", device.data_dir, "catalog", "titles", film["key"]) == film["value"]
    assert edged_json("ls", device.data_dir)["catalog"]["records"] == RECORDS
    assert edged_json("ls", device.data_dir, "catalog") == {"titles": RECORDS}
    keys = edged_json("ls", device.data_dir, "catalog", "titles", "--prefix", "1985/", "--limit", "3")
    assert keys == sorted(record["key"] for record in titles() if record["key"].startswith("1985/"))[:3]
    assert edged_json("verify", device.data_dir)["faults"] == []
    with library.open(device.data_dir) as replica:
        assert replica["catalog"]["titles"][film["key"]] == film["value"]
        assert replica["catalog"].version == 1
    assert "nowhere" in edged("get", device.data_dir, "catalog", "titles", "nowhere", code=1).stderr


def test_a_daemon_without_a_network_serves_what_it_has(origin: Origin, device: Device) -> None:
    config = device.configure("http://127.0.0.1:1/catalog")
    edged("sync", "--config", device.configure(origin.public.as_uri()))
    config = device.configure("http://127.0.0.1:1/catalog")
    with device.running(config) as daemon:
        assert daemon.record(titles()[0]["key"]).json == titles()[0]["value"]
        status = daemon.wait_status(lambda status: status["last_error"])
        assert "127.0.0.1:1" in status["last_error"]
    assert edged("sync", "--config", config, code=1).stderr.startswith("edged: ")


def test_a_daemon_that_has_nothing_yet_says_so_and_does_not_fail(origin: Origin, device: Device) -> None:
    with device.running(device.configure("http://127.0.0.1:1/catalog")) as daemon:
        answer = daemon.record("1980/Title_00000")
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert get(f"{daemon.admin}/readyz").status == 503
        assert get(f"{daemon.admin}/healthz").status == 200


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.2, 0.4])
def test_kill_9_during_the_first_sync_or_an_update_leaves_a_whole_version(
    origin: Origin, device: Device, after_s: float
) -> None:
    config = device.configure(origin.public.as_uri())
    with running("sync", "--config", config) as program:
        time.sleep(after_s)
        program.kill()
    edged("sync", "--config", config)
    origin.publish(titles(edited=50))
    with running("sync", "--config", config) as program:
        time.sleep(after_s)
        program.kill()
    with device.running(device.configure("http://127.0.0.1:1/catalog")) as daemon:
        version = daemon.status()["version"]
        rating = daemon.record(titles()[0]["key"]).json["rating"]
        assert (version, rating) in {(1, 5.25), (2, 7.5)}
    assert edged_json("verify", device.data_dir)["faults"] == []


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def blobs_since(origin: Origin, known: set[str]) -> list[Path]:
    return [path for path in (origin.public / "blobs").iterdir() if path.name not in known]


def refuse_wrong_key(origin: Origin, place: Path) -> None:
    other = Origin.make(place / "other")
    other.publish(titles(10))
    other.publish(titles(10, edited=1))
    other.publish(titles(10, edited=2))
    shutil.copy(other.public / "head", origin.public / "head")


def refuse_flipped_head(origin: Origin, place: Path) -> None:
    damage(origin.public / "head")


def refuse_flipped_blob(origin: Origin, place: Path) -> None:
    for path in (origin.public / "blobs").iterdir():
        damage(path)


def refuse_missing_blob(origin: Origin, place: Path) -> None:
    shutil.rmtree(origin.public / "blobs")


def refuse_truncated_blob(origin: Origin, place: Path) -> None:
    for path in (origin.public / "blobs").iterdir():
        path.chmod(0o644)
        os.truncate(path, path.stat().st_size - 1)


def refuse_truncated_head(origin: Origin, place: Path) -> None:
    os.truncate(origin.public / "head", 40)


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (refuse_wrong_key, 3),
        (refuse_flipped_head, 3),
        (refuse_truncated_head, 3),
        (refuse_flipped_blob, 3),
        (refuse_missing_blob, 1),
        (refuse_truncated_blob, 3),
    ],
)
def test_a_damaged_or_forged_feed_is_refused_and_serving_goes_on(
    two_behind: Path, tmp_path: Path, attack: Any, code: int
) -> None:
    shutil.copytree(two_behind, tmp_path, symlinks=True, dirs_exist_ok=True)
    origin = Origin(tmp_path / "feed")
    device = Device(tmp_path, origin)
    config = device.configure(origin.public.as_uri())
    (tmp_path / "other").mkdir()
    attack(origin, tmp_path)
    refused = edged("sync", "--config", config, code=code)
    assert refused.stderr.startswith("edged: ")
    assert len(refused.stderr.strip().splitlines()) == 1
    with device.running(config) as daemon:
        status = daemon.wait_status(lambda status: status["last_error"])
        assert status["version"] == 1
        assert daemon.record(titles()[3]["key"]).json == titles()[3]["value"]
    assert edged_json("verify", device.data_dir)["faults"] == []


def test_pinned_at_a_version_until_unpinned(origin: Origin, device: Device) -> None:
    with origin.served() as url, device.running(device.configure(url)) as daemon:
        daemon.wait_version(1)
        control = device.place / "control.toml"
        address = daemon.admin.removeprefix("http://")
        control.write_text(f'[admin]\nbind = ["{address}"]\n')
        assert edged_json("pin", "catalog", "1", "--config", control)["pinned"] == 1
        origin.publish(titles(edited=1))
        time.sleep(1.0)
        assert daemon.status()["version"] == 1
        assert edged_json("status", "--config", control)["datasets"]["catalog"]["pinned"] == 1
        edged("unpin", "catalog", "--config", control)
        daemon.wait_version(2)
        assert "catalog" in edged("status", "--config", control).stdout


def test_taken_down_is_410_and_restored_is_back(origin: Origin, device: Device) -> None:
    key = titles()[5]["key"]
    with origin.served() as url, device.running(device.configure(url)) as daemon:
        daemon.wait_version(1)
        edged("origin", "takedown", origin.feed, "--dataset", "catalog", "titles", key)
        daemon.wait_status(lambda status: status["version"] > 1)
        assert daemon.record(key).status == 410
        edged("origin", "restore", origin.feed, "--dataset", "catalog", "titles", key)
        daemon.wait_status(lambda status: status["version"] > 2)
        assert daemon.record(key).json == titles()[5]["value"]


def test_rollback_publishes_old_content_as_a_new_version(origin: Origin, device: Device) -> None:
    origin.publish(titles(edited=3))
    edged("origin", "rollback", origin.feed, "--dataset", "catalog", "--to", 1)
    edged("sync", "--config", device.configure(origin.public.as_uri()))
    with library.open(device.data_dir) as replica:
        assert replica["catalog"].version == 3
        assert replica["catalog"]["titles"][titles()[0]["key"]]["rating"] == 5.25


def test_a_bundle_seeds_a_device_without_a_network(origin: Origin, device: Device, tmp_path: Path) -> None:
    bundle = tmp_path / "catalog.bundle"
    edged("bundle", "export", origin.feed, bundle, "--dataset", "catalog")
    edged("bundle", "import", device.data_dir, bundle, "--trust", origin.feed / "root.trust")
    assert edged_json("get", device.data_dir, "catalog", "titles", titles()[0]["key"]) == titles()[0]["value"]
    shutil.rmtree(device.data_dir)
    config = device.configure("http://127.0.0.1:1/catalog", more=f'seed = "{bundle}"')
    with device.running(config) as daemon:
        daemon.wait_version(1)
        assert daemon.record(titles()[0]["key"]).json == titles()[0]["value"]


def test_a_rotated_key_is_taken_and_the_old_one_refused(origin: Origin, device: Device) -> None:
    config = device.configure(origin.public.as_uri())
    edged("sync", "--config", config)
    old_head = (origin.public / "head").read_bytes()
    edged("origin", "rotate-key", origin.feed)
    origin.publish(titles(edited=1))
    edged("sync", "--config", config)
    (origin.public / "head").write_bytes(old_head)
    assert edged("sync", "--config", config, code=3).stderr.startswith("edged: ")


def test_the_log_tells_what_each_version_cost(origin: Origin) -> None:
    origin.publish(titles(edited=2))
    log = edged_json("origin", "log", origin.feed, "--dataset", "catalog")
    assert [entry["version"] for entry in log["versions"]] == [1, 2]
    assert (log["versions"][1]["added"], log["versions"][1]["changed"], log["versions"][1]["removed"]) == (0, 2, 0)
    assert "titles" in edged("origin", "log", origin.feed, "--dataset", "catalog", "--diff", 1, 2).stdout


def test_check_names_faults_and_exits_2(origin: Origin, device: Device) -> None:
    config = device.configure("ftp://nowhere", slices=("../etc",))
    refused = edged("check", "--config", config, code=2)
    assert len(refused.stderr.splitlines()) == 1
    assert ["line 5" in refused.stdout, "line 8" in refused.stdout] == [True, True]
    assert len(json.loads(edged("check", "--config", config, "--json", code=2).stdout)["faults"]) == 2
    assert "edged" in edged("check", "--config", device.configure(origin.public.as_uri())).stdout


def test_an_address_in_use_is_one_clear_line(origin: Origin, device: Device) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = device.configure(origin.public.as_uri())
        config.write_text(config.read_text().replace("127.0.0.1:0", address))
        for words in (["run", "--config", config], ["origin", "serve", origin.feed, "--bind", address]):
            refused = edged(*words, code=2)
            assert address in refused.stderr.splitlines()[-1]
            assert "Traceback" not in refused.stderr


def test_a_second_daemon_on_the_same_replica_is_refused(origin: Origin, device: Device) -> None:
    config = device.configure(origin.public.as_uri())
    with device.running(config) as daemon:
        daemon.wait_version(1)
        refused = edged("run", "--config", config, code=1)
        assert str(device.data_dir) in refused.stderr.splitlines()[-1]
        assert edged("sync", "--config", config, code=1).stderr.startswith("edged: ")


def test_wrong_usage_is_2() -> None:
    for words in ([], ["nonsense"], ["get"], ["pin", "catalog", "x"], ["demo", "--port", "99999"]):
        assert edged(*words, code=2).stderr
