"""Counts answers as they go out: whose app has asked, what of, how many bytes, and how long it took to make them."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, cast

from edged.access.usage import OTHER, UsageBook, Used, UseTally
from edged.errors import RequestError, StoreError
from edged.http.application import (
    Answer,
    ByTask,
    Client,
    Held,
    InThread,
    Renewal,
    Response,
    Shared,
    Stream,
    TimedFields,
)
from edged.http.fields import Fields
from edged.http.framing import join_fields
from edged.http.meter import Meter
from edged.http.request import Request, decode, split_target
from edged.serve.answers.routes import is_own
from edged.serve.catalog import Catalog
from edged.serve.servertiming import HIT, cache_did

REFUSALS = (401, 403, 429)
MOST_SHARED = 4000  # fields with a tally that are held; more only where somebody asks in every way that there is
MOST_KNOWN = 4000
PROXY = "proxy:"

RouteOf = Callable[[bytes], str | None]
"""The prefix of the route that takes a path, None where none does."""


class CountedRenewal:
    """The Renewal of answers that are counted: what they are renewed to is, too."""

    def __init__(self, renewal: Renewal, counting: Counting, tally: UseTally) -> None:
        self.renewal, self.counting, self.tally = renewal, counting, tally

    def renew(self, target: bytes, content: int) -> tuple[TimedFields, Shared] | None:
        found = self.renewal.renew(target, content)
        return None if found is None else (found[0], self.counting.shared_of(found[1], self.tally))


class CountingClient:
    """The client of a ByTask, of whose answer the bytes are counted. Otherwise as it is."""

    def __init__(self, client: Client, tally: UseTally) -> None:
        self.client, self.tally = client, tally

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    async def start(self, status: int, fields: Fields) -> None:
        if status in REFUSALS:
            self.tally.count.refused += 1
        self.tally.add(1, len(join_fields(tuple(fields))), remembered=cache_did(fields) == HIT)
        await self.client.start(status, fields)

    async def write(self, data: bytes) -> None:
        self.tally.add(0, len(data), remembered=False)
        await self.client.write(data)

    async def end(self, data: bytes = b"") -> None:
        self.tally.add(0, len(data), remembered=False)
        await self.client.end(data)


class Counting:
    """For the server's thread, but for what is made in others, whose times wait in `made` until the next request."""

    def __init__(self, book: UsageBook, meter: Meter, catalog: Catalog, route_of: RouteOf | None) -> None:
        self.book, self.meter, self.catalog, self.route_of = book, meter, catalog, route_of
        self.known: dict[tuple[str, str, bytes, bytes], UseTally] = {}
        self.shared: dict[tuple[Shared, UseTally], Shared] = {}
        self.made: deque[tuple[UseTally, float, Answer]] = deque()

    def tally_of(self, app: str, audience: str, request: Request) -> UseTally:
        """Of the app, and of what the request's path is of, if there is such a thing."""
        path = path_of(request.target)
        if not is_own(path):
            prefix = self.route_of(path) if self.route_of is not None else None
            return self.book.tally_of(Used(app, audience, OTHER if prefix is None else PROXY + prefix))
        dataset, _, rest = path[4:].partition(b"/")
        key = (app, audience, dataset, rest.partition(b"/")[0])
        found = self.known.get(key)
        if found is None:
            place = self.place_of(dataset, key[3])
            found = self.book.tally_of(Used(app, audience, place))
            if place != OTHER and len(self.known) < MOST_KNOWN:
                self.known[key] = found
        return found

    def place_of(self, dataset: bytes, collection: bytes) -> str:
        try:
            name, part = decode(dataset, "dataset"), decode(collection, "collection")
        except RequestError:
            return OTHER
        found = self.catalog.get(name)
        if found is None:
            return OTHER
        if not part or part == "changes":
            return f"{name}/{part}" if part else name
        try:
            there = found.version and part in found.view().collections
        except StoreError:
            there = False
        return f"{name}/{part}" if there else OTHER

    def made_by(self, make: Callable[[], Answer], tally: UseTally) -> Answer:
        """What `make` gives, counted."""
        self.catch_up()
        began = perf_counter()
        answer = make()
        if not isinstance(answer, InThread):
            self.time(tally, perf_counter() - began)
        return self.counted(answer, tally)

    def catch_up(self) -> None:
        """Count what was made in threads."""
        while self.made:
            tally, seconds, answer = self.made.popleft()
            self.time(tally, seconds)
            note(tally, answer)

    def time(self, tally: UseTally, seconds: float) -> None:
        tally.count.seconds += seconds
        self.meter.note_making(seconds)

    def counted(self, answer: Answer, tally: UseTally) -> Answer:
        note(tally, answer)
        return self.wrapped(answer, tally)

    def wrapped(self, answer: Answer, tally: UseTally) -> Answer:
        match answer:
            case Response():
                answer.shared = self.shared_of(answer.shared, tally)
            case InThread(work, limiter):
                return InThread(partial(self.work, work, tally), limiter)
            case Held(resume=resume):
                return replace(answer, resume=lambda last: self.counted(resume(last), tally))
            case Stream(pieces=pieces, follow=follow):
                following = None if follow is None else lambda: counted_pieces(follow(), tally)
                head_bytes = len(join_fields(answer.fields))
                return replace(answer, pieces=counted_stream(pieces, tally, head_bytes), follow=following)
            case ByTask(run):
                return ByTask(partial(run_counted, run, tally))
        return answer

    def work(self, work: Callable[[], Answer], tally: UseTally) -> Answer:
        """In a thread."""
        began = perf_counter()
        answer = work()
        self.made.append((tally, perf_counter() - began, answer))
        return self.wrapped(answer, tally)

    def shared_of(self, shared: Shared, tally: UseTally) -> Shared:
        """The same fields, counted by `tally`; always the same object for the same two."""
        key = (shared, tally)
        found = self.shared.get(key)
        if found is None:
            if len(self.shared) >= MOST_SHARED:
                self.shared.clear()
            renewal = None if shared.renewal is None else CountedRenewal(shared.renewal, self, tally)
            found = self.shared[key] = Shared(shared.fields, shared.lines, renewal, tally)
        return found


