"""`edged origin`: makes a feed, publishes to it, serves it."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edged.cli.output import announce, emit, positive, progress, table, waiting_seconds
from edged.cli.publishing.ahead import add_ahead
from edged.cli.publishing.fleet import add_fleet
from edged.cli.publishing.following import check_follow, follow
from edged.cli.publishing.serving import add_serve, serve_command
from edged.cli.publishing.shared import add, add_inputs, collection_name, dataset_name, inputs_of, open_feed, show
from edged.errors import ConfigError, OriginError
from edged.ops.logs import one_line
from edged.origin import history, takedowns
from edged.origin.publisher import Publisher, PublishOptions
from edged.origin.results import PublishResult
from edged.units import size_text

SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9])?)%")
EVERYBODY = 1000  # permille


def add_commands(commands: Any) -> None:
    origin = commands.add_parser("origin", help="make a feed, publish to it, serve it")
    kinds = origin.add_subparsers(dest="origin_command", metavar="COMMAND", required=True)
    add_init(kinds)
    add_publish(kinds)
    add_rollout(kinds)
    add_ahead(kinds)
    add_corrections(kinds)
    add(kinds, "takedowns", takedowns_command, "what is taken down, and since when", dataset=True)
    add_rotate(kinds)
    add(kinds, "datasets", datasets_command, "the datasets of a feed")
    drop = add(kinds, "drop", drop_command, "remove a dataset", dataset=True, wait=True)
    drop.add_argument("--yes", action="store_true", help="do not ask")
    verify = add(kinds, "verify", verify_command, "whether all that the heads lead to is there and whole", wait=True)
    verify.add_argument("--dataset", type=dataset_name, metavar="D", help="only this one")
    verify.add_argument("--mend", action="store_true", help="make anew what is missing or damaged")
    log = add(kinds, "log", log_command, "versions, what changed, bytes per field and collection", dataset=True)
    log.add_argument(
        "--diff", nargs=2, type=positive, metavar=("A", "B"), help="what changed from version A to version B"
    )
    add_fleet(kinds)
    add_serve(add(kinds, "serve", serve_command, "serve the feed over HTTP"))


def add_init(kinds: Any) -> None:
    init = add(kinds, "init", init_command, "make keys and an empty feed")
    init.add_argument(
        "--root-keys", type=positive, default=1, metavar="N", help="how many root keys to make (default 1)"
    )
    init.add_argument(
        "--threshold", type=positive, default=1, metavar="T", help="how many of them must sign (default 1)"
    )


def add_publish(kinds: Any) -> None:
    publish = add(kinds, "publish", publish_command, "publish records or edits", dataset=True, wait=True)
    add_inputs(publish)
    publish.add_argument("--follow", action="store_true", help="edits without end on standard input, until it ends")
    publish.add_argument(
        "--every", type=waiting_seconds, metavar="SECONDS", help="with --follow: a version at most so often (default 1)"
    )
    publish.add_argument(
        "--progress", type=Path, metavar="FILE", help="with --follow: keep there how far the input is published"
    )
    publish.add_argument("--force-change", action="store_true", help="validate.max_change does not hold this time")
    publish.add_argument(
        "--rollout", type=share, metavar="SHARE", help="offer the version to such a share of the devices, as in 5%%"
    )
    publish.add_argument(
        "--allow-removals", action="store_true", help="most of a collection, or a whole slice, is meant to go"
    )
    publish.add_argument("--dry-run", action="store_true", help="say what would change and what it would cost")
    publish.add_argument("--message", default="", metavar="TEXT", help="why, kept in the log")
    publish.add_argument("--allow-empty", action="store_true", help="an input without records removes all of them")


def add_corrections(kinds: Any) -> None:
    rollback = add(
        kinds, "rollback", rollback_command, "publish an old version's content again", dataset=True, wait=True
    )
    rollback.add_argument(
        "--to", type=positive, required=True, metavar="V", help="the version whose content comes back"
    )
    for name, run, text in (
        ("takedown", takedown_command, "remove records from every version at once"),
        ("restore", restore_command, "end takedowns"),
    ):
        parser = add(kinds, name, run, text, dataset=True, wait=True)
        parser.add_argument("collection", type=collection_name, metavar="COLLECTION")
        parser.add_argument("keys", nargs="+", metavar="KEY")


def add_rollout(kinds: Any) -> None:
    rollout = add(
        kinds, "rollout", rollout_command, "show, raise or withdraw the rollout under way", dataset=True, wait=True
    )
    how = rollout.add_mutually_exclusive_group()
    how.add_argument("--share", type=share, metavar="SHARE", help="the larger share, as in 25%%; 100%% makes it live")
    how.add_argument("--withdraw", action="store_true", help="publish the stable content again for those who took it")


def share(text: str) -> int:
    """ "2.5%" as permille. Raises argparse.ArgumentTypeError."""
    match = SHARE.fullmatch(text)
    permille = round(float(match[1]) * 10) if match else 0
    if not 1 <= permille <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a share from 0.1% to 100%, as in 5%")
    return permille


def add_rotate(kinds: Any) -> None:
    rotate = add(kinds, "rotate-key", rotate_command, "a new signing key, signed in by the root of trust", wait=True)
    rotate.add_argument("--root-keys-dir", type=Path, metavar="DIR", help="where the root keys are, if kept offline")
    rotate.add_argument("--new-root-keys", action="store_true", help="make new root keys too, signed in by the old")


def init_command(args: argparse.Namespace) -> int:
    """Make keys and an empty feed in FEED_DIR; print where the root of trust is that devices are given."""
    publisher = Publisher.init(args.feed_dir, root_keys=args.root_keys, threshold=args.threshold)
    keys = str(args.feed_dir / "private" / "keys")
    data = {"trust": str(publisher.trust_path), "root": publisher.roots.newest.number, "keys": keys}
    text = (
        f"root of trust: {publisher.trust_path} (give it to devices)\n"
        f"keys:          {keys} (keep copies; root-*.key may be kept offline)"
    )
    emit(args, data, text)
    return 0


def publish_command(args: argparse.Namespace) -> int:
    """Publish INPUTs: the whole new state, or edits with --changes. A publish that fails changes nothing. With --follow
    edits come on standard input until it ends or SIGTERM comes; a line that is wrong costs itself alone.
    """
    check_follow(args)
    source = inputs_of(args, edits=args.follow)
    options = PublishOptions(
        permille=args.rollout if args.rollout != EVERYBODY else None,
        force_change=args.force_change,
        allow_empty=args.allow_empty,
        allow_removals=args.allow_removals,
        message=args.message,
        dry_run=args.dry_run,
    )
    publisher = open_feed(args)
    if args.follow:
        return follow(args, publisher, source, options, lambda result: show_line(args, publisher, result))
    with progress(args) as watch:
        result = publisher.publish_source(args.dataset, source, options, watch=watch)
    return show(args, publisher, result)


def rollout_command(args: argparse.Namespace) -> int:
    """Without an option say what is under way. A raised share keeps the devices that have the version already."""
    publisher = open_feed(args)
    if args.withdraw:
        with progress(args) as watch:
            result = publisher.withdraw(args.dataset, watch=watch)
        return show(args, publisher, result)
    found = publisher.rollout(args.dataset, args.share)
    with publisher.reading(args.dataset) as state:
        newest = state.live
    data = {"dataset": args.dataset, "version": newest, "permille": 1000, "stable": newest}
    text = f"{args.dataset}: version {newest} is live for all devices"
    if found is not None:
        data |= {"permille": found.permille, "stable": found.stable}
        text = (
            f"{args.dataset}: version {newest} is offered to {found.permille / 10:g}% of the devices, "
            f"version {found.stable} is live for the others"
        )
    emit(args, data, text)
    return 0


def rollback_command(args: argparse.Namespace) -> int:
    """Publish the content of version V again, as a new version. Records that are taken down stay out."""
    publisher = open_feed(args)
    with progress(args) as watch:
        result = publisher.rollback(args.dataset, args.to, watch=watch)
    return show(args, publisher, result)


def takedown_command(args: argparse.Namespace) -> int:
    """Remove records at once, from every slice and from every version that a device may hold, until `restore`."""
    publisher = open_feed(args)
    with publisher.reading(args.dataset) as state:
        strange = [key for key in args.keys if state.record(args.collection, key) is None]
    with progress(args) as watch:
        code = show(args, publisher, publisher.takedown(args.dataset, args.collection, args.keys, watch=watch))
    for key in strange:
        print(
            f"edged: warning: {args.dataset} has no record {args.collection}/{key}; it is kept out should it come; "
            "if it was misspelled, restore it and take down the right one",
            file=sys.stderr,
        )
    return code


def takedowns_command(args: argparse.Namespace) -> int:
    """What is taken down in a dataset, and since when."""
    with open_feed(args).reading(args.dataset) as state:
        found = takedowns.listed(state)
    entries = [
        {"collection": item.collection, "key": item.key, "since": history.instant(item.since), "version": item.version}
        for item in found
    ]
    rows = [(f"{item['collection']}/{item['key']}", str(item["since"]), str(item["version"])) for item in entries]
    text = table(rows, ("record", "since", "version")) if rows else f"{args.dataset}: nothing is taken down"
    emit(args, {"dataset": args.dataset, "takedowns": entries}, text)
    return 0


def restore_command(args: argparse.Namespace) -> int:
    """End the takedown of records; each comes back with the newest value that was published meanwhile."""
    publisher = open_feed(args)
    return show(args, publisher, publisher.restore(args.dataset, args.collection, args.keys))


def show_line(args: argparse.Namespace, publisher: Publisher, result: PublishResult) -> None:
    """One of many versions, in a line, whether anybody reads it or not."""
    if (warning := publisher.warning()) is not None:
        print(f"edged: warning: {warning}", file=sys.stderr)
    data = asdict(result) | {"hop_bytes": result.hop_bytes, "snapshot_bytes": result.snapshot_bytes}
    text = (
        f"{result.dataset} version {result.version}: {result.added} added, {result.changed} changed, "
        f"{result.removed} removed; head {size_text(result.head_bytes)}"
    )
    announce(args, data, text, one_line=True)


def rotate_command(args: argparse.Namespace) -> int:
    """Make a new head key, signed in by the root keys; sign every head with it; put the old one aside."""
    roots, revoked = open_feed(args).rotate_key(
        root_keys_directory=args.root_keys_dir, new_root_keys=args.new_root_keys
    )
    moved = [str(path) for path in revoked]
    emit(
        args,
        {"root": roots.newest.number, "trust": str(args.feed_dir / "root.trust"), "revoked": moved},
        f"root of trust {roots.newest.number} is in force; revoked and put aside: {', '.join(moved) or 'none'}",
    )
    return 0


def log_command(args: argparse.Namespace) -> int:
    """The versions of a dataset; with --diff what changed between two, and what each field cost in bytes."""
    with open_feed(args).reading(args.dataset) as state:
        if args.diff:
            return log_diff(args, state)
        versions = history.versions(state)
    rows = [
        (
            str(item["version"]),
            item["time"],
            item["kind"],
            *(str(item[name]) for name in ("added", "changed", "removed")),
            size_text(sum(entry["hop_bytes"] or 0 for entry in item["slices"].values())),
            size_text(sum(entry["snapshot_bytes"] for entry in item["slices"].values())),
            item["message"],
        )
        for item in versions
    ]
    header = ("version", "time", "kind", "added", "changed", "removed", "hop", "snapshot", "message")
    emit(args, {"dataset": args.dataset, "versions": versions}, table(rows, header))
    return 0


def log_diff(args: argparse.Namespace, state: Any) -> int:
    low, high = args.diff
    history.check_span(state, low, high)
    changes, costs = list(history.changes(state, low, high)), history.costs(state, low, high)
    collections: dict[str, float] = {}
    for cost in costs:
        collections[cost.collection] = collections.get(cost.collection, 0.0) + cost.bytes
    fields = [asdict(cost) | {"bytes": round(cost.bytes)} for cost in costs]
    data = {
        "dataset": args.dataset,
        "from": low,
        "to": high,
        "changes": [asdict(change) for change in changes],
        "bytes": {"collections": {name: round(count) for name, count in collections.items()}, "fields": fields},
    }
    lines = [
        one_line(f"{change.change:8} {change.collection}/{change.key}  {' '.join(change.fields)}".rstrip())
        for change in changes
    ]
    rows = [(f"{cost.collection}.{cost.field}", str(cost.changes), size_text(cost.bytes)) for cost in costs]
    costs_text = table(rows, ("bytes of the hops went to", "changes", "bytes"))
    emit(args, data, "\n".join([*lines, "", costs_text] if lines else ["nothing changed"]))
    return 0


def datasets_command(args: argparse.Namespace) -> int:
    """The datasets of a feed: version, when it was published, records."""
    publisher = open_feed(args)
    found: list[dict[str, Any]] = []
    for name in publisher.datasets():
        with publisher.reading(name) as state:
            row = state.version_row(state.live)
            hidden = len(state.hidden())
        if row is not None:
            entry = {"dataset": name, "version": row.version, "time": history.instant(row.time)}
            records = {"records": sum(row.counts.values()), "collections": row.counts, "taken_down": hidden}
            found.append({**entry, **records, "slices": list(row.declared)})
    header = ("dataset", "version", "time", "records", "slices")
    rows = [(*(str(item[name]) for name in header[:-1]), " ".join(item["slices"])) for item in found]
    text = table(rows, header) if rows else "no datasets yet; publish one with: edged origin publish"
    emit(args, {"datasets": found}, text)
    return 0


def drop_command(args: argparse.Namespace) -> int:
    """Remove a dataset: everything public of it, and the publisher's state. Devices go on with what they hold."""
    publisher = open_feed(args)
    publisher.require(args.dataset)
    if not args.yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"drop dataset {args.dataset}: nobody is there to ask; give --yes if it is meant")
        print(f"drop dataset {args.dataset} of {args.feed_dir} for good? Type its name: ", end="", file=sys.stderr)
        if input() != args.dataset:
            raise OriginError(f"drop dataset {args.dataset}: another name was typed; nothing was changed")
    publisher.drop(args.dataset)
    emit(args, {"dropped": args.dataset}, f"{args.dataset} is gone; {args.dataset}.toml, if there is one, was left")
    return 0


def verify_command(args: argparse.Namespace) -> int:
    """Read every blob that the heads and their chains lead to; exit 3 names what is missing or damaged.

    With --mend make it anew as far as that goes, also the publisher's state of a dataset where that is gone.
    """
    publisher = open_feed(args)
    reports = []
    for name in [args.dataset] if args.dataset else publisher.datasets():
        with progress(args) as watch:
            reports.append(publisher.verify(name, mend=args.mend, watch=watch))
    lines = []
    for report in reports:
        lines += [f"{report.dataset}: {fault}" for fault in report.faults]
        outcome = "whole" if not report.faults else "mended" if report.mended else "run it with --mend"
        looked_at = f"{report.blobs} blobs, {size_text(report.bytes)}"
        lines.append(f"{report.dataset} version {report.version}: {looked_at}: {outcome}")
    emit(args, {"datasets": [asdict(report) for report in reports]}, "\n".join(lines) or "no datasets yet")
    return 3 if any(report.faults and not report.mended for report in reports) else 0
