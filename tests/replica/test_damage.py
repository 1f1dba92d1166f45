"""Flipped, cut, zeroed and missing files: never a wrong byte, noticed, and only the slice is fetched again."""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import edged
from edged.errors import DamageError, EdgedError, StoreError
from edged.feed.blob import BlobRef
from edged.feed.coding.changes import Change
from edged.replica import watches
from edged.replica.audit import verify
from edged.replica.files.manifest import dictionary_name, file_name
from edged.replica.view import View
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from tests.conftest import FUZZ_SEED
from tests.replica.feeds import SCHEMA, Publisher, Records, made_up

SLICES = ("core", "region-br")


class Damaged:
    """A replica with every kind of file, and what is to be read from its last two versions."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.publisher = Publisher({"core": made_up(150), "region-br": made_up(90, seed=2, mark="br")})
        chance = random.Random(3)
        self.states: dict[int, Records] = {}
        with Writer.open(root, "catalog") as writer:
            self.publisher.snapshot_into(writer)
            for number in range(6):
                self.publisher.hop_into(writer, 6, chance)
                self.keep()
                if number == 3:
                    writer.compact(policy=MergePolicy(fresh_packs=1, least_bytes=1 << 40, keep_bytes=1))
            with writer.stage() as staging:  # a part of a snapshot under way
                staging.begin_snapshot("region-br", 99, self.publisher.dictionaries["region-br"])
                part = self.publisher.parts("region-br")[0]
                staging.add_part("region-br", BlobRef.of(part), part)
            writer.set_roots(b"roots of trust")
            writer.touch_head(b"touched", as_of=1000, fresh_s=1, expires_s=1)
            self.manifest = writer.live.manifest

    def keep(self) -> None:
        core, region = (self.publisher.slices[name] for name in SLICES)
        self.states[self.publisher.version] = {**region, **core}

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    return Damaged(tmp_path_factory.mktemp("whole"))


WAYS = ("flip", "cut", "empty", "zero page", "zero", "swap", "gone", "longer")


def mutate(path: Path, chance: random.Random, kind: str = "") -> str:
    """Damage a file in one of the ways in which flash and power losses do."""
    data = bytearray(path.read_bytes())
    kind = kind or chance.choice(["flip", "flip", *WAYS])
    place = chance.randrange(len(data)) if data else 0  # the lock is empty
    if not data and kind in ("flip", "swap"):
        kind = "longer"
    match kind:
        case "flip":
            data[place] ^= 1 << chance.randrange(8)
        case "cut":
            del data[place:]
        case "empty":
            data.clear()
        case "zero page":
            start = place & ~4095
            data[start : start + 4096] = bytes(len(data[start : start + 4096]))
        case "zero":
            data = bytearray(len(data))
        case "swap":
            data[place:] = bytes(chance.randbytes(len(data) - place))
        case "longer":
            data += bytes(4096)
    path.unlink()
    if kind != "gone":
        path.write_bytes(data)
    return f"{kind} at {place} of {path.name}"


def everything(view: View, collection: str) -> dict[str, bytes]:
    return dict(view.scan(collection))


def read_right_or_not_at_all(view: View, expected: Records) -> Iterator[str]:
    """Every way of reading gives what is expected or raises DamageError, of which it says so."""
    attempts: list[tuple[str, Callable[[], Any], Any]] = [
        (f"get {name}", partial(view.get_raw, *name), value) for name, value in expected.items()
    ]
    attempts += [("get a missing one", partial(view.get_raw, "titles", "1950/none"), None)]
    for collection in ("titles", "people"):
        of_it = {key: value for (name, key), value in sorted(expected.items()) if name == collection}
        attempts.append((f"list {collection}", partial(everything, view, collection), of_it))
    for what, read, right in attempts:
        try:
            found = read()
        except DamageError:
            yield what
        else:
            assert found == right, what
    try:
        for key, value in (*view.where("titles", {"year": 1960}), *view.search("titles", "pulp", limit=999)):
            assert value == expected["titles", key]
    except DamageError:
        yield "query"


def strike(damaged: Damaged, place: Path, seed: int, file: str = "", kind: str = "") -> None:
    chance = random.Random(seed)
    shutil.copytree(damaged.root, place)
    said = mutate(place / (file or chance.choice(damaged.files())), chance, kind)
    try:
        with edged.open(place) as replica:
            view = replica["catalog"].view()
            complaints = list(read_right_or_not_at_all(view, damaged.states[view.version]))
    except EdgedError:
        complaints = ["open"]
    faults = [fault for fault in verify(place).faults if "roots" not in fault.file]
    if complaints:
        assert faults, said
    with Writer.open(place, "catalog") as writer:  # opens whatever it finds
        held = writer.status()
        assert held.version in (0, *damaged.states), said
        assert held.roots in (b"roots of trust", None)
        recover(writer, damaged.publisher, {fault.slice_name for fault in faults} & held.slices.keys())
    with edged.open(place) as replica:
        expected = damaged.states[damaged.publisher.version]
        assert list(read_right_or_not_at_all(replica["catalog"].view(), expected)) == [], said
    assert [fault for fault in verify(place).faults if "root" not in fault.what] == [], said
    shutil.rmtree(place)


def recover(writer: Writer, publisher: Publisher, damaged: set[str]) -> None:
    """As sync does: what is damaged or of another version anew, the rest as it is, with schema, roots and head."""
    with writer.stage() as staging:
        for name, records in publisher.slices.items():
            held = writer.status().slices.get(name)
            if held is None or name in damaged or held.damaged or (held.digest, held.records) != publisher.digest(name):
                staging.begin_snapshot(name, publisher.version, publisher.dictionaries[name])
                for part in publisher.parts(name):
                    staging.add_part(name, BlobRef.of(part), part)
            assert staging.digest(name) == publisher.digest(name), len(records)
        staging.set_schema(SCHEMA, 1)
        staging.commit(publisher.version, b"head", as_of=2000, fresh_s=1, expires_s=1)
    writer.compact()  # makes damaged indexes anew
    writer.set_roots(b"roots of trust")
    writer.touch_head(b"touched", as_of=3000, fresh_s=1, expires_s=1)


def kinds(damaged: Damaged) -> dict[str, str]:
    """One file of each kind; of those that belong to a slice, one that only region-br uses."""
    manifest, state = damaged.manifest, damaged.manifest.slices["region-br"]
    assert manifest.settings is not None
    packs = {
        "base": state.base[0].number,
        "middle": state.middle[0].number,
        "fresh": state.fresh[0].number,
        "settings": manifest.settings.number,
    }
    for name, ref in (("base index", state.base[0]), ("middle index", state.middle[0])):
        assert ref.index is not None
        packs[name] = ref.index.number
    found = {name: f"catalog/packs/{file_name(number)}" for name, number in packs.items()}
    found["dictionary"] = f"catalog/packs/{dictionary_name(state.dictionaries[0])}"
    found["part"] = next(name for name in damaged.files() if "/staging/" in name)
    found.update((name, f"catalog/{name}") for name in ("manifest", "manifest.1", "roots", "head", "counter", "lock"))
    return found


@pytest.mark.parametrize("way", WAYS)
def test_each_kind_of_file_damaged_in_each_way_is_survived_and_mended(
    damaged: Damaged, tmp_path: Path, way: str
) -> None:
    for number, (kind, file) in enumerate(kinds(damaged).items()):
        strike(damaged, tmp_path / kind, number, file, way)


def test_seeded_mutations_of_every_kind_of_file(damaged: Damaged, tmp_path: Path) -> None:
    for seed in range(20):
        strike(damaged, tmp_path / str(seed), seed)


@pytest.mark.slow
def test_mutations_by_the_thousand(damaged: Damaged, tmp_path: Path) -> None:
    """600 of them, each mended; EDGED_MUTATIONS for more, EDGED_FUZZ_SEED for others."""
    first = FUZZ_SEED * 1000
    for seed in range(first, first + int(os.environ.get("EDGED_MUTATIONS", "600"))):
        strike(damaged, tmp_path / str(seed), seed)


@pytest.mark.parametrize("kind", ["base", "middle", "dictionary"])
@pytest.mark.parametrize("how", ["flip", "zero", "gone"])
def test_only_the_damaged_slice_is_fetched_again(damaged: Damaged, tmp_path: Path, kind: str, how: str) -> None:
    root = tmp_path / "copy"
    shutil.copytree(damaged.root, root)
    path = root / kinds(damaged)[kind]
    data = bytearray(path.read_bytes())
    path.unlink()
    if how != "gone":
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(len(data)) if how == "zero" else data)
    with edged.open(root) as replica, Writer.open(root, "catalog") as writer:
        view = replica["catalog"].view()
        core = damaged.publisher.slices["core"]
        assert {name: view.get_raw(*name) for name in core} == core
        faults = verify(root).faults
        assert {fault.slice_name for fault in faults if fault.slice_name} == {"region-br"}
        with pytest.raises(DamageError):
            list(chain(view.scan("titles"), view.scan("people")))
        if writer.status().slices["region-br"].damaged is None:  # not seen by opening: what the audit tells
            writer.mark_damaged("region-br", str(faults[0]))
        held = writer.status()
        assert held.slices["region-br"].damaged
        assert held.slices["core"].damaged is None
        core_packs = writer.live.manifest.slices["core"]
        repair(writer, damaged.publisher)
        assert writer.live.manifest.slices["core"] == core_packs
        assert writer.status().slices["region-br"].damaged is None
        view = replica["catalog"].view()
        expected = damaged.states[damaged.publisher.version]
        assert list(read_right_or_not_at_all(view, expected)) == []
        assert sum(view.collections.values()) == len(expected)


def repair(writer: Writer, publisher: Publisher) -> None:
    """As sync does: the snapshot of one slice, at the version that is held."""
    with writer.stage() as staging:
        staging.begin_snapshot("region-br", publisher.version, publisher.dictionaries["region-br"])
        for part in publisher.parts("region-br"):
            staging.add_part("region-br", BlobRef.of(part), part)
        assert staging.digest("region-br") == publisher.digest("region-br")
        staging.commit(publisher.version, b"head", as_of=1, fresh_s=1, expires_s=1)


def test_a_damaged_manifest_falls_back_to_the_version_before(damaged: Damaged, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(damaged.root, root)
    (root / "catalog/manifest").write_bytes(b"nonsense")
    with edged.open(root) as replica:
        view = replica["catalog"].view()
        assert view.version == damaged.publisher.version - 1
        assert view.fault is not None
        assert list(read_right_or_not_at_all(view, damaged.states[view.version])) == []
    (root / "catalog/manifest").unlink()
    with edged.open(root) as replica, Writer.open(root, "catalog") as writer:
        assert replica["catalog"].version == writer.status().version == damaged.publisher.version - 1
        damaged_version = damaged.publisher.version
        with writer.stage() as staging:
            staging.commit(damaged_version, b"h", as_of=1, fresh_s=1, expires_s=1)
        assert replica["catalog"].version == damaged_version


def test_a_reader_that_saw_the_lost_version_follows_the_one_that_replaces_it(damaged: Damaged, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(damaged.root, root)
    with edged.open(root) as replica:
        version = damaged.publisher.version
        assert replica["catalog"].version == version
        (root / "catalog/manifest").unlink()
        (root / "catalog/manifest").write_bytes(b"nonsense")
        with Writer.open(root, "catalog") as writer, writer.stage() as staging:
            changes = [Change("titles", "1950/instead", b"\x01")]
            staging.apply_changes("core", version, changes)
            staging.commit(version, b"h", as_of=1, fresh_s=1, expires_s=1)
        expected = {**damaged.states[version - 1], ("titles", "1950/instead"): b"\x01"}
        assert list(read_right_or_not_at_all(replica["catalog"].view(), expected)) == []


@pytest.mark.parametrize(
    "kind", ["base", "middle", "fresh", "dictionary", "settings", "base index", "manifest", "head"]
)
def test_a_file_that_the_disk_does_not_deliver_counts_as_damaged(
    damaged: Damaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(damaged.root, root)
    os.link(root / kinds(damaged)[kind], tmp_path / "kept")  # so that no new file gets its inode
    lost = (tmp_path / "kept").stat().st_ino
    real_open, real_os_open = open, os.open

    def fail_if_lost(path: Any) -> None:
        if os.path.exists(path) and os.stat(path).st_ino == lost:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def failing_open(path: Any, *arguments: Any, **options: Any) -> Any:
        fail_if_lost(path)
        return real_open(path, *arguments, **options)

    def failing_os_open(path: Any, *arguments: Any, **options: Any) -> int:
        fail_if_lost(path)
        return real_os_open(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", failing_open)
    monkeypatch.setattr(os, "open", failing_os_open)
    with edged.open(root) as replica:
        view = replica["catalog"].view()
        complaints = list(read_right_or_not_at_all(view, damaged.states[view.version]))
        assert bool(complaints) == (kind not in ("base index", "manifest", "head"))
        if kind not in ("settings", "fresh"):  # a commit file may hold packs of several slices
            assert not [name for name in damaged.publisher.slices["core"] if f"get {name}" in complaints]
    faults = [fault for fault in verify(root).faults if fault.file != "roots"]
    assert any("disk reports a fault" in fault.what for fault in faults)
    with Writer.open(root, "catalog") as writer:
        recover(writer, damaged.publisher, {fault.slice_name for fault in faults} - {""})
    with edged.open(root) as replica:
        expected = damaged.states[damaged.publisher.version]
        assert list(read_right_or_not_at_all(replica["catalog"].view(), expected)) == []


@pytest.mark.parametrize("what", ["key", "length", "offset", "end", "slot"])
def test_a_key_that_decays_after_its_page_was_checked_is_damage_and_not_a_miss(tmp_path: Path, what: str) -> None:
    publisher = Publisher({"core": made_up(300)})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        (ref,) = writer.live.manifest.slices["core"].base
    key = "1960/000080"
    with edged.open(tmp_path) as replica:
        titles = replica["catalog"]["titles"]
        assert titles.get_raw(key) == publisher.slices["core"]["titles", key]
        (pack,) = replica["catalog"].view().layers[0].base
        pack.check_all()
        assert titles.get_raw(key + "x") is None
        place = pack.find("titles", key.encode())
        assert pack.table is not None
        slot = next(at for at, word in enumerate(pack.table) if word & (1 << pack.bits) - 1 == place + 1)
        at = {
            "key": pack.offsets[place] + 5,
            "length": pack.offsets[place],
            "offset": pack.offsets_at + 4 * place,
            "end": pack.offsets_at + 4 * place + 4,
            "slot": pack.table_at + 4 * slot,
        }[what]
        empty = pack.offsets[place] + 2 + len(key)  # as if the entry were a tombstone
        with open(tmp_path / "catalog/packs" / file_name(ref.number), "r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(empty.to_bytes(4, "little") if what == "end" else bytes([byte ^ 1]))
        with pytest.raises(DamageError):
            titles.get_raw(key)


class Clock:
    """Stands in for time.monotonic."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM, errno.EMFILE])
