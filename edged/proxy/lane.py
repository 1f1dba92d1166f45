"""The way into the fast lane: plain requests answered from memory by the bytes of their heads, the others by a task.

The first time that a head is seen it is decided upon like any other; where memory had the answer, it is remembered
under the very bytes of the head, until its Age grows by a second or the stored response is no longer what it was.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from edged.access.identity import Identity
from edged.http.fields import Fields, value_of
from edged.http.framing import join_fields, status_line
from edged.http.head import RequestHead
from edged.proxy.exchange.context import Client, Context, Incoming, make_context
from edged.proxy.exchange.fetch import covers
from edged.proxy.gateway import Gateway
from edged.proxy.rules.answer import StoredAnswer, answer_from, hit_status
from edged.proxy.rules.decisions import Ask, Serve, decide
from edged.proxy.rules.forward import Refused
from edged.proxy.store.memory import StoredResponse

Application = Callable[[Client], Awaitable[None]]

MAX_HEADS = 8192


@dataclass(slots=True)
class Remembered:
    """A whole answer, until `until_s`. Then it is made anew, or forgotten where the store has another answer.

    offline: given only because the upstream cannot be reached.
    """

    data: bytes
    until_s: float
    held: StoredResponse
    context: Context
    offline: bool
    body_bytes: int

    def holds(self, now_s: float) -> bool:
        return self.held.alive and now_s < self.until_s and (not self.offline or self.context.upstream.circuit.is_open)


@dataclass(slots=True)
class LaneMemory:
    """The bytes that all lanes together remember, at most `limit_bytes`."""

    limit_bytes: int
    used_bytes: int = 0
    lanes: list[dict[bytes, Remembered]] = field(default_factory=list)

    def take(self, count: int) -> bool:
        """Count what is to be remembered; forget everything else where it would be too much.

        Returns False for a single answer that is too large to be remembered.
        """
        if count > self.limit_bytes // 4:
            return False
        if self.used_bytes + count > self.limit_bytes:
            for heads in self.lanes:
                heads.clear()
            self.used_bytes = 0
        self.used_bytes += count
        return True


class ProxyLane:
    """For one identity. accepts_host: whether a Host value is answered at all; any other head gets None."""

    def __init__(
        self, gateway: Gateway, memory: LaneMemory, who: Identity, accepts_host: Callable[[bytes], bool]
    ) -> None:
        self.gateway, self.memory, self.who, self.accepts_host = gateway, memory, who, accepts_host
        self.heads: dict[bytes, Remembered] = {}
        memory.lanes.append(self.heads)
        self.now_s, self.counters = gateway.timeline.now_s, gateway.counters

    def lookup(self, raw: bytes, head: RequestHead) -> bytes | Application | None:
        """For the bytes of a request's head and what they say: the whole answer where memory has it, else what will
        answer; None where the slow lane must. Only for requests without edged's own credentials, from this lane's
        identity.
        """
        known = self.remembered(raw)
        if known is not None:
            return known
        context = self.read(head)
        if context is None:
            return None
        held = self.peek(context)
        if held is not None and head.keep_alive and head.version == "1.1":
            answer = self.remember(raw, held, context)
            if answer is not None:
                return answer
        return partial(self.give_to, context)

    def remembered(self, raw: bytes) -> bytes | None:
        """As `lookup`, but only for heads that were answered before: one look into a dictionary for any other."""
        known = self.heads.get(raw)
        if known is None:
            return None
        if known.holds(self.now_s()):
            self.count(known)
            return known.data
        self.memory.used_bytes -= len(raw) + len(known.data)
        del self.heads[raw]
        return self.remember(raw, known.held, known.context) if known.held.alive else None

    async def give_to(self, context: Context, client: Client) -> None:
        """Answer a request that memory could not."""
        context.client, context.send = client, client.send
        await self.gateway.give(context)

    def read(self, head: RequestHead) -> Context | None:
        """The request, where it is a plain one under a route, for a host that is answered."""
        path, _, query = head.target.partition(b"?")
        upstream = self.gateway.route(path)
        if upstream is None or not self.is_plain(head):
            return None
        incoming = Incoming(head.method, path, query, tuple(head.fields))
        try:
            return make_context(upstream, incoming, self.who, no_receive, no_send)
        except Refused:
            return None

    def is_plain(self, head: RequestHead) -> bool:
        if head.method not in (b"GET", b"HEAD") or head.body or head.expects:
            return False
        if any(name == b"upgrade" for name, _ in head.fields):
            return False
        return self.accepts_host(value_of(head.fields, b"host") or b"")

    def peek(self, context: Context) -> StoredResponse | None:
        """What memory has for a request, where nothing more private may lie on the disk."""
        for scope in context.scopes:
            held = self.gateway.cache.peek(context.primary(scope), context.request.fields)
            if held is not None or (scope != context.scopes[-1] and self.gateway.cache.store is not None):
                return held
        return None

    def remember(self, head: bytes, held: StoredResponse, context: Context) -> bytes | None:
        """Make the answer, and keep it for as long as not a byte of it changes."""
        now_s = self.now_s()
        entry, request = held.entry, context.request
        if held.body is None or entry.received_s is None:
            return None
        decision = decide(request, entry, now_s)
        offline = isinstance(decision, Ask) and context.upstream.circuit.is_open
        if decision != Serve() and not (offline and covers(context, held, now_s, unreachable=True)):
            return None
        answer = answer_from(entry, request, now_s, hit_status(entry, now_s, detail="offline" if offline else ""))
        data = encode_answer(answer, held.body)
        age_s = entry.age_s(now_s)
        next_s = math.floor(age_s) + 1 - age_s  # when Age and ttl change; freshness ends at such a moment too
        if len(self.heads) >= MAX_HEADS:
            self.memory.used_bytes -= sum(len(raw) + len(known.data) for raw, known in self.heads.items())
            self.heads.clear()
        body_bytes = 0 if answer.span is None else answer.span.size
        made = Remembered(data, now_s + next_s, held, context, offline, body_bytes)
        if self.memory.take(len(head) + len(data)):
            self.heads[head] = made
        self.count(made)
        return data

    def count(self, given: Remembered) -> None:
        if given.offline:
            self.counters.covered += 1
        else:
            self.counters.hits += 1
        self.counters.served_bytes += given.body_bytes


def encode_answer(answer: StoredAnswer, body: bytes) -> bytes:
    """An HTTP/1.1 answer as bytes."""
    lines = [status_line(answer.status), join_fields(safe(answer.fields))]
    lines.append(b"\r\n")
    if answer.span is not None:
        lines.append(body if answer.span.size == len(body) else body[answer.span.first : answer.span.last + 1])
    return b"".join(lines)


def safe(fields: Fields) -> Fields:
    """Fields as they may be written; those that could end a line never were stored."""
    return tuple(pair for pair in fields if b"\r" not in pair[1] and b"\n" not in pair[1])


async def no_receive() -> dict[str, object]:
    raise AssertionError("the fast lane receives nothing")


async def no_send(message: dict[str, object]) -> None:
    raise AssertionError(f"the fast lane sends nothing: {message['type']}")
