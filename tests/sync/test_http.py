"""The HTTP transport against peers that stall, trickle, lie, cut and redirect."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
import trio
import trio.lowlevel

from edged.errors import HashError, MissingError, TransportError, WireError
from edged.feed import limits
from edged.feed.blob import BlobRef
from edged.feed.patch import encode_patch
from edged.sync.subscription import OriginAccess
from edged.sync.transports import answers, network
from edged.sync.transports.origins import Origins
from edged.sync.transports.transport import BusyOriginError
from edged.version import VERSION
from tests.sync.wire import Peer, Script, transport_to

DATA = bytes(range(256)) * 2000
REF = BlobRef.of(DATA)


async def fetch(script: Script) -> tuple[bytes, Peer]:
    """A blob by way of a peer with this script."""
    async with trio.open_nursery() as nursery:
        transport, peer, _ = transport_to(script, nursery)
        try:
            data = await transport.blob(REF, "test")
        finally:
            await transport.aclose()
            nursery.cancel_scope.cancel()
    return data, peer


async def refused(script: Script, kind: type[Exception], words: str) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(kind, match=words)):
        await fetch(script)


def request_range(head: bytes) -> int:
    return int(head.partition(b"Range: bytes=")[2].partition(b"-")[0] or b"0")


async def test_a_blob() -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(DATA)

    data, peer = await fetch(script)
    assert data == DATA
    assert peer.requests[0].splitlines() == [
        b"GET /catalog/blobs/" + REF.name.encode() + b" HTTP/1.1",
        b"Host: origin.test",
        b"Accept-Encoding: identity",
        b"User-Agent: edged",
    ]


@pytest.mark.parametrize("size", [1, 7, 1000, 65_536])
async def test_any_chunking_gives_the_same(size: int) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, 3000, size) if size < 1000 else range(0, len(DATA), size):
            piece = DATA[at : at + size] if size >= 1000 else DATA[at : min(at + size, 3000)]
            await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        rest = b"" if size >= 1000 else DATA[3000:]
        if rest:
            await peer.send(b"%x\r\n%b\r\n" % (len(rest), rest))
        await peer.send(b"0\r\n\r\n")

    assert (await fetch(script))[0] == DATA


async def test_endless_blob_is_cut_off_at_its_size() -> None:
    sent = 0

    async def script(peer: Peer, head: bytes) -> None:
        nonlocal sent
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"10000\r\n" + bytes(65_536) + b"\r\n")
            sent += 65_536
            await trio.sleep(0.01)

    await refused(script, HashError, "more than its 512000 bytes came")
    assert sent < 4 * len(DATA)


async def test_blob_that_declares_too_much_is_refused_before_a_byte_of_it() -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(b"", length=1 << 40)
        await trio.sleep_forever()

    await refused(script, HashError, "more than its 512000 bytes")


async def test_blob_that_is_too_short() -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(DATA[:-1])

    await refused(script, HashError, "expected 512000 bytes, got 511999")


async def test_silence(autojump_clock: Any) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await trio.sleep_forever()

    began = trio.current_time()
    await refused(script, TransportError, "nothing came for 30 s")
    assert trio.current_time() - began <= answers.STALL_S + 1


async def test_stall_in_the_middle(autojump_clock: Any) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(DATA[:1000], length=len(DATA))
        await trio.sleep_forever()

    began = trio.current_time()
    await refused(script, TransportError, "nothing came for 30 s|too slow")
    assert trio.current_time() - began <= answers.STALL_S + 1


async def test_slow_retrieval_by_a_trickle(autojump_clock: Any) -> None:
    """A byte now and then is never silent, and would keep a device for weeks."""

    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(b"", length=len(DATA))
        for at in range(len(DATA)):
            await trio.sleep(1)
            await peer.send(DATA[at : at + 1])

    began = trio.current_time()
    await refused(script, TransportError, "too slow")
    assert trio.current_time() - began < 2 * answers.STALL_S


async def test_slow_but_steady_link_is_given_its_time(autojump_clock: Any) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(b"", length=len(DATA))
        for at in range(0, len(DATA), 10_000):
            await trio.sleep(10)
            await peer.send(DATA[at : at + 10_000])

    began = trio.current_time()
    assert (await fetch(script))[0] == DATA
    assert trio.current_time() - began > 500


async def test_broken_transfer_goes_on_where_it_broke() -> None:
    async def script(peer: Peer, head: bytes) -> None:
        start = request_range(head)
        if start == 0:
            await peer.answer(DATA[:300_000], length=len(DATA))
            await peer.hang_up()
        rest = DATA[start:]
        where = f"Content-Range: bytes {start}-{len(DATA) - 1}/{len(DATA)}"
        await peer.answer(rest, where, status="206 Partial Content")

    async with trio.open_nursery() as nursery:
        transport, peer, traffic = transport_to(script, nursery)
        with pytest.raises(TransportError):
            await transport.blob(REF, "test")
        assert await transport.blob(REF, "test") == DATA
        assert request_range(peer.requests[-1]) == 300_000
        assert traffic.received < len(DATA) + 1000
        await transport.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("where", ["bytes 5-9/10", "bytes x", "lines 300000-1/2", ""])
async def test_another_range_than_asked_for(where: str) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        if not request_range(head):
            await peer.answer(DATA[:300_000], length=len(DATA))
            await peer.hang_up()
        await peer.answer(bytes(len(DATA) - 300_000), f"Content-Range: {where}", status="206 Partial Content")

    async with trio.open_nursery() as nursery:
        transport, _, _ = transport_to(script, nursery)
        with pytest.raises(TransportError):
            await transport.blob(REF, "test")
        with pytest.raises(TransportError, match="another range"):
            await transport.blob(REF, "test")
        assert transport.partial is None  # the next attempt begins at the beginning
        await transport.aclose()
        nursery.cancel_scope.cancel()


async def test_origin_that_ignores_ranges() -> None:
    async def script(peer: Peer, head: bytes) -> None:
        if len(peer.requests) == 1:
            await peer.answer(DATA[:300_000], length=len(DATA))
            await peer.hang_up()
        await peer.answer(DATA)

    async with trio.open_nursery() as nursery:
        transport, _, _ = transport_to(script, nursery)
        with pytest.raises(TransportError):
            await transport.blob(REF, "test")
        assert await transport.blob(REF, "test") == DATA
        await transport.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("status", "headers", "kind", "words"),
    [
        ("404 Not Found", [], MissingError, "status 404"),
        ("410 Gone", [], MissingError, "status 410"),
        ("403 Forbidden", [], MissingError, "status 403"),
        ("500 Oops", [], TransportError, "status 500, expected 200"),
        ("503 Busy", ["Retry-After: 120"], BusyOriginError, "asks to wait 2 minutes"),
        ("429 Slow Down", ["Retry-After: 999999999"], BusyOriginError, "asks to wait 1 hour"),
        ("503 Busy", ["Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"], TransportError, "status 503"),
        (
            "503 Busy",
            ["Date: Fri, 31 Dec 1999 23:58:59 GMT", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"],
            BusyOriginError,
            "asks to wait 1 minute",
        ),
        (
            "429 Slow Down",
            ["Date: Sat, 01 Jan 2000 00:00:00 GMT", "Retry-After: Friday, 31-Dec-99 23:59:59 GMT"],
            BusyOriginError,
            "asks to wait 0 seconds",
        ),
        ("200 OK", ["Content-Encoding: br"], TransportError, "which was not asked for"),
        ("200 OK", ["Content-Encoding: gzip, gzip"], TransportError, "which was not asked for"),
        ("200 OK", ["Content-Encoding: gzip"], TransportError, "cut off"),
        ("200 OK", ["Content-Type: text/html; charset=utf-8"], TransportError, "login page"),
        ("511 Network Authentication Required", [], TransportError, "captive portal"),
        ("407 Proxy Authentication Required", [], TransportError, "proxy on the way asks for a login"),
        ("204 No Content", [], TransportError, "status 204, expected 200"),
        ("304 Not Modified", [], TransportError, "status 304, expected 200"),
        ("206 Partial Content", ["Content-Range: bytes 0-1/2"], TransportError, "status 206, expected 200"),
        ("302 Found", ["Location: https://origin.test/catalog/x"], TransportError, "another scheme"),
        ("302 Found", ["Location: file:///etc/passwd"], TransportError, "another scheme"),
        ("302 Found", ["Location: /catalog/again"], TransportError, "more than 3 redirects"),
        ("302 Found", ["Location: #again"], TransportError, "more than 3 redirects"),
        ("302 Found", [], TransportError, "without saying where"),
        ("302 Found", ["Location: http://[bad/"], TransportError, "redirected to"),
        ("302 Found", ["Location: http://h:99999/"], TransportError, "port is not a number up to 65535"),
        ("302 Found", ["Location: http://h:x/"], TransportError, "port is not a number"),
        ("302 Found", ["Location: http://a..b/"], TransportError, "no part of a host name"),
        ("302 Found", [f"Location: http://{'a' * 64}.test/"], TransportError, "no part of a host name"),
        ("302 Found", ["Location: http://user:secret@h/"], TransportError, "user name or a password"),
        ("302 Found", ["Location: http://h/\x80 b"], TransportError, "blank or a control"),
        ("302 Found", ["Location: http://127.0.0.1/"], TransportError, "address of this device or its own network"),
        ("302 Found", ["Location: http://[::1]/"], TransportError, "address of this device or its own network"),
        ("302 Found", ["Location: http://[::ffff:10.0.0.1]/"], TransportError, "or its own network"),
        ("302 Found", ["Location: http://169.254.169.254/"], TransportError, "or its own network"),
        ("302 Found", ["Location: http://localhost/"], TransportError, "or its own network"),
        ("302 Found", ["Location: http://127.1/"], TransportError, "is no address"),
    ],
)
async def test_answers_that_are_no_blob(status: str, headers: list[str], kind: type[Exception], words: str) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(b"", *headers, status=status)

    await refused(script, kind, words)


async def test_redirect_within_the_scheme() -> None:
    async def script(peer: Peer, head: bytes) -> None:
        if b"mirror.test" in head:
            await peer.answer(DATA)
        else:
            await peer.answer(b"", "Location: http://mirror.test/b?token=a", status="307 Temporary Redirect")

    data, peer = await fetch(script)
    assert data == DATA
    assert peer.requests[1].splitlines()[:2] == [b"GET /b?token=a HTTP/1.1", b"Host: mirror.test"]


@pytest.mark.parametrize(
    "answer",
    [
        b"\0" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000,
        b"\n",
    ],
)
async def test_what_is_no_http(answer: bytes, autojump_clock: Any) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.send(answer)
        await peer.hang_up()

    await refused(script, TransportError, "not HTTP as it should be|was cut")


async def test_idle_connection_that_the_peer_closed_meanwhile() -> None:
    """As by a keep-alive timeout at the origin: the request is sent again, once, and nobody notices."""

    async def script(peer: Peer, head: bytes) -> None:
        if len(peer.requests) == 2:
            await peer.hang_up()
        await peer.answer(DATA)

    async with trio.open_nursery() as nursery:
        transport, peer, _ = transport_to(script, nursery)
        assert await transport.blob(REF, "test") == DATA
        assert await transport.blob(REF, "test") == DATA
        assert (peer.connections, len(peer.requests)) == (2, 3)
        await transport.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("coding", ["identity", "Identity", "", "gzip", "GZIP", "x-gzip", "identity, gzip"])
async def test_codings_that_hosts_apply_unasked(coding: str) -> None:
    body = gzip.compress(DATA) if "zip" in coding.lower() else DATA

    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(body, f"Content-Encoding: {coding}")

    assert (await fetch(script))[0] == DATA


async def test_gzip_is_undone_within_the_size_of_the_blob() -> None:
    bomb = gzip.compress(bytes(1 << 26))

    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(bomb, "Content-Encoding: gzip")

    await refused(script, HashError, "more than its 512000 bytes came")


@pytest.mark.parametrize("body", [gzip.compress(DATA)[:-1], gzip.compress(DATA) + b"x", b"no gzip at all", b""])
async def test_gzip_that_is_none(body: bytes) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(body, "Content-Encoding: gzip")

    await refused(script, TransportError, "GET http://origin.test/catalog/blobs")


async def test_a_compressed_transfer_that_breaks_begins_anew() -> None:
    packed = gzip.compress(DATA, 0)

    async def script(peer: Peer, head: bytes) -> None:
        if len(peer.requests) == 1:
            await peer.answer(packed[:300_000], "Content-Encoding: gzip", length=len(packed))
            await peer.hang_up()
        await peer.answer(packed, "Content-Encoding: gzip")

    async with trio.open_nursery() as nursery:
        transport, peer, _ = transport_to(script, nursery)
        with pytest.raises(TransportError):
            await transport.blob(REF, "test")
        assert await transport.blob(REF, "test") == DATA
        assert b"Range" not in peer.requests[1]
        await transport.aclose()
        nursery.cancel_scope.cancel()


async def test_body_in_pieces_of_a_byte_is_bounded() -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000)
        await trio.sleep_forever()

    await refused(script, TransportError, "tiny pieces")


async def test_endless_100_continue_is_bounded() -> None:
    sent = 0

    async def script(peer: Peer, head: bytes) -> None:
        nonlocal sent
        while True:
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            sent += 1
            await trio.lowlevel.checkpoint()

    await refused(script, TransportError, "the head of the answer has more than")
    assert sent < network.HEAD_BYTES


async def test_a_head_that_trickles_is_given_up_after_a_minute(autojump_clock: Any) -> None:
    """Above any rate that is a trickle, and yet an hour beside a good second origin."""

    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(b"", length=900_000)
        while True:
            await trio.sleep(1)
            await peer.send(bytes(250))

    began = trio.current_time()
    with pytest.RaisesGroup(pytest.RaisesExc(TransportError, match="too slow")):
        await head_from(script, None, 0, None)
    assert trio.current_time() - began <= answers.DOCUMENT_S + 1


@pytest.mark.parametrize(
    ("size", "seconds"), [(0, 30), (5000, 40), (300_000, 630), (2_400_000, 630), (8_000_000, 2030)]
)
def test_how_long_a_blob_may_take(size: int, seconds: float) -> None:
    assert answers.blob_seconds(size) == pytest.approx(seconds)


async def test_a_poll_that_a_cache_answers_is_made_again_with_its_number() -> None:
    """Once: a host that numbers its answers and holds nothing is not asked in a circle."""

    async def script(peer: Peer, head: bytes) -> None:
        await peer.send(b"HTTP/1.1 204 No Content\r\nEdged-Poll: 5\r\n\r\n")

    async with trio.open_nursery() as nursery:
        transport, peer, _ = transport_to(script, nursery)
        assert await transport.head(7, 240, None) is None
        assert [b"poll=5" in head for head in peer.requests] == [False, True]
        assert await transport.head(7, 240, None) is None
        assert len(peer.requests) == 3
        await transport.aclose()
        nursery.cancel_scope.cancel()


async def test_every_held_poll_names_the_number_of_the_answer_before(autojump_clock: Any) -> None:
    numbers = iter(["5", "17", "x", "18446744073709551616", "-1"])

    async def script(peer: Peer, head: bytes) -> None:
        await trio.sleep(3)
        await peer.send(f"HTTP/1.1 204 No Content\r\nEdged-Poll: {next(numbers)}\r\n\r\n".encode())

    async with trio.open_nursery() as nursery:
        transport, peer, _ = transport_to(script, nursery)
        for _ in range(5):
            assert await transport.head(7, 240, None) is None
        asked = [head.partition(b"wait=240")[2].partition(b" ")[0] for head in peer.requests]
        assert asked == [b"", b"&poll=5", b"&poll=17", b"&poll=17", b"&poll=17"]
        await transport.aclose()
        nursery.cancel_scope.cancel()


async def test_a_web_page_is_no_head_whatever_it_calls_itself() -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(b"\n <!DOCTYPE html><title>Welcome to our Wi-Fi</title>", "Content-Type: text/plain")

    with pytest.RaisesGroup(pytest.RaisesExc(TransportError, match="login page of this network")):
        await head_from(script, None, 0, None)


async def test_headers_of_an_origin_are_shown_to_nobody_else() -> None:
    async def script(peer: Peer, head: bytes) -> None:
        if b"mirror.test" in head:
            await peer.answer(DATA)
        else:
            await peer.answer(b"", "Location: http://mirror.test/b", status="307 Temporary Redirect")

    access = OriginAccess(headers=(("Authorization", "Bearer secret"),))
    async with trio.open_nursery() as nursery:
        transport, peer, _ = transport_to(script, nursery, access)
        assert await transport.blob(REF, "test") == DATA
        assert [b"Authorization: Bearer secret" in head for head in peer.requests] == [True, False]
        await transport.aclose()
        nursery.cancel_scope.cancel()


async def test_redirect_from_the_network_at_large_to_a_name_of_this_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that looks harmless: what it leads to is looked at before anything is sent there."""

    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(b"", "Location: http://innocent.test:1/b", status="302 Found")

    async def resolved(host: str, port: int, **_: object) -> list[Any]:
        assert host == "innocent.test"
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", resolved)
    async with trio.open_nursery() as nursery:
        transport, _, _ = transport_to(script, nursery)
        transport.network.peer_is_public = True
        with pytest.raises(TransportError, match="is an address of this device or its own network"):
            await transport.blob(REF, "test")
        await transport.aclose()
        nursery.cancel_scope.cancel()


