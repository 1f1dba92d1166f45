"""TLS and HTTP/2 next to nginx with the same certificate and a proxy_cache that holds all: one run, ratios first.

    python -m benchmarks.secure [--data DIR] [--seconds 4] [--rounds 3] [--quick]

Each server runs on one core, wrk, h2load or the handshaking client on another (taskset); both are warm and take turns
within each round. Besides requests a second it gives the server's processor time for each request, which other
programs on the machine disturb least. Needs nginx, wrk, h2load and openssl. Everything listens on loopback.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serve import (
    CLIENT_CORE,
    HOT,
    Load,
    edged_server,
    free_port,
    prepare,
    process,
    wait_for,
    wrk,
)
from benchmarks.shared.stores import films

CLIENTS, STREAMS = 4, 8  # connections of HTTP/2, and requests at once on each
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
HANDSHAKE = """
import socket, ssl, sys, time
port, seconds, resumed = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "resumed"
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(sys.argv[4])
ask = b"GET /v1 HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n"
with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost") as first:
    first.sendall(ask)
    while first.recv(65536):
        pass
    session = first.session
count, until = 0, time.perf_counter() + seconds
while time.perf_counter() < until:
    plain = socket.create_connection(("127.0.0.1", port))
    with context.wrap_socket(plain, server_hostname="localhost", session=session if resumed else None) as one:
        assert one.session_reused == resumed
    count += 1
print(count)
"""
NGINX = """
worker_processes 1; daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; keepalive_requests 1000000000; open_file_cache max=10000 inactive=1h;
  default_type application/json;
  proxy_cache_path {dir}/cache levels=1:2 keys_zone=answers:64m max_size=4g inactive=1h use_temp_path=off;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4;
  scgi_temp_path {dir}/t5;
  server {{
    listen 127.0.0.1:{port} ssl http2; ssl_certificate {cert}; ssl_certificate_key {key};
    ssl_session_cache shared:tls:10m; ssl_protocols TLSv1.2 TLSv1.3;
    location / {{
      proxy_pass {upstream}; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host localhost;
      proxy_cache answers; proxy_cache_valid 200 1h; proxy_ignore_headers Cache-Control Vary; }} }}
}}
"""


@dataclass(frozen=True)
class Peer:
    """A server under measurement."""

    name: str
    url: str
    pid: int

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@dataclass(frozen=True)
class Figures:
    """p50_us: 0 where it was not measured; cpu_us: of the server, for each request or connection."""

    per_s: float
    cpu_us: float
    p50_us: float = 0.0


def cpu_ticks(pid: int) -> int:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def timed(peer: Peer, seconds: float, run: Callable[[], tuple[float, float]]) -> Figures:
    """run: gives requests a second and the median latency."""
    before = cpu_ticks(peer.pid)
    per_s, p50_us = run()
    return Figures(per_s, (cpu_ticks(peer.pid) - before) * TICK_US / (per_s * seconds), p50_us)


def by_wrk(peer: Peer, load: Load, seconds: int, scratch: Path) -> Figures:
    def run() -> tuple[float, float]:
        found = wrk(peer.url, load, seconds, scratch)
        return found.per_s, found.p50_us

    return timed(peer, seconds, run)


def by_h2load(peer: Peer, paths: Sequence[str], seconds: int, scratch: Path, *, apart: bool) -> Figures:
    """apart: each connection asks in an order of its own, by a process of its own."""
    lists = []
    for number in range(CLIENTS if apart else 1):
        place = scratch / f"urls-{number}"
        order = random.sample(paths, len(paths)) if apart else paths
        place.write_text("".join(f"{peer.url}{path}\n" for path in order))
        lists.append(place)

    def run() -> tuple[float, float]:
        command = ["taskset", "-c", CLIENT_CORE, "h2load", "-t1", f"-c{CLIENTS // len(lists)}", f"-m{STREAMS}"]
        clients = [
            subprocess.Popen([*command, f"-D{seconds}", "-i", str(place)], stdout=subprocess.PIPE, text=True)
            for place in lists
        ]
        texts = [client.communicate()[0] for client in clients]
        done = [re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text) for text in texts]
        if any(found is None or int(found[2]) or int(found[3]) for found in done):
            raise SystemExit(f"{peer.name}: {texts}")
        return sum(int(found[1]) for found in done if found is not None) / seconds, 0.0

    return timed(peer, seconds, run)


def by_handshakes(peer: Peer, seconds: int, cert: Path, *, resumed: bool) -> Figures:
    """New connections a second, one after the other, each with a whole handshake or with one that is resumed."""

    def run() -> tuple[float, float]:
        which = "resumed" if resumed else "whole"
        command = ["taskset", "-c", CLIENT_CORE, sys.executable, "-c", HANDSHAKE, str(peer.port), str(seconds), which]
        done = subprocess.run([*command, str(cert)], check=True, capture_output=True, text=True)
        return int(done.stdout) / seconds, 0.0

    return timed(peer, seconds, run)


def show(title: str, runs: dict[str, list[Figures]], asked: str) -> None:
    """Medians, and ratios to nginx as medians of the rounds."""
    print(f"\n{title} (asked: {asked})")
    print(f"{'':10}{'a second':>12}{'ratio':>8}{'p50 µs':>9}{'ratio':>8}{'CPU µs each':>13}{'ratio':>8}")
    base = runs["nginx"]
    for name, found in runs.items():
        pairs = list(zip(found, base, strict=True))
        faster = statistics.median(mine.per_s / other.per_s for mine, other in pairs)
        slower = statistics.median(mine.p50_us / other.p50_us if other.p50_us else 0 for mine, other in pairs)
        cheaper = statistics.median(other.cpu_us / max(mine.cpu_us, 0.01) for mine, other in pairs)
        per_s, p50, cpu = (
            statistics.median(getattr(run, which) for run in found) for which in ("per_s", "p50_us", "cpu_us")
        )
        print(f"{name:10}{per_s:12,.0f}{faster:7.2f}x{p50:9,.0f}{slower:7.2f}x{cpu:13.1f}{cheaper:7.2f}x", flush=True)


def make_certificate(scratch: Path) -> tuple[Path, Path]:
    cert, key = scratch / "cert.pem", scratch / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "30"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert), *subject], check=True, capture_output=True)
    return cert, key


def start(stack: ExitStack, scratch: Path) -> tuple[list[Peer], Path]:
    cert, key = make_certificate(scratch)
    upstream, _ = stack.enter_context(edged_server(scratch / "data"))
    url, pid = stack.enter_context(edged_server(scratch / "data", "--tls", str(scratch)))
    config, port = scratch / "secure.conf", free_port()
    config.write_text(NGINX.format(dir=scratch, port=port, cert=cert, key=key, upstream=upstream))
    scratch.chmod(0o755)
    nginx = stack.enter_context(process("nginx", "-c", str(config), "-p", str(scratch)))
    wait_for(port)
    return [Peer("edged", url, pid), Peer("nginx", f"https://127.0.0.1:{port}", nginx.pid)], cert


def warm(peer: Peer, paths: Sequence[str]) -> None:
    """Each path once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection(("127.0.0.1", peer.port))) as one:
        for path in paths:
            one.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            data = one.recv(65536)
            length = int(re.search(rb"(?i)content-length: (\d+)", data)[1])  # type: ignore[index]
            left = length - len(data.partition(b"\r\n\r\n")[2])
            while left > 0:
                left -= len(one.recv(65536))


