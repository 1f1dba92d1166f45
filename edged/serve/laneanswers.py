"""The fast lane's answers: the memory of requests and answers as bytes, and how a new one is made. No socket here."""

from __future__ import annotations

import logging

from edged.access.identity import Identity
from edged.serve.api import answer_contained, is_own, may_be_slow
from edged.serve.head import Head, HeadError, head_end, read_head
from edged.serve.lanecall import Call
from edged.serve.laneconn import Flow, Job, LaneConnection, Wait
from edged.serve.memo import Memo
from edged.serve.message import Answer, Held, Request, Response, Timed, moving_fields
from edged.serve.meter import Meter
from edged.serve.service import Service
from edged.serve.source import Clock
from edged.serve.target import is_origin_form
from edged.serve.wire import CLOSE, STATUS_LINES, join_fields, refusal, rest_of

logger = logging.getLogger("edged.serve")

# Status line, number of the moving fields, the rest, whether to close, status. Nothing in it can refer to anything, so
# the garbage collector forgets it: else each of its full rounds would go through every remembered answer.
Remembered = tuple[bytes, int, bytes, bool, int]


class LaneAnswers:
    """Bytes of requests to bytes of answers.

    An answer depends on the request's bytes, the identity, the kind of listener, the version and the time. The first
    three are the memory's key; `renew` forgets everything at a new version, and puts in what the time says.
    others: whether somebody else answers paths outside the API.
    """

    def __init__(self, service: Service, clock: Clock, meter: Meter, memo_bytes: int, others: bool, limit: int) -> None:
        self.service = service
        self.clock = clock
        self.meter = meter
        self.others = others
        self.head_bytes = limit
        self.memo: Memo[bytes, Remembered] = Memo(memo_bytes)
        self.marks: dict[tuple[Identity, bool], bytes] = {}
        self.timed: list[Timed | None] = [None]
        self.moving: list[bytes] = [b""]
        self.second = -1
        self.generation = -1

    def mark_of(self, who: Identity, unix: bool) -> bytes:
        """Four bytes before each key of the memory, the same only for the same identity and kind of listener."""
        return self.marks.setdefault((who, unix), len(self.marks).to_bytes(4, "big"))

    def accepts_host(self, host: bytes) -> bool:
        """Whether a Host value is one of `hosts`; what is proxied is behind the same check as the API."""
        return self.service.web.knows(host.decode("latin-1").lower())

    def renew(self, generation: int) -> None:
        """Before each batch of requests. generation: of the news; another one means that a version has moved."""
        if generation != self.generation:
            self.generation = generation
            self.memo.clear()
            del self.timed[1:]
            self.second = -1
        now = self.clock()
        if int(now) != self.second:
            self.second = int(now)
            self.moving = [join_fields(moving_fields(timed, now)) for timed in self.timed]

    def known(self, key: bytes, connection: LaneConnection) -> bytes | None:
        """The remembered answer to the request `key`, the connection's mark included."""
        entry = self.memo.entries.get(key)
        if entry is None:
            return None
        line, number, rest, connection.closing, status = entry[0]
        self.meter.fast_answers[status] += 1
        self.meter.remembered += 1
        return line + self.moving[number] + rest

    def next_answer(self, connection: LaneConnection, now: float) -> bytes | None:
        """The answer to the first request of the inbox, taken from it; None if there is none to send yet."""
        inbox = connection.inbox
        while inbox.startswith(b"\r\n"):
            inbox = inbox[2:]  # an empty line before a request is passed over (RFC 9112 section 2.2)
        connection.inbox = inbox
        if not inbox:
            return None
        if not (b"GET ".startswith(inbox[:4]) or b"HEAD ".startswith(inbox[:5])):
            connection.handing = True
            return None
        try:
            end = head_end(inbox, self.head_bytes)
            if end < 0:
                connection.head_since = connection.head_since or now
                return None
            raw = inbox[:end]
            connection.head_since = 0.0
            found = self.known(connection.mark + raw, connection)
            if found is None:
                return self.find(connection, raw, read_head(raw), now)
        except HeadError as fault:
            return self.refuse(connection, fault)
        connection.inbox = inbox[end:]
        return found

    def find(self, connection: LaneConnection, raw: bytes, head: Head, now: float) -> bytes | None:
        """Answer a request that is not remembered, and remember it if it may be."""
        foreign = self.others and is_origin_form(head.target) and not is_own(head.target.partition(b"?")[0])
        if foreign and connection.proxied is not None:
            answer = connection.proxied.lookup(raw, head)
            if answer is not None:
                connection.inbox = connection.inbox[len(raw) :]
                if not isinstance(answer, bytes):
                    connection.call = Call(answer, head)
                    return None
                self.meter.remembered += 1
                return answer
        if head.body or head.expects or foreign:
            connection.handing = True
            return None
        connection.inbox = connection.inbox[len(raw) :]
        request = Request(head.method.decode(), head.target, tuple(head.fields), head.version, connection.peer.unix)
        close = not head.keep_alive
        if may_be_slow(head.target.partition(b"?")[2]):
            connection.job = Job(request, raw, close, self.generation)
            return None
        found = answer_contained(request, connection.who, self.service, self.clock())
        self.remember(connection, request, raw, found, close)
        return self.begin(connection, request, found, close, now)

    def end_job(self, connection: LaneConnection, job: Job, found: Answer, now: float) -> bytes | None:
        """A thread has answered; what it read may be of a version gone by, and is then not remembered."""
        connection.job = None
        if job.generation == self.generation:
            self.remember(connection, job.request, job.raw, found, job.close)
        return self.begin(connection, job.request, found, job.close, now)

    def remember(self, connection: LaneConnection, request: Request, raw: bytes, found: Answer, close: bool) -> None:
        """Keep an answer that may be kept."""
        if isinstance(found, Response) and found.keep:
            rest = rest_of(found, request.method == "HEAD", close)
            line, number = STATUS_LINES[found.status], self.number_of(found.timed)
            entry = (line, number, rest, close, found.status)
            self.memo.put(connection.mark + raw, entry, len(raw) + len(rest))
            self.meter.memo_bytes = self.memo.used_bytes

    def begin(
        self, connection: LaneConnection, request: Request, found: Answer, close: bool, now: float
    ) -> bytes | None:
        """The first bytes of an answer; None where the request is held."""
        if isinstance(found, Held):
            connection.wait = Wait(found, request, close, now + found.wait_s)
            return None
        self.meter.fast_answers[found.status] += 1
        before = STATUS_LINES[found.status] + self.moving[self.number_of(found.timed)]
        if isinstance(found, Response):
            connection.closing = close
            return before + rest_of(found, request.method == "HEAD", close)
        chunked = request.version == "1.1"
        close = close or not chunked
        fields = (*found.fields, (b"Transfer-Encoding", b"chunked")) if chunked else found.fields
        if request.method == "HEAD":
            connection.closing = close
        else:
            connection.flow = Flow(found, iter(found.pieces), chunked, close, self.generation)
            self.meter.streams += 1
        return before + join_fields(fields + CLOSE if close else fields) + b"\r\n"

    def has_moved(self, wait: Wait) -> bool:
        return self.service.catalog[wait.held.dataset].version != wait.held.version

    def end_wait(self, connection: LaneConnection, wait: Wait, now: float) -> bytes | None:
        """The answer to a held request, whatever there is now."""
        connection.wait = None
        found = answer_contained(wait.request, connection.who, self.service, self.clock(), may_hold=False)
        return self.begin(connection, wait.request, found, wait.close, now)

    def refuse(self, connection: LaneConnection, fault: HeadError) -> bytes:
        """The answer to a head that cannot be believed; nothing behind it is read as a request."""
        logger.info("request from %s refused: %s", connection.peer.address, fault)
        connection.inbox = b""
        connection.closing = True
        self.meter.fast_answers[fault.status] += 1
        fields, body = refusal(fault.status)
        return STATUS_LINES[fault.status] + self.moving[0] + join_fields(fields + CLOSE) + b"\r\n" + body

    def number_of(self, timed: Timed | None) -> int:
        """The place of these moving fields; made where they are new."""
        for number, known in enumerate(self.timed):
            if known == timed:
                return number
        self.timed.append(timed)
        self.moving.append(join_fields(moving_fields(timed, self.clock())))
        return len(self.timed) - 1
