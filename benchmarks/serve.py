"""Serving next to nginx (proxy_cache and static files) and Varnish: one run, the same answers, ratios first.

    python -m benchmarks.serve [--data DIR] [--seconds 4] [--rounds 3] [--quick]

Each server runs on one core and wrk on another (taskset); all are warm; the servers take turns within each round, and
the table gives the median of the rounds. Besides requests a second it gives the server's processor time for each, which
other programs on the machine disturb least. Needs wrk; peers that are not installed are left out. Everything listens on
loopback, on ports that were free. Without --data the records are made up. TLS and HTTP/2: benchmarks/secure.py.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import cbor2
import h2.config
import h2.connection
import h2.events

from benchmarks.shared.stores import Edged, films
from edged.config import ServeConfig
from edged.feed.coding.snapshot import train_dictionary

HOT = 500
TRACE, CONDITION = "Traceparent", "If-None-Match"
BATCH = 20
SLOW, LISTENERS = 200, 1000
SERVER_CORE, CLIENT_CORE = "0", "1"
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")

LISTEN = b"GET /v1/catalog/changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"

NGINX = """
worker_processes 1; daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; open_file_cache max=10000 inactive=1h;
  default_type application/json;
  proxy_cache_path {dir}/cache levels=1:2 keys_zone=answers:64m max_size=4g inactive=1h use_temp_path=off;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4;
  scgi_temp_path {dir}/t5;
  server {{ listen 127.0.0.1:{cache}; location / {{
    proxy_pass {upstream}; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host localhost;
    proxy_cache answers; proxy_cache_valid 200 1h; proxy_ignore_headers Cache-Control Vary; }} }}
  server {{ listen 127.0.0.1:{static}; root {files}; }}
}}
"""
VCL = """vcl 4.1;
backend edged {{ .host = "127.0.0.1"; .port = "{port}"; }}
sub vcl_backend_response {{ set beresp.ttl = 1h; unset beresp.http.Vary; unset beresp.http.Cache-Control; }}
"""
LUA = """
local requests = {{}}
init = function(args)
  for path in io.lines("{paths}") do requests[#requests + 1] = wrk.format("GET", path, {{Host = "localhost"}}) end
  math.randomseed({seed})
end
local n = 0
request = function() n = n + 1; return requests[{choice}] end
"""
VARYING = """
local requests, n = {{}}, {seed}
init = function(args)
  local fields = " HTTP/1.1\\r\\nHost: localhost\\r\\n{varying}: "
  for path in io.lines("{paths}") do requests[#requests + 1] = "GET " .. path .. fields end
end
request = function() n = n + 1; return requests[{choice}] .. n .. "\\r\\n\\r\\n" end
"""


@dataclass(frozen=True)
class Load:
    """A mix of requests from so many connections. records: in each answer; varying: a field that has another value in
    each request: TRACE decides nothing, with CONDITION no answer is remembered; asked: of edged beside nginx.
    """

    name: str
    paths: Path
    connections: int
    shuffled: bool = False
    records: int = 1
    varying: str = ""
    asked: str = ""


@dataclass(frozen=True)
class Running:
    """A server under measurement."""

    url: str
    pid: int

    def cpu_us(self) -> float:
        """User and system time so far, of its first process."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_US


@dataclass(frozen=True)
class Measured:
    per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float = 0.0  # of the server, for each request


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server on the server's core, ended with the block."""
    running = subprocess.Popen(
        ["taskset", "-c", SERVER_CORE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(20)
        if running.stdout:
            running.stdout.close()


def wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


@contextmanager
def edged_server(data_dir: Path, *options: str) -> Iterator[tuple[str, int]]:
    with process(sys.executable, "-m", "benchmarks.shared.server", str(data_dir), *options) as server:
        assert server.stdout is not None
        yield server.stdout.readline().decode().strip(), server.pid


def wrk(url: str, load: Load, seconds: int, scratch: Path) -> Measured:
    """One run. Raises SystemExit if any answer was not 200: then the figures would mean nothing."""
    choice = "math.random(#requests)" if load.shuffled else "n % #requests + 1"
    script = scratch / "load.lua"
    lua = VARYING if load.varying else LUA
    seed = random.randrange(1 << 30)
    script.write_text(lua.format(paths=load.paths, choice=choice, seed=seed, varying=load.varying))
    command = ["taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "--latency"]
    text = subprocess.run([*command, "-s", str(script), url], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(f"{url}: {text}")
    found = re.search(r"Requests/sec:\s+([0-9.]+)", text)
    assert found is not None
    return Measured(float(found[1]), percentile(text, "50"), percentile(text, "99"))


def measure(server: Running, load: Load, seconds: int, scratch: Path) -> Measured:
    before = server.cpu_us()
    found = wrk(server.url, load, seconds, scratch)
    return replace(found, cpu_us=(server.cpu_us() - before) / (found.per_s * seconds))


def percentile(text: str, which: str) -> float:
    """Microseconds."""
    found = re.search(rf"\s{which}%\s+([0-9.]+)(us|ms|s)\b", text)
    assert found is not None
    return float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[found[2]]


def prepare(records: Sequence[tuple[str, str, bytes]], scratch: Path) -> dict[str, Path]:
    """A replica, the same answers as static files, and the lists of paths."""
    replica = Edged(scratch / "data")
    replica.fill(records, train_dictionary(records))
    replica.close()
    files = scratch / "files"
    for number, (_, _, value) in enumerate(records):
        place = files / f"{number % 256:02x}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.json").write_text(json.dumps(cbor2.loads(value), ensure_ascii=False))
    urls = [f"/v1/catalog/{name}/{quote(key, safe='/')}" for name, key, _ in records]
    static = [f"/{number % 256:02x}/{number}.json" for number in range(len(records))]
    hot = random.Random(7).sample(range(len(records)), min(HOT, len(records)))
    keys = [quote(records[number][1], safe="/") for number in hot]
    collection = records[0][0]
    batches = [f"/v1/catalog/{collection}?keys={','.join(keys[n : n + BATCH])}" for n in range(0, len(keys), BATCH)]
    mixed = random.Random(8)
    every = [quote(key, safe="/") for name, key, _ in records if name == collection]
    fresh, wide = (
        [f"/v1/catalog/{collection}?keys={','.join(mixed.sample(among, BATCH))}" for _ in range(20_000)]
        for among in (keys, every)
    )
    lists = {
        "hot": [urls[number] for number in hot],
        "all": urls,
        "static-hot": [static[number] for number in hot],
        "static-all": static,
        "batches": batches,
        "fresh-batches": fresh,
        "wide-batches": wide,
    }
    for name, lines in lists.items():
        (scratch / name).write_text("\n".join(lines) + "\n")
    return {name: scratch / name for name in lists}


def start_peers(stack: ExitStack, upstream: str, scratch: Path) -> dict[str, Running]:
    """The peers that are installed, by name."""
    found = {}
    if shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin"):
        cache, static = free_port(), free_port()
        config = scratch / "nginx.conf"
        config.write_text(
            NGINX.format(dir=scratch, cache=cache, static=static, upstream=upstream, files=scratch / "files")
        )
        scratch.chmod(0o755)
        nginx = stack.enter_context(process("nginx", "-c", str(config), "-p", str(scratch)))
        found["nginx proxy_cache"] = Running(f"http://127.0.0.1:{cache}", nginx.pid)
        found["nginx static"] = Running(f"http://127.0.0.1:{static}", nginx.pid)
        wait_for(cache)
    if shutil.which("varnishd", path=os.environ.get("PATH", "") + ":/usr/sbin"):
        port, vcl = free_port(), scratch / "edged.vcl"
        vcl.write_text(VCL.format(port=upstream.rpartition(":")[2]))
        arguments = ["-F", "-a", f"127.0.0.1:{port}", "-f", str(vcl), "-n", str(scratch / "varnish")]
        varnish = stack.enter_context(process("varnishd", *arguments, "-s", "malloc,1g"))
        found["varnish"] = Running(f"http://127.0.0.1:{port}", varnish.pid)
        wait_for(port)
    return found


def compare(
    servers: dict[str, Running], loads: Sequence[Load], paths: dict[str, Path], options: argparse.Namespace
) -> None:
    """All servers in turn under each load; prints ratios to nginx proxy_cache, and the medians."""
    scratch = paths["hot"].parent
    for name, server in reversed(servers.items()):  # edged last: what the others ask of it for their caches is others'
        which = "static-all" if "static" in name else "all"
        load, count = Load("warm", paths[which], 8), len(paths[which].read_text().splitlines())
        rate = wrk(server.url, load, 2, scratch).per_s
        wrk(server.url, load, min(60, int(count / rate * 1.3) + 1), scratch)
    for load in loads:
        runs: dict[str, list[Measured]] = {name: [] for name in servers}
        for _ in range(options.rounds):
            for name, server in servers.items():
                used = load
                if "static" in name:
                    used = replace(load, paths=paths[f"static-{load.paths.name}"])
                runs[name].append(measure(server, used, options.seconds, scratch))
        show(load, runs)


def unseen(data_dir: Path, servers: dict[str, Running], every: Path, options: argparse.Namespace) -> None:
    """Records that edged was never asked for, beside peers whose caches hold them: a new edged in each round."""
    load = Load("records not asked for before, one connection", every, 1, asked="p50 <= 1.1")
    peers = {name: server for name, server in servers.items() if name not in ("edged", "nginx static")}
    runs: dict[str, list[Measured]] = {name: [] for name in ("edged", *peers)}
    for _ in range(options.rounds):
        with edged_server(data_dir) as (url, pid):
            runs["edged"].append(measure(Running(url, pid), load, 1, every.parent))  # in which it does not get through
        for name, server in peers.items():
            runs[name].append(measure(server, load, 1, every.parent))
    show(load, runs)


def show(load: Load, runs: dict[str, list[Measured]]) -> None:
    base = runs.get("nginx proxy_cache") or runs["edged"]
    asked = f" (asked: {load.asked})" if load.asked else ""
    heads = f"{'requests':>10}{'median latency':>16}{'CPU':>7}{'requests/s':>12}{'p50 µs':>9}{'p99 µs':>9}{'CPU µs':>8}"
    print(f"\n{load.name}{asked}\n{'':20}{heads}")
    for name, found in runs.items():
        pairs = list(zip(found, base, strict=True))
        faster = statistics.median(mine.per_s / other.per_s for mine, other in pairs)
        slower = statistics.median(mine.p50_us / other.p50_us for mine, other in pairs)
        cheaper = statistics.median(other.cpu_us / max(mine.cpu_us, 0.01) for mine, other in pairs)
        values = [[getattr(run, of) for run in found] for of in ("per_s", "p50_us", "p99_us", "cpu_us")]
        per_s, p50, p99, cpu = map(statistics.median, values)
        ratios = f"{faster:9.2f}x{slower:15.2f}x{cheaper:6.2f}x"
        print(f"{name:20}{ratios}{per_s:12,.0f}{p50:9,.0f}{p99:9,.0f}{cpu:8.1f}", flush=True)


def alone(data_dir: Path, paths: dict[str, Path], options: argparse.Namespace) -> None:
    """What needs no peer: batches, and the price of hops."""
    scratch = paths["hot"].parent
    hot = Load("hot", paths["hot"], 16)
    with edged_server(data_dir) as (url, _):
        wrk(url, hot, 1, scratch)
        rows = [hot, Load("GETs never seen", paths["hot"], 16, varying=CONDITION)]
        rows.append(Load("the same, of all", paths["all"], 16, shuffled=True, varying=CONDITION))
        rows.append(Load("batches seen before", paths["batches"], 16, records=BATCH))
        rows.append(Load("batches never seen", paths["fresh-batches"], 16, records=BATCH, varying=CONDITION))
        rows.append(Load("the same, of all", paths["wide-batches"], 16, records=BATCH, varying=CONDITION))
        rates = [[wrk(url, load, options.seconds, scratch).per_s for load in rows] for _ in range(options.rounds)]
        show_batches(rows, [1e6 / statistics.median(found) for found in zip(*rates, strict=True)])
    busy: list[Measured] = []
    calm: list[Measured] = []
    for _ in range(options.rounds):  # by turns, as other programs come and go on the machine
        for runs, more in ((calm, []), (busy, ["--hops"])):
            with edged_server(data_dir, *more) as (url, _):
                runs.append(wrk(url, hot, max(options.seconds, 3), scratch))
    p99 = [statistics.median(m.p99_us for m in runs) for runs in (busy, calm)]
    rate = [statistics.median(m.per_s for m in runs) for runs in (busy, calm)]
    print(
        f"\na hop of 20 edits every second (asked: p99 <= 1.5): p99 {p99[0] / p99[1]:.2f}x "
        f"({p99[0]:,.0f} µs, without {p99[1]:,.0f} µs), "
        f"requests {rate[0] / rate[1]:.2f}x"
    )


def show_batches(rows: Sequence[Load], found: Sequence[float]) -> None:
    """found: microseconds an answer. Against GETs one by one: those whose answers are remembered, those of hot records
    that were never seen, and those of any record.
    """
    print(f"\nbatches of {BATCH}: times fewer µs a record than GETs of hot records seen, never seen, and of all")
    for load, each_us in zip(rows, found, strict=True):
        ratios = "".join(f"{single / each_us * load.records:9.1f}x" for single in found[:3])
        print(f"{load.name:20}{ratios}{each_us / load.records:12.2f} µs a record")


def crowds(data_dir: Path, paths: dict[str, Path], options: argparse.Namespace) -> None:
    """Slow clients beside a normal one, and listeners to changes."""
    scratch = paths["hot"].parent
    one = Load("hot", paths["hot"], 1)
    with edged_server(data_dir) as (url, _):
        calm, busy = [], []
        for _ in range(options.rounds):
            calm.append(wrk(url, one, options.seconds, scratch).p99_us)
            with ExitStack() as stack:
                for _ in range(SLOW):
                    slow = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
                    stack.enter_context(slow).sendall(b"GET /v1 HTTP/1.1\r\nHost: loc")
                busy.append(wrk(url, one, options.seconds, scratch).p99_us)
        slower, both = statistics.median(busy) / statistics.median(calm), f"{min(calm):,.0f} to {max(calm):,.0f} µs"
        print(
            f"\n{SLOW} slow clients beside one: p99 {slower:.2f}x ({statistics.median(busy):,.0f} µs; without {both})"
        )
    with edged_server(data_dir, "--hops") as (url, pid), ExitStack() as stack:
        port = int(url.rpartition(":")[2])
        time.sleep(3)  # the side that makes hops has its records in memory by then
        before = resident_kib(pid)
        listeners = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(LISTENERS)]
        for listener in listeners:
            listener.sendall(LISTEN)
        time.sleep(1.5)
        after = resident_kib(pid)
        spread = [spread_of_news(listeners) for _ in range(options.rounds)]
        print(f"{LISTENERS} listeners to changes: {(after - before) / 1024:.1f} MB; ", end="")
        print(f"from the first to hear of a hop to the last {statistics.median(spread) * 1e3:.0f} ms")


def resident_kib(pid: int, which: str = "VmRSS") -> int:
    """which: RssFile for pages of files alone, which the kernel takes back as it needs them."""
    found = re.search(rf"^{which}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def spread_of_news(listeners: Sequence[socket.socket]) -> float:
    """Seconds between the first and the last listener's getting the next news."""
    select.select([listeners[0]], [], [], 10)
    time.sleep(0.5)  # hops are a second apart: between two of them everybody has heard of the one and not of the next
    with select.epoll() as epoll:
        waiting = {listener.fileno(): listener for listener in listeners}
        for fd, listener in waiting.items():
            listener.setblocking(False)
            with suppress(BlockingIOError):
                while listener.recv(1 << 16):
                    pass
            epoll.register(fd, select.EPOLLIN)
        first = 0.0
        while waiting:
            for fd, _ in epoll.poll(10):
                first = first or time.perf_counter()
                epoll.unregister(fd)
                del waiting[fd]
        return time.perf_counter() - first


def http2_rate(url: str, paths: Path, seconds: int) -> float:
    """Requests/s over one HTTP/2 connection with 50 streams at once, by a client in Python (so a lower bound)."""
    lines = paths.read_text().split()
    pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost")]
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    connection.increment_flow_control_window((1 << 31) - 1 - 65_535)
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        done, stream, until = 0, 1, time.perf_counter() + seconds
        for _ in range(50):
            connection.send_headers(stream, [*pseudo, (":path", lines[stream % len(lines)])], end_stream=True)
            stream += 2
        while time.perf_counter() < until:
            sock.sendall(connection.data_to_send())
            for event in connection.receive_data(sock.recv(1 << 18)):
                if isinstance(event, h2.events.StreamEnded):
                    done += 1
                    connection.send_headers(stream, [*pseudo, (":path", lines[stream % len(lines)])], end_stream=True)
                    stream += 2
    return done / seconds


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
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
        scratch = Path(directory)
        paths = prepare(films(options.data), scratch)
        url, pid = stack.enter_context(edged_server(scratch / "data"))
        print(f"edged remembers answers in {ServeConfig().memory}, the default; the peers' caches hold all")
        started_kib = resident_kib(pid)
        servers = {"edged": Running(url, pid), **start_peers(stack, url, scratch)}
        hot, every = paths["hot"], paths["all"]
        loads = [
            Load(f"{HOT} hot keys, 16 connections", hot, 16, asked=">= 1.6"),
            Load("all keys at random, 16 connections", every, 16, shuffled=True, asked=">= 1.3"),
            Load("all keys at random, one connection", every, 1, shuffled=True, asked="p50 <= 1.1"),
            Load(f"{HOT} hot keys, one connection", hot, 1),
            Load("all keys, a trace's number in each request, one connection", every, 1, shuffled=True, varying=TRACE),
        ]
        compare(servers, loads, paths, options)
        os.sched_setaffinity(0, {int(CLIENT_CORE)})
        rate = http2_rate(url, paths["hot"], options.seconds)
        print(f"\nHTTP/2 in clear text, one connection, 50 streams: {rate:,.0f} requests/s")
        kib, of_files = resident_kib(pid), resident_kib(pid, "RssFile")
        print(
            f"\nresident after it (asked: <= 70 MB): {kib / 1024:.1f} MB, {of_files / 1024:.1f} of it pages of files; ",
            end="",
        )
        print(f"at its start {started_kib / 1024:.1f} MB", flush=True)
        unseen(scratch / "data", servers, every, options)
        stack.close()
        alone(scratch / "data", paths, options)
        crowds(scratch / "data", paths, options)


if __name__ == "__main__":
    main()
