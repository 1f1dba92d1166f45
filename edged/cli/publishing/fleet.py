"""`edged origin fleet`: which versions the devices hold, by the access logs of whoever serves the feed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edged.cli.output import add_json_flag, emit, table
from edged.errors import OriginError
from edged.origin.fleet import FleetReport, count_polls, read_logs
from edged.origin.serving.published import document, known_of
from edged.polls import REASONS
from edged.units import moment_text, span_text


def add_fleet(kinds: Any) -> None:
    parser = kinds.add_parser(
        "fleet", help="which versions devices hold, from access logs", description=fleet_command.__doc__
    )
    parser.add_argument("logs", nargs="+", metavar="LOG", help="also .gz and .zst, - for standard input")
    parser.add_argument("--feed", type=Path, metavar="FEED_DIR", help="says what is right, and when it was published")
    parser.add_argument("--dataset", metavar="D", help="only this one")
    parser.set_defaults(run=fleet_command)
    add_json_flag(parser)


def fleet_command(args: argparse.Namespace) -> int:
    """Count by version and lag what devices say in their polls that they hold, name states that no publisher made, and
    say how soon each version reached half of them, 90 and 99 of a hundred. Reads the logs of nginx, Varnish, Apache, S3
    and CloudFront in their usual forms, and others with an ISO time. Devices are told apart by their address."""
    fleets, lines = count_polls(read_logs(args.logs))
    wanted = {name: fleet for name, fleet in fleets.items() if args.dataset in (None, name)}
    if not wanted:
        raise OriginError(
            f"fleet: no poll of {args.dataset or 'any dataset'} in the {lines} lines read; polls have /DATASET/head in "
            "the request and edged/… (VERSION DIGEST) in the User-Agent, which the log has to keep"
        )
    reports = [fleet.report(known_of(args.feed, name)) for name, fleet in sorted(wanted.items())]
    data = {"lines": lines, "datasets": {report.dataset: document(report) for report in reports}}
    emit(args, data, "\n\n".join(describe(report) for report in reports))
    return 0


def describe(report: FleetReport) -> str:
    lines = [f"{report.dataset}: {report.polls} polls of {report.clients} clients, newest version {report.newest}"]
    rows = [
        (str(item.version), str(item.lag), str(item.clients), f"{100 * item.share:.1f}%") for item in report.versions
    ]
    lines.append(table(rows, ("version", "behind", "clients", "share")))
    reached = [
        (str(item.version), moment_text(item.since), *(shown(seconds) for seconds in item.seconds.values()))
        for item in report.spreads
    ]
    lines.append(table(reached, ("version", "since", "50%", "90%", "99%")))
    lines += [
        f"{count} clients hold version {version} with digest {digest}, which is not its content: their next audit "
        "mends it, or somebody publishes with your key"
        for version, digest, count in report.strange
    ]
    lines += [
        f"{item.clients} clients stay at version {item.version}: {item.reason} ({REASONS[item.reason]})"
        for item in report.refusals
    ]
    lines += [
        f"{group.clients} clients hold version {group.version} ({group.digest}) and lack one that is out since "
        f"{moment_text(group.since)}: {', '.join(group.names)}{' …' if group.clients > len(group.names) else ''}"
        for group in report.stuck
    ]
    return "\n".join(lines)


def shown(seconds: float | None) -> str:
    return "not yet" if seconds is None else span_text(seconds)
