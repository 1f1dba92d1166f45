"""The C reader of docs/examples, compiled here, reads what the Python one reads, by what docs/replica.md says."""

from __future__ import annotations

import ctypes.util
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from tests.replica.feeds import Publisher, made_up

SOURCE = Path(__file__).parents[2] / "docs/examples/edged_get.c"
LIBRARY = ctypes.util.find_library("zstd")
pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None or LIBRARY is None, reason="needs a C compiler and libzstd.so.1"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("c") / "edged_get"
    subprocess.run(
        ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(binary), str(SOURCE), f"-l:{LIBRARY}"], check=True
    )
    return binary


def run(program: Path, *arguments: str) -> tuple[int, bytes]:
    done = subprocess.run([str(program), *arguments], capture_output=True, check=False)
    return done.returncode, done.stdout


def test_it_is_short_enough_to_be_read() -> None:
    assert len(SOURCE.read_text().splitlines()) <= 300


def test_it_reads_every_layer_as_python_does(program: Path, tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(300), "region-br": made_up(100, seed=2, mark="br")})
    chance = random.Random(5)
    hidden = ("titles", "1950/000000")
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        for number in range(9):
            publisher.hop_into(writer, 12, chance)
            if number == 5:
                writer.compact(policy=MergePolicy(fresh_packs=1, least_bytes=1 << 40, keep_bytes=1))
                assert writer.live.manifest.slices["core"].remotes
        with writer.stage() as staging:
            staging.set_takedowns(b"list", [hidden])
            staging.commit(publisher.version, b"h", as_of=1, fresh_s=1, expires_s=1)
    expected = {**publisher.slices["core"], **publisher.slices["region-br"]}
    assert expected.pop(hidden)
    root = str(tmp_path / "catalog")
    for name in ("titles", "people", "nothing"):
        code, listed = run(program, root, name)
        assert code == 0
        assert listed.decode().split() == sorted(key for collection, key in expected if collection == name)
    gone = [name for name in made_up(300) if name not in expected]
    assert len(gone) > 1
    for held in chance.sample(sorted(expected), 60):
        assert run(program, root, *held) == (0, expected[held])
    for missing in [*gone, ("titles", "1950/none"), ("titles", "k" * 600)]:
        assert run(program, root, *missing) == (1, b"")


def test_it_refuses_a_damaged_pack(program: Path, tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(300)})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
        ref = writer.live.manifest.slices["core"].base[0]
    path = tmp_path / f"catalog/packs/{ref.number:08x}.pack"
    data = bytearray(path.read_bytes())
    for place in (3, 40, len(data) // 3, len(data) - 3):
        data[place] ^= 4
        path.write_bytes(data)
        assert run(program, str(tmp_path / "catalog"), "titles", "1950/000000") == (3, b"")
        data[place] ^= 4
