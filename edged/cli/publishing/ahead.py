"""`edged origin ahead`, `release`, `withdraw-ahead`: a version that devices fetch now and cannot read yet."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

from edged.cli.output import emit, progress, waiting_seconds
from edged.cli.publishing.shared import add, add_inputs, inputs_of, open_feed, show
from edged.origin.ahead import preparing
from edged.origin.ahead.preparing import SPREAD_S, AheadOptions
from edged.replica.indexes.terms import time_of
from edged.units import moment_text, size_text


def add_ahead(kinds: Any) -> None:
    ahead = add(
        kinds, "ahead", ahead_command, "a version that devices fetch now and cannot read yet", dataset=True, wait=True
    )
    add_inputs(ahead)
    ahead.add_argument(
        "--at", type=moment, metavar="TIME", help="make it live then, while origin serve runs: RFC 3339 or seconds"
    )
    ahead.add_argument(
        "--spread",
        type=waiting_seconds,
        default=float(SPREAD_S),
        metavar="SECONDS",
        help=f"within which devices fetch it, each at its own place (default {SPREAD_S})",
    )
    ahead.add_argument("--force-change", action="store_true", help="validate.max_change does not hold this time")
    ahead.add_argument(
        "--allow-removals", action="store_true", help="most of a collection, or a whole slice, is meant to go"
    )
    ahead.add_argument("--message", default="", metavar="TEXT", help="why, kept in the log")
    add(kinds, "release", release_command, "make the version ahead live", dataset=True, wait=True)
    add(kinds, "withdraw-ahead", withdraw_command, "take the version ahead back", dataset=True, wait=True)


def moment(text: str) -> int:
    """Seconds since 1970, as they are or as RFC 3339. Raises argparse.ArgumentTypeError."""
    found = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else time_of(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r:.40}: expected a time, seconds since 1970 or as in 2026-12-31T23:00:00Z"
        )
    return int(found)


def ahead_command(args: argparse.Namespace) -> int:
    """Prepare INPUTs, as `publish` takes them, as the next version: devices fetch it encrypted and cannot read it
    before `release`. It replaces one that was prepared before; a publish in between supersedes it.
    """
    options = AheadOptions(args.at, int(args.spread), args.message, args.force_change, args.allow_removals)
    publisher = open_feed(args)
    with progress(args) as watch, publisher.at_work(args.dataset, watch=watch) as place:
        result = preparing.prepare(place, inputs_of(args), options, watch=watch)
    for hint in result.hints:
        print(f"edged: note: {hint}", file=sys.stderr)
    when = "with: edged origin release" if result.at is None else f"at {moment_text(result.at)} (by origin serve)"
    text = (
        f"{result.dataset} version {result.version} is prepared: {result.added} added, {result.changed} changed, "
        f"{result.removed} removed; devices fetch {size_text(sum(result.slices.values()))} within {result.spread_s} s; "
        f"it goes live {when}"
    )
    emit(args, asdict(result), text)
    return 0


def release_command(args: argparse.Namespace) -> int:
    """Make the version that was prepared live: a small head with the key, and nothing to fetch for who has it."""
    publisher = open_feed(args)
    with progress(args) as watch, publisher.at_work(args.dataset, watch=watch) as place:
        result = preparing.release(place, watch=watch)
    return show(args, publisher, result)


def withdraw_command(args: argparse.Namespace) -> int:
    """Take the version that was prepared back: devices delete what they have of it, and nobody ever gets the key."""
    with open_feed(args).at_work(args.dataset) as place:
        version = preparing.withdraw(place)
    text = f"{args.dataset}: the version ahead, which would have been {version}, is withdrawn"
    emit(args, {"dataset": args.dataset, "withdrawn": version}, text)
    return 0
