"""Where a dataset's replica lies: below the data directory, or in memory (a tmpfs) with a link there in its place.

Through the link every reader, in whatever process, finds it under the same name; what is written goes to memory alone.
"""

from __future__ import annotations

import os
import shutil
import stat
from hashlib import sha256
from pathlib import Path

from edged.errors import StoreError
from edged.feed.names import check_name
from edged.files import sync_directory, told
from edged.replica.writer import Writer

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the directory in it is ours alone, and looked at
MOUNTS = "/proc/self/mountinfo"
IN_MEMORY = ("tmpfs", "ramfs")
INCOMING = ".incoming-"


def open_writer(data_dir: str | os.PathLike[str], dataset: str, *, memory: bool) -> Writer:
    """`Writer.open`, with the replica where it is to be; what is held goes along when that changes. Raises as it does,
    and StoreError where there is no memory to keep it in."""
    place = Path(data_dir) / check_name(dataset, "dataset")
    try:
        if memory:
            move_to_memory(place)
        elif place.is_symlink():
            move_to_disk(place)
    except OSError as fault:
        raise StoreError(told("place the replica", place, fault)) from fault
    return Writer.open(data_dir, dataset)


def move_to_memory(place: Path) -> None:
    """Raises OSError, StoreError."""
    target = memory_directory(place.parent) / place.name
    if place.is_symlink() and place.readlink() == target:
        target.mkdir(exist_ok=True)
        return
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(place, target)
        shutil.rmtree(place)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        target.mkdir(exist_ok=True)
    place.symlink_to(target)
    sync_directory(place.parent)


def move_to_disk(place: Path) -> None:
    """The link goes; what it led to, if that is there still, comes in its place. Raises OSError."""
    target = place.readlink()
    incoming = place.with_name(INCOMING + place.name)
    shutil.rmtree(incoming, ignore_errors=True)
    there = target.is_dir()
    if there:
        shutil.copytree(target, incoming)
    place.unlink()
    if there:
        incoming.rename(place)
        shutil.rmtree(target, ignore_errors=True)
    sync_directory(place.parent)


def memory_directory(data_dir: Path) -> Path:
    """A directory in memory for the replicas of a data directory, ours alone: below the service's runtime directory, or
    in shared memory. Raises StoreError where neither is in memory, or another user's stands in its place."""
    name = f"edged-{os.geteuid()}-{sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]}"
    bases = [*filter(None, os.environ.get("RUNTIME_DIRECTORY", "").split(":")), SHARED_MEMORY]
    base = next((base for base in bases if is_in_memory(Path(base))), None)
    if base is None:
        raise StoreError(
            f"keep a dataset in memory: none of {', '.join(bases)} is a tmpfs; mount one there, or set memory = false"
        )
    found = Path(base) / name
    found.mkdir(mode=0o700, exist_ok=True)
    state = found.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise StoreError(f"keep a dataset in memory: {found} is not a directory of this user's alone; remove it")
    return found


def is_in_memory(path: Path) -> bool:
    """Whether what is written there is written to no disk."""
    try:
        wanted = os.stat(path).st_dev
    except OSError:
        return False
    device = f"{os.major(wanted)}:{os.minor(wanted)}"
    try:
        with open(MOUNTS, encoding="utf-8", errors="replace") as mounts:
            rows = [line.split() for line in mounts]
    except OSError:
        return False
    return any(row[2] == device and row[row.index("-") + 1] in IN_MEMORY for row in rows if "-" in row)
