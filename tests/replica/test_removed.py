"""A directory that is removed, moved or replaced under a running writer and its readers."""

from __future__ import annotations

import gc
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import edged
from edged.errors import BusyError
from edged.feed.schema import CollectionSchema, Schema
from edged.replica.audit import verify
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from tests.replica.feeds import Publisher, Records, made_up


def contents(data_dir: Path) -> tuple[int, Records]:
    with edged.open(data_dir) as replica:
        view = replica["catalog"].view()
        return view.version, {(name, key): value for name in view.collections for key, value in view.scan(name)}


def test_a_removed_directory_is_written_again_from_what_is_mapped(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(80)})
    data_dir = tmp_path / "replica"
    with Writer.open(data_dir, "catalog") as writer, edged.open(data_dir) as replica:
        publisher.snapshot_into(writer)
        publisher.hop_into(writer, 5, random.Random(1))
        titles = replica["catalog"]["titles"]
        ((_, key), value), *_ = sorted(publisher.slices["core"].items())[20:]
        assert titles.get_raw(key) == value
        shutil.rmtree(data_dir)
        assert titles.get_raw(key) == value
        assert writer.mend([]) == 1
        assert writer.mend([]) == 0
        assert (writer.status().version, writer.status().slices["core"].damaged) == (2, None)
        assert contents(data_dir) == (2, publisher.slices["core"])
        publisher.hop_into(writer, 5, random.Random(2))
        assert replica["catalog"].version == 3  # an old reader has found the new counter
        publisher.hop_into(writer, 5, random.Random(3))
        assert replica["catalog"].version == 4
        assert titles.get_raw("none") is None
    assert contents(data_dir) == (4, publisher.slices["core"])
    assert [fault for fault in verify(data_dir).faults if "root" not in fault.file] == []


def test_what_is_not_mapped_is_fetched_again_and_readers_keep_what_they_have(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(80)})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        dataset = replica.follow("catalog")
        assert dataset.version == 1
        shutil.rmtree(tmp_path / "catalog")
        writer.live.pool.files.clear()
        assert writer.mend([]) == 1
        assert (writer.status().version, writer.status().slices) == (0, {})
        assert dataset.version == 1  # nothing as new is there
        ((_, key), value), *_ = sorted(publisher.slices["core"].items())[20:]
        assert dataset.view().get_raw("titles", key) == value
        publisher.version = 5
        publisher.snapshot_into(writer)
        assert dataset.version == 5
    assert contents(tmp_path) == (5, publisher.slices["core"])


def test_a_directory_removed_before_the_first_version_is_made_anew(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(30)})
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        dataset = replica.follow("catalog")
        shutil.rmtree(tmp_path / "catalog")
        assert dataset.version == 0
        writer.mend([])
        publisher.snapshot_into(writer)
        assert dataset.version == 1


def test_a_directory_that_another_writer_has_taken_is_left_to_it(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(30)})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        (tmp_path / "catalog").rename(tmp_path / "aside")
        with Writer.open(tmp_path, "catalog") as other:
            with pytest.raises(BusyError):
                writer.mend([])
            Publisher({"core": made_up(30)}).snapshot_into(other)
            assert other.status().version == 1


def still_mapped(data_dir: Path) -> set[str]:
    """Files below a directory that are unlinked and take up its disk all the same, as this process maps them."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line for line in lines if str(data_dir) in line and line.endswith("(deleted)") and "counter" not in line}


def test_what_is_merged_away_is_let_go_of_when_a_reader_follows(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(300)})
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        publisher.snapshot_into(writer)
        titles = replica["catalog"]["titles"]
        key = max(publisher.slices["core"])[1]
        for number in range(3):
            publisher.hop_into(writer, 30, random.Random(number))
            assert titles.get_raw(key) is not None
            assert list(titles.where(year=1950))
        writer.compact(policy=MergePolicy(fresh_packs=0, least_bytes=1, base_share=0.001))
        publisher.hop_into(writer, 1, random.Random(9))
        publisher.hop_into(writer, 1, random.Random(10))  # now neither manifest names the old packs
        gc.collect()
        before = still_mapped(tmp_path)
        replica["catalog"].view()
        gc.collect()
        assert (bool(before), still_mapped(tmp_path)) == (True, set())


def test_a_collection_with_windows_that_nobody_asks_again_keeps_no_old_file(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(300)})
    schema = Schema({name: CollectionSchema(valid=("from", "until")) for name in ("titles", "people")})
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        publisher.snapshot_into(writer, schema=schema)
        dataset = replica["catalog"]
        assert dataset.view().get_raw("people", "p00000") is not None
        for version in range(2, 5):
            publisher = Publisher({"core": made_up(300, seed=version)}, version)
            publisher.snapshot_into(writer, schema=schema)
            assert next(dataset.view().keys("titles"))
        gc.collect()
        assert still_mapped(tmp_path) == set()
        assert dataset.view().get_raw("people", "p00000") is not None


def test_files_are_let_go_of_while_another_thread_opens_more(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(30)})
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        publisher.snapshot_into(writer)
        dataset = replica["catalog"]
        (layers,), added = dataset.view().layers, list[int]()
        pool: Any = dataset.pool

        class OtherThread:
            """Stands for a pack; what it is looked up by comes to more of them meanwhile."""

            def __hash__(self) -> int:
                if added:
                    added.append(len(added))
                    pool.indexes[layers.base[0], added[-1]] = pool.paths[layers.base[0], f"c{added[-1]}"] = None
                return 1

        other = OtherThread()
        pool.indexes[other, 0] = pool.paths[other, "titles"] = None
        added.append(0)
        pool.keep(dataset.loaded.manifest)
        assert len(added) > 1
        assert not {key[0] for key in (*pool.indexes, *pool.paths)} - set(layers.base)
