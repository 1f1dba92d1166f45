"""Whether the box itself was switched on anew, as all of a region are after a power cut: then a device that holds
something does not ask at once, but at its own place within a minute. A daemon that is only restarted does."""

from __future__ import annotations

import logging
from pathlib import Path

from edged.errors import StoreError
from edged.files import write_durable

log = logging.getLogger("edged.sync")

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NOTE = ".boot"  # in the data directory: the boot in which edged was last started; no dataset has such a name
LEAST_CHARACTERS, MOST_CHARACTERS = 16, 64
START_WITHIN_S = 60.0


def start_within_s(data_dir: Path, boot_id: Path = BOOT_ID) -> float:
    """START_WITHIN_S at the first start since a boot, of a directory that was in use before it; else 0."""
    before, now = read_id(data_dir / NOTE), read_id(boot_id)
    if now == before or not now or not data_dir.is_dir():  # without datasets there is no directory
        return 0.0
    try:
        write_durable(data_dir / NOTE, now)
    except StoreError as fault:
        log.warning("%s; the next start is taken for another boot", fault)
    return START_WITHIN_S if before else 0.0


def read_id(path: Path) -> bytes:
    """Empty where there is none."""
    try:
        with path.open("rb") as file:
            found = file.read(MOST_CHARACTERS + 1).strip()
    except OSError:  # no Linux, or the first start
        return b""
    return found if LEAST_CHARACTERS <= len(found) <= MOST_CHARACTERS else b""