@pytest.mark.parametrize("call", ["mmap", "open"])
def test_a_reader_tries_again_when_a_fault_of_the_moment_has_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """The old version is read meanwhile, the fault is there to be shown, and no publish is needed to get over it."""
    publisher, clock = Publisher({"core": made_up(60)}), Clock()
    monkeypatch.setattr(watches, "monotonic", clock)
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        publisher.snapshot_into(writer)
        dataset = replica["catalog"]
        titles, key = dataset["titles"], max(publisher.slices["core"])[1]
        old = titles.get_raw(key)
        publisher.version += 1
        changed = {("titles", key): b"\x18\x2a"}
        with writer.stage() as staging:
            staging.apply_changes("core", publisher.version, publisher.apply("core", changed))
            staging.commit(publisher.version, b"head", as_of=2, fresh_s=60, expires_s=600)
        broken = failing(number, getattr(mmap if call == "mmap" else os, call), tmp_path)
        for pause in (1.0, 2.0, 4.0):
            with monkeypatch.context() as patch:
                patch.setattr(mmap if call == "mmap" else os, call, broken)
                assert titles.get_raw(key) == old
                assert dataset.version == 1
                assert dataset.fault is not None
                assert os.strerror(number) in str(dataset.fault)
                clock.now += pause - 0.01
            assert (dataset.version, titles.get_raw(key)) == (1, old)  # not at every read
            clock.now += 0.02
            if pause < 4.0:
                with monkeypatch.context() as patch:
                    patch.setattr(mmap if call == "mmap" else os, call, broken)
                    assert dataset.version == 1
        assert titles.get_raw(key) == b"\x18\x2a"
        assert (dataset.version, dataset.fault) == (2, None)


def failing(number: int, real: Callable[..., Any], root: Path) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if isinstance(arguments[0], int) or str(arguments[0]).startswith(str(root)):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    return call


def test_a_reader_that_begins_in_a_moment_without_memory_follows_when_it_has_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, clock = Publisher({"core": made_up(60)}), Clock()
    monkeypatch.setattr(watches, "monotonic", clock)
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
    with edged.open(tmp_path) as replica, monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", failing(errno.ENOMEM, mmap.mmap, tmp_path))
        with pytest.raises(StoreError, match="Cannot allocate"):
            replica["catalog"]
    with edged.open(tmp_path) as replica:
        with monkeypatch.context() as patch:
            patch.setattr(mmap, "mmap", failing(errno.ENOMEM, mmap.mmap, tmp_path))
            dataset = replica.follow("catalog")
            assert (dataset.version, "Cannot allocate" in str(dataset.fault)) == (0, True)
        assert dataset.version == 0
        clock.now += 1.01
        assert (dataset.version, dataset.fault) == (1, None)
