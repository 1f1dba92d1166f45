"""One publisher at a time: advisory locks (flock) that end with the process that holds them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edged.errors import BusyError, StoreError

POLL_S = 0.05


@contextmanager
def locked(path: Path, what: str, *, shared: bool = False, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`; wait up to `wait_s` for it. Raises BusyError naming `what`, StoreError."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as fault:
        raise StoreError(f"open the lock {path}: {fault.strerror}") from fault
    try:
        acquire(handle, what, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait_s)
        yield
    finally:
        os.close(handle)


def acquire(handle: int, what: str, kind: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"lock {what}: another publisher is at work on it; try again later, or wait with --wait SECONDS"
                ) from None
            time.sleep(POLL_S)
