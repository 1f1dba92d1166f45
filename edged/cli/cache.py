"""`edged cache ls` and `purge`: what the proxy keeps on disk, daemon running or not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edged.cli.output import add_json_flag, emit, positive, table
from edged.configfile import DEFAULT_PATH, load
from edged.errors import ConfigError
from edged.proxy.store.inventory import Inventory, Item
from edged.units import size_text


def add_commands(commands: Any) -> None:
    cache = commands.add_parser("cache", help="what the proxy keeps: ls, purge")
    actions = cache.add_subparsers(dest="action", metavar="ACTION", required=True)
    ls = actions.add_parser("ls", help="stored responses", description=ls_command.__doc__)
    ls.add_argument("--prefix", default="", metavar="URL", help="only URLs that begin so")
    ls.add_argument("--group", default=None, metavar="NAME", help="only responses of this cache group")
    ls.add_argument("--limit", type=positive, default=None, metavar="N", help="at most N, the newest last")
    ls.set_defaults(run=ls_command)
    purge = actions.add_parser("purge", help="drop stored responses", description=purge_command.__doc__)
    what = purge.add_mutually_exclusive_group(required=True)
    what.add_argument("url", nargs="?", metavar="URL", help="exactly this URL of an upstream, every variant of it")
    what.add_argument("--prefix", default=None, metavar="URL", help="every URL that begins so")
    what.add_argument("--group", default=None, metavar="NAME", help="every response of this cache group (RFC 9875)")
    what.add_argument("--all", action="store_true", help="everything")
    purge.set_defaults(run=purge_command)
    for parser in (ls, purge):
        where = parser.add_mutually_exclusive_group()
        where.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help=f"default {DEFAULT_PATH}")
        where.add_argument("--dir", type=Path, default=None, metavar="DIR", help="the proxy's directory itself")
        add_json_flag(parser)


def directory_of(args: argparse.Namespace) -> Path:
    """The proxy's directory. Raises ConfigError where there is none."""
    directory: Path = args.dir or load(args.config).proxy_directory
    if not (directory / "cache.db").is_file():
        raise ConfigError(f"{directory}: the proxy keeps nothing there; is data_dir right, has the daemon run?")
    return directory


def ls_command(args: argparse.Namespace) -> int:
    """What is stored, the oldest first: URL, status, bytes, seconds of freshness, groups."""
    with Inventory(directory_of(args)) as inventory:
        items = [item for item in inventory.items() if wanted(item, args.prefix, args.group)]
    if args.limit is not None:
        items = items[-args.limit :]
    rows = [
        (item.url, str(item.status), size_text(item.size), str(item.lifetime_s), " ".join(item.groups))
        for item in items
    ]
    text = table(rows, ("url", "status", "size", "fresh for", "groups")) if rows else "nothing is stored"
    emit(args, {"items": [item.describe() for item in items], "bytes": sum(item.size for item in items)}, text)
    return 0


def wanted(item: Item, prefix: str, group: str | None) -> bool:
    return item.url.startswith(prefix) and (group is None or group in item.groups)


def purge_command(args: argparse.Namespace) -> int:
    """Drop stored responses; a running daemon forgets what it holds in memory within a second."""
    with Inventory(directory_of(args)) as inventory:
        count = inventory.purge(
            lambda item: (
                args.all
                or (args.url is not None and item.url == args.url)
                or (args.prefix is not None and item.url.startswith(args.prefix))
                or (args.group is not None and args.group in item.groups)
            )
        )
    emit(args, {"purged": count}, f"{count} purged")
    return 0
