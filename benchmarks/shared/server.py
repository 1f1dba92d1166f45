"""The server under measurement, alone in its process: what `edged run` serves with, and with --hops what sync does.

    python -m benchmarks.shared.server DATA_DIR [--hops] [--tls DIR] [--apps RATE]

Prints its URL. It imports what serving takes and nothing more, so that its memory is that of serving.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from hashlib import sha256
from pathlib import Path

import trio

import edged
from edged.access.apps import Access
from edged.access.rights import App, Rate, Rights
from edged.config import ServeConfig
from edged.http.limits import SWITCH_S
from edged.serve.app_server import AppServer
from edged.serve.news import News

EDITS = 20  # of a hop
TOKENS = {"internal": "internal-token-000001", "public": "public-token-00000001"}


def apps_of(rate: int) -> Access:
    """One of the internal audience, and a public one with `rate` requests a second."""
    if not rate:
        return Access()
    tokens = {name: sha256(token.encode()).digest() for name, token in TOKENS.items()}
    everything = Rights.of(["*"])
    internal = App("launcher", "internal", everything, token_sha256=tokens["internal"])
    public = App("site", "public", everything, token_sha256=tokens["public"], rate=Rate(rate, 1.0))
    return Access((internal, public))


async def serve_replica(data_dir: Path, hops: bool, tls: Path | None, rate: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    sys.setswitchinterval(SWITCH_S)
    cert, key = (str(tls / "cert.pem"), str(tls / "key.pem")) if tls is not None else ("", "")
    with edged.open(data_dir / "edged") as replica:
        catalog = {"catalog": replica.follow("catalog")}
        news = News(catalog)
        config = ServeConfig(
            bind=["127.0.0.1:0"], max_connections=4096, hosts=["localhost", "127.0.0.1"], tls_cert=cert, tls_key=key
        )
        async with trio.open_nursery() as nursery:
            apps = AppServer(catalog, config, time.time, news=news, access=apps_of(rate))
            hopping = Hopping(data_dir, news) if hops else None  # its records are in memory before anybody asks
            print((await nursery.start(apps.run))[0], flush=True)
            if hopping is not None:
                await hopping.run()


class Hopping:
    """Applies a hop of EDITS edits every second, in a thread, as sync does."""

    def __init__(self, data_dir: Path, news: News) -> None:
        from benchmarks.shared.stores import Edged, edits_of  # here, as they load what serving does not

        view = news.catalog["catalog"].view()
        collection = next(iter(view.collections))
        self.news = news
        self.edits_of = edits_of
        self.writer = Edged(data_dir)
        self.writer.version = view.version
        self.records = [(collection, key, value) for key, value in view.scan(collection)]

    async def run(self) -> None:
        chance = random.Random(5)
        for number in range(1 << 30):
            await trio.sleep(1)
            changed = self.edits_of(self.records, EDITS, chance, number)
            await trio.to_thread.run_sync(self.writer.apply, changed)
            self.news.look()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--hops", action="store_true")
    parser.add_argument("--tls", type=Path, help="a directory with cert.pem and key.pem")
    parser.add_argument("--apps", type=int, default=0, metavar="RATE", help="requests a second of the public app")
    options = parser.parse_args()
    trio.run(serve_replica, options.data_dir, options.hops, options.tls, options.apps)


if __name__ == "__main__":
    main()
