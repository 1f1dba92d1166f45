"""Answers from memory for plain requests, by the bytes of a request's head: the way into the fast lane.

The first time that a head is seen it is parsed and decided upon like any other; what came out is remembered under the
very bytes of the head, until its Age grows by a second or the stored response is no longer what it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from edged.access.identity import Identity
from edged.proxy.context import make_context
from edged.proxy.memory import Held
from edged.proxy.rules import Request, Serve, decide
from edged.proxy.rules_answer import StoredAnswer, answer_from, hit_status
from edged.proxy.rules_fields import Fields, value_of
from edged.proxy.rules_forward import Refused, check_target
from edged.serve.head import Head, HeadError, read_head

if TYPE_CHECKING:
    from edged.proxy.app import ProxyApp

MAX_HEADS = 8192
NEVER = frozenset((b"upgrade", b"expect", b"transfer-encoding", b"content-length", b"te"))


@dataclass(slots=True)
class Remembered:
    """A whole answer, until `until_s`. Then it is made anew, or forgotten where the store has another answer."""

    data: bytes
    until_s: float
    held: Held
    request: Request


class FastLane:
    """For one identity. accepts_host: whether a Host value is answered at all; any other head gets None."""

    def __init__(self, app: ProxyApp, who: Identity, accepts_host: Callable[[bytes], bool]) -> None:
        self.app, self.who, self.accepts_host = app, who, accepts_host
        self.heads: dict[bytes, Remembered] = {}
        self.now_s = app.timeline.now_s

    def lookup(self, head: bytes) -> bytes | None:
        """The whole answer (head and body) to a request's head, blank line included; None where the slow lane must
        answer. Only for requests without edged's own credentials, from this lane's identity.
        """
        return self.remembered(head) or self.first(head)

    def remembered(self, head: bytes) -> bytes | None:
        """As `lookup`, but only for heads that were answered before: one look into a dictionary for any other."""
        known = self.heads.get(head)
        if known is None:
            return None
        if known.held.alive and self.now_s() < known.until_s:
            return known.data
        return self.renew(head, known)

    def first(self, head: bytes) -> bytes | None:
        found = self.find(head)
        return None if found is None else self.remember(head, *found)

    def find(self, head: bytes) -> tuple[Held, Request] | None:
        """Parse a head and look into memory."""
        try:
            parsed = read_head(head)
            path, _, query = parsed.target.partition(b"?")
            upstream = self.app.route(path)
            if upstream is None or not self.plain(parsed):
                return None
            check_target(parsed.target)
        except (HeadError, Refused):
            return None
        context = make_context(
            upstream,
            parsed.method,
            path,
            query,
            tuple(parsed.fields),
            self.who,
            frozenset(),
            no_receive,
            no_send,
        )
        for scope in context.scopes:
            held = self.app.cache.peek(context.primary(scope), context.request.fields)
            if held is not None:
                return held, context.request
            if scope and self.app.cache.store is not None:
                return None  # a private answer may lie on the disk
        return None

    def plain(self, parsed: Head) -> bool:
        """A GET or HEAD of HTTP/1.1 that keeps its connection, for a host that is answered."""
        if parsed.method not in (b"GET", b"HEAD") or parsed.version != "1.1" or not parsed.keep_alive or parsed.body:
            return False
        if any(name in NEVER for name, _ in parsed.fields) or parsed.expects:
            return False
        return self.accepts_host(value_of(parsed.fields, b"host") or b"")

    def remember(self, head: bytes, held: Held, request: Request) -> bytes | None:
        """Make the answer, and keep it for as long as not a byte of it changes."""
        now_s = self.now_s()
        entry = held.entry
        if held.body is None or entry.received_s is None or decide(request, entry, now_s) != Serve():
            return None
        answer = answer_from(entry, request, now_s, hit_status(entry, now_s))
        data = encode_answer(answer, held.body)
        age_s = entry.age_s(now_s)
        next_s = math.floor(age_s) + 1 - age_s  # when Age and ttl change; freshness ends at such a moment too
        if len(self.heads) >= MAX_HEADS:
            self.heads.clear()
        if self.app.take_lane_bytes(len(head) + len(data)):
            self.heads[head] = Remembered(data, now_s + next_s, held, request)
        self.app.count_hit()
        return data

    def renew(self, head: bytes, known: Remembered) -> bytes | None:
        self.app.lane_bytes -= len(head) + len(known.data)
        del self.heads[head]
        if known.held.alive:
            return self.remember(head, known.held, known.request)
        return self.first(head)


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
