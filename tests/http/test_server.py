"""The hardened server: caps, deadlines, sockets, and a stop that ends, whatever clients do."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edged.access.identity import Peer
from edged.errors import ConfigError
from edged.http import server
from edged.http.hypercorn import connection as hardened
from edged.http.hypercorn.connection import Busy, HypercornConnection, checked_config
from edged.http.lane import turns
from edged.http.limits import PARKED_S, Limits
from edged.http.server import Listening, Server, cap_key, serve
from edged.http.tls.certificates import CertificateFiles, Certificates
from tests.http.asgi import AsgiApp, AsgiApplication
from tests.serve.lanes import Client, ask_once, client, connect, eventually, head, running_lanes

GET = head("GET", "/v1/catalog/titles/1997/Film_0007")
BIG = b"x" * (1 << 20)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the path; /big with 16 MiB, /drip for ever, /read after the body, /fail not at all."""
    path = scope["path"]
    if path == "/fail":
        raise ValueError("meant to fail")
    if path == "/read":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if path == "/big":
        for _ in range(16):
            await send({"type": "http.response.body", "body": BIG, "more_body": True})
    while path == "/drip":
        await send({"type": "http.response.body", "body": b"drop", "more_body": True})
        await trio.sleep(0.05)
    await send({"type": "http.response.body", "body": path.encode()})


HELLO = AsgiApplication(hello)


@asynccontextmanager
async def running(
    bind: list[str] | None = None,
    *,
    app: AsgiApp = hello,
    limits: Limits = Limits(),  # noqa: B008  frozen
    lane: bool = False,
    **more: Any,
) -> AsyncIterator[tuple[list[str], trio.Event]]:
    stop = trio.Event()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            listening = Listening(tuple(bind or ["127.0.0.1:0"]), limits=limits, lane=lane, **more)
            yield await nursery.start(partial(serve, AsgiApplication(app), listening, stop=stop)), stop
            nursery.cancel_scope.cancel()


def test_a_misspelled_setting_of_hypercorn_is_refused() -> None:
    with pytest.raises(ConfigError, match="keep_alive_timeot"):
        checked_config(keep_alive_timeot=3)


