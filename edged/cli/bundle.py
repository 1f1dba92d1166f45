"""`edged bundle export` and `import`: a dataset in one file, for firmware images and devices without a network."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from edged.cli.output import add_json_flag, emit
from edged.units import size_text


def add_commands(commands: Any) -> None:
    bundle = commands.add_parser("bundle", help="a head and its blobs in one file", description=__doc__)
    actions = bundle.add_subparsers(dest="action", metavar="ACTION", required=True)
    export = actions.add_parser(
        "export", help="write a feed's live version into one file", description=export_command.__doc__
    )
    export.add_argument("feed_dir", type=Path, metavar="FEED_DIR")
    export.add_argument("out", type=Path, metavar="OUT")
    export.add_argument("--dataset", required=True, metavar="D")
    export.add_argument("--slice", action="append", default=[], metavar="S", help="beside core; may be repeated")
    add_json_flag(export)
    export.set_defaults(run=export_command)
    take = actions.add_parser(
        "import", help="bring a replica to a bundle's version", description=import_command.__doc__
    )
    take.add_argument("data_dir", type=Path, metavar="DATA_DIR")
    take.add_argument("bundle", type=Path, metavar="BUNDLE")
    take.add_argument("--trust", type=Path, required=True, metavar="FILE", help="the root of trust to judge it by")
    add_json_flag(take)
    take.set_defaults(run=import_command)


def export_command(args: argparse.Namespace) -> int:
    """Write the live version of a dataset, as a device fetches it that has nothing yet, into one file."""
    from edged.origin.bundling import export_bundle

    done = export_bundle(args.feed_dir, args.out, args.dataset, args.slice)
    data = {
        "bundle": str(args.out),
        "dataset": done.dataset,
        "version": done.version,
        "slices": list(done.slices),
        "blobs": done.blobs,
        "bytes": done.size,
    }
    emit(
        args,
        data,
        f"{args.out}: {done.dataset} version {done.version}, {', '.join(done.slices)}, {size_text(done.size)}",
    )
    return 0


def import_command(args: argparse.Namespace) -> int:
    """Seed or update a replica from a bundle, without network. It is judged like any origin: signed, newer, whole."""
    import trio

    from edged.sync.core.judge import ExpiredError
    from edged.sync.task import import_bundle

    outcome = trio.run(partial(import_bundle, args.data_dir, args.bundle, args.trust))
    # A bundle is often older than its head's promise; it is served all the same, and says so.
    expired = isinstance(outcome.error, ExpiredError)
    if outcome.error is not None and not expired:
        raise outcome.error
    data = {
        "dataset": outcome.dataset,
        "version": outcome.version,
        "before": outcome.before,
        "bytes": outcome.bytes_received,
        "expired": expired,
    }
    done = f"from {outcome.before} to {outcome.version}" if outcome.version != outcome.before else "is there already"
    note = "; its head has expired: sync when there is a network" if expired else ""
    emit(
        args,
        data,
        f"{outcome.dataset}: version {outcome.version}, {done}, {size_text(outcome.bytes_received)} read{note}",
    )
    return 0
