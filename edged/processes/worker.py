"""A further serving process (`[serve] workers` above 1): reads the same replica, shares the TCP ports by SO_REUSEPORT.

`python -m edged.processes.worker CONFIG [--json]` is started by workers.py. It serves TCP alone, for a Unix socket has
one owner; prints what it has counted, and the damage that it has met, as JSON lines each second; and ends when its
standard input does, so that it never outlives the daemon.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
from msgspec import structs

from edged.access.apps import Access
from edged.access.configured import apps_of
from edged.access.rights import App
from edged.access.usage import UsageBook
from edged.clock import Clock
from edged.config import Config
from edged.configfile import load
from edged.errors import ConfigError, DamageError
from edged.http.limits import SWITCH_S
from edged.http.meter import Meter
from edged.ops import logs
from edged.ops.process import resident_bytes
from edged.replica.reader import Dataset, Replica
from edged.serve.app_server import AppServer
from edged.serve.news import News
from edged.threads import in_thread

logger = logging.getLogger("edged.serve")

REPORT_S = 1.0
USED_ROWS = 100  # in a line, so that each is far below what the daemon takes
TOLD = 500  # characters of a fault


async def work(config: Config) -> None:
    """Serve until standard input ends or SIGTERM comes."""
    sys.setswitchinterval(SWITCH_S)
    stop, clock, meter = trio.Event(), Clock(), Meter()
    damages: list[list[str]] = []

    def note(dataset: str, fault: DamageError) -> None:
        damages.append([dataset, fault.slice_name, str(fault)[:TOLD]])

    addresses = [bind for bind in config.serve.bind if not bind.startswith("unix:")]
    with ExitStack() as stack:
        catalog: dict[str, Dataset] = {}
        if config.datasets:  # without any, there need be no data directory
            replica = stack.enter_context(Replica(config.daemon.data_dir, clock))
            catalog = {dataset.name: replica.follow(dataset.name) for dataset in config.datasets}
        serving = structs.replace(config.serve, bind=addresses)
        async with trio.open_nursery() as nursery:
            book = UsageBook(1)
            nursery.start_soon(report, catalog, clock, Reported(meter, book, damages))
            access = Access(apps_of(config.apps), share=1 / config.serve.workers)
            nursery.start_soon(listen_to_daemon, access, stop)
            nursery.start_soon(stop_on_signal, stop)
            news = News(catalog, data_dir=str(config.daemon.data_dir))
            apps = AppServer(catalog, serving, clock, meter, news, on_damage=note, access=access, book=book)
            await apps.run(stop)
            nursery.cancel_scope.cancel()


@dataclass(slots=True)
class Reported:
    """What this process tells the daemon."""

    meter: Meter
    book: UsageBook
    damages: list[list[str]]


async def report(catalog: dict[str, Dataset], clock: Clock, reported: Reported) -> None:
    told: dict[str, str] = {}
    damages = reported.damages
    try:
        while True:
            look_for_damage(catalog, clock, told, damages)
            tell(reported)
            await trio.sleep(REPORT_S)
    finally:
        tell(reported)


def look_for_damage(catalog: dict[str, Dataset], clock: Clock, told: dict[str, str], damages: list[list[str]]) -> None:
    for name, dataset in catalog.items():
        clock.seen(dataset.view().as_of)
        fault = dataset.fault
        if isinstance(fault, DamageError) and told.get(name) != str(fault):
            damages.append([name, "", str(fault)[:TOLD]])
        told[name] = str(fault)


def tell(reported: Reported) -> None:
    while reported.damages:
        sys.stdout.write(json.dumps({"damage": reported.damages.pop()}) + "\n")
    used = [[*used, *count.row()] for used, count in reported.book.take()]
    for begin in range(0, len(used), USED_ROWS):
        sys.stdout.write(json.dumps({"used": used[begin : begin + USED_ROWS]}) + "\n")
    counted = {"meter": reported.meter.document(), "memory_bytes": resident_bytes()}
    sys.stdout.write(json.dumps(counted) + "\n")
    sys.stdout.flush()


async def listen_to_daemon(access: Access, stop: trio.Event) -> None:
    """What comes on standard input says that the configuration was read anew; its end, that the daemon has gone."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        while await stream.receive_some(64):
            try:
                access.replace(await in_thread(apps_of_file, Path(sys.argv[1])))
            except ConfigError as fault:
                logger.error("read the configuration anew: %s; the apps stay as they were", fault)
    stop.set()


def apps_of_file(path: Path) -> tuple[App, ...]:
    """Raises ConfigError."""
    return apps_of(load(path).apps)


async def stop_on_signal(stop: trio.Event) -> None:
    """Ctrl-C, and what else a terminal or `kill` sends to all its processes, is the daemon's to decide."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            if number == signal.SIGTERM:
                stop.set()


if __name__ == "__main__":
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    as_json = "--json" in sys.argv[2:]
    logs.setup("info", as_json=as_json)
    try:
        settings = load(Path(sys.argv[1]))
    except ConfigError as fault:  # mended since the daemon began, or not: it is tried again
        logger.error("%s", fault)
        sys.exit(fault.exit_code)
    logs.setup(settings.daemon.log_level, as_json=as_json)
    trio.run(partial(work, settings))
