"""The daemon as a whole, in this process: what it says of itself when something fails."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio

import edged
from edged.clock import Clock
from edged.configfile import load
from edged.daemon import STUCK_S, Daemon, is_stuck
from edged.errors import StoreError
from edged.http.meter import Meter
from edged.ops.notify import Notifier
from edged.processes.workers import WorkerReport
from edged.replica import loading
from edged.sync.status import DatasetStatus
from tests.system.programs import DEADLINE_S, Device, Origin, get, titles


async def until(good: Callable[[], bool]) -> None:
    with trio.fail_after(DEADLINE_S):
        while not good():  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.01)


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    made = Origin.make(tmp_path)
    made.publish(titles(5))
    return made


async def test_the_status_tells_what_is_served_where_what_is_held_cannot_be_read(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(load(Device(tmp_path, origin).configure(origin.public.as_uri())))
    fails = False
    real = loading.load

    def loads(*words: Any, **more: Any) -> Any:
        if fails:
            raise StoreError("map a pack: Input/output error")
        return real(*words, **more)

    monkeypatch.setattr("edged.replica.reader.load", loads)
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        await daemon.wait_for("catalog", 1)
        fails = True
        await trio.to_thread.run_sync(origin.publish, titles(6))
        daemon.stations["catalog"].control.nudge()
        await until(lambda: daemon.stations["catalog"].status.version == 2)
        told = daemon.status()["datasets"]["catalog"]
        assert (told["version"], told["held"], told["slices"]) == (1, 2, {"core": 1})
        assert "Input/output error" in told["last_error"]
        assert b'edged_dataset_version{dataset="catalog"} 1\n' in daemon.metrics()
        assert b'edged_dataset_failing{dataset="catalog"} 1\n' in daemon.metrics()
        fails = False
        await daemon.wait_for("catalog", 2)
        told = daemon.status()["datasets"]["catalog"]
        assert (told["version"], told["held"]) == (2, 2)
        assert (told["as_of"], told["state"]) == (daemon.stations["catalog"].status.as_of, "fresh")
        daemon.stop()


@pytest.mark.parametrize("written", [True, False])
async def test_what_has_ended_stays_so_over_a_restart_without_a_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, written: bool
) -> None:
    origin, now = Origin.make(tmp_path), time.time()
    (origin.feed / "catalog.toml").write_text('[collections.titles]\nvalid = ["from", "until"]\n')
    ends = {"collection": "titles", "key": "a", "value": {"until": int(now) + 43_200}}
    origin.publish([ends, {"collection": "titles", "key": "b", "value": {}}])
    config = load(Device(tmp_path, origin).configure(origin.public.as_uri()))
    if not written:
        monkeypatch.setattr("edged.replica.files.usedtime.write_durable", refuse_writing)
    seen = []
    for clock_s in (now + 86_400, 0.0):
        daemon = Daemon(config, clock=Clock(partial(float, clock_s)))
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            await daemon.wait_for("catalog", 1)
            seen.append(list(daemon.catalog["catalog"].view().keys("titles")))
            daemon.stop()
    assert seen == [["b"], ["b"] if written else ["a", "b"]]
    assert ("records may be shown that have ended" in caplog.text) is not written


def refuse_writing(path: Path, data: bytes) -> None:
    raise StoreError(f"write {path}: No space left on device")


async def test_metrics_and_status_sum_what_all_serving_processes_have_counted(tmp_path: Path) -> None:
    config = tmp_path / "edged.toml"
    config.write_text(f'[daemon]\ndata_dir = "{tmp_path}/data"\n[serve]\nworkers = 3\nbind = ["127.0.0.1:8484"]\n')
    daemon = Daemon(load(config), config_path=config)
    assert daemon.workers is not None
    daemon.meter.fast_answers[200] = 10
    daemon.workers.reports = [
        WorkerReport(Meter(streams=1), memory_bytes=1 << 40),
        WorkerReport(Meter(streams=1), ended=Meter(remembered=3)),
    ]
    daemon.workers.reports[0].meter.fast_answers[200] = 5
    daemon.workers.reports[1].meter.slow_answers[404] = 2
    status, metrics = daemon.status(), daemon.metrics().decode()
    assert status["requests_served"] == 17
    assert status["memory_bytes"] > 1 << 40
    assert 'edged_requests_total{lane="fast",status="200"} 15\n' in metrics
    assert 'edged_requests_total{lane="hypercorn",status="404"} 2\n' in metrics
    assert "edged_change_streams 2\n" in metrics
    assert "edged_answers_remembered_total 3\n" in metrics
    assert float(re.findall(r"^edged_memory_bytes (\S+)", metrics, re.MULTILINE)[0]) > 1 << 40


def test_metrics_are_told_without_a_descriptor_to_read_them_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "edged.toml"
    config.write_text(f'[daemon]\ndata_dir = "{tmp_path}/data"\n')
    daemon = Daemon(load(config))
    whole = daemon.metrics().decode()
    assert float(re.findall(r"^process_open_fds (\S+)", whole, re.MULTILINE)[0]) > 2
    assert re.findall(r"^process_start_time_seconds (\d{10})", whole, re.MULTILINE)

    def refuse(*words: object, **more: object) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(os, "listdir", refuse)
    assert len(daemon.metrics().splitlines()) == len(whole.splitlines())


class Heard(Notifier):
    """Counts pings."""

    def __init__(self) -> None:
        super().__init__("", 0.06)
        self.pings = 0

    def alive(self) -> None:
        self.pings += 1


async def test_a_writer_that_hangs_is_told_to_systemd_by_the_pings_that_fail_to_come(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    daemon = Daemon(load(Device(tmp_path, origin).configure(origin.public.as_uri())), notifier=heard)
    held = threading.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        await daemon.wait_for("catalog", 1)
        await until(lambda: heard.pings > 2)
        writer = daemon.stations["catalog"].writer
        assert writer is not None
        real = writer.compact
        monkeypatch.setattr("edged.daemon.STUCK_S", 0.0)
        monkeypatch.setattr(writer, "compact", lambda *words: (held.wait(DEADLINE_S), real(*words))[1])
        await trio.to_thread.run_sync(origin.publish, titles(6))
        daemon.stations["catalog"].control.nudge()
        await daemon.wait_for("catalog", 2)  # served all the same
        caplog.clear()  # of the steps before
        await until(lambda: "the writer of catalog has been at one step" in caplog.text)
        before = heard.pings
        await trio.sleep(0.2)
        assert heard.pings <= before + 1
        held.set()
        await until(lambda: heard.pings > before + 1)
        daemon.stop()


def test_only_work_that_takes_longer_than_any_is_stuck() -> None:
    status = DatasetStatus("catalog")
    assert not is_stuck(status, 1e9)
    status.writing_since_s = 100.0
    assert not is_stuck(status, 100.0 + STUCK_S)
    assert is_stuck(status, 100.1 + STUCK_S)


async def test_metrics_of_the_proxy_are_read_from_what_it_counts(tmp_path: Path) -> None:
    config = tmp_path / "edged.toml"
    route = '[[proxy.routes]]\nprefix = "/api"\nupstream = "http://127.0.0.1:1"\n'
    config.write_text(f'[daemon]\ndata_dir = "{tmp_path}/data"\n[proxy]\nquota = "8MiB"\n{route}')
    daemon = Daemon(load(config), config_path=config)
    assert daemon.proxy is not None
    gateway = daemon.proxy.gateway
    gateway.counters.hits, gateway.counters.covered, gateway.counters.served_bytes = 7, 2, 900
    gateway.upstreams[0].answers, gateway.upstreams[0].seconds = 3, 1.5
    gateway.upstreams[0].circuit.is_open = True
    metrics = daemon.metrics().decode()
    for line in (
        'edged_proxy_requests_total{outcome="hits"} 7',
        'edged_proxy_requests_total{outcome="offline_answers"} 2',
        'edged_proxy_requests_total{outcome="misses"} 0',
        "edged_proxy_served_bytes_total 900",
        "edged_proxy_evictions_total 0",
        "edged_proxy_quota_bytes 8388608",
        'edged_proxy_upstream_reachable{route="/api"} 0',
        'edged_proxy_upstream_answers_total{route="/api"} 3',
        'edged_proxy_upstream_wait_seconds_total{route="/api"} 1.5',
    ):
        assert f"{line}\n" in metrics, line


class Cacheable(BaseHTTPRequestHandler):
    """Answers everything with a body that may be kept for a minute."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Cache-Control", "max-age=60")
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *words: object) -> None:
        """Quiet."""


