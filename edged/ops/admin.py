"""The admin listener: an ASGI application of its own, on its own address.

It has no credentials. What keeps strangers out: the address; a Host that is an address or localhost, so that no web
page reaches it by DNS rebinding; and a header on everything that changes something, which no web page can send
without a preflight that is never granted.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

from edged.errors import EdgedError, RequestError
from edged.http.problem import MEDIA, problem_body

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

CONTROL_HEADER = "Edged-Control"
BODY_BYTES = 64 << 10
TEXT, JSON = "text/plain; charset=utf-8", "application/json"
METRICS = "text/plain; version=0.0.4; charset=utf-8"

INDEX = """edged, admin listener

/healthz   the process is alive
/readyz    every dataset has a version to serve
/metrics   Prometheus text
/status    all of it, as JSON
"""


class Operated(Protocol):
    """What the listener shows and changes: the daemon."""

    def status(self) -> dict[str, Any]:
        """The document of /status."""
        ...

    def not_ready(self) -> list[str]:
        """Names of the datasets without a version to serve."""
        ...

    def metrics(self) -> bytes: ...

    async def pin(self, dataset: str, version: int | None) -> dict[str, Any]:
        """Hold `dataset` at `version`, or let it go (None). Raises EdgedError."""
        ...


class AdminApp:
    """ASGI 3."""

    def __init__(self, operated: Operated) -> None:
        self.operated = operated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            status, kind, body = await self.answer(scope, receive)
        except RequestError as fault:
            status, kind, body = problem(fault.status, str(fault))
        except EdgedError as fault:
            status, kind, body = problem(409, str(fault))
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def answer(self, scope: Scope, receive: Receive) -> tuple[int, str, bytes]:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refuse_foreign_host(headers.get("host", ""))
        method, path = scope["method"], scope["path"]
        if path in ("/pin", "/unpin"):
            if method != "POST":
                raise RequestError(405, f"{path} takes POST")
            return await self.change(path, headers, receive)
        if method not in ("GET", "HEAD"):
            raise RequestError(405, f"{path} takes GET")
        return self.show(path)

    def show(self, path: str) -> tuple[int, str, bytes]:
        if path == "/healthz":
            return 200, TEXT, b"alive\n"
        if path == "/readyz":
            missing = self.operated.not_ready()
            text = f"no version yet of: {', '.join(missing)}\n" if missing else "ready\n"
            return 503 if missing else 200, TEXT, text.encode()
        if path == "/metrics":
            return 200, METRICS, self.operated.metrics()
        if path == "/status":
            return 200, JSON, json.dumps(self.operated.status(), ensure_ascii=False).encode()
        if path == "/":
            return 200, TEXT, INDEX.encode()
        raise RequestError(404, f"nothing at {path}; the admin listener answers /healthz /readyz /metrics /status")

    async def change(self, path: str, headers: Mapping[str, str], receive: Receive) -> tuple[int, str, bytes]:
        if CONTROL_HEADER.lower() not in headers:
            raise RequestError(403, f"send the header {CONTROL_HEADER}: 1, which shows that no web page is asking")
        document = await read_json(receive)
        match document:
            case {"dataset": str() as dataset, "version": int() as version} if path == "/pin":
                result = await self.operated.pin(dataset, version)
            case {"dataset": str() as dataset} if path == "/unpin":
                result = await self.operated.pin(dataset, None)
            case _:
                wanted = '{"dataset": NAME, "version": NUMBER}' if path == "/pin" else '{"dataset": NAME}'
                raise RequestError(400, f"{path}: expected {wanted}")
        return 200, JSON, json.dumps(result).encode()


async def read_json(receive: Receive) -> object:
    """The request's body, of at most BODY_BYTES. Raises RequestError."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "the body ended early")
        body += message.get("body", b"")
        if len(body) > BODY_BYTES:
            raise RequestError(413, f"the body is over {BODY_BYTES} bytes")
        if not message.get("more_body"):
            break
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError) as fault:
        raise RequestError(400, f"the body is not JSON: {fault}") from fault
    return document


def refuse_foreign_host(host: str) -> None:
    """Raises RequestError 421 unless Host is localhost or a plain address."""
    name = re.sub(r":\d*$", "", host).removeprefix("[").removesuffix("]")
    if name.lower() == "localhost" or not host:
        return
    try:
        ipaddress.ip_address(name)
    except ValueError as fault:
        raise RequestError(421, f"Host {host!r:.80} is not this listener; ask it by its address") from fault


def problem(status: int, detail: str) -> tuple[int, str, bytes]:
    """RFC 9457."""
    return status, MEDIA.decode(), problem_body(status, detail)


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
