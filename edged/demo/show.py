"""`edged demo`: an origin and a device in one process, with a made-up catalogue, shown live."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trio

from edged.cli.origin import watch
from edged.cli.output import add_json_flag, size
from edged.config import AdminConfig, Config, DaemonConfig, DatasetConfig, ServeConfig
from edged.daemon import Daemon
from edged.demo.catalogue import DATASET_TOML, Edit, catalogue, edits
from edged.errors import ConfigError
from edged.ops import logs
from edged.origin.edition import PublishResult
from edged.origin.publisher import Publisher
from edged.origin.serving.server import serve_feed

DATASET = "catalog"
EVERY_S = 3.0
SHOWN = 12
FIRST_SYNC_S = 120.0


def add_commands(commands: Any) -> None:
    demo = commands.add_parser(
        "demo", help="an origin and a device on this machine, live", description=demo_command.__doc__
    )
    demo.add_argument("--port", type=port, default=8484, help="where apps ask (default 8484)")
    demo.add_argument("--admin-port", type=port, default=8485, help="where operators ask (default 8485)")
    demo.add_argument("--records", type=int, default=5000, metavar="N", help="titles in the catalogue (default 5000)")
    demo.add_argument("--seconds", type=float, default=None, metavar="S", help="stop after S seconds (default: Ctrl-C)")
    add_json_flag(demo)
    demo.set_defaults(run=demo_command)


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 (any free one) to 65535, got {number}")
    return number


@dataclass(slots=True)
class Update:
    """One publish and what it took to bring it to the device. Sizes in bytes, times in seconds."""

    version: int
    what: str
    published_at: float
    wire_bytes: int | None = None
    latency_s: float | None = None


@dataclass(slots=True)
class Story:
    """What has happened so far."""

    titles: int
    records: int = 0
    urls: dict[str, str] = field(default_factory=dict)
    example: str = ""
    full_bytes: int = 0
    updates: deque[Update] = field(default_factory=lambda: deque(maxlen=SHOWN))
    total_wire_bytes: int = 0
    count: int = 0

    def took(self, update: Update, wire_bytes: int, now: float) -> None:
        update.wire_bytes, update.latency_s = wire_bytes, now - update.published_at
        self.total_wire_bytes += wire_bytes
        self.count += 1


def demo_command(args: argparse.Namespace) -> int:
    """Publish a made-up catalogue, then an edit every few seconds; sync and serve it in the same process."""
    if args.records < 1:
        raise ConfigError(f"edged demo --records {args.records}: expected 1 or more titles")
    logs.setup("error")
    place = Path(tempfile.mkdtemp(prefix="edged-demo-"))
    try:
        trio.run(partial(play, args, place))
    finally:
        shutil.rmtree(place)
    return 0


async def play(args: argparse.Namespace, place: Path) -> None:
    """The whole demonstration, until Ctrl-C, SIGTERM or --seconds."""
    story = Story(args.records)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_on_signal() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop_on_signal)
            if args.seconds is not None:
                nursery.cancel_scope.deadline = trio.current_time() + args.seconds
            await perform(args, place, story)
            nursery.cancel_scope.cancel()
    finish(args, story)


async def perform(args: argparse.Namespace, place: Path, story: Story) -> None:
    publisher, first = await publish_first(args, place, story)
    async with trio.open_nursery() as origin_nursery:
        urls = await origin_nursery.start(serve_feed, place / "feed", ["127.0.0.1:0"])
        daemon = Daemon(device_config(args, place, urls[0]))
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            await first_sync(daemon, first.version)
            story.urls = {"apps": daemon.app_urls[0], "admin": daemon.admin_urls[0], "feed": f"{urls[0]}/{DATASET}"}
            story.full_bytes = daemon.status()["datasets"][DATASET]["bytes_received"]
            opening(args, story, daemon)
            with Screen(args, story, daemon) as draw:
                await edit_for_ever(args, publisher, daemon, story, draw)


async def publish_first(args: argparse.Namespace, place: Path, story: Story) -> tuple[Publisher, PublishResult]:
    def work() -> tuple[Publisher, PublishResult]:
        publisher = Publisher.init(place / "feed")
        (place / "feed" / f"{DATASET}.toml").write_text(DATASET_TOML)

        def records() -> Iterator[tuple[str, str, Any]]:
            for collection, key, value in catalogue(args.records):
                story.records += 1
                if collection == "titles" and not story.example:
                    story.example = key
                yield collection, key, value

        return publisher, publisher.publish(DATASET, records(), watch=watch(args))

    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def device_config(args: argparse.Namespace, place: Path, feed_url: str) -> Config:
    return Config(
        daemon=DaemonConfig(data_dir=str(place / "device")),
        datasets=[DatasetConfig(DATASET, [f"{feed_url}/{DATASET}"], str(place / "feed" / "root.trust"))],
        serve=ServeConfig(bind=[f"127.0.0.1:{args.port}"], origins=[]),
        admin=AdminConfig(bind=[f"127.0.0.1:{args.admin_port}"]),
    )


async def first_sync(daemon: Daemon, version: int) -> None:
    with trio.fail_after(FIRST_SYNC_S):
        await daemon.wait_for(DATASET, version)


async def edit_for_ever(
    args: argparse.Namespace, publisher: Publisher, daemon: Daemon, story: Story, draw: Callable[[], None]
) -> None:
    stream = edits(args.records)
    while True:
        shown_until = trio.current_time() + EVERY_S
        while trio.current_time() < shown_until:
            draw()
            await trio.sleep(0.5)
        batch = next(stream)
        before = daemon.status()["datasets"][DATASET]["bytes_received"]
        result = await trio.to_thread.run_sync(partial(publish_edit, publisher, batch))
        update = Update(result.version, what_was_done(batch), time.monotonic())
        story.updates.append(update)
        with trio.move_on_after(EVERY_S):
            await daemon.wait_for(DATASET, result.version)
            received = daemon.status()["datasets"][DATASET]["bytes_received"]
            story.took(update, received - before, time.monotonic())
        tell(args, story, update)


def what_was_done(batch: list[Edit]) -> str:
    """'rating changed (12), synopsis corrected'."""
    counts = Counter(edit.why for edit in batch)
    return ", ".join(f"{why} ({count})" if count > 1 else why for why, count in counts.items())


def publish_edit(publisher: Publisher, batch: list[Edit]) -> PublishResult:
    changes = [(edit.collection, edit.key, edit.value) for edit in batch]
    return publisher.publish_changes(DATASET, changes)


# --- what a person sees ---------------------------------------------------------------------------------------------


def opening(args: argparse.Namespace, story: Story, daemon: Daemon) -> None:
    if args.json:
        print(
            json.dumps({"urls": story.urls, "records": story.records, "full_download_bytes": story.full_bytes}),
            flush=True,
        )
        return
    item = daemon.status()["datasets"][DATASET]
    written = item["flash_bytes_written"]
    apps, key = story.urls["apps"], quote(story.example, safe="")
    print(
        f"""