@pytest.mark.trio
async def test_every_kind_of_address_answers_and_ports_are_reported(tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    async with running(["127.0.0.1:0", "[::1]:0", f"unix:{path}"], socket_mode=0o640) as (urls, _):
        assert urls[0].startswith("http://127.0.0.1:")
        assert urls[1].startswith("http://[::1]:")
        assert urls[2] == f"unix:{path}"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
        for stream in (
            await connect(urls[0]),
            await trio.open_tcp_stream("::1", int(urls[1].rpartition(":")[2])),
            await trio.open_unix_socket(path),
        ):
            async with stream:
                asker = Client(stream)
                await asker.send(head("GET", "/path"))
                assert (await asker.reply()).body == b"/path"
    assert not await trio.Path(path).exists()


@pytest.mark.trio
async def test_a_dead_socket_is_replaced_a_live_one_and_a_file_are_not(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with running([f"unix:{path}"]):
        with pytest.raises(ConfigError, match="another program"):
            await serve(HELLO, Listening((f"unix:{path}",)))
        assert path.is_socket()
    path.write_text("not a socket")
    with pytest.raises(ConfigError, match="no socket"):
        await serve(HELLO, Listening((f"unix:{path}",)))
    assert path.read_text() == "not a socket"


@pytest.mark.trio
@pytest.mark.parametrize("bind", ["127.0.0.1:x", "127.0.0.1", "203.0.113.7:1", "unix:/nowhere/at/all.sock", ":1"])
async def test_an_address_that_cannot_be_had_is_named_with_what_to_do(bind: str) -> None:
    with pytest.raises(ConfigError, match="listen on"):
        await serve(HELLO, Listening((bind,)))


@pytest.mark.trio
async def test_an_address_in_use_closes_those_opened_before() -> None:
    async with running() as (urls, _):
        taken = urls[0].removeprefix("http://")
        with pytest.raises(ConfigError, match="another program has the address"):
            await serve(HELLO, Listening(("127.0.0.1:0", taken)))


@pytest.mark.trio
async def test_several_workers_share_a_port() -> None:
    async with running(reuse_port=True) as (urls, _):
        address = urls[0].removeprefix("http://")
        async with running([address], reuse_port=True) as (again, _):
            assert again == urls


@pytest.mark.trio
async def test_connections_over_the_cap_get_503_and_a_place_frees_up() -> None:
    async with running_lanes(limits=Limits(connections=3)) as lanes:
        held = [await connect(lanes.fast) for _ in range(3)]
        for stream in held:
            await Client(stream).send(GET)
            await Client(stream).reply()
        reply = await ask_once(lanes.fast, GET)
        assert (reply.status, reply.fields["retry-after"]) == (503, "1")
        await held[0].aclose()
        await eventually(lambda: lanes.meter.fast_connections == 2)
        assert (await ask_once(lanes.fast, GET)).status == 200
        for stream in held:
            await stream.aclose()


@pytest.mark.trio
async def test_one_user_on_the_unix_socket_cannot_take_all_places(tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    async with running([f"unix:{path}", "127.0.0.1:0"], limits=Limits(per_peer=2)) as (urls, _):
        held = [await trio.open_unix_socket(path) for _ in range(3)]
        assert (await Client(held[2]).reply()).status == 503
        assert (await ask_once(urls[1], head("GET", "/"))).status == 200
        for stream in held:
            await stream.aclose()


def test_loopback_is_everybodys_other_addresses_are_capped() -> None:
    assert cap_key(Peer(False, "127.0.0.1")) == cap_key(Peer(False, "::1")) == ""
    assert cap_key(Peer(False, "192.0.2.1")) == "192.0.2.1"
    assert cap_key(Peer(True, "unix", uid=7)) == "uid 7"


@pytest.mark.trio
async def test_running_out_of_descriptors_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [errno.EMFILE, errno.ECONNABORTED, errno.ENFILE]
    admit = Server.admit

    def admit_after_faults(server: Server, sock: socket.socket) -> None:
        if left:
            sock.close()
            raise OSError(left.pop(), "made up")
        admit(server, sock)

    monkeypatch.setattr(Server, "admit", admit_after_faults)
    async with running() as (urls, _):
        for _ in range(3):
            async with client(urls[0]) as asker:
                assert await asker.end() == b""
        assert (await ask_once(urls[0], head("GET", "/"))).status == 200


@pytest.mark.trio
async def test_an_application_that_fails_costs_one_request() -> None:
    async with running() as (urls, _):
        assert (await ask_once(urls[0], head("GET", "/fail"))).status == 500
        assert (await ask_once(urls[0], head("GET", "/ok"))).status == 200


@pytest.mark.trio
async def test_what_a_client_that_has_gone_sent_ahead_is_not_asked() -> None:
    asked: list[str] = []
    turn = trio.Semaphore(0)

    async def held(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await turn.acquire()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

    async with running(app=held) as (urls, _):
        async with client(urls[0]) as asker:
            await asker.send(head("GET", "/held") * 50)
            await eventually(lambda: len(asked) == 1)
        for _ in range(50):  # each answer but the first is written to a closed socket
            turn.release()
        with trio.move_on_after(0.5):
            await eventually(lambda: len(asked) > 10)
        assert len(asked) <= 10


def test_a_request_that_gets_on_no_more_does_not_count_as_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(hardened, "monotonic", lambda: now[0])
    busy = Busy()
    assert not busy.is_getting_on()
    busy.connections.add(cast(HypercornConnection, object()))
    busy.progress_s = 100.0
    assert busy.is_getting_on()
    now[0] += 2 * PARKED_S
    assert not busy.is_getting_on()


@pytest.mark.trio
async def test_a_slow_head_is_cut_in_both_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SWEEP_S", 0.02)
    async with running_lanes(limits=Limits(head_s=0.1, idle_s=30)) as lanes:
        for url in (lanes.fast, lanes.slow):
            async with client(url) as asker:
                await asker.send(GET)
                assert (await asker.reply()).status == 200
                await asker.send(GET[:20])
                assert await asker.end() == b""


@pytest.mark.trio
async def test_an_idle_connection_is_closed_in_both_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SWEEP_S", 0.02)
    async with running_lanes(limits=Limits(idle_s=0.1)) as lanes:
        for url in (lanes.fast, lanes.slow):
            async with client(url) as asker:
                assert await asker.end() == b""


@pytest.mark.trio
async def test_a_body_that_stays_away_is_not_waited_for() -> None:
    async with running(limits=Limits(body_s=0.1)) as (urls, _), client(urls[0]) as asker:
        await asker.send(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        assert (await asker.reply()).status == 200
        assert await asker.end() == b""


@pytest.mark.trio
async def test_a_large_body_that_nobody_reads_does_not_hang_the_connection() -> None:
    async with running() as (urls, _), client(urls[0]) as asker:
        await asker.send(b"POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n")
        assert (await asker.reply()).status == 200
        with pytest.raises(trio.BrokenResourceError):
            await asker.send(b"x" * 4_000_000)


@pytest.mark.trio
async def test_a_client_that_stops_reading_is_cut_in_both_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SWEEP_S", 0.02)
    page = head("GET", "/v1/catalog/titles?limit=120")
    async with running_lanes(limits=Limits(write_s=0.1)) as lanes:
        for url in (lanes.fast, lanes.slow):
            async with client(url) as asker:
                with pytest.raises(trio.BrokenResourceError):
                    await asker.send(page * 200_000)


@pytest.mark.trio
async def test_stopping_ends_in_time_with_stalled_readers_and_streams() -> None:
    graceful_s, stop = 0.2, trio.Event()
    streams: list[trio.SocketStream] = []
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            listening = Listening(("127.0.0.1:0",), limits=Limits(graceful_s=graceful_s), lane=False)
            urls = await nursery.start(partial(serve, HELLO, listening, stop=stop))
            for number in range(60):
                streams.append(await connect(urls[0]))
                await streams[-1].send_all(head("GET", "/big" if number < 50 else "/drip"))
                await streams[-1].receive_some(10)
            begin = trio.current_time()
            stop.set()
        assert trio.current_time() - begin < graceful_s + 1
    for stream in streams:
        await stream.aclose()


@pytest.mark.trio
async def test_stopping_lets_the_fast_lane_finish_and_closes_the_idle() -> None:
    async with running_lanes(limits=Limits(graceful_s=5)) as lanes:
        idle, poller = await connect(lanes.fast), await connect(lanes.fast)
        await Client(poller).send(head("GET", "/v1/catalog/changes?since=2&wait=60"))
        await Client(idle).send(GET)
        assert (await Client(idle).reply()).status == 200
        begin = trio.current_time()
        lanes.stop.set()
        assert await Client(idle).end() == b""
        assert (await Client(poller).reply()).body == b""
        assert await Client(poller).end() == b""
        assert trio.current_time() - begin < 3
        await idle.aclose()
        await poller.aclose()


@pytest.mark.trio
async def test_tls_speaks_http2_and_http1_by_alpn(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    async with running(certificates=Certificates([CertificateFiles(str(cert), str(key))])) as (urls, _):
        assert urls[0].startswith("https://")
        for protocol in ("http/1.1", "h2"):
            context = ssl.create_default_context(cafile=str(cert))
            context.set_alpn_protocols([protocol])
            stream = trio.SSLStream(await connect(urls[0]), context, server_hostname="localhost", https_compatible=True)
            await stream.do_handshake()
            assert stream.selected_alpn_protocol() == protocol
            if protocol == "http/1.1":
                await stream.send_all(head("GET", "/tls"))
                assert bytes(await stream.receive_some(65536)).startswith(b"HTTP/1.1 200")
            await trio.aclose_forcefully(stream)
        async with client(urls[0]) as asker:  # a client that speaks no TLS costs its own connection alone
            await asker.send(head("GET", "/"))
            await asker.end()


def test_a_key_that_is_no_key_is_named(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    key.write_text("nonsense")
    with pytest.raises(ConfigError, match="key"):
        Certificates([CertificateFiles(str(cert), str(key))])


def make_certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = directory / "cert.pem", directory / "key.pem"
    cert_path.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return cert_path, key_path


def test_hypercorn_is_loaded_when_a_connection_needs_it_and_not_before() -> None:
    """3 MB that most devices never need."""
    script = (
        "import sys, edged.daemon, edged.http.server as server; assert 'hypercorn' not in sys.modules;"
        "server.load_hypercorn(); assert 'hypercorn' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.trio
async def test_hypercorn_that_cannot_be_loaded_costs_one_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where no descriptor is left to read its files by."""
    load, faults = server.load_hypercorn, [OSError(errno.EMFILE, "Too many open files")]

    def failing() -> type[Any]:
        if faults:
            raise faults.pop()
        return load()

    monkeypatch.setattr(server, "load_hypercorn", failing)
    post = head("POST", "/read", {"Content-Length": "1"}) + b"x"
    async with running(lane=True) as (urls, _):
        async with client(urls[0]) as asker:
            await asker.send(post)
            assert await asker.end() == b""
        assert (await ask_once(urls[0], post)).body == b"/read"
    assert "Too many open files" in caplog.text
