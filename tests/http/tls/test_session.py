"""TLS sessions over memory, with the standard library's own as the client."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio

from edged.http.tls.certificates import Certificates
from edged.http.tls.session import PIECE_BYTES, READS_A_TURN, SMALL_RECORDS, TlsFault, TlsSession
from edged.http.tls.stream import TlsStream
from tests.http.tls.pem import make, trusting


class TlsClient:
    """resume: a session of before."""

    def __init__(self, context: ssl.SSLContext, name: str = "localhost", resume: ssl.SSLSession | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name, session=resume)

    def meet(self, server: TlsSession) -> None:
        """Both sides until nothing more is to be said."""
        done = False
        while True:
            if not done:
                try:
                    self.tls.do_handshake()
                    done = True
                except ssl.SSLWantReadError:
                    pass
            if not self.outgoing.pending:
                break
            server.feed(self.outgoing.read())
            server.established or server.handshake()
            self.incoming.write(server.take())
        assert done
        assert server.established

    def send(self, server: TlsSession, data: bytes) -> None:
        self.tls.write(data)
        server.feed(self.outgoing.read())

    def read(self) -> bytes:
        found = b""
        try:
            while data := self.tls.read(PIECE_BYTES):
                found += data
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return found


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates([make(tmp_path, "localhost"), make(tmp_path, "other.example", stem="other")])


def client_of(certificates: Certificates, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = trusting(*certificates.files)
    if version is not None:
        context.maximum_version = version
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_speak_both_ways(certificates: Certificates, version: ssl.TLSVersion) -> None:
    server, client = TlsSession(certificates.context), TlsClient(client_of(certificates, version))
    client.meet(server)
    assert server.protocol() == client.tls.selected_alpn_protocol() == "h2"
    client.send(server, b"asked")
    assert server.read() == b"asked"
    assert server.read() == b""
    large = bytes(range(256)) * 1000
    client.incoming.write(server.write(large))
    assert client.read() == large
    client.incoming.write(server.write(memoryview(large)[5:300]))
    assert client.read() == large[5:300]


def test_older_versions_and_weak_ciphers_are_refused(certificates: Certificates) -> None:
    context = client_of(certificates, ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("AES128-SHA256:ECDHE-ECDSA-AES128-SHA256")
    server, client = TlsSession(certificates.context), TlsClient(context)
    with pytest.raises(TlsFault, match="no shared cipher"):
        client.meet(server)
    assert server.take()  # the alert says why


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(certificates: Certificates, version: ssl.TLSVersion) -> None:
    context = client_of(certificates, version)
    first, again = TlsSession(certificates.context), TlsSession(certificates.context)
    client = TlsClient(context)
    client.meet(first)
    client.incoming.write(first.write(b"x"))
    client.read()  # what carries the ticket in TLS 1.3
    assert not client.tls.session_reused
    second = TlsClient(context, resume=client.tls.session)
    second.meet(again)
    assert second.tls.session_reused


def test_the_certificate_is_the_one_for_the_name(certificates: Certificates) -> None:
    for name in ("localhost", "other.example"):
        client = TlsClient(client_of(certificates), name)
        client.meet(TlsSession(certificates.context))  # the client would refuse another
        peer = client.tls.getpeercert()
        assert peer is not None
        assert peer["subjectAltName"] == (("DNS", name),)


def test_new_sessions_show_what_was_read_anew_and_old_ones_go_on(certificates: Certificates, tmp_path: Path) -> None:
    before = client_of(certificates)
    server, client = TlsSession(certificates.context), TlsClient(before)
    client.meet(server)
    make(tmp_path, "localhost")
    assert certificates.refresh()
    client.send(server, b"on")
    assert server.read() == b"on"
    TlsClient(client_of(certificates)).meet(TlsSession(certificates.context))
    stale = TlsClient(before)
    with pytest.raises(ssl.SSLCertVerificationError):
        stale.meet(TlsSession(certificates.context))


def test_ends_with_and_without_a_farewell(certificates: Certificates) -> None:
    server, client = TlsSession(certificates.context), TlsClient(client_of(certificates))
    client.meet(server)
    client.tls.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    server.feed(client.outgoing.read())
    assert server.read() == b"last"
    assert server.ended
    client.incoming.write(server.close())
    assert client.read() == b""
    rude, cut = TlsClient(client_of(certificates)), TlsSession(certificates.context)
    rude.meet(cut)
    rude.send(cut, b"last")
    cut.feed(b"")
    assert cut.read() == b"last"
    with pytest.raises(TlsFault, match="without a farewell"):
        cut.read()


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", bytes(64), b"\x16\x03\x01\x00\x05hello"]
)
def test_what_is_no_handshake_is_a_fault_with_its_reason(certificates: Certificates, sent: bytes) -> None:
    server = TlsSession(certificates.context)
    server.feed(sent)
    with pytest.raises(TlsFault) as caught:
        server.handshake()
    assert str(caught.value)
    assert server.close() is not None


def test_a_handshake_byte_by_byte_is_the_same(certificates: Certificates) -> None:
    server, client = TlsSession(certificates.context), TlsClient(client_of(certificates))
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    for octet in client.outgoing.read():
        assert not server.handshake()
        server.feed(bytes([octet]))
    server.handshake()
    client.incoming.write(server.take())
    client.meet(server)


@pytest.mark.parametrize(("records", "ends"), [(SMALL_RECORDS, False), (SMALL_RECORDS + 1, True)])
def test_records_of_one_byte_are_bounded(certificates: Certificates, records: int, ends: bool) -> None:
    server, client = TlsSession(certificates.context), TlsClient(client_of(certificates))
    client.meet(server)
    for _ in range(records):
        client.tls.write(b"x")
    server.feed(client.outgoing.read())
    got = [server.read() for _ in range(SMALL_RECORDS // READS_A_TURN)]
    assert b"".join(got) == b"x" * SMALL_RECORDS
    if ends:
        with pytest.raises(TlsFault, match="too many records"):
            server.read()
    else:
        assert not server.more


def test_small_records_among_large_ones_are_no_flood(certificates: Certificates) -> None:
    server, client = TlsSession(certificates.context), TlsClient(client_of(certificates))
    client.meet(server)
    for _ in range(2 * SMALL_RECORDS):
        client.send(server, bytes(1100))
        client.send(server, b"x")
        assert len(server.read()) == 1101


def test_a_record_that_was_touched_is_a_fault(certificates: Certificates) -> None:
    server, client = TlsSession(certificates.context), TlsClient(client_of(certificates))
    client.meet(server)
    client.tls.write(b"asked")
    record = bytearray(client.outgoing.read())
    record[-1] ^= 1
    server.feed(bytes(record))
    with pytest.raises(TlsFault, match="bad record mac"):
        server.read()


async def test_a_session_goes_on_as_a_stream(certificates: Certificates) -> None:
    session, client = TlsSession(certificates.context), TlsClient(client_of(certificates))
    client.meet(session)
    client.send(session, b"read before")
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    near = await trio.open_tcp_stream("127.0.0.1", listener[0].socket.getsockname()[1])
    far = await listener[0].accept()
    stream = TlsStream(far, session, unsent=session.write(b"unsent, "))
    assert await stream.receive_some() == b"read before"
    large = bytes(1 << 18)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, large)
        got = b""
        while len(got) < len(large) + 8:
            client.incoming.write(await near.receive_some())
            got += client.read()
    assert got == b"unsent, " + large
    client.tls.write(b"more")
    await near.send_all(client.outgoing.read())
    assert await stream.receive_some() == b"more"
    await stream.send_eof()
    client.incoming.write(await near.receive_some())
    assert client.read() == b""
    await near.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    await stream.aclose()
    await listener[0].aclose()
