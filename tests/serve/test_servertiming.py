"""Server-Timing, where it is asked for: in both lanes, of proxied answers, and never of one that is remembered."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from edged.access.usage import UsageBook
from edged.clock import Clock
from edged.config import ProxyConfig, RouteConfig, ServeConfig
from edged.http.meter import Meter
from edged.proxy.application import ProxyApplication
from edged.proxy.gateway import Gateway
from edged.serve.app_server import AppServer
from tests.proxy.driving import Origin, Says, listen
from tests.serve.lanes import Client, Reply, head
from tests.serve.memory import make_dataset

pytestmark = pytest.mark.trio
TIME = r"edged;dur=\d+\.\d{3}"
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1,b=2"}


@asynccontextmanager
async def served(says: Says, *, timing: bool = True) -> AsyncIterator[tuple[Client, Meter, Origin, UsageBook]]:
    """A client of the app listener, with the API and a route at /api."""
    origin = Origin(lambda asked: says)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(listen, origin)
        origin.port = listeners[0].socket.getsockname()[1]
        route = RouteConfig("/api", origin.url)
        proxy = ProxyApplication(Gateway(ProxyConfig(routes=[route]), None, timing=timing))
        await nursery.start(proxy.run)
        config = ServeConfig(bind=["127.0.0.1:0"], server_timing=timing)
        apps = AppServer({"catalog": make_dataset()}, config, Clock(), meter := Meter(), others=proxy)
        apps.route_of = proxy.prefix_of
        [url] = await nursery.start(apps.run)
        with trio.fail_after(20):
            async with await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])) as stream:
                yield Client(stream), meter, origin, apps.book
        nursery.cancel_scope.cancel()


async def ask(client: Client, method: str, target: str, fields: dict[str, str] | None = None) -> Reply:
    await client.send(head(method, target, fields))
    return await client.reply(method)


async def test_every_answer_says_how_long_it_took_and_none_is_remembered() -> None:
    async with served(Says()) as (client, meter, _, book):
        tags = set()
        for _ in range(3):
            found = await ask(client, "GET", "/v1/catalog/titles?limit=1")
            assert re.fullmatch(TIME, found.fields["server-timing"])
            tags.add(found.fields["etag"])
        again = await ask(client, "GET", "/v1/catalog/titles?limit=1", {"If-None-Match": tags.pop()})
        assert not tags
        assert (again.status, bool(re.fullmatch(TIME, again.fields["server-timing"]))) == (304, True)
        assert meter.remembered == 0
        # What takes a thread, what is a stream, and what the other lane answers.
        for method, target in (("GET", "/v1/catalog/titles?q=film"), ("GET", "/v1/catalog/changes?since=0")):
            assert re.fullmatch(TIME, (await ask(client, method, target)).fields["server-timing"]), target
        found = await ask(client, "DELETE", "/v1/catalog/titles")
        assert (found.status, bool(re.fullmatch(TIME, found.fields["server-timing"]))) == (405, True)
        assert meter.slow_answers
        book.turn(0)
        assert sum(count.answers for count in book.by_app.values()) == 7


async def test_it_is_off_unless_it_is_asked_for() -> None:
    async with served(Says(), timing=False) as (client, meter, _, _book):
        for target in ("/v1/catalog/titles?limit=1", "/v1/catalog/titles?limit=1", "/api/a"):
            assert "server-timing" not in (await ask(client, "GET", target)).fields
        assert meter.remembered == 1


async def test_a_proxied_answer_says_what_the_cache_did_and_how_long_the_upstream_took() -> None:
    says = Says(fields=(("Cache-Control", "max-age=100"), ("ETag", '"x"')))
    async with served(says) as (client, meter, origin, _book):
        missed = await ask(client, "GET", "/api/a", TRACE)
        found = re.fullmatch(rf"upstream;dur=(\d+\.\d+), {TIME}, cache;desc=uri-miss", joined(missed))
        assert found, joined(missed)
        hit = await ask(client, "GET", "/api/a")
        assert re.fullmatch(rf"{TIME}, cache;desc=hit", joined(hit))
        assert missed.fields["etag"] == hit.fields["etag"]
        posted = await ask(client, "POST", "/api/b", {"Content-Length": "0", **TRACE})
        assert re.fullmatch(rf"upstream;dur=\d+\.\d+, {TIME}, cache;desc=method", joined(posted))
        assert meter.remembered == 0
        # Whoever traces requests finds this one at the service: its fields are passed on as they came.
        assert len(origin.asked) == 2
        for asked in origin.asked:
            assert {name: asked.fields[name] for name in TRACE} == TRACE


def joined(reply: Reply) -> str:
    return reply.fields["server-timing"]


async def test_what_an_upstream_says_of_its_own_time_comes_first() -> None:
    says = Says(fields=(("Server-Timing", "db;dur=5"), ("Cache-Control", "no-store")))
    async with served(says) as (client, _, _origin, _book):
        assert joined(await ask(client, "GET", "/api/a")).startswith("db;dur=5, upstream;dur=")
