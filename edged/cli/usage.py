"""`edged usage`: who uses what, of a running daemon, or as it was last written."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

from edged.access.usage import shown
from edged.access.usagefile import NAME, read_book
from edged.cli.control import ask
from edged.cli.output import emit, table
from edged.config import UsageConfig
from edged.configfile import DEFAULT_PATH, load
from edged.errors import TransportError
from edged.units import size_text

BAR, MOST_LINES = 30, 31
COLUMNS = ("day", "app", "audience", "place", "requests", "remembered", "refused", "bytes", "seconds")


def add_commands(commands: Any) -> None:
    parser = commands.add_parser("usage", help="who uses what: apps, audiences, collections", description=run.__doc__)
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"the configuration (default {DEFAULT_PATH})")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--csv", action="store_true", help="a line for each day, app, audience and place")
    how.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Use by day, audience, app and what was asked for. A running daemon is asked; where there is none, what it has
    written last is shown."""
    document = of_daemon_or_file(args)
    if args.csv:
        writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(document["rows"])
        sys.stdout.flush()
        return 0
    emit(args, document, text_of(document))
    return 0


def of_daemon_or_file(args: argparse.Namespace) -> dict[str, Any]:
    """Raises TransportError where neither is there."""
    try:
        found: dict[str, Any] = ask(args, "GET", "/usage")
    except TransportError:
        if args.config is None and not DEFAULT_PATH.exists():
            raise
        path = Path(load(args.config or DEFAULT_PATH).daemon.data_dir) / NAME
        if not path.is_file():
            raise
        return shown(read_book(path, UsageConfig().keep_days))
    return found


def text_of(document: dict[str, Any]) -> str:
    days = document["days"]
    if not document["rows"]:
        return "nothing was asked for yet"
    parts = [by_day(days[-MOST_LINES:])] if days else []
    if undated := document["undated"]["requests"]:
        parts.append(f"{undated:,} requests came while the clock was not set: they are in no day, and in all below")
    for title, member in (("audience", "audience"), ("app", "app"), ("asked for", "place")):
        parts.append(by_member(document["rows"], title, member))
    return "\n\n".join(parts)


def by_day(days: list[dict[str, Any]]) -> str:
    most = max(day["requests"] for day in days)
    rows = [
        (
            day["day"],
            f"{day['requests']:,}",
            share(day["remembered"], day["requests"]),
            size_text(day["bytes"]),
            bar(day["requests"], most),
        )
        for day in days
    ]
    return table(rows, ("day", "requests", "from memory", "sent", ""))


def by_member(rows: list[dict[str, Any]], title: str, member: str) -> str:
    sums: dict[str, list[float]] = {}
    for row in rows:
        held = sums.setdefault(row[member] or "unknown", [0, 0, 0, 0.0, 0])
        for place, name in enumerate(("requests", "refused", "bytes", "seconds", "remembered")):
            held[place] += row[name]
    total = sum(held[0] for held in sums.values())
    lines = [
        (
            name,
            f"{held[0]:,.0f}",
            share(held[0], total),
            f"{held[1]:,.0f}",
            size_text(int(held[2])),
            made(held),
            bar(held[0], total),
        )
        for name, held in sorted(sums.items(), key=lambda item: -item[1][0])[:MOST_LINES]
    ]
    return table(lines, (title, "requests", "share", "refused", "sent", "to make one", ""))


def made(held: list[float]) -> str:
    """The mean time to make an answer that was not remembered."""
    count = held[0] - held[4]
    return f"{1000 * held[3] / count:.2f} ms" if count > 0 else "–"


def share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f}%" if whole else "–"


def bar(part: float, most: float) -> str:
    return "█" * round(BAR * part / most) if most else ""
