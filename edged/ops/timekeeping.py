"""Keeps how far trusted time has come, for a box without a clock whose records come and go by it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import trio

from edged.clock import Clock
from edged.errors import StoreError
from edged.replica.files import usedtime
from edged.replica.reader import Dataset

logger = logging.getLogger("edged.daemon")


async def keep_time(data_dir: Path, clock: Clock, catalog: Mapping[str, Dataset]) -> None:
    """Write it now and then, and at the end, where records of one of the datasets come and go by time."""
    path, complained = data_dir / usedtime.NAME, False
    try:
        while True:
            await trio.sleep(usedtime.WRITE_EVERY_S)
            complained = write_time(path, clock, catalog, complained=complained)
    finally:
        write_time(path, clock, catalog, complained=complained)


def write_time(path: Path, clock: Clock, catalog: Mapping[str, Dataset], *, complained: bool) -> bool:
    """Returns whether it could not be written, of which is told once."""
    if not any(dataset.current.limited for dataset in catalog.values()):
        return complained
    try:
        usedtime.write_used_time(path, clock.trusted())
    except StoreError as fault:
        if not complained:
            logger.warning("%s; after a restart without a clock, records may be shown that have ended", fault)
        return True
    return False
