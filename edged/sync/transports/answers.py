"""What an origin's answer must be, and how its body is taken: bounded in bytes, pieces and time. Believes nothing."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import httpcore2
import trio

from edged.errors import MissingError, TransportError, WireError
from edged.http.fields import date_of
from edged.sync.transports.network import BODY_PIECE, Network, transport_faults
from edged.sync.transports.transport import BusyOriginError
from edged.units import span_text

AT_ONCE_S = 2.0  # who answers a held poll sooner has not held it
STALL_S = 30.0  # without a byte
DOCUMENT_S = 60.0  # for a head or a root of trust, from the request on (and a poll, from when it need not be held)
TRICKLE_RATE = 200  # bytes a second, once STALL_S are over: slower, and another origin is tried at once
LEAST_RATES = 500, 4000  # bytes a second over a whole blob: for a small one, and for those that would take long at that
BLOB_S = 600.0  # a blob is asked for at a rate that would bring it within so long, between those two
RETRY_AFTER_CAP_S = 3600.0
ETAG_CHARACTERS, POLL_DIGITS = 200, 18
CHUNK_PIECE = 4 << 10  # read at once of a body in chunks: each may hold a thousand of them
PIECES, BYTES_A_PIECE = 4000, 64  # a body in more pieces than the first has to bring so many bytes a piece
REFUSED = (404, 410, 403)  # object stores that hide what they hold answer 403 for what is not there


def blob_seconds(size: int) -> float:
    """How long a blob of `size` bytes may take in all; a slower origin is left for another."""
    slow, fast = LEAST_RATES
    return STALL_S + size / min(max(size / BLOB_S, slow), fast)


def header(response: httpcore2.Response, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), None)


def etag_of(response: httpcore2.Response) -> str | None:
    etag = header(response, b"etag")
    return etag if etag and len(etag) <= ETAG_CHARACTERS and etag.isascii() and etag.isprintable() else None


def poll_number(response: httpcore2.Response) -> str | None:
    """Edged-Poll: what the next held poll names, so that no cache answers it from a poll gone by."""
    number = header(response, b"edged-poll") or ""
    return number if number.isascii() and number.isdigit() and len(number) <= POLL_DIGITS else None


def content_range_start(response: httpcore2.Response) -> int | None:
    """Of `Content-Range: bytes 100-199/200` (RFC 9110 section 14.4) the 100."""
    unit, _, rest = (header(response, b"content-range") or "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isascii() and start.isdigit() and len(start) < 19 else None


def retry_after_s(response: httpcore2.Response) -> float | None:
    """Retry-After in seconds, at most RETRY_AFTER_CAP_S (RFC 9110 section 10.2.3).

    As a date it is measured from the answer's own Date: the clock here may be wrong.
    """
    fields = [(name.lower(), value) for name, value in response.headers]
    text = (header(response, b"retry-after") or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), RETRY_AFTER_CAP_S)
    until, now = date_of(fields, b"retry-after"), date_of(fields, b"date")
    return None if until is None or now is None else min(max(float(until - now), 0.0), RETRY_AFTER_CAP_S)


def expect(response: httpcore2.Response, where: str, *statuses: int) -> None:
    """Raises TransportError with what is the matter unless the answer has one of `statuses`, and is a feed's file."""
    status = response.status
    if status in statuses:
        refuse_pages(response, where)
        return
    if status in REFUSED:
        raise MissingError(f"{where}: status {status}; is this the feed's base URL?")
    if status == 511:
        raise TransportError(f"{where}: status 511: this network asks for a login first (a captive portal)")
    if status in (429, 503) and (seconds := retry_after_s(response)) is not None:
        raise BusyOriginError(f"{where}: status {status}, asks to wait {span_text(seconds)}", seconds)
    if status == 407:
        raise TransportError(f"{where}: status 407: the HTTP proxy on the way asks for a login")
    raise TransportError(f"{where}: status {status}, expected {statuses[0]}")


def refuse_pages(response: httpcore2.Response, where: str) -> None:
    """A web page where a feed's file was asked for: most often the login page of a network."""
    kind = (header(response, b"content-type") or "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise TransportError(
            f"{where}: answered with a web page where a feed's file was asked for: the login page of this network "
            "(a captive portal), or a URL that is not the feed's base"
        )


def decoder_of(response: httpcore2.Response, where: str) -> zlib._Decompress | None:
    """What undoes the answer's content coding, None if there is none.

    Some object stores and CDNs compress whatever is asked for. Raises TransportError for a coding that is not undone.
    """
    codings = [word.strip().lower() for word in (header(response, b"content-encoding") or "").split(",")]
    codings = [word for word in codings if word not in ("", "identity")]
    if not codings:
        return None
    if codings not in (["gzip"], ["x-gzip"]):
        raise TransportError(f"{where}: answered in coding {', '.join(codings):.40}, which was not asked for")
    return zlib.decompressobj(31)


@dataclass(slots=True)
class ReceivedBody:
    """A body on its way. data: what has come of it, decoded; most: how long it may become; where: for messages."""

    response: httpcore2.Response
    data: bytearray
    most: int
    where: str

    async def receive(self, network: Network, pace: trio.CancelScope, ends: float) -> bool:
        """Append the body to `data`. False as soon as it would grow over `most`, before it does.

        pace: the request's scope; its deadline is `ends`, or sooner: STALL_S from the last byte on, and when it has
        become a trickle.
        """
        decoder = decoder_of(self.response, self.where)
        declared = header(self.response, b"content-length")  # h11 has checked its form
        if declared is not None and decoder is None and int(declared) > self.most - len(self.data):
            return False
        network.expect_body(BODY_PIECE if declared is not None else CHUNK_PIECE)
        received, pieces, began = 0, 0, trio.current_time()
        pace.deadline = min(ends, began + STALL_S)
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                received, pieces = received + len(chunk), pieces + 1
                if pieces > PIECES and received < pieces * BYTES_A_PIECE:
                    raise TransportError(f"{self.where}: comes in tiny pieces: {received} bytes in {pieces} of them")
                if not self.add(chunk, decoder):
                    return False
                earned = began + STALL_S + received / TRICKLE_RATE
                pace.deadline = min(ends, earned, trio.current_time() + STALL_S)
                await trio.lowlevel.checkpoint()  # many pieces may have come at once
        if decoder is not None and (not decoder.eof or decoder.unused_data):
            raise TransportError(f"{self.where}: its gzip coding is cut off, or something follows it")
        return True

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The pieces as they come. Raises TransportError."""
        with transport_faults(self.where):
            async with aclosing(self.response.aiter_stream()) as stream:
                async for chunk in stream:
                    yield chunk

    def add(self, chunk: bytes, decoder: zlib._Decompress | None) -> bool:
        if decoder is not None:
            with transport_faults(self.where):
                chunk = decoder.decompress(chunk, self.most - len(self.data) + 1)
        if len(self.data) + len(chunk) > self.most:
            return False
        self.data += chunk
        return True

    async def whole(self, network: Network, pace: trio.CancelScope, ends: float) -> bytes:
        """The body of a head or a root of trust. Raises WireError over `most` bytes."""
        if not await self.receive(network, pace, ends):
            raise WireError(
                f"{self.where}: answer over {self.most} bytes where a head or a root of trust was expected; not a "
                "feed's file"
            )
        if self.data.lstrip()[:1] == b"<":
            raise TransportError(
                f"{self.where}: answered with a web page: the login page of this network (a captive portal), or a URL "
                "that is not the feed's base"
            )
        return bytes(self.data)
