"""A stream's states as a table (RFC 9113 section 5.1), and what a stream keeps.

A stream that the peer has not opened is idle and one that is over is closed: neither is kept, the number tells.
"""

from __future__ import annotations

import re
from collections import deque
from enum import IntEnum, auto

from edged.http.h2.frames import FIRST_WINDOW

URGENCY, LEAST_URGENT = 3, 7
URGENCY_ITEM = re.compile(rb"(?:^|,)[ \t]*u=([0-7])[ \t]*(?=[;,]|$)")
INCREMENTAL_ITEM = re.compile(rb"(?:^|,)[ \t]*i(=\?[01])?[ \t]*(?=[;,]|$)")


class StreamState(IntEnum):
    """As this side sees it: remote is the peer, local is us."""

    OPEN = auto()
    HALF_CLOSED_REMOTE = auto()
    HALF_CLOSED_LOCAL = auto()
    CLOSED = auto()


class StreamStep(IntEnum):
    """What moves a stream on."""

    PEER_ENDS = auto()
    WE_END = auto()
    RESET = auto()


# What is absent cannot happen: the peer's frames are judged before, so it would be a bug of ours.
TRANSITIONS = {
    (StreamState.OPEN, StreamStep.PEER_ENDS): StreamState.HALF_CLOSED_REMOTE,
    (StreamState.OPEN, StreamStep.WE_END): StreamState.HALF_CLOSED_LOCAL,
    (StreamState.OPEN, StreamStep.RESET): StreamState.CLOSED,
    (StreamState.HALF_CLOSED_REMOTE, StreamStep.WE_END): StreamState.CLOSED,
    (StreamState.HALF_CLOSED_REMOTE, StreamStep.RESET): StreamState.CLOSED,
    (StreamState.HALF_CLOSED_LOCAL, StreamStep.PEER_ENDS): StreamState.CLOSED,
    (StreamState.HALF_CLOSED_LOCAL, StreamStep.RESET): StreamState.CLOSED,
}


class H2Stream:
    """window: what may be sent by the peer's leave; room: what the peer may send by ours.

    unread: of the body, not taken by whoever answers; taken: by them, and not given back to `room` yet; body_left: of
    an announced body. queue: of the answer, not sent yet; sent_bytes: of its body; begun: whether its head was sent;
    ending: whether it ends behind the queue.
    """

    __slots__ = (
        "begun",
        "body_left",
        "ending",
        "incremental",
        "queue",
        "queued_bytes",
        "room",
        "sent_bytes",
        "state",
        "stream_id",
        "taken",
        "unread",
        "urgency",
        "window",
    )

    def __init__(self, stream_id: int, window: int, body_left: int | None) -> None:
        self.stream_id = stream_id
        self.state = StreamState.OPEN
        self.window = window
        self.room = FIRST_WINDOW
        self.unread = 0
        self.taken = 0
        self.body_left = body_left
        self.queue: deque[memoryview] = deque()
        self.queued_bytes = 0
        self.sent_bytes = 0
        self.begun = False
        self.ending = False
        self.urgency, self.incremental = URGENCY, False

    def step(self, step: StreamStep) -> None:
        """Raises KeyError for what cannot happen."""
        self.state = TRANSITIONS[self.state, step]

    def hears_peer(self) -> bool:
        """Whether the peer may still send a body or trailers."""
        return self.state in (StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL)

    def prioritise(self, value: bytes) -> None:
        """Take what a `priority` field says (RFC 9218 section 4); what is malformed in it says nothing."""
        urgency = URGENCY_ITEM.search(value)
        incremental = INCREMENTAL_ITEM.search(value)
        self.urgency = int(urgency[1]) if urgency else URGENCY
        self.incremental = incremental is not None and incremental[1] != b"=?0"
