"""Server-Timing (W3C, section 3): how long an answer took to make, and for a proxied one what the cache did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import perf_counter
from typing import Any, cast

from edged.http.application import (
    Answer,
    Application,
    ByTask,
    Client,
    Held,
    InThread,
    OnWebSocket,
    Response,
)
from edged.http.fields import Fields
from edged.http.request import Request

NAME, LOWERED = b"Server-Timing", b"server-timing"
CACHE_STATUS = b"cache-status"
HIT, COLLAPSED = b"hit", b"collapsed"
FORWARDED = b"fwd="


class TimedApplication(Application):
    """Another one, each answer of which says how long its head took to come. Nothing is remembered, so that each says
    its own; refusals of an app are none of it, as they are made before (see guard.py)."""

    def __init__(self, inner: Application) -> None:
        self.inner = inner
        self.deciding = inner.deciding
        self.generation = inner.generation  # type: ignore[method-assign]  # asked all the time

    def answer(self, request: Request) -> Answer:
        began = perf_counter()
        return timed(self.inner.answer(request), began)

    def on_websocket(self, request: Request) -> OnWebSocket:
        return self.inner.on_websocket(request)

    async def websocket(
        self, request: Request, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        await self.inner.websocket(request, receive, send)


class TimedClient:
    """The client of a ByTask, to whose answer its time is added. Otherwise as it is."""

    def __init__(self, client: Client, began: float) -> None:
        self.client, self.began = client, began

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    async def start(self, status: int, fields: Fields) -> None:
        await self.client.start(status, with_time(fields, self.began))


def timed(answer: Answer, began: float) -> Answer:
    """The answer with its time. began: by perf_counter, when it was asked for."""
    match answer:
        case InThread(work, limiter):
            return InThread(lambda: timed(work(), began), limiter)
        case Held(resume=resume):
            return replace(answer, resume=lambda last: timed(resume(last), began))
        case ByTask(run):
            return ByTask(lambda client: run(cast("Client", TimedClient(client, began))))
        case Response():
            return replace(answer, own=with_time(answer.own, began), keep=False)
    return replace(answer, fields=with_time(answer.fields, began))


def with_time(fields: Fields, began: float) -> Fields:
    """Behind what an upstream says there."""
    said = [value for name, value in fields if name.lower() == LOWERED]
    said.append(b"edged;dur=%.3f" % ((perf_counter() - began) * 1000))
    if did := cache_did(fields):
        said.append(b"cache;desc=" + did)
    kept = tuple(pair for pair in fields if pair[0].lower() != LOWERED) if len(said) > 1 else fields
    return (*kept, (NAME, b", ".join(said)))


def cache_did(fields: Fields) -> bytes:
    """What the proxy did, as a token: hit, collapsed, or why it went upstream; nothing of an answer that is not its.

    Our member is the last of Cache-Status (RFC 9211 section 2), and has nothing in quotes.
    """
    said = b""
    for name, value in fields:
        if name == CACHE_STATUS:
            said = value
    words = said.rpartition(b", ")[2].split(b"; ")
    for plain in (HIT, COLLAPSED):
        if plain in words:
            return plain
    return next((word.removeprefix(FORWARDED) for word in words if word.startswith(FORWARDED)), b"")
