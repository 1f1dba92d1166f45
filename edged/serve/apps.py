"""What apps ask, as an Application: the API from the replica, and beside it what else is routed (proxied services)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from edged.errors import RequestError
from edged.http.application import Answer, Application, InThread, OnWebSocket
from edged.http.request import Request, is_origin_form, split_target
from edged.serve.answers.respond import DECIDING, Service
from edged.serve.answers.routes import answer, is_own, may_be_slow


class Api(Application):
    """The API alone."""

    deciding = DECIDING

    def __init__(self, service: Service) -> None:
        self.service = service
        self.news = service.news

    def generation(self) -> int:
        self.news.look()
        return self.news.moved.generation

    def answer(self, request: Request) -> Answer:
        service = self.service
        if may_be_slow(request.target.partition(b"?")[2]):
            return InThread(partial(answer, service, request, service.clock(), in_thread=True), service.slow)
        return answer(service, request, service.clock())


class Apps(Application):
    """The API, and `others` for every other path: those know nothing of hosts and web pages, so that is judged here."""

    deciding = DECIDING

    def __init__(self, api: Api, others: Application) -> None:
        self.api = api
        self.others = others
        self.hosts, self.cors = api.service.hosts, api.service.cors
        self.generation = api.generation  # type: ignore[method-assign]  # asked all the time

    def answer(self, request: Request) -> Answer:
        foreign = self.foreign(request)
        return self.api.answer(request) if foreign is None else self.others.answer(foreign)

    def foreign(self, request: Request) -> Request | None:
        """The request as `others` gets it, in origin form; None where it is the API's to answer, if only with 421."""
        if is_origin_form(request.target):
            if is_own(request.target.partition(b"?")[0]) or not self.hosts.admits(request):
                return None
            return request
        try:
            authority, path, query = split_target(request.target)
            self.hosts.check(request, authority)
        except RequestError:
            return None
        if authority is None or is_own(path):
            return None
        # The authority of an absolute-form target takes Host's place (RFC 9112 section 3.2.2).
        fields = ((b"host", authority.encode()), *(pair for pair in request.fields if pair[0] != b"host"))
        target = path + (b"?" + query if query else b"")
        found = Request(request.method, target, fields, request.version, request.peer, request.who)
        found.body = request.body
        return found

    def on_websocket(self, request: Request) -> OnWebSocket:
        """Not for pages of origins that are not allowed: CORS does not hold for WebSockets."""
        if is_own(request.target.partition(b"?")[0]):
            return "ignore"
        foreign = self.foreign(request)
        if foreign is None or not self.cors.admits_page(request):
            return "refuse"
        return self.others.on_websocket(foreign)

    async def websocket(
        self, request: Request, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        foreign = self.foreign(request)
        assert foreign is not None
        await self.others.websocket(foreign, receive, send)
