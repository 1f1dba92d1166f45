"""The client of an answer that a task writes, while its connection stays in the lane."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable

import trio

from edged.http.application import ByTask, is_endless
from edged.http.fields import Fields
from edged.http.framing import CLOSE, LAST_CHUNK, chunk, join_fields, status_line
from edged.http.head import RequestHead

CHUNKED: Fields = ((b"transfer-encoding", b"chunked"),)


class FramingError(Exception):
    """The application's body is not as long as its head has said."""


class LaneClient:
    """A Client: frames what an application writes as HTTP/1.1.

    head: of the request, a GET or HEAD without a body. answers: counts by status. close: whether the connection ends
    after the answer. status: of the answer, 0 before it has begun; complete: it was written to its end.
    """

    def __init__(self, answer: ByTask, head: RequestHead, answers: Counter[int]) -> None:
        self.answer = answer
        self.answers = answers
        self.send: Callable[[bytes], Awaitable[None]]
        self.scope = trio.CancelScope()  # cancelled when the connection is closed
        self.ended = False  # the client will send no more
        self.endless = False  # the answer has no end of its own
        self.gone = False
        self.act: Callable[[], None] | None = None
        self.room = trio.lowlevel.ParkingLot()  # unparked when the kernel has taken everything
        self.started = False
        self.head_only = head.method == b"HEAD"
        self.modern = head.version == "1.1"
        self.close = not head.keep_alive
        self.status = 0
        self.complete = False
        self.bodiless = False
        self.chunked = False
        self.left: int | None = None  # of a body of known length

    async def run(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Have the application answer. send: hands bytes to the connection, returns when the kernel has taken them.

        Raises what the application raises.
        """
        self.send = send
        with self.scope:
            await self.answer.run(self)

    async def body(self) -> AsyncGenerator[bytes, None]:
        """Nothing: a request with a body does not come by this lane."""
        nothing: tuple[bytes, ...] = ()
        for piece in nothing:
            yield piece

    def when_gone(self, act: Callable[[], None] | None) -> None:
        self.act = act
        if act is not None and self.gone:
            act()

    def end_input(self) -> None:
        """The client will send no more; an answer without end ends with that."""
        self.ended = True
        if self.endless:
            self.leave()

    def leave(self) -> None:
        """The client has gone."""
        self.gone = True
        if self.act is not None:
            self.act()

    async def interim(self, status: int, fields: Fields) -> None:
        """Nothing for HTTP/1.0, which does not know a 1xx (RFC 9110 section 15.2)."""
        if self.modern and not self.status:
            await self.send(status_line(status) + join_fields(fields) + b"\r\n")

    async def start(self, status: int, fields: Fields) -> None:
        """The head (RFC 9112 section 6): Content-Length where it is known, else chunks, or for HTTP/1.0 the end of the
        connection.
        """
        self.status = status
        self.answers[status] += 1
        self.endless = is_endless(fields)
        if self.ended:
            self.end_input()
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
        await self.send(status_line(status) + join_fields((*fields, *extra)) + b"\r\n")

    async def write(self, data: bytes) -> None:
        """Raises FramingError for more than the head has said."""
        await self.frame(data, last=False)

    async def end(self, data: bytes = b"") -> None:
        """Raises FramingError for a body that is not as long as its head has said."""
        await self.frame(data, last=True)

    async def frame(self, data: bytes, *, last: bool) -> None:
        if not self.bodiless and self.left is not None:
            self.left -= len(data)
            if self.left < 0 or (last and self.left):
                what = "many" if self.left < 0 else "few"
                raise FramingError(f"answer: {abs(self.left)} bytes too {what} in its body")
        self.complete = last
        if self.bodiless:
            return
        if self.chunked:
            data = chunk(data) + LAST_CHUNK if last else chunk(data)
        if data:
            await self.send(data)
