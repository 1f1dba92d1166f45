"""Held polls through real shared caches at their defaults: each is held by the origin, and news comes at once."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from edged.feed.blob import BlobRef
from edged.origin.publisher import Publisher
from edged.origin.serving.server import serve_feed
from edged.sync.transports.http import HttpTransport
from edged.sync.transports.transport import Traffic

pytestmark = pytest.mark.slow

Cache = Callable[[Path, int], AbstractContextManager[int]]

WAIT_S, QUIET_POLLS = 3, 3
NGINX = """
daemon off; master_process off; pid {place}/nginx.pid; error_log {place}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
  uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
  proxy_cache_path {place}/cache keys_zone=feed:1m;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{origin}; proxy_cache feed; proxy_cache_lock on; }}
  }}
}}
"""
VARNISH = 'vcl 4.1; backend default {{ .host = "127.0.0.1"; .port = "{origin}"; }}'


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def started(command: list[str], port: int, log: Path) -> Iterator[int]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, log.read_text()
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def nginx(place: Path, origin: int) -> Iterator[int]:
    port = free_port()
    (place / "nginx.conf").write_text(NGINX.format(place=place, port=port, origin=origin))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with started([program, "-p", str(place), "-c", str(place / "nginx.conf")], port, place / "log") as found:
        yield found


@contextmanager
def varnish(place: Path, origin: int) -> Iterator[int]:
    port = free_port()
    (place / "v.vcl").write_text(VARNISH.format(origin=origin))
    program = shutil.which("varnishd") or "/usr/sbin/varnishd"
    words = [
        program,
        "-j",
        "none",
        "-F",
        "-a",
        f"127.0.0.1:{port}",
        "-f",
        str(place / "v.vcl"),
        "-n",
        str(place / "work"),
    ]
    with started([*words, "-s", "malloc,16m"], port, place / "log") as found:
        yield found


@asynccontextmanager
async def through(cache: Cache, publisher: Publisher, place: Path) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(serve_feed, publisher.path, ["127.0.0.1:0"])
        origin = int(urls[0].rstrip("/").rpartition(":")[2])
        with cache(place, origin) as port:
            yield f"http://127.0.0.1:{port}/catalog"
        nursery.cancel_scope.cancel()


def installed(name: str) -> bool:
    return any(Path(folder, name).exists() for folder in ("/usr/sbin", "/usr/bin"))


@pytest.mark.parametrize(
    "cache",
    [
        pytest.param(nginx, marks=pytest.mark.skipif(not installed("nginx"), reason="nginx is not installed")),
        pytest.param(varnish, marks=pytest.mark.skipif(not installed("varnishd"), reason="Varnish is not installed")),
    ],
)
async def test_quiet_polls_in_a_row_are_each_held_and_news_comes_at_once(tmp_path: Path, cache: Cache) -> None:
    publisher = Publisher.init(tmp_path / "feed")
    publisher.publish("catalog", [("titles", "a", {"n": 1})])
    (tmp_path / "cache").mkdir()
    async with through(cache, publisher, tmp_path / "cache") as url:
        transport = HttpTransport(url, Traffic())
        reply = await transport.head(None, 0, None)
        assert reply is not None
        for _ in range(QUIET_POLLS):
            began = trio.current_time()
            assert await transport.head(1, WAIT_S, reply.etag) is None
            assert trio.current_time() - began > WAIT_S - 0.5
        found: list[float] = []

        async def poll() -> None:
            newer = await transport.head(1, 30, reply.etag)
            assert newer is not None
            assert BlobRef.of(newer.data) != BlobRef.of(reply.data)
            found.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            await trio.sleep(1)
            await trio.to_thread.run_sync(publisher.publish, "catalog", [("titles", "a", {"n": 2})])
            published = trio.current_time()
        assert found[0] - published < 5
        await transport.aclose()
