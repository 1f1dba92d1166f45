"""The proxy under Hypercorn for the conformance suite: `python -m tests.proxy.conformance.proxy UPSTREAM DIRECTORY`.

Prints its URL on one line when it is ready, and serves until its standard input ends.
"""

from __future__ import annotations

import socket
import sys
from functools import partial
from pathlib import Path

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from edged.proxy.app import ProxyApp
from edged.proxy.settings import ProxySettings, Route


async def wait_for_end() -> None:
    await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


async def main(upstream: str, directory: Path) -> None:
    app = ProxyApp(ProxySettings(routes=(Route("/", upstream),), directory=directory))
    config = Config()
    config.include_date_header = config.include_server_header = False  # a stored Date is not to be joined by another
    config.errorlog = None
    config.graceful_timeout = 0.5
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        config.bind = [f"fd://{listener.fileno()}"]
        async with trio.open_nursery() as nursery:
            await nursery.start(app.run)
            nursery.start_soon(announce, listener.getsockname()[1])
            await serve(app, config, shutdown_trigger=wait_for_end)  # type: ignore[arg-type]  # narrower ASGI types
            nursery.cancel_scope.cancel()


async def announce(port: int) -> None:
    print(f"http://127.0.0.1:{port}", flush=True)


if __name__ == "__main__":
    trio.run(partial(main, sys.argv[1], Path(sys.argv[2])))
