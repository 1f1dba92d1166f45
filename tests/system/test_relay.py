"""`edged run` as a relay, from the command line: what it hands on, what it says, and that it needs nothing above."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.programs import Device, Origin, Program, edged, edged_json, get, running, titles


@contextmanager
def relaying(place: Path, relay: str) -> Iterator[tuple[Program, str, str]]:
    """A relay that answers, its base URL, and its admin listener."""
    config = place / "relay.toml"
    config.write_text(
        f'[daemon]\ndata_dir = "{place}/relay"\n[serve]\nbind = ["unix:{place}/apps.sock"]\n'
        f'[relay]\nbind = ["127.0.0.1:0"]\n{relay}\n[admin]\nbind = ["127.0.0.1:0"]\n'
    )
    edged("check", "--config", config)
    with running("run", "--config", config) as program:
        url = program.wait_for(r"serving other edgeds.*?(http://127\.0\.0\.1:\d+)")[1]
        admin = program.wait_for(r"serving operators.*?(http://127\.0\.0\.1:\d+)")[1]
        yield program, url, admin


def test_a_relay_by_pattern_serves_a_device_and_after_the_end_of_its_origin_a_new_one(tmp_path: Path) -> None:
    origin = Origin.make(tmp_path)
    origin.publish(titles(50))
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with origin.served() as above:
        base = above.rpartition("/")[0]
        settings = f'datasets = ["*"]\norigin = ["{base}"]\ntrust = "{origin.feed}/root.trust"'
        with relaying(tmp_path, settings) as (program, url, admin):
            device = Device(tmp_path / "one", origin)
            with device.running(device.configure(f"{url}/catalog")) as running_device:
                running_device.wait_version(1)
                origin.publish(titles(50, edited=3))
                running_device.wait_version(2)
                document = get(f"{admin}/status").json["relay"]
                assert document["datasets"]["catalog"]["version"] == 2
                assert document["waiting"] >= 1
                metrics = get(f"{admin}/metrics").body
                assert b'edged_relay_dataset_version{dataset="catalog"} 2\n' in metrics
                assert b"edged_relay_waiting" in metrics
            told = edged("status", "--config", write_admin(tmp_path, admin)).stdout
            assert f"relay at {url}" in told
            assert program.stop() == 0
    # Nothing above is there any more, and the relay starts anew.
    with relaying(tmp_path, settings) as (program, url, _):
        fresh = Device(tmp_path / "two", origin)
        done = edged("sync", "--config", fresh.configure(f"{url}/catalog"))
        assert "catalog" in done.stdout
        assert program.stop() == 0
    assert edged_json("get", fresh.data_dir, "catalog", "titles", titles(1)[0]["key"])["rating"] == 7.5


def write_admin(place: Path, admin: str) -> Path:
    path = place / "ask.toml"
    path.write_text(f'[admin]\nbind = ["{admin.removeprefix("http://")}"]\n')
    return path