# ---- heads


async def head_from(script: Script, after: int | None, wait_s: int, etag: str | None) -> tuple[Any, Peer]:
    async with trio.open_nursery() as nursery:
        transport, peer, _ = transport_to(script, nursery)
        try:
            reply = await transport.head(after, wait_s, etag)
        finally:
            await transport.aclose()
            nursery.cancel_scope.cancel()
    return reply, peer


async def test_a_poll_is_held_longer_than_any_other_deadline(autojump_clock: Any) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await trio.sleep(238)
        await peer.answer(b"a head", 'ETag: "abc"')

    reply, peer = await head_from(script, 7, 240, '"old"')
    assert (reply.data, reply.etag) == (b"a head", '"abc"')
    assert peer.requests[0].splitlines() == [
        b"GET /catalog/head?after=7&wait=240 HTTP/1.1",
        b"Host: origin.test",
        b"User-Agent: edged",
        b'If-None-Match: "old"',
    ]


async def test_a_poll_with_a_number_asks_in_few_bytes(autojump_clock: Any) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(b"a head", "Edged-Poll: 41", 'ETag: "abc-41"')

    async with trio.open_nursery() as nursery:
        transport, peer, _ = transport_to(script, nursery)
        assert await transport.head(7, 240, '"old"') is not None
        assert await transport.head(8, 240, '"abc-41"') is not None
        assert peer.requests[1].splitlines() == [
            b"GET /catalog/head?after=8&wait=240&poll=041 HTTP/1.1",
            b"Host: origin.test",
            b"User-Agent: edged",
        ]
        assert await transport.head(8, 0, '"abc-41"') is not None  # a plain one is of no number
        assert b'If-None-Match: "abc-41"' in peer.requests[2].splitlines()
        await transport.aclose()
        nursery.cancel_scope.cancel()


