"""One request that an application answers while its connection stays in the lane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from edged.http.fields import Fields
from edged.http.framing import CLOSE, LAST_CHUNK, chunk, join_fields, status_line
from edged.http.head import Head

Application = Callable[["Call"], Awaitable[None]]  # bound to its request

CHUNKED: Fields = ((b"transfer-encoding", b"chunked"),)


class FramingError(Exception):
    """The application's body is not as long as its head has said."""


class Call:
    """What an application says, as messages of ASGI, framed as HTTP/1.1 for one client.

    head: of the request, a GET or HEAD without a body. close: whether the connection ends after the answer. begun,
    complete: how much of it was said.
    """

    def __init__(self, application: Application, head: Head) -> None:
        self.application = application
        self.write: Callable[[bytes], Awaitable[None]]
        self.scope = trio.CancelScope()  # cancelled when the connection is closed
        self.gone = False  # the client will send no more
        self.act: Callable[[], None] | None = None
        self.room = trio.lowlevel.ParkingLot()  # unparked when the kernel has taken everything
        self.started = False
        self.head_only = head.method == b"HEAD"
        self.modern = head.version == "1.1"
        self.close = not head.keep_alive
        self.begun = False
        self.complete = False
        self.bodiless = False
        self.chunked = False
        self.left: int | None = None  # of a body of known length

    async def run(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Have the application answer. write: hands bytes to the connection, returns when the kernel has taken them.

        Raises what the application raises.
        """
        self.write = write
        with self.scope:
            await self.application(self)

    def when_gone(self, act: Callable[[], None] | None) -> None:
        """What to do when the client has gone; at once if it has. None: nothing any more."""
        self.act = act
        if act is not None and self.gone:
            act()

    def leave(self) -> None:
        """The client has gone."""
        self.gone = True
        if self.act is not None:
            self.act()

    async def send_interim(self, status: int, fields: Fields) -> None:
        """A 1xx before the answer; nothing for HTTP/1.0, which does not know them (RFC 9110 section 15.2)."""
        if self.modern and not self.begun:
            await self.write(status_line(status) + join_fields(fields) + b"\r\n")

    async def send(self, message: dict[str, Any]) -> None:
        """The start of an answer or a piece of its body. Raises FramingError for a body that is not as long as its head
        has said."""
        if message["type"] == "http.response.start":
            data = self.begin(message["status"], message["headers"])
        else:
            data = self.frame(message.get("body", b""), last=not message.get("more_body", False))
        if data:
            await self.write(data)

    def begin(self, status: int, fields: Fields) -> bytes:
        """The head of the answer (RFC 9112 section 6): Content-Length where it is known, else chunks, or for HTTP/1.0
        the end of the connection."""
        self.begun = True
        lengths = [value for name, value in fields if name.lower() == b"content-length"]
        self.bodiless = self.head_only or status in (204, 304)
        if status not in (204, 304):
            if len(lengths) == 1 and lengths[0].isdigit():
                self.left = int(lengths[0])
            else:
                fields = tuple(pair for pair in fields if pair[0].lower() != b"content-length")
                self.chunked = self.modern
                self.close = self.close or not self.modern
        extra = CHUNKED if self.chunked else ()
        if self.close:
            extra += CLOSE
        return status_line(status) + join_fields((*fields, *extra)) + b"\r\n"

    def frame(self, data: bytes, *, last: bool) -> bytes:
        """A piece of the body as it goes out."""
        self.complete = last
        if self.bodiless:
            return b""
        if self.chunked:
            return chunk(data) + LAST_CHUNK if last else chunk(data)
        if self.left is not None:
            self.left -= len(data)
            if self.left < 0 or (last and self.left):
                self.complete = False
                raise FramingError(
                    f"answer: {abs(self.left)} bytes too {'many' if self.left < 0 else 'few'} in its body"
                )
        return data
