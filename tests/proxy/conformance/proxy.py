"""The proxy as the daemon serves it, for the conformance suite: `python -m tests.proxy.conformance.proxy UPSTREAM DIR`.

Prints its URL on one line when it is ready, and serves until its standard input ends.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import trio

from edged.clock import Clock
from edged.config import ProxyConfig, RouteConfig, ServeConfig
from edged.proxy.application import ProxyApplication
from edged.proxy.gateway import Gateway
from edged.serve.app_server import AppServer


async def main(upstream: str, directory: Path) -> None:
    clock = Clock()
    app = ProxyApplication(Gateway(ProxyConfig(routes=[RouteConfig("/", upstream)]), directory, clock))
    config = ServeConfig(bind=["127.0.0.1:0"])
    async with trio.open_nursery() as nursery:
        await nursery.start(app.run)
        urls: list[str] = await nursery.start(AppServer({}, config, clock, others=app).run)
        print(urls[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(partial(main, sys.argv[1], Path(sys.argv[2])))