async def test_a_head_without_a_tag_is_named_by_its_number_until_another_is_taken(
    autojump_clock: Any,
) -> None:
    """The number of an answer that was refused, as of another feed at the same address, says nothing of us."""
    numbers = iter([41, 42, 77, 43, 44])

    async def script(peer: Peer, head: bytes) -> None:
        if b"after=" not in head:
            await peer.answer(b"a head", 'ETag: "abc"')
        elif (number := next(numbers)) == 42:
            await peer.send(b"HTTP/1.1 204 No Content\r\nEdged-Poll: 42\r\n\r\n")
        else:
            await peer.answer(b"a head", f"Edged-Poll: {number}")

    async with trio.open_nursery() as nursery:
        transport, peer, _ = transport_to(script, nursery)
        taken = await transport.head(7, 240, '"old"')
        assert taken is not None
        assert await transport.head(8, 240, taken.etag) is None
        assert await transport.head(8, 240, taken.etag) is not None  # and refused
        assert await transport.head(8, 240, taken.etag) is not None
        asked = [head.partition(b"wait=240")[2].partition(b" ")[0] for head in peer.requests]
        assert asked == [b"", b"&poll=041", b"&poll=042", b"&poll=41"]
        assert await transport.head(8, 0, taken.etag) is not None  # a plain one: no number, and no tag to name
        assert [b"If-None-Match" in head for head in peer.requests] == [True, False, False, False, False]
        assert await transport.head(8, 240, '"abc"') is not None
        assert b"poll=" not in peer.requests[5]
        assert b'If-None-Match: "abc"' in peer.requests[5].splitlines()
        await transport.aclose()
        nursery.cancel_scope.cancel()


