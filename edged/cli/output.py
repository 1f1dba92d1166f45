"""What every command prints: text for a person, JSON with --json, a progress bar where it may take over a second.

The bar needs `rich` (the `cli` extra). Without it, or when standard error is not a terminal, nothing moves.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol


class Progress(Protocol):
    """`advance(n)` counts n more of what is being done; `total(n)` says how many there are when that becomes known.

    `show(what, done, total)` says all three anew.
    """

    def advance(self, count: int = 1) -> None: ...

    def total(self, count: int) -> None: ...

    def show(self, what: str, done: int, total: int) -> None: ...


class Silent:
    """Progress that nobody watches."""

    def advance(self, count: int = 1) -> None:
        del count

    def total(self, count: int) -> None:
        del count

    def show(self, what: str, done: int, total: int) -> None:
        del what, done, total


class Bar:
    """A bar of rich's."""

    def __init__(self, bars: Any, task: Any) -> None:
        self.bars, self.task = bars, task

    def advance(self, count: int = 1) -> None:
        self.bars.advance(self.task, count)

    def total(self, count: int) -> None:
        self.bars.update(self.task, total=count)

    def show(self, what: str, done: int, total: int) -> None:
        self.bars.update(self.task, description=what, completed=done, total=total or None)


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def emit(args: argparse.Namespace, data: Any, text: str) -> None:
    """Print `data` as JSON if --json was given, else `text`."""
    if args.json:
        json.dump(data, sys.stdout, ensure_ascii=False, indent=2)
        sys.stdout.write("\n")
    elif text:
        print(text)
    sys.stdout.flush()


@contextmanager
def progress(args: argparse.Namespace, what: str, total: int | None = None) -> Iterator[Progress]:
    """A progress bar on standard error while the block runs. total: how many steps, None if not known yet."""
    if args.json or not sys.stderr.isatty() or find_spec("rich") is None:
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        yield Bar(bars, bars.add_task(what, total=total))


def size(count: float) -> str:
    """Bytes as a person reads them: 512 B, 3.4 kB, 12.0 MB."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000 or unit == "GB":
            return f"{count:.1f} {unit}"
    raise AssertionError("unreachable")


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...]) -> str:
    """Columns aligned: the first to the left, numbers to the right."""
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
