"""One request on a stream of HTTP/2, and whatever its answer takes: a thread, a task, something that moves, pieces."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import partial
from typing import Protocol

from edged.http.application import (
    Answer,
    ByTask,
    FileResponse,
    Held,
    InThread,
    Response,
    Stream,
    StreamOver,
    contained,
    discard,
    problem,
)
from edged.http.h2.connection import H2Connection
from edged.http.h2.fieldblocks import encode_fields, encode_status
from edged.http.h2.frames import MAX_FRAME_BYTES, ErrorCode
from edged.http.h2.remembered import AnswerPlace, RememberedFrames
from edged.http.head import RequestHead
from edged.http.lane.h2client import H2Client
from edged.http.meter import Meter
from edged.http.request import Request

logger = logging.getLogger("edged.http")

PIECE_BYTES = 64 << 10  # of a file
BODY_BYTES = 64 << 10  # of a body that nobody asked for; behind that it is not waited for


class StreamHost(Protocol):
    """What an exchange asks of the connection that it is on."""

    core: H2Connection
    frames: RememberedFrames
    meter: Meter

    @property
    def now(self) -> float:
        """The lane's clock."""

    def start_work(self, exchange: H2Exchange, work: InThread) -> None:
        """Have a thread answer; `H2Exchange.give` gets what it gives."""

    def start_task(self, exchange: H2Exchange, client: H2Client) -> None:
        """Have the application's task write the answer."""

    def wake(self, exchange: H2Exchange) -> None:
        """Give it a turn soon (`H2Exchange.go_on`)."""

    def end(self, exchange: H2Exchange) -> None:
        """There is no more to do for it."""

    def is_last(self) -> bool:
        """Whether nothing is to be waited for any more: the server stops, or the client sends no more."""


