"""Further serving processes for `[serve] workers`: each opens the replica itself and shares the TCP ports.

    python -m edged.serve.worker --config FILE

The kernel spreads connections over the processes (SO_REUSEPORT). Unix sockets stay with the daemon. A worker ends on
SIGTERM, or when its standard input ends: that is the daemon's other end of a pipe, so no worker outlives it.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio

import edged
from edged.config import Config, load
from edged.errors import ConfigError, EdgedError
from edged.ops.clock import Clock
from edged.serve.app_server import serve_apps
from edged.serve.meter import Meter

logger = logging.getLogger("edged.serve")

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
PATIENCE_S = 10.0  # for a worker that was told to end


def shared_binds(config: Config) -> list[str]:
    """The addresses that several processes can listen on."""
    return [address for address in config.serve.bind if not address.startswith("unix:")]


async def run_worker(config: Config) -> None:
    """Serve until SIGTERM, SIGINT or the end of standard input. Raises ConfigError where nothing can be shared."""
    bind = shared_binds(config)
    if not bind:
        raise ConfigError("start a worker: [serve] bind has no TCP address that processes can share; set workers = 1")
    stop = trio.Event()
    serving = msgspec.structs.replace(config.serve, bind=bind, workers=max(2, config.serve.workers))
    with edged.open(config.daemon.data_dir) as replica:
        catalog = {dataset.name: replica.follow(dataset.name) for dataset in config.datasets}
        clock = Clock()

        def now() -> float:
            """No sync task tells a worker of signed times: it sees them in what it serves."""
            for dataset in catalog.values():
                clock.seen(dataset.view().as_of)
            return clock()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_on_signal, stop)
            nursery.start_soon(stop_with_parent, stop)
            await serve_apps(catalog, serving, clock=now, meter=Meter(), stop=stop)
            nursery.cancel_scope.cancel()


async def stop_on_signal(stop: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            stop.set()


async def stop_with_parent(stop: trio.Event) -> None:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as lifeline:
        while await lifeline.receive_some(64):
            pass
    stop.set()


async def supervise(config_path: Path, count: int) -> None:
    """Keep `count` workers running until cancelled; one that ends is started again, less and less often."""
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(keep_running, number, command(config_path))


def command(config_path: Path) -> list[str]:
    return [sys.executable, "-m", "edged.serve.worker", "--config", str(config_path)]


async def keep_running(number: int, arguments: Sequence[str]) -> None:
    pause_s = FIRST_PAUSE_S
    while True:
        started = trio.current_time()
        process = await trio.lowlevel.open_process(list(arguments), stdin=subprocess.PIPE)
        try:
            code = await process.wait()
        finally:
            await end(process)
        pause_s = (
            FIRST_PAUSE_S if trio.current_time() - started > LONGEST_PAUSE_S else min(pause_s * 2, LONGEST_PAUSE_S)
        )
        logger.error("serving worker %d ended with code %d; starting another in %.0f s", number, code, pause_s)
        await trio.sleep(pause_s)


async def end(process: trio.Process) -> None:
    """Tell a worker to end, by its lifeline, and see that it does."""
    with trio.CancelScope(shield=True):
        if process.stdin is not None:
            await process.stdin.aclose()
        with trio.move_on_after(PATIENCE_S) as patience:
            await process.wait()
        if patience.cancelled_caught:
            process.kill()
            await process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="edged.serve.worker", description="One more serving process of a daemon.")
    parser.add_argument("--config", type=Path, required=True, help="the daemon's configuration")
    options = parser.parse_args()
    try:
        trio.run(run_worker, load(options.config))
    except EdgedError as fault:
        sys.stderr.write(f"edged worker: {fault}\n")
        return fault.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
