"""Edits without end: what has come on a descriptor so far, batch by batch, and nothing of it lost."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from edged.errors import EdgedError, OriginError, ValidationError, WireError
from edged.origin.input.lines import LINE_BYTES, Faults
from edged.origin.input.positions import InputCursor, InputMark, check_position
from edged.origin.input.reading import InputEntry, Inputs, decode_object, excerpt

PIECE_BYTES = 64 << 10
PENDING_BYTES = 64 << 20  # of edits that are not published yet; beyond, whoever writes them waits
ENTRY_BYTES = 256  # what an edit takes beside its value


@dataclass(slots=True)
class EditBatch:
    """Some edits, as what a publish reads. name: of the input, for faults; mark: where the input is with them."""

    pending: Sequence[InputEntry]
    name: str
    mark: InputMark | None = None
    edits: bool = True
    faults: Faults = field(default_factory=Faults)

    def name_of(self, place: int) -> str:
        return f"{self.name}:{place}"

    def entries(self) -> Iterator[InputEntry]:
        return iter(self.pending)


class EditStream:
    """Lines from a descriptor. Of several edits of one record the last counts. on_fault: told of each bad line.

    Call `wait` to read what comes, `take` for what has come, and `done` once that is published.

    With a cursor lines may have a `position`, up to which all is then complete: edits after the last one are held back
    until theirs comes, so that no version has half of what belongs together. broken: why nothing more is read.
    """

    def __init__(
        self,
        handle: int,
        inputs: Inputs,
        on_fault: Callable[[str], None],
        wake: int | None = None,
        cursor: InputCursor | None = None,
    ) -> None:
        """wake: a descriptor that becomes readable when waiting is to end, as at a signal."""
        self.handle, self.inputs, self.on_fault, self.wake, self.cursor = handle, inputs, on_fault, wake, cursor
        self.edits: dict[tuple[str, str], InputEntry] = {}
        self.open: list[InputEntry] = []  # edits of which the position has not come
        self.bytes = 0
        self.line = 0
        self.rest = b""
        self.skipping = False  # the rest of a line that is too long
        self.skipped = 0  # bytes of that line
        self.is_cut_off = False  # the last line has no end: whoever wrote it may have been killed within it
        self.ended = False
        self.broken: EdgedError | None = None
        self.settled = None if cursor is None else cursor.mark  # up to where it is published

    def wait(self, until: float | None) -> bool:
        """Read what comes, until `until` (of `time.monotonic`; None: for ever). Nothing is read without room for it.

        Whether anything was read, or the end. Raises OriginError where the input cannot be read.
        """
        if self.ended:
            return True
        if not self.has_room and self.open and not self.edits:
            self.close_group()  # what belongs together is more than can be held back: its position stays behind
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
        ends = 1
        if self.ended and self.rest:  # without a line break at its end it is a line all the same
            lines, self.rest, ends, self.is_cut_off = [self.rest], b"", 0, True
        for line in lines:
            self.skipped, size = 0, self.skipped + len(line) + ends
            try:
                self.take_line(line, size)
            except EdgedError as fault:  # of the input as a whole; what came before it is published
                self.broken, self.ended = fault, True
                return
        if len(self.rest) > LINE_BYTES:
            if not self.skipping:
                self.on_fault(
                    f"{self.place(self.line + 1)}: a line of more than {LINE_BYTES} bytes; publish less in one"
                )
            self.skipped += len(self.rest)
            self.rest, self.skipping = b"", True

    def take_line(self, line: bytes, size: int) -> None:
        """size: bytes of the input that it took. Raises ValidationError, OriginError for positions that make none."""
        self.line += 1
        entry = position = None
        if self.skipping or not line or line.isspace():
            self.skipping = False
        else:
            try:
                item = decode_object(line)
                if self.cursor is not None and self.inputs.parse == self.inputs.parse_line:
                    position = item.pop("position", None)
                if item or position is None:
                    entry = self.inputs.parse(item, self.line)
            except (WireError, ValidationError) as fault:
                self.on_fault(f"{self.place(self.line)}: {fault}; got {excerpt(line)}")
        if self.cursor is None:
            if entry is not None:
                self.put(entry)
        elif entry is not None or position is not None or not self.is_cut_off:
            self.move(self.cursor, entry, position, size)

    def move(self, cursor: InputCursor, entry: InputEntry | None, position: object, size: int) -> None:
        is_new = cursor.count(size)
        if entry is not None and is_new:
            self.open.append(entry)
            self.bytes += size_of(entry)
        elif entry is not None:
            cursor.repeated += 1
        if position is None:
            if not cursor.is_given:
                self.close_group()
            return
        try:
            is_new = cursor.give(check_position(position))
        except ValidationError as fault:
            raise ValidationError(f"{self.place(self.line)}: {fault}") from fault
        if is_new:
            self.close_group()
        else:
            cursor.repeated += len(self.open)
            self.bytes -= sum(size_of(held) for held in self.open)
            self.open.clear()

    def close_group(self) -> None:
        """What was held back may be published."""
        held, self.open = self.open, []
        for entry in held:
            self.bytes -= size_of(entry)
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
        mark = None if self.cursor is None else self.cursor.mark
        return EditBatch(list(self.edits.values()), "standard input", mark)

    @property
    def waits(self) -> bool:
        """Whether there is anything to publish, or a position to be kept."""
        return bool(self.edits) or (self.cursor is not None and self.cursor.mark != self.settled)

    def done(self, batch: Iterable[InputEntry]) -> None:
        """These are published, or refused for good. One that came again meanwhile stays."""
        for entry in batch:
            if self.edits.get((entry.collection, entry.key)) is entry:
                del self.edits[entry.collection, entry.key]
                self.bytes -= size_of(entry)


def size_of(entry: InputEntry) -> int:
    return ENTRY_BYTES + len(entry.key) + len(entry.value or b"")
