"""Feeds over HTTP: heads with a long poll, roots of trust, blobs with ranges; nothing else.

Paths are matched whole against what a feed can hold, so nothing outside it has a name here. Fields are few: devices
poll the head all day.
"""

from __future__ import annotations

import hashlib
import json
import re
import resource
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol
from urllib.parse import parse_qsl

from edged.errors import RequestError
from edged.feed.head import Head
from edged.feed.names import NAME
from edged.feedserving.files import BRIEF
from edged.feedserving.polls import PollNumbers
from edged.http.application import Answer, Application, Held, Response, Signal, problem
from edged.http.fields import Fields, split_list
from edged.http.limits import Limits
from edged.http.request import Request, decode, split_target
from edged.http.validators import names_tag

LONG = 500  # bytes; longer queries and lists of tags are not worth remembering
REMEMBERED = 128  # of either: devices ask alike
WAIT_S = 300  # the longest that a request is held
FILES = r"(?P<head>head)|trust/(?P<trust>[1-9][0-9]{0,8})|blobs/(?P<blob>[0-9a-f]{64})"
USE = re.compile(rf"/({NAME.pattern})/usage".encode())
ROUTE = re.compile(rf"/(?P<dataset>{NAME.pattern})/(?:{FILES})", re.ASCII)

EXPECTED_S = 20  # how long a request waits for the first head of a dataset
SPARE_FILES = 256  # descriptors for anything but connections
MOST_CONNECTIONS = 60_000
# A cache that does not reach the origin answers with the head that it has, and devices see how old that is. Never with
# the answer to a held poll: that would be no news for ever.
HEAD_LIFE = b"max-age=1, stale-if-error=86400"


@dataclass(frozen=True, slots=True)
class HeldPoll:
    """after: the newest version, offered ones included, that the device has seen; number: of the answer that it had
    before, None for its first; tags: If-None-Match, None where it has none; patched: whether it takes what differs from
    the head of that answer.
    """

    after: int
    wait_s: int
    number: int | None
    tags: bytes | None
    patched: bool = False


@dataclass(frozen=True, slots=True)
class PublicHead:
    """A head as it is served. data: the bytes; etag: with its quotes; earlier: those of the heads before it that have
    the same news."""

    data: bytes
    etag: bytes
    document: Head
    earlier: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, data: bytes, document: Head) -> PublicHead:
        return cls(data, b'"%s"' % hashlib.sha256(data).hexdigest()[:16].encode(), document)

    @property
    def version(self) -> int:
        return self.document.version

    @property
    def newest_version(self) -> int:
        return self.document.newest_version

    @property
    def news(self) -> object:
        return self.document.news


class Feeds(Protocol):
    """The datasets that are served."""

    def datasets(self) -> list[str]:
        """The names of those that have a head."""
        ...

    def current(self, dataset: str) -> PublicHead | None:
        """The head in force, None where there is none."""
        ...

    def latest(self, dataset: str) -> PublicHead | None:
        """The same as of the last look: a move of the signal has told of it, and ten thousand need not look again."""
        ...

    def signal(self, dataset: str) -> Signal:
        """What moves when the dataset's head does. Asked for names that are served, or expected, alone."""
        ...

    def expect(self, dataset: str) -> bool:
        """Whether a dataset without a head may have one in a moment: a relay begins to ask for it. Raises RequestError
        where it takes no more on."""
        ...

    def trust(self, dataset: str, number: int, request: Request) -> Answer:
        """Root of trust `number`. Raises RequestError."""
        ...

    def blob(self, dataset: str, name: str, request: Request) -> Answer:
        """A blob by its SHA-256 in hexadecimal digits. Raises RequestError."""
        ...


