"""Answers remembered whole, as frames but for the stream's number.

The key is who asks, the state of the peer's table and the field block: the same three always say the same request. An
answer's head is kept once for all of its kind, with what the time says put in anew each second. At another
generation of what is served an answer is given again only where the application knows that it is the same still.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edged.http.application import Response, Shared, TimedFields
from edged.http.h2.fieldblocks import encode_fields, encode_status
from edged.http.h2.frames import END_STREAM, MAX_FRAME_BYTES
from edged.http.memory import Memo

MARK = b"\x02"  # what each key begins with: the memory is shared with the other protocol's answers
LAST_KIND = 4095
MOST_OWN_BYTES = 0xFFFF

OWN = 12  # where in an entry the own fields' block begins

Kind = tuple[int, TimedFields, Shared]


@dataclass(frozen=True, slots=True)
class AnswerPlace:
    """Where the answer to a request is remembered, and of which generation it has to be."""

    place: bytes
    generation: int


class RememberedFrames:
    """entries: place to two bytes, the kind; two, how long the own fields' block is; eight of what the answer's renewal
    knows its content by; that block; then, where there is a body, the first five bytes of its DATA frame's header, and
    the body. heads: of each kind, empty where its generation has gone by; hits: of each, since last counted.
    """

    def __init__(self, memo: Memo[bytes, Any]) -> None:
        self.memo = memo
        self.entries = memo.entries
        self.kinds: list[Kind] = []
        self.numbers: dict[Kind, int] = {}  # of those whose generation has not gone by
        self.heads: list[bytes] = []
        self.shared: list[bytes] = []
        self.hits: list[int] = []
        self.sizes: list[int] = []  # of the hits, in bytes
        self.counted: dict[int, int] = {}
        self.has_hits = False
        self.generation = -1
        self.now = 0.0

    def renew(self, generation: int, now: float) -> None:
        """At a new generation and at each new second. now: seconds since 1970."""
        if generation == self.generation and int(now) == int(self.now):
            return
        if generation != self.generation:
            self.generation = generation
            self.count()
            self.numbers.clear()
            self.heads = [b""] * len(self.kinds)
        self.now = now
        for kind, number in self.numbers.items():
            self.heads[number] = self.head_of(kind, self.shared[number])

    def forget(self) -> None:
        """Every kind, and so everything."""
        self.count()
        self.memo.clear()
        self.numbers.clear()
        for known in (self.kinds, self.heads, self.shared, self.hits, self.sizes):
            known.clear()

    def count(self) -> None:
        """Add the hits up by status."""
        for number in self.numbers.values():
            if hits := self.hits[number]:
                status, _, shared = self.kinds[number]
                self.counted[status] = self.counted.get(status, 0) + hits
                if shared.tally is not None:
                    shared.tally.add(hits, self.sizes[number], remembered=True)
                self.hits[number] = self.sizes[number] = 0

    def take_counts(self) -> dict[int, int]:
        """How many answers of each status were remembered ones since this was last asked."""
        self.count()
        counts, self.counted = self.counted, {}
        self.has_hits = False
        return counts

    def block_of(self, found: Response, asked: AnswerPlace | None, *, head_only: bool) -> bytes:
        """An answer's field block. The answer is kept where it may be, is still of this generation, and its block and
        body fit one frame each.
        """
        own = encode_fields(found.own)
        kind = self.kind_of((found.status, found.timed, found.shared))
        body = b"" if head_only else found.body
        small = len(body) <= MAX_FRAME_BYTES and len(own) <= MOST_OWN_BYTES
        if asked is not None and found.keep and found.lease is None and asked.generation == self.generation and small:
            data = (len(body) << 16 | END_STREAM).to_bytes(5, "big") + body if body else b""  # type 0 is DATA
            content = found.content.to_bytes(8, "big", signed=True)
            begin = (kind << 16 | len(own)).to_bytes(4, "big")
            self.memo.put(asked.place, b"%b%b%b%b" % (begin, content, own, data))
        block = self.heads[kind] + own
        if found.shared.tally is not None:
            found.shared.tally.add(1, len(block) + len(body), remembered=False)
        return block

    def renewed(self, place: bytes, known: bytes, target: bytes) -> bytes | None:
        """An entry of a generation gone by as one of the present; None where the answer may be another one now."""
        number = known[0] << 8 | known[1]
        if self.heads[number]:
            return None
        status, _, shared = self.kinds[number]
        if shared.renewal is None:
            return None
        found = shared.renewal.renew(target, int.from_bytes(known[4:OWN], "big", signed=True))
        if found is None:
            return None
        entry = self.kind_of((status, *found)).to_bytes(2, "big") + known[2:]
        self.memo.put(place, entry)
        return entry

    def kind_of(self, kind: Kind) -> int:
        """The number of a kind; with more of them than LAST_KIND, everything is forgotten."""
        known = self.numbers.get(kind)
        if known is not None:
            return known
        if len(self.kinds) > LAST_KIND:
            self.forget()
        shared = encode_fields(kind[2].fields)
        self.numbers[kind] = len(self.kinds)
        self.kinds.append(kind)
        self.shared.append(shared)
        self.heads.append(self.head_of(kind, shared))
        self.hits.append(0)
        self.sizes.append(0)
        return len(self.kinds) - 1

    def head_of(self, kind: Kind, shared: bytes) -> bytes:
        return encode_status(kind[0]) + encode_fields(kind[1].fields(self.now)) + shared
