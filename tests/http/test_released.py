"""A connection that its client has closed counts no longer: many short ones never reach the cap."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from edged.http.limits import Limits
from edged.http.server import Listening, serve
from tests.http.asgi import AsgiApplication

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("lane", [True, False])
async def test_two_hundred_short_connections_fit_under_a_cap_of_four(lane: bool) -> None:
    async with trio.open_nursery() as nursery:
        listening = Listening(("127.0.0.1:0",), limits=Limits(connections=4), lane=lane)
        urls = await nursery.start(partial(serve, AsgiApplication(hello), listening))
        port = int(urls[0].rsplit(":", 1)[1])
        for number in range(200):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(REQUEST)
            answer = await stream.receive_some(1000)
            await stream.aclose()
            assert answer.startswith(b"HTTP/1.1 200"), (number, answer)
            await trio.testing.wait_all_tasks_blocked(0.001)
        nursery.cancel_scope.cancel()
