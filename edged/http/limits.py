"""What one listener bears, whoever connects, and how the thread is shared. Times in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass

# What a process that serves gives to sys.setswitchinterval, seconds. Each system call of the lane lets go of the
# interpreter's lock; while a thread applies a hop, getting it back takes this long, three times a request.
SWITCH_S = 0.001
PARKED_S = 0.02  # a request that has not got on for so long waits for something else than the thread


@dataclass(frozen=True, slots=True)
class Limits:
    """connections: at once, over all addresses; per_peer: at once for one uid (Unix socket) or one address (TCP, but
    loopback is everybody's and has no such cap); head_s: from the first byte of a request's head to its last; body_s:
    between two pieces of a request's body; write_s: without progress while a client does not read; idle_s: between
    requests; ended_s: for an answer to a client that has ended and may have gone; handshake_s: for TLS; graceful_s: for
    answers under way when the server stops; head_bytes: a whole head; memory_bytes: for remembered answers;
    unread_bytes: of answers that clients have not read, all together; read_bytes_per_s: what a client has to read of
    its answer at the least.
    """

    connections: int = 1024
    per_peer: int = 512
    head_s: float = 10.0
    body_s: float = 15.0
    write_s: float = 20.0
    idle_s: float = 75.0
    ended_s: float = 30.0
    handshake_s: float = 10.0
    graceful_s: float = 5.0
    head_bytes: int = 32 << 10  # room for 500 keys of 60 characters
    memory_bytes: int = 1 << 20
    unread_bytes: int = 64 << 20
    read_bytes_per_s: int = 1024
    streams: int = 100  # HTTP/2 streams at once on one connection
    backlog: int = 1024
    websockets: bool = False  # whether the application passes WebSockets through
