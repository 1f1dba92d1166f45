"""The way into the fast lane: plain requests answered from memory by the bytes of their heads, the others by a task.

The first time that a head is seen it is decided upon like any other; where memory had the answer, it is remembered
under the very bytes of the head, until its Age grows by a second or the stored response is no longer what it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from edged.access.identity import Identity
from edged.http.head import Head
from edged.http.lane.call import Application
from edged.proxy.exchange.context import Context, make_context
from edged.proxy.exchange.exchange import covers
from edged.proxy.rules.answer import StoredAnswer, answer_from, hit_status
from edged.proxy.rules.decisions import Ask, Serve, decide
from edged.proxy.rules.fields import Fields, value_of
from edged.proxy.rules.forward import Refused, check_target
from edged.proxy.store.memory import Held

if TYPE_CHECKING:
    from edged.proxy.app import ProxyApp

MAX_HEADS = 8192


@dataclass(slots=True)
class Remembered:
    """A whole answer, until `until_s`. Then it is made anew, or forgotten where the store has another answer.

    offline: given only because the upstream cannot be reached.
    """

    data: bytes
    until_s: float
    held: Held
    context: Context
    offline: bool

    def holds(self, now_s: float) -> bool:
        return self.held.alive and now_s < self.until_s and (not self.offline or self.context.upstream.circuit.is_open)


class FastLane:
    """For one identity. accepts_host: whether a Host value is answered at all; any other head gets None."""

    def __init__(self, app: ProxyApp, who: Identity, accepts_host: Callable[[bytes], bool]) -> None:
        self.app, self.who, self.accepts_host = app, who, accepts_host
        self.heads: dict[bytes, Remembered] = {}
        self.now_s = app.timeline.now_s

    def lookup(self, raw: bytes, head: Head) -> bytes | Application | None:
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
        return partial(self.app.give_to, context)

    def remembered(self, raw: bytes) -> bytes | None:
        """As `lookup`, but only for heads that were answered before: one look into a dictionary for any other."""
        known = self.heads.get(raw)
        if known is None:
            return None
        if known.holds(self.now_s()):
            return known.data
        self.app.lane_bytes -= len(raw) + len(known.data)
        del self.heads[raw]
        return self.remember(raw, known.held, known.context) if known.held.alive else None

    def read(self, head: Head) -> Context | None:
        """The request, where it is a plain one under a route, for a host that is answered."""
        path, _, query = head.target.partition(b"?")
        upstream = self.app.route(path)
        if upstream is None or not self.is_plain(head):
            return None
        try:
            check_target(head.target)
        except Refused:
            return None
        fields = tuple(head.fields)
        return make_context(upstream, head.method, path, query, fields, self.who, frozenset(), no_receive, no_send)

    def is_plain(self, head: Head) -> bool:
        if head.method not in (b"GET", b"HEAD") or head.body or head.expects:
            return False
        if any(name == b"upgrade" for name, _ in head.fields):
            return False
        return self.accepts_host(value_of(head.fields, b"host") or b"")

    def peek(self, context: Context) -> Held | None:
        """What memory has for a request, where nothing more private may lie on the disk."""
        for scope in context.scopes:
            held = self.app.cache.peek(context.primary(scope), context.request.fields)
            if held is not None or (scope and self.app.cache.store is not None):
                return held
        return None

    def remember(self, head: bytes, held: Held, context: Context) -> bytes | None:
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
            self.app.lane_bytes -= sum(len(raw) + len(known.data) for raw, known in self.heads.items())
            self.heads.clear()
        if self.app.take_lane_bytes(len(head) + len(data)):
            self.heads[head] = Remembered(data, now_s + next_s, held, context, offline)
        self.app.count_hit(offline=offline)
        return data


def encode_answer(answer: StoredAnswer, body: bytes) -> bytes:
    """An HTTP/1.1 answer as bytes."""
    try:
        phrase = HTTPStatus(answer.status).phrase.encode()
    except ValueError:
        phrase = b""
    lines = [b"HTTP/1.1 %d %s\r\n" % (answer.status, phrase)]
    lines += [b"%s: %s\r\n" % pair for pair in safe(answer.fields)]
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