@contextmanager
def cacheable() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Cacheable) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_a_data_directory_removed_under_a_running_daemon_is_made_anew(origin: Origin, tmp_path: Path) -> None:
    with cacheable() as upstream:
        device = Device(tmp_path, origin)
        route = f'[[proxy.routes]]\nprefix = "/api"\nupstream = "{upstream}"'
        daemon = Daemon(load(device.configure(origin.public.as_uri(), more=route)))
        key = titles(5)[3]["key"].replace("/", "%2F")

        async def statuses() -> list[int]:
            paths = (f"/v1/catalog/titles/{key}", "/api/old", f"/api/{trio.current_time()}")
            asked = [partial(get, daemon.app_urls[0].rstrip("/") + path) for path in paths]
            return [(await trio.to_thread.run_sync(ask)).status for ask in asked]

        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            await daemon.wait_for("catalog", 1)
            assert await statuses() == [200, 200, 200]
            for version in (2, 3):
                shutil.rmtree(device.data_dir)
                assert await statuses() == [200, 200, 200]
                await trio.to_thread.run_sync(origin.publish, titles(5 + version))
                await daemon.wait_for("catalog", version)
                assert await statuses() == [200, 200, 200]
            assert daemon.status()["datasets"]["catalog"]["last_error"] is None
            daemon.stop()
    with edged.open(device.data_dir) as replica:
        assert len(list(replica["catalog"]["titles"].items())) == 8
