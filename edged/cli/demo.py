"""`edged demo`: an origin and a device in one process, with a made-up catalogue, shown live."""

from __future__ import annotations

import argparse
import math
from functools import partial
from typing import Any

from edged.cli.output import add_json_flag, positive, progress


def add_commands(commands: Any) -> None:
    demo = commands.add_parser(
        "demo", help="an origin and a device on this machine, live", description=demo_command.__doc__
    )
    demo.add_argument("--port", type=port, default=8484, help="where apps ask (default 8484; 0: any free one)")
    demo.add_argument("--admin-port", type=port, default=8485, help="where operators ask (default 8485; 0: any)")
    demo.add_argument(
        "--records", type=positive, default=5000, metavar="N", help="titles in the catalogue (default 5000)"
    )
    demo.add_argument("--seconds", type=seconds, default=None, metavar="S", help="stop S seconds after the first edit")
    add_json_flag(demo)
    demo.set_defaults(run=demo_command)


def port(text: str) -> int:
    """Raises argparse.ArgumentTypeError for what is no port."""
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"expected a port from 0 (any free one) to 65535, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Raises argparse.ArgumentTypeError for what is no span of time."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}")
    return number


def demo_command(args: argparse.Namespace) -> int:
    """Publish a made-up catalogue, then an edit every few seconds; sync and serve it in the same process."""
    import trio

    from edged.demo.show import DemoOptions, play
    from edged.ops import logs

    logs.setup("error")
    options = DemoOptions(args.records, args.port, args.admin_port, args.seconds, args.json, partial(progress, args))
    trio.run(play, options)
    return 0
