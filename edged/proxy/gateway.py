"""The proxy behind both lanes: its routes, its store and upstreams, and what goes on in the background."""

from __future__ import annotations

import secrets
from pathlib import Path

import trio

from edged.clock import Clock
from edged.config import ProxyConfig
from edged.http.application import Client
from edged.proxy.exchange.context import Context
from edged.proxy.exchange.counters import Counters
from edged.proxy.exchange.exchange import Exchange
from edged.proxy.exchange.methods import forward
from edged.proxy.exchange.sending import send_refusal
from edged.proxy.rules.forward import Refused, under_prefix
from edged.proxy.rules.status import CacheStatus
from edged.proxy.store.cache import PURGE_CHECK_S, Cache
from edged.proxy.timeline import Timeline
from edged.proxy.upstream.upstream import Upstream


class Gateway:
    """Answers what lies under a route. directory: where answers are kept; None: in memory alone.

    Start `run` before the first request: `await nursery.start(gateway.run)`. Raises ConfigError for certificates that
    cannot be read. timing: whether answers say how long their upstream took.
    """

    def __init__(
        self,
        config: ProxyConfig,
        directory: Path | None,
        clock: Clock | None = None,
        *,
        timeline: Timeline | None = None,
        timing: bool = False,
    ) -> None:
        self.timing = timing
        self.timeline = timeline or Timeline(clock)
        self.cache = Cache(config, directory, self.timeline)
        self.counters = Counters()
        self.upstreams = [Upstream(route, self.look) for route in config.routes]
        self.upstreams.sort(key=lambda upstream: len(upstream.route.prefix.rstrip("/")), reverse=True)
        self.prefixes = [(upstream.route.prefix.encode(), upstream) for upstream in self.upstreams]
        self.exchange: Exchange | None = None
        self.nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the store, the upstreams and what goes on in the background, until cancelled."""
        await self.cache.open()
        try:
            async with trio.open_nursery() as nursery:
                self.nursery = nursery
                # The name tells a request that has come back to this very process.
                via = b"edged-" + secrets.token_hex(4).encode()
                self.exchange = Exchange(self.cache, nursery, via, self.counters)
                self.exchange.fetcher.timing = self.timing
                nursery.start_soon(self.tend)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self.nursery = self.exchange = None
            with trio.CancelScope(shield=True):
                for upstream in self.upstreams:
                    await upstream.aclose()
                await self.cache.close()

    async def tend(self) -> None:
        while True:
            await self.cache.tend()
            await trio.sleep(PURGE_CHECK_S)

    def look(self, upstream: Upstream) -> None:
        """An upstream may be lost: look for it until it is there."""
        if self.nursery is not None:
            self.nursery.start_soon(upstream.look)

    def route(self, path: bytes) -> Upstream | None:
        """The upstream for a raw path, None where no route takes it."""
        for prefix, upstream in self.prefixes:
            if under_prefix(path, prefix):
                return upstream
        return None

    async def give(self, context: Context, client: Client) -> None:
        """Answer a request that memory could not."""
        exchange, wall_s = self.exchange, self.timeline.wall_s()
        try:
            if exchange is None:
                raise Refused(503, "the proxy is starting or stopping; ask again")
            if context.is_retrieval:
                await exchange.retrieve(context, client)
            elif context.request.method in (b"CONNECT", b"TRACE"):
                raise Refused(405, "this method is not forwarded")
            else:
                await forward(exchange, context, client)
        except Refused as refusal:
            self.counters.failed += 1
            await send_refusal(client, refusal.status, str(refusal), CacheStatus(), wall_s)

    def status(self) -> dict[str, object]:
        """Numbers for operators."""
        store, counters = self.cache.store, self.counters
        return {
            "hits": counters.hits,
            "stale": counters.stale,
            "misses": counters.misses,
            "collapsed": counters.collapsed,
            "offline_answers": counters.covered,
            "passed": counters.passed,
            "failed": counters.failed,
            "fetched_bytes": counters.fetched_bytes,
            "served_bytes": counters.served_bytes,
            "memory_bytes": self.cache.memory.cost_bytes,
            "disk_bytes": store.occupied_bytes if store is not None else 0,
            "quota_bytes": self.cache.quota_bytes,
            "evictions": store.evictions if store is not None else 0,
            "store_rebuilds": store.rebuilds if store is not None else 0,
            "store_failures": self.cache.lost,
            "store_error": self.cache.last_error,
            "upstreams": {upstream.route.prefix: not upstream.circuit.is_open for upstream in self.upstreams},
            "upstream_answers": {upstream.route.prefix: upstream.answers for upstream in self.upstreams},
            "upstream_wait_s": {upstream.route.prefix: round(upstream.seconds, 6) for upstream in self.upstreams},
        }
