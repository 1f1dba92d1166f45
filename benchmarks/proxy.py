"""The caching proxy next to nginx proxy_cache and Varnish: one run, the same upstream and bodies, ratios first.

    python -m benchmarks.proxy [--seconds 4] [--rounds 3] [--body FILE]

Each proxy runs on one core; wrk and the upstream (an nginx with static files) on another. Hits: 1 kB bodies at 16
connections and at one, 1 MB bodies at 4. Misses: the time to the first byte of answers that nobody has asked for
before, beside the upstream's own. --body: a file whose first kB and MB are the bodies; made up without it. Needs wrk
and nginx; Varnish is left out where it is not installed. Everything listens on loopback, on ports that were free.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from edged.clock import Clock
from edged.config import ProxyConfig, RouteConfig, ServeConfig
from edged.proxy.application import ProxyApplication
from edged.proxy.gateway import Gateway
from edged.serve.app_server import AppServer

PROXY_CORE, OTHER_CORE = "0", "1"
PATH = os.environ.get("PATH", "") + ":/usr/sbin"
MISSES = 600
BASE = """
worker_processes 1; daemon off; pid {dir}/{name}.pid; error_log {dir}/{name}.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; open_file_cache max=100 inactive=1h;
  client_body_temp_path {dir}/{name}1; proxy_temp_path {dir}/{name}2; fastcgi_temp_path {dir}/{name}3;
  uwsgi_temp_path {dir}/{name}4; scgi_temp_path {dir}/{name}5; default_type application/json;
  {inside}
}}
"""
ORIGIN = 'server {{ listen 127.0.0.1:{port}; root {files}; etag off; add_header Cache-Control "max-age=3600"; }}'
CACHE = """
  proxy_cache_path {dir}/cache levels=1:2 keys_zone=answers:64m max_size=1g inactive=1h use_temp_path=off;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 32; }}
  server {{ listen 127.0.0.1:{port}; location / {{
    proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_cache answers;
    add_header X-Cache $upstream_cache_status; }} }}
"""
VCL = 'vcl 4.1; backend origin {{ .host = "127.0.0.1"; .port = "{port}"; }}'


@dataclass(frozen=True)
class Measured:
    """Requests and bytes a second, median latency."""

    per_s: float
    bytes_s: float
    p50_us: float


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(core: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server on a core, ended with the block."""
    command = ["taskset", "-c", core, *arguments]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PATH": PATH}
    )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(20)
        if running.stdout:
            running.stdout.close()


def wait_for(port: int) -> int:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return port
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def start_nginx(stack: ExitStack, scratch: Path, name: str, core: str, inside: str, port: int) -> int:
    config = scratch / f"{name}.conf"
    config.write_text(BASE.format(dir=scratch, name=name, inside=inside))
    stack.enter_context(process(core, "nginx", "-c", str(config), "-p", str(scratch)))
    return wait_for(port)


def start_all(stack: ExitStack, scratch: Path) -> tuple[int, dict[str, int]]:
    """The upstream's port, and the proxies' by name."""
    origin = free_port()
    start_nginx(stack, scratch, "origin", OTHER_CORE, ORIGIN.format(port=origin, files=scratch / "files"), origin)
    ports = {}
    command = [sys.executable, "-m", "benchmarks.proxy", "--serve", str(origin), str(scratch / "edged")]
    edged = stack.enter_context(process(PROXY_CORE, *command))
    assert edged.stdout is not None
    ports["edged"] = int(edged.stdout.readline())
    port = free_port()
    ports["nginx proxy_cache"] = start_nginx(
        stack, scratch, "cache", PROXY_CORE, CACHE.format(dir=scratch, origin=origin, port=port), port
    )
    if shutil.which("varnishd", path=PATH):
        port, vcl = free_port(), scratch / "edged.vcl"
        vcl.write_text(VCL.format(port=origin))
        arguments = ["-F", "-a", f"127.0.0.1:{port}", "-f", str(vcl), "-n", str(scratch / "varnish")]
        stack.enter_context(process(PROXY_CORE, "varnishd", *arguments, "-s", "malloc,256m"))
        ports["varnish"] = wait_for(port)
    return origin, ports