async def test_a_head_comes_as_what_differs_from_the_one_of_the_poll_before(autojump_clock: Any) -> None:
    heads = [bytes(range(200)), bytes(range(200)) + b"more", b"another" + bytes(range(200))]
    patch = encode_patch(heads[0], heads[1])
    other = encode_patch(heads[2], heads[1])
    assert patch is not None
    assert other is not None
    answers = iter([(heads[0], 1), (patch, 2), (other, 3), (heads[2], None)])

    async def script(peer: Peer, head: bytes) -> None:
        body, number = next(answers)
        await peer.answer(body, *([f"Edged-Poll: {number}"] if number else []))

    async with trio.open_nursery() as nursery:
        transport, peer, _ = transport_to(script, nursery)
        first = await transport.head(None, 0, None)
        assert first is not None
        second = await transport.head(7, 240, first.etag)
        assert second is not None
        assert second.data == heads[1]
        third = await transport.head(8, 240, second.etag)  # not of what this one holds: asked for whole
        assert third is not None
        assert (third.data, third.etag) == (heads[2], None)
        asked = [head.split(b" ")[1].removeprefix(b"/catalog/head") for head in peer.requests]
        assert asked == [b"", b"?after=7&wait=240&poll=01", b"?after=8&wait=240&poll=02", b""]
        assert not any(b"If-None-Match" in head for head in peer.requests)
        await transport.aclose()
        nursery.cancel_scope.cancel()


