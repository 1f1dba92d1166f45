"""`edged origin serve`: the feed over HTTP, and heads kept fresh where the head key is at hand."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import trio

from edged.announce.putting import Announcer
from edged.errors import BusyError, ConfigError, EdgedError, plain_errors
from edged.feedserving.app import FeedApp, connection_limits
from edged.http.meter import Meter
from edged.http.server import Listening, serve
from edged.origin.ahead import plans, preparing
from edged.origin.declared.feed import load_feed_rules
from edged.origin.publisher import Clock, Publisher
from edged.origin.serving.heads import Heads
from edged.origin.serving.intake import UsageIntake
from edged.origin.serving.livefleet import LiveFleet
from edged.origin.shelves.directory import DirectoryShelves
from edged.origin.shelves.opening import open_shelves
from edged.threads import in_thread

logger = logging.getLogger("edged.origin")

BROKER_LOOK_S = 5.0  # between looks at whether the broker has every head
LOOK_S = 30.0  # between looks at the age of the heads
RELEASE_LOOK_S = 1.0  # between looks for versions ahead whose time has come
RELEASE_RETRY_S = 5.0  # where that failed


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

    Raises ConfigError where FEED_DIR is no feed or an address cannot be had.
    """
    shelves = open_shelves(feed_dir)
    if not isinstance(shelves, DirectoryShelves):
        raise ConfigError(
            f"serve {feed_dir}: its public files lie in {shelves.where}, and devices read them there; name "
            f"{shelves.where}/DATASET as their origin, or as that of a relay, which also holds polls"
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
        nursery.start_soon(keep_fresh, feed_dir, heads, clock)
        nursery.start_soon(keep_announced, feed_dir, heads)
        nursery.start_soon(keep_released, feed_dir, heads, clock)
        app = FeedApp(heads, clock, observed.fleet.see, observed.use.answer)
        nursery.start_soon(observed.use.run)
        listening = Listening(tuple(bind), limits=connection_limits())
        try:
            await serve(app, listening, clock=clock, meter=meter, stop=stop, task_status=task_status)
        finally:
            observed.use.close()
        nursery.cancel_scope.cancel()


async def keep_fresh(feed_dir: Path, heads: Heads, clock: Clock) -> None:
    """Sign heads anew at half their fresh time, for ever; at once those that an interrupted key rotation left.

    And make the skip hops and snapshots that a publisher was stopped from making.
    """
    publisher = await in_thread(open_with_key, feed_dir, clock)
    while publisher is not None:
        for dataset in heads.datasets():
            if is_aging(heads, dataset, clock()):
                await in_thread(sign_anew, publisher, dataset)
            else:
                await in_thread(keep_up, publisher, dataset)
        await trio.sleep(LOOK_S)


async def keep_released(feed_dir: Path, heads: Heads, clock: Clock) -> None:
    """Make versions ahead live at the time given, for ever, and hand out anew those that a takedown has overtaken."""
    publisher = await in_thread(open_with_key, feed_dir, clock)
    known: dict[str, tuple[bytes, float | None]] = {}  # when something is due, as of the head of this tag
    while publisher is not None:
        sleep_s = RELEASE_LOOK_S
        for dataset in heads.datasets():
            found = heads.current(dataset)
            if found is None:
                continue
            if dataset not in known or known[dataset][0] != found.etag:
                known[dataset] = found.etag, await in_thread(due_time, publisher, dataset)
            due = known[dataset][1]
            if due is not None and due <= clock():
                known[dataset] = found.etag, clock() + RELEASE_RETRY_S  # another head has another tag
                await in_thread(release_due, publisher, dataset)
            elif due is not None:
                sleep_s = min(sleep_s, max(due - clock(), 0.0))
        await trio.sleep(sleep_s)


def due_time(publisher: Publisher, dataset: str) -> float | None:
    """When a version ahead is to go live, or 0 where it is to be handed out anew; None where nothing is to be done."""
    try:
        with publisher.reading(dataset) as state:
            plan = plans.held(state)
            if plan is None or plans.superseded_by(state, plan, state.live) is not None:
                return None
            return plan.at if plan.base == state.live else 0.0
    except EdgedError as fault:
        logger.error("versions ahead of %s are not looked for: %s", dataset, fault)
        return None


def release_due(publisher: Publisher, dataset: str) -> None:
    """The live version is served on if this fails; it is tried again at the next look."""
    try:
        with publisher.at_work(dataset) as place:
            plan = preparing.standing(place, "release")
            if plan.at is not None and plan.at <= place.now:
                result = preparing.release(place)
                logger.info("%s: version %d, which was prepared, is live", dataset, result.version)
            elif preparing.renew(place) is not None:
                logger.info("%s: the version ahead is handed out anew after a takedown", dataset)
    except BusyError:
        logger.debug("%s: being published just now", dataset)
    except EdgedError as fault:
        logger.error("the version ahead of %s is not live: %s", dataset, fault)


def is_aging(heads: Heads, dataset: str, now: float) -> bool:
    """Whether half of the head's fresh time is over, or it is not one that the newest root of trust vouches for."""
    found = heads.current(dataset)
    return found is None or found.document.signed_at + found.document.fresh_s / 2 <= now


def sign_anew(publisher: Publisher, dataset: str) -> None:
    """Devices go on with the head there is if this fails, so serving goes on too."""
    try:
        publisher.resign(dataset)
    except BusyError:
        logger.debug("head of %s: being published just now", dataset)
    except EdgedError as fault:
        logger.error("head of %s is not signed anew: %s", dataset, fault)


def keep_up(publisher: Publisher, dataset: str) -> None:
    """Devices come by other ways if this fails."""
    try:
        publisher.keep_up(dataset)
    except EdgedError as fault:
        logger.error("%s", fault)


def open_with_key(feed_dir: Path, clock: Clock) -> Publisher | None:
    """The feed's publisher, None where its head key is not at hand; then whoever publishes keeps heads fresh."""
    try:
        publisher = Publisher.open(feed_dir, clock=clock)
        publisher.roots.head_key()
    except (EdgedError, OSError) as fault:
        logger.info("heads are not signed anew here: %s", fault)
        return None
    return publisher


async def keep_announced(feed_dir: Path, heads: Heads) -> None:
    """For `origin serve`: announce heads that are not, for ever: what was signed anew, and all of them to a broker that
    was away, which may have lost what it kept."""
    access = (await in_thread(load_feed_rules, feed_dir)).announce.access
    if access is None:
        return
    said = ""
    told: dict[str, bytes] = {}
    with Announcer(access) as announcer:
        while True:
            if announcer.client is None or not announcer.client.is_connected():
                told.clear()
            try:
                for dataset in heads.datasets():
                    found = heads.current(dataset)
                    if found is not None and told.get(dataset) != found.etag:
                        await in_thread(announcer.announce, dataset, found.data)
                        told[dataset] = found.etag
                said = ""
            except EdgedError as fault:
                if str(fault) != said:
                    logger.warning("%s; devices find heads by their polls", fault)
                said = str(fault)
            await trio.sleep(BROKER_LOOK_S)
