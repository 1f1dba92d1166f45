"""A device, a pin and a bundle find their way through the pages of a chain."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.errors import HashError, MissingError
from edged.feed import cbor
from edged.origin.bundling import export_bundle
from edged.origin.publisher import Publisher
from edged.replica.writer import Writer
from edged.sync.task import SyncOutcome, import_bundle
from edged.sync.transports.file import FileTransport
from edged.sync.transports.transport import Traffic
from tests.sync.driving import held, sync
from tests.sync.simulator import NOW, Device

VERSIONS = 17
TEXT = "so that hops are cheaper, and the slice does not shrink" * 20


class Bench:
    """A publisher whose pages are small, and a device that follows its files."""

    def __init__(self, tmp_path: Path) -> None:
        self.publisher = Publisher.init(tmp_path / "feed", clock=lambda: float(NOW))
        records = [("titles", f"t{n}", {"n": n, "text": TEXT}) for n in range(100)]
        self.publisher.publish("catalog", records)
        self.device = Device(tmp_path / "data", str(self.publisher.trust_path))

    def edit(self, first: int, last: int) -> None:
        for version in range(first, last + 1):
            self.publisher.publish_changes("catalog", [("titles", f"t{version}", {"n": -version, "text": TEXT})])

    async def sync(self) -> SyncOutcome:
        return await sync(self.device, FileTransport((self.publisher.public / "catalog").as_uri(), Traffic()))

    def kinds(self) -> dict[str, list[Path]]:
        with self.publisher.reading("catalog") as state:
            rows = list(state.rows("SELECT kind, sha256 FROM blobs"))
        found: dict[str, list[Path]] = {}
        for kind, sha256 in rows:
            found.setdefault(kind, []).append(self.publisher.public / "catalog" / "blobs" / sha256.hex())
        return found

    def value(self, number: int) -> object:
        return cbor.decode(held(self.device)["titles", f"t{number}"], "test")["n"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("edged.origin.blobs.pages.PAGE_CHANGES", 4)
    monkeypatch.setattr("edged.origin.blobs.pages.RECENT_CHANGES", 2)
    monkeypatch.setattr("edged.origin.retention.PAGE_CHANGES", 4)
    return Bench(tmp_path)


async def test_a_device_far_behind_takes_a_page(bench: Bench) -> None:
    bench.edit(2, 3)
    await bench.sync()
    bench.edit(4, VERSIONS)
    assert len(bench.kinds()["page"]) >= 3
    for path in bench.kinds()["part"]:
        path.unlink()  # so that only hops lead there
    outcome = await bench.sync()
    assert (outcome.version, outcome.error) == (VERSIONS, None)
    assert [bench.value(number) for number in (3, 4, VERSIONS, 50)] == [-3, -4, -VERSIONS, 50]


async def test_a_pin_to_a_version_within_a_page(bench: Bench) -> None:
    bench.edit(2, VERSIONS)
    await bench.sync()
    with Writer.open(bench.device.directory, "catalog") as writer:
        writer.pin(7)
    outcome = await bench.sync()
    assert (outcome.version, outcome.error) == (7, None)
    assert [bench.value(number) for number in (7, 8)] == [-7, 8]


async def test_a_bundle_carries_the_pages_that_it_needs(bench: Bench, tmp_path: Path) -> None:
    bench.edit(2, VERSIONS)
    export_bundle(bench.publisher.path, tmp_path / "bundle", "catalog")
    outcome = await import_bundle(bench.device.directory, tmp_path / "bundle", bench.publisher.trust_path)
    assert outcome.version == VERSIONS
    assert bench.value(VERSIONS) == -VERSIONS


async def test_a_page_that_is_damaged_or_missing(bench: Bench) -> None:
    bench.edit(2, 3)
    await bench.sync()
    bench.edit(4, VERSIONS)
    pages = bench.kinds()["page"]
    whole = {path: path.read_bytes() for path in pages}
    for path in pages:
        path.write_bytes(bytes(len(whole[path])))
    assert isinstance((await bench.sync()).error, HashError)
    for path in pages:
        path.unlink()
    assert isinstance((await bench.sync()).error, MissingError)
    for path in pages:
        path.write_bytes(whole[path])
    assert (await bench.sync()).version == VERSIONS
