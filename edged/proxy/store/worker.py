"""One thread for what blocks, so that a slow flash never holds up the event loop and one connection sees the database.

Calls run in the order they were made. A call cannot be cancelled: its caller waits for it, which takes milliseconds.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import outcome
import trio

from edged.errors import StoreError

T = TypeVar("T")


class Worker:
    """`await worker.run(function, *arguments)`; `close()` ends the thread after what was asked before.

    Raises StoreError where the system gives no thread.
    """

    def __init__(self, name: str) -> None:
        self.jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.work, name=name, daemon=True)
        try:
            self.thread.start()
        except RuntimeError as fault:
            raise StoreError(f"start the thread {name}: {fault}; raise TasksMax, or free memory") from fault

    def work(self) -> None:
        while (job := self.jobs.get()) is not None:
            job()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        token = trio.lowlevel.current_trio_token()
        task = trio.lowlevel.current_task()

        def job() -> None:
            result = outcome.capture(function, *arguments)
            try:
                token.run_sync_soon(trio.lowlevel.reschedule, task, result)
            except trio.RunFinishedError:
                return  # the program has ended without waiting

        self.jobs.put(job)
        value: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return value

    def close(self) -> None:
        """End the thread; blocks until it has done what was asked before."""
        self.jobs.put(None)
        self.thread.join()