class H2Exchange:
    """A Follower. asked: where its answer may be remembered; until: when a held one is answered at the latest; kept:
    an answer that waits for the end of a body that nobody asked for.
    """

    def __init__(self, host: StreamHost, stream_id: int, head: RequestHead, request: Request) -> None:
        self.host = host
        self.stream_id = stream_id
        self.head = head
        self.request = request
        self.asked: AnswerPlace | None = None
        self.body_open = request.body
        self.body_bytes = 0
        self.kept: Answer | None = None
        self.held: Held | None = None
        self.until = 0.0
        self.client: H2Client | None = None
        self.file: FileResponse | None = None
        self.sent_bytes = 0
        self.stream: Stream | None = None
        self.pieces: Iterator[bytes] = iter(())
        self.generation = -1
        self.progress_at = host.now
        self.over = False

    # --- the answer -------------------------------------------------------------------------------------------------

    def give(self, answer: Answer) -> None:
        """Begin with an answer of any kind."""
        if self.over:
            discard(answer)
        elif isinstance(answer, ByTask):
            self.client = H2Client(answer, self.stream_id, self.head, self.host.core, self.host.meter)
            self.host.start_task(self, self.client)
        elif self.body_open and self.body_bytes <= BODY_BYTES:
            self.kept = answer
        elif isinstance(answer, InThread):
            self.host.start_work(self, answer)
        elif isinstance(answer, Held):
            self.hold(answer, self.until or self.host.now + answer.wait_s)
        else:
            self.host.meter.fast_answers[answer.status] += 1
            self.begin(answer)

    def begin(self, answer: Response | FileResponse | Stream) -> None:
        head_only = self.head.method == b"HEAD"
        core, frames = self.host.core, self.host.frames
        if isinstance(answer, Response):
            block = frames.block_of(answer, self.asked, head_only=head_only)
            core.answer(self.stream_id, block, b"" if head_only else answer.body)
            self.host.end(self)
            if answer.last:
                core.shut_down()
            return
        timed = encode_fields(answer.timed.fields(frames.now))
        block = encode_status(answer.status) + timed + encode_fields(answer.fields)
        core.begin(self.stream_id, block, ended=head_only)
        if isinstance(answer, FileResponse):
            self.file = answer
        else:
            self.stream, self.pieces = answer, iter(answer.pieces)
            self.host.meter.streams += 1
        if head_only:
            self.host.end(self)
        else:
            self.go_on()

    def hold(self, held: Held, until: float) -> None:
        """Wait for the signal; where it has moved meanwhile, or the time is up, ask again at once."""
        while True:
            self.held, self.until = held, until
            last = self.host.is_last() or self.host.now >= until
            if not last and held.signal.follow(self, held.generation):
                return
            held.signal.leave(self)
            answer = contained(partial(held.resume, last), self.request)
            self.held = None
            if not isinstance(answer, Held) or last:
                break
            held = answer
        if isinstance(answer, Held):
            answer = problem(500, "a held answer that is never given")
        self.give(answer)

    def go_on(self) -> None:
        """There is room for more, or what it waits for has moved."""
        if self.over:
            return
        self.progress_at = self.host.now
        if self.held is not None:
            self.hold(self.held, self.until)
        elif self.client is not None:
            self.client.room.unpark_all()
        elif self.host.core.has_room(self.stream_id):
            if self.file is not None:
                self.send_file(self.file)
            elif self.stream is not None:
                self.send_stream(self.stream)

    def send_file(self, file: FileResponse) -> None:
        """The next piece. A file that became shorter breaks its answer off."""
        left = file.length - self.sent_bytes
        try:
            piece = os.pread(file.handle, min(left, PIECE_BYTES), file.offset + self.sent_bytes) if left else b""
        except OSError as fault:
            logger.error("send a file: %s", fault.strerror)
            piece = b""
        if left and not piece:
            logger.error("send a file: %d bytes of it are missing", left)
            self.break_off()
            return
        self.sent_bytes += len(piece)
        self.host.core.send(self.stream_id, piece, ended=len(piece) == left)
        if len(piece) == left:
            self.host.end(self)

    def send_stream(self, stream: Stream) -> None:
        """The next pieces; where there is none, wait for the signal, or end."""
        try:
            while True:
                data = gather(self.pieces)
                if data:
                    self.host.core.send(self.stream_id, data, ended=False)
                    return
                if stream.signal is None or stream.follow is None or self.host.is_last():
                    break
                if stream.signal.follow(self, self.generation):
                    return
                self.generation = stream.signal.generation
                self.pieces = stream.follow()
        except StreamOver:
            pass
        except Exception:  # a stream that fails half-way must not end the others
            logger.exception("answer %s %r", self.request.method, self.request.target[:500])
            self.break_off()
            return
        self.host.core.send(self.stream_id, b"", ended=True)
        self.host.end(self)

    def break_off(self) -> None:
        """What was sent is not whole: the client is told so at once."""
        self.host.core.reset(self.stream_id, ErrorCode.INTERNAL_ERROR)
        self.host.end(self)

    # --- what happens to it -----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """What it waits for has moved."""
        self.host.wake(self)

    def on_body(self, data: bytes) -> None:
        self.progress_at = self.host.now
        if self.client is not None:
            self.client.put_body(data)
            return
        self.body_bytes += len(data)
        self.host.core.consume(self.stream_id, len(data))
        if self.body_bytes > BODY_BYTES:
            self.stop_waiting()

    def on_body_end(self) -> None:
        self.body_open = False
        if self.client is not None:
            self.client.end_body()
        else:
            self.stop_waiting()

    def stop_waiting(self) -> None:
        """Give the answer that waited for a body's end."""
        if self.kept is not None:
            answer, self.kept = self.kept, None
            self.give(answer)

    def end_client(self, client: H2Client, *, failed: bool) -> None:
        """The application's task is through. An answer that it has not ended is broken off."""
        if self.over:
            return
        if client.complete:
            self.host.end(self)
        elif client.status:
            self.break_off()
        elif client.broken:  # by its client, which is no fault of ours
            self.host.core.reset(self.stream_id, ErrorCode.CANCEL)
            self.host.end(self)
        else:
            self.client = None
            self.body_open = False
            self.give(problem(500, "a fault of edged, which its log describes" if failed else "nothing answered"))

    def leave(self) -> None:
        """The client sends no more; it may still read."""
        if self.client is not None:
            self.client.leave()
        elif self.kept is not None:
            self.host.core.reset(self.stream_id, ErrorCode.CANCEL)
            self.host.end(self)
        elif self.held is not None or self.stream is not None:
            self.go_on()

    def sweep(self, body_s: float) -> None:
        """Once a second: deadlines, and what keeps a silent stream alive."""
        now = self.host.now
        if self.held is not None:
            if now >= self.until:
                self.go_on()
        elif self.stream is not None:
            silent = now - self.progress_at >= self.stream.keep_alive_s
            if silent and self.stream.follow is not None and self.host.core.has_room(self.stream_id):
                self.progress_at = now
                self.host.core.send(self.stream_id, self.stream.keep_alive, ended=False)
        elif self.body_open and now - self.progress_at > body_s and (self.client is None or self.client.wants_body):
            self.host.core.reset(self.stream_id, ErrorCode.CANCEL)
            self.host.end(self)

    def release(self) -> None:
        """It is over, however that came."""
        self.over = True
        if self.held is not None:
            self.held.signal.leave(self)
        if self.stream is not None:
            self.host.meter.streams -= 1
            if self.stream.signal is not None:
                self.stream.signal.leave(self)
        if self.file is not None:
            os.close(self.file.handle)
        if self.kept is not None:
            discard(self.kept)
        if self.client is not None and not self.client.complete:
            self.client.abandon()


def gather(pieces: Iterator[bytes]) -> bytes:
    """The next pieces, until a frame is full."""
    parts, size = [], 0
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size >= MAX_FRAME_BYTES:
            break
    return b"".join(parts)
