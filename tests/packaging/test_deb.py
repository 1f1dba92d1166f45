"""The Debian package: the same bytes from the same sources, and installed, run and purged in a minimal Debian."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed"),
]


def build(out: Path) -> Path:
    environment = {**os.environ, "BUILD_PYTHON": sys.executable}
    done = subprocess.run(
        [str(ROOT / "packaging/build-deb.sh"), str(out)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    (package,) = out.glob("edged_*.deb")
    return package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


def test_the_same_sources_give_the_same_package(package: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == package.read_bytes()


def test_the_package_names_no_path_of_the_building_machine(package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(tmp_path / "tree")], check=True, timeout=60)
    here = str(ROOT).encode()
    assert [str(path) for path in (tmp_path / "tree").rglob("*") if path.is_file() and here in path.read_bytes()] == []


@pytest.mark.skipif(shutil.which("mmdebstrap") is None or os.geteuid() != 0, reason="needs mmdebstrap and root")
def test_it_installs_runs_and_purges_clean_in_a_minimal_debian(package: Path) -> None:
    done = subprocess.run(
        [str(ROOT / "packaging/test-deb.sh"), str(package)], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("test-deb: installed, ran, purged clean\n")
