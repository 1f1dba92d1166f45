"""One HTTP/2 connection, this side the server: the peer's bytes to events, and answers to bytes (RFC 9113).

Which frame is taken when, and by what, is the table HANDLERS. Nothing is raised for what a peer does: a fault of a
stream ends the stream, and one of the connection ends it, with the reason in a GOAWAY.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edged.http.h2 import frames
from edged.http.h2.answering import CONNECTION_WINDOW, OUT_BYTES
from edged.http.h2.control import CONTINUATIONS, ControlFrames, H2Phase
from edged.http.h2.events import BodyEnded, BodyReceived, RequestReceived, RequestRefused, StreamReset
from edged.http.h2.fieldblocks import BlockDecoder, Decoded, Field
from edged.http.h2.frames import (
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    PREFACE,
    PRIORITY,
    STREAM_BITS,
    ConnectionFault,
    ErrorCode,
    FrameType,
    Setting,
    StreamFault,
)
from edged.http.h2.remembered import MARK, OWN, AnswerPlace, RememberedFrames
from edged.http.h2.requests import MalformedMessage, announced_length, read_request, read_trailers
from edged.http.h2.streams import H2Stream, StreamStep

HEADERS = int(FrameType.HEADERS)
WHOLE = END_STREAM | END_HEADERS  # a request in one frame, without a body
BODY_FOLLOWS, NO_BODY = HEADERS << 8 | END_HEADERS, HEADERS << 8 | WHOLE
DATA_PREFIX = 5  # bytes of a frame's header before the stream's number
FIELDS = b"\xff" * 8  # no state of a table has this name
UNEXPECTED = frozenset({FrameType.PUSH_PROMISE, FrameType.CONTINUATION})
BLOCK_HEADS = 2  # times `head_bytes`: a field block that is decoded, so that what is a little too large is answered 431
FRAMES_A_TURN = 128  # then others get their turn
LONG_WAY = 3  # frames that one counts for besides, where memory does not answer it
SKIPPED = 16  # ranges of numbers that the peer has passed over, the newest


@dataclass(frozen=True, slots=True)
class H2Limits:
    """streams: open at once; head_bytes: of a field block, and of a list of fields as SETTINGS_MAX_HEADER_LIST_SIZE
    counts it.
    """

    streams: int
    head_bytes: int


@dataclass(slots=True)
class OpenBlock:
    """A field block of which more may come. depends_on: the stream that its own should depend on; -1 for none."""

    stream_id: int
    ended: bool
    pieces: list[bytes]
    size: int
    depends_on: int = -1


class H2Connection(ControlFrames):
    """mark: bytes before its places in memory, the same only for whoever may be given the same answers."""

    def __init__(
        self, decoder: BlockDecoder, memory: RememberedFrames, limits: H2Limits, mark: bytes, now: float
    ) -> None:
        super().__init__(now)
        self.decoder = decoder
        self.memory = memory
        self.limits = limits
        self.mark = MARK + mark
        self.judged = True  # whoever answers knows who asks, so that memory may
        self.turn = FRAMES_A_TURN  # how many frames are read before others get theirs
        self.leaving = False  # a GOAWAY was said
        self.inbox = b""
        self.table = decoder.empty
        self.place = self.mark + self.table.name
        self.block: OpenBlock | None = None
        self.skipped: deque[tuple[int, int]] = deque(maxlen=SKIPPED)
        settings = (
            (Setting.MAX_CONCURRENT_STREAMS, limits.streams),
            (Setting.MAX_HEADER_LIST_SIZE, limits.head_bytes),
            (Setting.NO_RFC7540_PRIORITIES, 1),
        )
        self.flow.put(frames.settings_frame(settings))
        self.flow.put(frames.window_update(0, CONNECTION_WINDOW - frames.FIRST_WINDOW))

    # --- the peer's bytes -------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Read what is there, until there is much to send: then again, with nothing, once that has gone."""
        self.now = now
        if self.phase is H2Phase.ENDED:
            return
        self.inbox = self.inbox + data if self.inbox else data
        try:
            self.read_frames()
        except ConnectionFault as fault:
            self.end(fault.code, str(fault))

    def has_more(self) -> bool:
        """Whether `receive` has left whole frames behind to give others their turn."""
        inbox = self.inbox
        if self.phase in (H2Phase.ENDED, H2Phase.PREFACE) or len(inbox) < HEADER_BYTES:
            return False
        high, low, _, _, _ = HEADER.unpack_from(inbox)
        return len(inbox) >= HEADER_BYTES + (int(high) << 8 | int(low))

    def is_partial(self) -> bool:
        """Whether the peer is in the midst of its preface, a frame or a field block."""
        return bool(self.inbox) or self.phase in (H2Phase.PREFACE, H2Phase.SETTINGS, H2Phase.BLOCK)

    def is_finished(self) -> bool:
        """Whether nothing more will come of the connection once `take_output` is sent."""
        return self.phase is H2Phase.ENDED or (self.phase is H2Phase.DRAINING and not self.streams)

    def shut_down(self) -> None:
        """Take no further requests, and let those under way end (section 6.8)."""
        if self.phase in (H2Phase.PREFACE, H2Phase.SETTINGS):
            self.end(ErrorCode.NO_ERROR, "the server stops")
        elif not self.leaving and self.phase is not H2Phase.ENDED:
            self.leaving = True
            self.flow.put(frames.goaway(max(0, self.last_id), ErrorCode.NO_ERROR, "the server stops"))
            if self.phase is H2Phase.OPEN:
                self.phase = H2Phase.DRAINING

    def end(self, code: ErrorCode, detail: str) -> None:
        """Say why, and read no more."""
        if self.phase is not H2Phase.ENDED:
            self.phase = H2Phase.ENDED
            self.inbox = b""
            self.abandon(code, detail)
            self.flow.put(frames.goaway(max(0, self.last_id), code, detail))

    def read_frames(self) -> None:
        """Frame by frame. Raises ConnectionFault."""
        inbox, at, left = self.inbox, 0, self.turn
        if self.phase is H2Phase.PREFACE:
            if not PREFACE.startswith(inbox[: len(PREFACE)]):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected the preface of HTTP/2 (RFC 9113 section 3.4)")
            if len(inbox) < len(PREFACE):
                return
            self.phase = H2Phase.SETTINGS
            at = len(PREFACE)
        size, flow, unpack = len(inbox), self.flow, HEADER.unpack_from
        try:
            while size - at >= HEADER_BYTES and left > 0 and flow.out_bytes < OUT_BYTES:
                high, low, kind, flags, stream_id = unpack(inbox, at)
                length = high << 8 | low
                if length > MAX_FRAME_BYTES:
                    what = f"expected a frame of at most {MAX_FRAME_BYTES} bytes, got {length}"
                    raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, what)
                end = at + HEADER_BYTES + length
                if end > size:
                    break
                payload = inbox[at + HEADER_BYTES : end]
                at = end
                left -= 1
                if kind != HEADERS or flags != WHOLE or not self.recall(stream_id, payload):
                    left -= LONG_WAY
                    self.dispatch(kind, flags, stream_id & STREAM_BITS, payload)
        finally:
            self.inbox = inbox[at:]

    def recall(self, stream_id: int, block: bytes) -> bool:
        """Answer a whole request from memory, at once: the way that nearly all requests go.

        Not where the number is not the next, or a window is too narrow: those go the long way.
        """
        key = self.place + block
        known = self.memory.entries.get(key)
        if known is None or stream_id != self.last_id + 2 or self.phase is not H2Phase.OPEN or not self.judged:
            return False
        if not self.put_known(stream_id, known):
            return False
        self.memory.memo.visit(key)
        self.last_id = stream_id
        return True

    def put_known(self, stream_id: int, known: bytes) -> bool:
        """A remembered answer as frames; False where it cannot go out whole and at once."""
        memory, flow = self.memory, self.flow
        kind = known[0] << 8 | known[1]
        head = memory.heads[kind]
        if not head:
            return False  # of a generation gone by
        own_end = OWN + (known[2] << 8 | known[3])
        size = len(known) - own_end - DATA_PREFIX
        length = len(head) + own_end - OWN
        if size > flow.window or size > flow.first_window or length > MAX_FRAME_BYTES or self.resize:
            return False
        if size > 0:
            flow.window -= size
            # its DATA frame's header lies behind the own fields, but for the stream's number
            begin = ((length << 16 | BODY_FOLLOWS) << 32 | stream_id).to_bytes(HEADER_BYTES, "big")
            own_end += DATA_PREFIX
            flow.out += (begin, head, known[OWN:own_end], begin[DATA_PREFIX:], known[own_end:])
            flow.out_bytes += length + size + 2 * HEADER_BYTES
        else:
            begin = ((length << 16 | NO_BODY) << 32 | stream_id).to_bytes(HEADER_BYTES, "big")
            flow.out += (begin, head, known[OWN:])
            flow.out_bytes += length + HEADER_BYTES
        memory.hits[kind] += 1
        memory.sizes[kind] += length + max(size, 0)
        memory.has_hits = True
        self.answered += 1
        return True

    def dispatch(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """One frame by HANDLERS. Raises ConnectionFault."""
        handler = HANDLERS.get((self.phase, kind))
        try:
            if handler is not None:
                handler(self, flags, stream_id, payload)
            elif self.phase is H2Phase.SETTINGS:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected SETTINGS behind the preface")
            elif self.phase is H2Phase.BLOCK:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected CONTINUATION within a field block")
            elif kind in UNEXPECTED:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{FrameType(kind).name}: not expected of a client")
            else:
                self.spend_control("frames of unknown type")  # ignored (section 5.5)
        except StreamFault as fault:
            self.on_fault(fault)

    def on_fault(self, fault: StreamFault) -> None:
        """A fault of one stream ends that stream; peers that make us do so without end, end their connection."""
        self.spend_reset("streams at fault")
        self.flow.put(frames.rst_stream(fault.stream_id, fault.code))
        stream = self.streams.get(fault.stream_id)
        if stream is None:
            self.pass_over(fault.stream_id)
        else:
            self.discard(stream)
            self.events.append(StreamReset(fault.stream_id, fault.code))

    # --- requests ---------------------------------------------------------------------------------------------------

    def on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"HEADERS: expected an odd stream, got {stream_id}")
        closed = stream_id <= self.last_id and stream_id not in self.streams and stream_id not in self.cut
        if closed:
            never = any(first <= stream_id <= last for first, last in self.skipped)
            code = ErrorCode.PROTOCOL_ERROR if never else ErrorCode.STREAM_CLOSED
            raise ConnectionFault(code, f"HEADERS: stream {stream_id} is closed")
        piece, depends_on = frames.unpad(FrameType.HEADERS, flags, payload), -1
        if flags & PRIORITY:
            depends_on, piece = frames.split_priority(piece)
        self.block = OpenBlock(stream_id, bool(flags & END_STREAM), [piece], len(piece), depends_on)
        self.phase = H2Phase.BLOCK
        if flags & END_HEADERS:
            self.close_block(self.block)

    def on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self.block
        assert block is not None
        if stream_id != block.stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION: of another stream than its field block")
        block.pieces.append(payload)
        block.size += len(payload)
        if len(block.pieces) > CONTINUATIONS or block.size > BLOCK_HEADS * self.limits.head_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a field block that is too long, or in too many frames")
        if flags & END_HEADERS:
            self.close_block(block)

    def close_block(self, block: OpenBlock) -> None:
        """A whole field block: decode it, whatever it is for, as the table goes on with it."""
        self.phase = H2Phase.DRAINING if self.leaving else H2Phase.OPEN
        self.block = None
        whole = b"".join(block.pieces)
        place, before = self.place + whole, self.table
        decoded = self.decoder.decode(before, whole)
        if decoded.after is not before:
            self.table = decoded.after
            self.place = self.mark + self.table.name
            place = self.mark + place_of(decoded)  # of clients that enter every path in the table
        stream = self.streams.get(block.stream_id)
        if stream is not None:
            self.on_trailers(stream, block, decoded)
        elif block.stream_id in self.cut:
            self.spend_control("HEADERS on streams that are over")
        else:
            self.open_stream(block, decoded, place)

    def open_stream(self, block: OpenBlock, decoded: Decoded, place: bytes) -> None:
        """A new request. Raises StreamFault where it is malformed or one too many."""
        stream_id = block.stream_id
        if self.leaving:
            return  # its number is above the one in our GOAWAY: the peer asks again elsewhere
        if stream_id > self.last_id + 2:
            self.skipped.append((self.last_id + 2, stream_id - 2))
        self.last_id = stream_id
        if block.depends_on == stream_id:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")
        if len(self.streams) >= self.limits.streams:
            raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM, f"more than {self.limits.streams} streams")
        known = self.memory.entries.get(place) if block.ended and self.judged else None
        if known is not None and self.put_known(stream_id, known):
            return
        stream = H2Stream(stream_id, self.flow.first_window, None)
        if decoded.fields is None:
            what = f"head: expected at most {self.decoder.count} fields of {self.limits.head_bytes} bytes in all"
            self.events.append(RequestRefused(stream_id, 431, f"{what}, got more"))
        else:
            try:
                head = read_request(decoded.fields, ended=block.ended)
            except MalformedMessage as fault:
                raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, str(fault)) from fault
            if known is not None:
                known = self.memory.renewed(place, known, head.target)
                if known is not None and self.put_known(stream_id, known):
                    return
            stream.body_left = announced_length(head)
            for name, value in head.fields:
                if name == b"priority":
                    stream.prioritise(value)
            asked = AnswerPlace(place, self.memory.generation) if block.ended else None
            self.events.append(RequestReceived(stream_id, head, block.ended, asked))
        self.streams[stream_id] = stream
        if block.ended:
            stream.step(StreamStep.PEER_ENDS)

    def on_trailers(self, stream: H2Stream, block: OpenBlock, decoded: Decoded) -> None:
        """The fields behind a body. Raises StreamFault for what is none."""
        if not stream.hears_peer():
            raise StreamFault(stream.stream_id, ErrorCode.STREAM_CLOSED, "HEADERS behind the end of a request")
        if not block.ended or decoded.fields is None:
            raise StreamFault(stream.stream_id, ErrorCode.PROTOCOL_ERROR, "trailers: too large, or not the end")
        try:
            trailers = read_trailers(decoded.fields)
        except MalformedMessage as fault:
            raise StreamFault(stream.stream_id, ErrorCode.PROTOCOL_ERROR, str(fault)) from fault
        self.end_body(stream, trailers)

    def on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.require_opened(FrameType.DATA, stream_id)
        size = len(payload)
        if size > self.room:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"DATA: expected at most {self.room} bytes, got {size}")
        self.room -= size
        data = frames.unpad(FrameType.DATA, flags, payload)
        if not data and not flags & END_STREAM:
            self.spend_control("empty DATA")
        stream = self.streams.get(stream_id)
        if stream is None or not stream.hears_peer():
            self.give_back(size)
            if stream_id in self.cut:
                return
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "DATA behind the end of a request")
        stream.unread += size
        if size > stream.room:
            raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "DATA: more than the stream's window")
        stream.room -= size
        self.consume(stream_id, size - len(data))  # padding is taken as soon as it is read
        if stream.body_left is not None:
            stream.body_left -= len(data)
            if stream.body_left < 0:
                raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "a body longer than its content-length")
        if data:
            self.events.append(BodyReceived(stream_id, data))
        if flags & END_STREAM:
            self.end_body(stream, ())

    def end_body(self, stream: H2Stream, trailers: tuple[Field, ...]) -> None:
        """Raises StreamFault for a body that is shorter than was announced (section 8.1.1)."""
        if stream.body_left:
            raise StreamFault(stream.stream_id, ErrorCode.PROTOCOL_ERROR, "a body shorter than its content-length")
        stream.step(StreamStep.PEER_ENDS)
        self.events.append(BodyEnded(stream.stream_id, trailers))


