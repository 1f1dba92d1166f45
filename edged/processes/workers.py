"""Keeps the further serving processes of `[serve] workers` running, and knows what they have served and take."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from edged.access.usage import Count, Used
from edged.errors import DamageError
from edged.http.meter import Meter
from edged.ops.logs import is_json
from edged.serve.damage import OnDamage

logger = logging.getLogger("edged.serve")

OnUsage = Callable[[Sequence[tuple[Used, Count]]], None]

STOP_S = 8.0
FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 30.0
LINE_BYTES = 64 << 10
LAST_BYTES = 1 << 20  # of what one says while it stops


@dataclass(slots=True)
class WorkerReport:
    """What one of them has reported last. ended: counted by its predecessors."""

    meter: Meter = field(default_factory=Meter)
    ended: Meter = field(default_factory=Meter)
    memory_bytes: int = 0

    def end(self) -> None:
        self.ended = Meter.sum((self.ended, self.meter.ended()))
        self.meter, self.memory_bytes = Meter(), 0


class Workers:
    """`count` processes of worker.py, each started again when it ends.

    on_damage: told of damage that one of them has met; on_usage: of what each has counted since it last told.
    """

    def __init__(
        self, config_path: Path, count: int, on_damage: OnDamage | None = None, on_usage: OnUsage | None = None
    ) -> None:
        self.config_path = config_path
        self.count = count
        self.on_damage, self.on_usage = on_damage, on_usage
        self.reports = [WorkerReport() for _ in range(count)]
        self.running: set[trio.Process] = set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; then they are asked to finish, and killed after STOP_S."""
        async with trio.open_nursery() as nursery:
            for index in range(self.count):
                nursery.start_soon(self.keep_running, index, tried := trio.Event())
                await tried.wait()
            task_status.started()

    @property
    def meter(self) -> Meter:
        """What all of them have counted, those that have ended too."""
        return Meter.sum(meter for report in self.reports for meter in (report.meter, report.ended))

    @property
    def memory_bytes(self) -> int:
        """Resident, of all that run."""
        return sum(report.memory_bytes for report in self.reports)

    async def keep_running(self, index: int, tried: trio.Event) -> None:
        """One that cannot be started, or ends, is tried again after a pause; the daemon serves by itself meanwhile.

        tried: set when the first one is up, or has failed.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            began = trio.current_time()
            fields: dict[str, object] = {"worker": index}
            try:
                fields["code"] = await self.run_one(index, tried)
            except OSError as fault:  # no process or no descriptor to be had
                fields["fault"] = fault.strerror or str(fault)
            tried.set()
            self.reports[index].end()
            pause_s = FIRST_PAUSE_S if trio.current_time() - began > MOST_PAUSE_S else min(2 * pause_s, MOST_PAUSE_S)
            what = "serving process cannot be started" if "fault" in fields else "serving process ended"
            logger.warning(what, extra={"fields": {**fields, "again_in_s": pause_s}})
            await trio.sleep(pause_s)

    async def run_one(self, index: int, up: trio.Event) -> int | None:
        """One process from start to end; its exit code. Raises OSError where it cannot be started."""
        process = await self.start()
        self.running.add(process)
        try:
            await self.listen(index, process, up)
        except trio.BrokenResourceError as fault:
            logger.warning("serving process cannot be heard", extra={"fields": {"worker": index, "fault": str(fault)}})
        finally:
            self.running.discard(process)
            self.take_lines(index, (await finish(process)).split(b"\n")[:-1])
        return process.returncode

    async def reload(self) -> None:
        """Have each read anew what apps may ask for. One that does not take it is ending, and begins with it."""
        for process in list(self.running):
            assert process.stdin is not None
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                with trio.move_on_after(STOP_S):
                    await process.stdin.send_all(b"\n")

    async def start(self) -> trio.Process:
        command = [
            sys.executable,
            "-m",
            "edged.processes.worker",
            str(self.config_path),
            *(["--json"] if is_json() else []),
        ]
        # The same code as ours, wherever it was found (a package's own directory is on no default path).
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "NOTIFY_SOCKET": ""}
        return await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    async def listen(self, index: int, process: trio.Process, up: trio.Event) -> None:
        """Take in its reports until it closes its output; the first one says that it is up."""
        assert process.stdout is not None
        rest = b""
        async for data in process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-LINE_BYTES:]
            if self.take_lines(index, lines):
                up.set()

    def take_lines(self, index: int, lines: Iterable[bytes]) -> bool:
        """Whether one of them could be read; of those that cannot the log tells."""
        taken = False
        for line in lines:
            try:
                self.take(index, line)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as fault:
                fields = {"worker": index, "line": line[:80].decode(errors="replace"), "fault": str(fault)[:80]}
                logger.warning("serving process reports what cannot be read", extra={"fields": fields})
            else:
                taken = True
        return taken

    def take(self, index: int, line: bytes) -> None:
        """One line of a worker's. Raises ValueError, TypeError, KeyError or AttributeError for what is none."""
        document = json.loads(line)
        if "damage" in document:
            dataset, slice_name, what = map(str, document["damage"])
            fault = DamageError(what)
            fault.slice_name = slice_name
            if self.on_damage is not None:
                self.on_damage(dataset, fault)
        elif "used" in document:
            counted = [(Used(*map(str, row[:3])), Count.of_row(row[3:])) for row in document["used"]]
            if self.on_usage is not None:
                self.on_usage(counted)
        else:
            meter, memory_bytes = Meter.of_document(document["meter"]), int(document["memory_bytes"])
            self.reports[index].meter, self.reports[index].memory_bytes = meter, memory_bytes


async def finish(process: trio.Process) -> bytes:
    """Close its input, which tells it to stop; kill it if it does not. What it has said meanwhile, from a whole line
    on."""
    said = b""
    with trio.CancelScope(shield=True):
        if process.stdin is not None:
            await process.stdin.aclose()
        with trio.move_on_after(STOP_S):
            said = await last_words(process)
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()
    return said


async def last_words(process: trio.Process) -> bytes:
    said = bytearray()
    if process.stdout is not None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in process.stdout:
                said += data[: max(0, LAST_BYTES - len(said))]
    return bytes(said)
