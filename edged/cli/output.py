"""What every command prints: text for a person, JSON with --json, a progress bar where it may take over a second.

The bar needs `rich` (the `cli` extra). Without it, or when standard error is not a terminal, nothing moves.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from typing import Any

from edged.ops.logs import one_line
from edged.progress import Watch, unwatched

logger = logging.getLogger("edged")


def add_json_flag(parser: argparse.ArgumentParser, what: str = "print one JSON document instead of text") -> None:
    parser.add_argument("--json", action="store_true", help=what)


def positive(text: str) -> int:
    """A whole number from 1 on that fits in 63 bits. Raises argparse.ArgumentTypeError."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else 0
    if not 0 < number < 1 << 63:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, of 63 bits at most, got {text!r:.40}")
    return number


def waiting_seconds(text: str) -> float:
    """Seconds from 0 on. Raises argparse.ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds from 0 on, got {text!r:.40}")
    return number


def emit(args: argparse.Namespace, data: Any, text: str, *, one_line: bool = False) -> None:
    """Print `data` as JSON if --json was given, else `text`. one_line: of many documents each is a line (NDJSON)."""
    if args.json:
        json.dump(data, sys.stdout, ensure_ascii=False, indent=None if one_line else 2)
        sys.stdout.write("\n")
    elif text:
        print(text)
    sys.stdout.flush()


def announce(args: argparse.Namespace, data: Any, text: str, *, one_line: bool = False) -> None:
    """`emit` for a program that goes on, whether anybody reads it or not."""
    try:
        emit(args, data, text, one_line=one_line)
    except OSError as fault:
        logger.warning("standard output: %s", fault.strerror)
        discard_output()


def discard_output() -> None:
    """Have what is still to be printed go nowhere, the interpreter's last flush too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def write_lines(lines: Iterable[str]) -> None:
    """In blocks, so that a million keys neither wait for the last one nor cost a system call each."""
    lines = iter(lines)
    while block := list(islice(lines, 1000)):
        sys.stdout.write("\n".join(block) + "\n")
    sys.stdout.flush()


@contextmanager
def progress(args: argparse.Namespace) -> Iterator[Watch]:
    """A progress bar on standard error while the block runs, for what is told to the watch."""
    if args.json or not sys.stderr.isatty() or find_spec("rich") is None:
        yield unwatched
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)

        def watch(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total or None)

        yield watch


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...]) -> str:
    """Columns aligned: the first to the left, numbers to the right. What does not print is escaped."""
    rows = [tuple(one_line(cell) for cell in row) for row in rows]
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    numeric = [
        all(line[column][:1].isdigit() or line[column][:1] in ("", "-") for line in rows)
        for column in range(len(header))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )
