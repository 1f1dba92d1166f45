"""The pages and scripts that are written from the commands: true, and of use."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.programs import edged

ROOT = Path(__file__).parent.parent.parent
REFERENCE = [sys.executable, str(ROOT / "packaging/reference.py")]


def test_docs_configuration_and_completions_are_as_the_commands_are() -> None:
    done = subprocess.run([*REFERENCE, "--check"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [(["sta"], "status"), (["origin", "pub"], "publish"), (["origin", "publish", "--data"], "--dataset")],
)
def test_bash_completes_commands_and_their_options(tmp_path: Path, words: list[str], offered: str) -> None:
    script = tmp_path / "edged.bash"
    script.write_text(edged("completion", "bash").stdout)
    program = (
        'source "$1"; shift; COMP_WORDS=(edged "$@"); COMP_CWORD=$#; COMP_LINE="${COMP_WORDS[*]}"; '
        'COMP_POINT=${#COMP_LINE}; function=$(complete -p edged | sed "s/.*-F \\([^ ]*\\).*/\\1/"); '
        '"$function"; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", program, "bash", str(script), *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert offered in [line.strip() for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_takes_its_script(tmp_path: Path, shell: str) -> None:
    text = edged("completion", shell).stdout
    assert "rotate-key" in text
    if shutil.which(shell) is not None:
        (tmp_path / "script").write_text(text)
        done = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")


def test_an_unknown_shell_is_wrong_usage() -> None:
    assert "bash" in edged("completion", "csh", code=2).stderr


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_the_man_pages_render_without_a_warning(tmp_path: Path) -> None:
    subprocess.run([*REFERENCE, "--man", str(tmp_path)], check=True, timeout=60)
    for page, expected in (("edged.1", "origin rotate-key"), ("edged.toml.5", "data_dir")):
        done = subprocess.run(
            ["man", "--warnings", "-E", "UTF-8", "-l", str(tmp_path / page)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert expected in done.stdout
        assert done.stderr == ""