class FeedApp(Application):
    """Serves feeds. clock: seconds since 1970; see: told of each request for a head; take_use: answers what
    devices tell of use."""

    def __init__(
        self,
        feeds: Feeds,
        clock: Callable[[], float],
        see: Callable[[str, Request], None] | None = None,
        take_use: Callable[[str, Request], Answer] | None = None,
    ) -> None:
        self.feeds, self.clock, self.see, self.take_use = feeds, clock, see, take_use
        self.numbers: dict[str, PollNumbers] = {}

    def answer(self, request: Request) -> Answer:
        try:
            return self.find(request)
        except RequestError as fault:
            return refusal(fault)

    def find(self, request: Request) -> Answer:
        """Raises RequestError."""
        if request.method == "POST" and self.take_use is not None:
            told = USE.fullmatch(request.target)
            if told is not None and self.feeds.current(told[1].decode()) is not None:
                return self.take_use(told[1].decode(), request)
        if request.method not in ("GET", "HEAD"):
            return problem(405, "only GET and HEAD", ((b"Allow", b"GET, HEAD"),), BRIEF)
        _, path, query = split_target(request.target)
        if path == b"/":
            return self.listing()
        route = ROUTE.fullmatch(decode(path, "path"))
        # A root of trust or a dataset that is missing now may be there in a second: the answer is kept briefly.
        if route is None or ".." in route["dataset"]:
            raise RequestError(404, "not a path of a feed")
        dataset = route["dataset"]
        if route["head"]:
            poll = read_poll(query, request.values.get(b"if-none-match"))
            if self.see is not None and self.feeds.latest(dataset) is not None:
                self.see(dataset, request)
            return self.head(dataset, request, poll)
        if route["trust"]:
            return self.feeds.trust(dataset, int(route["trust"]), request)
        return self.feeds.blob(dataset, route["blob"], request)

    def listing(self) -> Response:
        """What there is, for people and probes."""
        found = {name: self.feeds.current(name) for name in self.feeds.datasets()}
        datasets = {
            name: {
                "version": head.version,
                "signed_at": head.document.signed_at,
                "head": f"/{name}/head",
                "offered": offered(head.document),
            }
            for name, head in found.items()
            if head is not None
        }
        body = json.dumps({"datasets": datasets}, indent=2).encode() + b"\n"
        kind = (b"Content-Type", b"application/json")
        return Response(200, (kind, (b"Cache-Control", BRIEF), (b"Content-Length", b"%d" % len(body))), body)

    # --- heads -------------------------------------------------------------------------------------------------------

    def head(self, dataset: str, request: Request, poll: HeldPoll | None) -> Answer:
        """Raises RequestError."""
        found = self.feeds.current(dataset)
        if found is None:
            return self.await_first(dataset, request, poll)
        signal = self.feeds.signal(dataset)
        if poll is None:
            number = self.number(dataset, None, found)
            fields = ((b"ETag", found.etag), (b"Cache-Control", HEAD_LIFE), (b"Edged-Poll", b"%d" % number))
            if names_tag(request.values.get(b"if-none-match", b""), found.etag):
                return Response(304, fields)
            return whole_head(found, fields)
        known = self.is_up_to_date(dataset, poll, found)
        if found.newest_version > poll.after or not known or not poll.wait_s:
            return self.end_poll(dataset, poll, found)
        resume = partial(self.resume, dataset, poll, found.news)
        return Held(signal, signal.generation, poll.wait_s, resume)

    def is_up_to_date(self, dataset: str, poll: HeldPoll, found: PublicHead) -> bool:
        """Whether the device has a head with the same news, by its tag or else by the number of its last answer.

        A number that is not known here, because another origin gave it or this one was started anew, says nothing.
        """
        if poll.tags is not None:
            return is_named(poll.tags, found.etag, *found.earlier)
        numbers = self.numbers.get(dataset)
        sent = None if numbers is None or poll.number is None else numbers.tags.get(poll.number)
        return sent is None or sent in (found.etag, *found.earlier)

    def await_first(self, dataset: str, request: Request, poll: HeldPoll | None) -> Answer:
        """There is no head. Raises RequestError, unless one is expected."""
        if not self.feeds.expect(dataset):
            raise RequestError(404, f"no dataset {dataset!r} here")
        signal = self.feeds.signal(dataset)
        return Held(signal, signal.generation, EXPECTED_S, partial(self.see_first, dataset, request, poll))

    def see_first(self, dataset: str, request: Request, poll: HeldPoll | None, last: bool) -> Answer:
        """A request that waited for the first head."""
        try:
            if last and self.feeds.current(dataset) is None:
                raise RequestError(503, f"dataset {dataset!r} is being asked for", headers=(("Retry-After", "5"),))
            return self.head(dataset, request, poll)
        except RequestError as fault:
            return refusal(fault)

    def resume(self, dataset: str, poll: HeldPoll, before: object, last: bool) -> Answer:
        """A held poll, when the head is another one. News are a later version, a rollout that moves, and takedowns; a
        head that was only signed anew waits for the end of the poll.
        """
        signal = self.feeds.signal(dataset)
        generation = signal.generation
        found = self.feeds.current(dataset) if last else self.feeds.latest(dataset)
        if found is None:
            return problem(404, f"no dataset {dataset!r} here", cache=BRIEF)
        if last or found.newest_version > poll.after or found.news != before:
            return self.end_poll(dataset, poll, found)
        return Held(signal, generation, poll.wait_s, partial(self.resume, dataset, poll, before))

    def number(self, dataset: str, asked: int | None, found: PublicHead) -> int:
        """Of an answer, a held poll's or not: what the next poll of whoever gets it names."""
        now = self.clock()
        numbers = self.numbers.get(dataset)
        if numbers is None:
            numbers = self.numbers[dataset] = PollNumbers(now)
        numbers.keep(found.etag, found.data)
        return numbers.after(asked, found.etag, now)

    def end_poll(self, dataset: str, poll: HeldPoll, found: PublicHead) -> Response:
        """The head, or that there is none that the device does not have.

        The entity tag is one of this answer alone, so that no cache takes it for that of another poll. Who asks with a
        number and without a tag gets none, nor a media type.
        """
        numbers = self.numbers.get(dataset)
        # A cache on the way takes If-None-Match off; then the number says what the device has.
        known = poll.number is None or (numbers is not None and numbers.is_known(poll.number, found.etag))
        number = self.number(dataset, poll.number, found)
        fields: Fields = ((b"Cache-Control", BRIEF), (b"Edged-Poll", b"%d" % number))
        if poll.number is not None and poll.tags is None:
            # Devices go by the number: what they have no use for they need not be sent with each edit.
            if known and found.newest_version <= poll.after:
                return Response(204, fields)
            patch = numbers.patch(poll.number, found.etag, found.data) if numbers is not None and poll.patched else None
            data = found.data if patch is None else patch
            return Response(200, (*fields, (b"Content-Length", b"%d" % len(data))), data)
        fields = ((b"ETag", b'%b-%d"' % (found.etag[:-1], number)), *fields)
        if poll.tags is not None and is_named(poll.tags, found.etag):
            return Response(304, fields)
        if poll.tags is None and known and found.newest_version <= poll.after:
            return Response(204, fields)
        return whole_head(found, fields)


