"""Lets requests through to whoever answers: of which app each is, whether it may ask for that, and not too often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from edged.access.apps import Access, CrowdedError
from edged.access.identity import Identity, Peer, attested, identify
from edged.access.rights import App
from edged.errors import RequestError
from edged.http.application import Answer, Application, Held, InThread, OnWebSocket, Response, Stream, StreamOver
from edged.http.request import Request, split_target
from edged.pages.page import PREFIX, page
from edged.serve.answers.respond import DECIDING, Inquiry, Service, contain
from edged.serve.answers.routes import is_own
from edged.serve.counting import Counting, RouteOf, counted_sending

NOBODY = ("unknown", "")  # name and audience of who has no credential of an app
PAGES = PREFIX.encode()
CHANGED = "what this app may ask for was changed; ask again"


class Guard(Application):
    """In front of `inner`. Without configured apps it is not in the way.

    A request is judged anew each time, on whatever connection it comes: by what the kernel says of the peer and by its
    credential, which is among the fields that decide a remembered answer. Answers to apps with a rate are not
    remembered, as each has to be counted first.
    """

    deciding = DECIDING

    def __init__(
        self, inner: Application, service: Service, access: Access, counting: Counting, home: str = ""
    ) -> None:
        """home: the page at `/`, which holds no data and is for whoever asks; "" for none."""
        self.inner, self.service, self.access, self.counting, self.home = inner, service, access, counting, home
        self.route_of: RouteOf | None = counting.route_of
        self.generation = inner.generation  # type: ignore[method-assign]  # asked all the time
        self.replaced = trio.Event()
        # What takes time is made for others than the internal audience one at a time, beside the internal one's own.
        self.limiters = {audience: trio.CapacityLimiter(1) for audience in ("partner", "public")}
        access.on_replaced = self.on_replaced

    def on_replaced(self) -> None:
        """Nothing that is remembered is given again, and who is held or follows is looked at."""
        self.service.rights = self.access.number
        news = self.service.news
        news.moved.move()
        for signal in list(news.signals.values()):
            signal.move()
        replaced, self.replaced = self.replaced, trio.Event()
        replaced.set()

    @property
    def judges(self) -> bool:  # type: ignore[override]  # nobody sets it
        return bool(self.access.apps)

    def left(self, peer: Peer) -> None:
        self.access.leave(peer)

    def identify(self, peer: Peer) -> Identity:
        return attested(peer, with_exe=self.access.with_exe) if self.access.apps else identify(peer)

    def answer(self, request: Request) -> Answer:
        if self.home and (found := self.page_of(request)) is not None:
            return found
        if not self.access.apps:
            tally = self.counting.tally_of(request.who.name, request.who.audience, request)
            return self.counting.made_by(partial(self.inner.answer, request), tally)
        return contain(Inquiry(self.service, request, self.service.clock()), self.judged)

    def page_of(self, request: Request) -> Answer | None:
        """A page for people, or a file of it; None for everything else."""
        path = request.target.partition(b"?")[0]
        if request.method not in ("GET", "HEAD") or not (path == b"/" or path.startswith(PAGES)):
            return None
        if not self.service.hosts.admits(request):
            return None
        return page(path.decode("ascii", "replace"), self.home, request)

    def judged(self, inquiry: Inquiry) -> Answer:
        """Raises RequestError 401, 403, 421, 429."""
        request = inquiry.request
        asterisk = request.method == "OPTIONS" and request.target == b"*"
        if asterisk or request.method == "CONNECT":
            return self.inner.answer(request)
        authority, path, _ = split_target(request.target)
        self.service.hosts.check(request, authority)
        if request.method == "OPTIONS":  # a preflight has no credential, and is told nothing but the rules of CORS
            return self.service.cors.options(request)
        try:
            app, passed = self.admit(request, path)
        except RequestError as fault:
            who = NOBODY if request.who.app is None else (request.who.name, request.who.audience)
            found = contain(inquiry, partial(refuse, fault))
            if isinstance(fault, CrowdedError):
                assert isinstance(found, Response)
                found = replace(found, last=True)
            return self.counting.counted(found, self.counting.tally_of(*who, request))
        tally = self.counting.tally_of(app.name, app.audience, passed)
        return self.counting.made_by(lambda: self.followed(app, passed, self.inner.answer(passed)), tally)

    def admit(self, request: Request, path: bytes) -> tuple[App, Request]:
        """The app, and the request as it goes on: of this app, without the credential that was for edged. Says of
        `request` whose it is, for whoever tells of it, and for its connection's turns.
        """
        own = is_own(path)
        app, is_ours = self.access.app_of(request.who, credential(request), proxied=not own)
        request.who = who = replace(request.who, name=app.name, audience=app.audience, app=app)
        self.access.bear(app, request.peer)
        self.access.take(app, trio.current_time())
        if not own:
            try:
                app.rights.require_route(self.route_of(path) if self.route_of is not None else None)
            except RequestError:
                self.access.counts[app.name].refused += 1
                raise
        fields = request.fields
        if is_ours:
            fields = tuple(field for field in fields if field[0] != b"authorization")
        passed = Request(request.method, request.target, fields, request.version, request.peer, who)
        passed.body = request.body
        return app, passed

    def followed(self, app: App, request: Request, answer: Answer) -> Answer:
        """The answer, counted where it is a refusal; what goes on for long ends when the app's rights change."""
        match answer:
            case Response():
                if answer.status == 403:
                    self.access.counts[app.name].refused += 1
                return replace(answer, keep=False) if app.rate is not None else answer
            case InThread(work, limiter):
                own = self.limiters.get(app.audience, limiter)
                return InThread(lambda: self.followed(app, request, work()), own)
            case Held(resume=resume):
                return replace(answer, resume=partial(self.resumed, app, request, resume))
            case Stream(follow=follow) if follow is not None:
                return replace(answer, follow=partial(self.pieces, app, follow))
        return answer

    def resumed(self, app: App, request: Request, resume: Callable[[bool], Answer], last: bool) -> Answer:
        if self.access.still(app):
            return self.followed(app, request, resume(last))
        return contain(Inquiry(self.service, request, self.service.clock()), changed)

    def pieces(self, app: App, follow: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        """Raises StreamOver, at which the client asks again, where the app's rights have changed."""
        if not self.access.still(app):
            raise StreamOver
        return follow()

    # ---- WebSockets

    def on_websocket(self, request: Request) -> OnWebSocket:
        if not self.access.apps:
            return self.inner.on_websocket(request)
        try:
            _, path, _ = split_target(request.target)
            _, passed = self.admit(request, path)
        except RequestError:
            return "refuse"
        return self.inner.on_websocket(passed)

    async def websocket(
        self, request: Request, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if not self.access.apps:
            tally = self.counting.tally_of(request.who.name, request.who.audience, request)
            await self.inner.websocket(request, receive, counted_sending(send, tally))
            return
        app, ours = self.access.app_of(request.who, credential(request), proxied=True)
        fields = tuple(field for field in request.fields if not ours or field[0] != b"authorization")
        who = replace(request.who, name=app.name, audience=app.audience, app=app)
        passed = Request(request.method, request.target, fields, request.version, request.peer, who)
        send = counted_sending(send, self.counting.tally_of(app.name, app.audience, passed))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.end_when_changed, app, nursery.cancel_scope)
            await self.inner.websocket(passed, receive, send)
            nursery.cancel_scope.cancel()

    async def end_when_changed(self, app: App, scope: trio.CancelScope) -> None:
        while self.access.still(app):
            await self.replaced.wait()
        scope.cancel()


def credential(request: Request) -> str | None:
    """Raises RequestError 400 for several: one of them would be judged, another one would go on."""
    if sum(name == b"authorization" for name, _ in request.fields) > 1:
        raise RequestError(400, "Authorization: expected once (RFC 9110 section 11.6.2); send one of them")
    return request.get(b"authorization")


def refuse(fault: RequestError, _: Inquiry) -> Answer:
    raise fault


def changed(_: Inquiry) -> Answer:
    raise RequestError(403, CHANGED)
