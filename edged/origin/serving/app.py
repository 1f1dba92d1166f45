"""The feed over HTTP as an ASGI application: heads with a long poll, roots of trust, blobs with ranges; nothing else.

Paths are matched whole against what a feed can hold, so nothing outside it has a name here. Headers are few: devices
poll the head all day.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import trio

from edged.feed.head import Head
from edged.feed.names import NAME
from edged.http.problem import MEDIA, problem_body
from edged.http.ranges import RangeNotSatisfiable, content_range, wanted_range
from edged.http.validators import names_tag, not_modified
from edged.origin.serving.heads import Heads, PublicHead

WAIT_S = 300  # the longest that a request is held
PIECE_BYTES = 256 << 10
FILES = r"(?P<head>head)|trust/(?P<trust>[1-9][0-9]{0,8})|blobs/(?P<blob>[0-9a-f]{64})"
ROUTE = re.compile(rf"/(?P<dataset>{NAME.pattern})/(?:{FILES})", re.ASCII)

IMMUTABLE = b"public, max-age=31536000, immutable"
BRIEF = b"max-age=1"

Headers = list[tuple[bytes, bytes]]
Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """file: what to send of an open file instead of `body`: (descriptor, offset, length)."""

    status: int
    headers: Headers
    body: bytes = b""
    file: tuple[int, int, int] | None = None

    @property
    def length(self) -> int:
        return self.file[2] if self.file else len(self.body)


class FeedApp:
    """Serves the feeds below `public`."""

    def __init__(self, public: Path, heads: Heads) -> None:
        self.public, self.heads = public, heads

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"serve feed: a {scope['type']} scope; only http is served")
        headers = {name.lower(): value for name, value in scope["headers"]}
        answer = await self.answer(scope, headers, receive)
        if answer is None:
            return  # the client has gone
        try:
            await send_answer(answer, scope["method"] == "HEAD", send)
        finally:
            if answer.file:
                os.close(answer.file[0])

    async def answer(self, scope: Any, headers: dict[bytes, bytes], receive: Receive) -> Answer | None:
        if scope["method"] not in ("GET", "HEAD"):
            return problem(405, "only GET and HEAD", [(b"allow", b"GET, HEAD")])
        path = scope["path"]
        if path == "/":
            return self.listing()
        route = ROUTE.fullmatch(path)
        if route is None or ".." in route["dataset"]:
            return problem(404, "not a path of a feed")
        base = self.public / route["dataset"]
        if route["head"]:
            return await self.head(route["dataset"], scope["query_string"], headers, receive)
        if route["trust"]:
            return open_file(base / "trust" / route["trust"], b"application/cose", IMMUTABLE, None, headers)
        return open_file(
            base / "blobs" / route["blob"], b"application/octet-stream", IMMUTABLE, route["blob"].encode(), headers
        )

    def listing(self) -> Answer:
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
        return Answer(200, [(b"content-type", b"application/json"), (b"cache-control", BRIEF)], body)

    async def head(self, dataset: str, query: bytes, headers: dict[bytes, bytes], receive: Receive) -> Answer | None:
        try:
            after, wait_s = read_poll(query)
        except ValueError as fault:
            return problem(400, str(fault))
        if after is None:
            found = self.heads.current(dataset)
        else:
            arrived, found = await self.held(dataset, after, wait_s, headers.get(b"if-none-match"), receive)
            if not arrived:
                return None
        if found is None:
            return problem(404, "no such dataset")
        same = names_tag(headers.get(b"if-none-match", b""), found.etag)
        common = [(b"etag", found.etag), (b"cache-control", BRIEF)]
        if same:
            return Answer(304, common)
        if after is not None and found.newest_version <= after and b"if-none-match" not in headers:
            return Answer(204, common)
        return Answer(200, [(b"content-type", b"application/cose"), *common], found.data)

    async def held(
        self, dataset: str, after: int, wait_s: int, tags: bytes | None, receive: Receive
    ) -> tuple[bool, PublicHead | None]:
        """(whether the client is still there, the head): as soon as it has news, or after `wait_s`. tags: of the
        heads that the client has; None: it did not say."""

        def is_known(head: PublicHead) -> bool:
            return tags is None or names_tag(tags, head.etag)

        result: tuple[bool, PublicHead | None] = (False, None)

        async def leave() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass  # a body that nobody asked for
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            result = (True, await self.heads.newer(dataset, after, wait_s, is_known))
            nursery.cancel_scope.cancel()
        return result


def offered(head: Head) -> dict[str, Any] | None:
    return None if head.offer is None else {"version": head.offer.version, "permille": head.offer.permille}


def read_poll(query: bytes) -> tuple[int | None, int]:
    """(`after`, `wait`) of the query; None where it asks for no poll. Raises ValueError for what is not a number."""
    numbers: dict[str, int] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=8):
        if name in ("after", "wait"):
            if not value.isascii() or not value.isdigit() or len(value) > 18:
                raise ValueError(f"{name}: expected a whole number")
            numbers[name] = int(value)
    return numbers.get("after"), min(numbers.get("wait", 0), WAIT_S)


def open_file(path: Path, kind: bytes, caching: bytes, tag: bytes | None, headers: dict[bytes, bytes]) -> Answer:
    """The file, or the range of it that is asked for. tag: its ETag without quotes, if it never changes."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return problem(404, "no such file in the feed")
    size = os.fstat(handle).st_size
    common: Headers = [(b"cache-control", caching)]
    if tag is not None:
        etag = b'"%s"' % tag
        common += [(b"etag", etag), (b"accept-ranges", b"bytes")]
        asked, stored = tuple(headers.items()), tuple(common)
        if not_modified(asked, stored):
            os.close(handle)
            return Answer(304, common)
        try:
            wanted = wanted_range(asked, stored, size)
        except RangeNotSatisfiable:
            os.close(handle)
            return problem(416, f"the file has {size} bytes", [content_range(None, size)])
        if wanted is not None:
            partial = [(b"content-type", kind), *common, content_range(wanted, size)]
            return Answer(206, partial, file=(handle, wanted.first, wanted.size))
    return Answer(200, [(b"content-type", kind), *common], file=(handle, 0, size))


def problem(status: int, detail: str, headers: Headers | None = None) -> Answer:
    """RFC 9457. Cached briefly: a root of trust or a dataset that is missing now may be there in a second."""
    body = problem_body(status, detail)
    kind = [(b"content-type", MEDIA), (b"cache-control", BRIEF)]
    return Answer(status, [*kind, *(headers or [])], body)


async def send_answer(answer: Answer, head_only: bool, send: Send) -> None:
    headers = list(answer.headers)
    if answer.status not in (204, 304):
        headers.append((b"content-length", b"%d" % answer.length))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.file and not head_only:
        handle, at, left = answer.file
        while left:
            piece = await trio.to_thread.run_sync(os.pread, handle, min(left, PIECE_BYTES), at)
            if not piece:
                raise OSError("serve feed: a file became shorter while it was sent")
            at, left = at + len(piece), left - len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if head_only or answer.file else answer.body})