edged demo: an origin and a device in one process

  origin   {story.records:,} records of a made-up catalogue, signed and published at {story.urls["feed"]}
  device   synced version {item["version"]}: {size(story.full_bytes)} over the wire, {size(written)} written to disk

  open     {apps}/v1/{DATASET}
           {apps}/openapi.json
           {story.urls["admin"]}/status

  paste    curl -s '{apps}/v1/{DATASET}/titles/{key}'
           curl -s '{apps}/v1/{DATASET}/titles?where.year=2020&fields=title,year&limit=3'
           curl -s '{apps}/v1/{DATASET}/titles?q=night&limit=3&view=stb-basic'
           curl -sN -H 'Accept: text/event-stream' '{apps}/v1/{DATASET}/changes?since=1'

  An edit is published every {EVERY_S:.0f} seconds. Ctrl-C ends it.
""",
        flush=True,
    )


HEADER = ("version", "took", "a full download", "on device after", "what was edited")


def row(story: Story, update: Update) -> tuple[str, str, str, str, str]:
    if update.wire_bytes is None or update.latency_s is None:
        return str(update.version), "…", "", "", update.what
    share = f"{size(story.full_bytes)} ({story.full_bytes / max(update.wire_bytes, 1):,.0f} times)"
    return str(update.version), size(update.wire_bytes), share, f"{update.latency_s * 1000:.0f} ms", update.what


def summary(story: Story, daemon: Daemon) -> str:
    served = daemon.requests_served()
    return f"{story.count} updates in {size(story.total_wire_bytes)} · {served} requests served"


class Screen:
    """A table that is drawn anew in place on a terminal (with rich); nothing elsewhere, `tell` prints lines there."""

    def __init__(self, args: argparse.Namespace, story: Story, daemon: Daemon) -> None:
        self.live: Any = None
        self.story, self.daemon = story, daemon
        if live_terminal(args):
            from rich.live import Live

            self.live = Live(auto_refresh=False)

    def __enter__(self) -> Callable[[], None]:
        if self.live is not None:
            self.live.__enter__()
        return self.draw

    def __exit__(self, *reason: object) -> None:
        if self.live is not None:
            self.live.__exit__(*reason)

    def draw(self) -> None:
        if self.live is None:
            return
        from rich.table import Table

        table = Table(*HEADER, caption=summary(self.story, self.daemon), caption_justify="left")
        for update in self.story.updates:
            table.add_row(*row(self.story, update))
        self.live.update(table, refresh=True)


def live_terminal(args: argparse.Namespace) -> bool:
    return not args.json and sys.stdout.isatty() and find_spec("rich") is not None


def tell(args: argparse.Namespace, story: Story, update: Update) -> None:
    if args.json:
        document = {"version": update.version, "wire_bytes": update.wire_bytes, "full_bytes": story.full_bytes}
        print(json.dumps({**document, "latency_s": update.latency_s, "what": update.what}), flush=True)
    elif not live_terminal(args):
        version, took, share, latency, what = row(story, update)
        print(
            f"  version {version:<5} {took:>8} against {share:<24} on the device after {latency:>7}  {what}", flush=True
        )


def finish(args: argparse.Namespace, story: Story) -> None:
    if not args.json:
        count, total = story.count, size(story.total_wire_bytes)
        full = size(story.full_bytes * story.count)
        print(f"\nended: {count} updates took {total} in all; full downloads would have taken {full}.", flush=True)
