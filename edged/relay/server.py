"""The relay as the configuration has it: its listener, and what it follows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from edged.clock import Clock
from edged.config import Config, RelayConfig
from edged.feedserving.app import FeedApp, connection_limits
from edged.http.meter import Meter
from edged.http.server import Listening, serve
from edged.http.tls.certificates import CertificateFiles, Certificates
from edged.relay.relay import Relay, RelaySettings
from edged.sync.subscription import Subscription, access_of, subscription_of
from edged.units import size_bytes

logger = logging.getLogger("edged.relay")


class RelayServer:
    """meter: what its listener counts. Raises ConfigError where its certificate cannot be used."""

    def __init__(self, config: Config, clock: Clock) -> None:
        relay = config.relay
        files = [CertificateFiles(relay.tls_cert, relay.tls_key)] if relay.tls_cert else []
        self.certificates = Certificates(files) if files else None
        self.socket_mode = int(config.serve.socket_mode, 8)
        self.clock, self.meter = clock, Meter()
        settings = settings_of(relay, subscriptions_of(config))
        self.relay = Relay(settings, Path(config.relay_directory), clock)

    async def run(
        self, bind: list[str], stop: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Follow and serve until `stop` is set, then until it is cancelled. Raises ConfigError, StoreError."""
        listening = Listening(tuple(bind), self.certificates, connection_limits(), socket_mode=self.socket_mode)
        app = FeedApp(self.relay, self.clock)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.relay.run)

            async def answer(*, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
                await serve(app, listening, clock=self.clock, meter=self.meter, stop=stop, task_status=task_status)
                nursery.cancel_scope.cancel()

            self.relay.urls = await nursery.start(answer)
            for url in self.relay.urls:
                logger.info("serving other edgeds", extra={"fields": {"url": url}})
            task_status.started()

    async def take(self, config: Config) -> None:
        """Hand on the datasets of a configuration that was read anew."""
        await self.relay.take(subscriptions_of(config))

    def status(self) -> Mapping[str, Any]:
        return {**self.relay.status(), "requests": self.meter.requests, "sent_bytes": self.meter.sent_bytes}


def subscriptions_of(config: Config) -> tuple[Subscription, ...]:
    return tuple(subscription_of(dataset, config) for dataset in config.datasets)


def settings_of(relay: RelayConfig, subscriptions: tuple[Subscription, ...]) -> RelaySettings:
    return RelaySettings(
        subscriptions,
        size_bytes(relay.quota),
        relay.prefetch,
        tuple(relay.origin),
        tuple(relay.datasets),
        relay.trust,
        relay.poll_s,
        access_of(relay),
    )
