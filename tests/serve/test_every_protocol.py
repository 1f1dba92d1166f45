"""Some three hundred requests down every protocol: HTTP/1.1 and HTTP/2, in clear text and over TLS, one answer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from edged.http.h2.frames import ErrorCode
from edged.http.meter import Meter
from edged.serve.apps import Api
from tests.http.protocols import PRIOR, PROTOCOLS, Ask, Everywhere, Got, everywhere
from tests.http.tls.pem import make
from tests.serve.asking import make_service
from tests.serve.memory import MemoryDataset, make_dataset
from tests.serve.test_lanes import COLLECTIONS, DICTIONARY, KEYS, PARAMETERS, PLACES

pytestmark = pytest.mark.trio

COUNT = 300
AT_ONCE = 25  # on one connection of HTTP/2
FRAMING = ("connection", "transfer-encoding", "date")  # what a protocol says of itself, and what the second does

OTHERS = ["/", "/v1", "/v1/", "/v1?", "/v1/catalog", "/openapi.json", "/v1x", "/v1/catalog/titles?dictionary=0"]
OTHERS += [DICTIONARY, "/v1/catalog/titles?", "//v1"]
FIELDS = {
    "accept": ["*/*", "text/html", "application/json;q=0", "application/cbor", "application/x-ndjson", ""],
    "accept-encoding": ["gzip", "zstd, gzip;q=0.5", "identity;q=0", "br", "*", "dcz, zstd"],
    "if-none-match": ["*", '"x"', 'W/"x", "y"'],
    "origin": ["https://tv.example", "https://evil.example", "null"],
    "range": ["bytes=0-1"],
    "last-event-id": ["1", "x"],
    "te": ["trailers"],
    "cookie": ["a=1"],
    "priority": ["u=1, i", "u=9"],
    "x-anything": ["y", "é".encode().decode("latin-1")],
}
METHODS = ["GET"] * 12 + ["HEAD"] * 3 + ["OPTIONS", "POST", "PUT", "DELETE", "FOO"]
HOSTS = ["localhost"] * 16 + ["127.0.0.1:80", "LOCALHOST", "evil.example", "localhost:x"]


def requests(chance: random.Random) -> list[Ask]:
    found = []
    for _ in range(COUNT):
        match chance.randrange(8):
            case 0:
                target = chance.choice(OTHERS)
            case 1 | 2:
                target = f"/v1/catalog/{chance.choice(COLLECTIONS)}/{chance.choice(KEYS)}"
            case 3 | 4:
                film = chance.randrange(20)
                target = f"/v1/catalog/titles/{1990 + film % 10}/Film_{film:04}"
            case _:
                query = "&".join(chance.choices([*PARAMETERS, "", "&&"], k=chance.choice([0, 1, 1, 1, 2, 3])))
                target = f"/v1/{chance.choice(PLACES)}?{query}"
        names = chance.sample(sorted(FIELDS), chance.randrange(4))
        fields = [(name, chance.choice(FIELDS[name])) for name in names]
        method = chance.choice(METHODS)
        body = [b"some", b" body"] if method in ("POST", "PUT") and chance.random() < 0.7 else None
        found.append(Ask(target, method, fields, body, chance.choice(HOSTS)))
    return found


def essence(got: Got) -> tuple[object, ...]:
    return got.status, sorted(pair for pair in got.fields if pair[0].lower() not in FRAMING), got.body, got.reset


async def ask_all(found: Everywhere, protocol: str, asked: list[Ask]) -> list[Got]:
    """In HTTP/2 many on one connection; in HTTP/1.1 each on its own, for some answers end it."""
    got: list[Got] = []
    step = AT_ONCE if PRIOR[protocol] == "h2" else 1
    for at in range(0, len(asked), step):
        got += await found.ask(protocol, *asked[at : at + step])
    return got


async def test_three_hundred_requests_get_the_same_answer_by_every_protocol(tmp_path: Path) -> None:
    asked = requests(random.Random(13))
    service = make_service({"catalog": make_dataset(), "empty": MemoryDataset("empty")}, ("https://tv.example",))
    async with everywhere(Api(service), make(tmp_path, "localhost")) as found:
        answers: dict[str, list[Got]] = {}

        async def run(protocol: str) -> None:
            answers[protocol] = await ask_all(found, protocol, asked)

        async with trio.open_nursery() as nursery:
            for protocol in PROTOCOLS:
                nursery.start_soon(run, protocol)
        again = await ask_all(found, "h2", asked)  # by now from memory, where it may be
        for number, one in enumerate(asked):
            expected = essence(answers["h1"][number])
            for protocol in PROTOCOLS[1:]:
                assert essence(answers[protocol][number]) == expected, (protocol, one)
            assert essence(again[number]) == expected, one
            dates = [got[number].get("date") for got in (*answers.values(), again)]
            assert all(date is not None and date.endswith(" GMT") for date in dates), one
        statuses = {got.status for got in answers["h1"]}
        assert statuses >= {200, 304, 400, 404, 405, 421}
        assert total(found.meter) == 2 * COUNT
        assert total(found.secure) == 3 * COUNT
        assert found.secure.remembered > COUNT // 10


def total(meter: Meter) -> int:
    return meter.requests


async def test_a_fragment_is_400_by_every_protocol(tmp_path: Path) -> None:
    service = make_service({"catalog": make_dataset()})
    async with everywhere(Api(service), make(tmp_path, "localhost")) as found:
        for protocol in PROTOCOLS:
            (got,) = await found.ask(protocol, Ask("/v1#there"))
            assert (got.status, b"fragment" in got.body) == (400, True), protocol


# --- what is malformed: refused in the words of each protocol; in HTTP/2 nothing else of the connection is lost -----

BROKEN: dict[str, tuple[bytes, list[tuple[str, str]], int | None]] = {
    # name: lines of HTTP/1.1, fields of HTTP/2, the code of its reset (None: it is answered 431)
    "a line end within a value": (b"X: a\rb\r\n", [("x", "a\rb")], ErrorCode.PROTOCOL_ERROR),
    "NUL within a value": (b"X: a\0b\r\n", [("x", "a\0b")], ErrorCode.PROTOCOL_ERROR),
    "a space within a name": (b"X Y: z\r\n", [("x y", "z")], ErrorCode.PROTOCOL_ERROR),
    "an empty name": (b": z\r\n", [("", "z")], ErrorCode.PROTOCOL_ERROR),
    "two Hosts": (b"Host: other\r\n", [("host", "other")], ErrorCode.PROTOCOL_ERROR),
    "two lengths": (
        b"Content-Length: 0\r\nContent-Length: 1\r\n",
        [("content-length", "0"), ("content-length", "1")],
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a length that is no number": (b"Content-Length: +1\r\n", [("content-length", "+1")], ErrorCode.PROTOCOL_ERROR),
    "a coding beside it": (
        b"Transfer-Encoding: gzip, chunked\r\n",
        [("transfer-encoding", "chunked")],
        ErrorCode.PROTOCOL_ERROR,
    ),
    "too many fields": (b"X: y\r\n" * 200, [("x", "y")] * 200, None),
    "too many bytes": (b"X: " + b"y" * (40 << 10) + b"\r\n", [("x", "y" * 9000)] * 5, None),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_malformed_is_refused_by_every_protocol(name: str, tmp_path: Path) -> None:
    lines, fields, code = BROKEN[name]
    service = make_service({"catalog": make_dataset()})
    async with everywhere(Api(service), make(tmp_path, "localhost")) as found:
        for protocol in ("h1", "h1-tls"):
            stream = await found.open(protocol)
            await stream.send_all(b"GET /v1 HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n")
            data = bytes(await stream.receive_some(65536))
            assert data.startswith(b"HTTP/1.1 431" if code is None else b"HTTP/1.1 400"), (protocol, data)
            await trio.aclose_forcefully(stream)
        for protocol in ("h2c", "h2"):
            before, broken, after = await found.ask(protocol, Ask("/v1"), Ask("/v1", fields=fields), Ask("/v1"))
            assert (before.status, after.status) == (200, 200), protocol
            assert (broken.reset, broken.status) == ((code, 0) if code is not None else (None, 431)), protocol
