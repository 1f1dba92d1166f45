"""What the lane does with a request: recall its answer, or ask the application, and say what goes out first."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edged.http.application import (
    DATE,
    Answer,
    Application,
    ByTask,
    FileResponse,
    Held,
    InThread,
    Response,
    Stream,
    failed,
)
from edged.http.fields import Fields
from edged.http.framing import CLOSE, join_fields
from edged.http.h2.frames import PREFACE
from edged.http.head import HeadError, RequestHead, empty_lines_end, head_end, read_head
from edged.http.lane.client import LaneClient
from edged.http.lane.connection import (
    FileUnderWay,
    HeldRequest,
    LaneConnection,
    LaneState,
    StreamUnderWay,
    ThreadWork,
)
from edged.http.lane.precedence import Precedence
from edged.http.lane.remembered import AnswerMemory, opening_of
from edged.http.limits import Limits
from edged.http.meter import Meter
from edged.http.problem import make_problem
from edged.http.request import Request

logger = logging.getLogger("edged.http")

CHUNKED: Fields = ((b"Transfer-Encoding", b"chunked"),)


class LaneAnswers:
    """Changes a connection's inbox and state, and writes nothing. clock: seconds since 1970."""

    def __init__(
        self,
        application: Application,
        clock: Callable[[], float],
        meter: Meter,
        limits: Limits,
        precedence: Precedence,
    ) -> None:
        self.application = application
        self.precedence = precedence
        self.ask = application.answer
        self.clock = clock
        self.meter = meter
        self.limits = limits
        self.memory = AnswerMemory(limits.memory_bytes, meter, application.deciding)

    def renew(self, generation: int) -> None:
        """Before each batch of requests."""
        self.memory.renew(generation, self.clock())

    def next_answer(self, connection: LaneConnection, now: float) -> bytes | None:
        """The answer to the first request of the inbox, taken from it; None if there is none to send yet."""
        inbox = connection.inbox
        if inbox.startswith(b"\r"):
            inbox = connection.inbox = inbox[empty_lines_end(inbox) :]
        if not inbox:
            return None
        if not (b"GET ".startswith(inbox[:4]) or b"HEAD ".startswith(inbox[:5])):
            if inbox.startswith(PREFACE):
                connection.become(LaneState.MULTIPLEXED)
            elif PREFACE.startswith(inbox):
                connection.head_since = connection.head_since or now
            else:
                connection.become(LaneState.HANDING_OVER)
            return None
        raw, limit = inbox, self.limits.head_bytes
        head = self.memory.familiar(connection, inbox, limit)
        try:
            if head is None:
                end = head_end(inbox, limit)
                if end < 0:
                    connection.head_since = connection.head_since or now
                    return None
                if end < len(inbox):  # the first of several, which may have familiar fields like one alone
                    raw = inbox[:end]
                    head = self.memory.familiar(connection, raw, limit)
            connection.head_since = 0.0
            if head is None:
                head = read_head(raw)
                found = self.memory.recall_common(connection, head, raw)
            else:
                found = self.memory.recall(connection, raw)
            if found is None:
                return self.find(connection, raw, head, now)
        except HeadError as fault:
            return self.refuse(connection, fault)
        connection.inbox = inbox[len(raw) :]
        return found

    def find(self, connection: LaneConnection, raw: bytes, head: RequestHead, now: float) -> bytes | None:
        """Ask the application; what it cannot be asked in this lane goes to Hypercorn with all that was read."""
        fields = tuple(head.fields)
        request = Request(head.method.decode(), head.target, fields, head.version, connection.peer, connection.who)
        if head.body or head.expects or (b"upgrade" in request.values and self.is_for_websocket(request)):
            connection.become(LaneState.HANDING_OVER)
            return None
        connection.inbox = connection.inbox[len(raw) :]
        try:  # as `contained` does, which would cost each request two more calls
            answer = self.ask(request)
        except Exception:
            answer = failed(request)
        connection.judge(request)
        self.precedence.note(connection, now)
        if isinstance(answer, InThread):
            work = ThreadWork(answer, head, request, raw, self.memory.generation)
            connection.become(LaneState.IN_THREAD, work)
            return None
        return self.begin(connection, head, answer, now, raw)

    def is_for_websocket(self, request: Request) -> bool:
        """Whether Hypercorn has to open or refuse a WebSocket."""
        wanted = (request.get(b"upgrade") or "").strip().lower() == "websocket"
        return wanted and self.limits.websockets and self.application.on_websocket(request) != "ignore"

    def end_work(self, connection: LaneConnection, work: ThreadWork, now: float) -> bytes | None:
        """A thread has answered. What it read may be of a generation gone by, and is then not remembered."""
        assert work.answer is not None
        raw = work.raw if work.generation == self.memory.generation else b""
        return self.begin(connection, work.head, work.answer, now, raw)

    def resume(self, connection: LaneConnection, held: HeldRequest, now: float, *, last: bool) -> bytes | None:
        """Ask again for the answer to a held request."""
        try:  # as `contained` does: a new head wakes ten thousand
            answer = held.held.resume(last)
        except Exception:
            answer = failed(Request(held.head.method.decode(), held.head.target, ()))
        if isinstance(answer, Held) and not last:
            connection.become(LaneState.HELD, HeldRequest(answer, held.head, held.until))
            return None
        return self.begin(connection, held.head, answer, now)

    def begin(
        self, connection: LaneConnection, head: RequestHead, answer: Answer, now: float, raw: bytes = b""
    ) -> bytes | None:
        """The first bytes of an answer, None where they come later; the connection's state says what follows. raw:
        bytes of a request whose answer may be remembered.
        """
        if isinstance(answer, Response):
            self.meter.fast_answers[answer.status] += 1
            if connection.state is not LaneState.READING:
                connection.become(LaneState.READING)
            connection.closing = answer.last or not head.keep_alive
            return self.memory.whole(connection, head, raw, answer)
        if isinstance(answer, Held):
            head.fields = ()  # a held request takes as little room as it can
            connection.become(LaneState.HELD, HeldRequest(answer, head, now + answer.wait_s))
            return None
        if isinstance(answer, ByTask):
            connection.become(LaneState.BY_TASK, LaneClient(answer, head, self.meter.fast_answers))
            return None
        if isinstance(answer, InThread):
            request = Request(head.method.decode(), head.target, ())
            connection.become(LaneState.IN_THREAD, ThreadWork(answer, head, request, b"", self.memory.generation))
            return None
        self.meter.fast_answers[answer.status] += 1
        if isinstance(answer, FileResponse):
            return self.begin_file(connection, head, answer)
        return self.begin_stream(connection, head, answer)

    def begin_file(self, connection: LaneConnection, head: RequestHead, found: FileResponse) -> bytes:
        close = not head.keep_alive
        connection.become(LaneState.SENDING_FILE, FileUnderWay(found, close, found.offset, found.length))
        if head.method == b"HEAD":
            connection.end_file()
        fields = found.fields + CLOSE if close else found.fields
        return opening_of(found.status, found.timed, self.memory.now) + join_fields(fields) + b"\r\n"

    def begin_stream(self, connection: LaneConnection, head: RequestHead, found: Stream) -> bytes:
        chunked = head.version == "1.1"
        close = not head.keep_alive or not chunked
        fields = found.fields + CHUNKED if chunked else found.fields
        if head.method == b"HEAD":
            connection.become(LaneState.READING)
            connection.closing = close
        else:
            connection.become(LaneState.STREAMING, StreamUnderWay(found, iter(found.pieces), chunked, close))
            self.meter.streams += 1
        opening = opening_of(found.status, found.timed, self.memory.now)
        return opening + join_fields(fields + CLOSE if close else fields) + b"\r\n"

    def refuse(self, connection: LaneConnection, fault: HeadError) -> bytes:
        """The answer to a head that cannot be believed; nothing behind it is read as a request."""
        logger.info("request from %s refused: %s", connection.peer.address, fault)
        return self.give_up(connection, fault.status, str(fault))

    def give_up(self, connection: LaneConnection, status: int, detail: str) -> bytes:
        """An answer of the lane's own, after which the connection ends."""
        connection.inbox = b""
        connection.closing = True
        self.meter.fast_answers[status] += 1
        fields, body = make_problem(status, detail)
        return opening_of(status, DATE, self.memory.now) + join_fields(fields + CLOSE) + b"\r\n" + body
