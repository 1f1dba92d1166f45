"""The feed over HTTP: heads with a long poll, roots of trust, blobs with ranges; nothing else.

Paths are matched whole against what a feed can hold, so nothing outside it has a name here. Fields are few: devices
poll the head all day.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from edged.errors import RequestError
from edged.feed.head import Head
from edged.feed.names import NAME
from edged.http.application import Answer, Application, FileResponse, Held, Response, problem
from edged.http.fields import Fields, split_list
from edged.http.ranges import RangeNotSatisfiable, content_range, wanted_range
from edged.http.request import Request, decode, split_target
from edged.http.validators import names_tag, not_modified
from edged.origin.serving.heads import Heads, PublicHead
from edged.origin.serving.polls import PollNumbers

logger = logging.getLogger("edged.origin")

WAIT_S = 300  # the longest that a request is held
FILES = r"(?P<head>head)|trust/(?P<trust>[1-9][0-9]{0,8})|blobs/(?P<blob>[0-9a-f]{64})"
ROUTE = re.compile(rf"/(?P<dataset>{NAME.pattern})/(?:{FILES})", re.ASCII)

IMMUTABLE = b"public, max-age=31536000, immutable"
BRIEF = b"max-age=1"
# A cache that does not reach the origin answers with the head that it has, and devices see how old that is. Never with
# the answer to a held poll: that would be no news for ever.
HEAD_LIFE = b"max-age=1, stale-if-error=86400"


@dataclass(frozen=True, slots=True)
class HeldPoll:
    """after: the newest version, offered ones included, that the device has seen; number: of the answer that it had
    before, None for its first; tags: If-None-Match, None where it has none.
    """

    after: int
    wait_s: int
    number: int | None
    tags: bytes | None


class FeedApp(Application):
    """Serves the feeds below `public`. clock: seconds since 1970."""

    def __init__(self, public: Path, heads: Heads, clock: Callable[[], float]) -> None:
        self.public, self.heads, self.clock = public, heads, clock
        self.numbers: dict[str, PollNumbers] = {}

    def answer(self, request: Request) -> Answer:
        try:
            return self.find(request)
        except RequestError as fault:
            return problem(fault.status, str(fault), cache=BRIEF)

    def find(self, request: Request) -> Answer:
        """Raises RequestError."""
        if request.method not in ("GET", "HEAD"):
            return problem(405, "only GET and HEAD", ((b"Allow", b"GET, HEAD"),), BRIEF)
        _, path, query = split_target(request.target)
        if path == b"/":
            return self.listing()
        route = ROUTE.fullmatch(decode(path, "path"))
        # A root of trust or a dataset that is missing now may be there in a second: the answer is kept briefly.
        if route is None or ".." in route["dataset"]:
            raise RequestError(404, "not a path of a feed")
        base = self.public / route["dataset"]
        if route["head"]:
            return self.head(route["dataset"], request, read_poll(query, request.values.get(b"if-none-match")))
        if route["trust"]:
            return open_file(base / "trust" / route["trust"], b"application/cose", b"", request)
        return open_file(base / "blobs" / route["blob"], b"application/octet-stream", route["blob"].encode(), request)

    def listing(self) -> Response:
        """What there is, for people and probes."""
        found = {name: self.heads.current(name) for name in self.heads.datasets()}
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
        generation = self.heads.signal(dataset).generation  # before the look: no move is lost between them
        found = self.heads.current(dataset)
        if found is None:
            raise RequestError(404, f"no dataset {dataset!r} here")
        if poll is None:
            fields = ((b"ETag", found.etag), (b"Cache-Control", HEAD_LIFE))
            if names_tag(request.values.get(b"if-none-match", b""), found.etag):
                return Response(304, fields)
            return whole_head(found, fields)
        known = poll.tags is None or is_named(poll.tags, found)
        if found.newest_version > poll.after or not known or not poll.wait_s:
            return self.end_poll(dataset, poll, found)
        resume = partial(self.resume, dataset, poll, found.news)
        return Held(self.heads.signal(dataset), generation, poll.wait_s, resume)

    def resume(self, dataset: str, poll: HeldPoll, before: object, last: bool) -> Answer:
        """A held poll, when the head is another one. News are a later version, a rollout that moves, and takedowns; a
        head that was only signed anew waits for the end of the poll.
        """
        signal = self.heads.signal(dataset)
        generation = signal.generation
        found = self.heads.current(dataset)
        if found is None:
            return problem(404, f"no dataset {dataset!r} here", cache=BRIEF)
        if last or found.newest_version > poll.after or found.news != before:
            return self.end_poll(dataset, poll, found)
        return Held(signal, generation, poll.wait_s, partial(self.resume, dataset, poll, before))

    def end_poll(self, dataset: str, poll: HeldPoll, found: PublicHead) -> Response:
        """The head, or that there is none that the device does not have. The entity tag is one of this answer alone, so
        that no cache takes it for that of another poll.
        """
        now = self.clock()
        numbers = self.numbers.get(dataset)
        if numbers is None:
            numbers = self.numbers[dataset] = PollNumbers(now)
        # A cache on the way takes If-None-Match off; then the number says what the device has.
        known = numbers.is_known(poll.number, found.etag) or poll.number is None
        number = numbers.after(poll.number, found.etag, now)
        fields = (
            (b"ETag", b'%b-%d"' % (found.etag[:-1], number)),
            (b"Cache-Control", BRIEF),
            (b"Edged-Poll", b"%d" % number),
        )
        if poll.tags is not None and is_named(poll.tags, found):
            return Response(304, fields)
        if poll.tags is None and known and found.newest_version <= poll.after:
            return Response(204, fields)
        return whole_head(found, fields)


def whole_head(found: PublicHead, fields: Fields) -> Response:
    kind, length = (b"Content-Type", b"application/cose"), (b"Content-Length", b"%d" % len(found.data))
    return Response(200, (kind, *fields, length), found.data)


def is_named(tags: bytes, found: PublicHead) -> bool:
    """Whether If-None-Match names a head: by its own tag, or by that of a poll that it was the answer to."""
    return any(
        member == b"*" or member.removeprefix(b"W/").partition(b"-")[0].rstrip(b'"') == found.etag[:-1]
        for member in split_list(tags)
    )


def offered(head: Head) -> dict[str, Any] | None:
    return None if head.offer is None else {"version": head.offer.version, "permille": head.offer.permille}


def read_poll(query: bytes, tags: bytes | None) -> HeldPoll | None:
    """None where the query asks for no poll. Raises RequestError for what is not a number."""
    numbers: dict[str, int] = {}
    try:
        parameters = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=8)
    except ValueError as fault:
        raise RequestError(400, "expected at most 8 parameters") from fault
    for name, value in parameters:
        if name in ("after", "wait", "poll"):
            if not value.isascii() or not value.isdigit() or len(value) > 18:
                raise RequestError(400, f"{name}: expected a whole number of at most 18 digits")
            numbers[name] = int(value)
    if "after" not in numbers:
        return None
    return HeldPoll(numbers["after"], min(numbers.get("wait", 0), WAIT_S), numbers.get("poll"), tags)


# --- files -----------------------------------------------------------------------------------------------------------


def open_file(path: Path, kind: bytes, tag: bytes, request: Request) -> Response | FileResponse:
    """The file, or the range of it that is asked for. tag: its entity tag without quotes; empty: it has none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return problem(404, "no such file in the feed", cache=BRIEF)
    except OSError as fault:
        if fault.errno == errno.ELOOP:
            return problem(404, "no such file in the feed", cache=BRIEF)
        logger.error("read %s: %s", path, fault.strerror)
        return problem(503, "the file cannot be read just now; ask again", ((b"Retry-After", b"1"),))
    try:
        found = choose_part(handle, kind, tag, request)
    except BaseException:
        os.close(handle)
        raise
    if not isinstance(found, FileResponse):
        os.close(handle)
    return found


def choose_part(handle: int, kind: bytes, tag: bytes, request: Request) -> Response | FileResponse:
    size = os.fstat(handle).st_size
    fields: Fields = ((b"Cache-Control", IMMUTABLE),)
    wanted = None
    if tag:
        fields = (*fields, (b"ETag", b'"%b"' % tag), (b"Accept-Ranges", b"bytes"))
        stored = ((b"etag", b'"%b"' % tag),)
        if not_modified(request.fields, stored):
            return Response(304, fields)
        try:
            wanted = wanted_range(request.fields, stored, size) if request.method == "GET" else None
        except RangeNotSatisfiable:
            return problem(416, f"the file has {size} bytes", (content_range(None, size),), BRIEF)
    first, length = (0, size) if wanted is None else (wanted.first, wanted.size)
    fields = ((b"Content-Type", kind), *fields, (b"Content-Length", b"%d" % length))
    if wanted is not None:
        fields = (*fields, content_range(wanted, size))
    return FileResponse(200 if wanted is None else 206, fields, handle, first, length)
