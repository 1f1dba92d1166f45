"""Durable files: a temporary beside the target, write, fsync, rename, fsync the directory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from edged.errors import StoreError

TEMPORARY = ".tmp-"
NO_FOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Create `path` if it is not there, durably. Raises StoreError."""
    try:
        path.mkdir(mode=mode)
        path.chmod(mode)  # whatever the umask says
        sync_directory(path.parent)
    except FileExistsError:
        if path.is_symlink() or not path.is_dir():
            raise StoreError(f"create directory {path}: something else is there; move it away") from None
    except OSError as fault:
        raise StoreError(f"create directory {path}: {fault.strerror}") from fault


def sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def prepare(path: Path, data: bytes, mode: int = 0o644) -> Path:
    """Write `data` into a temporary beside `path` and fsync it; `swap` puts it in place. Raises StoreError."""
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, mode)
        try:
            os.fchmod(handle, mode)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as fault:
        discard([temporary])
        raise StoreError(f"write {path}: {fault.strerror}; nothing was changed") from fault
    return temporary


def swap(temporary: Path, path: Path) -> None:
    """Rename a prepared file into place. Raises StoreError; then the old file is still there."""
    try:
        os.replace(temporary, path)
    except OSError as fault:
        discard([temporary])
        raise StoreError(f"write {path}: {fault.strerror}; nothing was changed") from fault


def write_durable(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace or create `path` so that after a crash it holds the old bytes or the new. Raises StoreError."""
    swap(prepare(path, data, mode), path)
    try:
        sync_directory(path.parent)
    except OSError as fault:
        raise StoreError(f"write {path}: fsync of its directory: {fault.strerror}") from fault


def read_bounded(path: Path, most: int) -> bytes:
    """The file's bytes. Raises StoreError if it is missing, a symbolic link, or over `most` bytes."""
    try:
        handle = os.open(path, os.O_RDONLY | NO_FOLLOW)
        with os.fdopen(handle, "rb") as file:
            data = file.read(most + 1)
    except OSError as fault:
        raise StoreError(f"read {path}: {fault.strerror}") from fault
    if len(data) > most:
        raise StoreError(f"read {path}: over {most} bytes; this is not a file that edged wrote")
    return data


def discard(paths: Iterable[Path]) -> None:
    """Delete files that nothing names; one that cannot be deleted is left for the next sweep."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            continue  # only space is lost; the sweep at the next snapshot tries again
