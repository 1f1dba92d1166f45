"""Further serving processes share the port with the daemon and never outlive it."""

from __future__ import annotations

import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest
import trio

from edged.config import Config, DaemonConfig, ServeConfig
from edged.errors import ConfigError
from edged.replica.writer import Writer
from edged.serve.app_server import serve_apps
from edged.serve.meter import Meter
from edged.serve.worker import command, keep_running, run_worker
from tests.replica.feeds import Publisher, made_up
from tests.serve.lanes import ask_once, eventually, head


def write_config(directory: Path, port: int) -> Path:
    trust = directory / "catalog.trust"
    trust.write_bytes(b"a root of trust, which a worker does not read")
    path = directory / "edged.toml"
    path.write_text(
        f'[daemon]\ndata_dir = "{directory}"\n'
        f'[[datasets]]\nname = "catalog"\norigin = ["file:///nowhere"]\ntrust = "{trust}"\n'
        f'[serve]\nbind = ["127.0.0.1:{port}"]\nworkers = 2\n'
    )
    return path


@pytest.mark.trio
async def test_a_worker_serves_the_replica_is_replaced_when_killed_and_ends_with_the_daemon(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(50)})
    with Writer.open(tmp_path, "catalog") as writer:
        publisher.snapshot_into(writer)
    with socket.socket() as reserved:  # holds the port, without listening, for processes that share it
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        started: list[trio.Process] = []
        open_process = trio.lowlevel.open_process

        async def remember(*arguments: object, **options: object) -> trio.Process:
            process = await open_process(*arguments, **options)  # type: ignore[call-overload]
            started.append(process)
            return process  # type: ignore[no-any-return]

        with pytest.MonkeyPatch.context() as patch, trio.fail_after(60):
            patch.setattr(trio.lowlevel, "open_process", remember)
            patch.setattr("edged.serve.worker.FIRST_PAUSE_S", 0.01)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_running, 0, command(write_config(tmp_path, port)))
                reply = await ask_when_there(url)
                assert reply == 200
                started[0].send_signal(signal.SIGKILL)
                await eventually(lambda: len(started) == 2)
                assert await ask_when_there(url) == 200
                nursery.cancel_scope.cancel()
        assert [process.returncode for process in started] == [-signal.SIGKILL, 0]


async def ask_when_there(url: str) -> int:
    """The status of the dataset, as soon as somebody listens."""
    until = time.monotonic() + 20
    while True:
        try:
            return (await ask_once(url, head("GET", "/v1/catalog"))).status
        except OSError:
            assert time.monotonic() < until, "no worker came up"
            await trio.sleep(0.02)


@pytest.mark.trio
async def test_a_worker_without_a_tcp_address_says_what_to_do(tmp_path: Path) -> None:
    config = Config(daemon=DaemonConfig(data_dir=str(tmp_path)), serve=ServeConfig(bind=["unix:/x.sock"], workers=2))
    with pytest.raises(ConfigError, match="workers = 1"):
        await run_worker(config)


@pytest.mark.trio
async def test_the_real_replica_is_served_and_followed(tmp_path: Path) -> None:
    import edged

    publisher = Publisher({"core": made_up(50)})
    stop = trio.Event()
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        dataset = replica.follow("catalog")
        config = ServeConfig(bind=["127.0.0.1:0"])
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                serve = partial(serve_apps, {"catalog": dataset}, config, clock=lambda: 100.0, meter=Meter(), stop=stop)
                url = (await nursery.start(serve))[0]
                assert (await ask_once(url, head("GET", "/v1/catalog"))).status == 503
                publisher.snapshot_into(writer)
                (collection, key), raw = next(iter(publisher.slices["core"].items()))
                for _ in range(2):
                    data = head("GET", f"/v1/catalog/{collection}/{key}", {"Accept": "application/cbor"})
                    reply = await ask_once(url, data)
                    assert (reply.status, reply.body, reply.fields["age"]) == (200, raw, "99")
                    assert reply.fields["edged-state"] == "stale"
                found = await ask_once(url, head("GET", "/v1/catalog/titles?where.year=1950&limit=1"))
                assert found.status == 200
                assert b'"year":1950' in found.body
                writer.touch_head(b"head again", as_of=90, fresh_s=60, expires_s=600)
                reply = await ask_once(url, data)
                assert (reply.fields["age"], reply.fields["edged-state"]) == ("10", "fresh")
                stop.set()
