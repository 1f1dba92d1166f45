"""Answers that are too large to be made whole: in pieces, as their reader takes them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import NamedTuple, Protocol

from edged.errors import DamageError
from edged.feed import zstd
from edged.http.application import ByTask, Client, InThread, Response
from edged.http.fields import Fields
from edged.http.validators import names_tag
from edged.serve.answers.negotiate import Format, choose_coding, refuses_identity
from edged.serve.answers.render import GZIP_LEVEL, PERSONS
from edged.serve.answers.respond import (
    PER_VERSION,
    Inquiry,
    Kept,
    Representation,
    contain,
    read_from,
    shared_fields,
    warnings,
)
from edged.threads import in_thread
from edged.version import VERSION

WHOLE_BYTES = 2 << 20  # of items; more are never held at once
PIECE_BYTES = 64 << 10
CODED_AT_ONCE = 16  # each takes some 600 kB; whoever comes then gets an answer without a coding
BODY = zstd.FrameForm(level=3, typical_bytes=2 * PIECE_BYTES)  # with a window of as many bytes
GZIP_WINDOW = 31  # zlib's largest, with gzip's head (without a time) and end


class Wrapping(NamedTuple):
    """What of a body is not its items."""

    before: bytes
    between: bytes
    after: bytes


@dataclass(frozen=True, slots=True)
class Listing:
    """A body of many items. wrap: what is around and between so many of them; items: gives them, anew at each call;
    sources: likewise what they are made of, one for each, or the items themselves; look: how they are made of it, the
    same only where items of the same sources are.
    """

    wrap: Callable[[int], Wrapping]
    items: Callable[[], Iterator[bytes]]
    sources: Callable[[], Iterator[bytes]]
    look: str = ""

    def whole(self, items: list[bytes]) -> bytes:
        """The body of these items."""
        wrapping = self.wrap(len(items))
        return wrapping.before + wrapping.between.join(items) + wrapping.after

    def pieces(self, count: int) -> Iterator[bytes]:
        """The same in pieces of some PIECE_BYTES, however large an item is. count: of the items."""
        wrapping = self.wrap(count)
        piece, between = bytearray(wrapping.before), b""
        for item in self.items():
            piece += between
            between = wrapping.between
            if len(piece) + len(item) > PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
            if len(item) <= PIECE_BYTES:
                piece += item
                continue
            for at in range(0, len(item), PIECE_BYTES):
                yield item[at : at + PIECE_BYTES]
        piece += wrapping.after
        yield bytes(piece)


class Encoder(Protocol):
    """A content coding in pieces."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Uncoded:
    """No coding."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def make_encoder(coding: str) -> Encoder:
    if coding == "zstd":
        return zstd.compressor(BODY).compressobj()
    if coding == "gzip":
        return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_WINDOW)
    return Uncoded()


def in_pieces(
    inquiry: Inquiry, listing: Listing, form: Format, *, links: tuple[bytes, ...] = (), kept: Kept = PER_VERSION
) -> InThread:
    """The answer to a request for what is over WHOLE_BYTES."""
    make = partial(respond_in_pieces, listing=listing, form=form, links=links, kept=kept)
    return InThread(partial(contain, inquiry, make), inquiry.service.slow)


def respond_in_pieces(
    inquiry: Inquiry, listing: Listing, form: Format, links: tuple[bytes, ...], kept: Kept
) -> Response | ByTask:
    """200 in the coding that the client likes, or 304. A dictionary would not pay here. Raises RequestError 406,
    DamageError.
    """
    service, request, view = inquiry.service, inquiry.request, inquiry.view
    assert view is not None
    coding = choose_coding(request.get(b"accept-encoding"))
    digest, count = digest_of(listing)
    own: Fields = (*kept.extra, *warnings(inquiry))
    if links:
        own = (*own, (b"Link", b", ".join(links)))
    large = LargeAnswer(inquiry, listing, count, digest, form, coding, own, kept)
    known = request.values.get(b"if-none-match")
    if known is not None and names_tag(known, large.tag()):
        cors = service.cors.fields(request)
        shared = shared_fields(Representation(None, coding, service.vary, cors, kept.cache), read_from(view))
        return Response(304, ((b"ETag", large.tag()), *own), b"", service.age_of(view), shared=shared)
    return ByTask(large.pour)


def digest_of(listing: Listing) -> tuple[bytes, int]:
    """What the body depends on, and how many items it has."""
    found, count = blake2b(f"{VERSION} {listing.look}".encode()), 0
    for source in listing.sources():
        found.update(b"%d:" % len(source))
        found.update(source)
        count += 1
    for part in listing.wrap(count):
        found.update(b"%d:" % len(part))
        found.update(part)
    return found.digest(), count


@dataclass(frozen=True, slots=True)
class LargeAnswer:
    """own: the fields of this answer, but for its entity tag."""

    inquiry: Inquiry
    listing: Listing
    count: int
    digest: bytes
    form: Format
    coding: str
    own: Fields
    kept: Kept

    def tag(self) -> bytes:
        """A strong entity tag."""
        person = PERSONS[self.form.name, self.coding]
        return b'"%b"' % blake2b(self.digest, digest_size=10, person=person).hexdigest().encode()

    async def pour(self, client: Client) -> None:
        """The head, and piece by piece what the client takes. Damage on the way ends it short: no byte of it is wrong,
        and the client knows that it is not whole.
        """
        service = self.inquiry.service
        if self.coding == "identity":
            await self.pour_as(client, Uncoded())
        elif service.coding >= CODED_AT_ONCE and not refuses_identity(self.inquiry.request.get(b"accept-encoding")):
            await replace(self, coding="identity").pour_as(client, Uncoded())
        else:
            service.coding += 1
            try:
                await self.pour_as(client, make_encoder(self.coding))
            finally:
                service.coding -= 1

    async def pour_as(self, client: Client, encoder: Encoder) -> None:
        inquiry, view = self.inquiry, self.inquiry.view
        assert view is not None
        service, cors = inquiry.service, inquiry.service.cors.fields(inquiry.request)
        shared = shared_fields(
            Representation(self.form, self.coding, service.vary, cors, self.kept.cache), read_from(view)
        )
        timed = service.age_of(view).fields(service.clock())
        await client.start(200, (*timed, *shared.fields, (b"ETag", self.tag()), *self.own))
        if inquiry.request.method == "HEAD":
            await client.end()
            return
        make = partial(next_piece, self.listing.pieces(self.count), encoder)
        try:
            while (data := await in_thread(make, limiter=service.slow)) is not None:
                if data:
                    await client.write(data)
        except DamageError as fault:
            service.damage.report(view.dataset, fault, view)
            return
        await client.end(encoder.flush())


def next_piece(pieces: Iterator[bytes], encoder: Encoder) -> bytes | None:
    """None at the end."""
    piece = next(pieces, None)
    return None if piece is None else encoder.compress(piece)


def first_items(listing: Listing) -> list[bytes] | None:
    """All items, None where they are over WHOLE_BYTES."""
    found, size = [], 0
    for item in listing.items():
        found.append(item)
        size += len(item)
        if size > WHOLE_BYTES:
            return None
    return found
