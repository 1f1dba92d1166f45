"""The settings of docs/edge.md for caches, run as they stand: many polls are one at the origin, and it may die."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import pytest
import trio

from edged.feedserving.app import FeedApp
from edged.http.application import Answer
from edged.http.request import Request
from edged.http.server import Listening, serve
from edged.origin.publisher import Publisher
from edged.origin.serving.heads import Heads
from tests.sync.test_caches_between import Cache, free_port, installed, started

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "edge.md"
POLLS = 60
DEFAULT_LOCK_S = 5.0  # after which nginx would let each poll through
DEADLINE_S = 40.0
NGINX = """
daemon off; master_process off; pid {place}/nginx.pid; error_log {place}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
  uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
{settings}
}}
"""


class CountingApp(FeedApp):
    """polls: held ones that have come as far as the origin."""

    polls = 0

    def answer(self, request: Request) -> Answer:
        self.polls += b"?after=" in request.target
        return super().answer(request)


def settings(kind: str, origin: int) -> str:
    """The document's settings, asking the origin of a test."""
    found = re.search(rf"```{kind}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    assert "8486" in found[1]
    return found[1].replace("8486", str(origin))


@contextmanager
def nginx(place: Path, origin: int) -> Iterator[int]:
    port = free_port()
    text = settings("nginx", origin).replace("/var/cache/nginx", str(place)).replace("listen 80;", f"listen {port};")
    assert f"listen {port};" in text
    (place / "nginx.conf").write_text(NGINX.format(place=place, settings=text))
    program = next(path for path in ("/usr/sbin/nginx", "/usr/bin/nginx") if Path(path).exists())
    with started([program, "-p", str(place), "-c", str(place / "nginx.conf")], port, place / "log") as found:
        yield found


@contextmanager
def varnish(place: Path, origin: int) -> Iterator[int]:
    port = free_port()
    (place / "v.vcl").write_text(settings("vcl", origin))
    program = next(path for path in ("/usr/sbin/varnishd", "/usr/bin/varnishd") if Path(path).exists())
    words = ("-j", "none", "-F", "-a", f"127.0.0.1:{port}", "-f", str(place / "v.vcl"), "-n", str(place / "work"))
    with started([program, *words, "-s", "malloc,16m"], port, place / "log") as found:
        yield found


@pytest.mark.parametrize(
    "cache",
    [
        pytest.param(nginx, marks=pytest.mark.skipif(not installed("nginx"), reason="nginx is not installed")),
        pytest.param(varnish, marks=pytest.mark.skipif(not installed("varnishd"), reason="Varnish is not installed")),
    ],
)
async def test_many_polls_are_one_at_the_origin_and_a_dead_one_is_covered(tmp_path: Path, cache: Cache) -> None:
    publisher = Publisher.init(tmp_path / "feed")
    publisher.publish("catalog", [("titles", "a", {"n": 1})])
    (tmp_path / "cache").mkdir()
    heads, port = Heads(publisher.public), free_port()
    app = CountingApp(heads, time.time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heads.watch)
        scope = await nursery.start(serve_here, app, port)
        with cache(tmp_path / "cache", port) as cached:
            url = f"http://127.0.0.1:{cached}/catalog/head"
            limits = httpx2.Limits(max_connections=POLLS + 5)
            async with httpx2.AsyncClient(timeout=DEADLINE_S, limits=limits) as client:
                await check_polls(client, url, publisher, app)
                plain = await client.get(url)
                assert plain.content == (publisher.public / "catalog" / "head").read_bytes()
                await trio.sleep(1.5)  # it is no longer fresh
                scope.cancel()
                with trio.fail_after(DEADLINE_S):
                    while (stale := await client.get(url)).status_code != 200:  # noqa: ASYNC110 - Varnish looks now and then
                        await trio.sleep(0.2)
                assert stale.content == plain.content
        nursery.cancel_scope.cancel()


async def serve_here(app: FeedApp, port: int, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        listening = Listening((f"127.0.0.1:{port}",))
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, app, listening))
            task_status.started(scope)


async def check_polls(client: httpx2.AsyncClient, url: str, publisher: Publisher, app: CountingApp) -> None:
    """Held for longer than nginx would let a lock stand by default, then answered all at once."""
    answers: list[httpx2.Response] = []

    async def poll() -> None:
        answers.append(await client.get(f"{url}?after=1&wait=30&poll=1"))

    async with trio.open_nursery() as nursery:
        for _ in range(POLLS):
            nursery.start_soon(poll)
        await trio.sleep(DEFAULT_LOCK_S + 1.5)
        assert app.polls == 1
        assert answers == []
        await trio.to_thread.run_sync(publisher.publish_changes, "catalog", [("titles", "b", {"n": 2})])
    head = (publisher.public / "catalog" / "head").read_bytes()
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, head)}
    assert len(answers) == POLLS
    assert app.polls <= 2
