"""The demonstration: an origin and a device in one process, edits without end, and what each of them took."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trio

from edged.config import AdminConfig, Config, DaemonConfig, DatasetConfig, ServeConfig
from edged.daemon import Daemon
from edged.demo import madeup
from edged.demo.catalogue import BUSY_TITLES, DATASET_TOML, Edit, catalogue, edits
from edged.demo.madeup import CatalogueSpec
from edged.errors import ConfigError
from edged.http.addresses import refuse_taken
from edged.origin.publisher import Publisher
from edged.origin.results import PublishResult
from edged.origin.serving.server import serve_feed
from edged.progress import Watch
from edged.threads import in_thread
from edged.units import size_text

DATASET = "catalog"
EVERY_S = 3.0
DRAWN_S = 0.5
SHOWN = 12
AROUND = 16  # lines of a terminal that the opening and the table's frame take
FIRST_SYNC_S = 120.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """titles: in the catalogue; seconds: from the first edit to the end, None: until a signal; progress: what shows
    how far the first publish has come; on_terminal: whether a table is drawn in place."""

    titles: int
    port: int
    admin_port: int
    seconds: float | None
    as_json: bool
    progress: Callable[[], AbstractContextManager[Watch]]

    @property
    def on_terminal(self) -> bool:
        return not self.as_json and sys.stdout.isatty() and find_spec("rich") is not None


@dataclass(slots=True)
class PublishedEdit:
    """One publish and what it took to bring it to the device. Sizes in bytes, times in seconds."""

    version: int
    what: str
    began_at: float
    wire_bytes: int | None = None
    latency_s: float | None = None


@dataclass(slots=True)
class Story:
    """What has happened so far. example: a record that is there for ever."""

    records: int = 0
    urls: dict[str, str] = field(default_factory=dict)
    example: str = ""
    example_title: str = ""
    full_bytes: int = 0
    edits: deque[PublishedEdit] = field(default_factory=lambda: deque(maxlen=SHOWN))
    total_wire_bytes: int = 0
    count: int = 0

    def took(self, edit: PublishedEdit, wire_bytes: int, now: float) -> None:
        edit.wire_bytes, edit.latency_s = wire_bytes, now - edit.began_at
        self.total_wire_bytes += wire_bytes
        self.count += 1


async def play(options: DemoOptions) -> None:
    """The whole demonstration, until Ctrl-C, SIGTERM, SIGHUP or `seconds`; nothing of it is left on the disk.

    Raises ConfigError where a port is not free, before anything is made.
    """
    if options.port and options.port == options.admin_port:
        raise ConfigError(f"port {options.port} for apps and for operators: give two, by --port and --admin-port")
    refuse_taken([f"127.0.0.1:{options.port}", f"127.0.0.1:{options.admin_port}"])
    story = Story()
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals,
        tempfile.TemporaryDirectory(prefix="edged-demo-") as place,
    ):
        async with trio.open_nursery() as nursery:

            async def stop_on_signal() -> None:
                async for number in signals:
                    if number == signal.SIGHUP:
                        leave_terminal()
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop_on_signal)
            await perform(options, Path(place), story)
            nursery.cancel_scope.cancel()
    if not options.as_json:
        print(closing(story), flush=True)


def leave_terminal() -> None:
    """The terminal has gone; what is still written to it must not keep us from cleaning up."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


async def perform(options: DemoOptions, place: Path, story: Story) -> None:
    publisher, first = await publish_first(options, place, story)
    async with trio.open_nursery() as origin_nursery:
        urls = await origin_nursery.start(serve_feed, place / "feed", ["127.0.0.1:0"])
        daemon = Daemon(device_config(options, place, urls[0]))
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            with trio.fail_after(FIRST_SYNC_S):
                await daemon.wait_for(DATASET, first.version)
            story.urls = {"apps": daemon.app_urls[0], "admin": daemon.admin_urls[0], "feed": f"{urls[0]}/{DATASET}"}
            story.full_bytes = daemon.status()["datasets"][DATASET]["bytes_received"]
            print(opening(options, story, daemon), flush=True)
            with Screen(options, story, daemon) as draw, trio.move_on_after(options.seconds or float("inf")):
                await edit_for_ever(options, publisher, daemon, story, draw)
            nursery.cancel_scope.cancel()
        origin_nursery.cancel_scope.cancel()


async def publish_first(options: DemoOptions, place: Path, story: Story) -> tuple[Publisher, PublishResult]:
    """In a thread that looks at each record and each step whether it is still wanted."""
    spec = CatalogueSpec(options.titles, seed=1)
    story.example, story.example_title = madeup.lasting_title(spec, BUSY_TITLES)

    def records() -> Iterator[tuple[str, str, Any]]:
        for record in catalogue(options.titles):
            story.records += 1
            trio.from_thread.check_cancelled()
            yield record

    def work() -> tuple[Publisher, PublishResult]:
        publisher = Publisher.init(place / "feed")
        (place / "feed" / f"{DATASET}.toml").write_text(DATASET_TOML)
        with options.progress() as show:

            def watch(what: str, done: int, total: int) -> None:
                trio.from_thread.check_cancelled()
                show(what, done, total)

            return publisher, publisher.publish(DATASET, records(), watch=watch)

    return await in_thread(work)


