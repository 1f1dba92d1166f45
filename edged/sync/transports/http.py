"""A feed over HTTP/1.1: few bytes of headers, bounded bodies, a deadline on everything.

HTTP/1.1 rather than 2: one connection with one request at a time needs no frames, and an idle poll costs nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import httpcore2
import trio

from edged.errors import HashError, MissingError, TransportError, WireError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.sync.transports.network import Network
from edged.sync.transports.transport import BusyOriginError, HeadReply, Traffic

CONNECT_S = 15.0  # to a TCP connection, and again to TLS on it
GRACE_S = 10.0  # for a poll's answer, beyond what the origin was asked to hold it
STALL_S = 30.0  # without a byte
LEAST_BYTES_PER_S = 200  # over a whole body, once STALL_S are over: slower, and another origin is tried
REDIRECTS = 3
KEEP_ALIVE_S = 50.0  # an idle connection is not used again after so long: something on the way may have forgotten it
KEEP_PARTIAL_BYTES = 64 << 10  # what of a broken transfer is worth asking for the rest by Range
RETRY_AFTER_CAP_S = 3600.0
ETAG_CHARACTERS = 200
USER_AGENT = b"edged"  # some firewalls refuse requests without one

REFUSED = (404, 410, 403)  # object stores that hide what they hold answer 403 for what is not there
BROKEN = (httpcore2.RemoteProtocolError, httpcore2.ReadError, httpcore2.WriteError)
FAULTS = (httpcore2.ProtocolError, httpcore2.NetworkError, httpcore2.TimeoutException)


class Partial(NamedTuple):
    """The beginning of a blob whose transfer broke."""

    sha256: bytes
    data: bytearray


class HttpTransport:
    """base: the feed's URL, without a slash at the end; network: for tests."""

    def __init__(self, base: str, traffic: Traffic, network: Network | None = None) -> None:
        self.base = quote(base.rstrip("/"), safe="/:%[]~@!$&'()*+,;=")
        self.scheme = urlsplit(base).scheme
        if self.scheme not in ("http", "https"):
            raise TransportError(f"origin {base}: not an http or https URL")
        context = ssl.create_default_context() if self.scheme == "https" else None
        self.pool = httpcore2.AsyncConnectionPool(
            ssl_context=context,
            max_connections=2,
            max_keepalive_connections=1,
            keepalive_expiry=KEEP_ALIVE_S,
            network_backend=network or Network(traffic),
        )
        self.partial: Partial | None = None

    @property
    def name(self) -> str:
        return self.base

    async def head(self, after: int | None, wait_s: int, etag: str | None) -> HeadReply | None:
        query = f"?after={after}&wait={wait_s}" if wait_s and after is not None else ""
        headers = [(b"If-None-Match", etag.encode())] if etag else []
        async with self.get(f"{self.base}/head{query}", headers, wait_s) as (response, pace):
            if response.status in (204, 304):
                return None
            self.expect(response, 200)
            data = await read_body(response, pace, limits.HEAD_BYTES)
            return HeadReply(data, etag_of(response))

    async def trust(self, number: int) -> bytes | None:
        async with self.get(f"{self.base}/trust/{number}", [], 0) as (response, pace):
            if response.status in REFUSED:
                return None
            self.expect(response, 200)
            return await read_body(response, pace, limits.TRUST_BYTES)

    async def blob(self, ref: BlobRef, what: str) -> bytes:
        partial, self.partial = self.partial, None
        data = partial.data if partial is not None and partial.sha256 == ref.sha256 else bytearray()
        headers = [(b"Range", b"bytes=%d-" % len(data))] if data else []
        url = f"{self.base}/blobs/{ref.name}"
        try:
            async with self.get(url, headers, 0) as (response, pace):
                if response.status in REFUSED:
                    raise MissingError(
                        f"fetch {what}: {url}: status {response.status}; it has been removed or never came"
                    )
                if response.status != 206:
                    self.expect(response, 200)
                    data = bytearray()
                elif content_range_start(response) != len(data):
                    data = bytearray()
                    raise TransportError(f"fetch {what}: {url}: answered with another range than asked for")
                if not await receive(response, pace, data, ref.size):
                    data.clear()
                    raise HashError(f"fetch {what}: {url}: more than its {ref.size} bytes came")
        except TransportError:
            if KEEP_PARTIAL_BYTES <= len(data) < ref.size:
                self.partial = Partial(ref.sha256, data)
            raise
        if len(data) != ref.size:
            raise HashError(f"fetch {what}: {url}: expected {ref.size} bytes, got {len(data)}")
        return bytes(data)

    async def aclose(self) -> None:
        await self.pool.aclose()

    # ---- one request

    @asynccontextmanager
    async def get(
        self, url: str, headers: list[tuple[bytes, bytes]], wait_s: int
    ) -> AsyncIterator[tuple[httpcore2.Response, trio.CancelScope]]:
        """The answer to a GET, redirects followed, and the scope whose deadline bounds it.

        Raises TransportError for every fault of the network or of HTTP, also from within the block.
        """
        with trio.CancelScope(deadline=trio.current_time() + 2 * CONNECT_S + wait_s + GRACE_S) as pace:
            try:
                response = await self.send(url, headers, wait_s)
                try:
                    yield response, pace
                finally:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE_S):
                        await response.aclose()
            except FAULTS as fault:
                raise TransportError(f"GET {url}: {type(fault).__name__}: {fault}") from fault
            except httpcore2.UnsupportedProtocol as fault:
                raise TransportError(f"GET {url}: {fault}") from fault
        if pace.cancelled_caught:
            raise TransportError(f"GET {url}: too slow: no answer, nothing for {STALL_S:.0f} s, or a trickle")

    async def send(self, url: str, headers: list[tuple[bytes, bytes]], wait_s: int) -> httpcore2.Response:
        for _ in range(REDIRECTS + 1):
            response = await self.send_once(url, headers, wait_s)
            if response.status not in (301, 302, 303, 307, 308):
                return response
            await response.aclose()
            target = urljoin(url, header(response, b"location") or "")
            if urlsplit(target).scheme != self.scheme:
                raise TransportError(
                    f"GET {url}: redirected to {target:.200}, another scheme; configure that as origin"
                )
            url = quote(target, safe="/:%[]~@!$&'()*+,;=?")
        raise TransportError(f"GET {url}: more than {REDIRECTS} redirects")

    async def send_once(self, url: str, headers: list[tuple[bytes, bytes]], wait_s: int) -> httpcore2.Response:
        request = httpcore2.Request(
            "GET",
            url,
            headers=[(b"Host", host_of(url)), (b"User-Agent", USER_AGENT), *headers],
            extensions={"timeout": {"connect": CONNECT_S, "write": STALL_S, "read": wait_s + STALL_S, "pool": GRACE_S}},
        )
        began = trio.current_time()
        try:
            return await self.pool.handle_async_request(request)
        except BROKEN:
            # The peer closed an idle connection just as it was used again: once more on a new one.
            if trio.current_time() - began > 1.0:
                raise
        return await self.pool.handle_async_request(request)

    def expect(self, response: httpcore2.Response, status: int) -> None:
        where = f"GET {self.base}/…"
        if response.status in REFUSED:
            raise MissingError(f"{where}: status {response.status}; is this the feed's base URL?")
        if response.status in (429, 503):
            retry_after = header(response, b"retry-after") or ""
            if retry_after.isascii() and retry_after.isdigit():
                seconds = min(float(retry_after[:9]), RETRY_AFTER_CAP_S)
                raise BusyOriginError(f"{where}: status {response.status}, asks to wait {seconds:.0f} s", seconds)
        if response.status != status:
            raise TransportError(f"{where}: status {response.status}, expected {status}")
        coding = header(response, b"content-encoding")
        if coding not in (None, "identity"):
            raise TransportError(f"{where}: answered in coding {coding:.40}, which was not asked for")


