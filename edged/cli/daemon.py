"""`edged run`, `check` and `sync`."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from edged.cli.output import add_json_flag, announce, emit, progress, table
from edged.configfile import DEFAULT_PATH, all_faults, load, load_with_warnings
from edged.errors import ConfigError
from edged.units import size_text

logger = logging.getLogger("edged")


def add_commands(commands: Any) -> None:
    run = commands.add_parser("run", help="the daemon", description=run_command.__doc__)
    run.set_defaults(run=run_command)
    check = commands.add_parser("check", help="validate a configuration", description=check_command.__doc__)
    check.set_defaults(run=check_command)
    sync = commands.add_parser("sync", help="synchronise every dataset once", description=sync_command.__doc__)
    sync.set_defaults(run=sync_command)
    for parser in (run, check, sync):
        parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help=f"default {DEFAULT_PATH}")
    add_json_flag(run, "write the log as JSON objects, one a line, and print one that says where it answers")
    add_json_flag(check)
    add_json_flag(sync)


def run_command(args: argparse.Namespace) -> int:
    """Sync and serve until SIGTERM or Ctrl-C. The log goes to standard error. With --json every line of both is a JSON
    object: of the log `time`, `level`, `message`; on standard output one that says where it answers, and one with
    `error` where it fails."""
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):  # until it listens, and for log rotators after
        signal.signal(number, signal.SIG_IGN)
    config, warnings = load_with_warnings(args.config)
    import trio

    from edged.daemon import Daemon, run_until_signal
    from edged.ops import logs

    logs.setup(config.daemon.log_level, as_json=args.json)
    for line in warnings:
        logger.warning("%s", line)

    def tell(daemon: Daemon) -> None:
        if args.json:
            document = {"apps": daemon.app_urls, "admin": daemon.admin_urls, "datasets": list(daemon.catalog)}
            announce(args, document, "", one_line=True)

    trio.run(partial(run_until_signal, config, args.config, tell))
    return 0


def check_command(args: argparse.Namespace) -> int:
    """Name every fault in a configuration, its line and the fix; say what would run if there is none."""
    if faults := all_faults(args.config):
        if not args.json:  # whose error document lists them anyway
            print("\n".join(faults))
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ConfigError(f"check {args.config}: {count}; each is named above with its line and the mend", faults)
    config = load(args.config)
    data = {
        "config": str(args.config),
        "datasets": [dataset.name for dataset in config.datasets],
        "serve": config.serve.bind,
        "relay": config.relay.bind,
        "admin": config.admin.bind,
    }
    datasets = ", ".join(dataset.name for dataset in config.datasets) or "none"
    text = f"{args.config}: no fault. Datasets: {datasets}. Apps: {', '.join(config.serve.bind)}."
    if config.relay.bind:
        text += f" Other edgeds: {', '.join(config.relay.bind)}."
    emit(args, data, text)
    return 0


def sync_command(args: argparse.Namespace) -> int:
    """One synchronisation of every dataset, then exit: for firmware builds, timers and a first look."""
    config = load(args.config)
    import trio

    from edged.daemon import sync_datasets

    with progress(args) as watch:
        outcomes, faults = trio.run(partial(sync_datasets, config, watch))
    rows = [
        (
            name,
            str(item["version"]),
            size_text(item["bytes_received"]),
            str(item["snapshots_applied"]),
            str(item["hops_applied"]),
        )
        for name, item in outcomes.items()
    ]
    text = table(rows, ("dataset", "version", "received", "snapshots", "hops")) if rows else "no dataset is configured"
    emit(args, {"datasets": outcomes}, text)
    for fault in faults:
        print(f"edged: {' '.join(str(fault).split())}", file=sys.stderr)
    return max((fault.exit_code for fault in faults), default=0)
