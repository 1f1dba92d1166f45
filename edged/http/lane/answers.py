"""The fast lane's answers: the memory of requests and answers as bytes, and how a new one is made. No socket here."""

from __future__ import annotations

import logging
import re

from edged.access.identity import Identity
from edged.http.framing import CLOSE, join_fields, status_line
from edged.http.head import Head, HeadError, head_end, read_head
from edged.http.lane.call import Call
from edged.http.lane.connection import Flow, Job, LaneConnection, Wait
from edged.http.memory import OBJECT_BYTES, Memo, size_of_bytes
from edged.http.meter import Meter
from edged.http.problem import make_problem
from edged.http.request import Answer, Held, Request, Response, Shared, Timed, moving_fields
from edged.http.target import is_origin_form
from edged.serve.answers.respond import Service
from edged.serve.answers.routes import answer_contained, is_own, may_be_slow
from edged.serve.catalog import Clock

logger = logging.getLogger("edged.serve")

# How a request asks, judged once: what its answers are remembered under, its fields, whether the connection goes on.
Asker = tuple[bytes, list[tuple[bytes, bytes]], bool]

# Answers that begin alike at any moment: status, moving fields, shared fields, whether the connection ends.
Kind = tuple[int, Timed | None, Shared, bool]

# The first line of a request that is remembered. With fields that were accepted beside another such line, it is a whole
# head that `read_head` accepts: nothing that it looks for lies in both.
LINE = re.compile(rb"(GET|HEAD) (/[!\x22$-~]*) HTTP/1\.1\r\n")
ASKERS_SHIFT = 4  # a sixteenth of the memory is for how requests ask
LAST_KIND = 255


