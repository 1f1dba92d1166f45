"""The admin listener: an Application of its own, on its own address.

It has no credentials. What keeps strangers out: the address; a Host that is an address or localhost, so that no web
page reaches it by DNS rebinding; and a field on everything that changes something, which no web page can send without
a preflight that is never granted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol

import trio

from edged.errors import EdgedError, RequestError
from edged.http.application import (
    DATE,
    Answer,
    Application,
    ByTask,
    Client,
    Disconnected,
    InThread,
    Response,
    Signal,
    Stream,
    problem,
)
from edged.http.hosts import HostRule
from edged.http.request import Request, decode, split_target
from edged.pages.page import page

CONTROL_HEADER = "Edged-Control"
BODY_BYTES = 64 << 10
TEXT, JSON = b"text/plain; charset=utf-8", b"application/json"
METRICS = b"text/plain; version=0.0.4; charset=utf-8"
EVENT_FIELDS = (
    (b"Content-Type", b"text/event-stream"),
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
)
HOSTS = HostRule.of(["localhost"], addresses=True)

HOME = "box.html"
PATHS = "/ /healthz /readyz /metrics /status /usage /recent /events"
EVENT_S = 1.0  # from one event to the next, as long as somebody listens


class Operated(Protocol):
    """What the listener shows and changes: the daemon."""

    def status(self) -> dict[str, Any]:
        """The document of /status."""
        ...

    def not_ready(self) -> list[str]:
        """Names of the datasets without a version to serve."""
        ...

    def metrics(self) -> bytes: ...

    def usage(self) -> Callable[[], dict[str, Any]]:
        """What makes the document of /usage, in a thread."""
        ...

    def recent(self) -> dict[str, Any]:
        """The document of /recent."""
        ...

    async def pin(self, dataset: str, version: int | None) -> dict[str, Any]:
        """Hold `dataset` at `version`, or let it go (None). Raises EdgedError."""
        ...


class AdminApp(Application):
    """What operators ask."""

    def __init__(self, operated: Operated) -> None:
        self.operated = operated
        self.wanted = trio.Event()
        self.ticked = Signal(self.want)
        self.reading = trio.CapacityLimiter(1)

    def want(self) -> None:
        self.wanted.set()

    async def tick(self) -> None:
        """Have whoever listens to /events told once in EVENT_S, for ever; nobody is woken while nobody does."""
        while True:
            await self.wanted.wait()
            self.wanted = trio.Event()
            await trio.sleep(EVENT_S)
            self.ticked.move()

    def answer(self, request: Request) -> Answer:
        try:
            authority, raw_path, _ = split_target(request.target)
            HOSTS.check(request, authority)
            path = decode(raw_path, "path")
            if path in ("/pin", "/unpin"):
                if request.method != "POST":
                    raise RequestError(405, f"{path} takes POST", headers=(("Allow", "POST"),))
                if request.get(CONTROL_HEADER.lower().encode()) is None:
                    what = f"send the header {CONTROL_HEADER}: 1, which shows that no web page is asking"
                    raise RequestError(403, what)
                return ByTask(partial(self.change, path))
            if request.method not in ("GET", "HEAD"):
                raise RequestError(405, f"{path:.200} takes GET", headers=(("Allow", "GET, HEAD"),))
            found = page(path, HOME, request)
            return self.show(path) if found is None else found
        except EdgedError as fault:
            return refusal(fault)

    def show(self, path: str) -> Answer:
        """Raises RequestError."""
        if path == "/healthz":
            return respond(200, TEXT, b"alive\n")
        if path == "/readyz":
            missing = self.operated.not_ready()
            text = f"no version yet of: {', '.join(missing)}\n" if missing else "ready\n"
            return respond(503 if missing else 200, TEXT, text.encode())
        if path == "/metrics":
            return respond(200, METRICS, self.operated.metrics())
        if path == "/status":
            return respond(200, JSON, json.dumps(self.operated.status(), ensure_ascii=False).encode())
        if path == "/usage":
            return InThread(partial(show_usage, self.operated.usage()), self.reading)
        if path == "/recent":
            return respond(200, JSON, json.dumps(self.operated.recent(), ensure_ascii=False).encode())
        if path == "/events":
            return Stream(200, EVENT_FIELDS, DATE, self.events(), self.ticked, self.events)
        what = f"nothing at {path:.200}; here are {PATHS}"
        raise RequestError(404, what)

    def events(self) -> Iterator[bytes]:
        """The document of /status as an event."""
        yield b"data: " + json.dumps(self.operated.status(), ensure_ascii=False).encode() + b"\n\n"

    async def change(self, path: str, client: Client) -> None:
        try:
            response = await self.changed(path, await read_json(client))
        except EdgedError as fault:
            response = refusal(fault)
        await client.start(response.status, response.fields)
        await client.end(response.body)

    async def changed(self, path: str, document: object) -> Response:
        """Raises EdgedError."""
        match document:
            case {"dataset": str() as dataset, "version": int() as version} if path == "/pin" and is_version(version):
                result = await self.operated.pin(dataset, version)
            case {"dataset": str() as dataset} if path == "/unpin":
                result = await self.operated.pin(dataset, None)
            case _:
                wanted = '{"dataset": NAME, "version": NUMBER from 1 on}' if path == "/pin" else '{"dataset": NAME}'
                raise RequestError(400, f"{path}: expected {wanted}")
        return respond(200, JSON, json.dumps(result).encode())


def show_usage(make: Callable[[], dict[str, Any]]) -> Response:
    return respond(200, JSON, json.dumps(make(), ensure_ascii=False).encode())


def is_version(number: int) -> bool:
    """JSON's `true` is no number, though Python's True is one."""
    return type(number) is int and number >= 1


async def read_json(client: Client) -> object:
    """The request's body, of at most BODY_BYTES. Raises RequestError."""
    body = b""
    try:
        async with aclosing(client.body()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > BODY_BYTES:
                    raise RequestError(413, f"the body is over {BODY_BYTES} bytes")
        document: object = json.loads(body)
    except Disconnected as fault:
        raise RequestError(400, "the body ended early") from fault
    except (ValueError, RecursionError) as fault:
        raise RequestError(400, f"the body is not JSON: {fault}") from fault
    return document


def respond(status: int, media: bytes, body: bytes) -> Response:
    """What is shown is of this moment alone."""
    fields = (
        (b"Content-Type", media),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
        (b"X-Content-Type-Options", b"nosniff"),
    )
    return Response(status, fields, body)


def refusal(fault: EdgedError) -> Response:
    """A RequestError says its status; what the daemon cannot do as things stand is a conflict."""
    status, headers = (fault.status, fault.headers) if isinstance(fault, RequestError) else (409, ())
    extra = [(name.encode(), value.encode()) for name, value in headers]
    return problem(status, str(fault), ((b"X-Content-Type-Options", b"nosniff"), *extra))
