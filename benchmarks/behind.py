"""What a device fetches that was away for a while, beside a hop made for it alone and beside the snapshot.

    python benchmarks/behind.py [--data DIR] [--versions N]

DIR holds anime-base.ndjson.zst and anime-edits.ndjson.zst; its edits are published one by one, and again from the first
until there are N versions. Without it a catalogue and edits to it are made up. Behind by 1 is what the head carries:
nothing else is fetched then.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.shared.publishes import Record, made_up, real
from edged.feed import limits
from edged.feed.chain import SliceChain, decode_chain, decode_page
from edged.feed.coding.hop import pack_hop
from edged.feed.head import Head
from edged.feed.plan import Path as Way
from edged.feed.plan import plan
from edged.feed.trust import root as trust
from edged.origin.blobs.dictionaries import dictionary_in_use
from edged.origin.blobs.hops import HopSpan, compose
from edged.origin.blobs.snapshots import snapshot_bytes
from edged.origin.publisher import Publisher

STEPS = (1, 2, 10, 100, 1000)
TITLES = 300  # of the made-up catalogue


@dataclass
class Feed:
    """A feed as devices see it."""

    publisher: Publisher

    @property
    def base(self) -> Path:
        return self.publisher.public / "catalog"

    def head(self) -> tuple[Head, int]:
        data = (self.base / "head").read_bytes()
        return trust.verify_head(data, self.publisher.roots.newest, "catalog").head, len(data)

    def blob(self, name: str) -> bytes:
        return (self.base / "blobs" / name).read_bytes()

    def way(self, entry: SliceChain, have: int, head: Head) -> tuple[Way, int, int]:
        """The way from slice version `have`, the pages that are fetched to find it, and their bytes."""
        count = size = 0
        live = head.slices["core"]
        while (path := plan(entry, have, live.version, inlined=live.hops)).pages:
            for page in path.pages:
                entry = entry.with_page(page, decode_page(self.blob(page.blob.name), page))
                count, size = count + 1, size + page.blob.size
        return path, count, size


def publish_all(publisher: Publisher, base: Iterable[Record], publishes: Iterable[list[Record]], versions: int) -> None:
    began = time.perf_counter()
    publisher.publish("catalog", base)
    first = time.perf_counter()
    version, spent, following = 1, 0, iter(publishes)
    while version < versions:
        version = publisher.publish_changes("catalog", next(following)).version
        spent += 1
        if sys.stderr.isatty():
            print(f"\rversion {version}", end="", file=sys.stderr, flush=True)
    took = (time.perf_counter() - first) / max(spent, 1)
    print(
        f"{versions} versions: the first in {first - began:.1f} s, each further one in {took * 1e3:.0f} ms on average"
    )


def report(publisher: Publisher, versions: int) -> None:
    feed = Feed(publisher)
    head, head_bytes = feed.head()
    chain = feed.blob(head.chain.name)
    entry = decode_chain(chain).slices["core"]
    listed = f"{len(entry.hops)} hops, {len(entry.pages)} pages"
    print(f"head {head_bytes:,} bytes, chain {len(chain):,} bytes ({listed}; limit {limits.CHAIN_BYTES:,} decoded)")
    print(
        f"  {'behind by':>9} {'hops':>5} {'pages':>5} {'to a direct hop':>16} {'with chain':>11} {'to snapshot':>12}",
        end="",
    )
    print(f" {'hop bytes':>10} {'direct':>9} {'all bytes':>10}")
    with publisher.reading("catalog") as state:
        dictionary = dictionary_in_use(state, "core").content
        newest = next(state.rows("SELECT max(version) FROM snapshots WHERE slice = 'core'"))[0]
        whole = snapshot_bytes(state, "core", newest)
        for step in (step for step in STEPS if step < versions):
            since = state.slice_at("core", at=versions - step)
            composed = compose(state, HopSpan("core", since, state.slice_at("core")))
            if composed is None:
                print(f"  {step:9} a direct hop would be too large")
                continue
            direct = len(pack_hop(composed.changes, composed.old, dictionary))
            way, pages, page_bytes = feed.way(entry, since.version, head)
            hop_bytes = sum(hop.blob.size for hop in way.hops)
            inlined = len(way.hops) == 1 and way.hops[0].inline is not None
            total = head_bytes + (0 if inlined else len(chain) + page_bytes + hop_bytes)
            kind = "  from the snapshot" if way.snapshot is not None else ""
            print(
                f"  {step:9} {len(way.hops):5} {pages:5} {hop_bytes / direct:16.2f} {total / direct:11.2f}"
                f" {total / whole:12.3f} {hop_bytes:10,} {direct:9,} {total:10,}{kind}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of the .ndjson.zst files; without it data are made up")
    parser.add_argument("--versions", type=int, default=1010, help="how many to publish (default 1010)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        publisher = Publisher.init(Path(folder) / "feed")
        (publisher.path / "catalog.toml").write_text("[retention]\nversions = 100000\n")
        base, publishes = real(args.data) if args.data else made_up(TITLES)
        publish_all(publisher, base, itertools.cycle(publishes) if args.data else publishes, args.versions)
        report(publisher, args.versions)


if __name__ == "__main__":
    main()