async def test_polls_say_what_is_held_where_every_access_log_keeps_it() -> None:
    async with trio.open_nursery() as nursery:
        transport, peer, _ = transport_to(answering("304 Not Modified"), nursery)
        origins = Origins([transport])
        origins.say_reason("trust")  # of nothing that is held nothing is said
        origins.say_held(12, bytes.fromhex("1a2b3c4d5e6f"))
        assert await transport.head(12, 0, '"a"') is None
        assert f"User-Agent: edged/{VERSION} (12 1a2b3c4d)".encode() in peer.requests[0].splitlines()
        assert peer.requests[0].count(b"User-Agent") == 1
        for version, reason, told in (
            (12, "content", " content"),
            (12, None, " content"),
            (13, None, ""),
            (13, "", ""),
        ):
            if reason is None:
                origins.say_held(version, bytes.fromhex("1a2b3c4d"))
            else:
                origins.say_reason(reason)
            assert await transport.head(12, 0, '"a"') is None
            assert f"User-Agent: edged/{VERSION} ({version} 1a2b3c4d{told})".encode() in peer.requests[-1].splitlines()
        await transport.aclose()
        nursery.cancel_scope.cancel()


async def test_a_poll_that_is_held_for_ever_is_given_up(autojump_clock: Any) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await trio.sleep_forever()

    began = trio.current_time()
    with pytest.RaisesGroup(TransportError):
        await head_from(script, 7, 240, None)
    assert 240 < trio.current_time() - began < 300


