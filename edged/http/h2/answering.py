"""This side of a connection: its open streams, what is answered on them, and how much of bodies the peer may send."""

from __future__ import annotations

from edged.http.h2 import frames
from edged.http.h2.events import ConnectionEnded, Drained, Event, StreamReset
from edged.http.h2.frames import FIRST_WINDOW, MAX_FRAME_BYTES, ErrorCode
from edged.http.h2.outflow import Outflow
from edged.http.h2.streams import H2Stream, StreamStep

CONNECTION_WINDOW = 1 << 18  # what the peer may send of bodies that nobody has taken yet, in all streams
OUT_BYTES = 256 << 10  # of answers, before they are sent: then no more requests are read
CUT_STREAMS = 1024  # whose last frames are still passed over, the newest


class AnsweringSide:
    """streams: that are open, by number; cut: those that this side has ended before the peer had; last_id: the highest
    number that the peer has opened; room: what it may send of bodies; taken: of them, given back to `room` soon;
    answered: how many requests in all; resize: goes before our next block, where the peer's table has shrunk.
    """

    def __init__(self) -> None:
        self.flow = Outflow()
        self.events: list[Event] = []
        self.streams: dict[int, H2Stream] = {}
        self.cut: dict[int, None] = {}
        self.last_id = -1
        self.room = CONNECTION_WINDOW
        self.taken = 0
        self.answered = 0
        self.resize = b""

    # --- what whoever answers says ----------------------------------------------------------------------------------

    def answer(self, stream_id: int, block: bytes, body: bytes) -> None:
        """A whole answer. Nothing where the peer has given the stream up meanwhile, as everywhere here."""
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        self.put_block(stream_id, block, ended=not body)
        stream.begun = True
        if not body:
            self.finish(stream)
        elif not self.flow.waiting and len(body) <= min(self.flow.window, stream.window, MAX_FRAME_BYTES):
            self.flow.put_last(stream, body)
            self.finish(stream)
        else:
            self.flow.queue(stream, body, ended=True)

    def begin(self, stream_id: int, block: bytes, *, ended: bool) -> None:
        """The head of the final answer. block: its fields, encoded, `:status` first; ended: there is no body."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.put_block(stream_id, block, ended=ended)
            stream.begun = True
            if ended:
                self.finish(stream)

    def interim(self, stream_id: int, block: bytes) -> None:
        """A 1xx before the answer (RFC 9110 section 15.2)."""
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.begun:
            self.put_block(stream_id, block, ended=False)

    def send(self, stream_id: int, data: bytes, *, ended: bool) -> None:
        """A piece of the answer's body. `Drained` says when it has gone; ended: it was the last."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.flow.queue(stream, data, ended=ended)

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream at once: an answer that breaks off, or that cannot be given (RFC 9113 section 5.4.2)."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.flow.put(frames.rst_stream(stream_id, code))
            self.discard(stream)

    def consume(self, stream_id: int, count: int) -> None:
        """So much of a body was taken by whoever answers: the peer may send as much again."""
        stream = self.streams.get(stream_id)
        if stream is None:
            return  # what was left of it was given back when it ended
        stream.unread -= count
        stream.taken += count
        if stream.taken >= FIRST_WINDOW // 2 and stream.hears_peer():
            self.flow.put(frames.window_update(stream_id, stream.taken))
            stream.room += stream.taken
            stream.taken = 0
        self.give_back(count)

    def has_room(self, stream_id: int) -> bool:
        """Whether nothing of what was given for a stream is waiting."""
        stream = self.streams.get(stream_id)
        return stream is None or not stream.queue

    def take_output(self, room: int = OUT_BYTES) -> bytes:
        """What is to be sent now, some `room` bytes of it at most; nothing where nothing can be."""
        for stream in self.flow.pump(room):
            if stream.ending:
                self.finish(stream)
            self.events.append(Drained(stream.stream_id))  # the end too: whoever gave it waits until it has gone
        return self.flow.take()

    def take_events(self) -> list[Event]:
        """What has happened since this was last asked, in order."""
        events = self.events
        if events:
            self.events = []
        return events

    # --- streams ----------------------------------------------------------------------------------------------------

    def put_block(self, stream_id: int, block: bytes, *, ended: bool) -> None:
        block, self.resize = self.resize + block, b""
        self.flow.put(frames.headers_frames(stream_id, block, ended=ended, limit=MAX_FRAME_BYTES))

    def finish(self, stream: H2Stream) -> None:
        """The end of an answer is on its way. A body of which the peer has more is not wanted (section 8.1)."""
        self.answered += 1
        stream.step(StreamStep.WE_END)
        if stream.hears_peer():
            self.flow.put(frames.rst_stream(stream.stream_id, ErrorCode.NO_ERROR))
        self.discard(stream)

    def discard(self, stream: H2Stream) -> None:
        """A stream is over: what it held is free at once."""
        if stream.hears_peer():
            self.pass_over(stream.stream_id)
        self.flow.drop(stream)
        self.give_back(stream.unread)
        del self.streams[stream.stream_id]

    def pass_over(self, stream_id: int) -> None:
        """What of a stream is still on its way from the peer means nothing any more (section 5.1)."""
        self.cut[stream_id] = None
        if len(self.cut) > CUT_STREAMS:
            del self.cut[next(iter(self.cut))]

    def give_back(self, count: int) -> None:
        """Room in the connection's window, said to the peer in large pieces."""
        self.taken += count
        if self.taken >= CONNECTION_WINDOW // 2:
            self.flow.put(frames.window_update(0, self.taken))
            self.room += self.taken
            self.taken = 0

    def abandon(self, code: ErrorCode, detail: str) -> None:
        """The connection is over: so is every stream, and whoever answers on one is told."""
        for stream in list(self.streams.values()):
            self.discard(stream)
            self.events.append(StreamReset(stream.stream_id, code))
        self.events.append(ConnectionEnded(code, detail))

    def held_bytes(self) -> int:
        """What of answers waits for the peer to take it."""
        return self.flow.queued_bytes + self.flow.out_bytes