class LaneAnswers:
    """Bytes of requests to bytes of answers.

    An answer depends on the request's bytes, the identity, the kind of listener, the version and the time. The first
    three are the memory's key: a name for identity, listener and all fields of the request together, and its first
    line. `renew` forgets everything at a new version, and puts in what the time says.
    others: whether somebody else answers paths outside the API.
    """

    def __init__(self, service: Service, clock: Clock, meter: Meter, memo_bytes: int, others: bool, limit: int) -> None:
        self.service = service
        self.clock = clock
        self.meter = meter
        self.others = others
        self.head_bytes = limit
        askers_bytes = memo_bytes >> ASKERS_SHIFT
        self.askers: Memo[bytes, Asker] = Memo(askers_bytes, size_of_asker)
        self.last_name = 0
        # The number of a kind in one byte, then what follows its head. Bytes alone: they refer to nothing, so
        # the garbage collector never goes through what is remembered.
        self.memo: Memo[bytes, bytes] = Memo(memo_bytes - askers_bytes, size_of_bytes)
        self.marks: dict[tuple[Identity, bool], bytes] = {}
        self.kinds: list[Kind] = []
        self.heads: list[bytes] = []  # of each kind: status line, moving and shared fields
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
            self.kinds.clear()
            self.second = -1
        now = self.clock()
        if int(now) != self.second:
            self.second = int(now)
            self.heads = [head_of(status, timed, now) + shared.lines for status, timed, shared, _ in self.kinds]

    def recall(self, connection: LaneConnection, raw: bytes) -> bytes | None:
        """The remembered answer to `raw`, if that is a whole request that was answered before."""
        cut = raw.find(b"\r\n")
        asker = self.askers.entries.get(connection.mark + raw[cut:])
        if asker is None:
            return None
        known = self.memo.entries.get(asker[0] + raw[:cut])
        if known is None:
            return None
        kind = known[0]
        status, _, _, connection.closing = self.kinds[kind]
        self.meter.fast_answers[status] += 1
        self.meter.remembered += 1
        return self.heads[kind] + known[1:]

    def familiar(self, connection: LaneConnection, raw: bytes) -> Head | None:
        """What `raw` says, if it is one whole request with fields that were accepted before."""
        asker = self.askers.entries.get(connection.mark + raw[raw.find(b"\r\n") :])
        line = LINE.match(raw) if asker is not None and len(raw) <= self.head_bytes else None
        if asker is None or line is None:
            return None
        return Head(line[1], line[2], "1.1", asker[1], False, False, asker[2])

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
        head = self.familiar(connection, inbox)
        raw = inbox
        try:
            if head is None:
                end = head_end(inbox, self.head_bytes)
                if end < 0:
                    connection.head_since = connection.head_since or now
                    return None
                raw = inbox[:end]
            connection.head_since = 0.0
            found = self.recall(connection, raw)
            if found is None:
                return self.find(connection, raw, read_head(raw) if head is None else head, now)
        except HeadError as fault:
            return self.refuse(connection, fault)
        connection.inbox = inbox[len(raw) :]
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
        return self.begin(connection, request, found, close, now, raw)

    def end_job(self, connection: LaneConnection, job: Job, found: Answer, now: float) -> bytes | None:
        """A thread has answered; what it read may be of a version gone by, and is then not remembered."""
        connection.job = None
        raw = job.raw if job.generation == self.generation else b""
        return self.begin(connection, job.request, found, job.close, now, raw)

    def remember(self, connection: LaneConnection, request: Request, raw: bytes, kind: int, rest: bytes) -> None:
        """Keep an answer. rest: what follows the head of its kind."""
        if LINE.match(raw) is None:
            return
        cut = raw.find(b"\r\n")
        place = connection.mark + raw[cut:]
        asker = self.askers.get(place)
        if asker is None:
            self.last_name += 1  # never used again: what was remembered under a forgotten one is never found
            asker = (self.last_name.to_bytes(8, "big"), list(request.fields), not self.kinds[kind][3])
            self.askers.put(place, asker)
        self.memo.put(asker[0] + raw[:cut], b"%c%b" % (kind, rest))
        self.meter.memo_bytes = self.memo.used_bytes + self.askers.used_bytes

    def begin(
        self, connection: LaneConnection, request: Request, found: Answer, close: bool, now: float, raw: bytes = b""
    ) -> bytes | None:
        """The first bytes of an answer; None where the request is held. raw: bytes of a request whose answer may be
        remembered.
        """
        if isinstance(found, Held):
            connection.wait = Wait(found, request, close, now + found.wait_s)
            return None
        self.meter.fast_answers[found.status] += 1
        if isinstance(found, Response):
            connection.closing = close
            kind = self.kind_of((found.status, found.timed, found.shared, close))
            rest = rest_of(found, request.method == "HEAD", close)
            if found.keep and raw:
                self.remember(connection, request, raw, kind, rest)
            return self.heads[kind] + rest
        chunked = request.version == "1.1"
        close = close or not chunked
        fields = (*found.fields, (b"Transfer-Encoding", b"chunked")) if chunked else found.fields
        if request.method == "HEAD":
            connection.closing = close
        else:
            connection.flow = Flow(found, iter(found.pieces), chunked, close, self.generation)
            self.meter.streams += 1
        before = head_of(found.status, found.timed, self.clock())
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
        fields, body = make_problem(fault.status, str(fault))
        return head_of(fault.status, None, self.clock()) + join_fields(fields + CLOSE) + b"\r\n" + body

    def kind_of(self, kind: Kind) -> int:
        """The number of a kind of answers; a new one where there is none. With more of them than one byte can name,
        everything is forgotten: they are few, but for somebody who asks in every way that there is.
        """
        for number, known in enumerate(self.kinds):
            if known == kind:
                return number
        if len(self.kinds) > LAST_KIND:
            self.memo.clear()
            self.kinds.clear()
            self.heads.clear()
        self.kinds.append(kind)
        self.heads.append(head_of(kind[0], kind[1], self.clock()) + kind[2].lines)
        return len(self.kinds) - 1


def rest_of(found: Response, head_only: bool, close: bool) -> bytes:
    """What follows status line, moving and shared fields: the answer's own fields, the blank line, the body."""
    own = join_fields(found.own + CLOSE if close else found.own)
    return b"%b\r\n%b" % (own, b"" if head_only else found.body)


def head_of(status: int, timed: Timed | None, now: float) -> bytes:
    """Status line and the fields that the time moves."""
    return status_line(status) + join_fields(moving_fields(timed, now))


def size_of_asker(place: bytes, asker: Asker) -> int:
    """What a way of asking takes: its bytes, and again as fields, each a tuple of two."""
    return 2 * len(place) + len(asker[1]) * (2 * OBJECT_BYTES + 72) + 3 * OBJECT_BYTES + 200
