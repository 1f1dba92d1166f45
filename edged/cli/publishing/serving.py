"""`edged origin serve`: the feed for devices, and on an address of its own what operators ask."""

from __future__ import annotations

import argparse
import resource
import signal
import time
from functools import partial
from typing import Any

from edged.cli.output import announce
from edged.errors import ConfigError

BIND = "127.0.0.1:8486"
FILES = 131_072  # descriptors that it asks for: each device that waits for news holds one


def add_serve(serve: Any) -> None:
    serve.add_argument(
        "--bind", action="append", metavar="HOST:PORT", help=f"repeat for several addresses (default {BIND})"
    )
    serve.add_argument(
        "--admin-bind",
        action="append",
        metavar="HOST:PORT",
        help="for operators alone: metrics, the fleet, the dashboard (default: none)",
    )


def serve_command(args: argparse.Namespace) -> int:
    """Serve FEED_DIR/public to devices, hold their polls until there is news, and keep heads fresh. A feed in an object
    store is read there: its heads are kept fresh, its versions ahead released at their time, a broker is told.
    """
    import trio  # the other commands do without it

    from edged.ops import logs

    logs.setup("info")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (FILES if hard == resource.RLIM_INFINITY else min(hard, FILES), hard)
        )
    trio.run(partial(serve_until_stopped, args))
    return 0


async def serve_until_stopped(args: argparse.Namespace) -> None:
    import trio

    from edged.origin.serving.server import Observed, serve_feed
    from edged.origin.shelves.directory import DirectoryShelves
    from edged.origin.shelves.opening import open_shelves

    shelves, stop = open_shelves(args.feed_dir), trio.Event()
    if not isinstance(shelves, DirectoryShelves) and not args.bind:
        await keep_until_stopped(args, shelves)
        return
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            observed = Observed.of(args.feed_dir)
            binds = args.bind or [BIND]
            start = partial(serve_feed, args.feed_dir, binds, stop=stop, observed=observed)
            urls = await nursery.start(start)
            lines = [f"serving {args.feed_dir} at {url}" for url in urls]
            data = {"urls": urls}
            if args.admin_bind:
                data["admin_urls"] = await start_admin(nursery, args, observed, stop)
                lines += [f"for operators at {url}" for url in data["admin_urls"]]
            announce(args, data, "\n".join(lines))
            async for _ in signals:
                stop.set()
                break


async def keep_until_stopped(args: argparse.Namespace, shelves: Any) -> None:
    """Raises ConfigError for an address for operators, who would be shown devices that are not seen here."""
    import trio

    from edged.origin.serving.storedheads import keep_stored

    if args.admin_bind:
        raise ConfigError(
            f"serve {args.feed_dir}: devices read it in {shelves.where} and are not seen here; leave --admin-bind out, "
            "and give the store's logs to: edged origin fleet"
        )
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(keep_stored, args.feed_dir, shelves)
            text = (
                f"keeping {args.feed_dir}, which devices read at {shelves.where}/DATASET: heads stay fresh, versions "
                "ahead are released at their time"
            )
            announce(args, {"urls": [], "store": shelves.where}, text)
            async for _ in signals:
                nursery.cancel_scope.cancel()


async def start_admin(nursery: Any, args: argparse.Namespace, observed: Any, stop: Any) -> list[str]:
    """The URLs on which operators are answered from now on. Raises ConfigError."""
    from edged.http.limits import Limits
    from edged.http.server import Listening, serve
    from edged.ops.origin import ADMIN_CONNECTIONS, OriginAdmin

    both = [bind for bind in args.admin_bind if bind in (args.bind or [BIND]) and not bind.endswith(":0")]
    if both:
        raise ConfigError(f"serve: {both[0]} is an address for devices; give --admin-bind one of its own")
    admin = OriginAdmin(args.feed_dir, observed, time.time)
    listening = Listening(tuple(args.admin_bind), limits=Limits(connections=ADMIN_CONNECTIONS))
    nursery.start_soon(until, stop, admin.tick)
    urls: list[str] = await nursery.start(partial(serve, admin, listening, clock=time.time, stop=stop))
    return urls


async def until(stop: Any, run: Any) -> None:
    """Run it until the event is set."""
    import trio

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await stop.wait()
        nursery.cancel_scope.cancel()
