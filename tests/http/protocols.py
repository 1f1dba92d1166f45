"""The same request by every protocol: HTTP/1.1 and HTTP/2, in clear text and over TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import h11
import trio

from edged.http.application import Application
from edged.http.limits import Limits
from edged.http.meter import Meter
from edged.http.server import Listening, serve
from edged.http.tls.certificates import CertificateFiles, Certificates
from tests.http.tls.pem import trusting

PATIENCE_S = 10
PROTOCOLS = ("h1", "h1-tls", "h2c", "h2")
PRIOR = {"h1": "http/1.1", "h1-tls": "http/1.1", "h2c": "h2", "h2": "h2"}
Pairs = Sequence[tuple[str, str]]


@dataclass
class Got:
    """reset: the code of a stream that was reset instead of answered, or that broke off."""

    status: int = 0
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    reset: int | None = None
    interim: list[int] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        return next((value for known, value in self.fields if known == name), None)


@dataclass
class Ask:
    """body: in pieces; None: there is none, and the request ends with its head."""

    target: str = "/"
    method: str = "GET"
    fields: Pairs = ()
    body: Sequence[bytes] | None = None
    host: str = "localhost"


@dataclass
class Everywhere:
    """One application behind every protocol. meter: of the clear text listener; secure: of that with TLS."""

    urls: dict[str, str]
    context: ssl.SSLContext
    meter: Meter
    secure: Meter
    stop: trio.Event

    async def open(self, protocol: str) -> trio.abc.HalfCloseableStream:
        port = int(self.urls[protocol].rpartition(":")[2])
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        if not protocol.endswith("-tls") and protocol != "h2":
            return stream
        self.context.set_alpn_protocols([PRIOR[protocol]])
        secure = trio.SSLStream(stream, self.context, server_hostname="localhost", https_compatible=True)
        await secure.do_handshake()
        return secure  # type: ignore[return-value]  # it has no send_eof, and nobody asks for it here

    async def ask(self, protocol: str, *asked: Ask) -> list[Got]:
        """The answers to requests on one connection: at once in HTTP/2, one after the other else."""
        with trio.fail_after(PATIENCE_S):
            stream = await self.open(protocol)
            try:
                if PRIOR[protocol] == "h2":
                    return await ask_streams(stream, asked)
                return [await ask_line(stream, one) for one in asked]
            finally:
                await trio.aclose_forcefully(stream)


@asynccontextmanager
async def everywhere(
    application: Application, files: CertificateFiles, limits: Limits | None = None
) -> AsyncIterator[Everywhere]:
    stop, plain, secure = trio.Event(), Meter(), Meter()
    limits = Limits() if limits is None else limits
    with trio.fail_after(4 * PATIENCE_S):
        async with trio.open_nursery() as nursery:
            bind = ("127.0.0.1:0",)
            run = partial(serve, application, Listening(bind, limits=limits), meter=plain, stop=stop)
            tls = partial(serve, application, Listening(bind, Certificates([files]), limits), meter=secure, stop=stop)
            clear, safe = (await nursery.start(run))[0], (await nursery.start(tls))[0]
            assert safe.startswith("https://")
            urls = {"h1": clear, "h2c": clear, "h1-tls": safe, "h2": safe}
            yield Everywhere(urls, trusting(files), plain, secure, stop)
            stop.set()
            nursery.cancel_scope.cancel()


async def ask_line(stream: trio.abc.HalfCloseableStream, asked: Ask) -> Got:
    """By HTTP/1.1. A connection that ends within an answer counts as reset."""
    client, got = h11.Connection(h11.CLIENT), Got()
    client.send(h11.Request(method=asked.method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    fields = [("Host", asked.host), *asked.fields]
    chunked = asked.body is not None and not any(name.lower() == "content-length" for name, _ in asked.fields)
    if chunked:
        fields.append(("Transfer-Encoding", "chunked"))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    sent = f"{asked.method} {asked.target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
    for piece in asked.body or ():
        sent += b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
    await stream.send_all(sent + b"0\r\n\r\n" if chunked else sent)
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            try:
                client.receive_data(bytes(await stream.receive_some(65536)))
            except trio.BrokenResourceError:
                got.reset = -1
                return got
        elif isinstance(event, h11.InformationalResponse):
            got.interim.append(event.status_code)
        elif isinstance(event, h11.Response):
            got.status = event.status_code
            got.fields = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
        elif isinstance(event, h11.Data):
            got.body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return got
        else:
            raise AssertionError(event)


async def ask_streams(stream: trio.abc.HalfCloseableStream, asked: Sequence[Ask]) -> list[Got]:
    """By HTTP/2, all at once; nothing is checked before it is sent."""
    config = h2.config.H2Configuration(
        header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False
    )
    client = h2.connection.H2Connection(config)
    client.initiate_connection()
    got: dict[int, Got] = {}
    for one in asked:
        number = client.get_next_available_stream_id()
        head = [(":method", one.method), (":scheme", "http"), (":path", one.target), (":authority", one.host)]
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*head, *one.fields)]
        client.send_headers(number, fields, end_stream=one.body is None)
        for n, piece in enumerate(one.body or ()):
            client.send_data(number, piece, end_stream=n + 1 == len(one.body or ()))
        got[number] = Got()
    open_streams = set(got)
    await stream.send_all(client.data_to_send())
    while open_streams:
        for event in client.receive_data(bytes(await stream.receive_some(65536))):
            if isinstance(event, h2.events.ResponseReceived):
                (_, status), *rest = [(str(name), str(value)) for name, value in event.headers]
                got[event.stream_id].status, got[event.stream_id].fields = int(status), rest
            elif isinstance(event, h2.events.InformationalResponseReceived):
                got[event.stream_id].interim.append(int(event.headers[0][1]))
            elif isinstance(event, h2.events.DataReceived):
                got[event.stream_id].body += event.data
                client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                open_streams.discard(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                if event.stream_id in open_streams:
                    got[event.stream_id].reset = int(event.error_code)
                open_streams.discard(event.stream_id)
            elif isinstance(event, h2.events.ConnectionTerminated):
                for number in open_streams:
                    got[number].reset = int(event.error_code or 0)
                return list(got.values())
        await stream.send_all(client.data_to_send())
    return list(got.values())
