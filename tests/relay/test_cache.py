"""The blobs on a relay's disk: what fits, what goes first, what is looked at before it goes out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edged.errors import HashError, StoreError
from edged.feed.blob import BlobRef
from edged.files import discard
from edged.relay.cache import BLOCK_BYTES, CHECK_S, NEVER, BlobCache, Key, taken


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def put(cache: BlobCache, data: bytes, dataset: str = "catalog") -> Key:
    ref = BlobRef.of(data)
    key = (dataset, ref.sha256)
    cache.write(key, data)
    discard(cache.add(key, ref.size, cache.monotonic()))
    return key


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "relay").mkdir()
    return tmp_path / "relay"


def test_a_quota_is_filled_to_the_byte_and_not_beyond(directory: Path) -> None:
    cache = BlobCache(directory, 3 * BLOCK_BYTES, Time())
    first, second = put(cache, b"a"), put(cache, bytes(BLOCK_BYTES))
    third = put(cache, b"c" * BLOCK_BYTES)
    assert (cache.used, cache.room, cache.evictions) == (3 * BLOCK_BYTES, 0, 0)
    assert cache.find(first) is not None  # asked for: the second is the oldest now
    fourth = put(cache, b"d")
    assert set(cache.blobs) == {first, third, fourth}
    assert not cache.path(second).exists()
    put(cache, bytes(BLOCK_BYTES + 1))  # takes two
    assert (cache.used, cache.evictions, len(cache.blobs)) == (3 * BLOCK_BYTES, 3, 2)


@pytest.mark.parametrize(("size", "blocks"), [(0, 1), (1, 1), (BLOCK_BYTES, 1), (BLOCK_BYTES + 1, 2)])
def test_a_file_takes_whole_blocks(size: int, blocks: int) -> None:
    assert taken(size) == blocks * BLOCK_BYTES


def test_what_is_written_again_counts_once(directory: Path) -> None:
    cache = BlobCache(directory, 10 * BLOCK_BYTES, Time())
    assert put(cache, b"same") == put(cache, b"same")
    assert (cache.used, len(cache.blobs)) == (BLOCK_BYTES, 1)


def test_a_file_is_checked_an_hour_after_it_was(directory: Path) -> None:
    time = Time()
    cache = BlobCache(directory, 10 * BLOCK_BYTES, time)
    found = cache.find(put(cache, b"blob"))
    assert found is not None
    time.now += CHECK_S - 0.001
    assert cache.is_fresh(found)
    time.now += 0.001
    assert not cache.is_fresh(found)


def test_after_a_start_the_one_wanted_last_goes_last_and_strays_are_gone(directory: Path) -> None:
    cache = BlobCache(directory, 10 * BLOCK_BYTES, Time())
    keys = [put(cache, data, dataset) for data, dataset in ((b"one", "a"), (b"two", "b"), (b"three", "a"))]
    for age, key in enumerate(reversed(keys)):
        os.utime(cache.path(key), ns=(10**18 + age, 10**18 + age))
    (directory / "a" / "blobs" / ".tmp-half").write_bytes(b"half")
    (directory / "a" / "blobs" / "notes.txt").write_bytes(b"of somebody")
    (directory / "a" / "head").write_bytes(b"a head")
    os.symlink("/etc/passwd", directory / "b" / "blobs" / ("0" * 64))
    again = BlobCache(directory, 2 * BLOCK_BYTES, Time())
    for key, size in again.scan():
        discard(again.add(key, size, NEVER))
    assert list(again.blobs) == [keys[1], keys[0]]
    assert not again.is_fresh(again.blobs[keys[0]])
    assert sorted(path.name for path in (directory / "a" / "blobs").iterdir()) == [keys[0][1].hex()]
    assert (directory / "a" / "head").exists()
    cache.read(keys[0], 3)
    assert [key for key, _ in again.scan()] == [keys[1], keys[0]]


def test_bytes_that_have_changed_are_told(directory: Path) -> None:
    cache = BlobCache(directory, 10 * BLOCK_BYTES, Time())
    key = put(cache, b"blob")
    assert cache.read(key, 4) == b"blob"
    cache.path(key).write_bytes(b"blub")
    with pytest.raises(HashError, match="SHA-256"):
        cache.read(key, 4)
    cache.path(key).unlink()
    with pytest.raises(StoreError, match="No such file"):
        cache.read(key, 4)


def test_a_write_that_fails_leaves_nothing_behind(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = BlobCache(directory, 10 * BLOCK_BYTES, Time())
    monkeypatch.setattr("edged.relay.cache.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(StoreError, match="No space left"):
        cache.write(("catalog", BlobRef.of(b"x").sha256), b"x")
    assert list((directory / "catalog" / "blobs").iterdir()) == []
    assert list(cache.blobs) == []


def test_what_is_dropped_is_dropped_of_one_dataset(directory: Path) -> None:
    cache = BlobCache(directory, 10 * BLOCK_BYTES, Time())
    kept, gone, other = put(cache, b"kept"), put(cache, b"gone"), put(cache, b"gone", "other")
    assert cache.of("catalog") == [kept[1], gone[1]]
    assert cache.drop("catalog", [gone[1], bytes(32)]) == [cache.path(gone)]
    assert list(cache.blobs) == [kept, other]
    assert cache.used == 2 * BLOCK_BYTES
