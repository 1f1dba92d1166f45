"""The daemon: the nurseries, and nothing else.

Nested so that what is outermost ends last: the replicas, then the servers, then one sync task a dataset. systemd is
told that edged is ready when the sockets answer; a replica that holds nothing yet answers 503 meanwhile.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from msgspec import structs

from edged.access.apps import Access
from edged.access.configured import apps_of
from edged.access.usagefile import UsageKeeper
from edged.clock import Clock
from edged.config import Config, DatasetConfig
from edged.configfile import load_with_warnings
from edged.errors import ConfigError, DamageError, EdgedError, RequestError, StoreError
from edged.http.addresses import refuse_taken
from edged.http.limits import SWITCH_S, Limits
from edged.http.meter import Meter
from edged.http.server import Listening, serve
from edged.http.tls.certificates import Certificates
from edged.ops.activation import bind_with, inherited_sockets, warn_of_others
from edged.ops.admin import AdminApp
from edged.ops.gauges import daemon_registry
from edged.ops.notify import Notifier
from edged.ops.process import resident_bytes
from edged.ops.recent import RecentTimes
from edged.ops.reload import ConfigChanges, applied_to, changes_between
from edged.ops.shown import certificate_documents, dataset_document, serving_document
from edged.ops.timekeeping import keep_time
from edged.processes.workers import Workers
from edged.progress import Watch, unwatched
from edged.replica.files.disk import holds_version
from edged.replica.placing import open_writer
from edged.replica.reader import Dataset, Replica
from edged.replica.writer import Writer
from edged.serve.app_server import AppServer
from edged.serve.news import News
from edged.sync import task
from edged.sync.audits import keep_auditing
from edged.sync.boots import start_within_s
from edged.sync.control import Control
from edged.sync.core.wear import WearBudget
from edged.sync.replication import Replication
from edged.sync.reporting import report_use
from edged.sync.status import DatasetStatus
from edged.sync.subscription import Subscription, subscription_of
from edged.threads import NameLookup, in_thread
from edged.units import size_bytes, span_text
from edged.version import VERSION

if TYPE_CHECKING:
    from edged.proxy.application import ProxyApplication
    from edged.relay.server import RelayServer

logger = logging.getLogger("edged.daemon")

ADMIN_CONNECTIONS = 64
STUCK_S = 1800.0  # merging a million records takes a minute here, and a slow box a tenth of the speed
REOPEN_S = 30.0  # between attempts to write where the disk is read-only
OF_EVERY_DATASET = {"daemon.audit_s", "daemon.flash_budget"}
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(slots=True)
class Station:
    """One dataset on its way in. writer: None as long as the disk is read-only: then it is served, and not synced.

    scope, ended: of the tasks that keep it synced.
    """

    config: DatasetConfig
    writer: Writer | None
    status: DatasetStatus
    control: Control
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)


class Daemon:
    """One daemon. `app_urls` and `admin_urls` say where it answers once `run` has started."""

    def __init__(
        self,
        config: Config,
        *,
        config_path: Path | None = None,
        clock: Clock | None = None,
        notifier: Notifier | None = None,
        inherited: Mapping[str, str] | None = None,
    ) -> None:
        """config_path: the file that further serving processes read; without one there are none. inherited: sockets
        that are open already, see ops/activation.py."""
        self.config = config
        self.inherited = inherited or {}
        self.clock = clock or Clock()
        self.use = UsageKeeper(Path(config.daemon.data_dir), config.usage.keep_days, self.clock.dated)
        self.use.flash = self.flash_written
        self.workers: Workers | None = None
        if config_path is not None:
            self.workers = Workers(config_path, config.serve.workers - 1, self.damaged, self.use.note)
        self.notifier = notifier or Notifier()
        self.meter, self.began = Meter(), time.monotonic()
        self.wear = WearBudget(size_bytes(config.daemon.flash_budget), time.monotonic())
        self.catalog: dict[str, Dataset] = {}
        self.news = News(self.catalog)
        self.registry = daemon_registry(self)
        self.stations: dict[str, Station] = {}
        self.app_urls: list[str] = []
        self.admin_urls: list[str] = []
        self.certificates: list[Certificates] = []  # of all listeners
        self.stopping = trio.Event()
        self.replica: Replica | None = None
        self.syncs: trio.Nursery
        self.proxy = make_proxy(config, self.clock) if config.proxy.routes else None
        self.relay: RelayServer | None = None
        self.admin, self.recently = AdminApp(self), RecentTimes(self.counted, self.clock)
        self.access = Access(apps_of(config.apps), share=1 / config.serve.workers)

    def stop(self) -> None:
        """Let `run` end: sync first, then answers under way, then the replicas."""
        self.stopping.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sync and serve until `stop`. Raises ConfigError, BusyError or StoreError where it cannot begin."""
        trio.socket.set_custom_hostname_resolver(NameLookup())
        with ExitStack() as stack:
            stack.enter_context(self.recently)
            stack.callback(self.use.close)  # after the last answer, and the last that other processes have counted
            self.catalog = self.open_replicas(stack)
            self.start_within_s = start_within_s(Path(self.config.daemon.data_dir))
            async with trio.open_nursery() as stores:
                if self.proxy is not None:
                    await stores.start(self.proxy.run)
                async with trio.open_nursery() as servers:
                    await self.start_servers(servers)
                    if self.workers is not None:
                        await stores.start(self.workers.run)
                    await self.start_relay(servers)
                    stores.start_soon(keep_time, Path(self.config.daemon.data_dir), self.clock, self.catalog)
                    stores.start_soon(self.use.run)
                    stores.start_soon(self.recently.run)
                    if self.config.usage.report:
                        stores.start_soon(report_use, self.use.book, self.subscriptions, self.clock.dated)
                    await self.sync_until_stopped(task_status)
                stores.cancel_scope.cancel()
        logger.info("stopped")

    def subscriptions(self) -> list[Subscription]:
        return [subscription_of(station.config, self.config) for station in self.stations.values()]

    async def sync_until_stopped(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as self.syncs:
            for station in self.stations.values():
                await self.begin_sync(station)
            self.syncs.start_soon(self.admin.tick)
            if self.notifier.watchdog_s is not None:
                self.syncs.start_soon(self.ping_watchdog, self.notifier.watchdog_s / 3)
            self.notifier.ready(f"serving {len(self.catalog)} datasets at {' '.join(self.app_urls)}")
            task_status.started()
            self.start_within_s = 0.0  # what is followed from now on was not switched on with the box
            await self.stopping.wait()
            self.notifier.stopping()
            self.syncs.cancel_scope.cancel()

    def open_replicas(self, stack: ExitStack) -> dict[str, Dataset]:
        """The writer first, which makes the directory; then the reader that serving uses."""
        stack.callback(self.close_replicas)
        for config in self.config.datasets:
            self.stations[config.name] = self.open_station(config)
        return {name: self.open_reader(name) for name in self.stations}

    def open_station(self, config: DatasetConfig) -> Station:
        """Raises StoreError where it can be neither written nor served."""
        data_dir = Path(self.config.daemon.data_dir)
        station = Station(config, None, DatasetStatus(config.name), Control())
        try:
            station.writer = open_writer(data_dir, config.name, memory=config.memory)
        except StoreError as fault:
            if getattr(fault.__cause__, "errno", 0) not in READ_ONLY or not holds_version(data_dir / config.name):
                raise
            note_read_only(station, fault)
        return station

    def open_reader(self, name: str) -> Dataset:
        if self.replica is None:
            self.replica = Replica(self.config.daemon.data_dir, self.clock)
        return self.replica.follow(name)

    def close_replicas(self) -> None:
        if self.replica is not None:
            self.replica.close()
        for station in self.stations.values():
            close_writer(station)

    async def start_servers(self, servers: trio.Nursery) -> None:
        self.news = News(self.catalog, self.damaged, str(self.config.daemon.data_dir))
        if self.config.serve.workers > 1:
            refuse_taken(bind_with(self.inherited, self.config.serve.bind))
        serving = structs.replace(self.config.serve, bind=bind_with(self.inherited, self.config.serve.bind))
        warn_of_others(self.inherited, (*self.config.serve.bind, *self.config.relay.bind, *self.config.admin.bind))
        apps = AppServer(self.catalog, serving, self.clock, self.meter, self.news, on_damage=self.damaged)
        apps.access, apps.book = self.access, self.use.book
        self.certificates += [apps.certificates] if apps.certificates is not None else []
        if self.proxy is not None:
            apps.others, apps.route_of = self.proxy, self.proxy.prefix_of
        self.app_urls = await servers.start(apps.run, self.stopping)
        for url in self.app_urls:
            logger.info("serving apps", extra={"fields": {"url": url}})
        listening = Listening(
            tuple(bind_with(self.inherited, self.config.admin.bind)), limits=Limits(connections=ADMIN_CONNECTIONS)
        )
        admin = partial(serve, self.admin, listening, clock=self.clock, stop=self.stopping)
        self.admin_urls = await servers.start(admin)
        for url in self.admin_urls:
            logger.info("serving operators", extra={"fields": {"url": url}})

    async def start_relay(self, servers: trio.Nursery) -> None:
        """Other edgeds are served until the last of them has had its answer, so it ends with the servers."""
        if self.config.relay.bind:
            self.relay = make_relay(self.config, self.clock)
            self.certificates += [self.relay.certificates] if self.relay.certificates is not None else []
            bind = bind_with(self.inherited, self.config.relay.bind)
            await servers.start(self.relay.run, bind, self.stopping)

    async def begin_sync(self, station: Station) -> None:
        """Start what keeps a dataset at the live version and whole; returns when it is known what is held."""
        station.scope, station.ended = trio.CancelScope(), trio.Event()
        if station.writer is None:
            self.syncs.start_soon(self.keep_synced, station)
        else:
            await self.syncs.start(self.keep_synced, station)

    async def keep_synced(
        self, station: Station, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        try:
            with station.scope:
                writer = station.writer or await self.until_writable(station)
                subscription = subscription_of(station.config, self.config)
                replication = Replication(
                    subscription, writer, station.status, self.clock, station.control, self.wear, self.news.look
                )
                replication.start_within_s = self.start_within_s
                audit_s = float(self.config.daemon.audit_s)
                async with trio.open_nursery() as nursery:
                    await nursery.start(task.run, replication)
                    nursery.start_soon(keep_auditing, station.config.name, writer, station.control, audit_s)
                    task_status.started()
        finally:
            station.ended.set()

    async def until_writable(self, station: Station) -> Writer:
        """Try now and then whether the disk can be written to again; what is held is served meanwhile."""
        data_dir, name, memory = self.config.daemon.data_dir, station.config.name, station.config.memory
        while station.writer is None:
            await trio.sleep(REOPEN_S)
            try:
                station.writer = await in_thread(partial(open_writer, data_dir, name, memory=memory))
            except StoreError as fault:
                note_read_only(station, fault)
        return station.writer

    async def reload(self, config: Config) -> ConfigChanges:
        """Put to use what can be without a restart. No connection is dropped. Raises StoreError, with nothing changed,
        where a dataset that is new cannot be written."""
        changes = changes_between(self.config, config)
        found = await in_thread(apps_of, config.apps)  # also where the same files hold other tokens
        opened = [await in_thread(self.open_station, added) for added in changes.added]
        self.config = applied_to(self.config, config, changes)
        self.wear = WearBudget(size_bytes(self.config.daemon.flash_budget), time.monotonic())
        logging.getLogger("edged").setLevel(self.config.daemon.log_level.upper())
        again = set(self.stations) if set(changes.keys) & OF_EVERY_DATASET else {item.name for item in changes.changed}
        for name in again | set(changes.removed):
            await self.end_sync(self.stations[name])
        for name in changes.removed:
            del self.catalog[name]
            close_writer(self.stations.pop(name))
        for station in opened:
            self.stations[station.config.name] = station
            self.catalog[station.config.name] = self.open_reader(station.config.name)
        configs = {item.name: item for item in self.config.datasets}
        for name in (*sorted(again - set(changes.removed)), *(item.name for item in changes.added)):
            station = self.stations[name]
            station.config, station.status.last_error = configs[name], None
            await self.begin_sync(station)
        self.access.replace(found)
        if self.workers is not None:
            await self.workers.reload()
        if self.relay is not None:
            await self.relay.take(self.config)
        self.news.look()
        return changes

    async def end_sync(self, station: Station) -> None:
        station.scope.cancel()
        await station.ended.wait()

    def damaged(self, dataset: str, fault: DamageError) -> None:
        """An answer has met damage: the slice is fetched again, and everything else is served meanwhile."""
        self.stations[dataset].control.damaged(fault.slice_name, str(fault))

    def audit(self) -> None:
        """Look over everything on disk now, and mend what is damaged."""
        for station in self.stations.values():
            station.control.audit()

    def read_certificates(self) -> None:
        """Anew, also where no file seems to have changed."""
        for certificates in self.certificates:
            if certificates.refresh(always=True):
                certificates.warn(self.clock())

    async def ping_watchdog(self, every_s: float) -> None:
        """From the loop that also serves, as long as every writer gets on: what hangs is restarted by systemd."""
        while True:
            if stuck := [name for name, station in self.stations.items() if is_stuck(station.status, time.monotonic())]:
                logger.error("the writer of %s has been at one step for over %s", ", ".join(stuck), span_text(STUCK_S))
            else:
                self.notifier.alive()
            await trio.sleep(every_s)

    # --- what operators ask (ops/admin.py) ---------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        now_s, meter = self.clock(), self.counted()
        return {
            "version": VERSION,
            "time": now_s,
            "uptime_s": round(time.monotonic() - self.began, 1),
            "apps": self.app_urls,
            "access": self.access.status(),
            "requests_served": meter.requests,
            "serving": serving_document(meter),
            "memory_bytes": self.memory_bytes(),
            "flash_budget": size_bytes(self.config.daemon.flash_budget),
            "certificates": certificate_documents(self.certificates),
            "datasets": {
                name: dataset_document(station.status, self.catalog[name], now_s, memory=station.config.memory)
                for name, station in self.stations.items()
            },
            "proxy": None if self.proxy is None else self.proxy.status(),
            "relay": None if self.relay is None else self.relay.status(),
        }

    def usage(self) -> Callable[[], dict[str, Any]]:
        return self.use.report()

    def recent(self) -> dict[str, Any]:
        return self.recently.document()

    def flash_written(self) -> dict[str, int]:
        """By dataset, the bytes since the start."""
        held = {name: station for name, station in self.stations.items() if not station.config.memory}
        return {name: station.status.flash_bytes_since_start for name, station in held.items()}

    def counted(self) -> Meter:
        return self.meter if self.workers is None else Meter.sum((self.meter, self.workers.meter))

    def memory_bytes(self) -> int:
        """Resident, of all processes."""
        return resident_bytes() + (0 if self.workers is None else self.workers.memory_bytes)

    def not_ready(self) -> list[str]:
        return [name for name, dataset in self.catalog.items() if not dataset.version]

    def metrics(self) -> bytes:
        return self.registry.render()

    async def pin(self, dataset: str, version: int | None) -> dict[str, Any]:
        if dataset not in self.stations:
            raise RequestError(404, f"no dataset {dataset!r}; configured: {', '.join(self.stations) or 'none'}")
        if self.stations[dataset].writer is None:
            raise RequestError(409, f"pin {dataset}: {self.stations[dataset].status.last_error}")
        await self.stations[dataset].control.pin(version)
        return {"dataset": dataset, "pinned": version}

    async def wait_for(self, dataset: str, version: int) -> None:
        """Until the replica holds `version` or a later one."""
        while True:
            generation = self.news.generation
            if self.catalog[dataset].version >= version:
                return
            await self.news.wait(generation)


def is_stuck(status: DatasetStatus, now_s: float) -> bool:
    """Whether the writer is at one piece of work for longer than any takes, as on a disk that does not answer."""
    return status.writing_since_s is not None and now_s - status.writing_since_s > STUCK_S


def close_writer(station: Station) -> None:
    if station.writer is not None:
        station.writer.close()


def note_read_only(station: Station, fault: StoreError) -> None:
    if station.status.last_error != str(fault):
        logger.error("%s is served and not synced: %s", station.config.name, fault)
    station.status.last_error = str(fault)


def make_proxy(config: Config, clock: Clock) -> ProxyApplication:
    from edged.proxy.application import ProxyApplication  # here, so that a device without routes does not load it
    from edged.proxy.gateway import Gateway

    return ProxyApplication(Gateway(config.proxy, config.proxy_directory, clock, timing=config.serve.server_timing))


def make_relay(config: Config, clock: Clock) -> RelayServer:
    from edged.relay.server import RelayServer  # likewise

    return RelayServer(config, clock)


async def run_until_signal(config: Config, config_path: Path, started: Callable[[Daemon], None]) -> None:
    """`edged run`: the daemon until SIGTERM or SIGINT. SIGHUP has it read its configuration and certificates anew, and
    audit what is on disk.

    started: called once it answers.
    """
    sys.setswitchinterval(SWITCH_S)
    inherited = inherited_sockets(os.environ)
    daemon = Daemon(config, config_path=config_path, notifier=Notifier.from_environment(), inherited=inherited)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_on_signal() -> None:
                async for number in signals:
                    if number == signal.SIGHUP:
                        await read_anew(daemon, config_path)
                        daemon.audit()
                        continue
                    logger.info("stopping", extra={"fields": {"signal": signal.Signals(number).name}})
                    daemon.stop()

            async def run(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
                await daemon.run(task_status=task_status)
                nursery.cancel_scope.cancel()

            nursery.start_soon(stop_on_signal)
            await nursery.start(run)
            started(daemon)


async def read_anew(daemon: Daemon, config_path: Path) -> None:
    """A configuration that is faulty is said to be, and the one in force stays."""
    daemon.read_certificates()
    try:
        config, warnings = await in_thread(load_with_warnings, config_path)
        changes = await daemon.reload(config)
    except (ConfigError, StoreError) as fault:
        for line in getattr(fault, "faults", (str(fault),)):
            logger.error("configuration not taken: %s", line)
        return
    for line in warnings:
        logger.warning("%s", line)
    if changes.applied:
        logger.info("configuration read anew: %s", ", ".join(changes.applied))
    if changes.restart:
        logger.warning("configuration read anew: %s: takes a restart", ", ".join(changes.restart))


async def sync_datasets(config: Config, watch: Watch = unwatched) -> tuple[dict[str, dict[str, Any]], list[EdgedError]]:
    """`edged sync`: every dataset once. Returns their status documents and what went wrong.

    watch: told a dataset's name and how many steps of its update are done, and of how many.
    """
    trio.socket.set_custom_hostname_resolver(NameLookup())
    clock = Clock()
    documents, faults = {}, []
    for dataset in config.datasets:
        status = DatasetStatus(dataset.name, watch=watch)
        try:
            with open_writer(config.daemon.data_dir, dataset.name, memory=dataset.memory) as writer:
                replication = Replication(subscription_of(dataset, config), writer, status, clock)
                outcome = await task.sync_once(replication)
            fault = outcome.error
        except EdgedError as caught:  # the other datasets are synced all the same
            fault = caught
        if fault is not None:
            faults.append(fault)
        documents[dataset.name] = {**status.document(clock()), "last_error": None if fault is None else str(fault)}
    return documents, faults
