"""Tells origins once a day what was used the day before, where `[usage] report` is on; spread by device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from hashlib import sha256

import trio

from edged.access.report import encode_report, rows_of
from edged.access.usage import DAY_S, UsageBook
from edged.errors import EdgedError
from edged.sync.subscription import Subscription
from edged.sync.transports.http import HttpTransport
from edged.sync.transports.transport import Traffic

log = logging.getLogger("edged.sync")

PATH = "usage"  # below the feed's base
LOOK_S = 3600.0  # at most, between looks at the time; and after a fault


def offset_s(device_id: str) -> float:
    """The device's own second of the day."""
    return int.from_bytes(sha256(b"usage " + device_id.encode()).digest()[:4], "big") / (1 << 32) * DAY_S


async def report_use(
    book: UsageBook, subscriptions: Callable[[], Iterable[Subscription]], clock: Callable[[], float | None]
) -> None:
    """For ever. clock: seconds since 1970, None while they are not known: nothing is told then."""
    while True:
        now = clock()
        wait_s = LOOK_S
        if now is not None:
            day = int(now // DAY_S)
            mine = list(subscriptions())
            due = day * DAY_S + offset_s(mine[0].device_id if mine else "")
            if now >= due and book.reported < day - 1 and await report_day(book, mine, day - 1):
                book.reported, book.changed = day - 1, True
            wait_s = min(LOOK_S, due - now if now < due else due + DAY_S - now)
        await trio.sleep(max(1.0, wait_s))


async def report_day(book: UsageBook, subscriptions: Iterable[Subscription], day: int) -> bool:
    """Whether every origin that takes reports has it."""
    done = True
    for subscription in subscriptions:
        rows = rows_of(book.days.get(day, {}).items(), subscription.dataset)
        urls = [url for url in subscription.origins if url.startswith(("http://", "https://"))]
        if rows and urls and not await told_any(subscription, urls, encode_report(day, rows)):
            done = False
    return done


async def told_any(subscription: Subscription, urls: Iterable[str], report: bytes) -> bool:
    """Whether one of the origins has it, or none of those that answer takes any."""
    for url in urls:
        transport = None
        try:
            transport = HttpTransport(url, Traffic(), subscription.access)
            status = await transport.post(PATH, report)
        except EdgedError as fault:
            log.debug("%s: use is not told: %s", subscription.dataset, fault)
            continue
        finally:
            if transport is not None:
                await transport.aclose()
        log.debug("%s: use told to %s: %d", subscription.dataset, url, status)
        return True
    return False