def device_config(options: DemoOptions, place: Path, feed_url: str) -> Config:
    return Config(
        daemon=DaemonConfig(data_dir=str(place / "device")),
        datasets=[DatasetConfig(DATASET, [f"{feed_url}/{DATASET}"], str(place / "feed" / "root.trust"))],
        serve=ServeConfig(bind=[f"127.0.0.1:{options.port}"], origins=[]),
        admin=AdminConfig(bind=[f"127.0.0.1:{options.admin_port}"]),
    )


async def edit_for_ever(
    options: DemoOptions, publisher: Publisher, daemon: Daemon, story: Story, draw: Callable[[], None]
) -> None:
    for batch in edits(options.titles):
        before = daemon.status()["datasets"][DATASET]["bytes_received"]
        began_at = time.monotonic()
        result = await in_thread(partial(publish_edit, publisher, batch))
        edit = PublishedEdit(result.version, what_was_done(batch), began_at)
        story.edits.append(edit)
        with trio.move_on_after(EVERY_S):
            await daemon.wait_for(DATASET, result.version)
            received = daemon.status()["datasets"][DATASET]["bytes_received"]
            story.took(edit, received - before, time.monotonic())
        if line := told(options, story, edit):
            print(line, flush=True)
        shown_until = trio.current_time() + EVERY_S
        while trio.current_time() < shown_until:
            draw()
            await trio.sleep(DRAWN_S)


def what_was_done(batch: list[Edit]) -> str:
    """'rating changed (12), synopsis corrected'."""
    counts = Counter(edit.why for edit in batch)
    return ", ".join(f"{why} ({count})" if count > 1 else why for why, count in counts.items())


def publish_edit(publisher: Publisher, batch: list[Edit]) -> PublishResult:
    changes = [(edit.collection, edit.key, edit.value) for edit in batch]
    return publisher.publish_changes(DATASET, changes)


# --- what a person sees: 80 columns, 24 lines -----------------------------------------------------------------------


def opening(options: DemoOptions, story: Story, daemon: Daemon) -> str:
    if options.as_json:
        return json.dumps({"urls": story.urls, "records": story.records, "full_download_bytes": story.full_bytes})
    item = daemon.status()["datasets"][DATASET]
    full, written = size_text(story.full_bytes), size_text(item["flash_bytes_written"])
    year, word = story.example.partition("/")[0], max(story.example_title.split(), key=len)
    return f"""\
origin   {story.records:,} made-up records, signed, at {story.urls["feed"]}
device   synced version {item["version"]}: {full} over the wire, {written} to disk
look     {story.urls["apps"]}/v1/{DATASET}    {story.urls["admin"]}/status
paste    api={story.urls["apps"]}/v1/{DATASET}
         curl -s $api/titles/{quote(story.example, safe="")}
         curl -s "$api/titles?where.year={year}&fields=title,year&limit=3"
         curl -s "$api/titles?q={quote(word)}&limit=3&view=stb-basic"
         curl -sN -H 'Accept: text/event-stream' "$api/changes?since=1"
         An edit is published every {EVERY_S:.0f} seconds. Ctrl-C ends it.
"""


HEADER = ("version", "took", "full download", "after", "what was edited")


def row(story: Story, edit: PublishedEdit) -> tuple[str, str, str, str, str]:
    if edit.wire_bytes is None or edit.latency_s is None:
        return str(edit.version), "…", "", "", edit.what
    share = f"{size_text(story.full_bytes)} ({story.full_bytes / max(edit.wire_bytes, 1):,.0f} ×)"
    return str(edit.version), size_text(edit.wire_bytes), share, f"{edit.latency_s * 1000:.0f} ms", edit.what


def summary(story: Story, daemon: Daemon) -> str:
    served = daemon.counted().requests
    return f"{story.count} updates in {size_text(story.total_wire_bytes)} · {served} requests served"


class Screen:
    """A table that is drawn anew in place on a terminal (with rich); nothing elsewhere, `told` gives lines there."""

    def __init__(self, options: DemoOptions, story: Story, daemon: Daemon) -> None:
        self.live: Any = None
        self.story, self.daemon = story, daemon
        if options.on_terminal:
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
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(caption=summary(self.story, self.daemon), caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
        for name in HEADER:
            table.add_column(name, no_wrap=True, justify="left" if name == HEADER[-1] else "right")
        room = max(self.live.console.height - AROUND, 1)
        for edit in list(self.story.edits)[-room:]:
            table.add_row(*row(self.story, edit))
        self.live.update(table, refresh=True)


def told(options: DemoOptions, story: Story, edit: PublishedEdit) -> str:
    """An edit's line, "" where the table tells of it."""
    if options.as_json:
        document = {"version": edit.version, "wire_bytes": edit.wire_bytes, "full_bytes": story.full_bytes}
        return json.dumps({**document, "latency_s": edit.latency_s, "what": edit.what})
    if options.on_terminal:
        return ""
    version, took, share, latency, what = row(story, edit)
    return f"version {version:<4} {took:>8} of {share:<18} {latency:>7}  {what}"


def closing(story: Story) -> str:
    full = size_text(story.full_bytes * story.count)
    count, total = story.count, size_text(story.total_wire_bytes)
    return f"\nended: {count} updates took {total} in all; full downloads would have taken {full}."
