"""The audit in the background: every checksum on disk once after the start, then now and then, and when asked for."""

from __future__ import annotations

import logging
import math

import trio

from edged.errors import StoreError
from edged.replica.audit import Report
from edged.sync.control import Control
from edged.sync.store import Writer
from edged.threads import in_thread

log = logging.getLogger("edged.sync")

BYTES_A_SECOND = 20 << 20  # read at most, so that apps and updates have the disk for themselves


async def audit(writer: Writer, bytes_a_second: float = math.inf) -> Report:
    """Look over what `writer` holds, a file at a time in a thread; updates may go on meanwhile. Reads only.

    Raises StoreError for a fault that is no damage.
    """
    report = Report()
    steps = writer.look_over(report)
    while True:
        size = await in_thread(next, steps, -1)
        if size < 0:
            return report
        await trio.sleep(size / bytes_a_second)


async def keep_auditing(dataset: str, writer: Writer, control: Control, every_s: float) -> None:
    """Hand to `control` the damage that is found. every_s: from one audit to the next; 0: only when asked for."""
    wait_s = 0.0 if every_s else math.inf
    while True:
        with trio.move_on_after(wait_s):
            await control.audit_wanted.wait()
        control.audit_wanted = trio.Event()
        wait_s = every_s or math.inf
        try:
            report = await audit(writer, BYTES_A_SECOND)
        except StoreError as fault:
            log.warning("%s: audit: %s", dataset, fault)
            continue
        log.info("%s: audited %d bytes, %d faults", dataset, report.bytes, len(report.faults))
        if report.faults:
            control.found(report.faults)
