"""Keeps the further serving processes of `[serve] workers` running, and knows how much they have served."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from edged.errors import DamageError
from edged.serve.damage import OnDamage

logger = logging.getLogger("edged.serve")

STOP_S = 8.0
FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 30.0
LINE_BYTES = 4096


class Workers:
    """`count` processes of worker.py, each started again when it ends. requests: by worker, as last reported.

    on_damage: told of damage that one of them has met.
    """

    def __init__(self, config_path: Path, count: int, on_damage: OnDamage | None = None) -> None:
        self.config_path = config_path
        self.count = count
        self.on_damage = on_damage
        self.requests = [0] * count
        self.ended = [0] * count  # served by former processes

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; then they are asked to finish, and killed after STOP_S."""
        async with trio.open_nursery() as nursery:
            for index in range(self.count):
                await nursery.start(self.keep_running, index)
            task_status.started()

    @property
    def served(self) -> int:
        return sum(self.requests) + sum(self.ended)

    async def keep_running(self, index: int, *, task_status: trio.TaskStatus[None]) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            began = trio.current_time()
            process = await self.start()
            try:
                await self.listen(index, process, task_status)
            finally:
                await finish(process)
            self.ended[index] += self.requests[index]
            self.requests[index] = 0
            pause_s = FIRST_PAUSE_S if trio.current_time() - began > MOST_PAUSE_S else min(2 * pause_s, MOST_PAUSE_S)
            fields = {"worker": index, "code": process.returncode, "again_in_s": pause_s}
            logger.warning("serving process ended", extra={"fields": fields})
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(pause_s)

    async def start(self) -> trio.Process:
        command = [sys.executable, "-m", "edged.serve.processes.worker", str(self.config_path)]
        # The same code as ours, wherever it was found (a package's own directory is on no default path).
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "NOTIFY_SOCKET": ""}
        return await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    async def listen(self, index: int, process: trio.Process, task_status: trio.TaskStatus[None]) -> None:
        """Take in its reports until it closes its output; the first one says that it is up."""
        assert process.stdout is not None
        rest, started = b"", False
        async for data in process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-LINE_BYTES:]
            for line in lines:
                self.take(index, json.loads(line))
            if lines and not started:
                started = True
                task_status.started()
        if not started:
            # It will be tried again; the daemon serves by itself meanwhile.
            task_status.started()

    def take(self, index: int, document: Any) -> None:
        """One line of a worker's."""
        if "damage" in document:
            dataset, slice_name, what = document["damage"]
            fault = DamageError(what)
            fault.slice_name = slice_name
            if self.on_damage is not None:
                self.on_damage(dataset, fault)
        else:
            self.requests[index] = int(document["requests"])


async def finish(process: trio.Process) -> None:
    """Close its input, which tells it to stop; kill it if it does not."""
    with trio.CancelScope(shield=True):
        if process.stdin is not None:
            await process.stdin.aclose()
        with trio.move_on_after(STOP_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()
