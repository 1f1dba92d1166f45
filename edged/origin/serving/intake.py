"""Takes what devices tell of use, and sums it up in bounded room. Whoever can reach the origin can send some: what is
implausible is refused, nobody is believed more than so often, and sums are of use, not of money."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import trio

from edged.access.report import REPORT_BYTES, decode_report, or_other
from edged.access.usage import DAY_S, Count, UsageBook, Used, shown
from edged.access.usagefile import read_book, write_book
from edged.errors import StoreError
from edged.files import make_directory
from edged.http.application import ByTask, Client, Disconnected, problem
from edged.http.request import Request
from edged.threads import in_thread

logger = logging.getLogger("edged.origin")

KEEP_DAYS = 800
WRITE_S = 300.0
OLDEST_DAYS = 3  # before today, of a report that is taken
MOST_NAMES = 500  # of a dataset, told apart in one day
EACH_HOUR = 20  # reports of one address: a household's devices look like one
MOST_ADDRESSES = 100_000  # remembered; beyond, nobody new is taken until the hour is over
SUFFIX = ".use"


class UsageIntake:
    """directory: below the feed's private one; clock: seconds since 1970."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self.directory, self.clock = directory, clock
        self.books: dict[str, UsageBook] = {}
        self.key = secrets.token_bytes(16)
        self.hour, self.seen = 0, dict[bytes, int]()
        self.said = ""

    def answer(self, dataset: str, request: Request) -> ByTask:
        return ByTask(partial(self.receive, dataset, request))

    async def receive(self, dataset: str, request: Request, client: Client) -> None:
        status, detail = 204, ""
        try:
            body = await whole_body(client)
            status, detail = self.take(dataset, request.peer.address, body)
        except Disconnected:
            status, detail = 400, "the report ended early"
        if status == 204:
            await client.start(204, ())
            await client.end()
            return
        refused = problem(status, detail)
        await client.start(status, refused.fields)
        await client.end(refused.body)

    def take(self, dataset: str, address: str, body: bytes | None) -> tuple[int, str]:
        """A report's status, and what is wrong with it."""
        if body is None:
            return 413, f"a report has at most {REPORT_BYTES} bytes"
        if not self.admits(address):
            return 429, "too many reports from there in this hour"
        today = int(self.clock() // DAY_S)
        try:
            day, rows = decode_report(body, dataset)
        except ValueError as fault:
            return 400, str(fault)
        if not today - OLDEST_DAYS <= day <= today:
            return 400, f"a report of day {day}; expected one of the last {OLDEST_DAYS} days before {today}"
        self.enter(dataset, day, rows)
        return 204, ""

    def admits(self, address: str) -> bool:
        hour = int(self.clock() // 3600)
        if hour != self.hour:
            self.hour = hour
            self.seen.clear()
        name = blake2b(address.encode(), digest_size=8, key=self.key, usedforsecurity=False).digest()
        count = self.seen.get(name, 0)
        if count >= EACH_HOUR or (not count and len(self.seen) >= MOST_ADDRESSES):
            return False
        self.seen[name] = count + 1
        return True

    def book(self, dataset: str) -> UsageBook:
        found = self.books.get(dataset)
        if found is None:
            found = self.books[dataset] = read_book(self.directory / (dataset + SUFFIX), KEEP_DAYS)
        return found

    def enter(self, dataset: str, day: int, rows: list[tuple[Used, Count]]) -> None:
        book = self.book(dataset)
        known = book.days.setdefault(day, {})
        for used, count in rows:
            name = used if used in known or len(known) < MOST_NAMES else or_other(used)
            known[name] = known.get(name, Count()).plus(count)
        book.changed = True
        book.turn(None)

    def document(self, dataset: str) -> dict[str, Any]:
        """As `/usage` of a device has it, of all that told."""
        return shown(self.book(dataset).copy())

    async def run(self) -> None:
        """Write what has come now and then, for ever."""
        while True:
            await trio.sleep(WRITE_S)
            for dataset, book in list(self.books.items()):
                if book.changed:
                    book.changed = False
                    await in_thread(self.write, dataset, book.copy())

    def close(self) -> None:
        for dataset, book in self.books.items():
            if book.changed:
                self.write(dataset, book)

    def write(self, dataset: str, book: UsageBook) -> None:
        try:
            make_directory(self.directory, 0o700)
            write_book(self.directory / (dataset + SUFFIX), book)
        except StoreError as fault:
            if str(fault) != self.said:
                logger.warning("%s; use is summed up on, and lost at the next start", fault)
            self.said = str(fault)


async def whole_body(client: Client) -> bytes | None:
    """None where it is larger than a report may be. Raises Disconnected."""
    body = b""
    pieces: AsyncGenerator[bytes, None] = client.body()
    async with aclosing(pieces):
        async for piece in pieces:
            body += piece
            if len(body) > REPORT_BYTES:
                return None
    return body
