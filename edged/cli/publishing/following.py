"""`edged origin publish --follow`: edits without end on standard input, a version at most so often."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edged.errors import ConfigError, EdgedError, ValidationError
from edged.ops.logs import one_line
from edged.origin.input.following import EditBatch, EditStream
from edged.origin.input.lines import InputError
from edged.origin.input.reading import InputEntry, Inputs
from edged.origin.publisher import Publisher, PublishOptions
from edged.origin.results import PublishResult

FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 30.0  # before a publish is tried again
ENDING_TRIES = 5  # after the end of the input, or SIGTERM

Show = Callable[[PublishResult], None]


def check_follow(args: argparse.Namespace) -> None:
    """Raises ConfigError for what does not go with --follow."""
    if not args.follow:
        if args.every is not None:
            raise ConfigError("publish: --every says how often with --follow; give both")
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
class EditFollower:
    """refused: lines that are none, and edits that break a rule; each was told of."""

    publisher: Publisher
    dataset: str
    options: PublishOptions
    stream: EditStream
    show: Show
    every_s: float
    refused: int = 0

    def run(self, stopped: list[int]) -> int:
        """Until the input ends or a signal comes; then what was read is published. The exit code."""
        due, pause_s = 0.0, 0.0
        while not self.stream.ended and not stopped:
            self.stream.wait(due if self.stream.edits else None)
            if stopped or not self.stream.edits or time.monotonic() < due:
                continue
            began = time.monotonic()
            pause_s = 0.0 if self.publish(pause_s) else min(max(2 * pause_s, FIRST_PAUSE_S), MOST_PAUSE_S)
            due = time.monotonic() + pause_s if pause_s else began + self.every_s
        return self.finish()

    def finish(self) -> int:
        self.stream.drain()
        for _ in range(ENDING_TRIES):
            while self.stream.edits and self.publish(0.0):
                self.stream.drain()
            if not self.stream.edits:
                break
            time.sleep(FIRST_PAUSE_S)
        if self.stream.edits:
            self.say(f"{len(self.stream.edits)} edits were read and are not published; give them again")
            return 1
        if self.refused:
            self.say(f"{self.refused} lines or edits were refused, each is named above; everything else is published")
            return 3
        return 0

    def publish(self, paused_s: float) -> bool:
        """What has come. False where it has to be tried again."""
        batch = self.stream.take()
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
            try:
                result = self.publisher.publish_source(self.dataset, batch, self.options)
            except InputError as fault:
                wrong = {id(entry): text for entry in batch.pending if (text := told_of(entry, fault.faults))}
                if not wrong:
                    raise
                for entry in batch.pending:
                    if id(entry) in wrong:
                        self.refuse(f"{batch.name_of(entry.place)}: {one_line(wrong[id(entry)])}")
                        self.stream.done([entry])
                batch = EditBatch([entry for entry in batch.pending if id(entry) not in wrong], batch.name)
            else:
                self.stream.done(batch.pending)
                self.show(result)
                return

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
        stream = EditStream(sys.stdin.fileno(), inputs, lambda text: following.refuse(text), wake)
        following = EditFollower(publisher, args.dataset, options, stream, show, args.every or 1.0)
        try:
            return following.run(stopped)
        except EdgedError:
            if stream.edits:
                EditFollower.say(f"{len(stream.edits)} edits were read and are not published; give them again")
            raise
