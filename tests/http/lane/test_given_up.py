"""Downloads that are given up free their bytes at once, and not when the collector comes: it is switched off here."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
import trio

from edged.http.application import DATE, Answer, Application, ByTask, Client, InThread, Response, Stream
from edged.http.request import Request
from tests.http.protocols import PRIOR, PROTOCOLS, Everywhere, everywhere
from tests.http.tls.pem import make
from tests.serve.lanes import eventually, head

pytestmark = pytest.mark.trio

LARGE = 6 << 20  # more than any socket takes
COUNT = 4
TARGETS = ["/whole", "/pieces", "/task", "/thread"]


@dataclass
class Large(Application):
    """Every answer has bytes of its own."""

    limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(2))

    def answer(self, request: Request) -> Answer:
        match request.target:
            case b"/pieces":
                return Stream(200, (), DATE, self.pieces())
            case b"/task":
                return ByTask(self.run)
            case b"/thread":
                return InThread(self.whole, self.limiter)
        return self.whole()

    def whole(self) -> Response:
        return Response(200, ((b"Content-Length", b"%d" % LARGE),), bytes(LARGE))

    def pieces(self) -> Iterator[bytes]:
        held = bytes(LARGE)
        yield held[:1000]
        yield held[1000:]

    async def run(self, client: Client) -> None:
        await client.start(200, ())
        await client.write(bytes(LARGE))
        await client.end()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Everywhere]:
    async with everywhere(Large(), make(tmp_path, "localhost")) as found:
        yield found


@pytest.fixture
def traced() -> Iterator[None]:
    gc.collect()
    gc.disable()
    tracemalloc.start(1)
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.enable()


def held() -> int:
    return tracemalloc.get_traced_memory()[0]


async def begin(served: Everywhere, protocol: str, target: str, method: str) -> trio.abc.HalfCloseableStream:
    """A client that has its answer's head, and reads no further."""
    stream = await served.open(protocol)
    body = b"abc" if method == "POST" else b""
    if PRIOR[protocol] == "h2":
        client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        client.initiate_connection()
        pseudo = [(":method", method), (":scheme", "http"), (":path", target), (":authority", "localhost")]
        client.send_headers(1, pseudo, end_stream=not body)
        if body:
            client.send_data(1, body, end_stream=True)
        await stream.send_all(client.data_to_send())
    else:
        await stream.send_all(head(method, target, {"Content-Length": str(len(body))} if body else None) + body)
    assert await stream.receive_some(1000)
    return stream


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_closed_connections_free_what_they_held(
    served: Everywhere, protocol: str, target: str, method: str, traced: None
) -> None:
    warm = await begin(served, protocol, target, method)
    await trio.aclose_forcefully(warm)
    meter = served.secure if protocol in ("h1-tls", "h2") else served.meter
    await eventually(lambda: meter.fast_connections == 0 and held() < LARGE)
    before = held()
    streams = [await begin(served, protocol, target, method) for _ in range(COUNT)]
    await eventually(lambda: held() > before + COUNT * (LARGE * 3 // 4))
    for stream in streams:
        await trio.aclose_forcefully(stream)
    del streams
    await eventually(lambda: held() < before + LARGE // 4)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("protocol", ["h2c", "h2"])
async def test_streams_that_are_reset_free_what_they_held(
    served: Everywhere, protocol: str, target: str, traced: None
) -> None:
    stream = await served.open(protocol)
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    pseudo = [(":method", "GET"), (":scheme", "http"), (":path", target), (":authority", "localhost")]
    before = held()
    for number in range(COUNT):
        client.send_headers(1 + 2 * number, pseudo, end_stream=True)
    await stream.send_all(client.data_to_send())
    answered = 0
    while answered < COUNT:
        events = client.receive_data(bytes(await stream.receive_some(65536)))
        answered += sum(isinstance(event, h2.events.ResponseReceived) for event in events)
    await eventually(partial(is_above, before + COUNT * (LARGE * 3 // 4)))
    for number in range(COUNT):
        client.reset_stream(1 + 2 * number, h2.errors.ErrorCodes.CANCEL)
    await stream.send_all(client.data_to_send())
    await eventually(lambda: held() < before + LARGE // 4)
    await trio.aclose_forcefully(stream)


def is_above(size: int) -> bool:
    return held() > size
