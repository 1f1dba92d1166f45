"""Requests in the log."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import trio

from edged.http.application import (
    DATE,
    Answer,
    Application,
    ByTask,
    Client,
    Held,
    InThread,
    Response,
    Signal,
    Stream,
)
from edged.http.request import Request
from edged.http.server import Listening, serve
from tests.serve.lanes import ask_once, head


async def test_at_debug_each_request_is_told_without_its_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "edged.http")
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(partial(serve, Every(), Listening(("127.0.0.1:0",))))
        for path in ("kept", "kept", "slow", "held", "task", "stream"):
            with trio.fail_after(10):
                reply = await ask_once(urls[0], head("GET", f"/{path}?token=secret"))
            assert reply.status == 200
            assert reply.body == path.encode()
        nursery.cancel_scope.cancel()
    told = [record.__dict__["fields"] for record in caplog.records if record.message == "request"]
    assert [(item["method"], item["path"], item["status"]) for item in told] == [
        ("GET", f"/{path}", 200) for path in ("kept", "kept", "slow", "held", "task", "stream")
    ]
    assert "secret" not in caplog.text
    assert all(item["peer"].startswith("127.0.0.1") for item in told)


class Every(Application):
    """Answers in each way that there is."""

    def answer(self, request: Request) -> Answer:
        name = request.target[1:].partition(b"?")[0]
        whole = Response(200, ((b"Content-Length", b"%d" % len(name)),), name, keep=True)

        async def run(client: Client) -> None:
            client.when_gone(None)
            await client.start(200, whole.own)
            await client.end(name)

        match name:
            case b"slow":
                return InThread(lambda: whole, trio.CapacityLimiter(1))
            case b"held":
                return Held(Signal(), 0, 0.01, lambda last: whole)
            case b"task":
                return ByTask(run)
            case b"stream":
                return Stream(200, ((b"Content-Type", b"text/plain"),), DATE, iter([name]))
        return whole
