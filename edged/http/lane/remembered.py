"""What the lane remembers: bytes of requests to bytes of answers. No socket here, and no clock.

An answer depends on the request's bytes, the identity, the kind of listener, what is served and the time. The first
three are the key: a name for identity, listener and all fields of the request together, and its first line. Another
generation of what is served forgets everything; what the time says is put in anew each second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edged.access.identity import Identity
from edged.http.application import Lease, Response, Shared, TimedFields
from edged.http.framing import CLOSE, join_fields, status_line
from edged.http.head import RequestHead
from edged.http.lane.connection import LaneConnection
from edged.http.memory import OBJECT_BYTES, Memo
from edged.http.meter import Meter

# The fields of a request, judged once: a name for them, the fields, whether the connection goes on after the answer.
FieldSection = tuple[bytes, list[tuple[bytes, bytes]], bool]

# What answers begin with at any moment: status, timed fields, shared fields, whether the connection ends.
Opening = tuple[int, TimedFields, Shared, bool]

# The first line of a request that is remembered. With fields that were accepted beside another such line, it is a whole
# head that `read_head` accepts: nothing that it looks for lies in both.
LINE = re.compile(rb"(GET|HEAD) (/[!\x22$-~]*) HTTP/1\.1\r\n")
SECTIONS_SHIFT = 4  # a sixteenth of the memory is for the fields of requests
LAST_OPENING = 255


@dataclass(frozen=True, slots=True)
class LeasedAnswer:
    """data: as it is remembered without a lease."""

    lease: Lease
    data: bytes


class AnswerMemory:
    """At most `memory_bytes`. meter: counts what is recalled."""

    def __init__(self, memory_bytes: int, meter: Meter) -> None:
        self.meter = meter
        sections_bytes = memory_bytes >> SECTIONS_SHIFT
        self.sections: Memo[bytes, FieldSection] = Memo(sections_bytes, size_of_section)
        self.last_name = 0
        # The number of an opening in one byte, then what follows it. Bytes alone, but for leased answers: they refer to
        # nothing, so the garbage collector never goes through what is remembered.
        self.answers: Memo[bytes, bytes | LeasedAnswer] = Memo(memory_bytes - sections_bytes, size_of_answer)
        self.partitions: dict[tuple[Identity, bool], bytes] = {}
        self.openings: list[Opening] = []
        self.opening_bytes: list[bytes] = []  # of each: status line, timed and shared fields
        self.now = 0.0
        self.second = -1
        self.generation = -1

    @property
    def used_bytes(self) -> int:
        return self.answers.used_bytes + self.sections.used_bytes

    def partition_of(self, who: Identity, unix: bool) -> bytes:
        """Four bytes before each key, the same only for the same identity and kind of listener."""
        return self.partitions.setdefault((who, unix), len(self.partitions).to_bytes(4, "big"))

    def renew(self, generation: int, now: float) -> None:
        """Before each batch of requests. generation: of what is served; now: seconds since 1970."""
        if generation != self.generation:
            self.generation = generation
            self.answers.clear()
            self.openings.clear()
            self.second = -1
        self.now = now
        if int(now) != self.second:
            self.second = int(now)
            self.opening_bytes = [bytes_of(opening, now) for opening in self.openings]

    def recall(self, connection: LaneConnection, raw: bytes) -> bytes | None:
        """The remembered answer to `raw`, if that is a whole request that was answered before."""
        cut = raw.find(b"\r\n")
        section = self.sections.entries.get(connection.partition + raw[cut:])
        if section is None:
            return None
        key = section[0] + raw[:cut]
        known = self.answers.entries.get(key)
        if known is None:
            return None
        if isinstance(known, LeasedAnswer):
            if not known.lease.holds():
                self.answers.drop(key)
                return None
            known = known.data
        number = known[0]
        status, _, _, connection.closing = self.openings[number]
        self.meter.fast_answers[status] += 1
        self.meter.remembered += 1
        return self.opening_bytes[number] + known[1:]

    def familiar(self, partition: bytes, raw: bytes, limit: int) -> RequestHead | None:
        """What `raw` says, if it is a whole request of at most `limit` bytes with fields that were accepted before."""
        section = self.sections.entries.get(partition + raw[raw.find(b"\r\n") :])
        line = LINE.match(raw) if section is not None and len(raw) <= limit else None
        if section is None or line is None:
            return None
        return RequestHead(line[1], line[2], "1.1", section[1], False, False, section[2])

    def whole(self, partition: bytes, head: RequestHead, raw: bytes, found: Response) -> bytes:
        """An answer as bytes, remembered if it may be. raw: of its request; empty: not to be remembered."""
        close = not head.keep_alive
        number = self.number_of((found.status, found.timed, found.shared, close))
        own = join_fields(found.own + CLOSE if close else found.own)
        rest = b"%b\r\n%b" % (own, b"" if head.method == b"HEAD" else found.body)
        if found.keep and raw and LINE.match(raw) is not None:
            key = self.name_of(partition, head, raw) + raw[: raw.find(b"\r\n")]
            data = b"%c%b" % (number, rest)
            self.answers.put(key, data if found.lease is None else LeasedAnswer(found.lease, data))
            self.meter.memo_bytes = self.used_bytes
        return self.opening_bytes[number] + rest

    def name_of(self, partition: bytes, head: RequestHead, raw: bytes) -> bytes:
        """The name of a request's fields, a new one where they are new."""
        place = partition + raw[raw.find(b"\r\n") :]
        section = self.sections.get(place)
        if section is None:
            self.last_name += 1  # never used again: what was remembered under a forgotten one is never found
            section = (self.last_name.to_bytes(8, "big"), head.fields, head.keep_alive)
            self.sections.put(place, section)
        return section[0]

    def number_of(self, opening: Opening) -> int:
        """The number of an opening, a new one where it is new. With more of them than one byte can name, everything
        is forgotten: they are few, but for somebody who asks in every way that there is.
        """
        for number, known in enumerate(self.openings):
            if known == opening:
                return number
        if len(self.openings) > LAST_OPENING:
            self.answers.clear()
            self.openings.clear()
            self.opening_bytes.clear()
        self.openings.append(opening)
        self.opening_bytes.append(bytes_of(opening, self.now))
        return len(self.openings) - 1


def bytes_of(opening: Opening, now: float) -> bytes:
    return opening_of(opening[0], opening[1], now) + opening[2].lines


def opening_of(status: int, timed: TimedFields, now: float) -> bytes:
    """Status line and the fields that change with the time."""
    return status_line(status) + join_fields(timed.fields(now))


def size_of_section(place: bytes, section: FieldSection) -> int:
    """What the fields of a request take: their bytes, and again as fields, each a tuple of two."""
    return 2 * len(place) + len(section[1]) * (2 * OBJECT_BYTES + 72) + 3 * OBJECT_BYTES + 200


def size_of_answer(key: bytes, value: bytes | LeasedAnswer) -> int:
    """What an answer takes; a lease is counted as one more object."""
    if isinstance(value, LeasedAnswer):
        return len(key) + len(value.data) + 4 * OBJECT_BYTES
    return len(key) + len(value) + 2 * OBJECT_BYTES
