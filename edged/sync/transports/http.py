"""A feed over HTTP/1.1: few bytes of headers, bounded bodies, a deadline on everything.

HTTP/1.1 rather than 2: one connection with one request at a time needs no frames, and an idle poll costs nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import httpcore2
import trio

from edged.errors import HashError, MissingError, TransportError, WireError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.feed.patch import decode_patch, is_patch
from edged.http.urls import is_public, sound_url
from edged.sync.subscription import OriginAccess
from edged.sync.transports.answers import (
    AT_ONCE_S,
    DOCUMENT_S,
    REFUSED,
    STALL_S,
    ReceivedBody,
    blob_seconds,
    content_range_start,
    etag_of,
    expect,
    header,
    poll_number,
)
from edged.sync.transports.network import CONNECT_S, Network, transport_faults
from edged.sync.transports.tls import client_context, proxy_of
from edged.sync.transports.transport import HeadReply, Traffic
from edged.units import span_text
from edged.version import VERSION

GRACE_S = 10.0  # to let go of a connection
REDIRECTS = 3
KEEP_ALIVE_S = 50.0  # an idle connection is not used again after so long: something on the way may have forgotten it
KEEP_PARTIAL_BYTES = 64 << 10  # what of a broken transfer is worth asking for the rest by Range
POLL = "poll="  # begins what names a head by the number of the answer that brought it
PATCHED = "0"  # before that number: what differs from that head is enough
USER_AGENT = b"edged"  # some firewalls refuse requests without one
BROKEN = (httpcore2.RemoteProtocolError, httpcore2.ReadError, httpcore2.WriteError)

Headers = list[tuple[bytes, bytes]]


def is_poll(name: str | None) -> bool:
    """Whether a head's name is no entity tag."""
    return name is not None and name.startswith(POLL)


class Partial(NamedTuple):
    """The beginning of a blob whose transfer broke."""

    sha256: bytes
    data: bytearray


