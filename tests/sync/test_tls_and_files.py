"""TLS as the device checks it, and feeds in directories."""

from __future__ import annotations

import datetime
import os
import ssl
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edged.errors import ConfigError, HashError, MissingError, TransportError, WireError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.sync.transports.file import LOOK_S, FileTransport
from edged.sync.transports.http import HttpTransport
from edged.sync.transports.origins import transport_of
from edged.sync.transports.transport import Traffic

DATA = b"a blob of the feed" * 50
REF = BlobRef.of(DATA)


def certificate(directory: Path, *, host: str = "127.0.0.1", days: int = 1) -> Path:
    """A certificate that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "origin")])
    now = datetime.datetime.now(datetime.UTC)
    place: x509.GeneralName = x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([place]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = directory / "origin.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


async def fetch_over_tls(pem: Path, traffic: Traffic) -> bytes:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)

    async def answer(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.receive_some(4096)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA) + DATA)
            await stream.receive_some(1)
        except (trio.BrokenResourceError, ssl.SSLError):
            return  # the client did not like the certificate

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_ssl_over_tcp, answer, 0, context)
        port = listeners[0].transport_listener.socket.getsockname()[1]
        transport = HttpTransport(f"https://127.0.0.1:{port}/catalog", traffic)
        try:
            return await transport.blob(REF, "test")
        finally:
            await transport.aclose()
            nursery.cancel_scope.cancel()


async def test_certificate_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, traffic = certificate(tmp_path), Traffic()
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    assert await fetch_over_tls(pem, traffic) == DATA
    assert traffic.received > len(DATA) + 500  # what TLS adds is counted as well
    assert traffic.sent > 300


@pytest.mark.parametrize("case", ["stranger", "other host", "expired"])
async def test_certificate_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    host = "origin.example" if case == "other host" else "127.0.0.1"
    pem = certificate(tmp_path, host=host, days=-1 if case == "expired" else 1)
    if case != "stranger":
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with pytest.RaisesGroup(pytest.RaisesExc(TransportError, match="its certificate is not trusted")):
        await fetch_over_tls(pem, Traffic())


# ---- directories


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    root = tmp_path / "a feed"
    for name in ("trust", "blobs"):
        (root / name).mkdir(parents=True)
    (root / "head").write_bytes(b"a head")
    (root / "trust" / "1").write_bytes(b"a root")
    (root / "blobs" / REF.name).write_bytes(DATA)
    return root


def transport(feed: Path) -> FileTransport:
    return FileTransport(feed.as_uri(), Traffic())


async def test_a_directory(feed: Path) -> None:
    subject = transport(feed)
    reply = await subject.head(None, 0, None)
    assert reply is not None
    assert reply.data == b"a head"
    assert await subject.head(1, 0, reply.etag) is None
    assert await subject.trust(1) == b"a root"
    assert await subject.trust(2) is None
    assert await subject.blob(REF, "test") == DATA
    assert subject.traffic.received == len(b"a head") + len(b"a root") + len(DATA)
    await subject.aclose()


async def test_a_poll_of_a_directory_is_held(feed: Path, jumping: object) -> None:
    subject = transport(feed)
    reply = await subject.head(None, 0, None)
    assert reply is not None
    began = trio.current_time()
    assert await subject.head(1, 60, reply.etag) is None
    assert 59 <= trio.current_time() - began <= 60

    async def publish() -> None:
        await trio.sleep(20)
        replace_head(feed, b"another head")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish)
        began = trio.current_time()
        newer = await subject.head(1, 60, reply.etag)
    assert newer is not None
    assert newer.data == b"another head"
    assert trio.current_time() - began <= 20 + LOOK_S


def replace_head(feed: Path, data: bytes) -> None:
    (feed / "new").write_bytes(data)
    (feed / "new").replace(feed / "head")


async def test_files_that_are_not_what_they_should_be(feed: Path) -> None:
    subject = transport(feed)
    spoil(feed)
    with pytest.raises(WireError, match="larger than"):
        await subject.head(None, 0, None)
    with pytest.raises(TransportError, match="not a regular file"):
        await subject.trust(2)
    with pytest.raises(TransportError, match=r"a directory|not a regular file"):
        await subject.trust(3)
    with pytest.raises(HashError, match="larger than"):
        await subject.blob(REF, "test")
    with pytest.raises(HashError, match="0 bytes, expected 5"):
        await subject.blob(BlobRef(bytes(32), 5), "test")
    with pytest.raises(MissingError, match="no such file"):
        await subject.blob(BlobRef(bytes(31) + b"x", 5), "test")


def spoil(feed: Path) -> None:
    (feed / "head").write_bytes(bytes(limits.HEAD_BYTES + 1))
    os.mkfifo(feed / "trust" / "2")  # opening it would hang
    (feed / "trust" / "3").mkdir()
    (feed / "blobs" / REF.name).write_bytes(DATA + b"x")
    (feed / "blobs" / bytes(32).hex()).write_bytes(b"")


@pytest.mark.parametrize("url", ["ftp://x/y", "//x/y", "/path", "data:x", ""])
def test_schemes_that_are_not_taken(url: str) -> None:
    with pytest.raises(ConfigError, match="expected https://, http:// or file:///"):
        transport_of(url, Traffic())


@pytest.mark.parametrize("url", ["file://host/path", "file:path"])
def test_file_urls_that_name_no_local_path(url: str) -> None:
    with pytest.raises(TransportError, match="expected file:///path"):
        transport_of(url, Traffic())
