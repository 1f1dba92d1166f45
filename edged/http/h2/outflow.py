"""What goes to the peer: frames in order, and bodies as its windows (RFC 9113 section 5.2) and priorities let them.

Of streams with something to send, the most urgent go first; of those alike, whole ones by number, and then the
incremental ones in turns (RFC 9218 section 10).
"""

from __future__ import annotations

from edged.http.h2.frames import END_STREAM, FIRST_WINDOW, HEADER, HEADER_BYTES, MAX_FRAME_BYTES, MAX_WINDOW, FrameType
from edged.http.h2.streams import H2Stream


class Outflow:
    """out: frames as they go out, `out_bytes` of them; window: of the connection; first_window: of streams that the
    peer opens; frame_bytes: of a frame's payload at most, and never more than we take ourselves: larger ones would
    hold up other streams; waiting: streams with a queue, by number; queued_bytes: in all their queues.
    """

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.out_bytes = 0
        self.window = FIRST_WINDOW
        self.first_window = FIRST_WINDOW
        self.waiting: dict[int, H2Stream] = {}
        self.queued_bytes = 0
        self.data_frames = 0

    def put(self, data: bytes) -> None:
        """Frames that no window holds back."""
        self.out.append(data)
        self.out_bytes += len(data)

    def put_last(self, stream: H2Stream, body: bytes) -> None:
        """A whole body that fits a frame and both windows, with nothing waiting before it."""
        size = len(body)
        self.window -= size
        self.out += (HEADER.pack(size >> 8, size & 255, FrameType.DATA, END_STREAM, stream.stream_id), body)
        self.out_bytes += size + HEADER_BYTES
        self.data_frames += 1

    def queue(self, stream: H2Stream, data: bytes, *, ended: bool) -> None:
        """Body of an answer. What goes out at once is not copied before."""
        if data:
            stream.queue.append(memoryview(data))
            stream.queued_bytes += len(data)
            self.queued_bytes += len(data)
        stream.ending = ended
        self.waiting[stream.stream_id] = stream

    def drop(self, stream: H2Stream) -> None:
        """Forget what a stream had to send; its bytes are free at once."""
        self.queued_bytes -= stream.queued_bytes
        stream.queued_bytes = 0
        stream.queue.clear()
        self.waiting.pop(stream.stream_id, None)

    def widen(self, by: int) -> bool:
        """More room in the connection's window; False where that is more than a window can be."""
        self.window += by
        return self.window <= MAX_WINDOW

    def rewindow(self, first_window: int, streams: dict[int, H2Stream]) -> bool:
        """A new first window moves all streams' (section 6.9.2), below zero too; False where one is too wide."""
        by = first_window - self.first_window
        self.first_window = first_window
        for stream in streams.values():
            stream.window += by
        return all(stream.window <= MAX_WINDOW for stream in streams.values())

    def pump(self, room: int) -> list[H2Stream]:
        """Turn queues into frames until `out` holds some `room` bytes; the streams of which all is gone."""
        done: list[H2Stream] = []
        if not self.waiting:
            return done
        ready = [stream for stream in self.waiting.values() if self.may_send(stream)]
        ready.sort(key=rank)
        while ready and self.out_bytes < room:
            stream = ready.pop(0)
            if not self.may_send(stream):
                continue
            self.send_piece(stream)
            if not stream.queue:
                del self.waiting[stream.stream_id]
                done.append(stream)
            elif stream.incremental:
                place = next((n for n, other in enumerate(ready) if other.urgency > stream.urgency), len(ready))
                ready.insert(place, stream)  # behind those as urgent: they share in turns
                self.waiting[stream.stream_id] = self.waiting.pop(stream.stream_id)
            else:
                ready.insert(0, stream)
        return done

    def may_send(self, stream: H2Stream) -> bool:
        return not stream.queue or (stream.window > 0 and self.window > 0)

    def send_piece(self, stream: H2Stream) -> None:
        """One DATA frame, or the end alone where nothing else is left."""
        piece = stream.queue.popleft() if stream.queue else memoryview(b"")
        size = min(len(piece), max(0, stream.window), max(0, self.window), MAX_FRAME_BYTES)
        if size < len(piece):
            stream.queue.appendleft(piece[size:])
        stream.window -= size
        stream.sent_bytes += size
        self.window -= size
        stream.queued_bytes -= size
        self.queued_bytes -= size
        last = not stream.queue and stream.ending
        if size or last:
            flags = END_STREAM if last else 0
            head = HEADER.pack(size >> 8, size & 255, FrameType.DATA, flags, stream.stream_id)
            self.out += (head, bytes(piece[:size]))
            self.out_bytes += len(head) + size
            self.data_frames += 1

    def take(self) -> bytes:
        """Everything that is to be sent now, in one piece: one record, one system call."""
        data = b"".join(self.out)
        self.out.clear()
        self.out_bytes = 0
        return data


def rank(stream: H2Stream) -> tuple[int, bool, int]:
    """Incremental ones of a like urgency keep the order of their turns, for sorting is stable."""
    return stream.urgency, stream.incremental, 0 if stream.incremental else stream.stream_id
