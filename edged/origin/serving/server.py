"""`edged origin serve`: the feed over HTTP."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import trio

from edged.errors import ConfigError, plain_errors
from edged.feedserving.app import FeedApp, connection_limits
from edged.http.meter import Meter
from edged.http.server import Listening, serve
from edged.origin.publisher import Clock
from edged.origin.serving.heads import Heads
from edged.origin.serving.intake import UsageIntake
from edged.origin.serving.keeping import keep_all
from edged.origin.serving.livefleet import LiveFleet
from edged.origin.shelves.directory import DirectoryShelves
from edged.origin.shelves.opening import open_shelves


@dataclass(frozen=True, slots=True)
class Observed:
    """What can be seen of an origin that serves: its heads, who polls, what was answered, what devices tell of use."""

    heads: Heads
    fleet: LiveFleet
    meter: Meter
    use: UsageIntake

    @classmethod
    def of(cls, feed_dir: Path, clock: Clock = time.time) -> Observed:
        use = UsageIntake(feed_dir / "private" / "usage", clock)
        return cls(Heads(feed_dir / "public"), LiveFleet(clock), Meter(), use)


async def serve_feed(
    feed_dir: Path,
    bind: list[str],
    *,
    stop: trio.Event | None = None,
    clock: Clock = time.time,
    observed: Observed | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve FEED_DIR/public until `stop` is set or this is cancelled. Reports the bound URLs by task_status.

    Raises ConfigError where FEED_DIR is no feed, or lies in a store, or an address cannot be had.
    """
    shelves = open_shelves(feed_dir)
    if not isinstance(shelves, DirectoryShelves):
        raise ConfigError(
            f"serve {feed_dir}: its public files lie in {shelves.where}, and devices read them there; name "
            f"{shelves.where}/DATASET as their origin, or as that of a relay, which also holds polls; without --bind, "
            "heads are kept fresh here and versions ahead released at their time"
        )
    public = shelves.public
    if not public.is_dir():
        raise ConfigError(f"serve {feed_dir}: not a feed; make one with: edged origin init {feed_dir}")
    with plain_errors():
        await run_station(feed_dir, observed or Observed.of(feed_dir), bind, stop, clock, task_status)


async def run_station(
    feed_dir: Path,
    observed: Observed,
    bind: list[str],
    stop: trio.Event | None,
    clock: Clock,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    heads, meter = observed.heads, observed.meter
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heads.watch)
        nursery.start_soon(keep_all, feed_dir, heads, clock)
        app = FeedApp(heads, clock, observed.fleet.see, observed.use.answer)
        nursery.start_soon(observed.use.run)
        listening = Listening(tuple(bind), limits=connection_limits())
        try:
            await serve(app, listening, clock=clock, meter=meter, stop=stop, task_status=task_status)
        finally:
            observed.use.close()
        nursery.cancel_scope.cancel()