def path_of(target: bytes) -> bytes:
    """Of a request's target in any form; nothing of one that is malformed."""
    if target.startswith(b"/"):
        return target.partition(b"?")[0]
    try:
        return split_target(target)[1]
    except RequestError:
        return b""


def note(tally: UseTally, answer: Answer) -> None:
    if isinstance(answer, Response) and answer.status in REFUSALS:
        tally.count.refused += 1


def counted_sending(send: Callable[[Any], Awaitable[None]], tally: UseTally) -> Callable[[Any], Awaitable[None]]:
    """The messages of a WebSocket to its client: one answer, and the bytes of what they say."""

    async def sent(message: Any) -> None:
        if message["type"] == "websocket.accept":
            tally.add(1, 0, remembered=False)
        elif message["type"] == "websocket.send":
            said = message.get("bytes") or (message.get("text") or "").encode()
            tally.add(0, len(said), remembered=False)
        await send(message)

    return sent


def counted_stream(pieces: Iterator[bytes], tally: UseTally, head_bytes: int) -> Iterator[bytes]:
    tally.add(1, head_bytes, remembered=False)
    yield from counted_pieces(pieces, tally)


def counted_pieces(pieces: Iterator[bytes], tally: UseTally) -> Iterator[bytes]:
    for piece in pieces:
        tally.add(0, len(piece), remembered=False)
        yield piece


async def run_counted(run: Callable[[Client], Awaitable[None]], tally: UseTally, client: Client) -> None:
    await run(cast("Client", CountingClient(client, tally)))
