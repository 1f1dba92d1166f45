"""What an origin does beside answering: heads are signed anew before they run out, versions ahead go live at their
time, skip hops and snapshots that a publisher was stopped from making are made, and a broker has every head.

Where the head key is at hand; whatever of it fails costs nothing that devices see, and is tried again.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from edged.announce.putting import Announcer
from edged.errors import BusyError, EdgedError
from edged.feedserving.app import PublicHead
from edged.origin.ahead import plans, preparing
from edged.origin.declared.feed import load_feed_rules
from edged.origin.publisher import Clock, Publisher
from edged.threads import in_thread

logger = logging.getLogger("edged.origin")

BROKER_LOOK_S = 5.0  # between looks at whether the broker has every head
LOOK_S = 30.0  # between looks at the age of the heads
REPEAT_S = 60.0  # between announcements of one head, where the broker tells of another
RELEASE_LOOK_S = 1.0  # between looks for versions ahead whose time has come
RELEASE_RETRY_S = 5.0  # where that failed


@dataclass(frozen=True, slots=True)
class Told:
    """A head that was announced, or heard to be retained: on which connection, and when (`time.monotonic`)."""

    connection: object
    etag: bytes
    at: float


class KnownHeads(Protocol):
    """The public heads, wherever they lie."""

    def datasets(self) -> list[str]:
        """The names of those that may have one."""
        ...

    async def newest(self, dataset: str) -> PublicHead | None:
        """The head in force, None where there is none."""
        ...


async def keep_all(feed_dir: Path, heads: KnownHeads, clock: Clock) -> None:
    """All of it, for ever."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_fresh, feed_dir, heads, clock)
        nursery.start_soon(keep_announced, feed_dir, heads)
        nursery.start_soon(keep_released, feed_dir, heads, clock)


async def keep_fresh(feed_dir: Path, heads: KnownHeads, clock: Clock) -> None:
    """Sign heads anew at half their fresh time, for ever; at once those that an interrupted key rotation left.

    And make the skip hops and snapshots that a publisher was stopped from making.
    """
    publisher = await in_thread(open_with_key, feed_dir, clock)
    while publisher is not None:
        for dataset in heads.datasets():
            if is_aging(await heads.newest(dataset), clock()):
                await in_thread(sign_anew, publisher, dataset)
            else:
                await in_thread(keep_up, publisher, dataset)
        await trio.sleep(LOOK_S)


async def keep_released(feed_dir: Path, heads: KnownHeads, clock: Clock) -> None:
    """Make versions ahead live at the time given, for ever, and hand out anew those that a takedown has overtaken."""
    publisher = await in_thread(open_with_key, feed_dir, clock)
    known: dict[str, tuple[bytes, float | None]] = {}  # when something is due, as of the head of this tag
    while publisher is not None:
        sleep_s = RELEASE_LOOK_S
        for dataset in heads.datasets():
            found = await heads.newest(dataset)
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


def is_aging(found: PublicHead | None, now: float) -> bool:
    """Whether half of the head's fresh time is over, or it is not one that the newest root of trust vouches for."""
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


async def keep_announced(feed_dir: Path, heads: KnownHeads) -> None:
    """Announce heads that are not, for ever: what was signed anew, and all of them to a broker that
    was away, which may have lost what it kept."""
    access = (await in_thread(load_feed_rules, feed_dir)).announce.access
    if access is None:
        return
    with Announcer(access, listens=True) as announcer:
        said = ""
        told: dict[str, Told] = {}
        while True:
            try:
                for dataset in heads.datasets():
                    found = await heads.newest(dataset)
                    if found is not None:
                        told[dataset] = await in_thread(announce_missing, announcer, dataset, found, told.get(dataset))
                said = ""
                if not announcer.listens:
                    announcer.close()
                    announcer.listens = True
            except EdgedError as fault:
                if str(fault) != said:
                    logger.warning("%s; devices find heads by their polls", fault)
                # What is retained may be what ends the connection of who listens: it is put right without listening.
                said, told, announcer.listens = str(fault), {}, not announcer.listens
            await trio.sleep(BROKER_LOOK_S)


def announce_missing(announcer: Announcer, dataset: str, found: PublicHead, told: Told | None) -> Told:
    """Announce a head that the broker does not retain: not the one that its publisher has just announced, which would
    go out to everybody again. One that the broker does not tell of is announced once on each connection; one in
    whose place it tells of another, again after a while. told: when that was last done.
    """
    kept = announcer.retained(dataset)
    now, connection = time.monotonic(), announcer.connection
    same = told is not None and (told.connection, told.etag) == (connection, found.etag)
    if kept == found.data or (same and told is not None and (kept is None or now - told.at < REPEAT_S)):
        return told if same and told is not None else Told(connection, found.etag, now)
    announcer.announce(dataset, found.data)
    return Told(announcer.connection, found.etag, now)
