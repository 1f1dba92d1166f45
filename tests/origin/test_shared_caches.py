"""Held polls through nginx and Varnish as they come: no device is answered from a poll gone by."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from edged.origin.publisher import Publisher
from edged.origin.serving.server import serve_feed
from edged.sync.transports.http import HttpTransport
from edged.sync.transports.transport import Traffic
from tests.origin.test_publish import edit, films
from tests.origin.test_serve import Client

pytestmark = [pytest.mark.trio, pytest.mark.slow]
WAIT_S = 2
DEADLINE_S = 30
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

NGINX = """
daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ }}
http {{
  access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  proxy_cache_path {dir}/cache keys_zone=feed:1m;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_cache feed; proxy_pass http://127.0.0.1:{origin}; }} }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def cache(name: str, origin: int, directory: Path) -> Iterator[int]:
    """The port of a cache before the origin, at its defaults."""
    port = free_port()
    if name == "nginx":
        (directory / "nginx.conf").write_text(NGINX.format(dir=directory, port=port, origin=origin))
        command = ["nginx", "-c", str(directory / "nginx.conf"), "-p", str(directory)]
    else:
        address, place = f"127.0.0.1:{port}", str(directory / "varnish")
        command = ["varnishd", "-F", "-a", address, "-b", f"127.0.0.1:{origin}", "-n", place, "-s", "malloc,16m"]
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": PATH, "HOME": str(directory)}
    )
    try:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert running.poll() is None, f"{name} ended"
                assert time.monotonic() < deadline, f"{name} does not listen"
                time.sleep(0.05)
        yield port
    finally:
        running.terminate()
        running.wait(DEADLINE_S)


@pytest.mark.parametrize("name", ["nginx", "varnish"])
async def test_three_quiet_polls_in_a_row_are_held_through_a_cache(
    publisher: Publisher, tmp_path: Path, name: str
) -> None:
    if shutil.which({"nginx": "nginx", "varnish": "varnishd"}[name], path=PATH) is None:
        pytest.skip(f"{name} is not installed")
    publisher.publish("catalog", films(20))
    async with trio.open_nursery() as nursery:
        run = partial(serve_feed, publisher.path, ["127.0.0.1:0"], clock=publisher.clock)
        urls = await nursery.start(run)
        origin = int(urls[0].rpartition(":")[2])
        with cache(name, origin, tmp_path) as port:
            with trio.fail_after(2 * DEADLINE_S):
                await check_that_it_caches(port)
                await check_polls(publisher, f"http://127.0.0.1:{port}/catalog")
        nursery.cancel_scope.cancel()


async def check_that_it_caches(port: int) -> None:
    """Two polls without numbers, one after the other: the cache answers the second one, which is the fault."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        client = Client("", stream)
        await client.ask(f"/catalog/head?after=1&wait={WAIT_S}")
        began = trio.current_time()
        await client.ask(f"/catalog/head?after=1&wait={WAIT_S}")
        assert trio.current_time() - began < WAIT_S / 2


async def check_polls(publisher: Publisher, base: str) -> None:
    devices = [HttpTransport(base, Traffic()) for _ in range(3)]
    first = await devices[0].head(None, 0, None)
    assert first is not None
    tags = [first.etag] * len(devices)

    async def poll(number: int) -> None:
        reply = await devices[number].head(1, WAIT_S, tags[number])
        if reply is not None:
            assert reply.data == first.data
            tags[number] = reply.etag

    for _ in range(3):
        began = trio.current_time()
        async with trio.open_nursery() as polling:
            for number in range(len(devices)):
                polling.start_soon(poll, number)
        took_s = trio.current_time() - began
        assert WAIT_S * 0.9 < took_s < 3 * WAIT_S, f"held for {took_s:.2f} s of {WAIT_S}"
        assert len({device.poll for device in devices}) == 1  # and so they ask for the same again

    news: list[bytes] = []

    async def wait_for_news(device: HttpTransport, tag: str | None) -> None:
        reply = await device.head(1, 20, tag)
        assert reply is not None
        news.append(reply.data)

    began = trio.current_time()
    async with trio.open_nursery() as polling:
        for device, tag in zip(devices, tags, strict=True):
            polling.start_soon(wait_for_news, device, tag)
        await trio.sleep(0.5)
        await trio.to_thread.run_sync(publisher.publish_changes, "catalog", [edit(3)])
    assert trio.current_time() - began < 10
    assert set(news) == {(publisher.public / "catalog" / "head").read_bytes()}
    for device in devices:
        await device.aclose()
