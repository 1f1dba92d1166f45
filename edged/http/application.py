"""The interface for whoever answers: a Request in, an Answer out. Nothing here knows what is served.

Four answer by it: the apps' API, the proxy, the feed and the admin listener. An answer is made at once (Response,
FileResponse), in a thread (InThread), when something has moved (Held), piece by piece (Stream), or by a task that
writes to its client (ByTask). Whichever lane a request came by, it gets the same answer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal, Protocol, cast

import trio

from edged.access.identity import Identity, Peer, identify
from edged.http.fields import Fields, write_date
from edged.http.framing import join_fields
from edged.http.problem import NO_STORE, make_problem
from edged.http.request import Request

logger = logging.getLogger("edged.http")

KEEP_ALIVE_S = 15.0  # between two bytes of a stream that has nothing to say


class StreamOver(Exception):
    """What a `Stream.follow` raises where nothing more comes: the stream ends, whole."""


class Disconnected(Exception):
    """The client has gone before its request was whole."""


def is_endless(fields: Fields) -> bool:
    """Whether an answer ends only with its client: an event stream (HTML standard, section 9.2)."""
    return any(name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in fields)


class TimedFields(Protocol):
    """The fields of an answer that change with the time alone. Hashable; equal ones write the same at any time."""

    def fields(self, now: float) -> Fields:
        """now: seconds since 1970."""


@dataclass(frozen=True, slots=True)
class DateAlone:
    """Date, and nothing else that the time changes."""

    def fields(self, now: float) -> Fields:
        return ((b"Date", write_date(now)),)


@dataclass(frozen=True, slots=True)
class Untimed:
    """For answers that bring their Date, as one from upstream does."""

    def fields(self, now: float) -> Fields:
        return ()


DATE, UNTIMED = DateAlone(), Untimed()


class Lease(Protocol):
    """For how long a remembered answer may be given again."""

    def holds(self) -> bool:
        """Asked each time, on the server's thread: cheap, and for good once it is False."""


class Renewal(Protocol):
    """Whether remembered answers are still what would be answered, although the application's generation has moved."""

    def renew(self, target: bytes, content: int) -> tuple[TimedFields, Shared] | None:
        """The timed and shared fields that an answer has now, all else of it being as it was; None where that may be
        different. target: in origin form; content: of its Response. Asked on the server's thread.
        """


class Tally(Protocol):
    """Whoever counts some of the answers. For the server's thread alone."""

    def add(self, answers: int, sent_bytes: int, *, remembered: bool) -> None:
        """So many answers have gone out, of so many bytes together, framing apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """Fields that many answers have alike, and the same as HTTP/1.1 lines. Compared by identity.

    renewal: who knows whether the answers that have them outlive a generation; None: none does; tally: who counts them.
    """

    fields: Fields
    lines: bytes
    renewal: Renewal | None = None
    tally: Tally | None = None

    @classmethod
    def of(cls, fields: Fields, renewal: Renewal | None = None) -> Shared:
        return cls(fields, join_fields(fields), renewal)


NOTHING_SHARED = Shared((), b"")


@dataclass(slots=True)
class Response:
    """A whole answer. own: fields of this one, beside those of `timed` and `shared`, Content-Length among them;
    body: what GET gets (HEAD gets the fields alone); keep: it may be remembered for the same bytes of a request from
    the same identity, as long as `Application.generation()` stays the same and its lease, if it has one, holds;
    content: for `shared.renewal`, a hash of 64 bits of what `own` and `body` were made of; common: of the request's
    fields those alone that `Application.deciding` names decide it, so that it is for clients that differ in others;
    last: the connection ends after it.
    """

    status: int
    own: Fields
    body: bytes = b""
    timed: TimedFields = DATE
    keep: bool = False
    shared: Shared = NOTHING_SHARED
    lease: Lease | None = None
    content: int = 0
    common: bool = False
    last: bool = False

    @property
    def fields(self) -> Fields:
        return self.shared.fields + self.own


@dataclass(slots=True)
class FileResponse:
    """`length` bytes of an open file from `offset` on. fields: Content-Length among them; handle: a descriptor, which
    the server closes, sent or not.
    """

    status: int
    fields: Fields
    handle: int
    offset: int
    length: int
    timed: TimedFields = DATE


class Follower(Protocol):
    """Whoever waits for a Signal."""

    def wake(self) -> None:
        """It has moved. Must return at once."""


class Signal:
    """Something that moves on: a dataset's version, a feed's head. For the server's thread alone.

    generation: how often it has moved; when_wanted: called when a first follower begins to wait, so that what nobody
    waits for need not be looked at.
    """

    __slots__ = ("followers", "generation", "when_wanted")

    def __init__(self, when_wanted: Callable[[], None] | None = None) -> None:
        self.generation = 0
        self.followers: set[Follower] = set()
        self.when_wanted = when_wanted

    def follow(self, follower: Follower, generation: int) -> bool:
        """Have `follower` woken at the next move, once. False (and it is not) where there was one since `generation`:
        so no move is lost between a look and the wait.
        """
        if generation != self.generation:
            return False
        self.followers.add(follower)
        if self.when_wanted is not None and len(self.followers) == 1:
            self.when_wanted()
        return True

    def leave(self, follower: Follower) -> None:
        self.followers.discard(follower)

    def move(self) -> None:
        self.generation += 1
        followers, self.followers = self.followers, set()
        for follower in followers:
            follower.wake()

    async def wait(self, generation: int) -> None:
        """Until it has moved since it was at `generation`."""
        waiter = Waiter()
        if not self.follow(waiter, generation):
            await trio.lowlevel.checkpoint()
            return
        try:
            await waiter.event.wait()
        finally:
            self.leave(waiter)


class Waiter:
    """A task that waits for a Signal."""

    def __init__(self) -> None:
        self.event = trio.Event()

    def wake(self) -> None:
        self.event.set()


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer in pieces: `pieces` until it is exhausted; then, where there is a `follow`, what follow() gives at each
    move of `signal`, for as long as the client stays, or until it raises StreamOver. keep_alive: sent after
    keep_alive_s without anything else.
    """

    status: int
    fields: Fields
    timed: TimedFields
    pieces: Iterator[bytes]
    signal: Signal | None = None
    follow: Callable[[], Iterator[bytes]] | None = None
    keep_alive: bytes = b""
    keep_alive_s: float = KEEP_ALIVE_S


