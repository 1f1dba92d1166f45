"""Edits without end: what has come on a descriptor so far, batch by batch, and nothing of it lost."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from edged.errors import OriginError, ValidationError, WireError
from edged.origin.input.lines import LINE_BYTES, Faults
from edged.origin.input.reading import InputEntry, Inputs, decode_object, excerpt

PIECE_BYTES = 64 << 10
PENDING_BYTES = 64 << 20  # of edits that are not published yet; beyond, whoever writes them waits
ENTRY_BYTES = 256  # what an edit takes beside its value


@dataclass(slots=True)
class EditBatch:
    """Some edits, as what a publish reads. name: of the input, for faults."""

    pending: Sequence[InputEntry]
    name: str
    edits: bool = True
    faults: Faults = field(default_factory=Faults)

    def name_of(self, place: int) -> str:
        return f"{self.name}:{place}"

    def entries(self) -> Iterator[InputEntry]:
        return iter(self.pending)


class EditStream:
    """Lines from a descriptor. Of several edits of one record the last counts. on_fault: told of each bad line.

    Call `wait` to read what comes, `take` for what has come, and `done` once that is published.
    """

    def __init__(self, handle: int, inputs: Inputs, on_fault: Callable[[str], None], wake: int | None = None) -> None:
        """wake: a descriptor that becomes readable when waiting is to end, as at a signal."""
        self.handle, self.inputs, self.on_fault, self.wake = handle, inputs, on_fault, wake
        self.edits: dict[tuple[str, str], InputEntry] = {}
        self.bytes = 0
        self.line = 0
        self.rest = b""
        self.skipping = False  # the rest of a line that is too long
        self.ended = False

    def wait(self, until: float | None) -> bool:
        """Read what comes, until `until` (of `time.monotonic`; None: for ever). Nothing is read without room for it.

        Whether anything was read, or the end. Raises OriginError where the input cannot be read.
        """
        if self.ended:
            return True
        poll = select.poll()
        if self.has_room:
            poll.register(self.handle, select.POLLIN)
        if self.wake is not None:
            poll.register(self.wake, select.POLLIN)
        left_ms = None if until is None else max(0, int((until - time.monotonic()) * 1000) + 1)
        ready = [handle for handle, _ in poll.poll(left_ms)]
        if self.handle not in ready:
            return False
        self.read()
        return True

    def drain(self) -> None:
        """Read all that is there already, without waiting."""
        while not self.ended and self.wait(time.monotonic() - 1) and self.has_room:
            pass

    def read(self) -> None:
        try:
            data = os.read(self.handle, PIECE_BYTES)
        except OSError as fault:
            raise OriginError(f"read standard input: {fault.strerror}; what was read before is published") from fault
        self.ended = not data
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        if self.ended and self.rest:  # without a line break at its end it is a line all the same
            lines, self.rest = [self.rest], b""
        for line in lines:
            self.take_line(line)
        if len(self.rest) > LINE_BYTES:
            if not self.skipping:
                self.on_fault(
                    f"{self.place(self.line + 1)}: a line of more than {LINE_BYTES} bytes; publish less in one"
                )
            self.rest, self.skipping = b"", True

    def take_line(self, line: bytes) -> None:
        self.line += 1
        if self.skipping or not line or line.isspace():
            self.skipping = False
            return
        try:
            entry = self.inputs.parse(decode_object(line), self.line)
        except (WireError, ValidationError) as fault:
            self.on_fault(f"{self.place(self.line)}: {fault}; got {excerpt(line)}")
            return
        self.put(entry)

    def put(self, entry: InputEntry) -> None:
        before = self.edits.pop((entry.collection, entry.key), None)
        self.bytes += size_of(entry) - (0 if before is None else size_of(before))
        self.edits[entry.collection, entry.key] = entry

    def place(self, line: int) -> str:
        return f"standard input:{line}"

    @property
    def has_room(self) -> bool:
        return self.bytes < PENDING_BYTES

    def take(self) -> EditBatch:
        """All that has come; it stays here until `done` is told of it."""
        return EditBatch(list(self.edits.values()), "standard input")

    def done(self, batch: Iterable[InputEntry]) -> None:
        """These are published, or refused for good. One that came again meanwhile stays."""
        for entry in batch:
            if self.edits.get((entry.collection, entry.key)) is entry:
                del self.edits[entry.collection, entry.key]
                self.bytes -= size_of(entry)


def size_of(entry: InputEntry) -> int:
    return ENTRY_BYTES + len(entry.key) + len(entry.value or b"")
