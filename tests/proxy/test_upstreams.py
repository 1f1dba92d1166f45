"""Upstreams of other kinds: HTTP/2 over TLS with a pinned authority and a client certificate, and WebSockets."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import math
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypercorn.config import Config
from hypercorn.trio import serve
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, RejectConnection, Request, TextMessage

from edged.config import ProxyConfig, RouteConfig
from edged.errors import ConfigError
from edged.proxy.application import ProxyApplication
from edged.proxy.exchange.websocket import ACCEPT_SALT
from edged.proxy.gateway import Gateway
from edged.proxy.upstream.upstream import Upstream
from edged.threads import NameLookup
from tests.proxy.driving import Origin, Says, call, make_request, running

pytestmark = pytest.mark.trio


SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def make_authority(directory: Path, name: str) -> tuple[Path, Path, Path]:
    """An authority, and a certificate and key of its for 127.0.0.1."""
    key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)

    def builder(public: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .issuer_name(subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            # Servers ask for this, and the authority's key usage, from Python 3.13 on (RFC 5280 section 4.2.1).
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )

    authority = (
        builder(key.public_key())
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(SIGNS_CERTIFICATES, critical=True)
        .sign(key, hashes.SHA256())
    )
    leaf = (
        builder(own.public_key())
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")]))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = directory / f"{name}.ca", directory / f"{name}.pem", directory / f"{name}.key"
    files[0].write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    files[2].write_bytes(
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@asynccontextmanager
async def tls_upstream(ca: Path, cert: Path, key: Path) -> AsyncIterator[tuple[int, list[str]]]:
    """An upstream over TLS that wants a client certificate; the HTTP versions of its requests."""
    versions: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
        versions.append(scope["http_version"])
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        fields = [(b"cache-control", b"max-age=60"), (b"content-length", b"%d" % max(5, len(body)))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body or b"hello"})

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.certfile, config.keyfile, config.ca_certs = str(cert), str(key), str(ca)
    config.verify_mode = ssl.CERT_REQUIRED
    config.errorlog = None
    async with trio.open_nursery() as nursery:
        urls: Any = await nursery.start(serve, app, config)
        yield int(urls[0].rpartition(":")[2]), versions
        nursery.cancel_scope.cancel()


async def test_http2_with_a_pinned_authority_and_a_client_certificate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca, cert, key = make_authority(tmp_path, "ours")
    other_ca, _, _ = make_authority(tmp_path, "other")
    async with tls_upstream(ca, cert, key) as (port, versions):
        upstream = f"https://127.0.0.1:{port}"
        trusted: dict[str, Any] = {"upstream": upstream, "ca": str(ca), "cert": str(cert), "key": str(key)}
        async with running(Says(), **trusted) as (app, _):
            with trio.fail_after(20):
                assert (await call(app, "/a")).body == b"hello"
                body = bytes(range(256)) * 2_000
                assert (await call(app, "/a", method="PUT", body=body)).body == body
                async with trio.open_nursery() as nursery:
                    for number in range(20):
                        nursery.start_soon(call, app, f"/{number}")
            assert len(app.gateway.upstreams[0].pool.connections) == 1
        assert set(versions) == {"2"}
        count = len(versions)
        for wrong, status in (({"ca": str(other_ca)}, 502), ({"cert": "", "key": ""}, 504), ({"ca": ""}, 502)):
            async with running(Says(), **(trusted | wrong)) as (app, _):
                with trio.fail_after(20):
                    refused = await call(app, "/a")
            assert refused.status == status
            assert ("certificate is not trusted" in refused.body.decode()) == (status == 502)
            assert ("certificate is not trusted" in caplog.text) == (status == 502)
            caplog.clear()
        assert len(versions) == count


async def test_a_certificate_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("nonsense")
    with pytest.raises(ConfigError, match="name PEM files"):
        ProxyApplication(Gateway(ProxyConfig(routes=[RouteConfig("/", "https://x", ca=str(tmp_path / "ca"))]), None))


# --- WebSockets ------------------------------------------------------------------------------------------------------


class SocketUpstream:
    """Accepts WebSockets unless `reject`; answers text with text, bytes with bytes; closes with 4000 on "bye"."""

    def __init__(self, *, reject: bool = False) -> None:
        self.reject = reject
        self.requests: list[Request] = []
        self.closed: list[int] = []
        self.parts = b""

    async def serve(self, stream: trio.SocketStream) -> None:
        connection = WSConnection(ConnectionType.SERVER)
        async with stream:
            while True:
                try:
                    data = await stream.receive_some(65536)
                except trio.BrokenResourceError:
                    return
                connection.receive_data(data or None)
                for event in connection.events():
                    await self.handle(stream, connection, event)
                if not data or self.closed:
                    return

    async def handle(self, stream: trio.SocketStream, connection: WSConnection, event: Any) -> None:
        if isinstance(event, Request):
            self.requests.append(event)
            answer: Any = RejectConnection(status_code=403) if self.reject else AcceptConnection(subprotocol="chat")
            await stream.send_all(connection.send(answer))
            if not self.reject:
                await stream.send_all(connection.send(Ping(b"alive?")))
        elif isinstance(event, TextMessage) and event.data == "bye":
            await stream.send_all(connection.send(CloseConnection(code=4000, reason="done")))
        elif isinstance(event, TextMessage):
            await stream.send_all(connection.send(TextMessage(data=event.data.upper())))
        elif isinstance(event, BytesMessage):
            self.parts += bytes(event.data)
            if event.message_finished:
                await stream.send_all(connection.send(BytesMessage(data=self.parts[::-1])))
        elif isinstance(event, CloseConnection):
            self.closed.append(event.code)


@asynccontextmanager
async def socket_upstream(upstream: SocketUpstream, **route: Any) -> AsyncIterator[ProxyApplication]:
    origin = Origin(lambda asked: Says())
    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        origin.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, upstream.serve, [listener])
        async with running(Says(), origin=origin, serve=False, **route) as (app, _):
            with trio.fail_after(10):
                yield app
        nursery.cancel_scope.cancel()


async def talk(app: ProxyApplication, messages: list[dict[str, Any]], host: str = "localhost") -> list[dict[str, Any]]:
    """A client that sends the next of its messages on each thing that it gets."""
    got: list[dict[str, Any]] = []
    to_app, from_client = trio.open_memory_channel[dict[str, Any]](10)
    to_app.send_nowait({"type": "websocket.connect"})

    async def send(message: dict[str, Any]) -> None:
        got.append(message)
        if messages and message["type"] != "websocket.close":
            await to_app.send(messages.pop(0))

    fields = [
        ("Host", host),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "of the client"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ("Sec-WebSocket-Protocol", "chat"),
    ]
    await app.websocket(make_request(app, "/ws?a=b", fields), from_client.receive, send)
    return got


async def test_a_websocket_passes_messages_both_ways() -> None:
    upstream = SocketUpstream()
    large = b"ab" * 200_000
    async with socket_upstream(upstream) as app:
        got = await talk(
            app,
            [
                {"type": "websocket.receive", "text": "hello"},
                {"type": "websocket.receive", "bytes": large},
                {"type": "websocket.receive", "text": "bye"},
            ],
        )
    assert got == [
        {"type": "websocket.accept", "subprotocol": "chat"},
        {"type": "websocket.send", "text": "HELLO"},
        {"type": "websocket.send", "bytes": large[::-1]},
        {"type": "websocket.close", "code": 4000, "reason": "done"},
    ]
    assert upstream.requests[0].target == "/ws?a=b"
    assert upstream.requests[0].extensions == []


async def test_a_client_that_leaves_closes_upstream_too() -> None:
    upstream = SocketUpstream()
    async with socket_upstream(upstream) as app:
        await talk(app, [{"type": "websocket.disconnect", "code": 1001}])
        for _ in range(100):
            if upstream.closed:
                break
            await trio.sleep(0.01)
    assert upstream.closed == [1001]


async def test_a_websocket_that_upstream_refuses_is_refused_in_its_words() -> None:
    async with socket_upstream(SocketUpstream(reject=True)) as app:
        start, body = await talk(app, [])
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)
    assert body == {"type": "websocket.http.response.body", "body": b"", "more_body": False}


@pytest.mark.parametrize("keep", [True, False])
async def test_a_websocket_keeps_the_host_where_its_route_does(keep: bool) -> None:
    upstream = SocketUpstream()
    async with socket_upstream(upstream, keep_host=keep) as app:
        await talk(app, [{"type": "websocket.disconnect", "code": 1001}], host="tv.example:99")
    assert (upstream.requests[0].host == "tv.example:99") == keep


@pytest.mark.parametrize(
    "fields",
    [
        b"Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",  # of another key
        b"Upgrade: websocket\r\n",
        b"Upgrade: other\r\nSec-WebSocket-Accept: %b\r\n",
        b"Upgrade: websocket\r\nSec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: other\r\n",
        b"Upgrade: websocket\r\nSec-WebSocket-Accept: %b\r\nSec-WebSocket-Extensions: x\r\n",
    ],
)
async def test_a_handshake_that_does_not_answer_ours_opens_nothing(fields: bytes) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            asked = await stream.receive_some(65536)
            key = next(line for line in asked.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
            accept = base64.b64encode(hashlib.sha1(key.split()[1] + ACCEPT_SALT, usedforsecurity=False).digest())
            told = fields % accept if b"%" in fields else fields
            await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n" + told + b"\r\n")
            await stream.receive_some(1)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        origin = Origin(lambda asked: Says(), port=listeners[0].socket.getsockname()[1])
        async with running(Says(), origin=origin, serve=False) as (app, _):
            with trio.fail_after(10):
                start, body = await talk(app, [])
        nursery.cancel_scope.cancel()
    assert start["status"] == 502
    assert b"for a WebSocket" in body["body"]


async def test_a_websocket_to_nowhere_says_why() -> None:
    async with running(Says(), prefix="/api") as (app, _):
        start, _body = await talk(app, [])
    assert start["status"] == 404


async def test_a_thread_that_the_system_does_not_give_ends_no_look_for_an_upstream(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    trio.socket.set_custom_hostname_resolver(NameLookup())

    async def start(*arguments: object, **more: object) -> None:
        raise RuntimeError("can't start new thread")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        route = RouteConfig("/a", f"http://localhost:{listener.getsockname()[1]}")
        upstream = Upstream(route, lambda upstream: None)
        with monkeypatch.context() as patch:
            patch.setattr(trio.to_thread, "run_sync", start)
            assert not await upstream.takes_connections()
        autojump_clock.autojump_threshold = math.inf
        assert await upstream.takes_connections()
