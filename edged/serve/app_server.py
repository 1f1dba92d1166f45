"""The serving station as one task: datasets in, apps answered, by both lanes on every address of `[serve]`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from edged.access.apps import Access
from edged.access.usage import UsageBook
from edged.config import ServeConfig
from edged.errors import DamageError
from edged.http.application import Application, TellingApplication
from edged.http.cors import CorsRule
from edged.http.hosts import HostRule
from edged.http.limits import Limits
from edged.http.meter import Meter
from edged.http.server import Listening, serve
from edged.http.tls.certificates import CertificateFiles, Certificates
from edged.serve.accesslog import AccessLog
from edged.serve.answers.render import Renderer
from edged.serve.answers.respond import ACCEPTED, EXPOSED, Service
from edged.serve.apps import Api, Apps
from edged.serve.catalog import Clock, Dataset
from edged.serve.counting import Counting, RouteOf
from edged.serve.damage import DamageReports, OnDamage
from edged.serve.guard import Guard
from edged.serve.news import News
from edged.serve.servertiming import TimedApplication
from edged.units import size_bytes

EXPLORER = "explorer.html"
RENDERED_BYTES = 12 << 20  # of values and codings, whichever lane asks


@dataclass(slots=True)
class AppServer:
    """datasets: by name. meter: counts into it. news: one to which commits in this process are told (`news.look()`), so
    that event streams follow at once; own polling otherwise. others: answers paths outside the API. on_damage: told, in
    this task's thread, of damage that an answer has met; what could not be read is 503 until the replica has it anew.

    certificates: of TLS, where there are; access: the apps in force; route_of: which of them `others` has a path for;
    book: in which use is counted.
    """

    datasets: Mapping[str, Dataset]
    config: ServeConfig
    clock: Clock
    meter: Meter = field(default_factory=Meter)
    news: News | None = None
    others: Application | None = None
    on_damage: OnDamage | None = None
    certificates: Certificates | None = field(init=False)
    access: Access = field(default_factory=Access)
    route_of: RouteOf | None = None
    book: UsageBook = field(default_factory=lambda: UsageBook(1))

    def __post_init__(self) -> None:
        """Raises ConfigError where a certificate or its key cannot be used."""
        first = [CertificateFiles(self.config.tls_cert, self.config.tls_key)] if self.config.tls_cert else []
        more = [CertificateFiles(found.cert, found.key) for found in self.config.certificates]
        self.certificates = Certificates([*first, *more]) if first else None
        self.access.connections = self.config.max_connections

    async def run(
        self, stop: trio.Event | None = None, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until `stop` is set or it is cancelled; reports the bound URLs. Raises ConfigError where an address
        cannot be used.
        """
        news = News(self.datasets) if self.news is None else self.news
        api = Api(self.make_service(news))
        inner: Application = api if self.others is None else Apps(api, self.others)
        if self.config.server_timing:
            inner = TimedApplication(inner)
        counting = Counting(self.book, self.meter, self.datasets, self.route_of)
        home = EXPLORER if self.config.explorer else ""
        application: Application = Guard(inner, api.service, self.access, counting, home)
        if self.config.access_log:
            application = TellingApplication(application, AccessLog(time.monotonic).tell)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(news.run)
            await serve(
                application, self.listening(), clock=self.clock, meter=self.meter, stop=stop, task_status=task_status
            )
            nursery.cancel_scope.cancel()

    def make_service(self, news: News) -> Service:
        token = trio.lowlevel.current_trio_token()

        def tell(dataset: str, fault: DamageError) -> None:  # out of any thread
            if self.on_damage is not None:
                token.run_sync_soon(self.on_damage, dataset, fault)

        return Service(
            self.datasets,
            news,
            self.clock,
            Renderer(RENDERED_BYTES),
            HostRule.of(self.config.hosts),
            CorsRule.of(self.config.origins, EXPOSED, ACCEPTED),
            damage=DamageReports(tell),
        )

    def listening(self) -> Listening:
        config = self.config
        limits = Limits(
            connections=config.max_connections,
            memory_bytes=size_bytes(config.memory),
            unread_bytes=size_bytes(config.unread),
            websockets=self.others is not None,
        )
        return Listening(
            tuple(config.bind),
            self.certificates,
            limits,
            socket_mode=int(config.socket_mode, 8),
            reuse_port=config.workers > 1,
        )