def host_of(url: str) -> bytes:
    return urlsplit(url).netloc.rpartition("@")[2].encode()


def header(response: httpcore2.Response, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), None)


def etag_of(response: httpcore2.Response) -> str | None:
    etag = header(response, b"etag")
    return etag if etag and len(etag) <= ETAG_CHARACTERS and etag.isascii() and etag.isprintable() else None


def content_range_start(response: httpcore2.Response) -> int | None:
    """Of `Content-Range: bytes 100-199/200` (RFC 9110 section 14.4) the 100."""
    unit, _, rest = (header(response, b"content-range") or "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isascii() and start.isdigit() and len(start) < 19 else None


def declared_length(response: httpcore2.Response) -> int:
    """Content-Length, 0 where it is not said. h11 has checked its form."""
    return int(header(response, b"content-length") or "0")


async def receive(response: httpcore2.Response, pace: trio.CancelScope, data: bytearray, most: int) -> bool:
    """Append the body to `data`, moving the deadline on by what has come: no stall over STALL_S, no trickle below
    LEAST_BYTES_PER_S. False as soon as `data` would grow over `most` bytes, before it does."""
    if declared_length(response) > most - len(data):
        return False
    began, received = trio.current_time(), 0
    pace.deadline = began + STALL_S
    async with aclosing(response.aiter_stream()) as stream:
        async for chunk in stream:
            if len(data) + len(chunk) > most:
                return False
            data += chunk
            received += len(chunk)
            earned = began + STALL_S + received / LEAST_BYTES_PER_S
            pace.deadline = min(earned, trio.current_time() + STALL_S)
    return True


async def read_body(response: httpcore2.Response, pace: trio.CancelScope, max_bytes: int) -> bytes:
    """Raises WireError over `max_bytes`."""
    data = bytearray()
    if not await receive(response, pace, data, max_bytes):
        raise WireError(
            f"answer over {max_bytes} bytes where a head or a root of trust was expected; not a feed's file"
        )
    return bytes(data)
