"""Bundles: made from a real feed, taken by a real replica, and every way in which one can be wrong."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
import trio

from edged.cli.main import main
from edged.errors import MissingError, OriginError, TrustError, WireError
from edged.feed.blob import BlobRef
from edged.feed.bundle import HEADER_BYTES, MAGIC, Bundle, read_layout
from edged.origin.bundling import export_bundle
from edged.origin.publisher import Publisher
from edged.sync.core.judge import ExpiredError
from edged.sync.task import import_bundle
from tests.sync.driving import held
from tests.sync.simulator import Device, flip

TITLES = [("titles", f"t{number:03}", {"title": f"Film {number}", "year": 1950 + number}) for number in range(60)]


@pytest.fixture(scope="module")
def feed_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("feed")
    publisher = Publisher.init(path)
    (path / "catalog.toml").write_text("[slices.early]\nwhere = { year = [1950, 1951] }\n")
    publisher.publish("catalog", TITLES)
    publisher.publish_changes("catalog", [("titles", "t005", {"title": "Changed", "year": 1955})])
    return path


@pytest.fixture
def bundle(feed_dir: Path, tmp_path: Path) -> Path:
    out = tmp_path / "catalog.bundle"
    done = export_bundle(feed_dir, out, "catalog")
    assert (done.version, done.slices, done.size) == (2, ("core",), out.stat().st_size)
    return out


def take(data_dir: Path, bundle: Path, feed_dir: Path) -> object:
    outcome = trio.run(import_bundle, data_dir, bundle, feed_dir / "root.trust")
    return outcome.error or outcome.version


def test_a_bundle_seeds_a_replica(feed_dir: Path, bundle: Path, tmp_path: Path) -> None:
    assert take(tmp_path / "data", bundle, feed_dir) == 2
    records = held(Device(tmp_path / "data", ""))
    assert len(records) == 58  # those of the years 1950 and 1951 are in another slice
    assert take(tmp_path / "data", bundle, feed_dir) == 2


def test_a_bundle_with_a_slice_adds_it(feed_dir: Path, bundle: Path, tmp_path: Path) -> None:
    take(tmp_path / "data", bundle, feed_dir)
    more = tmp_path / "more.bundle"
    export_bundle(feed_dir, more, "catalog", ["early"])
    assert take(tmp_path / "data", more, feed_dir) == 2
    assert len(held(Device(tmp_path / "data", ""), "early")) == 2


def test_a_newer_bundle_updates_and_an_older_one_is_a_rollback(tmp_path: Path) -> None:
    path = tmp_path / "feed"
    publisher = Publisher.init(path)
    bundles = []
    for number in range(3):
        publisher.publish("catalog", [*TITLES, ("titles", "new", {"edit": number})])
        bundles.append(tmp_path / f"{number}.bundle")
        export_bundle(path, bundles[-1], "catalog")
    assert take(tmp_path / "data", bundles[0], path) == 1
    assert take(tmp_path / "data", bundles[2], path) == 3
    refused = take(tmp_path / "data", bundles[1], path)
    assert isinstance(refused, TrustError)
    assert "rollback" in str(refused)


def test_keys_rotated_before_the_bundle_was_made(tmp_path: Path) -> None:
    path = tmp_path / "feed"
    publisher = Publisher.init(path)
    publisher.publish("catalog", TITLES)
    first = (path / "root.trust").read_bytes()
    publisher.rotate_key()
    export_bundle(path, tmp_path / "b", "catalog")
    (tmp_path / "old.trust").write_bytes(first)
    outcome = trio.run(import_bundle, tmp_path / "data", tmp_path / "b", tmp_path / "old.trust")
    assert (outcome.error, outcome.version) == (None, 1)


def test_trust_file_of_another_feed(bundle: Path, tmp_path: Path) -> None:
    Publisher.init(tmp_path / "other")
    refused = take(tmp_path / "data", bundle, tmp_path / "other")
    assert isinstance(refused, TrustError)
    assert held(Device(tmp_path / "data", "")) == {}


def test_every_flipped_byte_is_refused_or_harmless(feed_dir: Path, bundle: Path, tmp_path: Path) -> None:
    """Wherever the damage is, a replica never holds anything but what was signed."""
    data = bundle.read_bytes()
    take(tmp_path / "good", bundle, feed_dir)
    rightful = held(Device(tmp_path / "good", ""))
    damaged = tmp_path / "damaged"
    for place in range(0, len(data), max(1, len(data) // 60)):
        damaged.write_bytes(flip(data, place))
        target = tmp_path / f"data{place}"
        try:
            take(target, damaged, feed_dir)
        except (WireError, MissingError):
            continue
        for dataset in target.iterdir():
            assert held(Device(target, "", dataset.name)) in ({}, rightful)


@pytest.mark.parametrize("cut", [0, 12, 15, 17, 200, -1])
def test_cut_short(bundle: Path, feed_dir: Path, tmp_path: Path, cut: int) -> None:
    bundle.write_bytes(bundle.read_bytes()[:cut])
    with pytest.raises(WireError, match="bundle"):
        take(tmp_path / "data", bundle, feed_dir)


def test_data_after_the_end(bundle: Path, feed_dir: Path, tmp_path: Path) -> None:
    bundle.write_bytes(bundle.read_bytes() + b"x")
    with pytest.raises(WireError, match="data follows"):
        take(tmp_path / "data", bundle, feed_dir)


def test_header_that_claims_to_be_huge() -> None:
    with pytest.raises(WireError, match="at most"):
        read_layout(io.BytesIO(MAGIC + (HEADER_BYTES + 1).to_bytes(4, "big") + bytes(100)))


@pytest.mark.parametrize("name", ["../../etc", "", ".", "a/b", "a..b"])
def test_dataset_that_would_leave_its_directory(name: str) -> None:
    header = Bundle(name, frozenset({"core"}), b"", {}, ()).encode()
    with pytest.raises(WireError, match="dataset name"):
        read_layout(io.BytesIO(header))


def test_blob_named_twice() -> None:
    ref = BlobRef.of(b"x")
    header = Bundle("catalog", frozenset({"core"}), b"", {}, (ref, ref)).encode()
    with pytest.raises(WireError, match="twice"):
        read_layout(io.BytesIO(header + b"xx"))


def test_export_of_what_is_not_there(feed_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(OriginError, match="is it published there"):
        export_bundle(feed_dir, tmp_path / "b", "music")
    with pytest.raises(OriginError, match="no slice late; it has core, early"):
        export_bundle(feed_dir, tmp_path / "b", "catalog", ["late"])
    assert list(tmp_path.iterdir()) == []


def test_export_of_a_feed_with_a_damaged_blob(tmp_path: Path) -> None:
    path = tmp_path / "feed"
    Publisher.init(path).publish("catalog", TITLES)
    for blob in (path / "public" / "catalog" / "blobs").iterdir():
        blob.write_bytes(flip(blob.read_bytes(), 3))
    with pytest.raises(WireError, match="its SHA-256 is"):
        export_bundle(path, tmp_path / "b", "catalog")
    assert not (tmp_path / "b").exists()


def test_bundle_whose_head_has_expired_is_taken_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "feed"
    publisher = Publisher.init(path, clock=lambda: time.time() - 400 * 86_400)
    publisher.publish("catalog", TITLES)
    export_bundle(path, tmp_path / "b", "catalog")
    outcome = trio.run(import_bundle, tmp_path / "data", tmp_path / "b", path / "root.trust")
    assert isinstance(outcome.error, ExpiredError)
    assert outcome.version == 1


def test_commands(feed_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, data_dir = str(tmp_path / "b"), str(tmp_path / "data")
    assert main(["bundle", "export", str(feed_dir), out, "--dataset", "catalog", "--slice", "early", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["version"], said["slices"]) == (2, ["core", "early"])
    trust = str(feed_dir / "root.trust")
    assert main(["bundle", "import", data_dir, out, "--trust", trust]) == 0
    assert "catalog: version 2, from 0 to 2" in capsys.readouterr().out
    assert main(["bundle", "import", data_dir, out, "--trust", str(tmp_path / "none")]) == 2
    assert "read the trust file" in capsys.readouterr().err
    Publisher.init(tmp_path / "other")
    assert main(["bundle", "import", data_dir, out, "--trust", str(tmp_path / "other" / "root.trust")]) == 3
    assert main(["bundle", "import", data_dir, str(tmp_path / "none"), "--trust", trust]) == 1