def place_of(decoded: Decoded) -> bytes:
    """The fields themselves, where a block says them in its table's words; no block begins so."""
    return b"\0".join((FIELDS, *[b"%b:%b" % field for field in decoded.fields or ()]))


Handler = Callable[[H2Connection, int, int, bytes], None]

# Every frame that is taken, by phase. What is absent and of a known type is the peer's fault.
ANY_TIME: dict[FrameType, Handler] = {
    FrameType.DATA: H2Connection.on_data,
    FrameType.HEADERS: H2Connection.on_headers,
    FrameType.PRIORITY: H2Connection.on_priority,
    FrameType.RST_STREAM: H2Connection.on_rst_stream,
    FrameType.SETTINGS: H2Connection.on_settings,
    FrameType.PING: H2Connection.on_ping,
    FrameType.GOAWAY: H2Connection.on_goaway,
    FrameType.WINDOW_UPDATE: H2Connection.on_window_update,
    FrameType.PRIORITY_UPDATE: H2Connection.on_priority_update,
}
HANDLERS: dict[tuple[H2Phase, int], Handler] = {
    (H2Phase.SETTINGS, FrameType.SETTINGS): H2Connection.on_settings,
    **{(phase, kind): handler for phase in (H2Phase.OPEN, H2Phase.DRAINING) for kind, handler in ANY_TIME.items()},
    (H2Phase.BLOCK, FrameType.CONTINUATION): H2Connection.on_continuation,
}
