"""Compiles the modules that take a device's time, by mypyc: the same Python, three to four times faster.

    EDGED_COMPILE=1 pip wheel --no-deps .    a wheel for this machine's processor and Python release
    python packaging/compiling.py DIRECTORY  the compiled modules alone, into DIRECTORY

Needs a C compiler and Python's headers; a build fetches mypy and setuptools for itself. The sources are in the wheel
too, and are what runs where no compiled module fits the interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a command, where nothing is built
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent.parent
COMPILED = ("edged/feed/coding/*.py", "edged/feed/cbor.py", "edged/feed/names.py")
SHARED = "edged"  # the shared object that holds them all is edged__mypyc, beside the package
# A library that is not there where a wheel is built stands for Any: the code made is the same.
OPTIONS = ("--config-file=", "--ignore-missing-imports", "--follow-imports=silent", "--python-version=3.11")
REQUIRED = ["mypy>=1.18", "setuptools>=65"]  # first with 64-bit integers that read bytes without a call


def sources() -> list[str]:
    """The modules that are compiled, from the root of the sources. A package's docstring needs no compiling."""
    found = (path for pattern in COMPILED for path in ROOT.glob(pattern) if path.name != "__init__.py")
    return sorted(str(path.relative_to(ROOT)) for path in found)


def compile_into(directory: Path) -> None:
    """Write what is compiled below `directory`, laid out as in a wheel. Exits where a module cannot be compiled."""
    from setuptools import Distribution  # before mypyc, which looks whether it is there

    from mypyc.build import mypycify  # isort: skip

    os.chdir(ROOT)  # modules are named by their paths from where mypyc runs
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        options = [*OPTIONS, f"--cache-dir={work / 'cache'}"]
        modules = mypycify([*options, *sources()], group_name=SHARED, target_dir=str(work / "c"), debug_level="0")
        for module in modules:  # nothing of the machine that builds stays in what is built
            module.extra_compile_args.append(f"-ffile-prefix-map={work}=.")
            module.extra_link_args.append("-Wl,--strip-all")
        command = Distribution({"name": SHARED, "ext_modules": modules}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(directory), str(work / "objects")
        command.ensure_finalized()
        command.run()


class CompileHook(BuildHookInterface):  # type: ignore[misc]  # hatchling's, where a wheel is built
    """Puts the compiled modules into a wheel, where EDGED_COMPILE=1 asks for it; else the wheel is plain Python."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        return REQUIRED if is_asked() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not is_asked() or version == "editable":
            return
        self.made = tempfile.TemporaryDirectory()
        # By a process of its own: mypyc changes directories and ends the process that it fails in.
        command = [sys.executable, str(Path(__file__).resolve()), self.made.name]
        subprocess.run(command, check=True, stdout=sys.stderr)
        folder = Path(self.made.name)
        for path in sorted(folder.rglob("*.so")):
            build_data["force_include"][str(path)] = str(path.relative_to(folder))
        build_data["pure_python"], build_data["infer_tag"] = False, True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if build_data["force_include"]:
            self.made.cleanup()


def is_asked() -> bool:
    return os.environ.get("EDGED_COMPILE") == "1"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    compile_into(Path(sys.argv[1]).resolve())


if __name__ == "__main__":
    main()
