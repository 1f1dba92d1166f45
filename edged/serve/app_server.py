"""The serving station as one task: datasets in, apps answered, by both lanes on every address of `[serve]`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import trio

from edged.config import ServeConfig
from edged.errors import DamageError
from edged.http.hosts import Web
from edged.http.hypercorn.asgi import App
from edged.http.lane.answers import LaneAnswers
from edged.http.lane.lane import FastLane
from edged.http.limits import Limits
from edged.http.meter import Meter
from edged.http.server import ASGIApp, serve
from edged.serve.answers.render import Renderer
from edged.serve.answers.respond import Service
from edged.serve.catalog import Clock, Dataset
from edged.serve.damage import DamageReports, OnDamage
from edged.serve.news import News

RENDERED_BYTES = 12 << 20  # of values and codings, whichever lane asks
MEMO_BYTES = 32 << 20  # of the fast lane's answers: some 34,000 films


async def serve_apps(
    datasets: Mapping[str, Dataset],
    config: ServeConfig,
    *,
    clock: Clock,
    meter: Meter,
    news: News | None = None,
    stop: trio.Event | None = None,
    fallback: ASGIApp | None = None,
    memo_bytes: int = MEMO_BYTES,
    on_damage: OnDamage | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set or it is cancelled; reports the bound URLs. meter: counts into it. news: one to which
    commits in this process are told (`news.look()`), so that event streams follow at once; own polling otherwise.
    fallback: what answers paths outside the API; its `fast_lane`, if it has one, answers in the fast lane too.
    memo_bytes: for remembered answers. on_damage: told, in this task's thread, of damage that an answer has met; what
    could not be read is 503 until the replica has it anew. Raises ConfigError where an address cannot be used.
    """
    stop = trio.Event() if stop is None else stop
    news = News(datasets) if news is None else news
    token = trio.lowlevel.current_trio_token()

    def tell(dataset: str, fault: DamageError) -> None:  # out of any thread
        if on_damage is not None:
            token.run_sync_soon(on_damage, dataset, fault)

    web = Web.of(config.hosts, config.origins)
    service = Service(datasets, Renderer(RENDERED_BYTES), web, damage=DamageReports(tell))
    app = App(service, clock, news, stop=stop, meter=meter, fallback=fallback)
    limits = Limits(connections=config.max_connections, websockets=fallback is not None)
    answers = LaneAnswers(service, clock, meter, memo_bytes, fallback is not None, limits.head_bytes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(news.run)
        run = partial(
            serve,
            app,
            config.bind,
            tls_cert=config.tls_cert,
            tls_key=config.tls_key,
            limits=limits,
            stop=stop,
            front=FastLane(answers, news, meter, limits, proxied=getattr(fallback, "fast_lane", None)),
            socket_mode=int(config.socket_mode, 8),
            reuse_port=config.workers > 1,
            date=False,
        )
        await run(task_status=task_status)
        nursery.cancel_scope.cancel()