def wrk(port: int, path: str, connections: int, seconds: int) -> Measured:
    command = ["taskset", "-c", OTHER_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    url = f"http://127.0.0.1:{port}{path}"
    text = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(f"{url}: {text}")
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", text)
    moved = re.search(r"Transfer/sec:\s+([0-9.]+)(KB|MB|GB)", text)
    p50 = re.search(r"\s50%\s+([0-9.]+)(us|ms|s)\b", text)
    assert rate is not None
    assert moved is not None
    assert p50 is not None
    return Measured(
        float(rate[1]),
        float(moved[1]) * {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}[moved[2]],
        float(p50[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[p50[2]],
    )


def first_bytes_us(connection: http.client.HTTPConnection, number: int) -> float:
    """Microseconds from the request to the answer's first byte."""
    began = time.perf_counter()
    connection.request("GET", f"/small?{number}-{random.random()}", headers={"Host": "localhost"})
    answer = connection.getresponse()
    took = time.perf_counter() - began
    answer.read()
    return took * 1e6


def measure_misses(origin: int, ports: dict[str, int]) -> dict[str, tuple[float, float]]:
    """Microseconds that each proxy's first byte comes after the upstream's own median: the median and the 99th
    percentile. All take turns, so that what disturbs one disturbs all."""
    everyone = {"upstream": origin, **ports}
    connections = {name: http.client.HTTPConnection("127.0.0.1", port) for name, port in everyone.items()}
    took: dict[str, list[float]] = {name: [] for name in everyone}
    for number in range(MISSES):
        for name, connection in connections.items():
            took[name].append(first_bytes_us(connection, number))
    for connection in connections.values():
        connection.close()
    own = statistics.median(took["upstream"])
    return {
        name: (statistics.median(found) - own, statistics.quantiles(found, n=100)[98] - own)
        for name, found in took.items()
    }


def show(title: str, unit: str, runs: dict[str, list[float]], scale: float) -> None:
    base = runs["nginx proxy_cache"]
    print(f"\n{title}\n{'':20}{'to nginx':>10}{unit:>14}")
    for name, found in runs.items():
        ratio = statistics.median(mine / other for mine, other in zip(found, base, strict=True))
        print(f"{name:20}{ratio:9.2f}x{statistics.median(found) / scale:14,.1f}", flush=True)


def compare(origin: int, ports: dict[str, int], options: argparse.Namespace) -> None:
    loads = [("/small", 16), ("/small", 1), ("/large", 4)]
    for port in ports.values():
        for path, connections in loads:
            wrk(port, path, connections, 1)  # fetched, and in memory
    runs: dict[tuple[str, int], dict[str, list[Measured]]] = {load: {name: [] for name in ports} for load in loads}
    for _ in range(options.rounds):
        for path, connections in loads:
            for name, port in ports.items():
                runs[path, connections][name].append(wrk(port, path, connections, options.seconds))

    def column(load: tuple[str, int], what: str) -> dict[str, list[float]]:
        return {name: [getattr(one, what) for one in found] for name, found in runs[load].items()}

    show("hits of 1 kB, 16 connections", "requests/s", column(loads[0], "per_s"), 1)
    show("hits of 1 kB, one connection: p50", "µs", column(loads[1], "p50_us"), 1)
    show("hits of 1 MB, 4 connections", "MB/s", column(loads[2], "bytes_s"), 1e6)
    found = measure_misses(origin, ports)
    base = found["nginx proxy_cache"][0]
    print(f"\nmisses: first byte after the upstream's own\n{'':20}{'to nginx':>10}{'µs more':>14}{'p99':>10}")
    for name, (median_us, p99_us) in found.items():
        print(f"{name:20}{median_us / base:9.2f}x{median_us:14,.0f}{p99_us:10,.0f}")


async def serve(origin: int, directory: Path) -> None:
    clock = Clock()
    app = ProxyApplication(
        Gateway(ProxyConfig(routes=[RouteConfig("/", f"http://127.0.0.1:{origin}")]), directory, clock)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(app.run)
        urls: list[str] = await nursery.start(AppServer({}, ServeConfig(bind=["127.0.0.1:0"]), clock, others=app).run)
        print(urls[0].rpartition(":")[2], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--body", type=Path, help="its first kB and MB are the bodies; without it they are made up")
    parser.add_argument("--serve", nargs=2, metavar=("PORT", "DIRECTORY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        trio.run(serve, int(options.serve[0]), Path(options.serve[1]))
        return
    for tool in ("wrk", "nginx"):
        if shutil.which(tool, path=PATH) is None:
            print(f"{tool} is not installed: nothing to compare with")
            return
    data = options.body.read_bytes()[: 1 << 20] if options.data else b""
    data = (data or random.Random(1).randbytes(1 << 20)).ljust(1 << 20, b" ")
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        scratch = Path(directory)
        scratch.chmod(0o755)
        (scratch / "files").mkdir()
        (scratch / "files" / "small").write_bytes(data[:1024])
        (scratch / "files" / "large").write_bytes(data)
        origin, ports = start_all(stack, scratch)
        compare(origin, ports, options)


if __name__ == "__main__":
    main()
