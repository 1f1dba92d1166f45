"""The admin listener: what it shows, and who it refuses."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import pytest

from edged.errors import ChainError
from edged.http.application import ByTask, Disconnected, InThread, Response, run_in_thread
from edged.http.fields import Fields
from edged.http.request import Request
from edged.ops.admin import AdminApp


class Daemon:
    def __init__(self) -> None:
        self.missing: list[str] = []
        self.pinned: dict[str, int | None] = {}

    def status(self) -> dict[str, Any]:
        return {"datasets": {"catalog": {"version": 3}}}

    def not_ready(self) -> list[str]:
        return self.missing

    def metrics(self) -> bytes:
        return b"edged_up 1\n"

    def usage(self) -> Callable[[], dict[str, Any]]:
        return lambda: {"days": []}

    def recent(self) -> dict[str, Any]:
        return {"minutes": []}

    async def pin(self, dataset: str, version: int | None) -> dict[str, Any]:
        if version is not None and version > 9:
            raise ChainError("no path leads there")
        self.pinned[dataset] = version
        return {"dataset": dataset, "pinned": version}


class Written:
    """A Client that keeps what is written, and a request with a body in pieces."""

    def __init__(self, body: bytes, *, broken: bool = False) -> None:
        self.request, self.broken = body, broken
        self.status, self.fields, self.answer = 0, {}, b""  # type: int, dict[str, str], bytes

    async def body(self) -> AsyncGenerator[bytes, None]:
        for start in range(0, len(self.request), 1000):
            yield self.request[start : start + 1000]
        if self.broken:
            raise Disconnected

    def when_gone(self, act: Callable[[], None] | None) -> None:
        """Never."""

    async def interim(self, status: int, fields: Fields) -> None:
        raise AssertionError(status)

    async def start(self, status: int, fields: Fields) -> None:
        self.status, self.fields = status, {name.decode().lower(): value.decode() for name, value in fields}

    async def write(self, data: bytes) -> None:
        self.answer += data

    async def end(self, data: bytes = b"") -> None:
        self.answer += data


async def ask(
    daemon: Daemon,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    broken: bool = False,
) -> tuple[int, dict[str, str], bytes]:
    fields = {"host": "127.0.0.1:8485", **{name.lower(): value for name, value in (headers or {}).items()}}
    request = Request(method, path.encode(), tuple((name.encode(), value.encode()) for name, value in fields.items()))
    answer = AdminApp(daemon).answer(request)
    if isinstance(answer, InThread):
        answer = await run_in_thread(answer, request)
    if isinstance(answer, Response):
        return answer.status, {name.decode().lower(): value.decode() for name, value in answer.fields}, answer.body
    assert isinstance(answer, ByTask)
    client = Written(body, broken=broken)
    await answer.run(client)
    return client.status, client.fields, client.answer


async def test_health_is_alive_and_readiness_names_what_is_missing() -> None:
    daemon = Daemon()
    assert (await ask(daemon, "GET", "/healthz"))[0] == 200
    assert (await ask(daemon, "GET", "/readyz"))[0] == 200
    daemon.missing = ["catalog"]
    status, _, body = await ask(daemon, "GET", "/readyz")
    assert status == 503
    assert b"catalog" in body


async def test_status_and_metrics_are_shown() -> None:
    status, headers, body = await ask(Daemon(), "GET", "/status")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["datasets"]["catalog"]["version"] == 3
    assert (await ask(Daemon(), "GET", "/metrics"))[2] == b"edged_up 1\n"


async def test_head_has_the_length() -> None:
    status, headers, body = await ask(Daemon(), "HEAD", "/metrics")
    assert (status, headers["content-length"], body) == (200, "11", b"edged_up 1\n")  # the lane drops the body


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8485", "localhost.evil.example"])
async def test_dns_rebinding_by_a_name_is_refused(host: str) -> None:
    assert (await ask(Daemon(), "GET", "/status", {"Host": host}))[0] == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8485", "[::1]:8485", "192.0.2.7"])
async def test_an_address_or_localhost_is_answered(host: str) -> None:
    assert (await ask(Daemon(), "GET", "/status", {"Host": host}))[0] == 200


async def test_a_web_page_cannot_pin_without_the_control_header() -> None:
    daemon = Daemon()
    body = b'{"dataset": "catalog", "version": 3}'
    assert (await ask(daemon, "POST", "/pin", {"Content-Type": "text/plain"}, body))[0] == 403
    assert daemon.pinned == {}


async def test_pin_and_unpin() -> None:
    daemon = Daemon()
    control = {"Edged-Control": "1"}
    assert (await ask(daemon, "POST", "/pin", control, b'{"dataset": "catalog", "version": 3}'))[0] == 200
    assert daemon.pinned == {"catalog": 3}
    assert (await ask(daemon, "POST", "/unpin", control, b'{"dataset": "catalog"}'))[0] == 200
    assert daemon.pinned == {"catalog": None}
    status, headers, body = await ask(daemon, "POST", "/pin", control, b'{"dataset": "catalog", "version": 99}')
    assert (status, headers["content-type"]) == (409, "application/problem+json")
    assert json.loads(body)["detail"] == "no path leads there"


@pytest.mark.parametrize("version", [b"true", b"false", b"0", b"-3", b"3.0", b'"3"', b"null"])
async def test_a_pin_takes_a_version_and_nothing_like_one(version: bytes) -> None:
    daemon = Daemon()
    body = b'{"dataset": "catalog", "version": %b}' % version
    status, _, answer = await ask(daemon, "POST", "/pin", {"Edged-Control": "1"}, body)
    assert (status, daemon.pinned) == (400, {})
    assert "NUMBER from 1 on" in json.loads(answer)["detail"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"dataset": 1}', b"[" * 30_000, b'{"dataset": "catalog"}'])
async def test_a_malformed_pin_is_400(body: bytes) -> None:
    assert (await ask(Daemon(), "POST", "/pin", {"Edged-Control": "1"}, body))[0] == 400


async def test_a_body_that_breaks_off_is_400() -> None:
    body = b'{"dataset": "catalog", "version": 3}'
    daemon = Daemon()
    status, _, answer = await ask(daemon, "POST", "/pin", {"Edged-Control": "1"}, body, broken=True)
    assert (status, json.loads(answer)["detail"]) == (400, "the body ended early")
    assert daemon.pinned == {}


async def test_an_endless_body_is_cut() -> None:
    assert (await ask(Daemon(), "POST", "/pin", {"Edged-Control": "1"}, b" " * 70_000))[0] == 413


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nope", 404), ("POST", "/status", 405), ("GET", "/pin", 405)]
)
async def test_wrong_paths_and_methods(method: str, path: str, status: int) -> None:
    assert (await ask(Daemon(), method, path))[0] == status
