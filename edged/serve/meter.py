"""What serving counts, for /metrics and /status. Plain numbers: the fast lane adds to them once a batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Meter:
    """answers: by lane ("fast", "asgi") and status; remembered: of the fast lane's answers, those from its memory;
    streams: open event streams; sent_bytes: of answers by the fast lane.
    """

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    remembered: int = 0
    streams: int = 0
    sent_bytes: int = 0
    fast_connections: int = 0
    memo_bytes: int = 0
