"""What the commands on a feed have in common: their arguments, and how they show what was made live."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edged.cli.output import add_json_flag, emit, waiting_seconds
from edged.errors import ConfigError, WireError
from edged.feed.names import check_collection, check_name
from edged.origin.input.reading import Inputs
from edged.origin.publisher import Publisher
from edged.origin.results import PublishResult
from edged.units import size_text


def add(kinds: Any, name: str, run: Any, text: str, *, dataset: bool = False, wait: bool = False) -> Any:
    parser = kinds.add_parser(name, help=text, description=run.__doc__)
    parser.add_argument("feed_dir", type=Path, metavar="FEED_DIR")
    if dataset:
        parser.add_argument("--dataset", required=True, type=dataset_name, metavar="D")
    if wait:
        parser.add_argument(
            "--wait",
            type=waiting_seconds,
            default=0.0,
            metavar="SECONDS",
            help="wait so long for another publisher to finish",
        )
    add_json_flag(parser)
    parser.set_defaults(run=run)
    return parser


def add_inputs(parser: Any) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="NDJSON, also .zst and .gz; -: standard input")
    parser.add_argument(
        "--collection", type=collection_name, metavar="C", help="lines are plain objects of this collection"
    )
    parser.add_argument("--key", metavar="FIELD", help="the field of plain objects that is the key")
    parser.add_argument("--changes", action="store_true", help="lines are edits; what they do not name stays")


def inputs_of(args: argparse.Namespace, *, edits: bool = False) -> Inputs:
    """What add_inputs() asked for; edits: whatever --changes says. Raises ConfigError for half of a pair."""
    if (args.collection is None) != (args.key is None):
        raise ConfigError(
            f"{args.origin_command}: --collection and --key go together, for lines that are plain objects; give both"
        )
    return Inputs(args.inputs, collection=args.collection, key_field=args.key, edits=edits or args.changes)


def dataset_name(text: str) -> str:
    """Raises argparse.ArgumentTypeError for what can name no dataset."""
    try:
        return check_name(text, "dataset")
    except WireError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from fault


def collection_name(text: str) -> str:
    """Raises argparse.ArgumentTypeError for what can name no collection."""
    try:
        return check_collection(text)
    except WireError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from fault


def open_feed(args: argparse.Namespace) -> Publisher:
    return Publisher.open(args.feed_dir, wait_s=getattr(args, "wait", 0.0))


def show(args: argparse.Namespace, publisher: Publisher, result: PublishResult) -> int:
    """Print what an operation made live, and what has to be done about the root of trust."""
    if (warning := publisher.warning()) is not None:
        print(f"edged: warning: {warning}", file=sys.stderr)
    data = asdict(result) | {"hop_bytes": result.hop_bytes, "snapshot_bytes": result.snapshot_bytes}
    for hint in result.hints:
        print(f"edged: note: {hint}", file=sys.stderr)
    if result.rehearsed:
        text = rehearsed_text(result)
    elif result.unchanged:
        text = f"{result.dataset}: nothing changed; version {result.version} was signed anew"
    else:
        lines = [
            f"{result.dataset} version {result.version}: {result.added} added, {result.changed} changed, "
            f"{result.removed} removed; head {size_text(result.head_bytes)}"
        ]
        if result.permille is not None:
            lines.append(f"  offered to {result.permille / 10:g}% of the devices")
        for name, item in result.slices.items():
            hop = "no hop" if item.hop_bytes is None else f"hop {size_text(item.hop_bytes)}"
            if item.version == result.version:
                records = "1 record" if item.records == 1 else f"{item.records} records"
                lines.append(f"  {name}: {records}, {hop}, snapshot {size_text(item.snapshot_bytes)}")
        text = "\n".join(lines)
    emit(args, data, text)
    return 0


def rehearsed_text(result: PublishResult) -> str:
    """What a dry run found out."""
    if result.unchanged:
        return f"{result.dataset}: nothing would change; version {result.version} would be signed anew"
    return (
        f"{result.dataset}: would become version {result.version}: {result.added} added, {result.changed} changed, "
        f"{result.removed} removed; head {size_text(result.head_bytes)}, hops {size_text(result.hop_bytes)}; "
        "nothing was written"
    )
