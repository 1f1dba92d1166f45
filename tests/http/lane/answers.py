"""An application with every kind of answer, and some that go wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from edged.http.application import DATE as TIMED
from edged.http.application import (
    Answer,
    Application,
    ByTask,
    Client,
    Disconnected,
    FileResponse,
    Held,
    InThread,
    Response,
    Shared,
    Signal,
    Stream,
)
from edged.http.fields import Fields
from edged.http.request import Request

SHARED = Shared.of(((b"Content-Type", b"text/plain"),))
LARGE = bytes(range(256)) * 4096  # more than any window at its default


def length_of(body: bytes) -> Fields:
    return ((b"Content-Length", b"%d" % len(body)),)


def whole(body: bytes, *, status: int = 200, keep: bool = False) -> Response:
    return Response(status, length_of(body), body, keep=keep, shared=SHARED)


@dataclass
class Answers(Application):
    """asked: how often each target was; signal: what held answers and streams wait for; gone: targets whose client was
    heard to go; closed: of streams and files, how many were let go of.
    """

    file: Path
    signal: Signal = field(default_factory=Signal)
    asked: list[bytes] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)
    number: int = 0
    limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(2))

    def generation(self) -> int:
        return self.number

    def answer(self, request: Request) -> Answer:
        self.asked.append(request.target)
        match request.target:
            case b"/kept":
                return whole(b"kept %d" % self.number, keep=True)
            case b"/large":
                return whole(LARGE)
            case b"/none":
                return Response(304, ((b"ETag", b'"x"'),))
            case b"/fail":
                raise ValueError("meant to fail")
            case b"/file":
                handle = os.open(self.file, os.O_RDONLY)
                return FileResponse(200, length_of(LARGE), handle, 3, len(LARGE))
            case b"/short-file":
                handle = os.open(self.file, os.O_RDONLY)
                return FileResponse(200, length_of(LARGE), handle, 10, len(LARGE))
            case b"/stream":
                return Stream(200, SHARED.fields, TIMED, iter([b"one ", b"", b"two ", LARGE]))
            case b"/broken-stream":
                return Stream(200, SHARED.fields, TIMED, self.broken())
            case b"/following":
                return Stream(200, SHARED.fields, TIMED, iter([b"first "]), self.signal, self.follow)
            case b"/held":
                return Held(self.signal, self.signal.generation, 60.0, self.resume)
            case b"/held-briefly":
                return Held(self.signal, self.signal.generation, 0.0, self.resume)
            case b"/thread":
                return InThread(lambda: whole(b"by a thread"), self.limiter)
            case b"/thread-file":
                return InThread(partial(self.answer, Request("GET", b"/file", ())), self.limiter)
            case b"/echo" | b"/echo-unsized":
                return ByTask(partial(self.echo, request))
            case b"/refuse":
                return ByTask(self.refuse)
            case b"/half":
                return ByTask(self.half)
            case b"/nothing":
                return ByTask(self.nothing)
            case b"/interim":
                return ByTask(self.hint)
            case b"/for-ever":
                return ByTask(partial(self.drip, request))
        return whole(b"whole " + request.target)

    def broken(self) -> Iterator[bytes]:
        yield b"part"
        raise ValueError("meant to fail")

    def follow(self) -> Iterator[bytes]:
        return iter([b"move %d " % self.signal.generation])

    def resume(self, last: bool) -> Answer:
        if not last and self.signal.generation < 2:
            return Held(self.signal, self.signal.generation, 60.0, self.resume)
        return whole(b"held until %d%s" % (self.signal.generation, b", the last" if last else b""))

    async def echo(self, request: Request, client: Client) -> None:
        body = b""
        try:
            async for piece in client.body():
                body += piece
        except Disconnected:
            self.gone.append(request.target)
            return
        await client.start(200, length_of(body) if request.target == b"/echo" else ())
        await client.write(body[:5])
        await client.end(body[5:])

    async def refuse(self, client: Client) -> None:
        await client.start(413, length_of(b"too much"))
        await client.end(b"too much")

    async def half(self, client: Client) -> None:
        await client.start(200, ((b"Content-Length", b"10"),))
        await client.write(b"half")

    async def nothing(self, client: Client) -> None:
        return

    async def hint(self, client: Client) -> None:
        await client.interim(103, ((b"Link", b"</a>"),))
        await client.start(200, length_of(b"hinted"))
        await client.end(b"hinted")

    async def drip(self, request: Request, client: Client) -> None:
        try:
            await client.start(200, ())
            while True:
                await client.write(b"drop " * 2000)
                await trio.sleep(0.001)
        finally:
            self.gone.append(request.target)
