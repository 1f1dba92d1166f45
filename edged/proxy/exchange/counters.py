"""What the proxy counts, for /metrics and /status."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Requests by what became of them, each counted once; all grow from the start of the process.

    hits: answered from the store while fresh; stale: likewise past its freshness, with the request's or the response's
    leave; covered: from the store because the upstream could not be reached or failed; misses: went upstream for
    themselves; collapsed: read along with another's; passed: other methods and requests with a body; failed: got an
    error of the proxy's own. fetched_bytes: of bodies from upstreams; served_bytes: of bodies to clients.
    """

    hits: int = 0
    stale: int = 0
    covered: int = 0
    misses: int = 0
    collapsed: int = 0
    passed: int = 0
    failed: int = 0
    fetched_bytes: int = 0
    served_bytes: int = 0