@dataclass(frozen=True, slots=True)
class Held:
    """No answer yet. resume(False) is asked at each move of `signal` since `generation`, and may give a Held again;
    resume(True) is asked when wait_s (from the first Held on) is over, the client will send no more, or the server
    stops, and gives an answer. A held request costs no task: let `resume` refer to as little as it needs.
    """

    signal: Signal
    generation: int
    wait_s: float
    resume: Callable[[bool], Answer]


@dataclass(frozen=True, slots=True)
class InThread:
    """An answer that takes milliseconds. limiter: how many such are made at once."""

    work: Callable[[], Answer]
    limiter: trio.CapacityLimiter


class Client(Protocol):
    """Who gets the answer of a ByTask. Whatever is written returns when there is room for more; the task is cancelled
    where the connection ends before its answer does. An answer that is not ended is cut off, and the client knows.
    """

    def body(self) -> AsyncGenerator[bytes, None]:
        """The request's body as it comes; nothing where it has none. Raises Disconnected where it breaks off."""

    def when_gone(self, act: Callable[[], None] | None) -> None:
        """What to do when the connection has broken; at once if it has. A client that will send no more may still
        read: it has gone only from an answer without end. None: nothing any more.
        """

    async def interim(self, status: int, fields: Fields) -> None:
        """A 1xx before the answer."""

    async def start(self, status: int, fields: Fields) -> None:
        """The answer's head, all fields: without Content-Length its body goes out in chunks."""

    async def write(self, data: bytes) -> None:
        """A piece of the body; of an answer to HEAD it is dropped."""

    async def end(self, data: bytes = b"") -> None:
        """The last piece."""


@dataclass(frozen=True, slots=True)
class ByTask:
    """An answer that a task writes: what is asked upstream, what takes a request's body."""

    run: Callable[[Client], Awaitable[None]]


OnWebSocket = Literal["open", "refuse", "ignore"]

Answer = Response | FileResponse | Stream | Held | InThread | ByTask


