"""What the lane remembers: bytes of requests to bytes of answers. No socket here, and no clock.

An answer depends on the request's bytes, the identity, the kind of listener, what is served and the time. The first
three are the key: a name for identity, listener and fields of the request together, and its first line. The fields are
all of them, or those alone that decide the answer, where whoever answers has said so. What the time says is put in anew
each second. At another generation of what is served an answer is given again only where the
application knows that it is the same still (`Shared.renewal`): it is asked once for each, when that is next wanted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from edged.access.identity import Identity
from edged.http.application import UNTIMED, Lease, Response, Shared, TimedFields
from edged.http.framing import CLOSE, join_fields, status_line
from edged.http.head import RequestHead
from edged.http.lane.connection import FieldSection, LaneConnection
from edged.http.memory import OBJECT_BYTES, Memo, size_of_bytes
from edged.http.meter import Meter

# The first line of a request that is remembered. With fields that were accepted beside another such line, it is a whole
# head that `read_head` accepts: nothing that it looks for lies in both.
LINE = re.compile(rb"(GET|HEAD) (/[!\x22$-~]*)")
VERSION = b" HTTP/1.1"
SECTIONS_SHIFT = 5  # a thirty-second of the memory is for the fields of requests
NAMES_SHIFT = 7  # and a hundred-and-twenty-eighth for those of them that decide answers
NAME_BYTES = 6
CONTENT = slice(2, 10)
REST = 10  # where behind number and content what follows the opening begins
NO_CONTENT = bytes(8)
LAST_OPENING = 4095
HIT_SHIFT = 40  # one number for hits and bytes costs each hit one addition; they are counted long before 2^40 bytes
HIT = 1 << HIT_SHIFT


class Opening(NamedTuple):
    """What answers begin with at any moment. close: whether the connection ends."""

    status: int
    timed: TimedFields
    shared: Shared
    close: bool


@dataclass(frozen=True, slots=True)
class LeasedAnswer:
    """number: of its opening. data: what follows that, or the whole answer where the time changes nothing in it: these
    may be large, and are given without a copy.
    """

    lease: Lease
    number: int
    data: bytes
    is_whole: bool


class AnswerMemory:
    """At most `memory_bytes`. meter: counts what is recalled, once `count` is called; deciding: names of the fields
    that decide common answers.

    answers: name and first line to the number of an opening in two bytes, eight of what its renewal knows the content
    by, and what follows the opening. Bytes alone, but for leased answers: they refer to nothing, so the garbage
    collector never goes through what is remembered.
    """

    def __init__(self, memory_bytes: int, meter: Meter, deciding: frozenset[bytes] = frozenset()) -> None:
        self.meter = meter
        self.deciding = deciding
        sections_bytes, names_bytes = memory_bytes >> SECTIONS_SHIFT, memory_bytes >> NAMES_SHIFT
        self.names: Memo[bytes, bytes] = Memo(names_bytes, size_of_bytes)
        self.sections: Memo[bytes, FieldSection] = Memo(sections_bytes, size_of_section)
        self.last_name = 0
        self.answers: Memo[bytes, bytes | LeasedAnswer] = Memo(
            memory_bytes - sections_bytes - names_bytes, size_of_answer
        )
        self.partitions: dict[tuple[Identity, bool], bytes] = {}
        self.openings: list[Opening] = []
        self.opening_bytes: list[bytes] = []  # of each: status line, timed and shared fields; none of those gone by
        self.hits: list[int] = []  # of each, since they were last counted: HIT for each of them, and its bytes
        self.numbers: dict[Opening, int] = {}  # of those that are not gone by
        self.has_hits = False
        self.now = 0.0
        self.second = -1
        self.generation = -1

    @property
    def used_bytes(self) -> int:
        return self.answers.used_bytes + self.sections.used_bytes + self.names.used_bytes

    def partition_of(self, who: Identity, unix: bool) -> bytes:
        """Four bytes before each key, the same only for the same identity and kind of listener."""
        return self.partitions.setdefault((who, unix), len(self.partitions).to_bytes(4, "big"))

    def renew(self, generation: int, now: float) -> None:
        """Before each batch of requests. generation: of what is served; now: seconds since 1970."""
        if generation != self.generation:
            self.generation = generation
            self.count()
            self.numbers.clear()
            self.opening_bytes = [b""] * len(self.openings)
        self.now = now
        if int(now) != self.second:
            self.second = int(now)
            for opening, number in self.numbers.items():
                self.opening_bytes[number] = bytes_of(opening, now)

    def forget(self) -> None:
        """Every opening, and so every answer."""
        self.count()
        self.answers.clear()
        self.numbers.clear()
        for known in (self.openings, self.opening_bytes, self.hits):
            known.clear()

    def count(self) -> None:
        """Tell the meter, and whoever counts more closely, what was recalled."""
        for number in self.numbers.values():
            if counted := self.hits[number]:
                hits, size, opening = counted >> HIT_SHIFT, counted & HIT - 1, self.openings[number]
                self.meter.fast_answers[opening.status] += hits
                self.meter.remembered += hits
                if opening.shared.tally is not None:
                    opening.shared.tally.add(hits, size, remembered=True)
                self.hits[number] = 0
        self.has_hits = False

    # --- what was asked before --------------------------------------------------------------------------------------

    def recall(self, connection: LaneConnection, raw: bytes) -> bytes | None:
        """The remembered answer to `raw`, if that is a whole request that was answered before."""
        section = connection.section
        if not raw.endswith(section.tail):
            found = self.section_of(connection, raw)
            if found is None:
                return None
            section = found
        line = raw[: -len(section.tail)]
        key = section.common + line
        known = self.answers.entries.get(key)
        if known is None:
            key = section.name + line
            known = self.answers.entries.get(key)
            if known is None:
                return None
        given = self.give(key, known) if isinstance(known, bytes) else self.give_leased(key, known)
        if given is not None:  # one that holds no longer says nothing of the connection: what is made may take its time
            connection.closing = section.close
        return given

    def recall_common(self, connection: LaneConnection, head: RequestHead, raw: bytes) -> bytes | None:
        """The remembered answer to a request of which those fields were seen before that decide it. Once all of them
        come again on a connection they are learnt, so that fields that never come again push none out.
        """
        if head.body or head.expects or not self.deciding or not connection.judged:
            return None
        name = self.names.entries.get(self.deciders(connection.partition, head))
        if name is None or head.version != "1.1":
            return None
        key = b"%b%b %b" % (name, head.method, head.target)
        known = self.answers.entries.get(key)
        if known is None:
            return None
        mark = hash(raw[raw.find(b"\r\n") :])
        if mark == connection.unknown:
            self.learn(connection, head, raw)
        connection.unknown = mark
        found = self.give(key, known) if isinstance(known, bytes) else self.give_leased(key, known)
        if found is not None:
            connection.closing = not head.keep_alive
        return found

    def give(self, key: bytes, known: bytes) -> bytes | None:
        """A remembered answer as it goes out; None where it holds no longer."""
        number = known[0] << 8 | known[1]
        opening = self.opening_bytes[number]
        if not opening:
            renewed = self.renewed(key, known)
            if renewed is None:
                return None
            number = renewed
            opening = self.opening_bytes[number]
        data = opening + known[REST:]
        self.hits[number] += HIT + len(data)
        self.has_hits = True
        self.answers.visit(key)
        return data

    def give_leased(self, key: bytes, known: LeasedAnswer) -> bytes | None:
        """`give`, where a lease decides."""
        number = known.number
        opening = self.opening_bytes[number]
        if not opening or not known.lease.holds():
            self.answers.drop(key)
            return None
        data = known.data if known.is_whole else opening + known.data
        self.hits[number] += HIT + len(data)
        self.has_hits = True
        self.answers.visit(key)
        return data

    def section_of(self, connection: LaneConnection, raw: bytes) -> FieldSection | None:
        """The fields that `raw` ends with, if it is a whole request with fields that were accepted before."""
        section = connection.section
        if not raw.endswith(section.tail):
            if not connection.judged:
                return None
            found = self.sections.entries.get(connection.partition + raw[max(raw.find(b"\r\n") - len(VERSION), 0) :])
            if found is None:
                return None
            section = connection.section = found
        return section

    def familiar(self, connection: LaneConnection, raw: bytes, limit: int) -> RequestHead | None:
        """What `raw` says, if it is one whole request of at most `limit` bytes with fields accepted before."""
        section = self.section_of(connection, raw)
        if section is None or len(raw) > limit:
            return None
        line = LINE.fullmatch(raw, 0, len(raw) - len(section.tail))
        if line is None:
            return None
        return RequestHead(line[1], line[2], "1.1", section.fields, False, False, not section.close)

    def renewed(self, key: bytes, known: bytes) -> int | None:
        """The number of the opening that an answer of a generation gone by has now; it is forgotten where it may be
        another one.
        """
        status, _, shared, close = self.openings[known[0] << 8 | known[1]]
        line = LINE.fullmatch(key, NAME_BYTES)
        found = None
        if shared.renewal is not None and line is not None:
            found = shared.renewal.renew(line[2], int.from_bytes(known[CONTENT], "big", signed=True))
        if found is None:
            self.answers.drop(key)
            return None
        number = self.number_of(Opening(status, *found, close))
        if key in self.answers.entries:  # not forgotten meanwhile, for want of numbers
            self.answers.entries[key] = number.to_bytes(2, "big") + known[2:]  # of the same size, at the same place
        return number

    # --- what is answered now ---------------------------------------------------------------------------------------

    def whole(self, connection: LaneConnection, head: RequestHead, raw: bytes, found: Response) -> bytes:
        """An answer as bytes, remembered if it may be. raw: of its request; empty: not to be remembered."""
        close = found.last or not head.keep_alive
        number = self.number_of(Opening(found.status, found.timed, found.shared, close))
        own = join_fields(found.own + CLOSE if close else found.own)
        rest = b"%b\r\n%b" % (own, b"" if head.method == b"HEAD" else found.body)
        if found.keep and raw:
            key = self.key_of(connection, head, raw, found.common)
            if key:
                content = found.content.to_bytes(8, "big", signed=True) if found.content else NO_CONTENT
                if found.lease is None:
                    self.answers.put(key, b"%b%b%b" % (number.to_bytes(2, "big"), content, rest))
                else:
                    whole = found.timed is UNTIMED
                    data = self.opening_bytes[number] + rest if whole else rest
                    self.answers.put(key, LeasedAnswer(found.lease, number, data, whole))
                self.meter.memo_bytes = self.used_bytes
        answer = self.opening_bytes[number] + rest
        if found.shared.tally is not None:
            found.shared.tally.add(1, len(answer), remembered=False)
        return answer

    def key_of(self, connection: LaneConnection, head: RequestHead, raw: bytes, common: bool) -> bytes:
        """Where the answer to `raw` is remembered, under a new name where its fields are new; empty where it is not."""
        section = self.section_of(connection, raw) or self.learn(connection, head, raw)
        end = len(raw) - len(section.tail)
        if not section.tail.startswith(VERSION) or not LINE.fullmatch(raw, 0, end):
            return b""
        return (section.common if common else section.name) + raw[:end]

    def learn(self, connection: LaneConnection, head: RequestHead, raw: bytes) -> FieldSection:
        """The fields of a request, remembered if they are of HTTP/1.1."""
        tail = raw[max(raw.find(b"\r\n") - len(VERSION), 0) :]
        name = common = self.new_name()
        if self.deciding:
            deciders = self.deciders(connection.partition, head)
            found = self.names.get(deciders)
            if found is None:
                common = self.new_name()
                self.names.put(deciders, common)
            else:
                common = found
        section = FieldSection(name, common, tail, head.fields, not head.keep_alive)
        if tail.startswith(VERSION):
            connection.section = section
            self.sections.put(connection.partition + tail, section)
        return section

    def new_name(self) -> bytes:
        """One that was never used: what was remembered under a forgotten one is never found."""
        self.last_name += 1
        return self.last_name.to_bytes(NAME_BYTES, "big")

    def deciders(self, partition: bytes, head: RequestHead) -> bytes:
        """Those fields of a request that decide common answers, and whether the connection goes on."""
        fields = [b"%b:%b\n" % field for field in head.fields if field[0] in self.deciding]
        return b"%b%d%b" % (partition, head.keep_alive, b"".join(fields))

    def number_of(self, opening: Opening) -> int:
        """The number of an opening, a new one where it is new. With more of them than LAST_OPENING, everything
        is forgotten: they are few, but for somebody who asks in every way that there is, and one or two more for each
        generation.
        """
        number = self.numbers.get(opening)
        if number is None:
            if len(self.openings) > LAST_OPENING:
                self.forget()
            number = self.numbers[opening] = len(self.openings)
            self.openings.append(opening)
            self.opening_bytes.append(bytes_of(opening, self.now))
            self.hits.append(0)
        return number


def bytes_of(opening: Opening, now: float) -> bytes:
    return opening_of(opening.status, opening.timed, now) + opening.shared.lines


def opening_of(status: int, timed: TimedFields, now: float) -> bytes:
    """Status line and the fields that change with the time."""
    return status_line(status) + join_fields(timed.fields(now))


def size_of_section(place: bytes, section: FieldSection) -> int:
    """What the fields of a request take: their bytes, twice, and again as fields, each a tuple of two."""
    return 3 * len(place) + len(section.fields) * (2 * OBJECT_BYTES + 72) + 5 * OBJECT_BYTES + 200


def size_of_answer(key: bytes, value: bytes | LeasedAnswer) -> int:
    """What an answer takes; a lease is counted as one more object."""
    if isinstance(value, LeasedAnswer):
        return len(key) + len(value.data) + 4 * OBJECT_BYTES
    return len(key) + len(value) + 2 * OBJECT_BYTES
