"""`edged origin publish --follow`: edits without end on standard input, a version at most so often.

With `--progress FILE` it is kept how far the input is published, so that whoever gives it goes on from there.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

from edged.cli.publishing.caretaking import Caretaker
from edged.errors import BusyError, ConfigError, EdgedError, ValidationError
from edged.ops.logs import one_line
from edged.origin.input.following import EditBatch, EditStream
from edged.origin.input.lines import InputError
from edged.origin.input.positions import InputCursor, InputMark, ProgressFile, keep, reached, write_behind
from edged.origin.input.reading import InputEntry, Inputs
from edged.origin.publisher import Publisher, PublishOptions
from edged.origin.results import PublishResult

FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 30.0  # before a publish is tried again
PIPE_BYTES = 1 << 20  # so much can be written while a version is made
ENDING_TRIES = 5  # after the end of the input, or SIGTERM

Show = Callable[[PublishResult], None]


def check_follow(args: argparse.Namespace) -> None:
    """Raises ConfigError for what does not go with --follow."""
    if not args.follow:
        if args.every is not None:
            raise ConfigError("publish: --every says how often with --follow; give both")
        if args.progress is not None:
            raise ConfigError("publish: --progress says how far the input of --follow is published; give both")
        return
    if args.inputs != ["-"]:
        raise ConfigError("publish: --follow reads standard input alone; leave INPUT out, or give -")
    for name in ("dry_run", "rollout", "allow_empty"):
        if getattr(args, name):
            raise ConfigError(f"publish: --follow and --{name.replace('_', '-')} do not go together; leave one out")


@contextmanager
def stop_signals() -> Iterator[tuple[int, list[int]]]:
    """A descriptor that becomes readable at SIGTERM and SIGINT, and the list of those that came."""
    came: list[int] = []
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield reader, came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(reader)
        os.close(writer)


@dataclass(slots=True)
class InputProgress:
    """How far the input is published. version, mark: what the state has; expected: the marks that it may have when the
    next is kept, more than one where it is not known whether a publish that failed has kept its own.
    """

    publisher: Publisher
    file: ProgressFile
    cursor: InputCursor
    version: int
    mark: InputMark
    expected: set[InputMark] = field(default_factory=set)

    @classmethod
    def open(cls, publisher: Publisher, dataset: str, path: Path) -> Self:
        """Raises EdgedError, BusyError while another publisher is at work.

        FILE is left as it is until the input has begun: whoever gives it may not have read it yet.
        """
        file = ProgressFile.open(path, dataset)
        begin = file.mark
        with publisher.opened(dataset, create=True) as place:
            version, mark = file.compare(reached(place.state, file.name))
        return cls(publisher, file, InputCursor(begin, mark), version, mark, {mark})

    def options(self, options: PublishOptions, mark: InputMark) -> PublishOptions:
        """Those of a publish that brings the input to `mark`."""
        expected = frozenset(self.expected)
        self.expected.add(mark)
        return replace(options, note=partial(keep, name=self.file.name, mark=mark, expected=expected))

    def note(self, mark: InputMark) -> None:
        """The input has come to `mark`, and nothing is to be published. Raises EdgedError."""
        dataset = self.file.dataset
        if not self.publisher.state_path(dataset).exists():
            return  # there is no version yet that could hold it
        with self.publisher.opened(dataset) as place:
            expected = frozenset(self.expected)
            self.expected.add(mark)
            with place.state.transaction(f"keep the position of the input of dataset {dataset}"):
                keep(place.state, self.file.name, mark, expected)
            version = place.state.live
        self.kept(version, mark)

    def kept(self, version: int, mark: InputMark) -> None:
        """It is in the state, for good."""
        self.version, self.mark, self.expected = version, mark, {mark}
        self.write()

    def write(self) -> bool:
        """Whether FILE says what the state has."""
        if (fault := write_behind(self.file, self.version, self.mark)) is not None:
            EditFollower.say(fault)
        return fault is None


@dataclass(slots=True)
class EditFollower:
    """refused: lines that are none, and edits that break a rule; each was told of."""

    publisher: Publisher
    dataset: str
    options: PublishOptions
    stream: EditStream
    show: Show
    every_s: float
    refused: int = 0
    progress: InputProgress | None = None
    caretaker: Caretaker | None = None

    def run(self, stopped: list[int]) -> int:
        """Until the input ends or a signal comes; then what was read is published. The exit code."""
        due, pause_s = 0.0, 0.0
        while not self.stream.ended and not stopped:
            self.stream.wait(due if self.stream.waits else None)
            if stopped or not self.stream.waits or time.monotonic() < due:
                continue
            began = time.monotonic()
            pause_s = 0.0 if self.publish(pause_s) else min(max(2 * pause_s, FIRST_PAUSE_S), MOST_PAUSE_S)
            due = time.monotonic() + pause_s if pause_s else began + self.every_s
        return self.finish(stopped)

    def finish(self, stopped: list[int]) -> int:
        self.stream.drain()
        for _ in range(ENDING_TRIES):
            while self.stream.waits and self.publish(0.0):
                self.stream.drain()
            if not self.stream.waits:
                break
            time.sleep(FIRST_PAUSE_S)
        is_kept = self.progress is None or self.progress.write()
        self.tell_repeated()
        if self.stream.broken is not None:
            raise self.stream.broken
        if self.stream.edits:
            self.say(f"{len(self.stream.edits)} edits were read and are not published; give them again")
            return 1
        if self.stream.open:
            self.say(f"{len(self.stream.open)} edits came after the last position and are not published without theirs")
            return 0 if stopped else 1
        if not is_kept:
            return 1
        if self.refused:
            self.say(f"{self.refused} lines or edits were refused, each is named above; everything else is published")
            return 3
        return 0

    def tell_repeated(self) -> None:
        """Once, of what was given again and is published already."""
        cursor = self.stream.cursor
        if cursor is not None and cursor.repeated:
            self.say(f"{cursor.repeated} edits came again that were published before; they were passed over")
            cursor.repeated = 0

    def publish(self, paused_s: float) -> bool:
        """What has come. False where it has to be tried again."""
        self.stream.drain()
        batch = self.stream.take()
        self.tell_repeated()
        try:
            self.publish_batch(batch)
        except ValidationError:
            raise
        except EdgedError as fault:
            if not paused_s:  # once, not at every try
                self.say(f"{one_line(str(fault))}; trying again, {len(batch.pending)} edits wait")
            return False
        return True

    def publish_batch(self, batch: EditBatch) -> None:
        """An edit that breaks a rule costs itself alone: the others are published without it. What breaks one of a
        whole collection ends it, for a person to look at. Raises EdgedError.
        """
        while batch.pending:
            options = self.options
            if self.progress is not None and batch.mark is not None:
                options = self.progress.options(options, batch.mark)
            try:
                result = self.publisher.publish_source(self.dataset, batch, options)
            except InputError as fault:
                wrong = {id(entry): text for entry in batch.pending if (text := told_of(entry, fault.faults))}
                if not wrong:
                    raise
                for entry in batch.pending:
                    if id(entry) in wrong:
                        self.refuse(f"{batch.name_of(entry.place)}: {one_line(wrong[id(entry)])}")
                        self.stream.done([entry])
                left = [entry for entry in batch.pending if id(entry) not in wrong]
                batch = EditBatch(left, batch.name, batch.mark)
            else:
                self.stream.done(batch.pending)
                if self.progress is not None and batch.mark is not None:
                    self.progress.kept(result.version, batch.mark)
                    self.stream.settled = batch.mark
                self.show(result)
                if self.caretaker is not None:
                    self.stream.drain()
                    self.caretaker.after_version(is_busy=bool(self.stream.edits))
                return
        if self.progress is not None and batch.mark is not None and batch.mark != self.stream.settled:
            self.progress.note(batch.mark)
            self.stream.settled = batch.mark

    def refuse(self, text: str) -> None:
        self.refused += 1
        self.say(text)

    @staticmethod
    def say(text: str) -> None:
        print(f"edged: {text}", file=sys.stderr, flush=True)


def told_of(entry: InputEntry, faults: Iterable[str]) -> str:
    """What is said to be wrong with a record, "" if nothing."""
    begin = f"{entry.collection}/{entry.key}: "
    return next((text for text in faults if text.startswith(begin)), "")


def follow(args: argparse.Namespace, publisher: Publisher, inputs: Inputs, options: PublishOptions, show: Show) -> int:
    """Publish what comes on standard input. The exit code."""
    with stop_signals() as (wake, stopped):
        progress = None if args.progress is None else begin(publisher, args.dataset, args.progress, wake)
        cursor = None if progress is None else progress.cursor
        publisher.announcements.keeps = True
        stream = EditStream(sys.stdin.fileno(), inputs, lambda text: following.refuse(text), wake, cursor)
        caretaker = Caretaker(publisher, args.dataset)
        following = EditFollower(
            publisher, args.dataset, replace(options, kept_up=False), stream, show, args.every or 1.0,
            progress=progress, caretaker=caretaker,
        )  # fmt: skip
        widen(sys.stdin.fileno())
        publisher.states.lasting = True
        cut_short = True
        try:
            code = following.run(stopped)
            cut_short = bool(stopped)
            return code
        except EdgedError:
            if stream.edits:
                EditFollower.say(f"{len(stream.edits)} edits were read and are not published; give them again")
            raise
        finally:
            publisher.states.close()
            caretaker.end(cut_short=cut_short)
            publisher.announcements.close()


def widen(handle: int) -> None:
    """Have a pipe hold more, so that whoever writes does not wait for a version."""
    with suppress(OSError):  # no pipe, or more than this user may
        fcntl.fcntl(handle, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def begin(publisher: Publisher, dataset: str, path: Path, wake: int) -> InputProgress:
    """Find out how far the input is published, once no other publisher is at work. Raises EdgedError."""
    told = False
    while True:
        try:
            return InputProgress.open(publisher, dataset, path)
        except BusyError as fault:
            if not told:
                EditFollower.say(f"{one_line(str(fault))}; trying again")
            told = True
            if select.select([wake], [], [], FIRST_PAUSE_S)[0]:
                raise