class Application:
    """Whoever answers. Every method but `websocket` is called on the server's thread, and must not block it.

    deciding: names of the request's fields that decide a `common` Response; none where there are no such answers.
    judges: whether the first request of each connection has to be asked here, also where its answer is remembered;
    whoever it is then set `Request.who` to is whom the connection's turns go by.
    """

    deciding: frozenset[bytes] = frozenset()
    judges: bool = False

    def identify(self, peer: Peer) -> Identity:
        """Who asks on a connection of `peer`. Equal identities share remembered answers."""
        return identify(peer)

    def left(self, peer: Peer) -> None:
        """The connection of `peer` (this very object) has ended."""

    def generation(self) -> int:
        """Asked before each batch of requests. At another number what is remembered counts only where it is renewed."""
        return 0

    def answer(self, request: Request) -> Answer:
        """A fault that it raises is logged and answered 500."""
        raise NotImplementedError

    def on_websocket(self, request: Request) -> OnWebSocket:
        """What to do with a request for a WebSocket: `websocket` is for it, it is refused, or it is answered as if it
        asked for none (RFC 9110 section 7.8).
        """
        return "ignore"

    async def websocket(
        self, request: Request, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """One WebSocket. receive, send: its messages in the words of ASGI 3."""
        raise NotImplementedError


def problem(status: int, detail: str, extra: Fields = (), cache: bytes = NO_STORE) -> Response:
    """An error as a whole answer."""
    fields, body = make_problem(status, detail, cache)
    return Response(status, (*fields, *extra), body)


def discard(answer: Answer) -> None:
    """An answer that nobody waits for any more."""
    if isinstance(answer, FileResponse):
        os.close(answer.handle)


def contained(make: Callable[[], Answer], request: Request) -> Answer:
    """What `make` gives. A fault of it is ours: logged and answered 500, so that it costs one request."""
    try:
        return make()
    except Exception:
        return failed(request)


async def run_in_thread(work: InThread, request: Request) -> Answer:
    """`contained`, in a thread. One that the system does not give costs one request, too."""
    try:
        return await trio.to_thread.run_sync(  # noqa: TID251 (who asks is not made to wait)
            contained, work.work, request, limiter=work.limiter
        )
    except RuntimeError:  # what `threading` raises then
        return failed(request)


def failed(request: Request) -> Response:
    """The answer to a request at which the application has failed. For an `except` clause: it logs the exception."""
    logger.exception("answer %s %r", request.method, request.target[:500])
    return problem(500, "a fault of edged, which its log describes")


Tell = Callable[[Request, int, float], None]
"""Told of a request, its answer's status, and the seconds until that was known."""


class TellingApplication(Application):
    """Another one, each request of which is told: who asked, for what, and the answer's status.

    Queries are left out: they may hold what is a secret between an app and a service behind the proxy. What goes to a
    WebSocket is not told. Nothing is remembered, so that every request comes here.
    """

    def __init__(self, application: Application, tell: Tell) -> None:
        self.application, self.tell = application, tell
        self.deciding = application.deciding

    @property
    def judges(self) -> bool:  # type: ignore[override]  # nobody sets it
        return self.application.judges

    def identify(self, peer: Peer) -> Identity:
        return self.application.identify(peer)

    def left(self, peer: Peer) -> None:
        self.application.left(peer)

    def generation(self) -> int:
        return self.application.generation()

    def answer(self, request: Request) -> Answer:
        began = perf_counter()
        return told(self.application.answer(request), lambda status: self.tell(request, status, perf_counter() - began))

    def on_websocket(self, request: Request) -> OnWebSocket:
        return self.application.on_websocket(request)

    async def websocket(
        self, request: Request, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        await self.application.websocket(request, receive, send)


class TellingClient:
    """The client of a ByTask, of whose answer the status is told. Otherwise as it is."""

    def __init__(self, client: Client, tell: Callable[[int], None]) -> None:
        self.client = client
        self.tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    async def start(self, status: int, fields: Fields) -> None:
        self.tell(status)
        await self.client.start(status, fields)


def told(answer: Answer, tell: Callable[[int], None]) -> Answer:
    """The answer as it is, told of as soon as its status is known."""
    match answer:
        case InThread(work, limiter):
            return InThread(lambda: told(work(), tell), limiter)
        case Held(resume=resume):
            return replace(answer, resume=lambda last: told(resume(last), tell))
        case ByTask(run):
            return ByTask(lambda client: run(cast("Client", TellingClient(client, tell))))
        case Response():
            tell(answer.status)
            return replace(answer, keep=False)
    tell(answer.status)
    return answer


def path_of(request: Request) -> str:
    """What of a request's target may be told."""
    return request.target.partition(b"?")[0][:500].decode("ascii", "backslashreplace")


def tell_in_debug(request: Request, status: int, _: float) -> None:
    fields = {"method": request.method, "path": path_of(request), "status": status, "peer": request.peer.address}
    logger.debug("request", extra={"fields": fields})