def warm_streams(peer: Peer, paths: Sequence[str], scratch: Path) -> None:
    """Each path once, by HTTP/2."""
    place = scratch / "warm"
    place.write_text("".join(f"{peer.url}{path}\n" for path in paths))
    command = ["h2load", "-t1", "-c1", f"-m{STREAMS}", "-n", str(len(paths)), "-i", str(place)]
    subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of movies.ndjson.zst; without it the records are made up")
    parser.add_argument("--seconds", type=int, default=4, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of a second, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds = 1, 1
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        scratch = Path(directory)
        lists = prepare(films(options.data), scratch)
        peers, cert = start(stack, scratch)
        every, hot = lists["all"].read_text().split(), lists["hot"].read_text().split()
        for peer in peers:
            warm(peer, every)
        with suppress(FileNotFoundError):
            load = Path("/proc/loadavg").read_text().split()[0]
            print(f"load of the machine before: {load}; {os.cpu_count()} cores")
        seconds = options.seconds
        many, one = Load("", lists["hot"], 16), Load("", lists["hot"], 1)
        rows: list[tuple[str, str, Callable[[Peer], Figures]]] = [
            (f"TLS, HTTP/1.1, {HOT} hot keys, 16 connections", ">= 1.1", lambda p: by_wrk(p, many, seconds, scratch)),
            ("TLS, HTTP/1.1, one connection", "p50 <= 1.0", lambda p: by_wrk(p, one, seconds, scratch)),
            (
                f"TLS, HTTP/2, {HOT} hot keys, {CLIENTS} x {STREAMS} streams",
                ">= 2.0",
                lambda p: by_h2load(p, hot, seconds, scratch, apart=False),
            ),
            (
                f"TLS, HTTP/2, all films at random, {CLIENTS} x {STREAMS} streams",
                ">= 1.2",
                lambda p: by_h2load(p, every, seconds, scratch, apart=True),
            ),
            ("new TLS connections", ">= 0.8", lambda p: by_handshakes(p, seconds, cert, resumed=False)),
            ("the same, resumed", ">= 0.8", lambda p: by_handshakes(p, seconds, cert, resumed=True)),
        ]
        for title, asked, measure in rows:
            if "at random" in title:
                for peer in peers:
                    warm_streams(peer, every, scratch)
            runs: dict[str, list[Figures]] = {peer.name: [] for peer in peers}
            for _ in range(options.rounds):
                for peer in peers:
                    runs[peer.name].append(measure(peer))
                    time.sleep(0.2)
            show(title, runs, asked)


if __name__ == "__main__":
    main()