def refusal(fault: RequestError) -> Response:
    extra = tuple((name.encode(), value.encode()) for name, value in fault.headers)
    return problem(fault.status, str(fault), extra, BRIEF)


def whole_head(found: PublicHead, fields: Fields) -> Response:
    kind, length = (b"Content-Type", b"application/cose"), (b"Content-Length", b"%d" % len(found.data))
    return Response(200, (kind, *fields, length), found.data)


def is_named(tags: bytes, *etags: bytes) -> bool:
    """Whether If-None-Match names one of these heads, by its tag or that of a poll that it was the answer to."""
    return (remembered_naming if len(tags) < LONG else names_head)(tags, etags)


def names_head(tags: bytes, etags: tuple[bytes, ...]) -> bool:
    wanted = {tag[:-1] for tag in etags}
    return any(
        member == b"*" or member.removeprefix(b"W/").partition(b"-")[0].rstrip(b'"') in wanted
        for member in split_list(tags)
    )


remembered_naming = lru_cache(maxsize=REMEMBERED)(names_head)


def offered(head: Head) -> dict[str, Any] | None:
    return None if head.offer is None else {"version": head.offer.version, "permille": head.offer.permille}


def read_poll(query: bytes, tags: bytes | None) -> HeldPoll | None:
    """None where the query asks for no poll; the same object for all devices that ask alike. Raises RequestError for
    what is not a number.
    """
    short = len(query) < LONG and (tags is None or len(tags) < LONG)
    return (remembered_poll if short else parse_poll)(query, tags)


def parse_poll(query: bytes, tags: bytes | None) -> HeldPoll | None:
    numbers: dict[str, int] = {}
    try:
        parameters = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=8)
    except ValueError as fault:
        raise RequestError(400, "expected at most 8 parameters") from fault
    patched = False
    for name, value in parameters:
        if name in ("after", "wait", "poll"):
            if not value.isascii() or not value.isdigit() or len(value) > 18:
                raise RequestError(400, f"{name}: expected a whole number of at most 18 digits")
            numbers[name] = int(value)
            patched |= name == "poll" and value.startswith("0") and value != "0"
    if "after" not in numbers:
        return None
    return HeldPoll(numbers["after"], min(numbers.get("wait", 0), WAIT_S), numbers.get("poll"), tags, patched)


def connection_limits() -> Limits:
    """As many connections as descriptors allow: a device holds one all the time, a proxy before us many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A blob being sent takes a second descriptor.
    most = max(min((soft if soft != resource.RLIM_INFINITY else hard) - SPARE_FILES, 2 * MOST_CONNECTIONS) // 2, 64)
    return Limits(connections=most, per_peer=most)


remembered_poll = lru_cache(maxsize=REMEMBERED)(parse_poll)
