"""The client of an answer that a task writes to a stream of HTTP/2."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable

import trio

from edged.http.application import ByTask, Disconnected
from edged.http.fields import Fields
from edged.http.h2.connection import H2Connection
from edged.http.h2.fieldblocks import encode_fields, encode_status
from edged.http.head import RequestHead
from edged.http.lane.client import FramingError
from edged.http.meter import Meter

CONTINUE = 100


class H2Client:
    """A Client. status: of the answer, 0 before it has begun; complete: it was written to its end; flush: sends what
    the connection has for the peer; wants_body: the task waits for more of the request.
    """

    def __init__(self, answer: ByTask, stream_id: int, head: RequestHead, core: H2Connection, meter: Meter) -> None:
        self.answer = answer
        self.stream_id = stream_id
        self.core = core
        self.meter = meter
        self.flush: Callable[[], None]
        self.scope = trio.CancelScope()  # cancelled when the stream is over
        self.room = trio.lowlevel.ParkingLot()  # unparked when all that was written has gone
        self.arrival = trio.lowlevel.ParkingLot()  # unparked when more of the body has come, or will not
        self.pieces: deque[bytes] = deque()
        self.body_ended = not head.body
        self.broken = False
        self.wants_body = False
        self.expects = head.expects
        self.head_only = head.method == b"HEAD"
        self.act: Callable[[], None] | None = None
        self.gone = False
        self.status = 0
        self.complete = False
        self.bodiless = False
        self.left: int | None = None  # of a body of known length

    async def run(self) -> None:
        """Have the application answer. Raises what it raises."""
        with self.scope:
            await self.answer.run(self)

    # --- the request's body -----------------------------------------------------------------------------------------

    async def body(self) -> AsyncGenerator[bytes, None]:
        if self.expects and not self.status and not self.body_ended and not self.pieces:
            await self.interim(CONTINUE, ())
        self.expects = False
        while True:
            while self.pieces:
                data = self.pieces.popleft()
                yield data
                self.core.consume(self.stream_id, len(data))
                self.flush()
            if self.broken:
                raise Disconnected
            if self.body_ended:
                return
            self.wants_body = True
            try:
                await self.arrival.park()
            finally:
                self.wants_body = False

    def put_body(self, data: bytes) -> None:
        self.pieces.append(data)
        self.arrival.unpark_all()

    def end_body(self) -> None:
        self.body_ended = True
        self.arrival.unpark_all()

    # --- the client's going -----------------------------------------------------------------------------------------

    def when_gone(self, act: Callable[[], None] | None) -> None:
        self.act = act
        if act is not None and self.gone:
            act()

    def leave(self) -> None:
        """The client sends no more."""
        self.gone = True
        if not self.body_ended:
            self.broken = True
            self.arrival.unpark_all()
        if self.act is not None:
            self.act()

    def abandon(self) -> None:
        """The stream is over before its answer was."""
        self.leave()
        self.scope.cancel()

    # --- the answer -------------------------------------------------------------------------------------------------

    async def interim(self, status: int, fields: Fields) -> None:
        if not self.status:
            self.core.interim(self.stream_id, encode_status(status) + encode_fields(fields))
            await self.drain()

    async def start(self, status: int, fields: Fields) -> None:
        self.status = status
        self.meter.fast_answers[status] += 1
        lengths = [value for name, value in fields if name.lower() == b"content-length"]
        self.bodiless = self.head_only or status in (204, 304)
        if not self.bodiless and len(lengths) == 1 and lengths[0].isdigit():
            self.left = int(lengths[0])
        self.core.begin(self.stream_id, encode_status(status) + encode_fields(fields), ended=self.bodiless)
        await self.drain()

    async def write(self, data: bytes) -> None:
        """Raises FramingError for more than the head has said."""
        await self.put(data, last=False)

    async def end(self, data: bytes = b"") -> None:
        """Raises FramingError for a body that is not as long as its head has said."""
        await self.put(data, last=True)

    async def put(self, data: bytes, *, last: bool) -> None:
        if not self.bodiless and self.left is not None:
            self.left -= len(data)
            if self.left < 0 or (last and self.left):
                what = "many" if self.left < 0 else "few"
                raise FramingError(f"answer: {abs(self.left)} bytes too {what} in its body")
        self.complete = last
        if not self.bodiless and (data or last):
            self.core.send(self.stream_id, data, ended=last)
        await self.drain()

    async def drain(self) -> None:
        """Return when the connection has taken all; cancelled where the stream is over before."""
        self.flush()
        while not self.core.has_room(self.stream_id):
            await self.room.park()
