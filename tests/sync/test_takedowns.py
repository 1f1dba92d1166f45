"""What is taken down is nowhere any more: not in the feed, in a bundle, or below any device's data directory.

Every file is read as it lies there and after decoding whatever in it decodes: zstd frames wherever one begins,
snapshot parts, and values in packs, with every dictionary that lies about.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard

from edged.errors import EdgedError
from edged.feed import zstd
from edged.feed.bundle import read_layout
from edged.feed.coding.knowledge import samples
from edged.feed.coding.snapshot import decode_part
from edged.origin.bundling import export_bundle
from edged.origin.publisher import Publisher
from edged.replica.audit import packs_in, verify
from edged.replica.packs.frames import Frames
from edged.replica.packs.pack import Pack
from edged.replica.writer import Writer
from edged.sync.task import import_bundle
from tests.origin.test_publish import words
from tests.sync.simulator import Device
from tests.sync.test_end_to_end import once

SECRET = "quicksilver-moon"
KEY = "t00007"
MOST_BYTES = 1 << 24


def films(count: int = 400) -> list[tuple[str, str, object]]:
    """So many and so short that dictionaries are trained; the taken-down one is among their samples, as are most."""
    return [("titles", f"t{number:05d}", {"text": words(number), "title": f"Film {number}"}) for number in range(count)]


def secret(note: str = "") -> tuple[str, str, object]:
    return "titles", KEY, {"text": f"{SECRET} {note} {words(7)}", "title": SECRET}


def frames_in(data: bytes) -> Iterator[bytes]:
    """What every zstd frame in `data` says that needs no dictionary, wherever it begins."""
    at = data.find(zstd.MAGIC)
    while at >= 0:
        with suppress(zstandard.ZstdError, MemoryError):
            yield zstandard.ZstdDecompressor(max_window_size=MOST_BYTES).decompressobj().decompress(data[at:])
        at = data.find(zstd.MAGIC, at + 1)


def dictionaries_in(files: dict[str, bytes]) -> list[bytes]:
    candidates = [text for data in files.values() for text in (data, *frames_in(data))]
    return [b"", *(text for text in candidates if any(samples(text)))]


def values_of_packs(data: bytes, name: str, dictionaries: list[bytes]) -> Iterator[bytes]:
    """Every value of every pack in a file of a replica, those that are replaced included."""
    known = [Frames(dictionary) for dictionary in dictionaries]
    with suppress(EdgedError):
        for start, size in packs_in(data, name):
            pack = Pack(data, start, size, name)
            for place in range(len(pack)):
                for frames in known:
                    with suppress(EdgedError, zstandard.ZstdError):
                        yield frames.decompress(pack.frame(place))


def readings(files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every file as it is, and in each way in which it can be read."""
    dictionaries = dictionaries_in(files)
    for name, data in files.items():
        yield name, data
        for text in (*frames_in(data), *values_of_packs(data, name, dictionaries)):
            yield name, text
        for dictionary in dictionaries:
            with suppress(EdgedError, zstandard.ZstdError):
                yield name, b"".join(value for _, _, value in decode_part(data, dictionary, max_bytes=MOST_BYTES))


def files_below(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def in_bundle(path: Path) -> dict[str, bytes]:
    """A bundle's blobs as files, beside the bundle itself."""
    data = path.read_bytes()
    with path.open("rb") as file:
        layout = read_layout(file)
        blobs = {ref.name: layout.read_blob(file, ref, "blob") for ref in layout.bundle.blobs}
    return {path.name: data, **blobs}


def traces(files: dict[str, bytes]) -> set[str]:
    return {name for name, text in readings(files) if SECRET.encode() in text}


def device_at(tmp_path: Path, publisher: Publisher, name: str) -> Device:
    origin = (publisher.path / "public" / "catalog").as_uri()
    trust = str(publisher.path / "root.trust")
    return Device(tmp_path / name, trust, origin=(origin,), clock_s=time.time())


@pytest.mark.parametrize("early", [True, False], ids=["in-the-snapshot", "in-a-hop"])
async def test_nothing_of_it_is_left_anywhere(tmp_path: Path, early: bool) -> None:
    publisher = Publisher.init(tmp_path / "feed")
    publisher.publish("catalog", [record if record[1] != KEY or not early else secret() for record in films()])
    old, pinned = (device_at(tmp_path, publisher, name) for name in ("old", "pinned"))
    await once(old)
    publisher.publish_changes("catalog", [secret("again"), ("titles", "t00001", {"text": words(1), "title": "Edited"})])
    for device in (old, pinned):
        await once(device)
    with Writer.open(pinned.directory, "catalog") as writer:
        writer.pin(2)
    bundle = tmp_path / "before.bundle"
    export_bundle(publisher.path, bundle, "catalog")
    # The search finds what there is, except in hops: tests/origin/test_takedowns.py decodes those.
    hosts = [files_below(publisher.public), in_bundle(bundle)] if early else []
    for found in (*hosts, files_below(old.directory), files_below(pinned.directory)):
        assert traces(found)
    publisher.takedown("catalog", "titles", [KEY])
    assert traces(files_below(publisher.public)) == set()
    export_bundle(publisher.path, tmp_path / "after.bundle", "catalog")
    assert traces(in_bundle(tmp_path / "after.bundle")) == set()
    new = device_at(tmp_path, publisher, "new")
    for device, version in ((old, 3), (pinned, 2), (new, 3)):
        assert (await once(device)).version == version
        assert traces(files_below(device.directory)) == set()
        assert verify(device.directory).faults == []
    outcome = await import_bundle(tmp_path / "seeded", tmp_path / "after.bundle", publisher.path / "root.trust")
    assert outcome.version == 3
    assert traces(files_below(tmp_path / "seeded")) == set()
    with Writer.open(pinned.directory, "catalog") as writer:
        writer.pin(None)
    status = await once(pinned)
    assert (status.version, status.snapshots_applied) == (3, 1)
    assert traces(files_below(pinned.directory)) == set()