class HttpTransport:
    """base: the feed's URL; access: how this origin is spoken to; network: for tests.

    Raises TransportError for a URL that cannot be used, ConfigError for certificates that cannot.
    """

    def __init__(
        self, base: str, traffic: Traffic, access: OriginAccess | None = None, network: Network | None = None
    ) -> None:
        access = access or OriginAccess()
        try:
            self.base = sound_url(base).rstrip("/")
        except ValueError as fault:
            raise TransportError(f"origin {base}: {fault}; expected https://host[:port]/path") from fault
        self.scheme, self.host = urlsplit(self.base).scheme, urlsplit(self.base).netloc
        self.headers: Headers = [(name.encode(), value.encode()) for name, value in access.headers]
        self.network = network or Network(traffic)
        self.proxy = proxy_of(access.proxy, self.base)
        self.pool = httpcore2.AsyncConnectionPool(
            ssl_context=client_context(access) if self.scheme == "https" else None,
            proxy=self.proxy,
            max_connections=2,
            max_keepalive_connections=1,
            keepalive_expiry=KEEP_ALIVE_S,
            network_backend=self.network,
        )
        self.partial: Partial | None = None
        self.held = ""  # what to say of the replica in each poll
        self.poll: str | None = None  # what the next held poll names: the number of the newest answer to one …
        self.mark: str | None = None  # … and the head that it stands for, as its taker names it …
        self.shown: bytes | None = None  # … and its bytes

    @property
    def name(self) -> str:
        return self.base

    async def head(self, after: int | None, wait_s: int, etag: str | None) -> HeadReply | None:
        if not wait_s or after is None:
            return await self.head_once(f"{self.base}/head", 0, etag)
        if etag != self.mark:  # the head of the newest answer was refused, and it may be another feed's
            self.poll, self.mark, self.shown = etag if is_poll(etag) else None, etag, None
        began, first, url = trio.current_time(), self.poll is None, f"{self.base}/head?after={after}&wait={wait_s}"
        reply = await self.head_once(url + ("" if first else f"&{self.number}"), wait_s, etag)
        if reply is None and first and self.poll is not None and trio.current_time() - began < AT_ONCE_S:
            # A cache on the way had the answer to a poll gone by; what is numbered it cannot have.
            return await self.head_once(f"{url}&{self.number}", wait_s, etag)
        return reply

    @property
    def number(self) -> str | None:
        """What the next poll names."""
        return self.poll if self.poll is None or self.shown is None else self.poll.replace(POLL, POLL + PATCHED, 1)

    async def head_once(self, url: str, hold_s: int, etag: str | None) -> HeadReply | None:
        data = await self.receive_head(url, hold_s, etag)
        if data is not None and self.shown is not None and is_patch(data):
            try:
                data = decode_patch(self.shown, data)
            except WireError:  # of another origin under the same name: what its numbers mean is not what ours do
                self.poll = self.mark = self.shown = None
                data = await self.receive_head(f"{self.base}/head", 0, None)
        if data is None:
            return None
        self.shown = data if self.poll is not None and len(data) <= limits.PATCHED_BYTES else None
        return HeadReply(data, self.mark)

    async def receive_head(self, url: str, hold_s: int, etag: str | None) -> bytes | None:
        """What comes of one request, in whatever form; None: nothing newer."""
        held = bool(hold_s)
        agent = f"edged/{VERSION} ({self.held})".encode() if self.held else USER_AGENT
        # A poll's number says what is held; every byte here is paid for with each edit, by each device.
        tag = None if is_poll(etag) or (held and self.poll is not None) else etag
        conditions = [(b"User-Agent", agent), *([(b"If-None-Match", tag.encode())] if tag else [])]
        unchanged = (204,) * held + (304,) * (held or bool(tag))  # to what was not asked for, they are a fault
        async with self.get(url, conditions, hold_s + DOCUMENT_S, hold_s) as (response, pace):
            number = poll_number(response)
            poll = None if number is None else f"{POLL}{number}"
            if response.status in unchanged:
                self.poll = poll or self.poll
                return None
            expect(response, f"GET {url}", 200)
            body = ReceivedBody(response, bytearray(), limits.HEAD_BYTES, f"GET {url}")
            data = await body.whole(self.network, pace, min(pace.deadline, trio.current_time() + DOCUMENT_S))
            self.poll, self.mark = poll, etag_of(response) or poll
            return data

    async def trust(self, number: int) -> bytes | None:
        url = f"{self.base}/trust/{number}"
        async with self.get(url, [], DOCUMENT_S) as (response, pace):
            if response.status in REFUSED:
                return None
            expect(response, f"GET {url}", 200)
            body = ReceivedBody(response, bytearray(), limits.TRUST_BYTES, f"GET {url}")
            return await body.whole(self.network, pace, pace.deadline)

    async def blob(self, ref: BlobRef, what: str) -> bytes:
        partial, self.partial = self.partial, None
        begun = partial.data if partial is not None and partial.sha256 == ref.sha256 else bytearray()
        url = f"{self.base}/blobs/{ref.name}"
        body = ReceivedBody(httpcore2.Response(200), begun, ref.size, f"fetch {what}: GET {url}")
        try:
            await self.receive_blob(body, url)
        except TransportError:
            if KEEP_PARTIAL_BYTES <= len(body.data) < ref.size:
                self.partial = Partial(ref.sha256, body.data)
            raise
        if len(body.data) != ref.size:
            raise HashError(f"{body.where}: expected {ref.size} bytes, got {len(body.data)}")
        return bytes(body.data)

    async def receive_blob(self, body: ReceivedBody, url: str) -> None:
        """The blob, or what is missing of it, into `body`. Raises HashError for more than its size."""
        begun = len(body.data)
        range_wanted = [(b"Range", b"bytes=%d-" % begun)] if begun else []
        seconds = blob_seconds(body.most - begun)
        async with self.get(url, range_wanted, 2 * CONNECT_S + STALL_S + seconds) as (response, pace):
            if response.status in REFUSED:
                raise MissingError(f"{body.where}: status {response.status}; it has been removed or never came")
            expect(response, body.where, *((206, 200) if begun else (200,)))
            if response.status == 200:
                body.data.clear()
            elif content_range_start(response) != begun or header(response, b"content-encoding"):
                body.data.clear()
                raise TransportError(f"{body.where}: answered with another range than asked for")
            body.response = response
            coded = header(response, b"content-encoding") is not None
            try:
                fits = await body.receive(self.network, pace, trio.current_time() + seconds)
            except TransportError:
                if coded:  # the rest of what was compressed on the way cannot be asked for
                    body.data.clear()
                raise
            if not fits:
                body.data.clear()
                raise HashError(f"{body.where}: more than its {body.most} bytes came")

    async def post(self, path: str, body: bytes) -> int:
        """Send a few bytes to a path below the base; the status, of a redirect too. Raises TransportError."""
        url = f"{self.base}/{path}"
        own = [(b"Host", self.host.encode()), (b"User-Agent", USER_AGENT), (b"Content-Length", b"%d" % len(body))]
        request = httpcore2.Request(
            "POST",
            url,
            headers=[*own, (b"Content-Type", b"application/octet-stream"), *self.headers],
            content=body,
            extensions={"timeout": {"connect": CONNECT_S, "write": STALL_S, "read": STALL_S, "pool": GRACE_S}},
        )
        with trio.move_on_after(DOCUMENT_S), transport_faults(f"POST {url}"):
            self.network.expect_head()
            response = await self.pool.handle_async_request(request)
            await response.aclose()
            if response.status >= 500 or response.status == 429:
                raise TransportError(f"POST {url}: status {response.status}")
            return response.status
        raise TransportError(f"POST {url}: no answer within {span_text(DOCUMENT_S)}")

    async def aclose(self) -> None:
        await self.pool.aclose()

    # ---- one request

    @asynccontextmanager
    async def get(
        self, url: str, headers: Headers, seconds: float, hold_s: float = 0.0
    ) -> AsyncIterator[tuple[httpcore2.Response, trio.CancelScope]]:
        """The answer to a GET, redirects followed, and the scope whose deadline bounds it.

        seconds: for all of it; hold_s: of these the origin may be silent so long before it answers. Raises
        TransportError for every fault of the network, of TLS, of HTTP and of URLs, also from within the block.
        """
        with trio.CancelScope(deadline=trio.current_time() + seconds) as pace:
            response = await self.send(url, headers, hold_s)
            try:
                yield response, pace
            finally:
                await self.let_go(response, url)
        if pace.cancelled_caught:
            raise TransportError(
                f"GET {url}: too slow: not all of it within {span_text(seconds)}, or nothing for {span_text(STALL_S)}"
            )

    async def let_go(self, response: httpcore2.Response, url: str) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE_S), transport_faults(f"GET {url}"):
            await response.aclose()

    async def send(self, url: str, headers: Headers, hold_s: float) -> httpcore2.Response:
        target = url
        for _ in range(REDIRECTS + 1):
            with transport_faults(f"GET {target}"):
                response = await self.send_once(target, headers, hold_s)
            if response.status not in (301, 302, 303, 307, 308):
                return response
            await self.let_go(response, target)
            target = self.redirected(target, header(response, b"location"))
        raise TransportError(f"GET {url}: more than {REDIRECTS} redirects")

    def redirected(self, url: str, location: str | None) -> str:
        """Where an answer to `url` leads. Raises TransportError for where no origin may lead a device."""
        if not location:
            raise TransportError(f"GET {url}: redirected without saying where (no Location)")
        with transport_faults(f"GET {url}: redirected to {location!r:.200}"):
            joined = urljoin(url, location)
            if urlsplit(joined).scheme != self.scheme:
                raise TransportError(
                    f"GET {url}: redirected to {joined:.200}, another scheme; configure that as origin, unless it is "
                    "the login page of this network"
                )
            target = sound_url(joined, query=True)
        host = urlsplit(target).hostname or ""
        if self.network.peer_is_public and not self.proxy and urlsplit(target).netloc != self.host:
            self.network.public_only = True
        if is_public(urlsplit(self.base).hostname or "") and not is_public(host):
            raise TransportError(
                f"GET {url}: redirected to {host}, an address of this device or its own network; name it in the "
                "configuration if it is meant"
            )
        return target

    async def send_once(self, url: str, headers: Headers, hold_s: float) -> httpcore2.Response:
        place = urlsplit(url).netloc
        ours = [(b"Host", place.encode())]
        if not hold_s:  # whoever holds polls compresses nothing, and gzip would be undone
            ours.append((b"Accept-Encoding", b"identity"))
        if not any(name == b"User-Agent" for name, _ in headers):
            ours.append((b"User-Agent", USER_AGENT))
        request = httpcore2.Request(
            "GET",
            url,
            # What lets us in is for this origin, not for whom it sends us to.
            headers=[*ours, *headers, *(self.headers if place == self.host else [])],
            extensions={"timeout": {"connect": CONNECT_S, "write": STALL_S, "read": hold_s + STALL_S, "pool": GRACE_S}},
        )
        began = trio.current_time()
        self.network.expect_head()
        try:
            return await self.pool.handle_async_request(request)
        except BROKEN:
            # The peer closed an idle connection just as it was used again: once more on a new one.
            if trio.current_time() - began > 1.0:
                raise
        self.network.expect_head()
        return await self.pool.handle_async_request(request)
