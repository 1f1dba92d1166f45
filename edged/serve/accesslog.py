"""The access log: a line a request, as many a second as are worth keeping, and how many were left out."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edged.http.application import path_of
from edged.http.request import Request

logger = logging.getLogger("edged.requests")

LINES_A_SECOND = 100
TRACE_CHARACTERS = 55  # of a traceparent (W3C Trace Context, section 3.2)


class AccessLog:
    """monotonic: seconds that never run backwards. For one thread at a time: a line that is lost there is no loss."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        logger.setLevel(logging.INFO)  # whoever asks for it gets it at any `log_level`
        self.second, self.told, self.left_out = 0, 0, 0

    def tell(self, request: Request, status: int, seconds: float) -> None:
        now = int(self.monotonic())
        if now != self.second:
            if self.left_out:
                logger.info("requests left out", extra={"fields": {"count": self.left_out}})
            self.second, self.told, self.left_out = now, 0, 0
        if self.told >= LINES_A_SECOND:
            self.left_out += 1
            return
        self.told += 1
        fields: dict[str, object] = {
            "method": request.method,
            "path": path_of(request),
            "status": status,
            "ms": round(seconds * 1000, 3),
            "app": request.who.name,
            "peer": request.peer.address,
        }
        trace = request.get(b"traceparent")
        if trace:
            fields["traceparent"] = trace[:TRACE_CHARACTERS]
        logger.info("request", extra={"fields": fields})