@pytest.mark.parametrize(
    ("status", "asked"),
    [
        ("304 Not Modified", (7, 10, None)),
        ("204 No Content", (7, 10, None)),
        ("304 Not Modified", (7, 10, '"a"')),
        ("304 Not Modified", (7, 0, '"a"')),
        ("304 Not Modified", (None, 0, '"a"')),
    ],
)
async def test_nothing_new(status: str, asked: tuple[int | None, int, str | None]) -> None:
    assert (await head_from(answering(status), *asked))[0] is None


@pytest.mark.parametrize(
    ("status", "asked"),
    [
        ("304 Not Modified", (None, 0, None)),
        ("304 Not Modified", (7, 0, None)),
        ("204 No Content", (None, 0, None)),
        ("204 No Content", (None, 0, '"a"')),
        ("204 No Content", (7, 0, '"a"')),
    ],
)
async def test_nothing_new_to_who_has_not_said_what_is_known_is_a_fault(
    status: str, asked: tuple[int | None, int, str | None]
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(TransportError, match=f"status {status[:3]}, expected 200")):
        await head_from(answering(status), *asked)


def answering(status: str) -> Script:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.send(f"HTTP/1.1 {status}\r\n\r\n".encode())

    return script


async def test_head_without_poll_asks_for_none() -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.answer(b"a head", "ETag: " + "x" * 500)

    reply, peer = await head_from(script, 7, 0, None)
    assert peer.requests[0].startswith(b"GET /catalog/head HTTP/1.1")
    assert reply.etag is None  # too long to be sent back all day


async def test_endless_head() -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"10000\r\n" + bytes(65_536) + b"\r\n")

    with pytest.RaisesGroup(pytest.RaisesExc(WireError, match=f"over {limits.HEAD_BYTES} bytes")):
        await head_from(script, None, 0, None)


async def test_root_of_trust() -> None:
    async def script(peer: Peer, head: bytes) -> None:
        if b"/trust/2 " in head:
            await peer.answer(b"a root")
        else:
            await peer.answer(b"no", status="404 Not Found")

    async with trio.open_nursery() as nursery:
        transport, _, _ = transport_to(script, nursery)
        assert await transport.trust(2) == b"a root"
        assert await transport.trust(3) is None
        await transport.aclose()
        nursery.cancel_scope.cancel()
